//! Chains of reshapes and of transpositions become one.
//!
//! `Reshape`, `Flatten`, `Squeeze` and `Unsqueeze` keep the elements' order, so only the last shape of a chain counts.
//! Two transpositions are one with the composed permutation, and a transposition that moves only axes of extent 1 is a
//! reshape.

use super::Pass;
use super::rewrite::Rewriter;
use planish_graph::ops::movement::reshape::Reshape;
use planish_graph::ops::movement::transpose::Transpose;
use planish_graph::{Graph, Node, NodeId, Operator, Result, Tensor, ValueId};
use std::sync::Arc;

/// Merges chains of reshapes and of transpositions.
pub struct Reshapes;

impl Pass for Reshapes {
    fn name(&self) -> &'static str {
        "reshapes"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((x, perm)) = composed(&rewriter, id) {
                rewriter.set(id, Arc::new(Transpose { perm: Some(perm) }), vec![Some(x)]);
            } else if let Some((x, target)) = skipping(&rewriter, id) {
                let op = Reshape { allow_zero: target.contains(&0) };
                let target = Tensor::from_i64s(&target)?;
                let name = rewriter.node_name(id);
                let target = rewriter.add_constant(&format!("{name}.shape"), target);
                rewriter.set(id, Arc::new(op), vec![Some(x), Some(target)]);
            }
        }
        rewriter.finish()
    }
}

/// Whether an operator gives its first input's elements in the same order under another shape.
pub(super) fn keeps_order(op: &dyn Operator) -> bool {
    op.domain().is_empty() && matches!(op.name(), "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze")
}

/// The input of the node that makes `value`, where that node only reshapes it.
fn before_reshape(rewriter: &Rewriter, value: ValueId) -> Option<ValueId> {
    let node = rewriter.node(rewriter.maker(value)?)?;
    node.input(0).filter(|_| keeps_order(&*node.op))
}

/// What node `id` reshapes once the reshape before it is skipped (or, for a transposition that is none, what it
/// transposes), and the target shape.
fn skipping(rewriter: &Rewriter, id: NodeId) -> Option<(ValueId, Vec<i64>)> {
    let node = rewriter.node(id)?;
    let input = node.input(0)?;
    let x = if keeps_order(&*node.op) {
        before_reshape(rewriter, input)?
    } else {
        moves_nothing(rewriter, node, input)?
    };
    if let Some(shape) = rewriter.shape(node.output()?) {
        let target = shape.into_iter().map(i64::try_from).collect::<std::result::Result<_, _>>();
        return Some((x, target.ok()?));
    }
    rewriter.node_of::<Reshape>(id)?;
    // Symbolic: a target without zeros means the same whatever the shape before.
    let target = rewriter.ints_input(node, 1)?;
    (!target.contains(&0)).then_some((x, target))
}

/// `input`, where `node` is a transposition that leaves the order of the axes longer than 1 alone.
fn moves_nothing(rewriter: &Rewriter, node: &Node, input: ValueId) -> Option<ValueId> {
    let (_, op) = rewriter.maker_of::<Transpose>(node.output()?).map(|(_, node, op)| (node, op))?;
    let shape = rewriter.shape(input)?;
    let order = op.order(shape.len()).ok()?;
    order.into_iter().filter(|&axis| shape[axis] != 1).is_sorted().then_some(input)
}

/// The input of the transposition before the transposition `id`, and both permutations as one.
fn composed(rewriter: &Rewriter, id: NodeId) -> Option<(ValueId, Vec<usize>)> {
    let (node, second) = rewriter.node_of::<Transpose>(id)?;
    let (_, before, first) = rewriter.maker_of::<Transpose>(node.input(0)?)?;
    let x = before.input(0)?;
    let length = |op: &Transpose| op.perm.as_ref().map(Vec::len);
    let rank = length(first).or(length(second)).or_else(|| rewriter.rank(x))?;
    let (first, second) = (first.order(rank).ok()?, second.order(rank).ok()?);
    Some((x, second.into_iter().map(|axis| first[axis]).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check, check_inferred, input, list};
    use planish_graph::Dim;
    use planish_graph::ops::math::binary::BinaryFunction::Add;
    use planish_graph::ops::movement::flatten::Flatten;
    use planish_graph::ops::movement::squeeze::Unsqueeze;

    #[test]
    fn only_the_last_shape_counts() {
        let (mut g, x) = input(&[2, 3, 4]);
        let flat = g.add_node("flat", Flatten { axis: 1 }, &[x]);
        let axis = list(&mut g, "axis", &[0]);
        let wide = g.add_node("wide", Unsqueeze, &[flat, axis]);
        let shape = list(&mut g, "shape", &[4, 0, -1]);
        let y = g.add_node("y", Reshape { allow_zero: false }, &[wide, shape]);
        g.outputs.push(y);
        check_inferred(&Reshapes, g, &[("Reshape", 1)]);
    }

    #[test]
    fn open_shapes_need_targets_without_zeros() {
        for (target, left) in [(&[12, -1][..], 1), (&[0, -1], 2)] {
            let (mut g, x) = input(&[2, 3, 4]);
            g.value_mut(x).shape = Some(vec![Dim::Unknown, Dim::Fixed(3), Dim::Fixed(4)]);
            let first = list(&mut g, "first", &[3, -1, 2]);
            let between = g.add_node("between", Reshape { allow_zero: false }, &[x, first]);
            let second = list(&mut g, "second", target);
            let y = g.add_node("y", Reshape { allow_zero: false }, &[between, second]);
            g.outputs.push(y);
            check(&Reshapes, g, &[("Reshape", left)]);
        }
    }

    #[test]
    fn transpositions_compose() {
        let (mut g, x) = input(&[2, 3, 4]);
        let a = g.add_node("a", Transpose { perm: Some(vec![1, 2, 0]) }, &[x]);
        let b = g.add_node("b", Transpose { perm: None }, &[a]);
        let other = g.add_node("other", Transpose { perm: Some(vec![0, 2, 1]) }, &[x]);
        let flat = g.add_node("flat", Flatten { axis: 0 }, &[other]);
        g.outputs = vec![b, flat];
        check(&Reshapes, g, &[("Transpose", 2), ("Flatten", 1)]);
    }

    #[test]
    fn moving_axes_of_one_is_reshaping() {
        let (mut g, x) = input(&[2, 1, 4]);
        let moved = g.add_node("moved", Transpose { perm: Some(vec![1, 0, 2]) }, &[x]);
        let kept = g.add_node("kept", Transpose { perm: Some(vec![2, 1, 0]) }, &[x]);
        let moved = binary(&mut g, "sum", Add, moved, moved);
        g.outputs = vec![moved, kept];
        check_inferred(&Reshapes, g, &[("Reshape", 1), ("Transpose", 1), ("Add", 1)]);
    }
}
