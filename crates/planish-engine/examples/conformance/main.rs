//! Runs ONNX's own backend tests: `cargo run --release -p planish-engine --example conformance -- DIR`.
//!
//! `DIR` comes from `conformance/make_cases.py`. Every case is loaded, run and compared as ONNX's test runner does.
//! [`scope`] says which cases planish answers for; one failure among those, and the exit status is 1.

mod case;
mod compare;
mod scope;

use case::{Case, Outcome, Runner};
use planish_engine::{Session, SessionOptions};
use planish_graph::{Graph, Tensor};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

const USAGE: &str = "usage: conformance DIR [--filter TEXT] [--json] [--verbose] [--round-trip] [--save DIR] [--engine]
  --filter TEXT  only cases whose name contains TEXT
  --json         results as JSON, one case a line
  --verbose      also list what passed and what is out of scope
  --round-trip   write each model and run what is read back
  --save DIR     keep the written models in DIR
  --engine       run by the engine (passes, plan, kernels; PLANISH_ISA chooses their instruction set), not by reference";

/// What the command line asks for.
#[derive(Default)]
struct Options {
    folder: PathBuf,
    filter: String,
    json: bool,
    verbose: bool,
    runner: Runner,
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} takes a value"));
        match argument.as_str() {
            "--filter" => options.filter = value()?,
            "--json" => options.json = true,
            "--verbose" => options.verbose = true,
            "--round-trip" => options.runner.round_trip = true,
            "--engine" => options.runner.run = run_by_engine,
            "--save" => options.runner.save = Some(PathBuf::from(value()?)),
            folder if !folder.starts_with('-') => options.folder = PathBuf::from(folder),
            other => return Err(format!("unknown option {other}")),
        }
    }
    if options.folder.as_os_str().is_empty() {
        return Err("a folder of cases is missing".to_string());
    }
    Ok(options)
}

/// Optimises, plans and runs, on two threads.
fn run_by_engine(graph: &Graph, inputs: &[Tensor]) -> planish_graph::Result<Vec<Tensor>> {
    let options = SessionOptions { threads: 2, ..SessionOptions::default() };
    Session::new(graph.clone(), &options)?.run(inputs)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let cases = match case::find(&options.folder, &options.filter) {
        Ok(cases) => cases,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let results = run_all(&cases, &options.runner);
    report(&cases, &results, &options)
}

/// Runs all cases on all cores. A panic is a failure of its case, and is kept off the terminal.
fn run_all(cases: &[Case], runner: &Runner) -> Vec<Outcome> {
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Outcome>>> = Mutex::new(cases.iter().map(|_| None).collect());
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((index, case)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, cases.get(i)?)))
                {
                    let outcome = std::panic::catch_unwind(|| case.run(runner))
                        .unwrap_or_else(|panic| Outcome::Failed(format!("panic: {}", panic_text(&*panic))));
                    results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(outcome);
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().map(|r| r.unwrap_or(Outcome::Failed("was not run".to_string()))).collect()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown").to_string()
}

fn report(cases: &[Case], results: &[Outcome], options: &Options) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for (case, outcome) in cases.iter().zip(results) {
        let (word, reason) = match outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(reason) => ("failed", reason.as_str()),
            Outcome::OutOfScope(reason) => ("out of scope", reason.as_str()),
        };
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Failed(_) => failed += 1,
            Outcome::OutOfScope(_) => {}
        }
        if options.json {
            println!("{{\"case\": {:?}, \"result\": {word:?}, \"reason\": {reason:?}}}", case.name());
        } else if options.verbose || word == "failed" {
            println!("{word}  {}  {reason}", case.name());
        }
    }
    let in_scope = passed + failed;
    let summary = format!("{passed} passed / {in_scope} in scope / {} cases", cases.len());
    if options.json {
        println!("{{\"passed\": {passed}, \"in_scope\": {in_scope}, \"all\": {}}}", cases.len());
    }
    eprintln!("{summary}");
    if failed > 0 || in_scope == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
