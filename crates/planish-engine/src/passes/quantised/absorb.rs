//! Operators with conversions around them become operators on levels, where there is a kernel that computes them so.
//!
//! That is: what reads dequantised levels and is read by nothing but a QuantizeLinear. Convolutions and matrix products need
//! constant integer weights besides, and biases that fit 32 bits in the unit of their sums. The choice of a sign goes from
//! numbers to levels as well, in one step.

use super::super::Pass;
use super::super::rewrite::Rewriter;
use super::grids::{dequantised, levels, quantised_behind};
use crate::plan::integer_sums::IntegerSums;
use planish_graph::ops::math::activation::Activation;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::math::unary::Unary;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::fused::ConvAdd;
use planish_graph::ops::nn::global_pool::{GlobalPool, GlobalPoolKind};
use planish_graph::ops::nn::pool::AveragePool;
use planish_graph::ops::nn::quantized::fused::{Grid, Quantised};
use planish_graph::ops::nn::quantized::qonnx::BipolarQuant;
use planish_graph::ops::nn::resize::Resize;
use planish_graph::{DType, Graph, Node, NodeId, OperatorExt, Result, ValueId};
use std::sync::Arc;

/// Puts operators and the conversions around them together.
pub struct AbsorbConversions;

impl Pass for AbsorbConversions {
    fn name(&self) -> &'static str {
        "absorb-conversions"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((last, op, inputs)) = absorbed(&rewriter, id) {
                rewriter.fuse(last, id, Arc::new(op), inputs);
            }
        }
        rewriter.finish()
    }
}

/// Puts convolutions and matrix products together with the conversions before them where nothing is quantised behind: most
/// often a network's last layer. Of a plan's own copy only, when no conversion can come near any more.
pub struct AbsorbLast;

impl Pass for AbsorbLast {
    fn name(&self) -> &'static str {
        "absorb-last"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            let Some(node) = rewriter.node(id) else { continue };
            let op = &*node.op;
            let convolves = op.is_op::<Conv>() || op.is_op::<ConvAdd>();
            if !convolves && !op.is_op::<Gemm>() && !op.is_op::<MatMul>() {
                continue;
            }
            let Some(inputs) = products(&rewriter, node, true) else { continue };
            let (values, inputs) = inputs.into_iter().unzip();
            let op = Quantised { op: node.op.clone(), inputs, output: None, inner: None };
            rewriter.set(id, Arc::new(op), values);
        }
        rewriter.finish()
    }
}

/// An input on levels: the value and its grid.
type Input = (Option<ValueId>, Option<Grid>);

/// The operator on levels that node `id` becomes: the conversion whose place it takes, the operator, its inputs.
fn absorbed(rewriter: &Rewriter, id: NodeId) -> Option<(NodeId, Quantised, Vec<Option<ValueId>>)> {
    let node = rewriter.node(id).filter(|node| node.outputs.len() == 1)?;
    let (last, output) = quantised_behind(rewriter, node.output()?)?;
    let inputs = inputs(rewriter, node).or_else(|| signs(rewriter, node, &output))?;
    // Between pixels of one grid lie levels of that grid.
    if node.op.is_op::<Resize>() && inputs[0].1.as_ref() != Some(&output) {
        return None;
    }
    let (values, inputs) = inputs.into_iter().unzip();
    Some((last, Quantised { op: node.op.clone(), inputs, output: Some(output), inner: None }, values))
}

