//! `planish verify`: results against expected ones, or the optimised network against the reference, layer by layer.

use super::model::{self, Execution, Shapes};
use clap::Args;
use planish::files::npz;
use planish::report::progress::Progress;
use planish::report::table::{Align, Table};
use planish_cpu::element::ElementType;
use planish_engine::Session;
use planish_graph::error::Context;
use planish_graph::limits::{Budget, with_budget};
use planish_graph::{DType, Error, Graph, Result, Tensor, reference};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to verify.
#[derive(Args)]
pub struct Arguments {
    /// The ONNX file
    model: PathBuf,
    /// Expected results: a folder with test_data_set_* folders (or one of them), or an .npz with inputs and outputs by
    /// name. Without it, the optimised network is checked against the reference on noise, layer by layer
    #[arg(long, value_name = "DIR or FILE.npz")]
    against: Option<PathBuf>,
    /// Largest relative difference of an element [default: 1e-3; with --precision bf16 0.05]
    #[arg(long, value_name = "R")]
    rtol: Option<f64>,
    /// Largest absolute difference of an element, on top
    #[arg(long, default_value_t = 1e-5, value_name = "A")]
    atol: f64,
    /// Compare the outputs also with those that the reference computes from the inputs alone; they may differ by this
    /// relative L2 norm. The reference runs a second time
    #[arg(long, value_name = "L2", conflicts_with = "against")]
    end_to_end: Option<f64>,
    #[command(flatten)]
    shapes: Shapes,
    #[command(flatten)]
    execution: Execution,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The largest relative difference: what was asked for, or what the session's precision can keep to.
    fn rtol(&self, session: &Session) -> f64 {
        let mut nodes = session.graph().nodes.iter();
        let quantised = nodes.any(|node| matches!(node.op.name(), "QuantizeLinear" | "Quantised"));
        let halves = session.graph().values.iter().any(|value| value.dtype == Some(DType::F16));
        self.rtol.unwrap_or(match session.precision() {
            // Some ten roundings to 8 bits, one after the other.
            ElementType::Bf16 | ElementType::U8 => 0.05,
            _ if quantised => 0.05,
            // The same to 11 bits, of which a network in `f16` says that they do not matter.
            ElementType::F16 => 0.00625,
            ElementType::F32 if halves => 0.00625,
            ElementType::F32 => 1e-3,
        })
    }
}

/// How one tensor compares with what was expected.
struct Comparison {
    place: String,
    shape: Vec<usize>,
    relative_l2: f64,
    largest: f64,
    problem: Option<String>,
    /// Whether people want to see it although it agrees.
    shown: bool,
}

