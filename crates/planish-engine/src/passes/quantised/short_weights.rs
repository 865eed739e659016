//! Matrix products keep their weights as short as the file has them, where there is a kernel that reads them so.
//!
//! Weights of four bits with a scale for each block of the depth are how large dense layers are made small; as numbers they
//! would be eight times as large again, and such layers take as long as reading their weights. Of a plan's own copy only:
//! in the graph itself the conversion stays what it is.

use super::super::Pass;
use super::super::rewrite::Rewriter;
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::nn::quantized::quantize::DequantizeLinear;
use planish_graph::ops::nn::quantized::short_weights::ShortWeights;
use planish_graph::{DType, Graph, NodeId, OperatorExt, Result, ValueId};
use std::sync::Arc;

/// Puts matrix products and the conversion of their weights together.
pub struct AbsorbShortWeights;

impl Pass for AbsorbShortWeights {
    fn name(&self) -> &'static str {
        "absorb-short-weights"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((op, inputs)) = find(&rewriter, id) {
                rewriter.set(id, Arc::new(op), inputs);
            }
        }
        rewriter.finish()
    }
}

/// The operator that product `id` becomes, and its inputs.
fn find(rewriter: &Rewriter, id: NodeId) -> Option<(ShortWeights, Vec<Option<ValueId>>)> {
    let node = rewriter.node(id)?;
    // The axis of the weights along which products are added up.
    let depth = match node.op.as_op::<Gemm>() {
        Some(gemm) if !gemm.trans_a && gemm.alpha == 1.0 => i64::from(gemm.trans_b),
        Some(_) => return None,
        None => node.op.is_op::<MatMul>().then_some(0)?,
    };
    let (x, w) = (node.input(0)?, node.input(1)?);
    let (_, conversion, op) = rewriter.maker_of::<DequantizeLinear>(w)?;
    let integers = rewriter.constant(conversion.input(0)?)?;
    let short = matches!(integers.dtype(), DType::I4 | DType::U4) && integers.rank() == 2;
    let scales = rewriter.constant(conversion.input(1)?)?;
    if let Some(zero) = conversion.input(2) {
        rewriter.constant(zero)?;
    }
    // Blocks are cut along the depth, whole scales apply to whole columns.
    let axis = if op.granularity.axis < 0 { op.granularity.axis + 2 } else { op.granularity.axis };
    let block = op.granularity.block_size;
    let fits = match block {
        0 => scales.len() == 1 || axis == 1 - depth,
        _ => axis == depth && block.is_multiple_of(8),
    };
    let floats = scales.dtype() == DType::F32 && op.output_dtype.is_none_or(|d| d == DType::F32);
    if !short || !fits || !floats || rewriter.dtype(x) != Some(DType::F32) {
        return None;
    }
    let mut inputs = vec![Some(x), conversion.input(0), conversion.input(1), conversion.input(2)];
    inputs.extend(node.inputs.get(2).copied());
    if inputs.len() == 4 && inputs[3].is_none() {
        inputs.pop();
    }
    Some((ShortWeights { product: node.op.clone(), dequantize: *op }, inputs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_inferred, input, numbers};
    use planish_graph::Tensor;
    use planish_graph::ops::nn::quantized::quantize::Granularity;

    /// A product with weights of `dtype` in blocks along `axis`.
    fn product(gemm: Option<bool>, dtype: DType, axis: i64, block_size: usize) -> Graph {
        let (mut g, x) = input(&[2, 16]);
        let shape = if gemm == Some(true) { [3, 16] } else { [16, 3] };
        let levels: Vec<i128> = (0..48).map(|i| i % 7).collect();
        let w = g.add_constant("w", Tensor::from_ints(dtype, &shape, &levels).unwrap());
        let mut blocks = shape.to_vec();
        blocks[axis as usize] = shape[axis as usize].div_ceil(block_size);
        let scales: Vec<f32> = numbers(&blocks, 1).to_f32s().iter().map(|x| x.abs() + 0.1).collect();
        let scales = g.add_constant("scales", Tensor::new(&blocks, &scales).unwrap());
        let granularity = Granularity { axis, block_size };
        let w = g.add_node("wf", DequantizeLinear { granularity, output_dtype: None }, &[w, scales]);
        let y = match gemm {
            Some(trans_b) => {
                let b = g.add_constant("b", numbers(&[3], 2));
                let op = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b };
                g.add_node("y", op, &[x, w, b])
            }
            None => g.add_node("y", MatMul, &[x, w]),
        };
        g.outputs.push(y);
        g
    }

    #[test]
    fn blocks_along_the_depth_stay_short() {
        for (gemm, axis) in [(Some(true), 1), (Some(false), 0), (None, 0)] {
            for dtype in [DType::I4, DType::U4] {
                check_inferred(&AbsorbShortWeights, product(gemm, dtype, axis, 8), &[("ShortWeights", 1)]);
            }
        }
    }

    #[test]
    fn others_become_numbers() {
        let rest = [("DequantizeLinear", 1), ("Gemm", 1)];
        for (dtype, axis, block) in [(DType::I8, 1, 8), (DType::I4, 0, 8), (DType::I4, 1, 4)] {
            check_inferred(&AbsorbShortWeights, product(Some(true), dtype, axis, block), &rest);
        }
    }
}
