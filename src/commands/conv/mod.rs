//! `planish conv`: one convolution by every algorithm, or a sweep over many: the laboratory of the planner.
//!
//! The planner chooses by estimates. Whether they are right, and which algorithm deserves which layers, shows only here:
//! times against the measured peak of the machine, estimates against times, errors against the reference. The list of
//! algorithms is the library's own, so a new one appears by itself.

mod laboratory;
mod page;
mod precision;
mod rounds;
pub mod shape;
mod sweep;

use clap::Args;
use laboratory::{Effort, Laboratory, Outcome, Trial};
use planish::report::machine;
use planish::report::table::{Align, Table, bytes, milliseconds};
use planish_cpu::conv::ConvProblem;
use planish_cpu::element::ElementType;
use planish_cpu::isa::Isa;
use planish_engine::SessionOptions;
use planish_graph::{Error, Result};
use precision::Precision;
use serde_json::{Value, json};
use shape::Shape;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use sweep::{Axes, Sweep};

/// What to time.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    shape: Shape,
    /// What it is computed on: f32, bf16, f16, u8, or few bits: binary, ternary, w1a2, w2a2 and the like (bits of weights and
    /// of activations), which are timed beside u8 and f32
    #[arg(long, default_value_t = Precision::F32, value_parser = Precision::parse, value_name = "TYPE")]
    precision: Precision,
    /// Threads; 0 for every core this process may use (affinity, cgroup quota, PLANISH_THREADS, OMP_NUM_THREADS)
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Cap on the bytes of tensors, packed weights and workspace; K, M, G are understood
    #[arg(long, default_value = "16G", value_parser = super::model::bytes, value_name = "BYTES")]
    max_memory: usize,
    /// Seconds to measure, after warming up
    #[arg(long, default_value_t = 1.0, value_name = "S", conflicts_with = "sweep")]
    duration: f64,
    /// Sweep over many layers instead, and write what is found as one HTML file
    #[arg(long, value_name = "OUT.html")]
    sweep: Option<PathBuf>,
    /// A coarse sweep
    #[arg(long, requires = "sweep", conflicts_with = "c")]
    quick: bool,
    /// Seconds that the sweep may take [default: 600; with --quick 30]
    #[arg(long, value_name = "S", requires = "sweep", conflicts_with = "c")]
    budget: Option<f64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Multiply-accumulates of the reference for one convolution: some tenths of a second.
const REFERENCE_MACS: u64 = 100_000_000;

/// Times one convolution, or many.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.threads > SessionOptions::MAX_THREADS {
        return Err(Error::invalid(format!("--threads takes at most {}", SessionOptions::MAX_THREADS)));
    }
    let isa = Isa::from_env().map_err(|e| Error::unsupported(e.to_string()))?;
    let threads = match arguments.threads {
        0 => planish_cpu::processors::default_threads(),
        threads => threads,
    };
    match &arguments.sweep {
        Some(path) => many(arguments, path, isa, threads),
        None => one(arguments, isa, threads),
    }
}

