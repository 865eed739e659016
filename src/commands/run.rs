//! `planish run`: a model once, on tensors or pictures.

use super::model::{self, Execution, Shapes};
use super::pictures::{self, PictureArguments};
use clap::Args;
use planish::files::labels::ClassNames;
use planish::files::npy;
use planish::report::table::{Align, Table};
use planish_graph::error::Context;
use planish_graph::{DType, Error, Result, Tensor};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// What to run.
#[derive(Args)]
pub struct Arguments {
    /// The ONNX file
    model: PathBuf,
    /// A tensor for an input; inputs that get none get noise
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = named_file)]
    inputs: Vec<(String, PathBuf)>,
    /// Pictures, one batch of them
    #[arg(long = "image", value_name = "FILE", num_args = 1.., conflicts_with = "inputs")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    pictures: PictureArguments,
    /// Class names, one a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Write each output there as NAME.npy
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    shapes: Shapes,
    #[command(flatten)]
    execution: Execution,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn named_file(text: &str) -> std::result::Result<(String, PathBuf), String> {
    let (name, file) = text.rsplit_once('=').ok_or(format!("\"{text}\": write NAME=FILE.npy"))?;
    Ok((name.to_string(), PathBuf::from(file)))
}

/// Runs the model.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let options = arguments.execution.options();
    let loaded = model::load(&arguments.model, &options, false)?;
    let session = &loaded.session;
    let graph = session.graph();
    let names = arguments.labels.as_deref().map(ClassNames::read).transpose()?;
    let inputs = inputs(arguments, graph).context(|| arguments.model.display().to_string())?;
    let start = Instant::now();
    let outputs = session.run(&inputs).context(|| arguments.model.display().to_string())?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    model::remember(session);

    let mut list = Vec::new();
    let mut files = std::collections::BTreeSet::new();
    for (&id, tensor) in graph.outputs.iter().zip(&outputs) {
        let name = &graph.value(id).name;
        let mut entry = json!({"name": name, "dtype": tensor.dtype().name(), "shape": tensor.shape()});
        if let Some(folder) = &arguments.output {
            let file = folder.join(format!("{}.npy", file_name(name)));
            if !files.insert(file.clone()) {
                return Err(Error::invalid(format!("two outputs would be written to {}", file.display())));
            }
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
            npy::write(&file, tensor)?;
            entry["file"] = json!(file.display().to_string());
        }
        list.push(entry);
    }
    let top = classes(&outputs, names.as_ref());
    if arguments.json {
        super::print_json(&json!({
            "model": arguments.model.display().to_string(), "outputs": list, "top5": top,
            "first_ms": milliseconds, "load_ms": loaded.load_ms, "threads": session.threads(), "isa": session.isa().name(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (&id, tensor) in graph.outputs.iter().zip(&outputs) {
        println!("{}: {} {:?}{}", graph.value(id).name, tensor.dtype(), tensor.shape(), summary(tensor));
    }
    for (index, picture) in top.as_array().into_iter().flatten().enumerate() {
        let label = arguments.images.get(index).map_or(format!("item {index}"), |p| p.display().to_string());
        println!("\n{label}");
        let mut table =
            Table::new(&[("class", Align::Right), ("name", Align::Left), ("score", Align::Right)]);
        for entry in picture.as_array().into_iter().flatten() {
            let score = format!("{:.4}", entry["score"].as_f64().unwrap_or(f64::NAN));
            table.row([&entry["class"].to_string(), entry["name"].as_str().unwrap_or(""), &score]);
        }
        print!("{table}");
    }
    eprintln!("first run {milliseconds:.2} ms on {} threads ({})", session.threads(), session.isa());
    Ok(ExitCode::SUCCESS)
}

/// The inputs that the arguments ask for, in order.
fn inputs(arguments: &Arguments, graph: &planish_graph::Graph) -> Result<Vec<Tensor>> {
    if !arguments.images.is_empty() {
        pictures::picture_input(graph)?;
        let settings = arguments.pictures.settings(graph)?;
        return Ok(vec![settings.batch(&pictures::decode(&arguments.images)?)?]);
    }
    let mut given = BTreeMap::new();
    for (name, file) in &arguments.inputs {
        graph.find_input(name).context(|| format!("--input {name}"))?;
        given.insert(name.clone(), npy::read(file)?);
    }
    tensors(&arguments.shapes, graph, given)
}

/// The inputs in order: the given ones, and noise for the rest.
fn tensors(
    shapes: &Shapes,
    graph: &planish_graph::Graph,
    mut given: BTreeMap<String, Tensor>,
) -> Result<Vec<Tensor>> {
    let mut shapes = shapes.clone();
    for (name, tensor) in &given {
        shapes.shapes.push((name.clone(), tensor.shape().to_vec()));
    }
    let resolved = shapes.resolve(graph)?;
    let noise = model::random_inputs(graph, &resolved, 1)?;
    let named = graph.inputs.iter().zip(noise);
    Ok(named.map(|(&id, noise)| given.remove(&graph.value(id).name).unwrap_or(noise)).collect())
}

/// An output's name as a file name: what could leave the folder or confuse a shell becomes `_`.
fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let text: String = name.chars().map(safe).take(100).collect();
    if text.trim_matches('.').is_empty() { "output".to_string() } else { text }
}

/// Only so many rows of scores are ranked; all of them are in the output.
const MOST_RANKED: usize = 256;

/// The five best classes of the first rows of the first output, where that looks like a classifier's.
fn classes(outputs: &[Tensor], names: Option<&ClassNames>) -> serde_json::Value {
    let Some(scores) = outputs.first().filter(|t| is_classifier(t)) else { return json!([]) };
    let count = scores.shape()[1];
    let values = scores.to_f32s();
    let top = values.chunks_exact(count).take(MOST_RANKED).map(|row| {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let best = order.into_iter().take(5).map(
            |c| json!({"class": c, "score": row[c], "name": names.map_or(String::new(), |n| n.name(c))}),
        );
        json!(best.collect::<Vec<_>>())
    });
    json!(top.collect::<Vec<_>>())
}

/// Whether a tensor is rows of class scores: `f32`, `[batch, classes]` up to trailing ones.
pub fn is_classifier(tensor: &Tensor) -> bool {
    let shape = tensor.shape();
    tensor.dtype() == DType::F32 && shape.len() >= 2 && shape[1] >= 2 && shape[2..].iter().all(|&d| d == 1)
}

fn summary(tensor: &Tensor) -> String {
    if !tensor.dtype().is_float() || tensor.is_empty() {
        return String::new();
    }
    let values = tensor.to_f32s();
    let (low, high) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let mean = values.iter().map(|&v| v as f64).sum::<f64>() / values.len() as f64;
    format!(", from {low:.4} to {high:.4}, mean {mean:.4}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_names_stay_inside_the_folder() {
        assert_eq!(file_name("logits"), "logits");
        assert_eq!(file_name("../../etc/passwd"), ".._.._etc_passwd");
        assert_eq!(file_name(".."), "output");
        assert!(std::path::Path::new("out").join(file_name("/a:b")).starts_with("out"));
    }
}
