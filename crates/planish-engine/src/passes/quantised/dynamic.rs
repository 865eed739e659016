//! Sums of integers become numbers in the kernel that makes them.
//!
//! Networks whose activations are quantised while they run are spelled as ConvInteger or MatMulInteger, a cast, a product of
//! both scales, a product with that, and an addition of the bias. What stands behind the sums becomes part of them, so that
//! they never leave their registers as integers. Of a plan's own copy only: the file's spelling is the one to write.

use super::super::Pass;
use super::super::pattern::{operands, per_channel};
use super::super::rewrite::Rewriter;
use planish_graph::ops::math::binary::BinaryFunction;
use planish_graph::ops::math::cast::Cast;
use planish_graph::ops::nn::quantized::conv_integer::ConvInteger;
use planish_graph::ops::nn::quantized::matmul_integer::MatMulInteger;
use planish_graph::ops::nn::quantized::scaled_sums::{SCALE, ScaledSums};
use planish_graph::{DType, Graph, NodeId, OperatorExt, Result, Tensor, ValueId};
use std::sync::Arc;

/// Puts integer sums and what scales them together.
pub struct AbsorbScales;

impl Pass for AbsorbScales {
    fn name(&self) -> &'static str {
        "absorb-scales"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            let Some(found) = find(&rewriter, id) else { continue };
            let Some(node) = rewriter.node(id) else { continue };
            let (sums, name, mut inputs) = (node.op.clone(), node.name.clone(), node.inputs.clone());
            inputs.resize(SCALE, None);
            inputs.push(Some(found.scale));
            let scales = Tensor::new(&[found.scales.len()], &found.scales)?;
            inputs.push(Some(rewriter.add_constant(&format!("{name}.scales"), scales)));
            if let Some(bias) = found.bias {
                let bias = Tensor::new(&[bias.len()], &bias)?;
                inputs.push(Some(rewriter.add_constant(&format!("{name}.bias"), bias)));
            }
            rewriter.fuse(found.last, id, Arc::new(ScaledSums { sums }), inputs);
        }
        rewriter.finish()
    }
}

struct Found {
    /// The node whose result is that of all.
    last: NodeId,
    /// The scale of the activations.
    scale: ValueId,
    /// Those of the weights, one for each channel.
    scales: Vec<f32>,
    bias: Option<Vec<f32>>,
}

