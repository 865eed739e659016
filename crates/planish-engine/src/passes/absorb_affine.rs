//! Batch normalisations and constant factors and offsets for each channel go into the weights before them.
//!
//! At inference a batch normalisation is `y = a·x + b` for each channel, and so are additions, subtractions,
//! multiplications and divisions by constants of one number a channel. Behind a convolution, transposed convolution or
//! matrix product with constant weights, that is other weights and another bias, for nothing. Of weights that are integers
//! with a scale for each channel it is other scales, and where the factor is negative the integers change their signs: few
//! bits stay few. Not folded: anything *before* a convolution (its padding would have to change too), statistics of training
//! mode, and weights whose result somebody else reads as well.

use super::Pass;
use super::layer_weights::{Given, Layer, Weights, bias_numbers};
use super::pattern::per_channel;
use super::quantised::constants::operands;
use super::rewrite::Rewriter;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::nn::batch_normalization::BatchNormalization;
use planish_graph::{DType, Graph, Node, NodeId, Operator, OperatorExt, Result, Tensor, ValueId};
use std::sync::Arc;

/// Folds maps of each channel into the weights before them.
pub struct AbsorbAffine;

impl Pass for AbsorbAffine {
    fn name(&self) -> &'static str {
        "absorb-affine"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some(found) = absorb(&rewriter, id) {
                let name = rewriter.node_name(found.layer);
                let weights = match found.weights {
                    Weights::Numbers(weights) => rewriter.add_constant(&format!("{name}.weight"), weights),
                    Weights::Integers(integers, grid, numbers) => {
                        let wish = format!("{name}.weight");
                        let parts = operands(&mut rewriter, &wish, integers, &grid)?;
                        let op = Arc::new(grid.dequantize());
                        rewriter.insert_like(id, &wish, op, parts, numbers, DType::F32)
                    }
                };
                let bias = rewriter.add_constant(&format!("{name}.bias"), found.bias);
                let inputs = vec![Some(found.input), Some(weights), Some(bias)];
                rewriter.fuse(id, found.layer, found.op, inputs);
            }
        }
        rewriter.finish()
    }
}

/// A layer with the map behind it put into its weights.
struct Absorbed {
    layer: NodeId,
    op: Arc<dyn Operator>,
    input: ValueId,
    weights: Weights,
    bias: Tensor,
}

/// `y = factor · x + offset` for each channel.
pub(crate) type Affine = Vec<(f64, f64)>;

fn absorb(rewriter: &Rewriter, id: NodeId) -> Option<Absorbed> {
    let node = rewriter.node(id)?;
    if !node.op.is_op::<BatchNormalization>() && !node.op.is_op::<Binary>() {
        return None;
    }
    node.inputs.iter().flatten().find_map(|&value| {
        let layer = rewriter.maker(value).filter(|_| rewriter.use_count(value) == 1)?;
        let layer_node = rewriter.node(layer)?;
        let weights = Given::of(rewriter, layer_node)?;
        let tensor = weights.tensor;
        let target = Layer::of(&*layer_node.op, tensor)?;
        let broadcast = |t: &Tensor| per_channel(t, tensor.rank(), 1, target.channels);
        let affine = channel_map(node, value, target.channels, true, |v| rewriter.constant(v), broadcast)?;
        if !affine.iter().all(|(factor, offset)| factor.is_finite() && offset.is_finite()) {
            return None;
        }
        let before = bias_numbers(rewriter, layer_node, tensor.rank().min(2), target.channels)?;
        let bias: Vec<f64> =
            before.iter().zip(&affine).map(|(b, (f, o))| target.bias_factor * b * f + o).collect();
        let dtype = if weights.meaning.is_some() { DType::F32 } else { tensor.dtype() };
        Some(Absorbed {
            layer,
            op: match layer_node.op.as_op::<Gemm>() {
                Some(gemm) => Arc::new(Gemm { beta: 1.0, ..*gemm }),
                None if layer_node.op.is_op::<MatMul>() => Arc::new(Gemm::default()),
                None => layer_node.op.clone(),
            },
            input: layer_node.input(0)?,
            weights: weights.times(&affine, &target)?,
            bias: Tensor::from_f64s(dtype, &[target.channels], &bias).ok()?,
        })
    })
}

