//! Chooses the algorithm of each convolution: by estimate, or by measurement when told to tune.
//!
//! Every algorithm says whether it accepts a problem and what work it would be; times the machine's rates that is an
//! estimate, and untuned the cheapest wins. Tuned ([`super::tune`]), those that are not hopeless are measured and the
//! fastest wins; times are remembered in [`Wisdom`] under the whole problem, so that the next session need not measure.
//! Packed weights are kept and shared by all plans of a session.

use super::integer_sums::IntegerSums;
use super::rates;
use super::tune::{self, Contender, Contest, Tuning};
use super::wisdom::{self, Winner, Wisdom};
use planish_cpu::conv::{ConvProblem, PreparedConv, Weights, WeightsKey, algorithms, plain_error};
use planish_cpu::element::{ElementType, Factor};
use planish_cpu::isa::Isa;
use planish_cpu::matmul::{HalfMatrix, PackedMatrix};
use planish_cpu::rates::Rates;
use planish_cpu::threads::ThreadPool;
use planish_graph::{Error, Result, Tensor};
use std::any::Any;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// [`ChooserOptions::max_error`] where nothing else is asked for: the largest that keeps whole networks within 1e-4 of
/// other engines, whose own rounding makes up half of that in the worst of them (`bench/check_models.py`).
pub const MAX_ERROR: f32 = 2e-6;

/// How algorithms are chosen.
#[derive(Clone, Debug)]
pub struct ChooserOptions {
    /// How candidates are measured where nothing is remembered; `None` where they are not.
    pub tune: Option<Tuning>,
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
        Self { tune: None, wisdom: None, only: None, max_error: MAX_ERROR }
    }
}

/// An algorithm that could do a convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub algorithm: &'static str,
    /// Its estimated time in milliseconds.
    pub estimated: f64,
    /// Its measured time in milliseconds, where tuned.
    pub measured: Option<f64>,
    /// The relative error that is to be expected of it.
    pub error: f32,
    /// Whether it may be taken: it errs no more than it may, and is the one that was asked for, if any was.
    pub admitted: bool,
}

impl Candidate {
    /// Measured milliseconds where there are some, else estimated ones.
    pub fn milliseconds(&self) -> f64 {
        self.measured.unwrap_or(self.estimated)
    }
}

/// The pick for one convolution.
pub(crate) struct Choice {
    pub(crate) algorithm: &'static str,
    pub(crate) prepared: Arc<dyn PreparedConv>,
    pub(crate) reason: &'static str,
    /// All that were to be had, as [`Chooser::candidates`] orders them.
    pub(crate) candidates: Vec<Candidate>,
}

/// A convolution of a network, with its weights in ONNX's order.
pub(crate) struct Request<'a> {
    pub(crate) problem: ConvProblem,
    pub(crate) weights: &'a Tensor,
    pub(crate) bias: Option<&'a Tensor>,
    /// Where the convolution is on levels, what its integer sums mean; the weights are integers then.
    pub(crate) sums: Option<IntegerSums>,
}

/// What packed weights depend on besides the weights themselves, where the convolution is on levels.
type SumsKey = (u8, Vec<i32>, Vec<u32>);

fn sums_key(sums: &IntegerSums) -> SumsKey {
    let numbers = sums.scales.iter().chain(sums.shift.iter().flatten());
    (sums.input_zero, sums.bias.clone(), numbers.map(|s| s.to_bits()).collect())
}

impl Request<'_> {
    /// The weights as kernels take them.
    pub(crate) fn numbers(&self) -> Result<Weights<'_>> {
        if let Some(sums) = &self.sums {
            return Ok(Weights { values: &sums.values, bias: None, levels: Some(sums.levels()) });
        }
        let bias = self.bias.map(|b| b.as_slice::<f32>()).transpose()?;
        Ok(Weights::new(self.weights.as_slice::<f32>()?, bias))
    }
}

/// What packed weights were packed from: the addresses of weights and bias, and what their sums mean.
type Origin = (usize, usize, Option<SumsKey>, WeightsKey);

