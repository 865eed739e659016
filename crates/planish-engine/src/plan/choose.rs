//! Chooses the algorithm of each convolution: by estimate, or by measurement when told to tune.
//!
//! Every algorithm says whether it accepts a problem and what it would cost. Untuned, the cheapest estimate wins. Tuned,
//! each candidate whose estimate is not hopeless runs on scratch data and the fastest wins; winners are remembered in
//! [`Wisdom`] under the whole problem, so that the next session need not measure. Packed weights are kept and shared by
//! all plans of a session.

use super::rates;
use super::wisdom::{self, Winner, Wisdom};
use planish_cpu::conv::{
    ConvAlgorithm, ConvCall, ConvElement, ConvProblem, PreparedConv, WeightsKey, algorithms, plain_error,
};
use planish_cpu::element::{ElementType, Factor};
use planish_cpu::epilogue::Epilogue;
use planish_cpu::for_element;
use planish_cpu::isa::Isa;
use planish_cpu::matmul::PackedMatrix;
use planish_cpu::rates::Rates;
use planish_cpu::threads::ThreadPool;
use planish_cpu::view::{Rows, RowsMut};
use planish_graph::{Error, Result, Tensor};
use std::any::Any;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// [`ChooserOptions::max_error`] where nothing else is asked for: the largest that keeps whole networks within 1e-4 of
/// other engines, whose own rounding makes up half of that in the worst of them (`bench/check_models.py`).
pub const MAX_ERROR: f32 = 2e-6;

/// How algorithms are chosen.
#[derive(Clone, Debug)]
pub struct ChooserOptions {
    /// Whether candidates are measured where nothing is remembered.
    pub tune: bool,
    /// Where winners are remembered, and beside it the machine's fitted rates; `None` for winners of
    /// this session only, and the default rates.
    pub wisdom: Option<PathBuf>,
    /// Only this algorithm, wherever it accepts the problem and whatever its error (for experiments and tests).
    pub only: Option<String>,
    /// The largest relative L2 error that is to be expected of a convolution's result. Algorithms beyond it are left out;
    /// adding up the products as they are is always allowed, and so is what errs no more than that.
    pub max_error: f32,
}

impl Default for ChooserOptions {
    fn default() -> Self {
        Self { tune: false, wisdom: None, only: None, max_error: MAX_ERROR }
    }
}

/// An algorithm that could do a convolution.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub algorithm: &'static str,
    /// Its estimated time in milliseconds.
    pub estimated: f64,
    /// Its measured time in milliseconds, where tuned.
    pub measured: Option<f64>,
}

/// The pick for one convolution.
pub(crate) struct Choice {
    pub(crate) algorithm: &'static str,
    pub(crate) prepared: Arc<dyn PreparedConv>,
    pub(crate) reason: String,
}

/// Packed weights by what they were packed from; the tensors are kept, so that their addresses stay theirs.
type PackedWeights = HashMap<(usize, usize, WeightsKey), (Tensor, Option<Tensor>, Arc<dyn PreparedConv>)>;

/// Packed matrices by address, orientation and scale of what they were packed from and the element they were packed to.
type PackedMatrices = HashMap<(usize, bool, u32, ElementType), (Tensor, Arc<dyn Any + Send + Sync>)>;

/// Chooses algorithms for one session.
pub struct Chooser {
    isa: Isa,
    threads: usize,
    rates: Rates,
    options: ChooserOptions,
    wisdom: Mutex<Wisdom>,
    packed: Mutex<PackedWeights>,
    matrices: Mutex<PackedMatrices>,
}

