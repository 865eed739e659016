//! `planish quantize --weights-only int4`: the weights of large dense layers in four bits, without pictures.

use super::report::{decibels, written};
use super::{Arguments, Symmetry};
use crate::commands::{model, print_json};
use planish::report::table::{Align, Table, bytes, count};
use planish_compress::quantize::weights_only::{ShortLayer, WeightsOnly, weights_only};
use planish_graph::error::Context;
use planish_graph::{Result, invalid};
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;

/// Quantises weights alone.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let begun = Instant::now();
    let graph = model::read(&arguments.model, arguments.execution.options().max_memory)?;
    let how = WeightsOnly {
        block: arguments.block,
        least: arguments.least_weights,
        symmetric: arguments.weights == Symmetry::Symmetric,
    };
    let place = || arguments.model.display().to_string();
    let (made, layers) = weights_only(&graph, &how).context(place)?;
    if layers.is_empty() {
        let why = || -> Result<()> {
            invalid!(
                "no matrix product or 1x1 convolution has {} constant f32 weights or more; --least-weights N lowers that",
                how.least
            )
        };
        why().context(place)?;
    }
    // A byte of memory holds one weight of four bits, a byte of a file two.
    let size = |graph: &planish_graph::Graph| -> usize {
        graph.values.iter().filter_map(|v| v.constant.as_ref()).map(|t| t.packed().len()).sum()
    };
    let sizes = [size(&graph), size(&made)];
    if let Some(path) = &arguments.output {
        planish_onnx::save(&made, path, &planish_onnx::WriteOptions::default())?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    if arguments.json {
        let told: Vec<_> = layers
            .iter()
            .map(|l| {
                json!({"name": l.name, "operator": l.operator, "weights": l.weights,
                       "weight_sqnr_db": decibels(l.noise)})
            })
            .collect();
        print_json(&json!({
            "model": arguments.model.display().to_string(),
            "output": arguments.output.as_ref().map(|o| o.display().to_string()),
            "block": how.block, "constant_bytes_before": sizes[0], "constant_bytes": sizes[1],
            "layers": told, "seconds": seconds,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", table(&layers));
    println!(
        "constants: {} before, {} now, in {seconds:.1} s",
        bytes(sizes[0] as u64),
        bytes(sizes[1] as u64)
    );
    match &arguments.output {
        Some(path) => println!("written to {}", path.display()),
        None => println!("next: -o OUT.onnx writes the quantised model"),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(layers: &[ShortLayer]) -> Table {
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("operator", Align::Left),
        ("weights", Align::Right),
        ("weights' SQNR", Align::Right),
    ]);
    for l in layers {
        table.row([l.name.clone(), l.operator.to_string(), count(l.weights as u64), written(l.noise)]);
    }
    table
}
