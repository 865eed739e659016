//! Activations that only limit go where the quantisation behind them limits as well.
//!
//! A network that was quantised with ReLU or ReLU6 keeps them before QuantizeLinear, whose lowest level then is 0 (and the
//! highest 6): what they cut off, it cuts off itself. Without them a convolution's sums go straight to levels, and a
//! residual addition is an addition.

use super::super::Pass;
use super::super::rewrite::Rewriter;
use super::grids::quantisation;
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::nn::fused::{ConvAdd, FusedActivation};
use planish_graph::ops::nn::quantized::fused::Grid;
use planish_graph::{Graph, Node, OperatorExt, Result};
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

/// What a node limits its first input to, where it does nothing else.
pub(in super::super) fn limits(rewriter: &Rewriter, node: &Node) -> Option<[f32; 2]> {
    if node.op.as_op::<Unary>().is_some_and(|op| op.function == UnaryFunction::Relu) {
        return Some([0.0, f32::INFINITY]);
    }
    node.op.as_op::<Clip>()?;
    let bound = |index, open| match node.input(index) {
        None => Some(open),
        Some(value) => rewriter.constant(value).filter(|t| t.len() == 1).map(|t| t.to_f32s()[0]),
    };
    Some([bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?])
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
    use planish_graph::ops::nn::conv::Conv;
    use planish_graph::ops::nn::quantized::quantize::QuantizeLinear;
    use planish_graph::{Tensor, Value, ValueId};

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