/// What makes numbers of the sums of node `id`, whose activations are unsigned and whose weights are constant.
fn find(rewriter: &Rewriter, id: NodeId) -> Option<Found> {
    let node = rewriter.node(id)?;
    let convolves = node.op.is_op::<ConvInteger>();
    if !convolves && !node.op.is_op::<MatMulInteger>() {
        return None;
    }
    let weights = rewriter.constant(node.input(1)?)?;
    if let Some(zero) = node.input(3) {
        rewriter.constant(zero)?;
    }
    if rewriter.dtype(node.input(0)?) != Some(DType::U8) || (!convolves && weights.rank() != 2) {
        return None;
    }
    let sums = node.output()?;
    let rank = rewriter.rank(sums)?;
    let (axis, channels) = match convolves {
        true => (1, *weights.shape().first()?),
        false => (rank.checked_sub(1)?, weights.shape()[1]),
    };
    let each = |tensor: &Tensor| -> Option<Vec<f32>> {
        let numbers = per_channel(tensor, rank, axis, channels).filter(|_| tensor.dtype() == DType::F32)?;
        Some(numbers.into_iter().map(|x| x as f32).collect())
    };
    let cast = rewriter.sole_reader(sums)?;
    rewriter.node_of::<Cast>(cast)?;
    let numbers = rewriter.node(cast)?.output().filter(|v| rewriter.dtype(*v) == Some(DType::F32))?;
    let mut last = rewriter.sole_reader(numbers)?;
    let (a, b) = operands(rewriter, last, BinaryFunction::Mul)?;
    let product = rewriter.maker(if a == numbers { b } else { a })?;
    let (a, b) = operands(rewriter, product, BinaryFunction::Mul)?;
    let (scale, scales) = [(a, b), (b, a)].into_iter().find_map(|(scale, other)| {
        let shape = rewriter.shape(scale)?;
        let single = shape.iter().all(|&extent| extent == 1) && shape.len() <= rank;
        Some((scale, each(rewriter.constant(other)?)?)).filter(|_| single)
    })?;
    let made = rewriter.node(last)?.output()?;
    let bias = rewriter.sole_reader(made).and_then(|sum| {
        let (a, b) = operands(rewriter, sum, BinaryFunction::Add)?;
        let bias = each(rewriter.constant(if a == made { b } else { a })?)?;
        // Of one more axis than the sums, the result would be another tensor.
        (rewriter.rank(rewriter.node(sum)?.output()?)? == rank).then_some((sum, bias))
    });
    if let Some((sum, _)) = &bias {
        last = *sum;
    }
    Some(Found { last, scale, scales, bias: bias.map(|(_, bias)| bias) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check_inferred, input, numbers};
    use planish_graph::ops::math::cast::Cast;
    use planish_graph::ops::nn::conv::Conv;
    use planish_graph::ops::nn::quantized::quantize::DynamicQuantizeLinear;
    use planish_graph::{Node, Operator, Value};

    /// The levels of "x", their scale and their zero point.
    fn quantised(g: &mut Graph, x: ValueId) -> [ValueId; 3] {
        let made = ["q", "q.scale", "q.zero"]
            .map(|name| g.add_value(Value { name: name.into(), ..Value::default() }));
        g.nodes.push(Node {
            name: "q".into(),
            op: Arc::new(DynamicQuantizeLinear),
            inputs: vec![Some(x)],
            outputs: made.map(Some).to_vec(),
        });
        made
    }

    /// The chain behind `op` on weights of this shape, with a bias of this one.
    fn chain(op: impl Operator, x: &[usize], w: &[usize], scales: &[usize], bias: Option<&[usize]>) -> Graph {
        let (mut g, x) = input(x);
        let [q, scale, zero] = quantised(&mut g, x);
        let integers: Vec<i8> = (0..w.iter().product()).map(|i: usize| (i * 37 % 255) as u8 as i8).collect();
        let w = g.add_constant("w", Tensor::new(w, &integers).unwrap());
        let sums = g.add_node("sums", op, &[q, w, zero]);
        let cast = g.add_node("cast", Cast::new(DType::F32), &[sums]);
        let own = g.add_constant("scales", numbers(scales, 3));
        let both = binary(&mut g, "both", BinaryFunction::Mul, scale, own);
        let mut y = binary(&mut g, "y", BinaryFunction::Mul, cast, both);
        if let Some(bias) = bias {
            let bias = g.add_constant("bias", numbers(bias, 4));
            y = binary(&mut g, "sum", BinaryFunction::Add, y, bias);
        }
        g.outputs.push(y);
        g
    }

    const ABSORBED: [(&str, usize); 2] = [("DynamicQuantizeLinear", 1), ("ScaledSums", 1)];

    #[test]
    fn convolutions_and_products_with_their_scales() {
        let padded = Conv { pads: vec![1, 1, 0, 0], ..Conv::default() };
        let conv = || ConvInteger { conv: padded.clone() };
        for (scales, bias) in
            [(&[1][..], None), (&[], Some(&[1, 3, 1, 1][..])), (&[3, 1, 1], Some(&[3, 1, 1]))]
        {
            let g = chain(conv(), &[1, 2, 4, 5], &[3, 2, 2, 2], scales, bias);
            // The product of both scales is read by nobody any more.
            check_inferred(&AbsorbScales, g, &ABSORBED);
        }
        let g = chain(MatMulInteger, &[4, 6], &[6, 3], &[3], Some(&[3]));
        check_inferred(&AbsorbScales, g, &ABSORBED);
    }

    #[test]
    fn what_varies_along_other_axes_stays() {
        let rest = [("DynamicQuantizeLinear", 1), ("ConvInteger", 1), ("Cast", 1), ("Mul", 2)];
        let g = chain(ConvInteger::default(), &[1, 2, 4, 5], &[3, 2, 1, 1], &[5], None);
        check_inferred(&AbsorbScales, g, &rest);
    }
}
