//! The search for the fastest network within the bound: float in each precision, and integers where they are faster, with as
//! many layers back in float as accuracy asks for. Whatever was judged and holds can be the answer, so that the search may
//! end at any time.

use super::super::eval;
use super::super::interrupt::Interrupt;
use super::super::model::{self, Precision};
use super::super::pictures;
use super::super::source::{Prepared, Source};
use super::super::timing;
use super::Arguments;
use super::judge::{Judge, Judgement, Standard};
use super::layers::{self, Choice};
use planish::images::Preprocessing;
use planish::report::progress::Progress;
use planish::report::stats::Summary;
use planish_compress::quantize::mixed::{self, Bounded, Times};
use planish_compress::quantize::{Event, Form, Options, Pictures, Quantised, Watch, check, quantize};
use planish_cpu::element::ElementType;
use planish_engine::plan::tune;
use planish_engine::{Session, SessionOptions};
use planish_graph::{Error, Graph, Result, Tensor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Points that may be lost where nothing else is said.
const MAX_DROP: f64 = 0.5;
/// Pictures at a time, where the model leaves that open: when calibrating, and when judging.
const CALIBRATING: usize = 4;
const JUDGING: usize = 8;
/// Seconds of the last comparison.
const COMPARING: f64 = 3.0;

/// What is measured so many times as long as something else is faster than it, and not by chance. Precisions come in the order
/// in which they are preferred.
const CLEARLY: f64 = 0.97;

/// What a variant of the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it was read, without passes.
    AsRead,
    /// Simplified, in float.
    Float,
    /// Integers where they are faster and accurate enough.
    Integers,
}

/// One way to run the network.
pub struct Variant {
    /// What it is.
    pub kind: Kind,
    /// What numbers of float layers are kept as.
    pub precision: ElementType,
    /// Ready to run.
    pub session: Session,
    /// What would be written.
    pub graph: Graph,
    /// How it was judged; `None` where there was no time for that.
    pub judgement: Option<Judgement>,
    /// Whether it loses no more than it may.
    pub holds: bool,
    /// Milliseconds of a run.
    pub latency: Option<Summary>,
    /// Bytes of its file, where that is no more than fits one.
    pub file_bytes: Option<usize>,
    /// Bytes that one run works in.
    pub arena_bytes: usize,
}

impl Variant {
    /// A short name.
    pub fn name(&self) -> String {
        match self.kind {
            Kind::AsRead => "unoptimised".to_string(),
            Kind::Float => self.precision.to_string(),
            Kind::Integers if self.precision == ElementType::F32 => "int8".to_string(),
            Kind::Integers => format!("int8 + {}", self.precision),
        }
    }
    /// The median of its latency; infinite where it was not measured.
    pub fn median(&self) -> f64 {
        self.latency.map_or(f64::INFINITY, |l| l.p50)
    }
    fn new(kind: Kind, graph: Graph, session: Session, shapes: &[Vec<usize>]) -> Result<Variant> {
        let written = planish_onnx::write(&graph, &planish_onnx::WriteOptions::default());
        Ok(Variant {
            kind,
            precision: session.precision(),
            arena_bytes: session.with_plan(shapes, |plan| plan.arena_bytes())?,
            session,
            file_bytes: written.ok().map(|bytes| bytes.len()),
            graph,
            judgement: None,
            holds: false,
            latency: None,
        })
    }
}