/// The inputs of an operator that can be computed on levels.
fn inputs(rewriter: &Rewriter, node: &Node) -> Option<Vec<Input>> {
    let op = &*node.op;
    let convolves = op.is_op::<Conv>() || op.is_op::<ConvAdd>();
    if convolves || op.is_op::<Gemm>() || op.is_op::<MatMul>() {
        return products(rewriter, node, false);
    }
    let level = |index: usize| {
        let (integers, grid) = levels(rewriter, node.input(index)?)?;
        Some((Some(integers), Some(grid)))
    };
    if let Some(op) = op.as_op::<Binary>() {
        let known = matches!(op.function, BinaryFunction::Add | BinaryFunction::Mul);
        return if known {
            Some(vec![operand(rewriter, node, 0)?, operand(rewriter, node, 1)?])
        } else {
            None
        };
    }
    let average = op.as_op::<GlobalPool>().is_some_and(|op| op.kind == GlobalPoolKind::Average);
    if average || op.is_op::<AveragePool>() {
        return Some(vec![level(0)?]);
    }
    let function = op.is_op::<Unary>() || op.is_op::<Activation>() || op.is_op::<Clip>();
    if function || op.is_op::<Resize>() || op.is_op::<BipolarQuant>() {
        let mut inputs = vec![level(0)?];
        for input in node.inputs.iter().skip(1) {
            input.map_or(Some(()), |v| rewriter.constant(v).map(|_| ()))?;
            inputs.push((*input, None));
        }
        return Some(inputs);
    }
    None
}

/// An operand of a sum or product: levels, made at run time or constant.
fn operand(rewriter: &Rewriter, node: &Node, index: usize) -> Option<Input> {
    let (integers, grid) = dequantised(rewriter, node.input(index)?)?;
    let fits = grid.dtype == DType::U8 && grid.single().is_some();
    fits.then_some((Some(integers), Some(grid)))
}

/// The inputs of the choice of a sign, of numbers, that is quantised to the two levels around 1.
fn signs(rewriter: &Rewriter, node: &Node, output: &Grid) -> Option<Vec<Input>> {
    let scale =
        rewriter.constant_input(node, 1).filter(|t| node.op.is_op::<BipolarQuant>() && t.len() == 1)?;
    let (scale, x) = (scale.to_f32s()[0], node.input(0)?);
    let fits = output.single() == Some((scale, 1)) && rewriter.constant(x).is_none();
    fits.then(|| vec![(Some(x), None), (node.input(1), None)])
}

