//! Activations that only limit go where the quantisation behind them limits as well.
//!
//! A network that was quantised with ReLU or ReLU6 keeps them before QuantizeLinear, whose lowest level then is 0 (and the
//! highest 6): what they cut off, it cuts off itself. Without them a convolution's sums go straight to levels, and a
//! residual addition is an addition.
//!
//! Limits that levels of few bits need stay. Convolutions take them in; matrix products and sums, which do not, go to levels
//! of the same step that no limit is needed for, and those are limited, by a table.

use super::super::Pass;
use super::super::rewrite::Rewriter;
use super::grids::{levels, quantisation, through};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::nn::fused::{ConvAdd, FusedActivation};
use planish_graph::ops::nn::quantized::fused::Grid;
use planish_graph::{DType, Graph, Node, NodeId, OperatorExt, Result, Tensor, ValueId};
use std::sync::Arc;

/// Drops limits that a quantisation sets anyway.
pub struct QuantisedLimits;

impl Pass for QuantisedLimits {
    fn name(&self) -> &'static str {
        "quantised-limits"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            let Some(grid) = quantisation(&rewriter, id) else { continue };
            let Some(node) = rewriter.node(id) else { continue };
            let (op, inputs) = (node.op.clone(), node.inputs.clone());
            let Some(Some(x)) = inputs.first().copied() else { continue };
            let Some(maker) = rewriter.maker(x) else { continue };
            let Some(before) = rewriter.node(maker) else { continue };
            if limits(&rewriter, before).is_some_and(|limits| saturates(&grid, limits)) {
                let mut inputs = inputs;
                inputs[0] = before.input(0);
                rewriter.set(id, op, inputs);
                continue;
            }
            if let Some([low, high]) = limits(&rewriter, before)
                && let Some(free) = before.input(0).filter(|&free| takes_no_limits(&rewriter, free))
                && let Some(wide) = wide(&grid, [low, high])
                && rewriter.use_count(x) == 1
            {
                let (op, mut inputs) = (before.op.clone(), before.inputs.clone());
                inputs[0] = Some(through(&mut rewriter, maker, free, &wide)?);
                rewriter.set(maker, op, inputs);
                continue;
            }
            let Some(fused) = before.op.as_op::<ConvAdd>() else { continue };
            let dropped = match fused.activation {
                FusedActivation::Relu => saturates(&grid, [0.0, f32::INFINITY]),
                FusedActivation::Clip { min, max } => saturates(&grid, [min, max]),
                _ => false,
            };
            if dropped && rewriter.use_count(x) == 1 {
                let op = ConvAdd { conv: fused.conv.clone(), activation: FusedActivation::None };
                let inputs = before.inputs.clone();
                rewriter.set(maker, Arc::new(op), inputs);
            }
        }
        rewriter.finish()
    }
}

/// Whether only limits read a value that is computed on levels by an operator without limits of its own.
fn takes_no_limits(rewriter: &Rewriter, value: ValueId) -> bool {
    let Some(node) = rewriter.maker(value).and_then(|maker| rewriter.node(maker)) else { return false };
    let op = &*node.op;
    let product = op.is_op::<Gemm>() || op.is_op::<MatMul>();
    let on_levels = |index: usize| node.input(index).is_some_and(|v| levels(rewriter, v).is_some());
    let sum = op.as_op::<Binary>().is_some_and(|op| op.function == BinaryFunction::Add);
    rewriter.use_count(value) == 1 && (product && on_levels(0) || sum && on_levels(0) && on_levels(1))
}

/// Levels of the same step around 128, where they go beyond limits that lie on levels.
fn wide(grid: &Grid, limits: [f32; 2]) -> Option<Grid> {
    let (scale, _) = grid.single()?;
    let inside = |limit: f32| {
        let steps = limit / scale;
        steps.fract() == 0.0 && (-128.0..=127.0).contains(&steps)
    };
    limits.into_iter().all(inside).then(|| Grid::levels(scale, 128))
}

/// What a node limits its first input to, where it does nothing else.
pub(in super::super) fn limits(rewriter: &Rewriter, node: &Node) -> Option<[f32; 2]> {
    if node.op.as_op::<Unary>().is_some_and(|op| op.function == UnaryFunction::Relu) {
        return Some([0.0, f32::INFINITY]);
    }
    node.op.as_op::<Clip>()?;
    let bound = |index, open| match node.input(index) {
        None => Some(open),
        // Integers are the operator's to refuse.
        Some(value) => {
            let bound = rewriter.constant(value).filter(|t| t.len() == 1 && t.dtype().is_float())?;
            Some(bound.to_f32s()[0])
        }
    };
    Some([bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?])
}

