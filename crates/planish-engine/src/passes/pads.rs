//! Explicit padding goes into the convolution or pool behind it.
//!
//! Exporters of TensorFlow and hand-written "same" padding put a `Pad` before the layer that could have padded by itself.
//! Zeros around the image are what a convolution pads with. For pools the meaning differs: an average pool takes zeros
//! over when padding counts in its mean, a maximum pool when what is put around can never win a maximum (-∞, or zeros
//! around numbers that are not negative).

use super::Pass;
use super::fuse_convolutions::convolution;
use super::rewrite::Rewriter;
use planish_graph::ops::math::activation::{Activation, ActivationFunction};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::movement::pad::{Pad, PadMode};
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::fused::ConvAdd;
use planish_graph::ops::nn::pool::{AveragePool, MaxPool, PoolWindow};
use planish_graph::ops::nn::window::{AutoPad, WindowRule};
use planish_graph::{Graph, Node, NodeId, Operator, OperatorExt, Result, ValueId};
use std::sync::Arc;

/// Moves padding into the layer behind it.
pub struct Pads;

impl Pass for Pads {
    fn name(&self) -> &'static str {
        "pads"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((op, x)) = padded(&rewriter, id)
                && let Some(node) = rewriter.node(id)
            {
                let mut inputs = node.inputs.clone();
                inputs[0] = Some(x);
                rewriter.set(id, op, inputs);
            }
        }
        rewriter.finish()
    }
}

/// A border of one number around the spatial axes of `inside`.
struct Border {
    inside: ValueId,
    number: f64,
    /// Before each spatial axis, then behind each.
    pads: Vec<usize>,
}

/// The operator of node `id` with the padding before it taken in, and what is padded.
fn padded(rewriter: &Rewriter, id: NodeId) -> Option<(Arc<dyn Operator>, ValueId)> {
    let node = rewriter.node(id)?;
    let border = border(rewriter, node.input(0)?)?;
    let op: Arc<dyn Operator> = if let Some(fused) = convolution(&*node.op) {
        let pads = summed(rewriter, node, fused.conv.rule(), &border).filter(|_| border.number == 0.0)?;
        let conv = Conv { pads, auto_pad: AutoPad::NotSet, ..fused.conv };
        if node.op.is_op::<Conv>() { Arc::new(conv) } else { Arc::new(ConvAdd { conv, ..fused }) }
    } else if let Some(pool) = node.op.as_op::<AveragePool>() {
        let pads = summed(rewriter, node, pool.window.rule(), &border)?;
        let counted = pool.count_include_pad || pool.window.pads.iter().all(|&p| p == 0);
        let window = with_pads(&pool.window, pads)?;
        let fits = counted && border.number == 0.0;
        fits.then(|| Arc::new(AveragePool { window, count_include_pad: true }))?
    } else {
        let pool = node.op.as_op::<MaxPool>().filter(|_| node.outputs.iter().flatten().count() == 1)?;
        let pads = summed(rewriter, node, pool.window.rule(), &border)?;
        let never_wins = border.number == f64::NEG_INFINITY
            || (border.number == 0.0 && is_not_negative(rewriter, border.inside));
        let window = with_pads(&pool.window, pads)?;
        never_wins.then(|| Arc::new(MaxPool { window, ..pool.clone() }))?
    };
    Some((op, border.inside))
}

/// The window with these pads, where every window is sure to hold an element of the image: its taps touch each other and
/// span more than the padding, and none is added by rounding up.
fn with_pads(window: &PoolWindow, pads: Vec<usize>) -> Option<PoolWindow> {
    let dense = window.dilations.iter().all(|&d| d == 1) && !window.ceil_mode;
    let axes = window.kernel_shape.len();
    let spans = pads.iter().enumerate().all(|(i, &pad)| pad < window.kernel_shape[i % axes.max(1)]);
    (dense && spans).then(|| PoolWindow { pads, auto_pad: AutoPad::NotSet, ..window.clone() })
}

