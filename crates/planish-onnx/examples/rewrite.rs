//! Reads models and writes them again: `cargo run --release -p planish-onnx --example rewrite -- OUT [--external] MODEL…`.
//!
//! What comes out must mean the same to every other tool; `conformance/compare_rewritten.py` checks it.

use planish_onnx::{ReadOptions, WriteOptions, load, save};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let external = arguments.iter().any(|a| a == "--external");
    arguments.retain(|a| a != "--external");
    let Some((out, models)) = arguments.split_first() else {
        eprintln!("usage: rewrite OUT [--external] MODEL…");
        return ExitCode::from(2);
    };
    let options = WriteOptions { external_data: external.then_some(true), ..WriteOptions::default() };
    let mut failed = false;
    for model in models.iter().map(Path::new) {
        let target = Path::new(out).join(model.file_name().unwrap_or_default());
        let done = load(model, &ReadOptions::default()).and_then(|graph| save(&graph, &target, &options));
        if let Err(error) = done {
            eprintln!("{}: {error}", model.display());
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
