//! The runs themselves: every algorithm in turn, round after round, so that a disturbance of the machine meets all of
//! them and not the one that happened to run.

use super::laboratory::Effort;
use super::precision::OUTPUT_ZERO;
use planish_cpu::conv::reference::Reference;
use planish_cpu::conv::{ConvCall, ConvElement, ConvProblem, PreparedConv};
use planish_cpu::element::Element;
use planish_cpu::epilogue::{Epilogue, Levels};
use planish_cpu::for_element;
use planish_cpu::threads::ThreadPool;
use planish_cpu::view::{Rows, RowsMut};
use planish_graph::{DType, Error, Result, Tensor};
use std::time::Instant;

/// Elements of the output that are compared at least, and at most.
const SAMPLES: [u64; 2] = [16, 1 << 20];
/// Rounds at most: more would only take memory.
const MOST_ROUNDS: usize = 100_000;

/// Whoever took fewer milliseconds than this is not hopeless yet: another program's turn may have been most of them.
const DISTURBANCE: f64 = 50.0;

/// An algorithm that is ready to run.
pub struct Candidate {
    /// Its name.
    pub algorithm: &'static str,
    /// Its packed weights.
    pub prepared: Box<dyn PreparedConv>,
    /// The numbers of workspace it needs.
    pub workspace: usize,
    /// Milliseconds that its cost comes to.
    pub estimated_ms: f64,
}

/// What the runs of an algorithm gave.
pub struct Runs {
    /// Milliseconds of each.
    pub times: Vec<f64>,
    /// The error's norm over the result's.
    pub relative_l2: f64,
    /// The largest difference from the reference.
    pub largest_error: f64,
}

/// The runs of one convolution. All algorithms share input, output and workspace.
pub struct Rounds<'a> {
    problem: &'a ConvProblem,
    pool: &'a ThreadPool,
    input: &'a Tensor,
    candidates: Vec<Candidate>,
    output: Tensor,
    workspace: Tensor,
}

impl<'a> Rounds<'a> {
    /// Takes the memory.
    pub fn new(
        problem: &'a ConvProblem,
        pool: &'a ThreadPool,
        input: &'a Tensor,
        candidates: Vec<Candidate>,
        workspace: usize,
    ) -> Result<Rounds<'a>> {
        let output = Tensor::zeros(input.dtype(), &[problem.out_rows(), problem.out_channels])?;
        let workspace = Tensor::zeros(DType::F32, &[workspace])?;
        Ok(Rounds { problem, pool, input, candidates, output, workspace })
    }

    /// Warms up, compares `elements` of each result with `exact`, then times.
    pub fn measure(
        mut self,
        effort: Effort,
        elements: &[usize],
        exact: &Reference,
    ) -> Result<Vec<(Candidate, Runs)>> {
        let pool = self.pool;
        let _active = pool.activate();
        let mut first = Vec::new();
        let mut all = Vec::new();
        for candidate in 0..self.candidates.len() {
            // An element that an algorithm forgets must not hold the result of the one before.
            for_element!(self.problem.element, T => {
                self.output.as_mut_slice::<T>()?.fill(T::from_f32(f32::NAN));
            });
            first.push(self.run(candidate)?);
            let (relative_l2, largest_error) = errors(&self.output.to_f32s(), elements, &exact.sums);
            all.push(Runs { times: Vec::new(), relative_l2, largest_error });
        }
        let fastest = first.iter().copied().fold(f64::INFINITY, f64::min);
        let limit = (effort.hopeless * fastest).max(DISTURBANCE);
        let begun = Instant::now();
        for round in 0..MOST_ROUNDS {
            if round >= effort.rounds && begun.elapsed().as_secs_f64() >= effort.seconds {
                break;
            }
            for candidate in (0..all.len()).filter(|&c| first[c] <= limit) {
                let time = self.run(candidate)?;
                all[candidate].times.push(time);
            }
        }
        for (runs, first) in all.iter_mut().zip(first) {
            if runs.times.is_empty() {
                runs.times.push(first);
            }
        }
        Ok(self.candidates.into_iter().zip(all).collect())
    }

    /// One run of a candidate, in milliseconds.
    fn run(&mut self, candidate: usize) -> Result<f64> {
        for_element!(self.problem.element, T => self.run_on::<T>(candidate))
    }

    fn run_on<T: ConvElement + planish_graph::Element>(&mut self, candidate: usize) -> Result<f64> {
        let problem = self.problem;
        let wrong = |e| Error::invalid(format!("{e}"));
        let input = Rows::dense(self.input.as_slice::<T>()?, problem.in_rows(), problem.in_channels)
            .map_err(wrong)?;
        let output = self.output.as_mut_slice::<T>()?;
        let output = RowsMut::dense(output, problem.out_rows(), problem.out_channels).map_err(wrong)?;
        let workspace = self.workspace.as_mut_slice()?;
        let prepared = &self.candidates[candidate].prepared;
        let levels = Levels { zero: OUTPUT_ZERO, ..Levels::default() };
        let epilogue = Epilogue { levels, ..Epilogue::default() };
        let call = ConvCall { input, epilogue, output, workspace };
        let start = Instant::now();
        prepared.run(problem, self.pool, call).map_err(Error::invalid)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}