/// Everything that a report tells.
pub struct Outcome {
    /// Where the network came from.
    pub place: PathBuf,
    /// What was counted.
    pub standard: Standard,
    /// The most points that may be lost.
    pub max_drop: f64,
    /// The seed that chose the pictures.
    pub seed: u64,
    /// Pictures that calibrated, that were asked for, that judged, and that could not be read.
    pub calibrating: usize,
    /// See above.
    pub asked: usize,
    /// See above.
    pub judging: usize,
    /// See above.
    pub skipped: usize,
    /// The shapes that times hold for.
    pub shapes: Vec<Vec<usize>>,
    /// The network as it was read first, then whatever was tried.
    pub variants: Vec<Variant>,
    /// The variant that is written.
    pub chosen: usize,
    /// How integers were judged before any layer went back to float for accuracy's sake.
    pub all_integers: Option<Judgement>,
    /// The layers that went back.
    pub back: Vec<String>,
    /// What was chosen for each layer, and why.
    pub layers: Vec<Choice>,
    /// Seconds that everything took.
    pub seconds: f64,
    /// Whether Ctrl-C or the budget ended it.
    pub interrupted: bool,
}

/// Searches. `begun` is when the command started.
pub fn search(
    arguments: &Arguments,
    place: &Path,
    graph: &Graph,
    source: &Source,
    begun: Instant,
) -> Result<Outcome> {
    pictures::picture_input(graph)?;
    // Before anything takes time.
    check(graph)?;
    if source.len() < 2 {
        return Err(Error::invalid(
            "there is one picture: give two or more, to calibrate with and to judge by",
        ));
    }
    let settings = arguments.pictures.settings(graph)?;
    let interrupt = Arc::new(Interrupt::new());
    let (raised, budget) = (interrupt.clone(), arguments.budget.unwrap_or(f64::INFINITY));
    let go_on = move || !raised.is_raised() && begun.elapsed().as_secs_f64() < budget;
    let mut options = arguments.execution.options();
    if let Some(tuning) = &mut options.chooser.tune {
        // Ctrl-C is ours here.
        let raised = interrupt.clone();
        tuning.watch = Some(tune::Watch(Arc::new(move |_| !raised.is_raised())));
    }
    let floats = precisions(arguments.execution.precision, &options)?;
    let shapes = shapes(arguments, graph, &settings)?;
    let as_read = Session::new(
        graph.clone(),
        &SessionOptions { optimise: false, precision: ElementType::F32, ..options.clone() },
    )?;
    let inputs = model::random_inputs(graph, &shapes, 1)?;
    let standard = Standard::of(&as_read.run(&inputs)?, source.is_labelled())?;
    let batch = if standard == Standard::Outputs { 1 } else { JUDGING };
    let (calibration, held) = read(arguments, graph, source, &settings, batch)?;

    let max_drop = arguments.max_drop.unwrap_or(MAX_DROP);
    let (judge, before) = Judge::new(&held, standard, arguments.source.class_offset, &as_read, &go_on)?;
    let holds = |found: &Judgement| before.percent() - found.percent() <= max_drop + 1e-9;
    let mut first = Variant::new(Kind::AsRead, graph.clone(), as_read, &shapes)?;
    (first.judgement, first.holds) = (Some(before.clone()), true);
    let mut variants = vec![first];
    for &precision in &floats {
        let session = Session::new(graph.clone(), &SessionOptions { precision, ..options.clone() })?;
        let simple = session.graph().clone();
        let mut variant = Variant::new(Kind::Float, simple, session, &shapes)?;
        variant.judgement = judge.judge(&variant.session)?;
        // What is only simplified answers the same, judged or not.
        let exact = precision == ElementType::F32;
        variant.holds = variant.judgement.as_ref().map_or(exact, holds);
        variants.push(variant);
    }

    let search = Integers {
        graph,
        options: &options,
        floats: &floats,
        inputs: &inputs,
        shapes: &shapes,
        judge: &judge,
    };
    let pictures = Pictures { batches: &calibration.batches, options: &options };
    let mut found = None;
    if go_on() {
        let mut shown: Option<Progress> = None;
        let mut tell = |event: Event<'_>| {
            match event {
                Event::Begin(stage, steps) => shown = Some(Progress::new(stage, steps as u64)),
                Event::Step => shown.iter().for_each(|p| p.advance(1)),
            }
            go_on()
        };
        let made = search.find(&pictures, &holds, &mut Watch::new(&mut tell))?;
        let session = Session::new(made.graph.clone(), &search.options(made.precision))?;
        let mut variant = Variant::new(Kind::Integers, made.graph.clone(), session, &shapes)?;
        (variant.judgement, variant.holds) = (made.bounded.last.clone(), made.bounded.kept);
        variants.push(variant);
        // The precision was chosen before layers went back: with them, another one may be faster.
        let others = floats.iter().filter(|p| **p != made.precision && !made.bounded.back.is_empty());
        for &precision in others {
            let session = Session::new(made.graph.clone(), &search.options(precision))?;
            let mut variant = Variant::new(Kind::Integers, made.graph.clone(), session, &shapes)?;
            variant.judgement = judge.judge(&variant.session)?;
            variant.holds = variant.judgement.as_ref().is_some_and(holds);
            variants.push(variant);
        }
        found = Some(made);
    }
    if variants.len() > 1 {
        compare(&mut variants, &inputs, &go_on)?;
    }
    let fastest = (0..variants.len())
        .filter(|&v| variants[v].holds)
        .min_by(|&a, &b| variants[a].median().total_cmp(&variants[b].median()));
    let chosen = fastest.unwrap_or(0);
    for variant in &mut variants {
        settings.store(&mut variant.graph)?;
        model::remember(&variant.session);
    }
    let layers = layers::explain(&variants, chosen, found.as_ref(), &inputs)?;
    let names = found.as_ref().map(|f| (f.quantised.layers(), &f.bounded.back));
    let back = names.map_or(Vec::new(), |(all, back)| back.iter().map(|&l| all[l].name.clone()).collect());
    let interrupted = !go_on();
    if interrupted {
        eprintln!("planish: ended early; the best network so far that fulfils the bound is taken");
    }
    Ok(Outcome {
        place: place.to_path_buf(),
        standard,
        max_drop,
        seed: arguments.seed,
        calibrating: calibration.len(),
        asked: arguments.count.get(),
        judging: judge.pictures(),
        skipped: calibration.skipped + held.skipped,
        variants,
        chosen,
        back,
        all_integers: found.and_then(|f| f.bounded.first),
        layers,
        seconds: begun.elapsed().as_secs_f64(),
        interrupted,
        shapes,
    })
}

