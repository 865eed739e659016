//! What follows a convolution moves into it: the addition of a shortcut, then an activation.
//!
//! The kernel adds and bends its sums while they are in registers, which saves writing and reading the feature map once
//! for each. The shortcut must have exactly the convolution's output shape (it is read element by element, never
//! broadcast), so shortcuts are fused once shapes are known. Where both operands of an addition are convolutions, the one
//! that is computed last takes the other in, which is there by then.

use super::Pass;
use super::quantised::limits::limits;
use super::rewrite::Rewriter;
use planish_graph::ops::math::activation::{Activation, ActivationFunction};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::fused::{ConvAdd, FusedActivation};
use planish_graph::{Graph, Node, NodeId, Operator, OperatorExt, Result, ValueId};
use std::sync::Arc;

/// Fuses additions and activations into the convolutions before them.
pub struct FuseConvolutions;

impl Pass for FuseConvolutions {
    fn name(&self) -> &'static str {
        "fuse-convolutions"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((layer, op, inputs)) = activated(&rewriter, id).or_else(|| added(&rewriter, id)) {
                rewriter.fuse(id, layer, Arc::new(op), inputs);
            }
        }
        rewriter.finish()
    }
}

/// A convolution with more in it: the node it was, the operator, and its inputs.
type Fused = (NodeId, ConvAdd, Vec<Option<ValueId>>);

/// The convolution of an operator, and what is fused into it already.
pub(super) fn convolution(op: &dyn Operator) -> Option<ConvAdd> {
    if let Some(conv) = op.as_op::<Conv>() {
        return Some(ConvAdd { conv: conv.clone(), activation: FusedActivation::None });
    }
    op.as_op::<ConvAdd>().cloned()
}

/// The convolution that makes `value` for one reader only and bends nothing yet.
fn open_convolution<'r>(rewriter: &'r Rewriter, value: ValueId) -> Option<(NodeId, &'r Node, ConvAdd)> {
    let id = rewriter.maker(value).filter(|_| rewriter.use_count(value) == 1)?;
    let node = rewriter.node(id)?;
    let op = convolution(&*node.op).filter(|op| op.activation == FusedActivation::None)?;
    Some((id, node, op))
}

/// The activation `id` with the convolution before it.
fn activated(rewriter: &Rewriter, id: NodeId) -> Option<Fused> {
    let node = rewriter.node(id)?;
    let activation = activation(rewriter, node)?;
    let (layer, before, op) = open_convolution(rewriter, node.input(0)?)?;
    Some((layer, ConvAdd { activation, ..op }, before.inputs.clone()))
}

/// The addition `id` with a convolution that makes one operand; the other is the shortcut.
fn added(rewriter: &Rewriter, id: NodeId) -> Option<Fused> {
    let (node, op) = rewriter.node_of::<Binary>(id)?;
    let (a, b) = (node.input(0)?, node.input(1)?);
    if op.function != BinaryFunction::Add || a == b {
        return None;
    }
    let shape = rewriter.shape(a)?;
    if rewriter.shape(b)? != shape || rewriter.shape(node.output()?)? != shape {
        return None;
    }
    let candidate = |value, shortcut| {
        let (id, node, op) = open_convolution(rewriter, value)?;
        node.input(3).is_none().then_some((id, node, op, shortcut))
    };
    let candidates = [candidate(a, b), candidate(b, a)].into_iter().flatten();
    let (layer, before, op, shortcut) = candidates.max_by_key(|(id, ..)| *id)?;
    let inputs = vec![before.input(0), before.input(1), before.input(2), Some(shortcut)];
    Some((layer, op, inputs))
}

