//! Measures the candidates of a network's convolutions within a time budget.
//!
//! What can be gained most comes first: the convolutions that take longest, and those whose candidates are estimated
//! closest to each other. All of them are gone through several times, so that a disturbance of the machine does not decide
//! any; after the first time only contests that are not decided yet go on. What was learned is kept whenever it ends:
//! by itself, when the time is over, or when whoever watches says stop.

use super::measure::{Bench, Effort};
use planish_cpu::conv::{ConvAlgorithm, ConvProblem, PreparedConv, Weights};
use planish_cpu::isa::Isa;
use planish_cpu::threads::ThreadPool;
use planish_graph::{Error, ErrorKind, Result};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Candidates estimated this many times slower than the best are not measured.
const HOPELESS: f64 = 4.0;
/// For each time that all contests are gone through, how many times slower than the best a candidate may have been to take
/// part. Another program's turn on one of the cores doubles a time, so the first sweep alone puts few out.
const SWEEPS: [f64; 4] = [f64::INFINITY, 2.0, 1.3, 1.1];
/// How long the candidates of a convolution are timed in one sweep.
const EFFORT: Effort = Effort { rounds: [3, 8], time: Duration::from_millis(25), beaten: 2.0 };

/// How far tuning is.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// It begins, and will take at most so many steps.
    Begin(usize),
    /// A step is taken, about this.
    Step(&'a str),
    /// It has ended, after however many steps.
    End,
}

/// Whoever watches tuning and may stop it: is told of every [`Event`], and says whether to go on.
#[derive(Clone)]
pub struct Watch(pub Arc<dyn Fn(Event<'_>) -> bool + Send + Sync>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// How algorithms are measured.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// No convolution is begun to be measured after this, for each plan.
    pub time: Duration,
    /// Who is told.
    pub watch: Option<Watch>,
}

impl Tuning {
    /// The time that is enough for most networks.
    pub const DEFAULT_SECONDS: f64 = 30.0;

    fn tell(&self, event: Event<'_>) -> bool {
        self.watch.as_ref().is_none_or(|watch| watch.0(event))
    }
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning { time: Duration::from_secs_f64(Self::DEFAULT_SECONDS), watch: None }
    }
}

/// An algorithm with its estimated and its measured milliseconds.
pub(super) struct Contender {
    pub(super) algorithm: &'static dyn ConvAlgorithm,
    pub(super) estimated: f64,
    /// Infinite until it is measured.
    pub(super) measured: f64,
}

/// A convolution whose algorithms are measured.
pub(super) struct Contest<'a> {
    pub(super) problem: &'a ConvProblem,
    /// In ONNX's order.
    pub(super) weights: Weights<'a>,
    /// How many nodes of the network are this convolution.
    pub(super) nodes: usize,
    /// Cheapest estimate first.
    pub(super) contenders: Vec<Contender>,
}

impl Contest<'_> {
    /// Drops the hopeless.
    fn narrow(&mut self) {
        let least = self.contenders.first().map_or(0.0, |c| c.estimated);
        self.contenders.retain(|c| c.estimated <= HOPELESS * least);
    }

    /// What is at stake, in milliseconds: the time of its nodes, as far as the second candidate might take it over.
    fn stake(&self) -> f64 {
        let [first, second, ..] = &self.contenders[..] else { return 0.0 };
        self.nodes as f64 * first.estimated * first.estimated / second.estimated.max(f64::MIN_POSITIVE)
    }

    /// Who takes part, given how many times slower than the best they may have been.
    fn open(&self, beaten: f64) -> Vec<usize> {
        let best = self.contenders.iter().map(|c| c.measured).fold(f64::INFINITY, f64::min);
        let near = |c: &Contender| best.is_infinite() || c.measured <= beaten * best;
        (0..self.contenders.len()).filter(|&i| near(&self.contenders[i])).collect()
    }

    fn measure(&mut self, open: &[usize], isa: Isa, bench: &mut Bench<'_>) -> Result<()> {
        let pack = |&i: &usize| {
            let algorithm = self.contenders[i].algorithm;
            algorithm.prepare(self.problem, isa, self.weights).map_err(Error::invalid)
        };
        let prepared: Vec<Box<dyn PreparedConv>> = open.iter().map(pack).collect::<Result<_>>()?;
        let candidates: Vec<&dyn PreparedConv> = prepared.iter().map(|p| p.as_ref()).collect();
        for (&i, time) in open.iter().zip(bench.race(self.problem, &candidates, EFFORT)?) {
            self.contenders[i].measured = self.contenders[i].measured.min(time);
        }
        Ok(())
    }
}

