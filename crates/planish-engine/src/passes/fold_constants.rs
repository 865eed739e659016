//! Constant folding: what depends on constants alone is computed now, by the operators' reference evaluation.
//!
//! Three rules keep it from doing harm. A fold that makes the model larger by much is left (an `Expand` of a scalar to a
//! whole feature map). A fold whose evaluation would take long is left, and so is all behind it. And **nothing that comes
//! from dequantised constants is folded**: `DequantizeLinear` of integer weights is how a quantised network says so, and
//! folding it would turn it back into a float network. Nor are QONNX's quantisers of constants, which say the same in another
//! way: [`super::quantised::constants`] makes integers of them.

use super::Pass;
use super::rewrite::{Rewriter, has_nested_graph};
use planish_graph::ops::nn::quantized::qonnx::{BipolarQuant, Quant};
use planish_graph::ops::nn::quantized::quantize::DequantizeLinear;
use planish_graph::reference::eval_node;
use planish_graph::{Fact, Graph, Node, Operator, OperatorExt, Result, Tensor};

/// Evaluates what depends on constants alone.
pub struct FoldConstants;

/// A result of more bytes than this is kept only when it is no larger than what it is made from.
const LARGE_BYTES: usize = 16 << 20;

/// Multiply-accumulates that one fold may take.
const MOST_MACS: u64 = 1 << 30;

/// Bytes that one run of the pass may make.
const MOST_BYTES: usize = 1 << 30;

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold-constants"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        let mut made = 0usize;
        for id in rewriter.node_ids() {
            let Some(node) = rewriter.node(id) else { continue };
            let Some((tensors, bytes)) = fold(rewriter.graph(), node) else { continue };
            made = made.saturating_add(bytes);
            if made > MOST_BYTES {
                break;
            }
            for (output, tensor) in node.outputs.clone().into_iter().zip(tensors) {
                if let Some(output) = output {
                    rewriter.make_constant(output, tensor);
                }
            }
        }
        rewriter.finish()
    }
}

/// The results of `node`, where they are constant and worth keeping, and their bytes. A node that fails to evaluate is
/// left for the run to report.
fn fold(graph: &Graph, node: &Node) -> Option<(Vec<Tensor>, usize)> {
    let inputs: Vec<Option<&Tensor>> = node
        .inputs
        .iter()
        .map(|input| input.map(|id| graph.constant(id)))
        .map(|input| if let Some(None) = input { None } else { Some(input.flatten()) })
        .collect::<Option<_>>()?;
    if !may_fold(&*node.op) {
        return None;
    }
    let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Fact::constant)).collect();
    let found = node.op.infer(&facts, node.outputs.len()).ok()?;
    let made = found.iter().try_fold(0usize, |sum, fact| sum.checked_add(fact.bytes()?))?;
    let given: usize = inputs.iter().flatten().map(|t| t.bytes().len()).sum();
    if (made > LARGE_BYTES && made > given) || node.op.macs(&facts, &found) > MOST_MACS {
        return None;
    }
    Some((eval_node(node, &inputs).ok()?, made))
}

/// Whether results of `op` may become constants at all. See the module.
pub(super) fn may_fold(op: &dyn Operator) -> bool {
    let says_levels = op.is_op::<DequantizeLinear>() || op.is_op::<Quant>() || op.is_op::<BipolarQuant>();
    op.is_pure() && !says_levels && !has_nested_graph(op)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check, input, list, scalar, unary, weights};
    use planish_graph::ops::math::binary::BinaryFunction::{Add, Mul};
    use planish_graph::ops::math::unary::UnaryFunction::Relu;
    use planish_graph::ops::movement::expand::Expand;
    use planish_graph::ops::nn::quantized::quantize::Granularity;

    #[test]
    fn constants_are_computed() {
        let (mut g, x) = input(&[2, 3]);
        let w = weights(&mut g, "w", &[3]);
        let two = scalar(&mut g, "two", 2.0);
        let doubled = binary(&mut g, "doubled", Mul, w, two);
        let positive = unary(&mut g, "positive", Relu, doubled);
        let y = binary(&mut g, "y", Add, x, positive);
        g.outputs = vec![y, positive];
        check(&FoldConstants, g, &[("Add", 1)]);
    }

    #[test]
    fn large_results_stay_computed() {
        let (mut g, x) = input(&[1]);
        let one = scalar(&mut g, "one", 1.0);
        let shape = list(&mut g, "shape", &[5 << 20]);
        let wide = g.add_node("wide", Expand, &[one, shape]);
        g.outputs = vec![wide, x];
        assert_eq!(FoldConstants.run(&mut g).unwrap(), 0);
    }

    #[test]
    fn dequantised_weights_stay_integers() {
        let (mut g, x) = input(&[1, 3]);
        let w = g.add_constant("w", Tensor::new(&[3], &[1i8, 2, 3]).unwrap());
        let scale = scalar(&mut g, "scale", 0.5);
        let op = DequantizeLinear { granularity: Granularity::default(), output_dtype: None };
        let float = g.add_node("float", op, &[w, scale]);
        let bounded = unary(&mut g, "bounded", Relu, float);
        let y = binary(&mut g, "y", Add, x, bounded);
        g.outputs.push(y);
        check(&FoldConstants, g.clone(), &[("DequantizeLinear", 1), ("Relu", 1), ("Add", 1)]);
        check(
            &crate::passes::known_contents::KnownContents,
            g,
            &[("DequantizeLinear", 1), ("Relu", 1), ("Add", 1)],
        );
    }
}
