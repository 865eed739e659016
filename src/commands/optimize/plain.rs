//! Plain optimisation, which keeps what a network answers: simplify, choose algorithms, and show what that gained.

use super::super::eval;
use super::super::inspect;
use super::super::model;
use super::super::source::Source;
use super::Arguments;
use planish::images::Preprocessing;
use planish::report::table::{Align, Table, bytes, count};
use planish_engine::{Session, SessionOptions};
use planish_graph::error::Context;
use planish_graph::limits::{Budget, with_budget};
use planish_graph::{Graph, Result, Tensor, reference};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A network on one side of the comparison.
struct Side {
    nodes: usize,
    steps: usize,
    macs: u64,
    constant_bytes: usize,
    arena_bytes: usize,
    latency_ms: f64,
    top1: Option<f64>,
}

/// Optimises. `pictures` are those of the embedded network.
pub fn run(
    arguments: &Arguments,
    place: &Path,
    original: Graph,
    pictures: Option<&Source>,
    begun: Instant,
) -> Result<ExitCode> {
    let options = arguments.execution.options();
    let session = Session::new(original.clone(), &options).context(|| place.display().to_string())?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    report(arguments, &options, place, &original, &session, pictures, load_ms)
        .context(|| place.display().to_string())
}

fn report(
    arguments: &Arguments,
    options: &SessionOptions,
    place: &Path,
    original: &Graph,
    session: &Session,
    pictures: Option<&Source>,
    load_ms: f64,
) -> Result<ExitCode> {
    let shapes = arguments.shapes.resolve(session.graph())?;
    let settings = match arguments.pictures.given() {
        true => Some(arguments.pictures.settings(session.graph())?),
        false => Preprocessing::of_graph(session.graph())?,
    };
    let pictures = pictures.zip(settings.as_ref());
    let inputs = model::random_inputs(session.graph(), &shapes, 1)?;
    // The network as it was read, in the same engine: what the passes gained, and nothing else.
    let plain = Session::new(original.clone(), &SessionOptions { optimise: false, ..options.clone() })?;
    let difference = largest_difference(original, &inputs, &session.run(&inputs)?, options.max_memory)?;
    let before = side(&plain, original, &shapes, &inputs, pictures)?;
    let after = side(session, session.graph(), &shapes, &inputs, pictures)?;
    model::remember(session);
    if let Some(path) = &arguments.output {
        let mut graph = session.graph().clone();
        if let Some(settings) = &settings {
            settings.store(&mut graph)?;
        }
        planish_onnx::save(&graph, path, &planish_onnx::WriteOptions::default())?;
    }
    let algorithms = session.with_plan(&shapes, |plan| {
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for step in plan.steps().filter(|s| s.macs > 0) {
            *counts.entry(step.algorithm.clone()).or_default() += 1;
        }
        counts
    })?;
    if arguments.json {
        let side = |s: &Side| {
            json!({"nodes": s.nodes, "steps": s.steps, "macs": s.macs, "constant_bytes": s.constant_bytes, "arena_bytes": s.arena_bytes,
                   "latency_ms": s.latency_ms, "top1": s.top1})
        };
        let passes: Vec<serde_json::Value> = session
            .pass_reports()
            .iter()
            .filter(|p| p.rewrites > 0)
            .map(|p| json!({"pass": p.name, "rewrites": p.rewrites}))
            .collect();
        super::super::print_json(&json!({
            "model": place.display().to_string(), "before": side(&before), "after": side(&after), "load_ms": load_ms,
            "largest_difference": difference.0, "relative_l2": difference.1, "passes": passes, "algorithms": algorithms,
            "threads": session.threads(), "isa": session.isa().name(), "precision": session.precision().name(),
            "tuned_layers": session.chooser().remembered(),
            "output": arguments.output.as_ref().map(|o| o.display().to_string()),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}: inputs {shapes:?}, {} threads, {}", place.display(), session.threads(), session.isa());
    let mut table = Table::new(&[("", Align::Left), ("before", Align::Right), ("after", Align::Right)]);
    table.row(["nodes", &before.nodes.to_string(), &after.nodes.to_string()]);
    table.row(["kernel calls", &before.steps.to_string(), &after.steps.to_string()]);
    table.row(["MACs", &count(before.macs), &count(after.macs)]);
    table.row(["constants", &bytes(before.constant_bytes as u64), &bytes(after.constant_bytes as u64)]);
    table.row(["working memory", &bytes(before.arena_bytes as u64), &bytes(after.arena_bytes as u64)]);
    table.row([
        "latency, median",
        &format!("{:.3} ms", before.latency_ms),
        &format!("{:.3} ms", after.latency_ms),
    ]);
    if let (Some(a), Some(b)) = (before.top1, after.top1) {
        table.row(["top-1 of 100 pictures", &format!("{a:.1} %"), &format!("{b:.1} %")]);
    }
    print!("{table}");
    println!(
        "{:.2}× faster than the same network unoptimised; largest output difference {:.2e} (relative L2 {:.2e})",
        before.latency_ms / after.latency_ms.max(1e-9),
        difference.0,
        difference.1
    );
    let algorithms: Vec<String> = algorithms.iter().map(|(name, n)| format!("{name} {n}")).collect();
    println!("algorithms: {}", algorithms.join(", "));
    match &arguments.output {
        Some(path) => println!("written to {}", path.display()),
        None => println!(
            "next: --images DIR --max-drop 0.5 also chooses number formats; -o OUT.onnx writes the network; \
             `planish bench MODEL --profile` shows each layer"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// The largest absolute difference and the relative L2 distance of all float outputs from the reference's.
fn largest_difference(
    graph: &Graph,
    inputs: &[Tensor],
    outputs: &[Tensor],
    max_memory: usize,
) -> Result<(f64, f64)> {
    let wanted = with_budget(&Budget::new(max_memory), || reference::run(graph, inputs))?;
    let (mut largest, mut squares, mut norm) = (0f64, 0f64, 0f64);
    for (want, got) in
        wanted.iter().zip(outputs).filter(|(w, g)| w.dtype().is_float() && w.shape() == g.shape())
    {
        for (w, g) in want.to_f64s().into_iter().zip(got.to_f64s()) {
            largest = largest.max((w - g).abs());
            squares += (w - g) * (w - g);
            norm += w * w;
        }
    }
    Ok((largest, if squares == 0.0 { 0.0 } else { (squares / norm).sqrt() }))
}

fn side(
    session: &Session,
    graph: &Graph,
    shapes: &[Vec<usize>],
    inputs: &[Tensor],
    pictures: Option<(&Source, &Preprocessing)>,
) -> Result<Side> {
    let layers = inspect::layers(graph, shapes)?;
    let top1 = match pictures {
        Some((pictures, settings)) => {
            let places: Vec<usize> = (0..pictures.len()).collect();
            let found = eval::evaluate(session, pictures, &places, settings, 10, None)?;
            Some(found.percent(found.top1))
        }
        None => None,
    };
    session.run(inputs)?;
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.len() < 5 || (begun.elapsed() < Duration::from_millis(700) && times.len() < 2000) {
        let start = Instant::now();
        session.run(inputs)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Side {
        nodes: graph.nodes.len(),
        steps: session.with_plan(shapes, |p| p.steps().count())?,
        macs: layers.iter().map(|l| l.macs).fold(0, u64::saturating_add),
        constant_bytes: graph.constant_bytes(),
        arena_bytes: session.with_plan(shapes, |p| p.arena_bytes())?,
        latency_ms: planish::report::stats::Summary::of(&times).map_or(f64::NAN, |s| s.p50),
        top1,
    })
}
