//! `planish optimize`: the main job. A network is made as fast on this machine as its accuracy may cost.
//!
//! Without pictures nothing may be lost: `plain` simplifies and chooses algorithms. With pictures `search` also chooses the
//! number format of each layer, within a bound of accuracy that `judge` watches over, and reports what it chose and why.

mod json;
mod judge;
mod layers;
mod page;
mod plain;
mod search;
mod terminal;

use super::model::{self, Execution, Precision, Shapes};
use super::pictures::PictureArguments;
use super::quantize;
use super::source::{Source, SourceArguments};
use clap::Args;
use planish::files::cifar10::Cifar10;
use planish_graph::error::Context;
use planish_graph::{Error, Result};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// What to optimise.
#[derive(Args)]
#[command(mut_arg("precision", |a| a.value_parser(model::precision_or_auto)))]
pub struct Arguments {
    /// The ONNX file; without one, the embedded ResNet-20 for CIFAR-10 and its 100 embedded pictures
    model: Option<PathBuf>,
    /// Write the optimised network here, as ONNX that other engines read
    #[arg(short, long, value_name = "OUT.onnx")]
    output: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArguments,
    /// Points of accuracy (top-1, in percent) that may be lost for speed; needs pictures [default with pictures: 0.5]
    #[arg(long, value_name = "POINTS", value_parser = quantize::points)]
    max_drop: Option<f64>,
    /// Pictures that calibrate, chosen at random by --seed
    #[arg(long, default_value = "300", value_name = "N")]
    count: NonZeroUsize,
    /// Pictures that measure the accuracy, at most; none of them calibrates
    #[arg(long, default_value = "2000", value_name = "N")]
    held_out: NonZeroUsize,
    /// For the choice of pictures
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Seconds after which the search ends with the best found so far, as Ctrl-C ends it
    #[arg(long, value_name = "SECONDS", value_parser = model::seconds)]
    budget: Option<f64>,
    /// Save the report here, a page, and as JSON beside it [default: OUT.html and OUT.json beside -o OUT.onnx]
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    shapes: Shapes,
    #[command(flatten)]
    pictures: PictureArguments,
    #[command(flatten)]
    execution: Execution,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

static EMBEDDED_NETWORK: &[u8] = include_bytes!("../../../models/resnet20-cifar10.onnx");
static EMBEDDED_PICTURES: &[u8] = include_bytes!("../../../models/cifar10-test-100.bin");

/// Optimises.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let begun = Instant::now();
    let place = arguments.model.as_deref().unwrap_or(Path::new("embedded ResNet-20")).to_path_buf();
    if let (Some(model), Some(output)) = (&arguments.model, &arguments.output) {
        model::refuse_overwriting(model, output)?;
    }
    if arguments.report.is_some() && arguments.report == arguments.output {
        return Err(Error::invalid(
            "the report and the network cannot be one file: give another one with --report",
        ));
    }
    let graph = match &arguments.model {
        Some(path) => model::read(path, arguments.execution.max_memory)?,
        None => planish_onnx::read(EMBEDDED_NETWORK, None, &planish_onnx::ReadOptions::default())?,
    };
    let embedded = || Cifar10::from_bytes(EMBEDDED_PICTURES.to_vec()).map(Source::Cifar10);
    let searched = arguments.source.given()
        || arguments.max_drop.is_some()
        || arguments.budget.is_some()
        || arguments.execution.precision == Some(Precision::Auto)
        || arguments.report.is_some();
    if !searched {
        let pictures = arguments.model.is_none().then(embedded).transpose()?;
        return plain::run(arguments, &place, graph, pictures.as_ref(), begun);
    }
    let source = match (arguments.source.given(), &arguments.model) {
        (true, _) => arguments.source.open()?,
        (false, None) => embedded()?,
        (false, Some(_)) => {
            return Err(Error::invalid(
                "number formats are chosen by pictures: give --images DIR, with --labels TSV or without, or \
                 --cifar10 FILE.bin",
            ));
        }
    };
    let outcome =
        search::search(arguments, &place, &graph, &source, begun).context(|| place.display().to_string())?;
    let best = &outcome.variants[outcome.chosen];
    if let Some(path) = &arguments.output {
        planish_onnx::save(&best.graph, path, &planish_onnx::WriteOptions::default())?;
    }
    let told = json::report(arguments, &outcome);
    if let Some(path) = arguments.report_path() {
        save(&path, &page::page(&outcome).render())?;
        save(&path.with_extension("json"), &planish::report::to_json(&told)?)?;
    }
    match arguments.json {
        true => super::print_json(&told)?,
        false => terminal::print(arguments, &outcome),
    }
    Ok(ExitCode::SUCCESS)
}

fn save(path: &Path, text: &str) -> Result<()> {
    planish_files::replace(path, |out| out.write_all(text.as_bytes())).map_err(|e| Error::io(path, &e))
}

impl Arguments {
    /// Where the page of the report is saved, if anywhere.
    fn report_path(&self) -> Option<PathBuf> {
        self.report.clone().or_else(|| self.output.as_ref().map(|output| output.with_extension("html")))
    }
}