/// Candidates estimated this many times slower than the best are not measured.
const HOPELESS: f64 = 6.0;
/// Each candidate is measured for about this long.
const MEASURE_FOR: Duration = Duration::from_millis(12);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Chooser {
    pub(crate) fn new(isa: Isa, threads: usize, options: &ChooserOptions) -> Chooser {
        let fingerprint = format!("{} / {isa:?}", wisdom::machine());
        let wisdom = match &options.wisdom {
            Some(path) => Wisdom::load(path, &fingerprint),
            None => Wisdom::empty(&fingerprint),
        };
        let beside = options.wisdom.as_deref().map(rates::path_beside);
        let fitted = beside.and_then(|path| rates::load(&path, isa));
        Chooser {
            isa,
            threads,
            rates: fitted.unwrap_or_else(|| Rates::defaults(isa)),
            options: options.clone(),
            wisdom: Mutex::new(wisdom),
            packed: Mutex::new(HashMap::new()),
            matrices: Mutex::new(HashMap::new()),
        }
    }

    /// Every algorithm that accepts `problem`, cheapest estimate first.
    pub fn candidates(&self, problem: &ConvProblem) -> Vec<Candidate> {
        let mut found: Vec<Candidate> = self
            .accepting(problem)
            .into_iter()
            .map(|(a, estimated)| Candidate { algorithm: a.name(), estimated, measured: None })
            .collect();
        found.sort_by(|a, b| a.estimated.total_cmp(&b.estimated));
        found
    }

    fn accepting(&self, problem: &ConvProblem) -> Vec<(&'static dyn ConvAlgorithm, f64)> {
        let able: Vec<_> =
            algorithms().iter().copied().filter(|a| a.accepts(problem, self.isa).is_ok()).collect();
        let asked: Vec<_> =
            able.iter().copied().filter(|a| self.options.only.as_deref() == Some(a.name())).collect();
        let taken = match asked.is_empty() {
            false => asked,
            true => able.into_iter().filter(|a| self.is_exact_enough(*a, problem)).collect(),
        };
        taken
            .into_iter()
            .map(|a| (a, self.rates.milliseconds(&a.work(problem, self.isa, self.threads))))
            .collect()
    }

    fn is_exact_enough(&self, algorithm: &dyn ConvAlgorithm, problem: &ConvProblem) -> bool {
        algorithm.error(problem) <= self.largest_error(problem)
    }

    /// The largest error that an algorithm may have: what is kept shorter than `f32` may lose as much once more.
    fn largest_error(&self, problem: &ConvProblem) -> f32 {
        let lost = match problem.element {
            ElementType::F32 => 0.0,
            short => short.rounding(),
        };
        self.options.max_error.max(plain_error(problem)).max(lost)
    }

    /// What `max_error` left out, as the end of a reason.
    fn left_out(&self, problem: &ConvProblem) -> String {
        if self.options.only.is_some() {
            return String::new();
        }
        let names: Vec<String> = algorithms()
            .iter()
            .filter(|a| a.accepts(problem, self.isa).is_ok() && !self.is_exact_enough(**a, problem))
            .map(|a| format!("{} {:.1e}", a.name(), a.error(problem)))
            .collect();
        if names.is_empty() {
            return String::new();
        }
        format!("; left out, expected error above {:.1e}: {}", self.largest_error(problem), names.join(", "))
    }

    /// The pick for `problem` with these weights (ONNX's order) and bias.
    pub(crate) fn choose(
        &self,
        problem: &ConvProblem,
        weights: &Tensor,
        bias: Option<&Tensor>,
        pool: &ThreadPool,
    ) -> Result<Choice> {
        let mut candidates = self.candidates(problem);
        if candidates.is_empty() {
            return Err(Error::unsupported("no convolution algorithm accepts this problem"));
        }
        let key = format!("{problem:?} threads {} error {:e}", self.threads, self.options.max_error);
        let remembered = lock(&self.wisdom).winners.get(&key).cloned();
        if let Some(winner) = remembered
            && let Some(pick) = candidates.iter().find(|c| c.algorithm == winner.algorithm)
        {
            let reason = format!("remembered: {:.3} ms when tuned", winner.milliseconds);
            return self.pick(pick.algorithm, problem, weights, bias, reason);
        }
        if self.options.tune && candidates.len() > 1 && problem.batch > 0 {
            let best = candidates[0].estimated;
            candidates.retain(|c| c.estimated <= best * HOPELESS);
            for candidate in &mut candidates {
                let choice = self.pick(candidate.algorithm, problem, weights, bias, String::new())?;
                candidate.measured = Some(measure(problem, choice.prepared.as_ref(), pool));
            }
            candidates
                .sort_by(|a, b| a.measured.unwrap_or(f64::MAX).total_cmp(&b.measured.unwrap_or(f64::MAX)));
            let winner = Winner {
                algorithm: candidates[0].algorithm.to_string(),
                milliseconds: candidates[0].measured.unwrap_or_default(),
            };
            lock(&self.wisdom).winners.insert(key, winner);
            let times: Vec<String> = candidates
                .iter()
                .map(|c| format!("{} {:.3}", c.algorithm, c.measured.unwrap_or_default()))
                .collect();
            return self.pick(
                candidates[0].algorithm,
                problem,
                weights,
                bias,
                format!("measured, ms: {}{}", times.join(", "), self.left_out(problem)),
            );
        }
        let estimates: Vec<String> =
            candidates.iter().take(4).map(|c| format!("{} {:.3}", c.algorithm, c.estimated)).collect();
        let reason = match candidates.len() {
            1 => "the only one that accepts the shape".to_string(),
            _ => format!("estimated, ms: {}", estimates.join(", ")),
        };
        let reason = reason + &self.left_out(problem);
        self.pick(candidates[0].algorithm, problem, weights, bias, reason)
    }

    fn pick(
        &self,
        name: &'static str,
        problem: &ConvProblem,
        weights: &Tensor,
        bias: Option<&Tensor>,
        reason: String,
    ) -> Result<Choice> {
        let found = algorithms().iter().find(|a| a.name() == name);
        let algorithm = found.ok_or_else(|| Error::invalid(format!("no algorithm is named {name}")))?;
        let address = |t: Option<&Tensor>| t.map_or(0, |t| t.bytes().as_ptr() as usize);
        let key = (address(Some(weights)), address(bias), algorithm.weights_key(problem, self.isa));
        if let Some((_, _, prepared)) = lock(&self.packed).get(&key) {
            return Ok(Choice { algorithm: name, prepared: prepared.clone(), reason });
        }
        let bias_values = bias.map(|b| b.as_slice::<f32>()).transpose()?;
        let prepared: Arc<dyn PreparedConv> = algorithm
            .prepare(problem, self.isa, weights.as_slice::<f32>()?, bias_values)
            .map_err(Error::invalid)?
            .into();
        lock(&self.packed).insert(key, (weights.clone(), bias.cloned(), prepared.clone()));
        Ok(Choice { algorithm: name, prepared, reason })
    }

    /// `matrix` (K×N, or N×K where `transposed`) times `scale`, packed; the same for every plan of the session.
    pub(crate) fn packed_matrix<T: Factor>(
        &self,
        matrix: &Tensor,
        transposed: bool,
        scale: f32,
    ) -> Result<Arc<PackedMatrix<T>>> {
        let key = (matrix.bytes().as_ptr() as usize, transposed, scale.to_bits(), T::TYPE);
        let known = lock(&self.matrices).get(&key).map(|(_, packed)| packed.clone());
        if let Some(packed) = known.and_then(|packed| packed.downcast().ok()) {
            return Ok(packed);
        }
        let &[first, second] = matrix.shape() else {
            return Err(Error::invalid(format!("a matrix of shape {:?}", matrix.shape())));
        };
        let mut values = std::borrow::Cow::Borrowed(matrix.as_slice::<f32>()?);
        if scale != 1.0 {
            values.to_mut().iter_mut().for_each(|v| *v *= scale);
        }
        let (rows, columns, row_step, column_step) =
            if transposed { (second, first, 1, second) } else { (first, second, second, 1) };
        let packed = PackedMatrix::from_strided(self.isa, &values, rows, columns, row_step, column_step);
        let packed = Arc::new(packed.map_err(Error::invalid)?);
        lock(&self.matrices).insert(key, (matrix.clone(), packed.clone()));
        Ok(packed)
    }

    /// Writes what tuning learned to the wisdom file, where there is one. Entries that another process wrote meanwhile stay.
    pub fn save_wisdom(&self) -> Result<()> {
        let Some(path) = self.options.wisdom.as_ref().filter(|_| self.options.tune) else { return Ok(()) };
        let ours = lock(&self.wisdom).clone();
        let mut all = Wisdom::load(path, &ours.fingerprint);
        all.winners.extend(ours.winners);
        all.save(path)
    }

    /// How many winners are known.
    pub fn remembered(&self) -> usize {
        lock(&self.wisdom).winners.len()
    }
}