/// The activation that a node computes of its first input, where convolutions can do it.
fn activation(rewriter: &Rewriter, node: &Node) -> Option<FusedActivation> {
    if let Some(op) = node.op.as_op::<Unary>() {
        return Some(match op.function {
            UnaryFunction::Relu => FusedActivation::Relu,
            UnaryFunction::HardSwish => FusedActivation::HardSwish,
            UnaryFunction::Sigmoid => FusedActivation::Sigmoid,
            UnaryFunction::Tanh => FusedActivation::Tanh,
            UnaryFunction::Mish => FusedActivation::Mish,
            _ => return None,
        });
    }
    if let Some(op) = node.op.as_op::<Activation>() {
        return Some(match op.function {
            ActivationFunction::LeakyRelu { alpha } => FusedActivation::LeakyRelu { alpha },
            ActivationFunction::Elu { alpha } => FusedActivation::Elu { alpha },
            ActivationFunction::HardSigmoid { alpha, beta } => FusedActivation::HardSigmoid { alpha, beta },
            ActivationFunction::Swish { alpha: 1.0 } => FusedActivation::Silu,
            ActivationFunction::Gelu { tanh: false } => FusedActivation::Gelu,
            _ => return None,
        });
    }
    let [min, max] = limits(rewriter, node)?;
    (min <= max).then_some(FusedActivation::Clip { min, max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check_inferred, input, scalar, unary, weights};
    use planish_graph::Graph;
    use planish_graph::ops::math::clip::Clip;

    /// A convolution of `x` that keeps its shape `[1, 2, 5]`.
    fn convolved(g: &mut Graph, name: &str, x: ValueId) -> ValueId {
        let w = weights(g, &format!("{name}.w"), &[2, 2, 3]);
        let b = weights(g, &format!("{name}.b"), &[2]);
        g.add_node(name, Conv { pads: vec![1, 1], ..Conv::default() }, &[x, w, b])
    }

    #[test]
    fn activations_move_in() {
        use ActivationFunction::*;
        let functions =
            [LeakyRelu { alpha: 0.1 }, Elu { alpha: 0.5 }, Swish { alpha: 1.0 }, Gelu { tanh: false }];
        for function in functions {
            let (mut g, x) = input(&[1, 2, 5]);
            let conv = convolved(&mut g, "conv", x);
            let y = g.add_node("y", Activation { function }, &[conv]);
            g.outputs.push(y);
            let g = check_inferred(&FuseConvolutions, g, &[("ConvAdd", 1)]);
            assert_eq!(g.nodes[0].name, "conv");
        }
        let (mut g, x) = input(&[1, 2, 5]);
        let conv = convolved(&mut g, "conv", x);
        let high = scalar(&mut g, "high", 1.0);
        let y = g.add_value(planish_graph::Value { name: "y".into(), ..Default::default() });
        let inputs = vec![Some(conv), None, Some(high)];
        g.nodes.push(Node { name: "y".into(), op: Arc::new(Clip), inputs, outputs: vec![Some(y)] });
        g.outputs.push(y);
        check_inferred(&FuseConvolutions, g, &[("ConvAdd", 1)]);
    }

    #[test]
    fn shortcuts_move_into_the_last_convolution() {
        let (mut g, x) = input(&[1, 2, 5]);
        let short = convolved(&mut g, "short", x);
        let first = convolved(&mut g, "first", x);
        let first = unary(&mut g, "relu", UnaryFunction::Relu, first);
        let second = convolved(&mut g, "second", first);
        let sum = binary(&mut g, "sum", BinaryFunction::Add, second, short);
        let y = unary(&mut g, "y", UnaryFunction::Relu, sum);
        g.outputs.push(y);
        let g = check_inferred(&FuseConvolutions, g, &[("Conv", 1), ("ConvAdd", 2)]);
        assert_eq!(g.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["short", "first", "second"]);
        assert_eq!(g.value(g.outputs[0]).name, "y");
    }

    #[test]
    fn shortcuts_that_broadcast_stay() {
        let (mut g, x) = input(&[1, 2, 5]);
        let conv = convolved(&mut g, "conv", x);
        let row =
            g.add_input("row", planish_graph::DType::F32, &crate::passes::rewrite::fixed_dims(&[1, 2, 1]));
        let y = binary(&mut g, "y", BinaryFunction::Add, conv, row);
        g.outputs.push(y);
        check_inferred(&FuseConvolutions, g, &[("Conv", 1), ("Add", 1)]);
    }

    #[test]
    fn what_others_read_stays() {
        let (mut g, x) = input(&[1, 2, 5]);
        let conv = convolved(&mut g, "conv", x);
        let y = unary(&mut g, "y", UnaryFunction::Relu, conv);
        let twice = binary(&mut g, "twice", BinaryFunction::Add, conv, conv);
        g.outputs = vec![y, twice];
        check_inferred(&FuseConvolutions, g, &[("Conv", 1), ("Relu", 1), ("Add", 1)]);
    }
}