/// The pictures that calibrate, and those that judge, `batch` at a time.
fn read(
    arguments: &Arguments,
    graph: &Graph,
    source: &Source,
    settings: &Preprocessing,
    batch: usize,
) -> Result<(Prepared, Prepared)> {
    let (what, most) = ("reading pictures", arguments.execution.max_memory);
    let order = source.order(arguments.seed);
    // However many cannot be read, half of them are left to judge by.
    let half = &order[..order.len().div_ceil(2)];
    let asked = arguments.count.get();
    let calibrating = eval::batch_size(graph, CALIBRATING);
    let calibration = source.prepare(what, half, asked, calibrating, settings, most)?;
    if calibration.len() < asked {
        eprintln!(
            "planish: {asked} pictures were asked for; calibrating with {} of {}, half of which are left to judge by",
            calibration.len(),
            order.len()
        );
    }
    let judges = &order[calibration.places..];
    let judging = eval::batch_size(graph, batch);
    let held = source.prepare(what, judges, arguments.held_out.get(), judging, settings, most)?;
    Ok((calibration, held))
}

/// What float layers may be kept as.
fn precisions(asked: Option<Precision>, options: &SessionOptions) -> Result<Vec<ElementType>> {
    let isa = match options.isa {
        Some(isa) => isa,
        None => planish_cpu::isa::Isa::from_env().map_err(|e| Error::unsupported(e.to_string()))?,
    };
    Ok(match asked {
        None | Some(Precision::Auto) if isa.has_bf16() => vec![ElementType::F32, ElementType::Bf16],
        Some(Precision::Is(ElementType::Bf16)) if !isa.has_bf16() => {
            model::note_precision(ElementType::Bf16, isa);
            vec![ElementType::F32]
        }
        Some(Precision::Is(element)) => vec![element],
        None | Some(Precision::Auto) => vec![ElementType::F32],
    })
}

