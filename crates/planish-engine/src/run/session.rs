//! A session: one network, ready to run from any thread.
//!
//! The graph is optimised once. Each set of input shapes gets a plan when it is first met; plans are kept (the least
//! recently used are dropped), and so are the weights that they packed, which plans of other shapes share. A run takes
//! an arena of its plan, so runs do not wait for each other.

use super::arena::Arena;
use super::cancel::CancelToken;
use super::environment::Environment;
use super::profile::{Profile, StepProfile};
use crate::passes::{self, PassReport};
use crate::plan::choose::{Chooser, ChooserOptions};
use crate::plan::{self, Plan};
use planish_cpu::element::ElementType;
use planish_cpu::isa::Isa;
use planish_cpu::threads::ThreadPool;
use planish_graph::error::Context;
use planish_graph::infer::{check_shape, input_shapes};
use planish_graph::limits::{Budget, with_budget};
use planish_graph::{DType, Error, Graph, Result, Tensor};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// How a session works. The default: every core this process may use, the best instruction set, no tuning, and a
/// memory cap of [`SessionOptions::DEFAULT_MAX_MEMORY`].
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Worker threads, the caller among them; 0 for [`planish_cpu::processors::default_threads`].
    pub threads: usize,
    /// The instruction set; `None` for the best there is, or what `PLANISH_ISA` says.
    pub isa: Option<Isa>,
    /// Cap on the bytes of tensors and working memory, weights included.
    pub max_memory: usize,
    /// What activations and the weights of products are kept as, where kernels allow it: see [`Session::precision`].
    pub precision: ElementType,
    /// Whether the passes run; without them the graph is planned as it stands.
    pub optimise: bool,
    /// How algorithms are chosen.
    pub chooser: ChooserOptions,
}

impl SessionOptions {
    /// 16 GiB.
    pub const DEFAULT_MAX_MEMORY: usize = 16 << 30;
    /// More threads than this are refused.
    pub const MAX_THREADS: usize = 1024;
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            threads: 0,
            isa: None,
            max_memory: SessionOptions::DEFAULT_MAX_MEMORY,
            precision: ElementType::F32,
            optimise: true,
            chooser: ChooserOptions::default(),
        }
    }
}

/// How many plans a session keeps.
const KEPT_PLANS: usize = 16;

/// A plan with the arenas that its finished runs left behind.
struct Planned {
    plan: Plan,
    arenas: Mutex<Vec<Arena>>,
}

/// Plans by the input shapes that they were made for.
type Plans = Vec<(Vec<Vec<usize>>, Arc<Planned>)>;

/// One network, ready to run; see the module.
pub struct Session {
    graph: Graph,
    optimise: bool,
    reports: Vec<PassReport>,
    pool: ThreadPool,
    isa: Isa,
    precision: ElementType,
    budget: Arc<Budget>,
    chooser: Chooser,
    /// Most recently used last.
    plans: Mutex<Plans>,
}

