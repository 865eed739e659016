//! `planish eval`: a classifier's accuracy on labelled pictures.

use super::model::{self, Execution};
use super::pictures::{self, PictureArguments};
use super::run::is_classifier;
use clap::{ArgGroup, Args};
use planish::files::cifar10::Cifar10;
use planish::files::labels::{ClassNames, Listing};
use planish::images::{Picture, Preprocessing};
use planish::report::progress::Progress;
use planish_engine::Session;
use planish_graph::error::Context;
use planish_graph::{Dim, Error, Graph, Result};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// What to evaluate.
#[derive(Args)]
#[command(group = ArgGroup::new("pictures_from").required(true).args(["images", "cifar10"]))]
pub struct Arguments {
    /// The ONNX file
    model: PathBuf,
    /// Folder of pictures
    #[arg(long, value_name = "DIR", requires = "labels")]
    images: Option<PathBuf>,
    /// Table of file and class, separated by a tab, one picture a line
    #[arg(long, value_name = "TSV")]
    labels: Option<PathBuf>,
    /// CIFAR-10 pictures in the official binary layout, instead of --images
    #[arg(long, value_name = "FILE.bin", conflicts_with_all = ["images", "labels"])]
    cifar10: Option<PathBuf>,
    /// Class names, one a line, where the table names classes by text
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// The model's class for label 0 [default: 1 for models of 1001 classes, whose class 0 is the background; else 0]
    #[arg(long, value_name = "N")]
    class_offset: Option<usize>,
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

/// Labelled pictures, one after the other.
#[derive(Clone)]
pub enum Pictures {
    /// Files of a folder.
    Files(PathBuf, Listing),
    /// CIFAR-10's binary layout.
    Cifar10(Cifar10),
    /// Those of others that are at these places.
    Chosen(Box<Pictures>, Arc<[usize]>),
}

impl Pictures {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Pictures::Files(_, listing) => listing.pictures.len(),
            Pictures::Cifar10(data) => data.len(),
            Pictures::Chosen(_, places) => places.len(),
        }
    }
    /// The class and the content of one.
    pub fn get(&self, index: usize) -> Result<(usize, Picture)> {
        match self {
            Pictures::Files(folder, listing) => {
                let entry = &listing.pictures[index];
                Ok((entry.class, pictures::decode_one(&folder.join(&entry.file))?))
            }
            Pictures::Cifar10(data) => {
                let gone = || Error::invalid(format!("there is no picture {index}"));
                let (class, _) = data.get(index).ok_or_else(gone)?;
                Ok((class, data.picture(index).ok_or_else(gone)?))
            }
            Pictures::Chosen(all, places) => all.get(places[index]),
        }
    }
}

/// Evaluates.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let options = arguments.execution.options();
    let loaded = model::load(&arguments.model, &options, false)?;
    let session = &loaded.session;
    let names = arguments.classes.as_deref().map(ClassNames::read).transpose()?;
    let source = match (&arguments.cifar10, &arguments.images, &arguments.labels) {
        (Some(file), _, _) => Pictures::Cifar10(Cifar10::read(file)?),
        (None, Some(folder), Some(labels)) => {
            Pictures::Files(folder.clone(), Listing::read(labels, names.as_ref())?)
        }
        _ => return Err(Error::invalid("give --images DIR with --labels TSV, or --cifar10 FILE.bin")),
    };
    let settings = arguments.pictures.settings(session.graph())?;
    let count = source.len().min(arguments.limit.map_or(usize::MAX, NonZeroUsize::get));
    let found = evaluate(session, &source, count, &settings, arguments.batch, arguments.class_offset)
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
fn batch_size(graph: &Graph, asked: usize) -> usize {
    let dims = graph.inputs.first().and_then(|&i| graph.value(i).shape.as_ref());
    match dims.and_then(|d| d.first()) {
        Some(Dim::Fixed(n)) => (*n).max(1),
        _ => asked.clamp(1, 4096),
    }
}

/// Runs the first `count` pictures of `source` through `session` and counts right answers.
pub fn evaluate(
    session: &Session,
    source: &Pictures,
    count: usize,
    settings: &Preprocessing,
    batch: usize,
    class_offset: Option<usize>,
) -> Result<Accuracy> {
    pictures::picture_input(session.graph())?;
    let batch = batch_size(session.graph(), batch);
    let mut found = Accuracy { images: 0, skipped: 0, top1: 0, top5: 0, seconds: 0.0, network_seconds: 0.0 };
    let progress = Progress::new("pictures", count as u64);
    let begun = Instant::now();
    let mut labels = Vec::with_capacity(batch);
    let mut waiting: Vec<Picture> = Vec::with_capacity(batch);
    for index in 0..count {
        match source.get(index) {
            Ok((class, picture)) => {
                labels.push(class);
                waiting.push(picture);
            }
            Err(error) => {
                found.skipped += 1;
                progress.note(&format!("left out: {error}"));
            }
        }
        if waiting.len() == batch || index + 1 == count && !waiting.is_empty() {
            // The last batch is filled up, so that one plan serves all and models of fixed batch run too.
            while waiting.len() < batch {
                waiting.push(waiting[0].clone());
            }
            let input = settings.batch(&waiting)?;
            let start = Instant::now();
            let outputs = session.run(&[input])?;
            found.network_seconds += start.elapsed().as_secs_f64();
            score(&outputs, &labels, class_offset, &mut found)?;
            labels.clear();
            waiting.clear();
        }
        progress.advance(1);
    }
    drop(progress);
    found.seconds = begun.elapsed().as_secs_f64();
    if found.images == 0 {
        return Err(Error::invalid(format!("none of {count} pictures could be read")));
    }
    Ok(found)
}

fn score(
    outputs: &[planish_graph::Tensor],
    labels: &[usize],
    class_offset: Option<usize>,
    found: &mut Accuracy,
) -> Result<()> {
    let Some(scores) = outputs.first().filter(|t| is_classifier(t)) else {
        return Err(Error::unsupported(
            "the model's first output is not rows of class scores [batch, classes]",
        ));
    };
    let classes = scores.shape()[1];
    let offset = class_offset.unwrap_or(usize::from(classes == 1001));
    for (row, &label) in scores.as_slice::<f32>()?.chunks_exact(classes).zip(labels) {
        let wanted = label.saturating_add(offset);
        let Some(&own) = row.get(wanted) else {
            return Err(Error::invalid(format!(
                "label {label} is class {wanted} of a model that has {classes} classes"
            )));
        };
        // Ties count against the model only where an earlier class ties, as with argmax; NaN is never right.
        let better = row.iter().enumerate().filter(|&(c, &s)| s > own || s == own && c < wanted).count();
        found.images += 1;
        found.top1 += usize::from(better == 0 && !own.is_nan());
        found.top5 += usize::from(better < 5 && !own.is_nan());
    }
    Ok(())
}

/// CIFAR-10 pictures held in memory (the embedded ones).
pub fn cifar10(bytes: &[u8]) -> Result<Pictures> {
    Cifar10::from_bytes(bytes.to_vec()).map(Pictures::Cifar10)
}