/// The fastest of a few runs on scratch data, in milliseconds.
fn measure(problem: &ConvProblem, prepared: &dyn PreparedConv, pool: &ThreadPool) -> f64 {
    for_element!(problem.element, T => measure_on::<T>(problem, prepared, pool))
}

fn measure_on<T: ConvElement>(problem: &ConvProblem, prepared: &dyn PreparedConv, pool: &ThreadPool) -> f64 {
    let Ok(out) = problem.out_size() else { return f64::MAX };
    let in_rows = problem.batch * problem.in_size.iter().product::<usize>();
    let out_rows = problem.batch * out.iter().product::<usize>();
    let number = |i: usize| T::from_f32((i % 17) as f32 * 0.1 - 0.8);
    let input: Vec<T> = (0..in_rows * problem.in_channels).map(number).collect();
    let mut output = vec![T::default(); out_rows * problem.out_channels];
    let mut workspace = vec![0f32; prepared.workspace_len(problem, pool.threads())];
    let _active = pool.activate();
    let mut best = f64::MAX;
    let begun = Instant::now();
    for round in 0..64 {
        let (Ok(from), Ok(to)) = (
            Rows::dense(&input, in_rows, problem.in_channels),
            RowsMut::dense(&mut output, out_rows, problem.out_channels),
        ) else {
            return f64::MAX;
        };
        let epilogue = Epilogue::default();
        let call = ConvCall { input: from, epilogue, output: to, workspace: &mut workspace };
        let start = Instant::now();
        if prepared.run(problem, pool, call).is_err() {
            return f64::MAX;
        }
        let time = start.elapsed().as_secs_f64() * 1e3;
        if round > 0 {
            best = best.min(time);
        }
        if round >= 2 && begun.elapsed() > MEASURE_FOR {
            break;
        }
    }
    best
}
