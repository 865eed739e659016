//! Times every algorithm on one convolution and holds its result against the reference, because an estimate is only as
//! good as the measurements it was checked with.

use super::precision::{Operands, Precision};
use super::rounds::{Candidate, Rounds, samples};
use super::shape;
use planish::report::stats::Summary;
use planish::report::table::bytes;
use planish_cpu::conv::reference::convolve_at;
use planish_cpu::conv::{ConvAlgorithm, ConvProblem, algorithms};
use planish_cpu::element::{ElementType, bf16};
use planish_cpu::isa::Isa;
use planish_cpu::peak::peak_flops;
use planish_cpu::rates::Rates;
use planish_cpu::threads::ThreadPool;
use planish_engine::plan::rates;
use planish_engine::plan::wisdom::Wisdom;
use planish_graph::{Error, Result};
use serde_json::{Value, json};

/// How thoroughly a convolution is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Seconds after warming up.
    pub seconds: f64,
    /// Rounds at least, however long they take.
    pub rounds: usize,
    /// Algorithms that took this many times as long as the fastest when warming up, and not just for a moment, are not
    /// timed again.
    pub hopeless: f64,
    /// Algorithms with an estimate this many times the cheapest are not even tried.
    pub unlikely: f64,
    /// Multiply-accumulates of the reference at most: beyond them only some elements of the output are compared.
    pub reference_macs: u64,
}

/// How often the peak is measured, each time by new threads.
const PEAK_POOLS: usize = 4;

/// What an algorithm made of a convolution.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The algorithm.
    pub algorithm: &'static str,
    /// Milliseconds, of all rounds.
    pub times: Summary,
    /// Milliseconds that its cost comes to.
    pub estimated_ms: f64,
    /// Bytes of working memory.
    pub workspace_bytes: usize,
    /// Bytes of packed weights.
    pub packed_bytes: usize,
    /// The error's norm over the result's.
    pub relative_l2: f64,
    /// The largest difference from the reference.
    pub largest_error: f64,
}

/// A convolution, measured.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The convolution.
    pub problem: ConvProblem,
    /// The algorithms that were measured, fastest first; never empty.
    pub outcomes: Vec<Outcome>,
    /// The others, and why.
    pub refused: Vec<(&'static str, String)>,
    /// What the planner takes without tuning: the cheapest estimate.
    pub picked: &'static str,
    /// Elements of the output that were compared.
    pub samples: usize,
}

impl Trial {
    /// The fastest.
    pub fn best(&self) -> &Outcome {
        &self.outcomes[0]
    }
    /// How many times as long the second takes; `None` where there is none.
    pub fn lead(&self) -> Option<f64> {
        Some(self.outcomes.get(1)?.times.min / self.best().times.min)
    }
    /// How many times as long as the fastest the planner's pick takes.
    pub fn regret(&self) -> f64 {
        let picked = self.outcomes.iter().find(|o| o.algorithm == self.picked);
        picked.map_or(1.0, |o| o.times.min / self.best().times.min)
    }
    /// Whether the planner's pick takes at most 5 % longer than the fastest: less is hardly measured.
    pub fn is_well_picked(&self) -> bool {
        self.regret() <= 1.05
    }
    /// GFLOP/s of an outcome, counted by the operations of the definition whatever the algorithm does.
    pub fn gflops(&self, outcome: &Outcome) -> f64 {
        2e-6 * self.problem.macs() as f64 / outcome.times.min.max(1e-9)
    }
}

/// The configuration that measurements are made in.
pub struct Laboratory {
    /// The instruction set.
    pub isa: Isa,
    /// What it is computed on.
    pub precision: Precision,
    pool: ThreadPool,
    /// The measured limit of all threads together, in GFLOP/s.
    pub peak_gflops: f64,
    rates: Rates,
    max_memory: usize,
}

impl Laboratory {
    /// Starts the threads and measures what they reach at most.
    pub fn new(isa: Isa, precision: Precision, threads: usize, max_memory: usize) -> Laboratory {
        let pool = ThreadPool::new(threads);
        // On a busy machine the threads of a pool may be queued on one processor and never run at once; others are luckier.
        let peak = |threads: usize| {
            let pools = (0..PEAK_POOLS).map(|_| ThreadPool::new(threads));
            let flops = |pool: ThreadPool| match precision.element {
                ElementType::Bf16 => peak_flops::<bf16>(isa, &pool),
                ElementType::U8 => peak_flops::<u8>(isa.serving(ElementType::U8), &pool),
                ElementType::F32 | ElementType::F16 => peak_flops::<f32>(isa, &pool),
            };
            pools.map(flops).fold(0.0, f64::max)
        };
        let peak_gflops = peak(pool.threads()) * 1e-9;
        let fitted = Wisdom::default_path().and_then(|path| rates::load(&rates::path_beside(&path), isa));
        let rates = fitted.unwrap_or_else(|| Rates::defaults(isa));
        Laboratory { isa, precision, pool, peak_gflops, rates, max_memory }
    }

    /// The threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The percentage of the peak that a rate is.
    pub fn percent(&self, gflops: f64) -> f64 {
        100.0 * gflops / self.peak_gflops
    }

    /// Milliseconds that `algorithm`'s cost comes to; `None` where it does not accept the convolution.
    fn estimate(&self, algorithm: &dyn ConvAlgorithm, problem: &ConvProblem) -> Option<f64> {
        algorithm.accepts(problem, self.isa).ok()?;
        Some(self.rates.milliseconds(&algorithm.work(problem, self.isa, self.threads())))
    }

