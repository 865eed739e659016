//! How long models take to load: `cargo run --release -p planish-onnx --example load_time -- MODEL…`.
//!
//! Loading must not be slower than ONNX Runtime's session creation, so it is measured by itself.

use planish_onnx::{ReadOptions, load};
use std::path::Path;
use std::time::Instant;

const RUNS: usize = 7;

fn main() {
    for name in std::env::args().skip(1) {
        let mut times = Vec::new();
        let mut summary = String::new();
        for _ in 0..RUNS {
            let start = Instant::now();
            match load(Path::new(&name), &ReadOptions::default()) {
                Ok(graph) => {
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                    summary = format!("{} nodes, {} bytes", graph.nodes.len(), graph.constant_bytes());
                }
                Err(error) => summary = error.to_string(),
            }
        }
        times.sort_by(f64::total_cmp);
        let median = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
        println!("{name}: {median:.1} ms (median of {RUNS}), {summary}");
    }
}
