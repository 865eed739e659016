//! `planish eval`: a classifier's accuracy on labelled pictures.

use super::model::{self, Execution};
use super::pictures::{self, PictureArguments};
use super::run::is_classifier;
use super::source::{self, Skipped, Source, SourceArguments};
use clap::{ArgGroup, Args};
use planish::images::{Picture, Preprocessing};
use planish::report::progress::Progress;
use planish_engine::Session;
use planish_graph::error::Context;
use planish_graph::{Dim, Error, Graph, Result};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// What to evaluate.
#[derive(Args)]
#[command(group = ArgGroup::new("pictures_from").required(true).args(["images", "cifar10"]))]
pub struct Arguments {
    /// The ONNX file
    model: PathBuf,
    #[command(flatten)]
    source: SourceArguments,
    /// Only the first N pictures
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Pictures at a time, where the model leaves that open
    #[arg(long, default_value_t = 8, value_name = "N")]
    batch: usize,
    #[command(flatten)]
    pictures: PictureArguments,
    #[command(flatten)]
    execution: Execution,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What an evaluation found.
#[derive(Clone, Copy, Debug)]
pub struct Accuracy {
    /// Pictures evaluated.
    pub images: usize,
    /// Pictures that could not be read.
    pub skipped: usize,
    /// Those whose best class was right.
    pub top1: usize,
    /// Those whose class was among the best five.
    pub top5: usize,
    /// Seconds for everything, decoding included.
    pub seconds: f64,
    /// Seconds in the network alone.
    pub network_seconds: f64,
}

impl Accuracy {
    /// A count as percent of the pictures evaluated.
    pub fn percent(&self, count: usize) -> f64 {
        100.0 * count as f64 / self.images.max(1) as f64
    }
}

/// Evaluates.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let options = arguments.execution.options();
    let loaded = model::load(&arguments.model, &options, false)?;
    let session = &loaded.session;
    let source = arguments.source.open()?;
    if !source.is_labelled() {
        return Err(Error::invalid("give --images DIR with --labels TSV, or --cifar10 FILE.bin"));
    }
    let settings = arguments.pictures.settings(session.graph())?;
    let count = source.len().min(arguments.limit.map_or(usize::MAX, NonZeroUsize::get));
    let places: Vec<usize> = (0..count).collect();
    let offset = arguments.source.class_offset;
    let found = evaluate(session, &source, &places, &settings, arguments.batch, offset)
        .context(|| arguments.model.display().to_string())?;
    model::remember(session);
    let (top1, top5) = (found.percent(found.top1), found.percent(found.top5));
    let rate = found.images as f64 / found.seconds.max(1e-9);
    if arguments.json {
        super::print_json(&json!({
            "model": arguments.model.display().to_string(), "top1": top1, "top5": top5, "images": found.images,
            "skipped": found.skipped, "images_per_s": rate,
            "network_images_per_s": found.images as f64 / found.network_seconds.max(1e-9),
            "preprocessing": settings, "threads": session.threads(), "isa": session.isa().name(), "precision": session.precision().name(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "top-1 {top1:.2} %, top-5 {top5:.2} % of {} pictures, {rate:.1} pictures a second",
        found.images
    );
    if found.skipped > 0 {
        println!("{} pictures could not be read and were left out", found.skipped);
    }
    Ok(ExitCode::SUCCESS)
}

/// How many pictures a run takes: what the model says, or what was asked for.
pub fn batch_size(graph: &Graph, asked: usize) -> usize {
    let dims = graph.inputs.first().and_then(|&i| graph.value(i).shape.as_ref());
    match dims.and_then(|d| d.first()) {
        Some(Dim::Fixed(n)) => (*n).max(1),
        _ => asked.clamp(1, 4096),
    }
}

/// Runs the labelled pictures at `places` of `source` through `session` and counts right answers.
pub fn evaluate(
    session: &Session,
    source: &Source,
    places: &[usize],
    settings: &Preprocessing,
    batch: usize,
    class_offset: Option<usize>,
) -> Result<Accuracy> {
    pictures::picture_input(session.graph())?;
    let batch = batch_size(session.graph(), batch);
    let mut found = Accuracy { images: 0, skipped: 0, top1: 0, top5: 0, seconds: 0.0, network_seconds: 0.0 };
    let progress = Progress::new("pictures", places.len() as u64);
    let begun = Instant::now();
    let mut skipped = Skipped::default();
    let mut labels = Vec::with_capacity(batch);
    let mut waiting: Vec<Picture> = Vec::with_capacity(batch);
    for (seen, &index) in places.iter().enumerate() {
        match source.get(index) {
            Ok((class, picture)) => {
                labels.push(class);
                waiting.push(picture);
            }
            Err(error) => skipped.add(&error, &progress),
        }
        if waiting.len() == batch || seen + 1 == places.len() && !waiting.is_empty() {
            // The last batch is filled up, so that one plan serves all and models of fixed batch run too.
            while waiting.len() < batch {
                waiting.push(waiting[0].clone());
            }
            let input = settings.batch(&waiting)?;
            let start = Instant::now();
            let outputs = session.run(&[input])?;
            found.network_seconds += start.elapsed().as_secs_f64();
            for better in ranks(&outputs, &labels, class_offset)? {
                found.images += 1;
                found.top1 += usize::from(better == Some(0));
                found.top5 += usize::from(better.is_some_and(|b| b < 5));
            }
            labels.clear();
            waiting.clear();
        }
        progress.advance(1);
    }
    skipped.end(&progress);
    drop(progress);
    found.skipped = skipped.0;
    found.seconds = begun.elapsed().as_secs_f64();
    if found.images == 0 {
        return Err(source::none_of(places.len()));
    }
    Ok(found)
}

/// For each label the number of classes that a network scored better in its row of the first output; `None` where the
/// label is not known, or its score is NaN, which is never right.
pub fn ranks(
    outputs: &[planish_graph::Tensor],
    labels: &[Option<usize>],
    class_offset: Option<usize>,
) -> Result<Vec<Option<usize>>> {
    let Some(scores) = outputs.first().filter(|t| is_classifier(t)) else {
        return Err(Error::unsupported(
            "the model's first output is not rows of class scores [batch, classes]",
        ));
    };
    let classes = scores.shape()[1];
    let offset = class_offset.unwrap_or(usize::from(classes == 1001));
    let rank = |(row, label): (&[f32], &Option<usize>)| {
        let Some(label) = *label else { return Ok(None) };
        let wanted = label.saturating_add(offset);
        let Some(&own) = row.get(wanted) else {
            return Err(Error::invalid(format!(
                "label {label} is class {wanted} of a model that has {classes} classes"
            )));
        };
        // Ties count against the model only where an earlier class ties, as with argmax.
        let better = row.iter().enumerate().filter(|&(c, &s)| s > own || s == own && c < wanted).count();
        Ok((!own.is_nan()).then_some(better))
    };
    scores.as_slice::<f32>()?.chunks_exact(classes).zip(labels).map(rank).collect()
}