/// Packed weights by what they were packed from; the tensors are kept, so that their addresses stay theirs.
type PackedWeights = HashMap<Origin, (Tensor, Option<Tensor>, Arc<dyn PreparedConv>)>;

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

    /// What the machine takes for each kind of work.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Every algorithm that accepts `problem`: first those that may be taken, measured ones before the others, and the
    /// fastest first.
    pub fn candidates(&self, problem: &ConvProblem) -> Vec<Candidate> {
        let able = algorithms().iter().filter(|a| a.accepts(problem, self.isa).is_ok());
        let remembered = lock(&self.wisdom).winners.get(&self.key(problem)).cloned().unwrap_or_default();
        let mut found: Vec<Candidate> = able
            .map(|a| Candidate {
                algorithm: a.name(),
                estimated: self.rates.milliseconds(&a.work(problem, self.isa, self.threads)),
                measured: remembered.measured(a.name()),
                error: a.error(problem),
                admitted: a.error(problem) <= self.largest_error(problem),
            })
            .collect();
        if let Some(only) = self.options.only.as_deref().filter(|o| found.iter().any(|c| c.algorithm == *o)) {
            found.iter_mut().for_each(|c| c.admitted = c.algorithm == only);
        }
        found.sort_by(|a, b| {
            let rank = |c: &Candidate| (!c.admitted, c.measured.is_none());
            rank(a).cmp(&rank(b)).then(a.milliseconds().total_cmp(&b.milliseconds()))
        });
        found
    }

    /// What the times of a problem are remembered under.
    fn key(&self, problem: &ConvProblem) -> String {
        format!("{problem:?} threads {} error {:e}", self.threads, self.options.max_error)
    }

    /// The largest error that an algorithm may have: what is kept shorter than `f32` may lose as much once more.
    fn largest_error(&self, problem: &ConvProblem) -> f32 {
        let lost = match problem.element {
            ElementType::F32 => 0.0,
            short => short.rounding(),
        };
        self.options.max_error.max(plain_error(problem)).max(lost)
    }

    /// Whether convolutions may be computed together; not where one algorithm is tried.
    pub(crate) fn may_chain(&self) -> bool {
        self.options.only.is_none()
    }

    /// Whether candidates are measured.
    pub(crate) fn is_tuned(&self) -> bool {
        self.options.tune.is_some()
    }

    /// Measures the candidates of a network's convolutions, where that was asked for and they are not remembered.
    pub(crate) fn tune(&self, requests: &[Request<'_>], pool: &ThreadPool) -> Result<()> {
        let Some(tuning) = &self.options.tune else { return Ok(()) };
        let mut contests: Vec<Contest<'_>> = Vec::new();
        let mut known: HashMap<&ConvProblem, Option<usize>> = HashMap::new();
        for request in requests {
            let problem = &request.problem;
            if let Some(contest) = known.get(problem) {
                contest.iter().for_each(|&c| contests[c].nodes += 1);
                continue;
            }
            let remembered = lock(&self.wisdom).winners.contains_key(&self.key(problem));
            let contest = (!remembered && problem.batch > 0).then_some(contests.len());
            known.insert(problem, contest);
            if contest.is_some() {
                let contenders = self.contenders(problem);
                contests.push(Contest { problem, weights: request.numbers()?, nodes: 1, contenders });
            }
        }
        tune::tune(&mut contests, tuning, self.isa, pool, |contest| {
            let times = contest.contenders.iter().filter(|c| c.measured.is_finite());
            let times = times.map(|c| (c.algorithm.name().to_string(), c.measured)).collect();
            if let Some(winner) = Winner::of(times) {
                lock(&self.wisdom).winners.insert(self.key(contest.problem), winner);
            }
        })
    }

    /// The candidates that may be taken, cheapest estimate first.
    fn contenders(&self, problem: &ConvProblem) -> Vec<Contender> {
        let admitted = self.candidates(problem).into_iter().filter(|c| c.admitted);
        let mut contenders: Vec<Contender> = admitted
            .filter_map(|c| {
                let algorithm = algorithms().iter().copied().find(|a| a.name() == c.algorithm)?;
                Some(Contender { algorithm, estimated: c.estimated, measured: f64::INFINITY })
            })
            .collect();
        contenders.sort_by(|a, b| a.estimated.total_cmp(&b.estimated));
        contenders
    }

    /// The pick for a convolution.
    pub(crate) fn choose(&self, request: &Request<'_>) -> Result<Choice> {
        let candidates = self.candidates(&request.problem);
        let first = candidates.iter().find(|c| c.admitted);
        let first =
            first.ok_or_else(|| Error::unsupported("no convolution algorithm accepts this problem"))?;
        let admitted = candidates.iter().filter(|c| c.admitted).count();
        let reason = self.reason(first.algorithm, admitted, first.measured);
        let prepared = self.prepared(first.algorithm, request)?;
        Ok(Choice { algorithm: first.algorithm, prepared, reason, candidates })
    }

    /// Why an algorithm is taken, one of so many that may be, where its time was measured or not.
    pub(crate) fn reason(&self, algorithm: &str, admitted: usize, measured: Option<f64>) -> &'static str {
        match (self.options.only.as_deref(), admitted, measured) {
            (Some(only), ..) if only == algorithm => "asked for",
            (_, 1, _) => "the only one that may be taken",
            (_, _, Some(_)) => "the fastest when tuned",
            (_, _, None) => "the least estimate",
        }
    }

    /// The packed weights, which all plans of the session share.
    fn prepared(&self, name: &str, request: &Request<'_>) -> Result<Arc<dyn PreparedConv>> {
        let Request { problem, weights, bias, sums } = request;
        let found = algorithms().iter().find(|a| a.name() == name);
        let algorithm = found.ok_or_else(|| Error::invalid(format!("no algorithm is named {name}")))?;
        let address = |t: Option<&Tensor>| t.map_or(0, |t| t.bytes().as_ptr() as usize);
        let sums = sums.as_ref().map(sums_key);
        let key = (address(Some(weights)), address(*bias), sums, algorithm.weights_key(problem, self.isa));
        if let Some((_, _, prepared)) = lock(&self.packed).get(&key) {
            return Ok(prepared.clone());
        }
        let prepared = algorithm.prepare(problem, self.isa, request.numbers()?).map_err(Error::invalid)?;
        let prepared: Arc<dyn PreparedConv> = prepared.into();
        lock(&self.packed).insert(key, ((*weights).clone(), bias.cloned(), prepared.clone()));
        Ok(prepared)
    }

    /// `matrix` (K×N, or N×K where `transposed`) times `scale`, packed; the same for every plan of the session.
    pub(crate) fn packed_matrix<T: Factor>(
        &self,
        matrix: &Tensor,
        transposed: bool,
        scale: f32,
    ) -> Result<Arc<PackedMatrix<T>>> {
        self.packed_by(
            T::TYPE,
            matrix,
            transposed,
            scale,
            |values, [rows, columns], [row_step, column_step]| {
                PackedMatrix::from_strided(self.isa, values, rows, columns, row_step, column_step)
                    .map_err(Error::invalid)
            },
        )
    }

    /// [`Self::packed_matrix`] of `f16` for a few rows; `None` where a weight is beyond their range.
    pub(crate) fn half_matrix(
        &self,
        matrix: &Tensor,
        transposed: bool,
        scale: f32,
    ) -> Result<Arc<Option<HalfMatrix>>> {
        let element = ElementType::F16;
        self.packed_by(
            element,
            matrix,
            transposed,
            scale,
            |values, [rows, columns], [row_step, column_step]| {
                Ok(HalfMatrix::new(self.isa, values, rows, columns, row_step, column_step).ok())
            },
        )
    }

    /// What `pack` makes of a matrix: of its values, its extents, and the steps from row to row and column to column.
    fn packed_by<P: Send + Sync + 'static>(
        &self,
        element: ElementType,
        matrix: &Tensor,
        transposed: bool,
        scale: f32,
        pack: impl FnOnce(&[f32], [usize; 2], [usize; 2]) -> Result<P>,
    ) -> Result<Arc<P>> {
        let key = (matrix.bytes().as_ptr() as usize, transposed, scale.to_bits(), element);
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
        let (extents, steps) =
            if transposed { ([second, first], [1, second]) } else { ([first, second], [second, 1]) };
        let packed = Arc::new(pack(&values, extents, steps)?);
        lock(&self.matrices).insert(key, (matrix.clone(), packed.clone()));
        Ok(packed)
    }

    /// Writes what tuning learned to the wisdom file, where there is one. Entries that another process wrote meanwhile stay.
    pub fn save_wisdom(&self) -> Result<()> {
        let Some(path) = self.options.wisdom.as_ref().filter(|_| self.options.tune.is_some()) else {
            return Ok(());
        };
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