/// Verifies; the exit status is 0 only where everything agrees.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let comparisons = match &arguments.against {
        Some(path) => against(arguments, path),
        None => layer_by_layer(arguments),
    }
    .context(|| arguments.model.display().to_string())?;
    let wrong: Vec<&Comparison> = comparisons.iter().filter(|c| c.problem.is_some()).collect();
    if arguments.json {
        let list: Vec<serde_json::Value> = comparisons
            .iter()
            .map(|c| {
                json!({"value": c.place, "shape": c.shape, "relative_l2": c.relative_l2, "largest_difference": c.largest,
                       "problem": c.problem})
            })
            .collect();
        super::print_json(&json!({
            "model": arguments.model.display().to_string(), "agree": wrong.is_empty(), "compared": comparisons.len(),
            "first_departure": wrong.first().map(|c| c.place.clone()), "values": list,
        }))?;
    } else {
        let mut table = Table::new(&[
            ("value", Align::Left),
            ("shape", Align::Left),
            ("relative L2", Align::Right),
            ("largest difference", Align::Right),
            ("", Align::Left),
        ]);
        let shown: Vec<_> = comparisons.iter().filter(|c| c.shown || c.problem.is_some()).collect();
        for c in shown.iter().take(40) {
            table.row([
                &c.place,
                &format!("{:?}", c.shape),
                &format!("{:.2e}", c.relative_l2),
                &format!("{:.2e}", c.largest),
                c.problem.as_deref().unwrap_or("agrees"),
            ]);
        }
        if !shown.is_empty() {
            print!("{table}");
        }
        match wrong.first() {
            None => println!("all {} values agree", comparisons.len()),
            Some(first) => {
                println!("{} of {} values depart, \"{}\" first", wrong.len(), comparisons.len(), first.place)
            }
        }
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether `got` is `want` up to the tolerances.
fn compare(place: &str, want: &Tensor, got: &Tensor, rtol: f64, atol: f64) -> Comparison {
    let mut result = Comparison {
        place: place.to_string(),
        shape: got.shape().to_vec(),
        relative_l2: 0.0,
        largest: 0.0,
        problem: None,
        shown: false,
    };
    if want.dtype() != got.dtype() || want.shape() != got.shape() {
        result.problem = Some(format!(
            "expected {} {:?}, got {} {:?}",
            want.dtype(),
            want.shape(),
            got.dtype(),
            got.shape()
        ));
        return result;
    }
    // Levels of quantised networks are numbers: what is next to a tie may be either.
    if !want.dtype().is_float() && !matches!(want.dtype(), DType::U8 | DType::I8) {
        let differ = want.to_f64s().iter().zip(got.to_f64s()).filter(|(w, g)| **w != *g).count();
        if differ > 0 {
            result.problem = Some(format!("{differ} of {} elements differ", want.len()));
        }
        return result;
    }
    let (mut squares, mut norm, mut far) = (0f64, 0f64, 0usize);
    let (want, got) = (want.to_f64s(), got.to_f64s());
    // Rounding errors of a sum scale with the tensor's magnitude, not with that of an element that came out near zero.
    let magnitude =
        (want.iter().filter(|w| w.is_finite()).map(|w| w * w).sum::<f64>() / want.len().max(1) as f64).sqrt();
    for (&w, &g) in want.iter().zip(&got) {
        if w == g || (w.is_nan() && g.is_nan()) {
            norm += if w.is_finite() { w * w } else { 0.0 };
            continue;
        }
        let difference = (w - g).abs();
        squares += difference * difference;
        norm += w * w;
        result.largest = if difference.is_nan() { f64::INFINITY } else { result.largest.max(difference) };
        if difference.is_nan() || difference > atol + rtol * w.abs().max(magnitude) {
            far += 1;
        }
    }
    result.relative_l2 = if squares == 0.0 { 0.0 } else { (squares / norm).sqrt() };
    if far > 0 {
        result.problem = Some(format!("{far} of {} elements are too far off", want.len()));
    }
    result
}

fn against(arguments: &Arguments, path: &Path) -> Result<Vec<Comparison>> {
    let options = arguments.execution.options();
    let loaded = model::load(&arguments.model, &options, false)?;
    let session = &loaded.session;
    let rtol = arguments.rtol(session);
    let mut comparisons = Vec::new();
    for (name, inputs, expected) in cases(session.graph(), path, options.max_memory)? {
        let outputs = session.run(&inputs).context(|| name.clone())?;
        for ((&id, want), got) in session.graph().outputs.iter().zip(&expected).zip(&outputs) {
            let Some(want) = want else { continue };
            let place = format!("{name}{}", session.graph().value(id).name);
            let compared = compare(&place, want, got, rtol, arguments.atol);
            comparisons.push(Comparison { shown: true, ..compared });
        }
    }
    if comparisons.is_empty() {
        return Err(Error::invalid(format!("{}: nothing to compare with", path.display())));
    }
    Ok(comparisons)
}

/// A name, the inputs in order, and the expected outputs in order where given.
type Case = (String, Vec<Tensor>, Vec<Option<Tensor>>);

fn cases(graph: &Graph, path: &Path, cap: usize) -> Result<Vec<Case>> {
    if path.is_file() {
        let mut tensors: BTreeMap<String, Tensor> = npz::read(path, cap as u64)?.into_iter().collect();
        let mut inputs = Vec::new();
        for &id in &graph.inputs {
            let name = &graph.value(id).name;
            let found = tensors.remove(name);
            inputs.push(
                found.ok_or_else(|| Error::invalid(format!("{} has no array \"{name}\"", path.display())))?,
            );
        }
        let outputs = graph.outputs.iter().map(|&id| tensors.remove(&graph.value(id).name)).collect();
        if let Some(name) = tensors.keys().next() {
            return Err(Error::invalid(format!(
                "{}: the model has no input or output \"{name}\"",
                path.display()
            )));
        }
        return Ok(vec![(String::new(), inputs, outputs)]);
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(|e| Error::io(path, &e))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| {
            p.is_dir() && p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("test_data_set_"))
        })
        .collect();
    folders.sort();
    if folders.is_empty() {
        folders.push(path.to_path_buf());
    }
    let options = planish_onnx::ReadOptions { max_bytes: cap as u64, ..planish_onnx::ReadOptions::default() };
    folders
        .into_iter()
        .map(|folder| {
            let name = folder.file_name().map_or(String::new(), |n| format!("{}/", n.to_string_lossy()));
            let read = |file: String| planish_onnx::load_tensor(&folder.join(file), &options);
            let inputs =
                (0..graph.inputs.len()).map(|i| read(format!("input_{i}.pb"))).collect::<Result<_>>()?;
            let outputs = (0..graph.outputs.len())
                .map(|i| read(format!("output_{i}.pb")).map(Some))
                .collect::<Result<_>>()?;
            Ok((name, inputs, outputs))
        })
        .collect()
}