    /// Milliseconds that one run of every algorithm that is tried is estimated to take.
    pub fn expected_ms(&self, problem: &ConvProblem, effort: Effort) -> f64 {
        let estimates: Vec<f64> = algorithms().iter().filter_map(|a| self.estimate(*a, problem)).collect();
        let limit = effort.unlikely * estimates.iter().copied().fold(f64::INFINITY, f64::min);
        estimates.into_iter().filter(|&e| e <= limit).sum()
    }

    /// Measures. An error where the tensors do not fit the memory cap, or no algorithm accepts the convolution.
    pub fn measure(&self, problem: &ConvProblem, effort: Effort) -> Result<Trial> {
        let needed = shape::tensor_bytes(problem);
        if needed > self.max_memory {
            return Err(Error::limit(format!(
                "the tensors of {} need {}, over the memory cap of {}; raise it with --max-memory",
                shape::describe(problem),
                bytes(needed as u64),
                bytes(self.max_memory as u64)
            )));
        }
        let operands = Operands::new(problem)?;
        let (candidates, refused, workspace) =
            self.prepare(problem, &operands, effort, self.max_memory - needed);
        let cheapest = candidates.iter().min_by(|a, b| a.estimated_ms.total_cmp(&b.estimated_ms));
        let Some(picked) = cheapest.map(|c| c.algorithm) else {
            let reasons: Vec<String> = refused.iter().map(|(name, why)| format!("{name}: {why}")).collect();
            return Err(Error::unsupported(format!("no algorithm can be timed ({})", reasons.join("; "))));
        };
        let elements = samples(problem, effort.reference_macs);
        let plain = Precision::F32.of(problem.clone());
        let (weights, bias) = operands.reference();
        let exact =
            convolve_at(&plain, operands.numbers.as_slice()?, weights, bias, elements.iter().copied());
        let mut exact = exact.map_err(Error::invalid)?;
        for (sum, element) in exact.sums.iter_mut().zip(&elements) {
            *sum = operands.result(*sum, element % problem.out_channels);
        }
        let rounds = Rounds::new(problem, &self.pool, &operands.kept, candidates, workspace)?;
        let mut outcomes = Vec::new();
        for (candidate, runs) in rounds.measure(effort, &elements, &exact)? {
            outcomes.push(Outcome {
                algorithm: candidate.algorithm,
                times: Summary::of(&runs.times).ok_or_else(|| Error::invalid("no run was measured"))?,
                estimated_ms: candidate.estimated_ms,
                workspace_bytes: candidate.workspace * size_of::<f32>(),
                packed_bytes: candidate.prepared.bytes(),
                relative_l2: runs.relative_l2,
                largest_error: runs.largest_error,
            });
        }
        outcomes.sort_by(|a, b| a.times.min.total_cmp(&b.times.min));
        Ok(Trial { problem: problem.clone(), outcomes, refused, picked, samples: elements.len() })
    }

    /// Packs the weights for every algorithm that accepts the convolution while memory lasts; the reasons of the others;
    /// the largest workspace in numbers.
    fn prepare(
        &self,
        problem: &ConvProblem,
        operands: &Operands,
        effort: Effort,
        mut memory: usize,
    ) -> (Vec<Candidate>, Vec<(&'static str, String)>, usize) {
        let (mut candidates, mut refused, mut workspace) = (Vec::new(), Vec::new(), 0);
        let estimates = algorithms().iter().filter_map(|a| self.estimate(*a, problem));
        let cheapest = estimates.fold(f64::INFINITY, f64::min);
        for algorithm in algorithms() {
            let name = algorithm.name();
            let estimated_ms = self.estimate(*algorithm, problem).unwrap_or_default();
            if estimated_ms > effort.unlikely * cheapest {
                let times = estimated_ms / cheapest;
                refused.push((name, format!("not tried: its estimate is {times:.0} times the cheapest")));
                continue;
            }
            let prepared = algorithm
                .accepts(problem, self.isa)
                .and_then(|()| algorithm.prepare(problem, self.isa, operands.weights()));
            let prepared = match prepared {
                Ok(prepared) => prepared,
                Err(why) => {
                    refused.push((name, why));
                    continue;
                }
            };
            // One workspace serves all, so only what it grows by counts.
            let own = prepared.workspace_len(problem, self.threads());
            let more = own.saturating_sub(workspace).saturating_mul(size_of::<f32>());
            let needed = more.saturating_add(prepared.bytes());
            if needed > memory {
                let why = format!(
                    "needs {} of workspace and packed weights, over the memory cap",
                    bytes(needed as u64)
                );
                refused.push((name, why));
                continue;
            }
            memory -= needed;
            workspace = workspace.max(own);
            candidates.push(Candidate { algorithm: name, prepared, workspace: own, estimated_ms });
        }
        (candidates, refused, workspace)
    }

    /// A measured convolution for programs.
    pub fn to_json(&self, trial: &Trial) -> Value {
        let algorithms: Vec<Value> = trial
            .outcomes
            .iter()
            .map(|o| {
                json!({
                    "name": o.algorithm, "min_ms": o.times.min, "p50_ms": o.times.p50, "runs": o.times.count,
                    "gflops": trial.gflops(o), "percent_of_peak": self.percent(trial.gflops(o)),
                    "estimated_ms": o.estimated_ms, "workspace_bytes": o.workspace_bytes,
                    "packed_bytes": o.packed_bytes, "relative_l2": o.relative_l2, "largest_error": o.largest_error,
                })
            })
            .collect();
        let refused: Vec<Value> =
            trial.refused.iter().map(|(name, why)| json!({"name": name, "why": why})).collect();
        json!({
            "problem": shape::to_json(&trial.problem), "fastest": trial.best().algorithm, "picked": trial.picked,
            "picked_over_fastest": trial.regret(), "samples": trial.samples, "algorithms": algorithms, "refused": refused,
        })
    }
}
