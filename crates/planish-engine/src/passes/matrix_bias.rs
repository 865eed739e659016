//! A matrix product and the constant row added to it become one `Gemm`.

use super::Pass;
use super::pattern::{inner, operands, per_channel};
use super::rewrite::Rewriter;
use planish_graph::ops::math::binary::BinaryFunction;
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::{Graph, NodeId, Result, Tensor, ValueId};
use std::sync::Arc;

/// Joins `MatMul` and the `Add` behind it.
pub struct MatrixBias;

impl Pass for MatrixBias {
    fn name(&self) -> &'static str {
        "matrix-bias"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some(found) = find(&rewriter, id) {
                let name = rewriter.node_name(found.product);
                let bias = rewriter.add_constant(&format!("{name}.bias"), found.bias);
                let op = Gemm::default();
                let inputs = vec![Some(found.rows), Some(found.weights), Some(bias)];
                rewriter.fuse(id, found.product, Arc::new(op), inputs);
            }
        }
        rewriter.finish()
    }
}

struct Found {
    product: NodeId,
    rows: ValueId,
    weights: ValueId,
    bias: Tensor,
}

/// The product and bias that the sum `id` adds, where both operands of the product are matrices.
fn find(rewriter: &Rewriter, id: NodeId) -> Option<Found> {
    let (a, b) = operands(rewriter, id, BinaryFunction::Add)?;
    [(a, b), (b, a)].into_iter().find_map(|(sum, bias)| {
        let (product, _) = inner::<MatMul>(rewriter, sum)?;
        let node = rewriter.node(product)?;
        let (rows, weights) = (node.input(0)?, node.input(1)?);
        if rewriter.rank(rows) != Some(2) {
            return None;
        }
        let constant = rewriter.constant(weights).filter(|w| w.rank() == 2 && w.dtype().is_float())?;
        let channels = constant.shape()[1];
        let bias = per_channel(rewriter.constant(bias)?, 2, 1, channels)?;
        let bias = Tensor::from_f64s(constant.dtype(), &[channels], &bias).ok()?;
        Some(Found { product, rows, weights, bias })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check_inferred, input, weights};

    fn product(rows: &[usize], bias: &[usize], outputs: usize) -> Graph {
        let (mut g, x) = input(rows);
        let w = weights(&mut g, "w", &[4, 3]);
        let product = g.add_node("product", MatMul, &[x, w]);
        let b = weights(&mut g, "b", bias);
        let y = binary(&mut g, "y", BinaryFunction::Add, b, product);
        g.outputs = [y, product][..outputs].to_vec();
        g
    }

    #[test]
    fn rows_take_their_bias_in() {
        for bias in [&[3][..], &[1, 3], &[]] {
            let g = check_inferred(&MatrixBias, product(&[2, 4], bias, 1), &[("Gemm", 1)]);
            assert_eq!(g.nodes[0].name, "product");
        }
    }

    #[test]
    fn others_stay() {
        for (rows, bias, outputs) in [
            (&[2, 4][..], &[2, 3][..], 1),
            (&[2, 4], &[1, 1, 3], 1),
            (&[5, 2, 4], &[3], 1),
            (&[2, 4], &[3], 2),
        ] {
            check_inferred(&MatrixBias, product(rows, bias, outputs), &[("MatMul", 1), ("Add", 1)]);
        }
    }
}
