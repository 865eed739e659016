//! What the fuzz targets do with their bytes.
//!
//! The bodies are plain functions, so that three drivers share them: cargo-fuzz (`fuzz/`, outside the workspace, since it
//! wants a C++ compiler), the driver without one (`cargo run --release -p planish-fuzz --example fuzz_loop`), and the
//! tests, which run the saved corpus. A body panics where planish is wrong; refusing an input is never wrong.

mod attributes;
mod compare;
mod generate;
pub mod mutate;
mod operands;
mod run;
mod source;

pub use generate::{Model, generate};
pub use run::{MEMORY, check, reference_cases};
pub use source::Source;

use planish_graph::limits::{Budget, with_budget};
use planish_onnx::{ReadOptions, WriteOptions, read, survey, write};

/// A body that takes the bytes of one input.
pub type Target = fn(&[u8]);

/// The targets by name, as the corpus folders are called.
pub const TARGETS: [(&str, Target); 2] = [("read_onnx", read_onnx), ("run_graph", run_graph)];

/// The first byte of an ONNX model (the tag of `ir_version`); [`run_graph`] takes any other first byte for the start of
/// choices that build a graph.
pub const ONNX_TAG: u8 = 0x08;

fn options() -> ReadOptions {
    ReadOptions { max_bytes: 1 << 20, max_items: 100_000 }
}

/// Reads `bytes` as a model under a memory budget. What is read must be valid, and must survive being written.
pub fn read_onnx(bytes: &[u8]) {
    let _ = survey(bytes, &options());
    with_budget(&Budget::new(MEMORY), || {
        let Ok(graph) = read(bytes, None, &options()) else { return };
        if let Err(error) = graph.validate() {
            panic!("an invalid graph was read: {error}");
        }
        let Ok(written) = write(&graph, &WriteOptions::default()) else { return };
        if let Err(error) = read(&written, None, &ReadOptions::default()) {
            let limit = error.kind() == planish_graph::ErrorKind::Limit;
            assert!(limit, "what was written cannot be read: {error}");
        }
    });
}

/// Makes a graph of `bytes` (an ONNX model, or choices), runs it by the engine and by the reference, and compares.
pub fn run_graph(bytes: &[u8]) {
    if bytes.first() == Some(&ONNX_TAG) {
        let graph = with_budget(&Budget::new(MEMORY), || read(bytes, None, &options()));
        if let Ok(graph) = graph {
            // Settings come from the contents, so that a saved input always runs under the same ones.
            let hash = bytes.iter().fold(0u64, |h, &b| (h ^ b as u64).wrapping_mul(0x0100_0000_01b3));
            let settings = hash.to_le_bytes();
            check(&graph, &run::open_shapes(&graph), &mut Source::new(&settings));
        }
        return;
    }
    let mut source = Source::new(bytes);
    let model = generate(&mut source);
    check(&model.graph, &model.shapes, &mut source);
}
