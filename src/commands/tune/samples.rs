//! The measurements that rates are fitted to: taken here, or read from an earlier report.

use super::shapes;
use crate::commands::conv::shape;
use planish::report::progress::Progress;
use planish_cpu::conv::{ConvAlgorithm, ConvProblem, PreparedConv, Weights, algorithms};
use planish_cpu::copy::to_channels_last;
use planish_cpu::element::ElementType;
use planish_cpu::isa::Isa;
use planish_cpu::rates::{Rate, Rates, Work};
use planish_cpu::threads::ThreadPool;
use planish_cpu::view::RowsMut;
use planish_engine::plan::fit::Sample;
use planish_engine::plan::measure::{Bench, Effort};
use planish_graph::{DType, Error, Result, Tensor};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// What changing the layout of a value is called among the algorithms.
const LAYOUT_CHANGE: &str = "layout change";
/// Algorithms that the default rates estimate this many times slower than the cheapest are not measured.
const HOPELESS: f64 = 8.0;
/// A file of measurements larger than this is not read.
const MAX_BYTES: u64 = 256 << 20;

/// A measured run.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Its algorithm.
    pub algorithm: &'static str,
    /// Threads that it ran on.
    pub threads: usize,
    /// Measurements of the same convolution have the same number.
    pub race: usize,
    problem: ConvProblem,
    milliseconds: f64,
}

impl Measured {
    /// The measurement as the cost model sees it.
    pub fn sample(&self, isa: Isa) -> Sample {
        let algorithm = algorithms().iter().find(|a| a.name() == self.algorithm);
        let work = match algorithm {
            Some(algorithm) => algorithm.work(&self.problem, isa, self.threads),
            None => layout_change(&self.problem, self.threads),
        };
        Sample { work, milliseconds: self.milliseconds }
    }

    /// The measurement for programs, with what the fitted rates estimate.
    pub fn to_json(&self, estimated: f64) -> Value {
        json!({
            "algorithm": self.algorithm, "threads": self.threads, "race": self.race, "ms": self.milliseconds,
            "estimated_ms": estimated,
            "problem": shape::to_json(&self.problem),
        })
    }

    fn from_json(value: &Value) -> Option<Measured> {
        let number = |key: &str| usize::try_from(value[key].as_u64()?).ok();
        let name = value["algorithm"].as_str()?;
        let known = algorithms().iter().map(|a| a.name()).chain([LAYOUT_CHANGE]).find(|n| *n == name)?;
        let problem = shape::from_json(&value["problem"])?;
        Some(Measured {
            algorithm: known,
            threads: number("threads")?,
            race: number("race")?,
            problem,
            milliseconds: value["ms"].as_f64()?,
        })
    }
}

/// The work of making the input of a convolution channels-last.
fn layout_change(problem: &ConvProblem, threads: usize) -> Work {
    let bytes = problem.in_rows() * problem.in_channels * size_of::<f32>();
    Work::of(&[(Rate::MovedByte, bytes as f64)]).shared(threads as f64).called(1, threads)
}

/// The measurements of an earlier report. Those of algorithms that are gone are left out.
pub fn read(path: &Path) -> Result<Vec<Measured>> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
    if size > MAX_BYTES {
        return Err(Error::limit(format!("{}: {size} bytes are no report of planish tune", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let report: Value = serde_json::from_str(&text)
        .map_err(|e| Error::invalid(format!("{}: {e}; it should be what --json printed", path.display())))?;
    let samples = report["samples"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(samples.iter().filter_map(Measured::from_json).collect())
}

/// Measures for `seconds` on one thread and on `threads`.
pub fn measure(isa: Isa, threads: usize, seconds: f64) -> Result<Vec<Measured>> {
    let pools: Vec<ThreadPool> = if threads > 1 {
        vec![ThreadPool::new(1), ThreadPool::new(threads)]
    } else {
        vec![ThreadPool::new(1)]
    };
    let progress = Progress::new("fit", (seconds * 10.0) as u64);
    let begun = Instant::now();
    let mut measured = Vec::new();
    for (race, mut problem) in shapes::layers().enumerate() {
        // The tile unit multiplies nothing but `bf16`; the vectors beside it are measured in `f32` as anywhere.
        if isa != isa.vectors() && race % 2 == 1 {
            problem.element = ElementType::Bf16;
        }
        let elapsed = begun.elapsed().as_secs_f64();
        if elapsed > seconds {
            break;
        }
        progress.say(&shape::describe(&problem));
        progress.advance(((elapsed * 10.0) as u64).saturating_sub(progress.done()));
        let candidates = candidates(&problem, isa, threads)?;
        for pool in &pools {
            let mut bench = Bench::new(pool)?;
            let prepared: Vec<&dyn PreparedConv> = candidates.iter().map(|(_, p)| p.as_ref()).collect();
            let effort = Effort { rounds: [3, 12], time: Duration::from_millis(40), beaten: f64::INFINITY };
            let mut record = |algorithm, milliseconds| {
                let (threads, problem) = (pool.threads(), problem.clone());
                measured.push(Measured { algorithm, threads, race, problem, milliseconds });
            };
            let times = bench.race(&problem, &prepared, effort)?;
            for ((algorithm, _), time) in candidates.iter().zip(times) {
                record(algorithm.name(), time);
            }
            if race % 4 == 0 {
                record(LAYOUT_CHANGE, time_layout_change(&problem, isa, pool)?);
            }
        }
    }
    Ok(measured)
}

/// An algorithm and a convolution that it has packed the weights of.
type Prepared = (&'static dyn ConvAlgorithm, Box<dyn PreparedConv>);

/// The algorithms that are not hopeless.
fn candidates(problem: &ConvProblem, isa: Isa, threads: usize) -> Result<Vec<Prepared>> {
    let rates = Rates::defaults(isa);
    let able = algorithms().iter().filter(|a| a.accepts(problem, isa).is_ok());
    let estimates: Vec<_> = able.map(|a| (*a, rates.milliseconds(&a.work(problem, isa, threads)))).collect();
    let least = estimates.iter().map(|e| e.1).fold(f64::INFINITY, f64::min);
    let mut weights = Tensor::zeros(DType::F32, &[problem.weights_len()])?;
    for (i, x) in weights.as_mut_slice::<f32>()?.iter_mut().enumerate() {
        *x = (i % 13) as f32 * 0.01 - 0.06;
    }
    let weights = weights.as_slice::<f32>()?;
    let likely = estimates.into_iter().filter(|(_, estimate)| *estimate <= HOPELESS * least);
    likely
        .map(|(a, _)| Ok((a, a.prepare(problem, isa, Weights::new(weights, None)).map_err(Error::invalid)?)))
        .collect()
}

/// The least milliseconds of making the input of a convolution channels-last.
fn time_layout_change(problem: &ConvProblem, isa: Isa, pool: &ThreadPool) -> Result<f64> {
    let (rows, channels) = (problem.in_rows(), problem.in_channels);
    let input = Tensor::zeros(DType::F32, &[rows * channels])?;
    let mut output = Tensor::zeros(DType::F32, &[rows * channels])?;
    let _active = pool.activate();
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        let to = RowsMut::dense(output.as_mut_slice::<f32>()?, rows, channels);
        let to = to.map_err(|e| Error::invalid(e.to_string()))?;
        let start = Instant::now();
        to_channels_last(isa, pool, problem.batch, input.as_slice::<f32>()?, to);
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}