/// The padding that makes `value`, where it is constant, positive and only around spatial axes.
fn border(rewriter: &Rewriter, value: ValueId) -> Option<Border> {
    let (_, node, op) = rewriter.maker_of::<Pad>(value)?;
    let number = match node.input(2) {
        None => 0.0,
        Some(constant) => *rewriter.constant(constant)?.to_f64s().first()?,
    };
    let given = rewriter.ints_input(node, 1)?;
    let pads: Vec<usize> =
        given.into_iter().map(usize::try_from).collect::<std::result::Result<_, _>>().ok()?;
    let inside = node.input(0)?;
    let rank = match node.input(3) {
        None => pads.len() / 2,
        Some(_) => rewriter.rank(inside).or_else(|| rewriter.rank(value))?,
    };
    let axes: Vec<usize> = match node.input(3) {
        None => (0..rank).collect(),
        Some(_) => planish_graph::tensor::index::axes(&rewriter.ints_input(node, 3)?, rank).ok()?,
    };
    if op.mode != PadMode::Constant || rank < 3 || pads.len() != 2 * axes.len() {
        return None;
    }
    let mut spatial = vec![0; 2 * (rank - 2)];
    for (i, &axis) in axes.iter().enumerate() {
        let (before, after) = (pads[i], pads[i + axes.len()]);
        match axis.checked_sub(2) {
            Some(axis) => (spatial[axis], spatial[axis + rank - 2]) = (before, after),
            None if before == 0 && after == 0 => {}
            None => return None,
        }
    }
    Some(Border { inside, number, pads: spatial })
}

/// The pads of a window rule with `border` added. What "same" padding comes to must be known.
fn summed(rewriter: &Rewriter, node: &Node, rule: WindowRule<'_>, border: &Border) -> Option<Vec<usize>> {
    let own = match rule.auto_pad {
        AutoPad::NotSet => rule.pads.to_vec(),
        AutoPad::Valid => Vec::new(),
        AutoPad::SameUpper | AutoPad::SameLower => {
            let input = rewriter.shape(node.input(0)?)?;
            convolution(&*node.op)?;
            let weights = rewriter.shape(node.input(1)?)?;
            let window = rule.resolve(input.get(2..)?, weights.get(2..)?).ok()?;
            [window.pads_begin, window.pads_end].concat()
        }
    };
    if own.is_empty() {
        return Some(border.pads.clone());
    }
    let sums = own.iter().zip(&border.pads).map(|(a, b)| a.checked_add(*b));
    if own.len() == border.pads.len() { sums.collect() } else { None }
}

