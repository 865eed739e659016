//! `planish bench`: latency, throughput and memory, with the configuration that gave them.

use super::model::{self, Execution, Shapes};
use super::timing;
use clap::Args;
use planish::report::machine;
use planish::report::stats::Summary;
use planish::report::table::{Align, Table, bytes};
use planish_engine::Profile;
use planish_engine::plan::choose::Candidate;
use planish_graph::error::Context;
use planish_graph::{Error, Result};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Args)]
pub struct Arguments {
    /// The ONNX file
    model: PathBuf,
    #[command(flatten)]
    shapes: Shapes,
    #[command(flatten)]
    execution: Execution,
    /// Seconds to measure, after warming up
    #[arg(long, default_value_t = 3.0, value_name = "S")]
    duration: f64,
    /// Show each layer's algorithm, time, GFLOP/s, share, why it was chosen, and which others there were (1 MAC = 2 FLOP)
    #[arg(long)]
    profile: bool,
    /// Write one run in Chrome's trace format (for ui.perfetto.dev or chrome://tracing)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs before measuring: plans, first touches of memory, clocks.
const WARM_UP_RUNS: usize = 3;

/// Measures.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !(arguments.duration > 0.0 && arguments.duration <= 3600.0) {
        return Err(Error::invalid("--duration takes seconds above 0, up to 3600"));
    }
    let place = || arguments.model.display().to_string();
    let options = arguments.execution.options();
    let loaded = model::load(&arguments.model, &options, false)?;
    let session = &loaded.session;
    let shapes = arguments.shapes.resolve(session.graph()).context(place)?;
    let inputs = model::random_inputs(session.graph(), &shapes, 1).context(place)?;

    let start = Instant::now();
    let arena = session.with_plan(&shapes, |p| p.arena_bytes()).context(place)?;
    let plan_ms = start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    session.run(&inputs).context(place)?;
    let first_ms = start.elapsed().as_secs_f64() * 1e3;
    model::remember(session);
    for _ in 0..WARM_UP_RUNS {
        session.run(&inputs)?;
    }
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.len() < 3 || begun.elapsed() < Duration::from_secs_f64(arguments.duration) {
        let start = Instant::now();
        session.run(&inputs)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let batch = shapes.first().and_then(|s| s.first()).copied().unwrap_or(1).max(1);
    let throughput = 1e3 * (times.len() * batch) as f64 / times.iter().sum::<f64>();
    let latency = Summary::of(&times).ok_or_else(|| Error::invalid("no run was measured"))?;
    let profile = if arguments.profile || arguments.trace.is_some() {
        Some(timing::profile(session, &inputs)?)
    } else {
        None
    };
    if let (Some(path), Some(profile)) = (&arguments.trace, &profile) {
        let text = serde_json::to_vec(&trace(profile)).map_err(|e| Error::invalid(e.to_string()))?;
        planish_files::replace(path, |w| w.write_all(&text)).map_err(|e| Error::io(path, &e))?;
    }

    if arguments.json {
        let mut report = json!({
            "model": place(), "version": env!("CARGO_PKG_VERSION"), "cpu": machine::processor(),
            "isa": session.isa().name(), "threads": session.threads(), "precision": session.precision().name(),
            "layout": "channels-last",
            "input_shapes": shapes, "load_ms": loaded.load_ms, "plan_ms": plan_ms, "first_ms": first_ms,
            "latency_ms": {"min": latency.min, "p50": latency.p50, "p90": latency.p90, "p99": latency.p99, "mean": latency.mean},
            "runs": times.len(), "throughput": throughput, "peak_rss_bytes": machine::peak_resident_bytes(),
            "arena_bytes": arena, "tuned_layers": session.chooser().remembered(),
        });
        if let Some(profile) = profile.as_ref().filter(|_| arguments.profile) {
            report["layers"] = json!(profile.steps.iter().map(layer).collect::<Vec<_>>());
        }
        super::print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(profile) = profile.as_ref().filter(|_| arguments.profile) {
        print_profile(profile);
    }
    println!("{}: inputs {shapes:?}", place());
    println!(
        "  planish {} on {}, {} threads, {}, {}, channels-last",
        env!("CARGO_PKG_VERSION"),
        machine::processor(),
        session.threads(),
        session.isa(),
        session.precision()
    );
    println!("  load {:.1} ms, plan {plan_ms:.1} ms, first run {first_ms:.2} ms", loaded.load_ms);
    println!(
        "  latency of {} runs, ms: min {:.3}  p50 {:.3}  p90 {:.3}  p99 {:.3}  mean {:.3}",
        times.len(),
        latency.min,
        latency.p50,
        latency.p90,
        latency.p99,
        latency.mean
    );
    println!(
        "  throughput {throughput:.1} a second; peak memory {}, of it {} working memory",
        bytes(machine::peak_resident_bytes().unwrap_or(0)),
        bytes(arena as u64)
    );
    Ok(ExitCode::SUCCESS)
}

fn gflops(step: &planish_engine::StepProfile) -> f64 {
    2.0 * step.macs as f64 / step.time.as_secs_f64().max(1e-9) / 1e9
}

fn layer(step: &planish_engine::StepProfile) -> serde_json::Value {
    json!({
        "node": step.node, "operator": step.operator, "algorithm": step.algorithm, "reason": step.reason,
        "shape": step.shape, "macs": step.macs, "ms": step.time.as_secs_f64() * 1e3, "gflops": gflops(step),
        "candidates": step.candidates.iter().map(candidate).collect::<Vec<_>>(),
    })
}

fn candidate(candidate: &Candidate) -> serde_json::Value {
    let Candidate { algorithm, estimated, measured, error, admitted } = candidate;
    json!({
        "algorithm": algorithm, "estimated_ms": estimated, "measured_ms": measured, "relative_error": error,
        "admitted": admitted,
    })
}

/// How many candidates of a layer are shown to people.
const SHOWN_CANDIDATES: usize = 4;

/// The best candidates of a layer with their estimates, and in brackets what was measured.
fn candidates(step: &planish_engine::StepProfile) -> String {
    let mut admitted: Vec<&Candidate> = step.candidates.iter().filter(|c| c.admitted).collect();
    admitted.sort_by(|a, b| a.milliseconds().total_cmp(&b.milliseconds()));
    let one = |c: &&Candidate| {
        let measured = c.measured.map_or(String::new(), |ms| format!(" ({ms:.3})"));
        format!("{} {:.3}{measured}", c.algorithm, c.estimated)
    };
    let mut shown: Vec<String> = admitted.iter().take(SHOWN_CANDIDATES).map(one).collect();
    let barred = step.candidates.iter().filter(|c| !c.admitted);
    // What would be faster if it were allowed.
    let faster =
        barred.filter(|c| admitted.first().is_some_and(|best| c.milliseconds() < best.milliseconds()));
    shown.extend(faster.map(|c| format!("not {}: error {:.0e}", c.algorithm, c.error)));
    shown.join(", ")
}

fn print_profile(profile: &Profile) {
    let total: f64 = profile.steps.iter().map(|s| s.time.as_secs_f64()).sum();
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("operator", Align::Left),
        ("algorithm", Align::Left),
        ("output", Align::Left),
        ("ms", Align::Right),
        ("GFLOP/s", Align::Right),
        ("share", Align::Right),
        ("why", Align::Left),
        ("candidates: estimated ms (measured)", Align::Left),
    ]);
    for step in &profile.steps {
        let seconds = step.time.as_secs_f64();
        let shape: Vec<String> = step.shape.iter().map(|d| d.to_string()).collect();
        let rate = if step.macs > 0 { format!("{:.1}", gflops(step)) } else { String::new() };
        table.row([
            &step.node,
            &step.operator,
            &step.algorithm,
            &shape.join("×"),
            &format!("{:.3}", seconds * 1e3),
            &rate,
            &format!("{:.1} %", 100.0 * seconds / total.max(1e-12)),
            &step.reason,
            &candidates(step),
        ]);
    }
    print!("{table}");
    println!("sum of {} steps: {:.3} ms\n", profile.steps.len(), total * 1e3);
}

/// One run in Chrome's trace event format: complete events, microseconds.
fn trace(profile: &Profile) -> serde_json::Value {
    let micros = |d: Duration| d.as_secs_f64() * 1e6;
    let events: Vec<serde_json::Value> = profile
        .steps
        .iter()
        .map(|s| {
            json!({
                "name": s.node, "cat": s.operator, "ph": "X", "pid": 1, "tid": 1, "ts": micros(s.start), "dur": micros(s.time),
                "args": {"algorithm": s.algorithm, "macs": s.macs, "gflops": gflops(s), "shape": s.shape, "why": s.reason},
            })
        })
        .collect();
    json!({"traceEvents": events, "displayTimeUnit": "ms"})
}
