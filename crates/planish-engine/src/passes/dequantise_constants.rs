//! Constants that are still dequantised when a plan is made become numbers, because kernels for numbers want their weights
//! constant.
//!
//! Only of a plan's own copy of the graph: in the graph itself the integers stay ([`super::fold_constants`] says why), so
//! that it is written as it was read. By then, whatever can compute with the integers has them.

use super::Pass;
use super::rewrite::Rewriter;
use planish_graph::ops::nn::quantized::quantize::DequantizeLinear;
use planish_graph::reference::eval_node;
use planish_graph::{Graph, Result, Tensor};

/// Evaluates DequantizeLinear of constants.
pub struct DequantiseConstants;

impl Pass for DequantiseConstants {
    fn name(&self) -> &'static str {
        "dequantise-constants"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            let Some((node, _)) = rewriter.node_of::<DequantizeLinear>(id) else { continue };
            let inputs: Option<Vec<Option<&Tensor>>> = node
                .inputs
                .iter()
                .map(|input| match input {
                    Some(v) => rewriter.constant(*v).map(Some),
                    None => Some(None),
                })
                .collect();
            let (Some(inputs), Some(output)) = (inputs, node.output()) else { continue };
            // A node that fails to evaluate is left for the run to report.
            if let Some(tensor) = eval_node(node, &inputs).ok().and_then(|mut made| made.pop()) {
                rewriter.make_constant(output, tensor);
            }
        }
        rewriter.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check, input, scalar, weights};
    use planish_graph::ops::math::binary::BinaryFunction::Add;
    use planish_graph::ops::nn::quantized::quantize::QuantizeLinear;

    #[test]
    fn weights_become_numbers_and_activations_stay() {
        let (mut g, x) = input(&[1, 3]);
        let (scale, q) = (scalar(&mut g, "scale", 0.5), weights(&mut g, "numbers", &[3]));
        let q = g.add_node("q", QuantizeLinear::default(), &[q, scale]);
        let levels = g.add_constant("w", Tensor::new(&[3], &[1i8, 2, 3]).unwrap());
        let w = g.add_node("w.f", DequantizeLinear::default(), &[levels, scale]);
        let made = g.add_node("q.f", DequantizeLinear::default(), &[q, scale]);
        let sum = binary(&mut g, "sum", Add, x, w);
        let y = binary(&mut g, "y", Add, sum, made);
        g.outputs.push(y);
        let rest = [("Add", 2), ("DequantizeLinear", 1), ("QuantizeLinear", 1)];
        check(&DequantiseConstants, g, &rest);
    }
}