/// Whether `value` is what an activation made that gives no negative number.
fn is_not_negative(rewriter: &Rewriter, value: ValueId) -> bool {
    let Some(node) = rewriter.maker(value).and_then(|id| rewriter.node(id)) else { return false };
    if let Some(op) = node.op.as_op::<Unary>() {
        use UnaryFunction::*;
        return matches!(op.function, Relu | Sigmoid | Softplus | Abs | Exp);
    }
    if let Some(op) = node.op.as_op::<Activation>() {
        return matches!(op.function, ActivationFunction::HardSigmoid { .. });
    }
    let low = rewriter.constant_input(node, 1).map(|low| low.to_f64s());
    node.op.is_op::<Clip>() && low.is_some_and(|low| low.first().is_some_and(|&low| low >= 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check, check_inferred, input, list, scalar, unary, weights};

    /// "x" `[1, 2, 5, 6]`, through `before`, padded by `pads` of `number`.
    fn padded(before: Option<UnaryFunction>, pads: &[i64], number: f32) -> (Graph, ValueId) {
        let (mut g, mut x) = input(&[1, 2, 5, 6]);
        if let Some(function) = before {
            x = unary(&mut g, "before", function, x);
        }
        let pads = list(&mut g, "pads", pads);
        let number = scalar(&mut g, "number", number);
        let p = g.add_node("pad", Pad { mode: PadMode::Constant }, &[x, pads, number]);
        (g, p)
    }
    fn convolved(pads: &[i64], number: f32, conv: Conv) -> Graph {
        let (mut g, p) = padded(None, pads, number);
        let w = weights(&mut g, "w", &[3, 2, 3, 3]);
        let y = g.add_node("y", conv, &[p, w]);
        g.outputs.push(y);
        g
    }
    fn window() -> PoolWindow {
        PoolWindow { kernel_shape: vec![3, 2], strides: vec![2, 1], ..PoolWindow::default() }
    }
    fn pooled(before: Option<UnaryFunction>, pads: &[i64], number: f32, pool: impl Operator) -> Graph {
        let (mut g, p) = padded(before, pads, number);
        let y = g.add_node("y", pool, &[p]);
        g.outputs.push(y);
        g
    }

    #[test]
    fn zeros_go_into_convolutions() {
        let plain = convolved(&[0, 0, 1, 2, 0, 0, 0, 1], 0.0, Conv::default());
        check(&Pads, plain, &[("Conv", 1)]);
        let own = Conv { pads: vec![1, 0, 0, 1], strides: vec![2, 2], ..Conv::default() };
        check(&Pads, convolved(&[0, 0, 1, 2, 0, 0, 0, 1], 0.0, own), &[("Conv", 1)]);
        let same = Conv { auto_pad: AutoPad::SameUpper, strides: vec![2, 2], ..Conv::default() };
        check_inferred(&Pads, convolved(&[0, 0, 1, 2, 0, 0, 0, 1], 0.0, same), &[("Conv", 1)]);
    }

    #[test]
    fn other_borders_stay() {
        let stays = &[("Pad", 1), ("Conv", 1)];
        check(&Pads, convolved(&[0, 0, 1, 1, 0, 0, 1, 1], 1.0, Conv::default()), stays);
        check(&Pads, convolved(&[1, 0, 1, 1, 0, 0, 1, 1], 0.0, Conv::default()), stays);
        check(&Pads, convolved(&[0, 0, -1, 1, 0, 0, 1, 1], 0.0, Conv::default()), stays);
        let mut mirrored = convolved(&[0, 0, 1, 1, 0, 0, 1, 1], 0.0, Conv::default());
        mirrored.nodes[0].op = Arc::new(Pad { mode: PadMode::Reflect });
        check(&Pads, mirrored, stays);
    }

    #[test]
    fn pools_take_what_does_not_change_them() {
        let pads = &[0, 0, 1, 1, 0, 0, 1, 0];
        let max = || MaxPool { window: window(), column_major: false };
        let mean = |count_include_pad, pads: &[usize]| {
            let window = PoolWindow { pads: pads.to_vec(), ..window() };
            AveragePool { window, count_include_pad }
        };
        check(&Pads, pooled(None, pads, f32::NEG_INFINITY, max()), &[("MaxPool", 1)]);
        let relu = Some(UnaryFunction::Relu);
        check(&Pads, pooled(relu, pads, 0.0, max()), &[("Relu", 1), ("MaxPool", 1)]);
        check(&Pads, pooled(None, pads, 0.0, max()), &[("Pad", 1), ("MaxPool", 1)]);
        check(&Pads, pooled(None, pads, 0.0, mean(false, &[])), &[("AveragePool", 1)]);
        check(&Pads, pooled(None, pads, 0.0, mean(true, &[1, 0, 1, 0])), &[("AveragePool", 1)]);
        check(&Pads, pooled(None, pads, 0.0, mean(false, &[1, 0, 1, 0])), &[("Pad", 1), ("AveragePool", 1)]);
        let wide = &[0, 0, 0, 2, 0, 0, 0, 2];
        check(&Pads, pooled(None, wide, 0.0, mean(false, &[])), &[("Pad", 1), ("AveragePool", 1)]);
    }
}
