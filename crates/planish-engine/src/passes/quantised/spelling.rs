//! QLinearConv and QLinearMatMul become what they mean: a convolution or product of dequantised operands, quantised again.
//!
//! Both spellings are in use, and a network may mix them. In this one, the other passes see convolutions.

use super::super::Pass;
use super::super::rewrite::Rewriter;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::quantized::conv_integer::QLinearConv;
use planish_graph::ops::nn::quantized::matmul_integer::QLinearMatMul;
use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, Granularity, QuantizeLinear};
use planish_graph::{DType, Graph, Node, NodeId, Operator, OperatorExt, Result, Tensor, ValueId};
use std::sync::Arc;

/// Spells quantised convolutions and products out.
pub struct QuantisedSpelling;

impl Pass for QuantisedSpelling {
    fn name(&self) -> &'static str {
        "quantised-spelling"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            let Some(node) = rewriter.node(id).cloned() else { continue };
            if let Some(conv) = node.op.as_op::<QLinearConv>() {
                let op: Arc<dyn Operator> = Arc::new(conv.conv.clone());
                spell(&mut rewriter, id, &node, op, 0)?;
            } else if node.op.is_op::<QLinearMatMul>() {
                spell(&mut rewriter, id, &node, Arc::new(MatMul), 1)?;
            }
        }
        rewriter.finish()
    }
}

/// Replaces a node by conversions around `op`; scales of the second operand are along `axis`. Nothing happens where scales
/// or weights are made at run time, or rows have scales of their own.
fn spell(
    rewriter: &mut Rewriter,
    id: NodeId,
    node: &Node,
    op: Arc<dyn Operator>,
    axis: i64,
) -> Result<Option<()>> {
    let floats = |index: usize| {
        let tensor = rewriter.constant_input(node, index)?;
        (tensor.dtype() == DType::F32 && tensor.rank() <= 1).then(|| tensor.to_f32s())
    };
    let (Some(x), Some(w), Some(y)) = (floats(1), floats(4), floats(6)) else { return Ok(None) };
    let constant = [2, 3, 5, 7].iter().all(|&i| rewriter.constant_input(node, i).is_some());
    if !constant || x.len() != 1 || y.len() != 1 {
        return Ok(None);
    }
    let granularity = Granularity { axis, block_size: 0 };
    let back: Arc<dyn Operator> = Arc::new(DequantizeLinear { granularity, output_dtype: None });
    let mut inputs = Vec::new();
    for first in [0, 3] {
        let from = node.inputs[first..first + 3].to_vec();
        inputs.push(insert(rewriter, id, node, &back, from));
    }
    if let Some(bias) = node.input(8) {
        let scales: Vec<f32> = w.iter().map(|w| x[0] * w).collect();
        let shape: &[usize] = if scales.len() == 1 { &[] } else { &[scales.len()] };
        let scale = rewriter.add_constant(&format!("{}.bias.scale", node.name), Tensor::new(shape, &scales)?);
        let granularity = Granularity { axis: 0, block_size: 0 };
        let back: Arc<dyn Operator> = Arc::new(DequantizeLinear { granularity, output_dtype: None });
        inputs.push(insert(rewriter, id, node, &back, vec![Some(bias), Some(scale)]));
    }
    let made = insert(rewriter, id, node, &op, inputs);
    let target = vec![made, node.input(6), node.input(7)];
    rewriter.set(id, Arc::new(QuantizeLinear::default()), target);
    Ok(Some(()))
}

/// Adds a node before `anchor`, named after it; its output is of numbers.
fn insert(
    rewriter: &mut Rewriter,
    anchor: NodeId,
    like: &Node,
    op: &Arc<dyn Operator>,
    inputs: Vec<Option<ValueId>>,
) -> Option<ValueId> {
    let name = format!("{}/{}", like.name, op.name());
    let convolves = op.is_op::<Conv>() || op.is_op::<MatMul>();
    let shape = like.output().filter(|_| convolves).and_then(|v| rewriter.dims(v).map(<[_]>::to_vec));
    let output = rewriter.add_value(&name, Some(DType::F32), shape);
    rewriter.insert(anchor, Node { name, op: op.clone(), inputs, outputs: vec![Some(output)] });
    Some(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::check;

    #[test]
    fn convolutions_are_spelled_out() {
        let mut g = Graph::new("test");
        let dims = [1, 1, 4].map(planish_graph::Dim::Fixed);
        let x = g.add_input("x", DType::I8, &dims);
        let constants = [
            Tensor::scalar(0.5f32),
            Tensor::scalar(-3i8),
            Tensor::new(&[2, 1, 1], &[3i8, -4]).unwrap(),
            Tensor::new(&[2], &[1f32, 0.5]).unwrap(),
            Tensor::new(&[2], &[0i8, 1]).unwrap(),
            Tensor::scalar(0.7f32),
            Tensor::scalar(3i8),
            Tensor::new(&[2], &[4i32, 0]).unwrap(),
        ];
        let mut inputs = vec![x];
        for (i, tensor) in constants.into_iter().enumerate() {
            inputs.push(g.add_constant(&format!("c{i}"), tensor));
        }
        let y = g.add_node("y", QLinearConv::default(), &inputs);
        g.outputs.push(y);
        let rest = [("Conv", 1), ("DequantizeLinear", 3), ("QuantizeLinear", 1)];
        let g = check(&QuantisedSpelling, g, &rest);
        assert_eq!(g.value(g.outputs[0]).name, "y");
    }
}
