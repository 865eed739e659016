//! `planish quantize`: a float model into one of 8-bit integers, in QDQ form, with the accuracy kept.

mod report;
mod weights_only;

use super::eval::{self, Accuracy};
use super::interrupt::Interrupt;
use super::model::{self, Execution};
use super::pictures::{self, PictureArguments};
use super::source::{Source, SourceArguments};
use super::timing;
use clap::{ArgGroup, Args, ValueEnum};
use planish::images::Preprocessing;
use planish::report::progress::Progress;
use planish_compress::quantize::activation_bits::ActivationBits;
use planish_compress::quantize::adaround::AdaRound;
use planish_compress::quantize::grid::Levels;
use planish_compress::quantize::mixed::{self, Bounded};
use planish_compress::quantize::observe::observer;
use planish_compress::quantize::weights_only::WeightsOnly;
use planish_compress::quantize::{
    Distance, Event, Form, Options, Pictures, Quantised, Watch, WeightScheme, quantize,
};
use planish_engine::{Session, SessionOptions};
use planish_graph::error::Context;
use planish_graph::{Error, Graph, Result};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// What to quantise, and how.
#[derive(Args)]
#[command(group = ArgGroup::new("calibrates").required(true).args(["images", "cifar10", "weights_only"]))]
pub struct Arguments {
    /// The float ONNX file
    model: PathBuf,
    /// Write the quantised model here, as ONNX with QuantizeLinear and DequantizeLinear
    #[arg(short, long, value_name = "OUT.onnx")]
    output: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArguments,
    /// Only the weights of large dense layers, in four bits with a scale for each block; no pictures are needed
    #[arg(long, value_enum, value_name = "TYPE", conflicts_with_all = ["images", "labels", "cifar10", "max_drop", "report"])]
    weights_only: Option<ShortWeights>,
    /// With --weights-only: weights along the depth that share a scale, a power of two from 16 on
    #[arg(long, default_value_t = WeightsOnly::default().block, value_name = "N", requires = "weights_only")]
    block: usize,
    /// With --weights-only: layers of fewer weights stay as they are
    #[arg(long, default_value_t = WeightsOnly::default().least, value_name = "N", requires = "weights_only")]
    least_weights: usize,
    /// Pictures that calibrate, chosen at random by --seed
    #[arg(long, default_value = "300", value_name = "N")]
    count: NonZeroUsize,
    /// For the choice of pictures and of samples
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// How ranges are found: auto (the best of several), min-max, moving-average, percentile-99.9, percentile-99.99,
    /// percentile-99.999, entropy, mse
    #[arg(long, default_value = "auto", value_name = "OBSERVER", value_parser = observer_name)]
    calibration: String,
    /// Whether integers of weights have their zero in the middle; affine ones have one scale a layer (or block)
    #[arg(long, value_enum, default_value_t = Symmetry::Symmetric)]
    weights: Symmetry,
    /// Bits of a weight, 2 to 8; fewer than 8 are stored in 8 all the same
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=8))]
    weight_bits: u32,
    /// Bytes that all weights may take: each layer gets 8, 4 or 2 bits a weight, by what they cost; K, M, G are understood
    #[arg(long, value_parser = model::bytes, value_name = "BYTES", conflicts_with = "weight_bits")]
    weight_budget: Option<usize>,
    /// One scale for all weights of a layer, rather than one for each output channel
    #[arg(long)]
    per_tensor: bool,
    /// The integers of activations
    #[arg(long, value_enum, default_value_t = Activations::U8)]
    activations: Activations,
    /// Bits of an activation: 8, 4, or auto, which chooses for each scale within --bit-operations
    #[arg(long, value_enum, default_value_t = Widths::Eight, value_name = "8|4|auto")]
    activation_bits: Widths,
    /// With --activation-bits auto: products of the bits of weight and activation that a picture may take; K, M, G
    /// (powers of 1024) are understood
    #[arg(long, value_parser = model::bytes, value_name = "COUNT")]
    bit_operations: Option<usize>,
    /// Move factors between layers, so that channels reach equally far, and absorb high biases
    #[arg(long)]
    equalize: bool,
    /// Leave biases as they are
    #[arg(long)]
    no_bias_correction: bool,
    /// How weights are rounded: to the nearest level, or up or down as suits the layer's results
    #[arg(long, value_enum, default_value_t = Rounding::Nearest)]
    rounding: Rounding,
    /// Steps of adaptive rounding a layer
    #[arg(long, default_value_t = AdaRound::default().iterations, value_name = "N", value_parser = iterations)]
    iterations: usize,
    /// Leave the layer of this name in float; may be given several times
    #[arg(long, value_name = "LAYER")]
    keep_float: Vec<String>,
    /// Put layers back to float until top-1 drops by no more than so many points, those first that regain most accuracy for
    /// each millisecond they lose; needs labels
    #[arg(long, value_name = "POINTS", value_parser = points)]
    max_drop: Option<f64>,
    /// Measure what each layer costs by itself, and write that here; .html for a page, else JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    pictures: PictureArguments,
    #[command(flatten)]
    execution: Execution,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ShortWeights {
    Int4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Symmetry {
    Symmetric,
    Affine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Activations {
    U8,
    I8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Widths {
    #[value(name = "8")]
    Eight,
    #[value(name = "4")]
    Four,
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rounding {
    Nearest,
    Adaround,
}

/// Pictures at a time, where the model leaves that open.
const BATCH: usize = 4;

/// The accuracy before and after.
struct Judged {
    /// Of the float model.
    float: Accuracy,
    /// Of the quantised model, with no more layers in float than were asked for, and as it is written.
    quantised: Bounded<Accuracy>,
    /// Whether the drop is within the bound, where there is one.
    kept: Option<bool>,
}

/// Everything that a report tells.
struct Outcome {
    quantised: Quantised,
    distance: Distance,
    asked: usize,
    pictures: usize,
    skipped: usize,
    accuracy: Option<Judged>,
    /// Bytes of the constants before and after.
    bytes: [usize; 2],
    /// Products of the bits of weights and activations, for a picture.
    bit_operations: u64,
    seconds: f64,
    interrupted: bool,
}

/// Quantises.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.weights_only.is_some() {
        return weights_only::run(arguments);
    }
    let begun = Instant::now();
    let options = arguments.execution.options();
    let graph = model::read(&arguments.model, options.max_memory)?;
    let place = || arguments.model.display().to_string();
    pictures::picture_input(&graph).context(place)?;
    let settings = arguments.pictures.settings(&graph).context(place)?;
    if let Some(output) = &arguments.output {
        model::refuse_overwriting(&arguments.model, output)?;
    }
    let source = arguments.source.open()?;
    if arguments.max_drop.is_some() && !source.is_labelled() {
        return Err(Error::invalid(
            "--max-drop needs to know what is right: give --labels TSV, or --cifar10 FILE.bin",
        ));
    }
    if (arguments.activation_bits == Widths::Auto) != arguments.bit_operations.is_some() {
        return Err(Error::invalid(
            "--activation-bits auto and --bit-operations COUNT go together: the one chooses, the other says within what",
        ));
    }
    let outcome = quantise(arguments, &options, &graph, &settings, &source).context(place)?;
    let outcome = Outcome { seconds: begun.elapsed().as_secs_f64(), ..outcome };
    if let Some(path) = &arguments.output {
        let mut made = outcome.quantised.graph(Form::Qdq)?;
        settings.store(&mut made)?;
        planish_onnx::save(&made, path, &planish_onnx::WriteOptions::default())?;
    }
    if let Some(path) = &arguments.report {
        report::save(arguments, &outcome, path)?;
    }
    match arguments.json {
        true => super::print_json(&report::json(arguments, &outcome))?,
        false => report::print(arguments, &outcome),
    }
    Ok(ExitCode::SUCCESS)
}

fn quantise(
    arguments: &Arguments,
    options: &SessionOptions,
    graph: &Graph,
    settings: &Preprocessing,
    source: &Source,
) -> Result<Outcome> {
    let order = source.order(arguments.seed);
    // With labels some pictures must be left to judge by.
    let most = if source.is_labelled() { order.len().div_ceil(2) } else { order.len() };
    let asked = arguments.count.get();
    let batch = eval::batch_size(graph, BATCH);
    let calibration =
        source.prepare("reading pictures", &order[..most], asked, batch, settings, options.max_memory)?;
    if calibration.len() < asked {
        let why =
            if source.is_labelled() { ", of which half are left to measure the accuracy with" } else { "" };
        eprintln!(
            "planish: {asked} pictures were asked for; calibrating with {} of {}{why}",
            calibration.len(),
            order.len()
        );
    }
    let interrupt = Interrupt::new();
    let mut shown: Option<Progress> = None;
    let mut tell = |event: Event<'_>| {
        match event {
            Event::Begin(stage, steps) => shown = Some(Progress::new(stage, steps as u64)),
            Event::Step => shown.iter().for_each(|p| p.advance(1)),
        }
        !interrupt.is_raised()
    };
    let mut watch = Watch::new(&mut tell);
    let pictures = Pictures { batches: &calibration.batches, options };
    let sensitivity = arguments.report.is_some();
    let mut quantised = quantize(graph, &pictures, &arguments.options(sensitivity), &mut watch)?;
    let judges = &order[calibration.places..];
    let accuracy = if source.is_labelled() && !judges.is_empty() {
        let measure = |graph: Graph| -> Result<Accuracy> {
            let session = Session::new(graph, options)?;
            eval::evaluate(&session, source, judges, settings, BATCH, arguments.source.class_offset)
        };
        Some(judge(arguments, graph, &mut quantised, &pictures, &measure, &mut watch)?)
    } else {
        None
    };
    let distance = quantised.distance(&pictures, &mut watch)?;
    let interrupted = watch.is_stopped();
    drop(shown);
    if interrupted {
        eprintln!("planish: interrupted; what there is so far is used");
    }
    let bit_operations = quantised.bit_operations()?;
    let bytes = [graph.constant_bytes(), quantised.graph(Form::Qdq)?.constant_bytes()];
    Ok(Outcome {
        distance,
        accuracy,
        asked,
        pictures: calibration.len(),
        skipped: calibration.skipped,
        bytes,
        bit_operations,
        quantised,
        interrupted,
        seconds: 0.0,
    })
}

/// Measures the accuracy, and where it may drop by no more than so much puts layers back to float.
fn judge(
    arguments: &Arguments,
    float: &Graph,
    quantised: &mut Quantised,
    pictures: &Pictures<'_>,
    measure: &dyn Fn(Graph) -> Result<Accuracy>,
    watch: &mut Watch<'_>,
) -> Result<Judged> {
    let before = measure(float.clone())?;
    let top1 = |a: &Accuracy| a.percent(a.top1);
    let most = arguments.max_drop.unwrap_or(f64::INFINITY);
    let holds = |a: &Accuracy| top1(&before) - top1(a) <= most;
    let input = &pictures.batches[..1];
    let mut time = |graph: &Graph| timing::profile(&Session::new(graph.clone(), pictures.options)?, input);
    let mut times = |q: &Quantised| q.times(float, &mut time);
    let mut find = |q: &Quantised| measure(q.graph(Form::Simulated)?);
    let found = mixed::within(quantised, &mut times, pictures, &mut find, &holds, watch)?;
    let kept = arguments.max_drop.map(|_| holds(&found.last));
    Ok(Judged { float: before, quantised: found, kept })
}

impl Arguments {
    fn options(&self, sensitivity: bool) -> Options {
        Options {
            observer: (self.calibration != AUTO).then(|| self.calibration.clone()),
            weights: WeightScheme {
                symmetric: self.weights == Symmetry::Symmetric,
                per_channel: !self.per_tensor,
                bits: self.weight_bits,
            },
            weight_budget: self.weight_budget,
            activations: match (self.activations, self.activation_bits) {
                (Activations::U8, Widths::Four) => Levels::U8.of_bits(4),
                (Activations::I8, Widths::Four) => Levels::I8.of_bits(4),
                (Activations::U8, _) => Levels::U8,
                (Activations::I8, _) => Levels::I8,
            },
            activation_bits: match (self.activation_bits, self.bit_operations) {
                (Widths::Auto, Some(budget)) => ActivationBits::Within(budget),
                _ => ActivationBits::Given,
            },
            equalise: self.equalize,
            correct_bias: !self.no_bias_correction,
            rounding: (self.rounding == Rounding::Adaround).then(|| AdaRound {
                iterations: self.iterations,
                seed: self.seed,
                ..AdaRound::default()
            }),
            keep_float: self.keep_float.clone(),
            sensitivity,
        }
    }
}

/// The choice of the observer left to planish.
const AUTO: &str = "auto";

/// The name of an observer, or "auto".
fn observer_name(text: &str) -> std::result::Result<String, String> {
    match text {
        AUTO => Ok(text.to_string()),
        _ => observer(text).map(|o| o.name().to_string()).map_err(|e| e.message().to_string()),
    }
}

/// Steps of adaptive rounding: one or more, and no more than make sense.
fn iterations(text: &str) -> std::result::Result<usize, String> {
    match text.parse::<usize>() {
        Ok(steps) if (1..=1_000_000).contains(&steps) => Ok(steps),
        _ => Err(format!("\"{text}\" is no number of steps from 1 to 1000000")),
    }
}

/// Points of accuracy: none or more, and no more than there are.
pub fn points(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(points) if (0.0..=100.0).contains(&points) => Ok(points),
        _ => Err(format!("\"{text}\" is no number of points from 0 to 100")),
    }
}
