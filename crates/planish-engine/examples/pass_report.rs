//! What the passes do to a model file: `cargo run --release --example pass_report -- MODEL.onnx [SIZE] [--check]`.
//!
//! Prints the runs that changed something and the operators before, after `optimise` and after `specialise` (open extents
//! become 1 along the first axis and SIZE, or 224, along others). With `--check`, runs all three by the reference on one random input and compares; slow on large networks.

use planish_engine::passes::{optimise, specialise};
use planish_graph::{DType, Dim, Graph, Result, Tensor, ValueId, reference};
use std::collections::BTreeMap;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(path) = arguments.first() else {
        eprintln!("usage: pass_report MODEL.onnx [SIZE] [--check]");
        std::process::exit(2);
    };
    let size = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(224);
    if let Err(error) = report(path, size, arguments.iter().any(|a| a == "--check")) {
        eprintln!("{path}: {error}");
        std::process::exit(1);
    }
}

fn report(path: &str, size: usize, check: bool) -> Result<()> {
    let graph = planish_onnx::load(path.as_ref(), &planish_onnx::ReadOptions::default())?;
    println!("{path}: {} nodes, opened as {}", graph.nodes.len(), histogram(&graph));
    let mut optimised = graph.clone();
    let start = Instant::now();
    for run in optimise(&mut optimised)? {
        println!(
            "  {:24} {:5} rewrites, {} -> {} nodes",
            run.name, run.rewrites, run.nodes_before, run.nodes_after
        );
    }
    println!("  optimised in {:.0?} to {}", start.elapsed(), histogram(&optimised));
    let extent = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(n) => *n,
        _ if axis == 0 => 1,
        _ => size,
    };
    let shape = |id: &ValueId| graph.value(*id).shape.iter().flatten().enumerate().map(extent).collect();
    let shapes: Vec<Vec<usize>> = graph.inputs.iter().map(shape).collect();
    let start = Instant::now();
    let made = specialise(&optimised, &shapes)?;
    println!("  specialised in {:.0?} to {}", start.elapsed(), histogram(&made.graph));
    if check {
        let inputs: Vec<Tensor> = graph
            .inputs
            .iter()
            .zip(&shapes)
            .map(|(&id, shape)| random(graph.value(id).dtype, shape))
            .collect::<Result<_>>()?;
        let wanted = reference::run(&graph, &inputs)?;
        for (name, other) in [("optimised", &optimised), ("specialised", &made.graph)] {
            println!(
                "  largest relative error {name}: {:.1e}",
                largest_error(&wanted, &reference::run(other, &inputs)?)
            );
        }
    }
    Ok(())
}

fn histogram(graph: &Graph) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &graph.nodes {
        *counts.entry(node.op.name()).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    format!("{} ({})", graph.nodes.len(), parts.join(", "))
}

/// Numbers between -1 and 1 that look random.
fn random(dtype: Option<DType>, shape: &[usize]) -> Result<Tensor> {
    let mut state = 1u32;
    let values: Vec<f64> = (0..planish_graph::limits::element_count(shape)?)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1u32 << 23) - 1.0
        })
        .collect();
    match dtype {
        Some(dtype) if dtype.is_float() => Tensor::from_f64s(dtype, shape, &values),
        other => Tensor::zeros(other.unwrap_or(DType::F32), shape),
    }
}

/// The largest difference, relative to the largest element of each output; infinite where shapes differ.
fn largest_error(wanted: &[Tensor], found: &[Tensor]) -> f64 {
    let mut worst = 0f64;
    for (wanted, found) in wanted.iter().zip(found) {
        if (wanted.dtype(), wanted.shape()) != (found.dtype(), found.shape()) {
            return f64::INFINITY;
        }
        let (wanted, found) = (wanted.to_f64s(), found.to_f64s());
        let scale = wanted.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
        worst = wanted.iter().zip(&found).fold(worst, |m, (w, f)| m.max((w - f).abs() / scale));
    }
    worst
}