/// The shapes of inputs that times are measured for: as told, and open pictures as the pictures are prepared.
fn shapes(arguments: &Arguments, graph: &Graph, settings: &Preprocessing) -> Result<Vec<Vec<usize>>> {
    let mut shapes = arguments.shapes.resolve(graph)?;
    if arguments.shapes.shapes.is_empty()
        && let [shape] = &mut shapes[..]
        && shape.len() == 4
    {
        (shape[2], shape[3]) = settings.size;
    }
    Ok(shapes)
}

/// Times `variants` in turn.
fn compare(variants: &mut [Variant], inputs: &[Tensor], go_on: &dyn Fn() -> bool) -> Result<()> {
    let progress = Progress::new("comparing", 1);
    let sessions: Vec<&Session> = variants.iter().map(|v| &v.session).collect();
    let times = timing::in_turn(&sessions, inputs, COMPARING, go_on)?;
    drop(progress);
    for (variant, times) in variants.iter_mut().zip(times) {
        variant.latency = Summary::of(&times);
    }
    Ok(())
}

/// The search among networks of integers.
struct Integers<'a> {
    graph: &'a Graph,
    options: &'a SessionOptions,
    floats: &'a [ElementType],
    inputs: &'a [Tensor],
    shapes: &'a [Vec<usize>],
    judge: &'a Judge<'a>,
}

/// What that search found.
pub struct Found {
    /// The network, with everything that was decided about it.
    pub quantised: Quantised,
    /// What each layer takes in float and in integers.
    pub times: Vec<Times>,
    /// How it was kept accurate.
    pub bounded: Bounded<Option<Judgement>>,
    /// What its float layers were thought to be kept as best.
    precision: ElementType,
    graph: Graph,
}

impl Integers<'_> {
    fn options(&self, precision: ElementType) -> SessionOptions {
        SessionOptions { precision, ..self.options.clone() }
    }

    fn find(
        &self,
        pictures: &Pictures<'_>,
        holds: &dyn Fn(&Judgement) -> bool,
        watch: &mut Watch<'_>,
    ) -> Result<Found> {
        let mut quantised = quantize(self.graph, pictures, &Options::default(), watch)?;
        // For each precision which layers are faster in float, and how long the whole takes.
        let mut best: Option<(f64, ElementType, Vec<Times>)> = None;
        watch.begin("timing layers", self.floats.len());
        let mut chosen = Default::default();
        for &precision in self.floats {
            if !quantised.float().is_empty() {
                quantised.keep_float(Default::default(), Default::default(), pictures, watch)?;
            }
            let options = self.options(precision);
            let mut time =
                |graph: &Graph| timing::profile(&Session::new(graph.clone(), &options)?, self.inputs);
            let mut times = quantised.times(self.graph, &mut time)?;
            let shape = &self.shapes[0];
            let whole = quantised.keep_faster_float(&mut times, shape, &mut time, pictures, watch)?;
            if best.as_ref().is_none_or(|b| whole < CLEARLY * b.0) {
                chosen = quantised.between().clone();
                best = Some((whole, precision, times));
            }
            watch.step();
        }
        let (_, precision, times) = best.expect("there is a precision");
        if *quantised.between() != chosen {
            quantised.keep_float(chosen.clone(), chosen, pictures, watch)?;
        }
        let options = self.options(precision);
        let mut judge =
            |quantised: &Quantised| self.judge.judge(&Session::new(quantised.graph(Form::Qdq)?, &options)?);
        let holds = |found: &Option<Judgement>| found.as_ref().is_some_and(holds);
        let mut known = |_: &Quantised| Ok(times.clone());
        let bounded = mixed::within(&mut quantised, &mut known, pictures, &mut judge, &holds, watch)?;
        let graph = quantised.graph(Form::Qdq)?;
        Ok(Found { quantised, times, bounded, precision, graph })
    }
}