/// The inputs of a convolution or matrix product: levels, constant integer weights, bias, residual, which may be numbers
/// where the result is.
fn products(rewriter: &Rewriter, node: &Node, to_numbers: bool) -> Option<Vec<Input>> {
    let (x, grid) = levels(rewriter, node.input(0)?)?;
    let (w, weights) = dequantised(rewriter, node.input(1)?)?;
    let mut inputs = vec![(Some(x), Some(grid)), (Some(w), Some(weights))];
    if let Some(bias) = node.input(2) {
        inputs.push(match dequantised(rewriter, bias) {
            Some((integers, grid)) => (Some(integers), Some(grid)),
            None => (Some(bias), None),
        });
    }
    if let Some(residual) = node.input(3) {
        inputs.resize(3, (None, None));
        inputs.push(match levels(rewriter, residual) {
            _ if to_numbers => (Some(residual), None),
            Some((integers, grid)) => (Some(integers), Some(grid)),
            None => return None,
        });
    }
    let constant = |index: usize| match inputs.get(index) {
        Some((Some(v), _)) => rewriter.constant(*v).map(Some),
        _ => Some(None),
    };
    let (weights, bias) = (constant(1)??, constant(2)?);
    let grids = inputs.iter().map(|(_, grid)| grid.clone()).collect();
    // Sums mean the same whatever the output's grid is.
    let quantised = Quantised { op: node.op.clone(), inputs: grids, output: None, inner: None };
    IntegerSums::of(&quantised, weights, bias).map(|_| inputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_inferred, convert, input, unary};
    use planish_graph::Tensor;
    use planish_graph::ops::math::unary::UnaryFunction;
    use planish_graph::ops::nn::pool::PoolWindow;

    /// The levels of the input "x", as numbers again.
    fn start(g: &mut Graph, x: ValueId) -> ValueId {
        let grid = Grid::levels(0.02, 100);
        let q = convert(g, "xq", true, x, &grid);
        convert(g, "xf", false, q, &grid)
    }

    /// Quantises `y` and ends the graph there; after the pass, `rest` is left.
    fn finish(mut g: Graph, y: ValueId, rest: &[(&'static str, usize)]) -> Graph {
        let y = convert(&mut g, "y", true, y, &Grid::levels(0.05, 90));
        g.outputs.push(y);
        check_inferred(&AbsorbConversions, g, rest)
    }

    fn weights(g: &mut Graph, shape: &[usize], axis: i64) -> ValueId {
        let count: usize = shape.iter().product();
        let integers: Vec<i8> = (0..count).map(|i| (i * 37 % 255) as u8 as i8).collect();
        let w = g.add_constant("w", Tensor::new(shape, &integers).unwrap());
        let channels = shape[axis as usize];
        let scales = (0..channels).map(|c| 0.01 + c as f32 / 300.0).collect();
        convert(g, "wf", false, w, &Grid { dtype: DType::I8, axis, scales, zeros: vec![0; channels] })
    }

    const ABSORBED: [(&str, usize); 2] = [("QuantizeLinear", 1), ("Quantised", 1)];

    #[test]
    fn convolutions_and_products() {
        let (mut g, x) = input(&[1, 2, 5]);
        let (x, w) = (start(&mut g, x), weights(&mut g, &[4, 2, 3], 0));
        let b = g.add_constant("b", Tensor::new(&[4], &[0.1f32, -0.2, 0.3, 0.0]).unwrap());
        let y = g.add_node("conv", Conv::default(), &[x, w, b]);
        let g = finish(g, y, &ABSORBED);
        assert_eq!(g.nodes[1].name, "conv");
        let (mut g, x) = input(&[3, 5]);
        let (x, w) = (start(&mut g, x), weights(&mut g, &[5, 4], 1));
        let y = g.add_node("product", MatMul, &[x, w]);
        finish(g, y, &ABSORBED);
    }

    #[test]
    fn last_layers_give_numbers() {
        let (mut g, x) = input(&[3, 5]);
        let (x, w) = (start(&mut g, x), weights(&mut g, &[5, 4], 1));
        let y = g.add_node("product", MatMul, &[x, w]);
        g.outputs.push(y);
        check_inferred(&AbsorbLast, g, &ABSORBED);
    }

    #[test]
    fn last_convolutions_give_numbers() {
        use planish_graph::ops::nn::fused::FusedActivation;
        let (mut g, x) = input(&[1, 2, 5]);
        let (x, w) = (start(&mut g, x), weights(&mut g, &[4, 2, 3], 0));
        let op = ConvAdd { conv: Conv::default(), activation: FusedActivation::Relu };
        let y = g.add_node("conv", op, &[x, w]);
        g.outputs.push(y);
        check_inferred(&AbsorbLast, g, &ABSORBED);
    }

    #[test]
    fn sums_means_and_functions() {
        let (mut g, x) = input(&[1, 2, 4]);
        let x = start(&mut g, x);
        let y = g.add_node("sum", Binary { function: BinaryFunction::Add }, &[x, x]);
        finish(g, y, &ABSORBED);
        let (mut g, x) = input(&[1, 2, 4]);
        let x = start(&mut g, x);
        let window = PoolWindow { kernel_shape: vec![2], ..PoolWindow::default() };
        let y = g.add_node("mean", AveragePool { window, count_include_pad: false }, &[x]);
        finish(g, y, &ABSORBED);
        let (mut g, x) = input(&[1, 2, 4]);
        let x = start(&mut g, x);
        let y = unary(&mut g, "tanh", UnaryFunction::Tanh, x);
        finish(g, y, &ABSORBED);
    }

    #[test]
    fn what_has_scales_along_other_axes_stays() {
        let (mut g, x) = input(&[3, 4]);
        let (x, w) = (start(&mut g, x), weights(&mut g, &[4, 4], 0));
        let y = g.add_node("product", MatMul, &[x, w]);
        finish(g, y, &[("DequantizeLinear", 2), ("MatMul", 1), ("QuantizeLinear", 2)]);
    }
}
