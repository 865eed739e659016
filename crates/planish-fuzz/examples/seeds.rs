//! Writes valid models as seeds: `cargo run --release -p planish-fuzz --example seeds -- FOLDER COUNT`.
//!
//! The graphs come from the same choices as in fuzzing, the files from planish's writer; nothing is taken from elsewhere.

use planish_fuzz::mutate::{Random, mutated};
use planish_fuzz::{Source, generate};
use planish_onnx::{WriteOptions, write};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(folder), Some(count)) = (arguments.first(), arguments.get(1).and_then(|c| c.parse().ok()))
    else {
        eprintln!("usage: seeds FOLDER COUNT");
        return ExitCode::from(2);
    };
    let mut random = Random::new(1);
    let mut known: BTreeSet<&'static str> = BTreeSet::new();
    let mut written: usize = 0;
    while written < count {
        let model = generate(&mut Source::new(&mutated(&[], &mut random)));
        let news = model.graph.nodes.iter().any(|n| !known.contains(n.op.name()));
        let Ok(bytes) = write(&model.graph, &WriteOptions::default()) else { continue };
        if model.graph.nodes.len() < 2 || bytes.len() > 3000 || (written < count / 2 && !news) {
            continue;
        }
        known.extend(model.graph.nodes.iter().map(|n| n.op.name()));
        if let Err(error) = std::fs::write(Path::new(folder).join(format!("seed-{written:02}.onnx")), &bytes)
        {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
        written += 1;
    }
    println!("{written} models with {} operators", known.len());
    ExitCode::SUCCESS
}
