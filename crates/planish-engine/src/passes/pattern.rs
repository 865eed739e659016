//! Small questions that several passes ask of a graph: which operand is the constant, what scalar is multiplied here.

use super::rewrite::Rewriter;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::{NodeId, Operator, Tensor, ValueId};

/// The operands of a living node, where it is that binary function.
pub(super) fn operands(
    rewriter: &Rewriter,
    id: NodeId,
    function: BinaryFunction,
) -> Option<(ValueId, ValueId)> {
    let (node, op) = rewriter.node_of::<Binary>(id)?;
    if op.function != function {
        return None;
    }
    Some((node.input(0)?, node.input(1)?))
}

/// The node of operator `T` that makes `value`, where `value` has no other reader than the one asking.
pub(super) fn inner<'r, T: Operator>(rewriter: &'r Rewriter, value: ValueId) -> Option<(NodeId, &'r T)> {
    let (id, _, op) = rewriter.maker_of::<T>(value)?;
    (rewriter.use_count(value) == 1).then_some((id, op))
}

/// Input 0 of the node that makes `value` by an operator `T` that `wanted` accepts, read by nobody else.
pub(super) fn argument<T: Operator>(
    rewriter: &Rewriter,
    value: ValueId,
    wanted: impl Fn(&T) -> bool,
) -> Option<ValueId> {
    let (id, op) = inner::<T>(rewriter, value)?;
    rewriter.node(id).filter(|_| wanted(op))?.input(0)
}

/// `x` and `c` where `id` computes `x + c` for a scalar constant.
pub(super) fn plus_scalar(rewriter: &Rewriter, id: NodeId) -> Option<(ValueId, f64)> {
    let (a, b) = match operands(rewriter, id, BinaryFunction::Add) {
        Some(pair) => pair,
        None => {
            let (a, b) = operands(rewriter, id, BinaryFunction::Sub)?;
            return Some((a, -rewriter.scalar(b, a)?));
        }
    };
    match rewriter.scalar(b, a) {
        Some(c) => Some((a, c)),
        None => Some((b, rewriter.scalar(a, b)?)),
    }
}

/// `x` and `c` where `id` computes `x · c` for a scalar constant.
pub(super) fn times_scalar(rewriter: &Rewriter, id: NodeId) -> Option<(ValueId, f64)> {
    let (a, b) = match operands(rewriter, id, BinaryFunction::Mul) {
        Some(pair) => pair,
        None => {
            let (a, b) = operands(rewriter, id, BinaryFunction::Div)?;
            let divisor = rewriter.scalar(b, a)?;
            return Some((a, 1.0 / divisor));
        }
    };
    match rewriter.scalar(b, a) {
        Some(c) => Some((a, c)),
        None => Some((b, rewriter.scalar(a, b)?)),
    }
}

/// Whether two numbers are the same up to the rounding of `f32` constants.
pub(super) fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * b.abs().max(1e-6)
}

/// A constant that, broadcast to a tensor of `rank` axes, holds one number for each of `channels` (axis `at`), and
/// changes no other extent.
pub(crate) fn per_channel(tensor: &Tensor, rank: usize, at: usize, channels: usize) -> Option<Vec<f64>> {
    let skip = rank.checked_sub(tensor.rank())?;
    let fits = tensor
        .shape()
        .iter()
        .enumerate()
        .all(|(axis, &extent)| extent == 1 || (axis + skip == at && extent == channels));
    if !fits {
        return None;
    }
    let values = tensor.to_f64s();
    Some(if values.len() == channels { values } else { vec![*values.first()?; channels] })
}
