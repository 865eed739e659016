//! From numbers to levels and back, where a quantised network leaves its integers: at its ends, and around operators that
//! compute in `f32`.

use super::{Facts, Family, Layout, Lowering, Wish};
use crate::passes::conversion_reason;
use planish_cpu::integer::{Grid, Grids, dequantize, quantize};
use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, Granularity, QuantizeLinear};
use planish_graph::tensor::index;
use planish_graph::{DType, Error, Node, OperatorExt, Result};

/// QuantizeLinear to `u8` and DequantizeLinear from it, with constant scales.
pub(super) struct Conversions;

/// The grids of a node, and the axis along which they vary where there is more than one.
fn grids(node: &Node, facts: &Facts<'_>, shape: &[usize]) -> Option<(Vec<Grid>, Option<usize>)> {
    let granularity: Granularity = match node.op.as_op::<QuantizeLinear>() {
        Some(op) if op.precision.is_none_or(|p| p == DType::F32) => op.granularity,
        Some(_) => return None,
        None => node.op.as_op::<DequantizeLinear>()?.granularity,
    };
    let scales = facts.constant(node, 1).filter(|t| t.dtype() == DType::F32)?.to_f32s();
    let zeros = match node.input(2) {
        None => vec![0.0; scales.len()],
        Some(_) => facts.constant(node, 2)?.to_f32s(),
    };
    let grids: Vec<Grid> = scales.into_iter().zip(zeros).map(|(scale, zero)| Grid { scale, zero }).collect();
    if grids.len() == 1 && granularity.block_size == 0 {
        return Some((grids, None));
    }
    let axis = index::axis(granularity.axis, shape.len()).ok()?;
    (granularity.block_size == 0 && grids.len() == shape[axis]).then_some((grids, Some(axis)))
}

/// The shape of numbers and levels, where there is a kernel between them.
fn shape<'a>(node: &Node, facts: &Facts<'a>) -> Option<&'a [usize]> {
    let (x, y) = (node.input(0)?, node.output()?);
    match node.op.is_op::<QuantizeLinear>() {
        true => facts.shape(x).filter(|_| facts.levels(y).is_some()),
        false => facts.levels(x).filter(|_| facts.shape(y).is_some()),
    }
}

impl Family for Conversions {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        if !node.op.is_op::<QuantizeLinear>() && !node.op.is_op::<DequantizeLinear>() {
            return None;
        }
        let shape = shape(node, facts)?;
        match grids(node, facts, shape)?.1 {
            None => Some(Wish::Follow),
            Some(1) if shape.len() >= 3 => Some(Wish::ChannelsLast),
            Some(axis) => (axis + 1 == shape.len()).then_some(Wish::Plain),
        }
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let lost = || Error::invalid("a conversion lost its input, output or scale");
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let facts = l.facts();
        let shape = shape(node, &facts).ok_or_else(lost)?;
        let (grids, axis) = grids(node, &facts, shape).ok_or_else(lost)?;
        let layout: Layout = l.layout(y);
        let operand = l.operand(x, layout)?;
        let target = l.output(y)?;
        let to_levels = node.op.is_op::<QuantizeLinear>();
        let reason = conversion_reason(l.graph, node).unwrap_or_default();
        let info = l.info(node, "quantise and dequantise", &reason);
        let from = operand.clone();
        l.push(info, &[&operand], &[&target], move |env| {
            let chosen = if axis.is_some() { Grids::Each(&grids) } else { Grids::One(grids[0]) };
            match to_levels {
                true => quantize(env.isa, env.pool, chosen, env.rows(&from)?, env.rows_mut(&target)),
                false => dequantize(env.isa, env.pool, chosen, env.rows(&from)?, env.rows_mut(&target)),
            }
            Ok(())
        });
        Ok(())
    }
}