/// The map that `node` applies to each of the channels of `value`, which only normalisations know as such: whether they
/// are those of axis 1 is `second_axis`. `constant` finds constants, and `broadcast` makes of one a number for each
/// channel.
pub(crate) fn channel_map<'t>(
    node: &Node,
    value: ValueId,
    channels: usize,
    second_axis: bool,
    constant: impl Fn(ValueId) -> Option<&'t Tensor>,
    broadcast: impl Fn(&Tensor) -> Option<Vec<f64>>,
) -> Option<Affine> {
    if let Some(norm) = node.op.as_op::<BatchNormalization>() {
        let single = node.outputs.iter().flatten().count() == 1;
        if norm.training_mode || !single || !second_axis || node.input(0) != Some(value) {
            return None;
        }
        let numbers = |index| {
            let values = constant(node.input(index)?)?.to_f64s();
            (values.len() == channels).then_some(values)
        };
        return Some(norm.affine(&numbers(1)?, &numbers(2)?, &numbers(3)?, &numbers(4)?));
    }
    let op = node.op.as_op::<Binary>()?;
    let (a, b) = (node.input(0)?, node.input(1)?);
    let first = a == value;
    let constant = broadcast(constant(if first { b } else { a })?)?;
    let map: fn(f64) -> (f64, f64) = match (op.function, first) {
        (BinaryFunction::Add, _) => |c| (1.0, c),
        (BinaryFunction::Sub, true) => |c| (1.0, -c),
        (BinaryFunction::Sub, false) => |c| (-1.0, c),
        (BinaryFunction::Mul, _) => |c| (c, 0.0),
        (BinaryFunction::Div, true) => |c| (1.0 / c, 0.0),
        _ => return None,
    };
    Some(constant.into_iter().map(map).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check, check_inferred, input, scalar, unary, weights};
    use BinaryFunction::{Add, Div, Mul, Sub};
    use planish_graph::Graph;
    use planish_graph::ops::math::unary::UnaryFunction::Relu;
    use planish_graph::ops::nn::conv::Conv;
    use planish_graph::ops::nn::conv_transpose::ConvTranspose;
    use planish_graph::ops::nn::quantized::fused::Grid;

    fn normalised(g: &mut Graph, name: &str, x: ValueId, channels: usize, training_mode: bool) -> ValueId {
        let mut parts = vec![x];
        for part in ["scale", "shift", "mean"] {
            parts.push(weights(g, &format!("{name}.{part}"), &[channels]));
        }
        let positive: Vec<f32> = (0..channels).map(|i| 0.5 + i as f32).collect();
        parts.push(g.add_constant(&format!("{name}.variance"), Tensor::new(&[channels], &positive).unwrap()));
        g.add_node(name, BatchNormalization { training_mode, ..BatchNormalization::default() }, &parts)
    }

    /// A convolution of "x" `[2, 4, 5]` to 6 channels in 2 groups, with or without bias.
    fn convolved(bias: bool) -> (Graph, ValueId) {
        let (mut g, x) = input(&[2, 4, 5]);
        let w = weights(&mut g, "w", &[6, 2, 3]);
        let mut inputs = vec![x, w];
        if bias {
            inputs.push(weights(&mut g, "b", &[6]));
        }
        let y = g.add_node("conv", Conv { group: 2, ..Conv::default() }, &inputs);
        (g, y)
    }

    #[test]
    fn normalisation_goes_into_convolutions() {
        for bias in [false, true] {
            let (mut g, y) = convolved(bias);
            let y = normalised(&mut g, "norm", y, 6, false);
            let y = unary(&mut g, "relu", Relu, y);
            g.outputs.push(y);
            let g = check(&AbsorbAffine, g, &[("Conv", 1), ("Relu", 1)]);
            assert_eq!(g.nodes[0].name, "conv");
        }
    }

    #[test]
    fn transposed_convolutions_and_matrices_take_it_too() {
        for group in [1, 2] {
            let (mut g, x) = input(&[2, 4, 5]);
            let w = weights(&mut g, "w", &[4, 6 / group, 3]);
            let conv = Conv { group, strides: vec![2], ..Conv::default() };
            let op = ConvTranspose { conv, output_padding: Vec::new(), output_shape: None };
            let y = g.add_node("up", op, &[x, w]);
            let y = normalised(&mut g, "norm", y, 6, false);
            g.outputs.push(y);
            check(&AbsorbAffine, g, &[("ConvTranspose", 1)]);
        }
        for trans_b in [false, true] {
            let (mut g, x) = input(&[2, 4]);
            let w = weights(&mut g, "w", if trans_b { &[3, 4] } else { &[4, 3] });
            let b = weights(&mut g, "b", &[1, 3]);
            let op = Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b };
            let y = g.add_node("gemm", op, &[x, w, b]);
            let y = normalised(&mut g, "norm", y, 3, false);
            g.outputs.push(y);
            check(&AbsorbAffine, g, &[("Gemm", 1)]);
        }
    }

    /// `op` of "x" and integer weights with scales along `axis`, or one scale, normalised with factors of both signs.
    fn on_integers(op: impl Operator, dtype: DType, shape: &[usize], axis: usize, each: bool) -> Graph {
        let (mut g, x) = input(if shape.len() == 3 { &[2, 4, 5] } else { &[2, 4] });
        let len: usize = shape.iter().product();
        let (low, high) = dtype.integer_range().unwrap();
        // The lowest integer is among those of some channels only.
        let integers: Vec<i128> = (0..len as i128).map(|i| if i == 1 { low } else { i * 5 % high }).collect();
        let w = g.add_constant("w", Tensor::from_ints(dtype, shape, &integers).unwrap());
        let channels = shape[axis];
        let count = if each { channels } else { 1 };
        let scales = (0..count).map(|c| 0.1 + c as f32 / 7.0).collect();
        let zeros = (0..count as i32).map(|c| if c % 2 == 0 { 0 } else { 3 }).collect();
        let grid = Grid { dtype, axis: axis as i64, scales, zeros };
        let [scale, zero] = grid.tensors().unwrap();
        let (scale, zero) = (g.add_constant("w.s", scale), g.add_constant("w.z", zero));
        let w = g.add_node("wf", grid.dequantize(), &[w, scale, zero]);
        let b = weights(&mut g, "b", &[channels]);
        let matrix = shape.len() == 2 && op.name() == "MatMul";
        let y = if matrix { g.add_node("y", op, &[x, w]) } else { g.add_node("y", op, &[x, w, b]) };
        let y = normalised(&mut g, "norm", y, channels, false);
        g.outputs.push(y);
        g
    }

    #[test]
    fn integer_weights_keep_their_bits() {
        for dtype in [DType::I8, DType::U8, DType::I4] {
            for each in [false, true] {
                let conv = Conv { group: 2, ..Conv::default() };
                let g = on_integers(conv, dtype, &[6, 2, 3], 0, each);
                let g = check_inferred(&AbsorbAffine, g, &[("Conv", 1), ("DequantizeLinear", 1)]);
                let integers = g.constant(g.nodes[0].input(0).unwrap()).unwrap();
                assert_eq!(integers.dtype(), dtype);
                let rest = [("Gemm", 1), ("DequantizeLinear", 1)];
                check_inferred(&AbsorbAffine, on_integers(MatMul, dtype, &[4, 6], 1, each), &rest);
                let gemm = Gemm { trans_b: true, ..Gemm::default() };
                check_inferred(&AbsorbAffine, on_integers(gemm, dtype, &[6, 4], 0, each), &rest);
            }
        }
    }

    #[test]
    fn arithmetic_with_constants_goes_in() {
        for (function, constant_first) in
            [(Add, false), (Add, true), (Sub, false), (Sub, true), (Mul, false), (Mul, true), (Div, false)]
        {
            let (mut g, y) = convolved(true);
            let c = weights(&mut g, "c", &[1, 6, 1]);
            let (a, b) = if constant_first { (c, y) } else { (y, c) };
            let y = binary(&mut g, "arithmetic", function, a, b);
            g.outputs.push(y);
            check(&AbsorbAffine, g, &[("Conv", 1)]);
        }
        let (mut g, y) = convolved(false);
        let c = scalar(&mut g, "c", 0.25);
        let y = binary(&mut g, "scaled", Mul, y, c);
        g.outputs.push(y);
        check(&AbsorbAffine, g, &[("Conv", 1)]);
    }

    #[test]
    fn what_others_read_stays() {
        let (mut g, y) = convolved(true);
        let normal = normalised(&mut g, "norm", y, 6, false);
        g.outputs.push(normal);
        let mut read_twice = g.clone();
        let other = unary(&mut read_twice, "relu", Relu, y);
        read_twice.outputs.push(other);
        check(&AbsorbAffine, read_twice, &[("Conv", 1), ("BatchNormalization", 1), ("Relu", 1)]);
        let mut output = g.clone();
        output.outputs.push(y);
        check(&AbsorbAffine, output, &[("Conv", 1), ("BatchNormalization", 1)]);
    }

    #[test]
    fn other_maps_stay() {
        let (mut g, y) = convolved(true);
        let training = normalised(&mut g, "norm", y, 6, true);
        g.outputs.push(training);
        check(&AbsorbAffine, g, &[("Conv", 1), ("BatchNormalization", 1)]);
        for (function, shape, constant_first) in [
            (Div, &[1, 6, 1][..], true),
            (Mul, &[3], false),
            (Mul, &[2, 6, 1], false),
            (Mul, &[1, 1, 6, 1], false),
        ] {
            let (mut g, y) = convolved(true);
            let c = weights(&mut g, "c", shape);
            let (a, b) = if constant_first { (c, y) } else { (y, c) };
            let y = binary(&mut g, "arithmetic", function, a, b);
            g.outputs.push(y);
            let name = if function == Div { "Div" } else { "Mul" };
            check(&AbsorbAffine, g, &[("Conv", 1), (name, 1)]);
        }
    }

    #[test]
    fn weights_must_be_constant_and_factors_finite() {
        let (mut g, x) = input(&[2, 4, 5]);
        let w = g.add_input("w", planish_graph::DType::F32, &crate::passes::rewrite::fixed_dims(&[6, 4, 3]));
        let y = g.add_node("conv", Conv::default(), &[x, w]);
        let y = normalised(&mut g, "norm", y, 6, false);
        g.outputs.push(y);
        check_inferred(&AbsorbAffine, g, &[("Conv", 1), ("BatchNormalization", 1)]);
        let (mut g, y) = convolved(true);
        let zero = scalar(&mut g, "zero", 0.0);
        let y = binary(&mut g, "over", Div, y, zero);
        g.outputs.push(y);
        assert_eq!(AbsorbAffine.run(&mut g).unwrap(), 0);
    }
}