/// Every value that the optimised graph still has under its old name, from the engine and from the reference, which
/// takes the engine's values for all that lies before: a layer answers for itself only, and rounding that an
/// ill-conditioned network amplifies from layer to layer is not held against the last one. Then the outputs as they
/// come without the probes, which stand in the way of some fusions; and, where asked for, against the reference that was
/// left alone.
fn layer_by_layer(arguments: &Arguments) -> Result<Vec<Comparison>> {
    let options = arguments.execution.options();
    let loaded = model::load(&arguments.model, &options, true)?;
    let rtol = arguments.rtol(&loaded.session);
    let Some(original) = loaded.original else { return Err(Error::invalid("the graph was not kept")) };
    let mut probed = loaded.session.graph().clone();
    let shapes = arguments.shapes.resolve(&probed)?;
    let inputs = model::random_inputs(&probed, &shapes, 1)?;
    let known: HashMap<&str, ()> = original.values.iter().map(|v| (v.name.as_str(), ())).collect();
    let made: Vec<planish_graph::ValueId> =
        probed.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
    probed.outputs =
        made.into_iter().filter(|&v| known.contains_key(probed.value(v).name.as_str())).collect();
    let names: Vec<String> = probed.outputs.iter().map(|&v| probed.value(v).name.clone()).collect();
    let places: HashMap<&str, usize> = names.iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
    let session =
        Session::new(probed.clone(), &planish_engine::SessionOptions { optimise: false, ..options.clone() })?;
    let outputs = session.run(&inputs)?;
    let mut found: Vec<Option<Comparison>> = (0..names.len()).map(|_| None).collect();
    let progress = Progress::new("nodes by reference", original.nodes.len() as u64);
    with_budget(&Budget::new(options.max_memory), || {
        reference::run_with(&original, &inputs, |id, want| {
            progress.advance(1);
            if let Some(&at) = places.get(original.value(id).name.as_str()) {
                let got = &outputs[at];
                found[at] = Some(compare(&names[at], want, got, rtol, arguments.atol));
                if (want.dtype(), want.shape()) == (got.dtype(), got.shape()) {
                    *want = got.clone();
                }
            }
            Ok(())
        })
    })?;
    drop(progress);
    let mut found: Vec<Comparison> = found.into_iter().flatten().collect();
    let unprobed = loaded.session.run(&inputs)?;
    for (&id, got) in loaded.session.graph().outputs.iter().zip(&unprobed) {
        let name = &probed.value(id).name;
        if let Some(&at) = places.get(name.as_str()) {
            let place = format!("{name} without probes");
            found.push(compare(&place, &outputs[at], got, rtol, arguments.atol));
        }
    }
    if let Some(limit) = arguments.end_to_end {
        let alone = with_budget(&Budget::new(options.max_memory), || reference::run(&original, &inputs))?;
        for ((&id, want), got) in original.outputs.iter().zip(&alone).zip(&unprobed) {
            let place = format!("{} end to end", original.value(id).name);
            found.push(end_to_end(&place, want, got, limit));
        }
    }
    Ok(found)
}

/// Whether an output is that of the reference up to a relative L2 norm.
fn end_to_end(place: &str, want: &Tensor, got: &Tensor, limit: f64) -> Comparison {
    let mut result = Comparison { shown: true, ..compare(place, want, got, f64::INFINITY, 0.0) };
    // What is no number is no agreement.
    let within = result.relative_l2 <= limit;
    if result.problem.is_none() && !within {
        result.problem = Some(format!("more than {limit:e} off"));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_scale_with_the_tensor() {
        let tensor = |values: &[f32]| Tensor::new(&[values.len()], values).unwrap();
        let want = tensor(&[100.0, 0.0, f32::NAN, f32::INFINITY]);
        assert!(
            compare("x", &want, &tensor(&[100.01, 0.01, f32::NAN, f32::INFINITY]), 1e-3, 0.0)
                .problem
                .is_none()
        );
        assert!(
            compare("x", &want, &tensor(&[101.0, 0.0, f32::NAN, f32::INFINITY]), 1e-3, 0.0).problem.is_some()
        );
        assert!(compare("x", &want, &tensor(&[100.0, 0.0, 1.0, f32::INFINITY]), 1e-3, 0.0).problem.is_some());
        assert!(compare("x", &want, &tensor(&[100.0, 0.0, f32::NAN]), 1e-3, 0.0).problem.is_some());
        let integers = Tensor::from_i64s(&[1, 2]).unwrap();
        assert!(compare("x", &integers, &Tensor::from_i64s(&[1, 3]).unwrap(), 1.0, 1.0).problem.is_some());
    }
}
