//! The conversions around an operator, and what they say of its integers.

use super::super::rewrite::Rewriter;
use planish_graph::ops::nn::quantized::fused::Grid;
use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, Granularity, QuantizeLinear};
use planish_graph::{DType, Node, NodeId, Result, ValueId};
use std::sync::Arc;

/// The integers that a DequantizeLinear makes `value` of, and what they mean.
pub(in super::super) fn dequantised(rewriter: &Rewriter, value: ValueId) -> Option<(ValueId, Grid)> {
    let (_, node, op) = rewriter.maker_of::<DequantizeLinear>(value)?;
    let dtype = match node.input(2) {
        Some(zero) => rewriter.constant(zero)?.dtype(),
        None => rewriter.dtype(node.input(0)?)?,
    };
    if op.output_dtype.is_some_and(|d| d != DType::F32) {
        return None;
    }
    Some((node.input(0)?, grid(rewriter, node, op.granularity, dtype)?))
}

/// [`dequantised`] where the integers are levels that are made at run time: unsigned, with one scale.
pub(in super::super) fn levels(rewriter: &Rewriter, value: ValueId) -> Option<(ValueId, Grid)> {
    let (integers, grid) = dequantised(rewriter, value)?;
    let fits = is_levels(&grid) && rewriter.constant(integers).is_none();
    fits.then_some((integers, grid))
}

/// The QuantizeLinear that makes levels of `value` and is its only reader, and what they mean.
pub(in super::super) fn quantised_behind(rewriter: &Rewriter, value: ValueId) -> Option<(NodeId, Grid)> {
    let id = rewriter.sole_reader(value)?;
    Some((id, quantisation(rewriter, id)?))
}

/// What the levels mean that node `id` makes, where it is a QuantizeLinear to unsigned levels with one scale.
pub(in super::super) fn quantisation(rewriter: &Rewriter, id: NodeId) -> Option<Grid> {
    let (node, op) = rewriter.node_of::<QuantizeLinear>(id)?;
    let zero = match node.input(2) {
        Some(zero) => Some(rewriter.constant(zero)?.dtype()),
        None => None,
    };
    if op.precision.is_some_and(|p| p != DType::F32) || rewriter.dtype(node.input(0)?) != Some(DType::F32) {
        return None;
    }
    let dtype = op.target(zero).ok()?;
    grid(rewriter, node, op.granularity, dtype).filter(is_levels)
}

/// Whether these are unsigned levels with one scale.
fn is_levels(grid: &Grid) -> bool {
    grid.dtype == DType::U8 && grid.single().is_some()
}

/// What the constants of a conversion say.
fn grid(rewriter: &Rewriter, node: &Node, granularity: Granularity, dtype: DType) -> Option<Grid> {
    let scale = rewriter.constant_input(node, 1).filter(|t| t.dtype() == DType::F32 && t.rank() <= 1)?;
    let scales = scale.to_f32s();
    let zeros: Vec<i32> = match node.input(2) {
        None => vec![0; scales.len()],
        Some(_) => {
            let zeros = rewriter.ints_input(node, 2)?;
            zeros.into_iter().map(|z| i32::try_from(z).ok()).collect::<Option<_>>()?
        }
    };
    // Others are the conversion's to refuse.
    let usable = scales.iter().all(|s| s.is_finite() && *s > 0.0);
    (usable && granularity.block_size == 0 && scales.len() == zeros.len()).then_some(Grid {
        dtype,
        // One scale is the same along every axis.
        axis: if scales.len() == 1 { 1 } else { granularity.axis },
        scales,
        zeros,
    })
}

/// The scale and the zero point that a conversion of this grid reads behind its first input.
pub(super) fn constants(rewriter: &mut Rewriter, name: &str, grid: &Grid) -> Result<[Option<ValueId>; 2]> {
    let [scale, zero] = grid.tensors()?;
    let scale = rewriter.add_constant(&format!("{name}.scale"), scale);
    let zero = rewriter.add_constant(&format!("{name}.zero"), zero);
    Ok([Some(scale), Some(zero)])
}

/// Numbers as they are behind levels of this grid.
pub(super) fn through(rewriter: &mut Rewriter, id: NodeId, x: ValueId, grid: &Grid) -> Result<ValueId> {
    let name = rewriter.node_name(id);
    let [scale, zero] = constants(rewriter, &name, grid)?;
    let (to, from) = (format!("{name}/QuantizeLinear"), format!("{name}/DequantizeLinear"));
    let quantise = Arc::new(grid.quantize());
    let levels = rewriter.insert_like(id, &to, quantise, vec![Some(x), scale, zero], x, DType::U8);
    let back = Arc::new(grid.dequantize());
    Ok(rewriter.insert_like(id, &from, back, vec![Some(levels), scale, zero], x, DType::F32))
}