/// `x` kept between limits by a node before `anchor`, together with those it was kept between before.
pub(in super::super) fn limited(
    rewriter: &mut Rewriter,
    anchor: NodeId,
    mut x: ValueId,
    [mut low, mut high]: [f32; 2],
) -> ValueId {
    let name = rewriter.node_name(anchor);
    let before = rewriter.maker(x).and_then(|maker| rewriter.node(maker));
    if let Some((before, [own_low, own_high])) = before.and_then(|b| Some((b, limits(rewriter, b)?)))
        && own_low <= own_high
        && own_low <= high
        && own_high >= low
        && let Some(free) = before.input(0)
    {
        (low, high, x) = (low.max(own_low), high.min(own_high), free);
    }
    let ends =
        [low, high].map(|end| Some(rewriter.add_constant(&format!("{name}.end"), Tensor::scalar(end))));
    let inputs = vec![Some(x), ends[0], ends[1]];
    rewriter.insert_like(anchor, &format!("{name}/Clip"), Arc::new(Clip), inputs, x, DType::F32)
}

/// Whether everything from the limits on outwards is the lowest or the highest level.
fn saturates(grid: &Grid, [low, high]: [f32; 2]) -> bool {
    let Some((scale, zero)) = grid.single() else { return false };
    let level = |x: f32| (x / scale).round_ties_even() + zero as f32;
    level(low) <= 0.0 && level(high) >= 255.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_inferred, input, scalar, unary, weights};
    use planish_graph::Value;
    use planish_graph::ops::nn::conv::Conv;
    use planish_graph::ops::nn::quantized::quantize::QuantizeLinear;

    fn quantise(g: &mut Graph, x: ValueId, scale: f32, zero: u8) -> ValueId {
        let scale = scalar(g, "scale", scale);
        let zero = g.add_constant("zero", Tensor::scalar(zero));
        g.add_node("q", QuantizeLinear::default(), &[x, scale, zero])
    }

    #[test]
    fn a_relu_goes_where_zero_is_the_lowest_level() {
        for (zero, left) in [(0, None), (1, Some(("Relu", 1)))] {
            let (mut g, x) = input(&[1, 2, 5]);
            let relu = unary(&mut g, "relu", UnaryFunction::Relu, x);
            let q = quantise(&mut g, relu, 0.01, zero);
            g.outputs.push(q);
            let rest: Vec<_> = left.into_iter().chain([("QuantizeLinear", 1)]).collect();
            check_inferred(&QuantisedLimits, g, &rest);
        }
    }

    #[test]
    fn a_clip_goes_where_its_bounds_are_the_last_levels() {
        for (scale, gone) in [(0.0235, true), (0.03, false)] {
            let (mut g, x) = input(&[1, 2, 5]);
            let bounds = [scalar(&mut g, "low", 0.0), scalar(&mut g, "high", 6.0)];
            let y = g.add_value(Value { name: "clipped".into(), ..Value::default() });
            let inputs = vec![Some(x), Some(bounds[0]), Some(bounds[1])];
            g.nodes.push(Node { name: "clip".into(), op: Arc::new(Clip), inputs, outputs: vec![Some(y)] });
            let q = quantise(&mut g, y, scale, 0);
            g.outputs.push(q);
            let left = if gone { None } else { Some(("Clip", 1)) };
            let rest: Vec<_> = left.into_iter().chain([("QuantizeLinear", 1)]).collect();
            check_inferred(&QuantisedLimits, g, &rest);
        }
    }

    #[test]
    fn products_and_sums_go_to_levels_before_they_are_limited() {
        // Limits on levels within 127 steps, others, and a product of numbers.
        for (ends, levels, moved) in [
            ([-2f32, 1.5], true, true),
            ([0.0, 1.7], true, false),
            ([0.0, 100.0], true, false),
            ([-2.0, 1.5], false, false),
        ] {
            let (mut g, x) = input(&[3, 5]);
            let scale = scalar(&mut g, "own", 0.01);
            let zero = g.add_constant("own.zero", Tensor::scalar(200u8));
            let q = g.add_node("own.q", QuantizeLinear::default(), &[x, scale, zero]);
            let f = g.add_node("f", Grid::levels(1.0, 0).dequantize(), &[q, scale, zero]);
            let w = weights(&mut g, "w", &[5, 4]);
            let y = g.add_node("product", MatMul, &[if levels { f } else { x }, w]);
            let bounds = ends.map(|end| scalar(&mut g, &format!("{end}"), end));
            let y = g.add_node("clip", Clip, &[y, bounds[0], bounds[1]]);
            let q = quantise(&mut g, y, 0.5, 4);
            g.outputs = vec![q, f];
            let count = if moved { 2 } else { 1 };
            let rest =
                [("Clip", 1), ("DequantizeLinear", count), ("MatMul", 1), ("QuantizeLinear", count + 1)];
            check_inferred(&QuantisedLimits, g, &rest);
        }
    }

    #[test]
    fn fused_limits_go_as_well() {
        let (mut g, x) = input(&[1, 2, 5]);
        let w = weights(&mut g, "w", &[2, 2, 1]);
        let op = ConvAdd { conv: Conv::default(), activation: FusedActivation::Relu };
        let y = g.add_node("conv", op, &[x, w]);
        let q = quantise(&mut g, y, 0.02, 0);
        g.outputs.push(q);
        let g = check_inferred(&QuantisedLimits, g, &[("ConvAdd", 1), ("QuantizeLinear", 1)]);
        assert_eq!(g.nodes[0].op.as_op::<ConvAdd>().unwrap().activation, FusedActivation::None);
    }
}