/// A lock whose holder cannot leave the data half-changed; a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Session {
    /// Validates and optimises `graph`.
    pub fn new(mut graph: Graph, options: &SessionOptions) -> Result<Session> {
        let isa = match options.isa {
            Some(isa) => isa,
            None => Isa::from_env().map_err(|e| Error::unsupported(e.to_string()))?,
        };
        let threads = match options.threads {
            0 => planish_cpu::processors::default_threads(),
            n => n,
        };
        if threads > SessionOptions::MAX_THREADS {
            return Err(Error::limit(format!(
                "{threads} threads were asked for; at most {} make sense",
                SessionOptions::MAX_THREADS
            )));
        }
        let budget = Budget::new(options.max_memory);
        let reports = with_budget(&budget, || {
            graph.validate()?;
            if options.optimise { passes::optimise(&mut graph) } else { Ok(Vec::new()) }
        })?;
        Ok(Session {
            graph,
            optimise: options.optimise,
            reports,
            pool: ThreadPool::new(threads),
            isa,
            precision: match options.precision {
                ElementType::Bf16 if isa.has_bf16() => ElementType::Bf16,
                ElementType::F16 if isa.has_f16() => ElementType::F16,
                // Levels are nothing without scales: only a quantised graph has them.
                ElementType::Bf16 | ElementType::F16 | ElementType::U8 | ElementType::F32 => ElementType::F32,
            },
            budget,
            chooser: Chooser::new(isa, threads, &options.chooser),
            plans: Mutex::new(Vec::new()),
        })
    }

    /// The optimised graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
    /// What the passes did.
    pub fn pass_reports(&self) -> &[PassReport] {
        &self.reports
    }
    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }
    /// What activations are kept as: what was asked for, or `f32` where the instruction set in use has no instructions
    /// for it, because emulating them is slower. Sums are `f32` either way, and so are inputs and outputs.
    pub fn precision(&self) -> ElementType {
        self.precision
    }
    /// The number of threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
    /// The largest number of bytes of tensors and working memory that were alive at once.
    pub fn peak_memory(&self) -> usize {
        self.budget.peak()
    }
    /// How algorithms are chosen, and what tuning has learned.
    pub fn chooser(&self) -> &Chooser {
        &self.chooser
    }

    /// Concrete input shapes; see [`planish_graph::infer::input_shapes`].
    pub fn input_shapes(
        &self,
        given: &BTreeMap<String, Vec<usize>>,
        symbols: &BTreeMap<String, usize>,
    ) -> Result<Vec<Vec<usize>>> {
        input_shapes(&self.graph, given, symbols, 1)
    }

    /// Makes the plan for these input shapes (in the order of the graph's inputs), or finds it; `visit` sees it.
    pub fn with_plan<T>(&self, shapes: &[Vec<usize>], visit: impl FnOnce(&Plan) -> T) -> Result<T> {
        Ok(visit(&self.planned(shapes)?.plan))
    }

    fn planned(&self, shapes: &[Vec<usize>]) -> Result<Arc<Planned>> {
        {
            let mut plans = lock(&self.plans);
            if let Some(at) = plans.iter().position(|(s, _)| s == shapes) {
                let found = plans.remove(at);
                let plan = found.1.clone();
                plans.push(found);
                return Ok(plan);
            }
        }
        let plan = with_budget(&self.budget, || self.make_plan(shapes))?;
        let planned = Arc::new(Planned { plan, arenas: Mutex::new(Vec::new()) });
        let mut plans = lock(&self.plans);
        if plans.len() >= KEPT_PLANS {
            plans.remove(0);
        }
        plans.push((shapes.to_vec(), planned.clone()));
        Ok(planned)
    }

    fn make_plan(&self, shapes: &[Vec<usize>]) -> Result<Plan> {
        if shapes.len() != self.graph.inputs.len() {
            return Err(Error::invalid(format!(
                "{} inputs were given, the graph has {}",
                shapes.len(),
                self.graph.inputs.len()
            )));
        }
        for (&id, shape) in self.graph.inputs.iter().zip(shapes) {
            check_shape(&self.graph, id, shape)?;
        }
        let specialised = match self.optimise {
            true => passes::specialise(&self.graph, shapes)?,
            false => passes::as_it_stands(&self.graph, shapes)?,
        };
        // Before any table is made by the size of a tensor.
        for (value, fact) in specialised.graph.values.iter().zip(&specialised.facts) {
            let bytes = fact.as_ref().and_then(|f| f.bytes()).unwrap_or(0);
            if bytes > self.budget.cap() {
                return Err(Error::limit(format!(
                    "\"{}\" takes {bytes} bytes, over the memory cap of {}; raise it with --max-memory if the model is trusted",
                    value.name,
                    self.budget.cap()
                )));
            }
        }
        let (pool, chooser) = (&self.pool, &self.chooser);
        let target = plan::lower::Target { isa: self.isa, pool, chooser, element: self.precision };
        let plan = plan::lower::lower(&specialised.graph, &specialised.facts, &target)?;
        // Asked now, so that a shape too large fails with its cause and not in the middle of a run.
        if plan.arena_bytes() > self.budget.cap() {
            return Err(Error::limit(format!(
                "the plan for input shapes {shapes:?} needs {} bytes of working memory, over the cap of {}; raise it with --max-memory if the model is trusted",
                plan.arena_bytes(),
                self.budget.cap()
            )));
        }
        Ok(plan)
    }

    /// The outputs for `inputs`, one for each input of the graph, in order.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.run_with(inputs, &CancelToken::new(), None)
    }

    /// [`Self::run`] by input name.
    pub fn run_named(&self, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<Tensor>> {
        for name in inputs.keys() {
            self.graph.find_input(name)?;
        }
        let ordered = self
            .graph
            .inputs
            .iter()
            .map(|&id| {
                let name = &self.graph.value(id).name;
                let found = inputs.get(name).cloned();
                found
                    .ok_or_else(|| Error::invalid(format!("input {} was not given", self.graph.describe(id))))
            })
            .collect::<Result<Vec<_>>>()?;
        self.run(&ordered)
    }

    /// [`Self::run`] that `cancel` can stop and that writes where its time went into `profile`.
    pub fn run_with(
        &self,
        inputs: &[Tensor],
        cancel: &CancelToken,
        profile: Option<&mut Profile>,
    ) -> Result<Vec<Tensor>> {
        self.check_types(inputs)?;
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let planned = self.planned(&shapes)?;
        let free = lock(&planned.arenas).pop();
        let mut arena = match free {
            Some(arena) => arena,
            None => Arena::new(planned.plan.arena_len, &self.budget)?,
        };
        let outputs =
            with_budget(&self.budget, || self.run_steps(&planned.plan, inputs, &mut arena, cancel, profile));
        lock(&planned.arenas).push(arena);
        outputs
    }

    fn check_types(&self, inputs: &[Tensor]) -> Result<()> {
        if inputs.len() != self.graph.inputs.len() {
            return Err(Error::invalid(format!(
                "{} inputs were given, the graph has {}",
                inputs.len(),
                self.graph.inputs.len()
            )));
        }
        for (&id, tensor) in self.graph.inputs.iter().zip(inputs) {
            if self.graph.value(id).dtype.is_some_and(|d| d != tensor.dtype()) {
                return Err(Error::invalid(format!(
                    "input {} was given as {}",
                    self.graph.describe(id),
                    tensor.dtype()
                )));
            }
        }
        Ok(())
    }

    fn run_steps(
        &self,
        plan: &Plan,
        inputs: &[Tensor],
        arena: &mut Arena,
        cancel: &CancelToken,
        mut profile: Option<&mut Profile>,
    ) -> Result<Vec<Tensor>> {
        let _active = self.pool.activate();
        let start = Instant::now();
        let mut environment = Environment {
            arena,
            offsets: &plan.offsets,
            inputs,
            heap: vec![None; plan.heap_slots],
            outputs: vec![None; plan.outputs.len()],
            pool: &self.pool,
            isa: self.isa,
        };
        for step in &plan.steps {
            cancel.check()?;
            let begun = profile.is_some().then(|| start.elapsed());
            step.kernel
                .run(&mut environment)
                .context(|| format!("node \"{}\" ({})", step.info.node, step.info.operator))?;
            if let (Some(profile), Some(begun)) = (profile.as_deref_mut(), begun) {
                let info = step.info.clone();
                profile.steps.push(StepProfile {
                    node: info.node,
                    operator: info.operator,
                    algorithm: info.algorithm,
                    reason: info.reason,
                    candidates: info.candidates,
                    shape: info.shape,
                    macs: info.macs,
                    start: begun,
                    time: start.elapsed() - begun,
                });
            }
        }
        environment
            .outputs
            .into_iter()
            .map(|o| o.ok_or_else(|| Error::invalid("the plan did not make an output")))
            .collect()
    }
}

/// Noise for an input nobody gave, the same for the same seed: standard normal for floats, small whole numbers
/// otherwise. `bench` and `verify` use it.
pub fn random_input(dtype: DType, shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let count = planish_graph::limits::element_count(shape)?;
    if dtype.is_float() {
        // The sum of four uniform numbers, centred and scaled to variance one: near enough to normal.
        let values: Vec<f64> =
            (0..count).map(|_| (next() + next() + next() + next() - 2.0) * 1.7320508).collect();
        return Tensor::from_f64s(dtype, shape, &values);
    }
    let top = if dtype == DType::Bool { 2.0 } else { 100.0 };
    let values: Vec<i128> = (0..count).map(|_| (next() * top) as i128).collect();
    Tensor::from_ints(dtype, shape, &values)
}