/// Measures; `learned` is called with every contest that has new times.
pub(super) fn tune(
    contests: &mut Vec<Contest<'_>>,
    tuning: &Tuning,
    isa: Isa,
    pool: &ThreadPool,
    mut learned: impl FnMut(&Contest<'_>),
) -> Result<()> {
    contests.iter_mut().for_each(Contest::narrow);
    contests.retain(|c| c.contenders.len() > 1);
    contests.sort_by(|a, b| b.stake().total_cmp(&a.stake()));
    if contests.is_empty() {
        return Ok(());
    }
    tuning.tell(Event::Begin(SWEEPS.len() * contests.len()));
    let done = sweep(contests, tuning, isa, pool, &mut learned);
    tuning.tell(Event::End);
    done
}

fn sweep(
    contests: &mut [Contest<'_>],
    tuning: &Tuning,
    isa: Isa,
    pool: &ThreadPool,
    learned: &mut impl FnMut(&Contest<'_>),
) -> Result<()> {
    let begun = Instant::now();
    let Ok(mut bench) = Bench::new(pool) else { return Ok(()) };
    for beaten in SWEEPS {
        for contest in contests.iter_mut() {
            let [_, height, width] = contest.problem.in_size;
            let ConvProblem { in_channels, out_channels, .. } = *contest.problem;
            let label = format!("tuning {in_channels}×{height}×{width} → {out_channels}");
            if !tuning.tell(Event::Step(&label)) || begun.elapsed() > tuning.time {
                return Ok(());
            }
            let open = contest.open(beaten);
            if open.len() > 1 {
                match contest.measure(&open, isa, &mut bench) {
                    Ok(()) => learned(contest),
                    // What is too large to be measured under the memory cap keeps its estimates.
                    Err(error) if error.kind() == ErrorKind::Limit => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_cpu::conv::algorithms;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn contest<'a>(problem: &'a ConvProblem, weights: &'a [f32]) -> Contest<'a> {
        let able = algorithms().iter().filter(|a| a.accepts(problem, Isa::Portable).is_ok()).take(3);
        let contender = |(i, a): (usize, &&'static dyn ConvAlgorithm)| Contender {
            algorithm: *a,
            estimated: 1.0 + i as f64,
            measured: f64::INFINITY,
        };
        let contenders = able.enumerate().map(contender).collect();
        Contest { problem, weights: Weights::new(weights, None), nodes: 1, contenders }
    }

    #[test]
    fn what_was_learned_before_a_stop_is_kept() {
        let problem = ConvProblem::new_2d(1, 4, 8, [9, 9], [3, 3]);
        let larger = ConvProblem::new_2d(1, 4, 8, [9, 20], [3, 3]);
        let weights = vec![0.25; problem.weights_len()];
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        let watch = Watch(Arc::new(move |event| match event {
            // One contest, then stop.
            Event::Step(_) => counted.fetch_add(1, Ordering::Relaxed) < 1,
            _ => true,
        }));
        let tuning = Tuning { watch: Some(watch), ..Tuning::default() };
        let mut contests = vec![contest(&problem, &weights), contest(&larger, &weights)];
        contests[1].nodes = 5;
        let mut learned = Vec::new();
        tune(&mut contests, &tuning, Isa::Portable, &ThreadPool::new(1), |c| {
            learned.push((c.problem.clone(), c.contenders.iter().all(|c| c.measured.is_finite())));
        })
        .unwrap();
        assert_eq!(learned, [(larger, true)]);
        assert_eq!(steps.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn no_time_is_no_measurement() {
        let problem = ConvProblem::new_2d(1, 4, 8, [9, 9], [3, 3]);
        let weights = vec![0.25; problem.weights_len()];
        let tuning = Tuning { time: Duration::ZERO, watch: None };
        let mut contests = vec![contest(&problem, &weights)];
        std::thread::sleep(Duration::from_millis(1));
        tune(&mut contests, &tuning, Isa::Portable, &ThreadPool::new(1), |_| panic!("measured")).unwrap();
    }
}
