//! `planish inspect`: what a model consists of and what it costs.

use super::model::{self, Shapes};
use clap::Args;
use planish::report::table::{Align, Table, bytes, count};
use planish_engine::passes::{self, Conversion};
use planish_graph::error::Context;
use planish_graph::infer::infer;
use planish_graph::limits::{Budget, with_budget};
use planish_graph::{Fact, Graph, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// What to inspect.
#[derive(Args)]
pub struct Arguments {
    /// The ONNX file
    model: PathBuf,
    #[command(flatten)]
    shapes: Shapes,
    /// Inspect the graph after the passes instead of as it was read
    #[arg(long)]
    optimized: bool,
    /// Print the whole graph as text
    #[arg(long, conflicts_with = "json")]
    text: bool,
    /// Cap on the bytes of tensors; K, M, G are understood
    #[arg(long, default_value = "16G", value_parser = model::bytes, value_name = "BYTES")]
    max_memory: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What one layer costs.
pub struct Layer {
    /// The node's name.
    pub name: String,
    /// The operator.
    pub operator: String,
    /// The shape of the first output, where known.
    pub shape: Option<Vec<usize>>,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Elements of its constant inputs.
    pub parameters: usize,
    /// Bytes of everything it reads and writes, as far as shapes are known.
    pub bytes: usize,
}

/// The cost of every layer of `graph` for these input shapes.
pub fn layers(graph: &Graph, shapes: &[Vec<usize>]) -> Result<Vec<Layer>> {
    let typed = graph.inputs.iter().zip(shapes);
    let inputs: Vec<Fact> = typed
        .map(|(&i, s)| Fact::new(graph.value(i).dtype.unwrap_or(planish_graph::DType::F32), s))
        .collect();
    let facts = infer(graph, &inputs)?;
    let fact = |v: &planish_graph::ValueId| facts[v.0 as usize].clone();
    let layers = graph.nodes.iter().map(|node| {
        let given: Vec<Option<Fact>> = node.inputs.iter().map(|i| i.as_ref().and_then(fact)).collect();
        let made: Vec<Fact> = node.outputs.iter().flatten().filter_map(fact).collect();
        let known = made.iter().chain(given.iter().flatten()).all(|f| f.shape.is_some());
        let constants = node.inputs.iter().flatten().filter_map(|&i| graph.constant(i));
        Layer {
            name: node.name.clone(),
            operator: node.op.name().to_string(),
            shape: made.first().and_then(|f| f.shape.clone()),
            macs: if known { node.op.macs(&given, &made) } else { 0 },
            parameters: constants.filter(|t| t.dtype().is_float()).map(|t| t.len()).sum(),
            bytes: made
                .iter()
                .chain(given.iter().flatten())
                .filter_map(Fact::bytes)
                .fold(0, usize::saturating_add),
        }
    });
    Ok(layers.collect())
}

/// The conversions that are left of a quantised network when it is planned for these input shapes.
fn conversions(graph: &Graph, shapes: &[Vec<usize>]) -> Result<Vec<Conversion>> {
    // QuantizeLinear, QLinearConv …
    if !graph.nodes.iter().any(|node| node.op.name().contains("Linear")) {
        return Ok(Vec::new());
    }
    Ok(passes::conversions(&passes::specialise(graph, shapes)?.graph))
}

/// Inspects.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut graph = model::read(&arguments.model, arguments.max_memory)?;
    let place = || arguments.model.display().to_string();
    let budget = Budget::new(arguments.max_memory);
    let (shapes, layers, conversions) = with_budget(&budget, || {
        graph.validate()?;
        if arguments.optimized {
            planish_engine::passes::optimise(&mut graph)?;
        }
        let shapes = arguments.shapes.resolve(&graph)?;
        let layers = layers(&graph, &shapes)?;
        let conversions = conversions(&graph, &shapes)?;
        Ok((shapes, layers, conversions))
    })
    .context(place)?;
    if arguments.text {
        print!("{graph}");
        return Ok(ExitCode::SUCCESS);
    }
    let macs: u64 = layers.iter().map(|l| l.macs).fold(0, u64::saturating_add);
    let parameters: usize = graph
        .values
        .iter()
        .filter_map(|v| v.constant.as_ref())
        .filter(|t| t.dtype().is_float())
        .map(|t| t.len())
        .sum();
    let mut operators: BTreeMap<&str, usize> = BTreeMap::new();
    for layer in &layers {
        *operators.entry(&layer.operator).or_default() += 1;
    }
    let values = |ids: &[planish_graph::ValueId]| ids.iter().map(|&i| graph.describe(i)).collect::<Vec<_>>();
    if arguments.json {
        let list: Vec<serde_json::Value> = layers
            .iter()
            .map(|l| {
                json!({"name": l.name, "operator": l.operator, "shape": l.shape, "macs": l.macs, "parameters": l.parameters,
                       "bytes": l.bytes, "intensity": intensity(l)})
            })
            .collect();
        super::print_json(&json!({
            "model": place(), "inputs": values(&graph.inputs), "outputs": values(&graph.outputs), "input_shapes": shapes,
            "nodes": layers.len(), "macs": macs, "parameters": parameters, "constant_bytes": graph.constant_bytes(),
            "operators": operators, "metadata": graph.metadata, "layers": list,
            "conversions": conversions.iter().map(|c| json!({"node": c.node, "operator": c.operator, "reason": c.reason}))
                .collect::<Vec<_>>(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("operator", Align::Left),
        ("output", Align::Left),
        ("MACs", Align::Right),
        ("parameters", Align::Right),
        ("bytes", Align::Right),
        ("FLOP/byte", Align::Right),
    ]);
    for layer in &layers {
        let shape = layer.shape.as_ref();
        let shape =
            shape.map_or("?".to_string(), |s| s.iter().map(|d| d.to_string()).collect::<Vec<_>>().join("×"));
        let number = |n: u64, text: fn(u64) -> String| if n > 0 { text(n) } else { String::new() };
        table.row([
            &layer.name,
            &layer.operator,
            &shape,
            &number(layer.macs, count),
            &number(layer.parameters as u64, count),
            &number(layer.bytes as u64, bytes),
            &if layer.macs > 0 { format!("{:.1}", intensity(layer)) } else { String::new() },
        ]);
    }
    print!("{table}");
    println!("\n{}", place());
    println!("  inputs   {}", values(&graph.inputs).join("; "));
    println!("  outputs  {}", values(&graph.outputs).join("; "));
    println!("  for input shapes {shapes:?} (1 MAC = 2 FLOP):");
    println!(
        "  {} nodes, {} MACs, {} parameters, {} of constants",
        layers.len(),
        count(macs),
        count(parameters as u64),
        bytes(graph.constant_bytes() as u64)
    );
    let operators: Vec<String> = operators.iter().map(|(name, n)| format!("{name} {n}")).collect();
    println!("  {}", operators.join(", "));
    for Conversion { node, operator, reason } in &conversions {
        println!("  {operator} \"{node}\" stays: {reason}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Floating-point operations for each byte that must move.
fn intensity(layer: &Layer) -> f64 {
    2.0 * layer.macs as f64 / layer.bytes.max(1) as f64
}