fn one(arguments: &Arguments, isa: Isa, threads: usize) -> Result<ExitCode> {
    if !(arguments.duration > 0.0 && arguments.duration <= 3600.0) {
        return Err(Error::invalid("--duration takes seconds above 0, up to 3600"));
    }
    let plain = arguments.shape.problem()?;
    let problem = arguments.precision.of(plain.clone());
    problem.validate().map_err(Error::invalid)?;
    let laboratory = Laboratory::new(isa, arguments.precision, threads, arguments.max_memory);
    let effort = Effort {
        seconds: arguments.duration,
        rounds: 3,
        hopeless: f64::INFINITY,
        unlikely: f64::INFINITY,
        reference_macs: REFERENCE_MACS,
    };
    let trial = laboratory.measure(&problem, effort)?;
    let beside = match arguments.precision.bits {
        Some(_) => vec![
            Beside::bytes(&trial),
            Some(Beside::numbers(
                &Laboratory::new(isa, Precision::F32, threads, arguments.max_memory),
                &plain,
                effort,
            )?),
        ],
        None => Vec::new(),
    };
    let beside: Vec<Beside> = beside.into_iter().flatten().collect();
    if arguments.json {
        let mut report = configuration(&laboratory);
        merge(&mut report, laboratory.to_json(&trial));
        let others = beside
            .iter()
            .map(|b| json!({"precision": b.precision.name(), "algorithm": b.algorithm, "min_ms": b.min_ms}));
        if !beside.is_empty() {
            report["beside"] = others.collect();
        }
        super::print_json(&report)?;
    } else {
        print(&laboratory, &trial);
        for Beside { precision, algorithm, min_ms } in &beside {
            let times = min_ms / trial.best().times.min.max(1e-9);
            let time = milliseconds(*min_ms);
            println!(
                "the fastest on {precision}, {algorithm}: {time}, {times:.2} times as long as {}",
                trial.best().algorithm
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The fastest algorithm on other numbers, which few bits are measured by.
struct Beside {
    precision: ElementType,
    algorithm: &'static str,
    min_ms: f64,
}

impl Beside {
    /// On bytes: of the same trial, because every algorithm on bytes takes few bits as well.
    fn bytes(trial: &Trial) -> Option<Beside> {
        let bits = planish_cpu::conv::BIT_ALGORITHM;
        let fastest = trial.outcomes.iter().find(|outcome| outcome.algorithm != bits)?;
        Some(Beside::of(ElementType::U8, fastest))
    }

    fn numbers(laboratory: &Laboratory, problem: &ConvProblem, effort: Effort) -> Result<Beside> {
        Ok(Beside::of(ElementType::F32, laboratory.measure(problem, effort)?.best()))
    }

    fn of(precision: ElementType, outcome: &Outcome) -> Beside {
        Beside { precision, algorithm: outcome.algorithm, min_ms: outcome.times.min }
    }
}

fn many(arguments: &Arguments, path: &Path, isa: Isa, threads: usize) -> Result<ExitCode> {
    let budget = arguments.budget.unwrap_or(if arguments.quick { 30.0 } else { 600.0 });
    if !(budget > 0.0 && budget <= 86400.0) {
        return Err(Error::invalid("--budget takes seconds above 0, up to 86400"));
    }
    // Known before minutes are spent, not after.
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() || path.is_dir() {
        return Err(Error::invalid(format!("{}: no file can be written there", path.display())));
    }
    let laboratory = Laboratory::new(isa, arguments.precision, threads, arguments.max_memory);
    let sweep = Sweep::run(&laboratory, Axes::new(arguments.quick), budget)?;
    let page = page::render(&laboratory, &sweep);
    planish_files::replace(path, |w| w.write_all(page.as_bytes())).map_err(|e| Error::io(path, &e))?;
    if arguments.json {
        let mut report = configuration(&laboratory);
        merge(&mut report, sweep.to_json(&laboratory));
        report["output"] = json!(path.display().to_string());
        super::print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&[
        ("algorithm", Align::Left),
        ("fastest", Align::Right),
        ("planner's pick", Align::Right),
    ]);
    for (name, fastest, picked) in sweep.winners() {
        table.row([name.to_string(), fastest.to_string(), picked.to_string()]);
    }
    print!("{table}");
    let measured = sweep.trials.len();
    println!(
        "{measured} of {} layers in {:.0} s; written to {}",
        sweep.layers,
        sweep.seconds[1],
        path.display()
    );
    println!(
        "the planner picks the fastest in {} of {measured}, one within 5 % of it in {}; its picks take {:.3} times as long",
        sweep.right(),
        sweep.well_picked(),
        sweep.regret()
    );
    Ok(ExitCode::SUCCESS)
}

/// What a measurement must be read with.
fn configuration(laboratory: &Laboratory) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"), "cpu": machine::processor(), "isa": laboratory.isa.name(),
        "threads": laboratory.threads(), "precision": laboratory.precision.to_string(),
        "layout": "channels-last",
        "peak_gflops": laboratory.peak_gflops,
    })
}

/// Adds the keys of `more` to those of `report`.
fn merge(report: &mut Value, more: Value) {
    if let (Value::Object(report), Value::Object(more)) = (report, more) {
        report.extend(more);
    }
}

fn print(laboratory: &Laboratory, trial: &Trial) {
    let mut table = Table::new(&[
        ("algorithm", Align::Left),
        ("min", Align::Right),
        ("median", Align::Right),
        ("GFLOP/s", Align::Right),
        ("of peak", Align::Right),
        ("estimate", Align::Right),
        ("est./min", Align::Right),
        ("workspace", Align::Right),
        ("packed", Align::Right),
        ("relative L2", Align::Right),
        ("largest", Align::Right),
        ("", Align::Left),
    ]);
    for outcome in &trial.outcomes {
        let fastest = outcome.algorithm == trial.best().algorithm;
        let note = match (fastest, outcome.algorithm == trial.picked) {
            (true, true) => "fastest, planner's pick",
            (true, false) => "fastest",
            (false, true) => "planner's pick",
            (false, false) => "",
        };
        let rate = trial.gflops(outcome);
        table.row([
            outcome.algorithm.to_string(),
            milliseconds(outcome.times.min),
            milliseconds(outcome.times.p50),
            format!("{rate:.1}"),
            format!("{:.1} %", laboratory.percent(rate)),
            milliseconds(outcome.estimated_ms),
            format!("{:.2}", outcome.estimated_ms / outcome.times.min.max(1e-9)),
            bytes(outcome.workspace_bytes as u64),
            bytes(outcome.packed_bytes as u64),
            format!("{:.1e}", outcome.relative_l2),
            format!("{:.1e}", outcome.largest_error),
            note.to_string(),
        ]);
    }
    println!("{}", shape::describe(&trial.problem));
    print!("{table}");
    for (name, why) in &trial.refused {
        println!("not {name}: {why}");
    }
    let total = trial.problem.out_rows() * trial.problem.out_channels;
    let compared = match trial.samples {
        samples if samples == total => "every element".to_string(),
        samples => format!("{samples} of {total} elements"),
    };
    println!("errors: of {compared}, against the reference in double precision");
    println!(
        "planish {} on {}, {} threads, {}, {}, channels-last; peak {:.1} GFLOP/s, measured",
        env!("CARGO_PKG_VERSION"),
        machine::processor(),
        laboratory.threads(),
        laboratory.isa,
        laboratory.precision,
        laboratory.peak_gflops
    );
}
