//! Runs a graph by its operators' reference evaluations: slow, plain, and right by definition.

use crate::error::{Context, Result};
use crate::graph::{Graph, ValueId};
use crate::infer::{Fact, check_shape};
use crate::invalid;
use crate::tensor::Tensor;

/// The outputs of `graph` for `inputs` (one for each graph input, in order).
pub fn run(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    run_with(graph, inputs, |_, _| Ok(()))
}

/// [`run`], showing every value to `visit` as soon as it is there; what `visit` leaves in its place is what the nodes
/// behind it read. Values are dropped after their last use.
pub fn run_with(
    graph: &Graph,
    inputs: &[Tensor],
    mut visit: impl FnMut(ValueId, &mut Tensor) -> Result<()>,
) -> Result<Vec<Tensor>> {
    if inputs.len() != graph.inputs.len() {
        invalid!("{} inputs were given, the graph has {}", inputs.len(), graph.inputs.len());
    }
    let mut values: Vec<Option<Tensor>> = graph.values.iter().map(|v| v.constant.clone()).collect();
    for (&id, tensor) in graph.inputs.iter().zip(inputs) {
        if graph.value(id).dtype.is_some_and(|d| d != tensor.dtype()) {
            invalid!("input {} was given as {}", graph.describe(id), tensor.dtype());
        }
        check_shape(graph, id, tensor.shape())?;
        values[id.0 as usize] = Some(tensor.clone());
    }
    let mut last_use = vec![usize::MAX; graph.values.len()];
    for (n, node) in graph.nodes.iter().enumerate() {
        for id in node.inputs.iter().chain(&node.outputs).flatten() {
            last_use[id.0 as usize] = n;
        }
    }
    for output in &graph.outputs {
        last_use[output.0 as usize] = usize::MAX;
    }
    for (n, node) in graph.nodes.iter().enumerate() {
        let given: Vec<Option<&Tensor>> =
            node.inputs.iter().map(|i| i.and_then(|i| values[i.0 as usize].as_ref())).collect();
        let made = eval_node(node, &given).context(|| node.place())?;
        for (output, mut tensor) in node.outputs.iter().zip(made) {
            if let Some(id) = output {
                visit(*id, &mut tensor)?;
                values[id.0 as usize] = Some(tensor);
            }
        }
        for id in node.inputs.iter().chain(&node.outputs).flatten() {
            if last_use[id.0 as usize] == n {
                values[id.0 as usize] = None;
            }
        }
    }
    graph
        .outputs
        .iter()
        .map(|id| match &values[id.0 as usize] {
            Some(tensor) => Ok(tensor.clone()),
            None => invalid!("nothing made output \"{}\"", graph.value(*id).name),
        })
        .collect()
}

/// Checks one node's inputs by its shape and type rule, then evaluates it.
pub fn eval_node(node: &crate::graph::Node, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
    node.op.arity().check(&node.inputs, &node.outputs)?;
    let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Fact::constant)).collect();
    let found = node.op.infer(&facts, node.outputs.len())?;
    for fact in &found {
        if let Some(shape) = fact.shape() {
            crate::limits::element_count(shape)?;
        }
    }
    let made = node.op.eval(inputs, node.outputs.len())?;
    if made.len() < node.outputs.len() {
        invalid!("made {} outputs of {}", made.len(), node.outputs.len());
    }
    Ok(made)
}
