//! Times a convolution's algorithms as they would run inside a network.
//!
//! Repeating one kernel flatters it: its weights lie in the second-level cache by then. In a network all other layers
//! pass between two runs of one, while its input was written just before. So before each run the second-level caches are
//! filled with something else, and then the input is read once. Candidates take turns, round after round, so that a
//! disturbance of the machine meets all of them, and the fastest of an algorithm's rounds counts: whatever is slower was
//! disturbed.

use crate::run::environment::Stored;
use planish_cpu::conv::{ConvCall, ConvElement, ConvProblem, PreparedConv};
use planish_cpu::element::Element;
use planish_cpu::epilogue::Epilogue;
use planish_cpu::for_element;
use planish_cpu::threads::ThreadPool;
use planish_cpu::view::{Rows, RowsMut};
use planish_graph::{DType, Error, Result, Tensor};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The numbers that push everything else out of a second-level cache: twice the 2 MiB of the largest of today.
const EVICTING: usize = 1 << 20;

/// Memory to run convolutions in, which grows to what the largest needs.
pub struct Bench<'a> {
    pool: &'a ThreadPool,
    evicting: Tensor,
    input: Tensor,
    output: Tensor,
    workspace: Tensor,
}

/// How long candidates are timed.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds at least and at most, after one to warm up.
    pub rounds: [usize; 2],
    /// No round beyond the least begins after this.
    pub time: Duration,
    /// Candidates that took this many times as long as the fastest in two rounds are not run again.
    pub beaten: f64,
}

impl<'a> Bench<'a> {
    /// Takes memory for nothing but the caches yet.
    pub fn new(pool: &'a ThreadPool) -> Result<Bench<'a>> {
        let nothing = || Tensor::zeros(DType::F32, &[0]);
        let evicting = Tensor::zeros(DType::F32, &[EVICTING])?;
        Ok(Bench { pool, evicting, input: nothing()?, output: nothing()?, workspace: nothing()? })
    }

    /// The least milliseconds of each candidate. An error where the memory is not there, or a candidate refuses.
    pub fn race(
        &mut self,
        problem: &ConvProblem,
        candidates: &[&dyn PreparedConv],
        effort: Effort,
    ) -> Result<Vec<f64>> {
        let begun = Instant::now();
        let pool = self.pool;
        let _active = pool.activate();
        for candidate in candidates {
            self.run(problem, *candidate)?;
        }
        let mut best = vec![f64::INFINITY; candidates.len()];
        for round in 0..effort.rounds[1] {
            if round >= effort.rounds[0] && begun.elapsed() > effort.time {
                break;
            }
            let limit = effort.beaten * best.iter().copied().fold(f64::INFINITY, f64::min);
            for (candidate, best) in candidates.iter().zip(&mut best) {
                // One round may have been disturbed, two hardly.
                if round < 2 || *best <= limit {
                    *best = best.min(self.run(problem, *candidate)?);
                }
            }
        }
        Ok(best)
    }

    /// One run, in milliseconds.
    fn run(&mut self, problem: &ConvProblem, prepared: &dyn PreparedConv) -> Result<f64> {
        for_element!(problem.element, T => self.run_on::<T>(problem, prepared))
    }

    /// [`Bench::run`] on the problem's element.
    fn run_on<T: ConvElement + Stored>(
        &mut self,
        problem: &ConvProblem,
        prepared: &dyn PreparedConv,
    ) -> Result<f64> {
        let (in_rows, out_rows) = (problem.in_rows(), problem.out_rows());
        let input_len = in_rows.saturating_mul(problem.in_channels);
        let output_len = out_rows.saturating_mul(problem.out_channels);
        if grown::<T>(&mut self.input, input_len)? {
            // Anything but zeros and denormals.
            for (i, x) in self.input.as_mut_slice::<T>()?.iter_mut().enumerate() {
                *x = <T as Element>::from_f32((i % 17) as f32 * 0.1 - 0.8);
            }
        }
        let workspace = prepared.workspace_len(problem, self.pool.threads());
        grown::<T>(&mut self.output, output_len)?;
        grown::<f32>(&mut self.workspace, workspace)?;
        let input = &self.input.as_slice::<T>()?[..input_len];
        let evicting = self.evicting.as_slice::<f32>()?;
        self.pool.run(self.pool.threads(), &|_| touch(evicting));
        self.pool.run_ranges(input_len, 1 << 14, |part| touch(&input[part]));
        let from =
            Rows::dense(input, in_rows, problem.in_channels).map_err(|e| Error::invalid(e.to_string()))?;
        let output = &mut self.output.as_mut_slice::<T>()?[..output_len];
        let to = RowsMut::dense(output, out_rows, problem.out_channels);
        let to = to.map_err(|e| Error::invalid(e.to_string()))?;
        let workspace = &mut self.workspace.as_mut_slice::<f32>()?[..workspace];
        let call = ConvCall { input: from, epilogue: Epilogue::default(), output: to, workspace };
        let start = Instant::now();
        prepared.run(problem, self.pool, call).map_err(Error::invalid)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}

/// Makes a tensor at least `len` numbers of this element long; whether it had to.
fn grown<T: planish_graph::Element>(tensor: &mut Tensor, len: usize) -> Result<bool> {
    if tensor.as_slice::<T>().is_ok_and(|numbers| numbers.len() >= len) {
        return Ok(false);
    }
    *tensor = Tensor::zeros(T::DTYPE, &[len])?;
    Ok(true)
}

/// Reads a number of every cache line.
fn touch<T: Copy>(numbers: &[T]) {
    for line in numbers.chunks(64 / size_of::<T>()) {
        black_box(line[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_cpu::conv::{Weights, algorithms};
    use planish_cpu::element::ElementType;
    use planish_cpu::isa::Isa;

    #[test]
    fn every_candidate_is_timed() {
        let pool = ThreadPool::new(2);
        let mut bench = Bench::new(&pool).unwrap();
        // Memory that was taken for one element serves the other, too.
        for element in [ElementType::F32, ElementType::Bf16, ElementType::F32] {
            let problem = ConvProblem { element, ..ConvProblem::new_2d(1, 8, 8, [12, 12], [3, 3]) };
            time_all(&problem, &mut bench);
        }
    }

    fn time_all(problem: &ConvProblem, bench: &mut Bench<'_>) {
        let weights = vec![0.5; problem.weights_len()];
        let able = algorithms().iter().filter(|a| a.accepts(problem, Isa::Portable).is_ok());
        let prepared: Vec<_> =
            able.map(|a| a.prepare(problem, Isa::Portable, Weights::new(&weights, None)).unwrap()).collect();
        let candidates: Vec<&dyn PreparedConv> = prepared.iter().map(|p| p.as_ref()).collect();
        let effort = Effort { rounds: [2, 3], time: Duration::ZERO, beaten: 1.5 };
        let times = bench.race(problem, &candidates, effort).unwrap();
        assert!(times.len() == candidates.len() && times.iter().all(|t| t.is_finite() && *t > 0.0));
    }
}