/// Relative L2 norm and largest difference of `elements` of `output` from their exact values.
fn errors(output: &[f32], elements: &[usize], exact: &[f64]) -> (f64, f64) {
    let (mut difference, mut norm, mut largest) = (0f64, 0f64, 0f64);
    for (&element, &exact) in elements.iter().zip(exact) {
        let d = (f64::from(output[element]) - exact).abs();
        difference += d * d;
        norm += exact * exact;
        // Unlike `max`, this keeps what is no number.
        largest = if d <= largest || largest.is_nan() { largest } else { d };
    }
    let relative = if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() };
    (relative, largest)
}

/// The elements of the output that are compared: all of them where the reference may take so many multiply-accumulates,
/// else some, spread at random but the same in every run.
pub fn samples(problem: &ConvProblem, macs: u64) -> Vec<usize> {
    let total = (problem.out_rows() * problem.out_channels) as u64;
    let each = (problem.group_in() * problem.taps()) as u64;
    let wanted = (macs / each).clamp(SAMPLES[0], SAMPLES[1]);
    if wanted >= total {
        return (0..total as usize).collect();
    }
    let mut next = generator(4);
    (0..wanted).map(|_| (next() % total) as usize).collect()
}

/// Numbers between -1 and 1 that look random, the same for the same seed.
pub fn noise(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut tensor = Tensor::zeros(DType::F32, shape)?;
    let mut next = generator(seed);
    for x in tensor.as_mut_slice::<f32>()? {
        *x = (next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    }
    Ok(tensor)
}

/// Marsaglia's xorshift.
fn generator(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_no_number_is_not_lost() {
        assert_eq!(errors(&[1.0, 5.0, 3.0], &[0, 2], &[1.0, 4.0]), ((1.0f64 / 17.0).sqrt(), 1.0));
        assert_eq!(errors(&[0.0], &[0], &[0.0]), (0.0, 0.0));
        let (relative, largest) = errors(&[1.0, f32::NAN, 1.0], &[0, 1, 2], &[1.0, 1.0, 0.0]);
        assert!(relative.is_nan() && largest.is_nan());
    }

    #[test]
    fn large_problems_are_sampled() {
        let problem = ConvProblem::new_2d(1, 8, 4, [10, 10], [1, 1]);
        assert_eq!(samples(&problem, 8 * 400), (0..400).collect::<Vec<_>>());
        assert_eq!(samples(&problem, 8 * 399).len(), 399);
        assert!(samples(&problem, 8 * 399).iter().all(|&e| e < 400));
        assert_eq!(samples(&problem, 1).len(), 16);
    }
}
