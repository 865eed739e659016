//! What follows a convolution moves into it: the addition of a shortcut, then an activation.
//!
//! The kernel adds and bends its sums while they are in registers, which saves writing and reading the feature map once
//! for each. The shortcut must have exactly the convolution's output shape (it is read element by element, never
//! broadcast), so shortcuts are fused once shapes are known. Where both operands of an addition are convolutions, the one
//! that is computed last takes the other in, which is there by then.

use super::Pass;
use super::rewrite::Rewriter;
use planish_graph::ops::math::activation::{Activation, ActivationFunction};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::conv_add::{ConvAdd, FusedActivation};
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
fn open_convolution(rewriter: &Rewriter, value: ValueId) -> Option<(NodeId, &Node, ConvAdd)> {
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
    node.op.as_op::<Clip>()?;
    let bound = |index, open| match node.input(index) {
        None => Some(open),
        Some(value) => rewriter.constant(value).filter(|t| t.len() == 1).map(|t| t.to_f32s()[0]),
    };
    let (min, max) = (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?);
    (min <= max).then_some(FusedActivation::Clip { min, max })
}
