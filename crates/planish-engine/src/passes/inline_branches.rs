//! An `If` whose condition is known becomes the branch that it takes.
//!
//! Exporters write `If` where the traced program asked about a shape; once shapes are fixed the answer is constant. The
//! branch's nodes move into the enclosing graph before the `If`; what the branch captured are that graph's values
//! already. Branches inside the branch follow in the next round.

use super::Pass;
use super::rewrite::Rewriter;
use planish_graph::attributes::SubGraph;
use planish_graph::ops::control::branch::If;
use planish_graph::ops::movement::identity::Identity;
use planish_graph::{Graph, Node, NodeId, Result, ValueId};
use std::sync::Arc;

/// Inlines branches that are sure to be taken.
pub struct InlineBranches;

impl Pass for InlineBranches {
    fn name(&self) -> &'static str {
        "inline-branches"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((branch, captured)) = taken(&rewriter, id) {
                inline(&mut rewriter, id, &branch.graph, &captured);
            }
        }
        rewriter.finish()
    }
}

/// The branch that `id` is sure to take, and what it captures.
fn taken(rewriter: &Rewriter, id: NodeId) -> Option<(SubGraph, Vec<ValueId>)> {
    let (node, op) = rewriter.node_of::<If>(id)?;
    let condition = rewriter.constant_input(node, 0).filter(|c| c.len() == 1)?.as_bools().ok()?[0] != 0;
    let (branch, first) =
        if condition { (&op.then_branch, 1) } else { (&op.else_branch, 1 + op.then_branch.captured()) };
    let captured: Option<Vec<ValueId>> =
        (first..first + branch.captured()).map(|index| node.input(index)).collect();
    let fits = branch.formal_inputs == 0
        && branch.graph.outputs.len() == node.outputs.len()
        && branch.graph.validate().is_ok();
    Some((branch.clone(), captured.filter(|_| fits)?))
}

/// Puts the nodes of `branch` before node `id` and lets the readers of `id` read them.
fn inline(rewriter: &mut Rewriter, id: NodeId, branch: &Graph, captured: &[ValueId]) {
    let mut outer: Vec<Option<ValueId>> = vec![None; branch.values.len()];
    for (inner, &value) in branch.inputs.iter().zip(captured) {
        outer[inner.0 as usize] = Some(value);
    }
    let outer: Vec<ValueId> = branch
        .values
        .iter()
        .zip(outer)
        .map(|(value, known)| match (known, &value.constant) {
            (Some(known), _) => known,
            (None, Some(tensor)) => rewriter.add_constant(&value.name, tensor.clone()),
            (None, None) => rewriter.add_value(&value.name, value.dtype, value.shape.clone()),
        })
        .collect();
    let moved = |ids: &[Option<ValueId>]| ids.iter().map(|id| id.map(|id| outer[id.0 as usize])).collect();
    for node in &branch.nodes {
        let (inputs, outputs) = (moved(&node.inputs), moved(&node.outputs));
        rewriter.insert(id, Node { inputs, outputs, ..node.clone() });
    }
    let outputs = rewriter.node(id).map(|node| node.outputs.clone()).unwrap_or_default();
    for (output, inner) in outputs.into_iter().zip(&branch.outputs) {
        if let Some(output) = output {
            let name = rewriter.graph().value(output).name.clone();
            // An identity makes sure that each result has a maker of its own, whatever it is in the branch.
            let result = rewriter.add_value(&name, None, None);
            let inputs = vec![Some(outer[inner.0 as usize])];
            rewriter.insert(id, Node { name, op: Arc::new(Identity), inputs, outputs: vec![Some(result)] });
            rewriter.replace(output, result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check, input, scalar, unary};
    use planish_graph::ops::math::binary::BinaryFunction::{Add, Mul};
    use planish_graph::ops::math::unary::UnaryFunction::Relu;
    use planish_graph::{DType, Tensor};

    /// `x + x`, or `x · half` and the captured `x` itself.
    fn branch(takes_sum: bool) -> SubGraph {
        let (mut graph, x) = input(&[2, 3]);
        let first = if takes_sum {
            binary(&mut graph, "y", Add, x, x)
        } else {
            let half = scalar(&mut graph, "half", 0.5);
            binary(&mut graph, "y", Mul, x, half)
        };
        graph.outputs = vec![first, x];
        SubGraph { graph, formal_inputs: 0 }
    }
    fn conditional(condition: impl Fn(&mut Graph) -> ValueId) -> Graph {
        let (mut g, x) = input(&[2, 3]);
        let condition = condition(&mut g);
        let bent = unary(&mut g, "bent", Relu, x);
        let op = If { then_branch: branch(true), else_branch: branch(false) };
        let y = g.add_node("y", op, &[condition, x, bent]);
        let z = g.add_value(planish_graph::Value { name: "z".into(), ..Default::default() });
        g.nodes[1].outputs.push(Some(z));
        g.outputs = vec![y, z];
        g
    }

    #[test]
    fn the_branch_taken_is_inlined() {
        for (condition, nodes) in
            [(true, &[("Add", 1), ("Identity", 2)][..]), (false, &[("Relu", 1), ("Mul", 1), ("Identity", 2)])]
        {
            let constant = Tensor::from_bools(&[], &[condition]).unwrap();
            let g = conditional(|g| g.add_constant("condition", constant.clone()));
            check(&InlineBranches, g, nodes);
        }
    }

    #[test]
    fn open_conditions_stay() {
        let g = conditional(|g| g.add_input("condition", DType::Bool, &[]));
        check(&InlineBranches, g, &[("Relu", 1), ("If", 1)]);
    }
}
