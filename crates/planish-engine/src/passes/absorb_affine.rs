//! Batch normalisations and constant factors and offsets for each channel go into the weights before them.
//!
//! At inference a batch normalisation is `y = a·x + b` for each channel, and so are additions, subtractions,
//! multiplications and divisions by constants of one number a channel. Behind a convolution, transposed convolution or
//! matrix product with constant weights, that is other weights and another bias, for nothing. Of weights that are integers
//! with a scale for each channel it is other scales, and where the factor is negative the integers change their signs: few
//! bits stay few. Not folded: anything *before* a convolution (its padding would have to change too), statistics of training
//! mode, and weights whose result somebody else reads as well.

use super::Pass;
use super::pattern::per_channel;
use super::quantised::constants::operands;
use super::quantised::grids::dequantised;
use super::rewrite::Rewriter;
use crate::plan::integer_sums::channel_axis;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::nn::batch_normalization::BatchNormalization;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::conv_transpose::ConvTranspose;
use planish_graph::ops::nn::quantized::fused::Grid;
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
                let name = rewriter.node(found.layer).map(|n| n.name.clone()).unwrap_or_default();
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

/// Constant weights.
enum Weights {
    Numbers(Tensor),
    /// Integers, what they mean, and the numbers that they were read as before.
    Integers(Tensor, Grid, ValueId),
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

/// The bias of a layer as a number for each channel, 0 where there is none.
pub(super) fn bias_numbers(
    rewriter: &Rewriter,
    layer: &Node,
    rank: usize,
    channels: usize,
) -> Option<Vec<f64>> {
    let Some(bias) = layer.input(2) else { return Some(vec![0.0; channels]) };
    if let Some(numbers) = rewriter.constant(bias) {
        return per_channel(numbers, rank, 1, channels);
    }
    let (integers, grid) = dequantised(rewriter, bias)?;
    per_channel(&grid.numbers(rewriter.constant(integers)?).ok()?, rank, 1, channels)
}

/// The weights that a layer reads.
struct Given<'r> {
    tensor: &'r Tensor,
    /// Where they are integers: what they mean, the axis that counts channels, and the numbers.
    meaning: Option<(Grid, usize, ValueId)>,
}

impl<'r> Given<'r> {
    fn of(rewriter: &'r Rewriter, layer: &Node) -> Option<Given<'r>> {
        let value = layer.input(1)?;
        if layer.op.is_op::<MatMul>() && layer.input(0).and_then(|x| rewriter.rank(x)) != Some(2) {
            return None;
        }
        if let Some(tensor) = rewriter.constant(value).filter(|w| w.dtype().is_float()) {
            return Some(Given { tensor, meaning: None });
        }
        let (integers, grid) = dequantised(rewriter, value)?;
        let tensor = rewriter.constant(integers).filter(|t| t.dtype() == grid.dtype)?;
        let axis = channel_axis(&*layer.op, tensor)?;
        grid_along(&grid, tensor, axis)?;
        Some(Given { tensor, meaning: Some((grid, axis, value)) })
    }

    /// They times a factor for each channel.
    fn times(&self, affine: &Affine, target: &Layer) -> Option<Weights> {
        let Some((grid, axis, numbers)) = &self.meaning else {
            let values = self.tensor.to_f64s().into_iter().enumerate();
            let scaled: Vec<f64> = values.map(|(i, w)| w * affine[target.channel_of(i)].0).collect();
            let scaled = Tensor::from_f64s(self.tensor.dtype(), self.tensor.shape(), &scaled).ok()?;
            return Some(Weights::Numbers(scaled));
        };
        let signs: Vec<i8> =
            affine.iter().map(|(factor, _)| i8::from(*factor > 0.0) - i8::from(*factor < 0.0)).collect();
        let (integers, mut turned) = turned(self.tensor, *axis, grid, &signs)?;
        for (scale, (factor, _)) in turned.scales.iter_mut().zip(affine).filter(|(_, map)| map.0 != 0.0) {
            *scale = (f64::from(*scale) * factor.abs()) as f32;
        }
        let usable = turned.scales.iter().all(|scale| scale.is_finite() && *scale > 0.0);
        usable.then_some(Weights::Integers(integers, turned, *numbers))
    }
}

/// Whether one scale is for all weights, or one for each index of `axis`.
pub(super) fn grid_along(grid: &Grid, weights: &Tensor, axis: usize) -> Option<()> {
    let along = if grid.axis < 0 { grid.axis + weights.rank() as i64 } else { grid.axis };
    let each = grid.scales.len() == weights.shape()[axis] && along == axis as i64;
    (each || grid.scales.len() == 1).then_some(())
}

/// Integer weights and what they mean, times -1, 0 or 1 for each index of `axis`; all have a scale and a zero point then.
pub(super) fn turned(weights: &Tensor, axis: usize, grid: &Grid, signs: &[i8]) -> Option<(Tensor, Grid)> {
    let channels = weights.shape()[axis];
    let inner: usize = weights.shape()[axis + 1..].iter().product();
    let (low, high) = grid.dtype.integer_range()?;
    let each = |c: usize| if grid.scales.len() == 1 { 0 } else { c };
    let mut integers: Vec<i128> = weights.to_i64s().ok()?.into_iter().map(i128::from).collect();
    let channel = |i: usize| i / inner.max(1) % channels;
    let mut zeros: Vec<i128> = (0..channels).map(|c| grid.zeros[each(c)].into()).collect();
    // Around 0 what is negated stays around 0, but for the integer that has no other of its sign.
    let mut around: Vec<i128> =
        zeros.iter().map(|&zero| if low < 0 && zero == 0 { 0 } else { low + high }).collect();
    for (i, &integer) in integers.iter().enumerate() {
        if integer == low {
            around[channel(i)] = low + high;
        }
    }
    for (i, integer) in integers.iter_mut().enumerate() {
        let c = channel(i);
        match signs[c] {
            0 => *integer = zeros[c],
            1 => (),
            _ => *integer = around[c] - *integer,
        }
    }
    for (c, zero) in zeros.iter_mut().enumerate().filter(|(c, _)| signs[*c] < 0) {
        *zero = around[c] - *zero;
    }
    let grid = Grid {
        dtype: grid.dtype,
        axis: axis as i64,
        scales: (0..channels).map(|c| grid.scales[each(c)]).collect(),
        zeros: zeros.into_iter().map(|zero| zero as i32).collect(),
    };
    Some((Tensor::from_ints(grid.dtype, weights.shape(), &integers).ok()?, grid))
}

/// Where the output channels lie in a layer's weights: `outer` blocks of `channels / groups` runs of `inner`.
struct Layer {
    channels: usize,
    /// Output channels of one group.
    per_group: usize,
    /// Weights of one output channel that lie together.
    inner: usize,
    /// Blocks of weights (input channels, where they come first) of one group.
    blocks: usize,
    bias_factor: f64,
}

impl Layer {
    fn of(op: &dyn Operator, weights: &Tensor) -> Option<Layer> {
        let &[first, second, ref taps @ ..] = weights.shape() else { return None };
        let taps: usize = taps.iter().product();
        let rows_are_channels =
            Layer { channels: first, per_group: first, inner: second * taps, blocks: 1, bias_factor: 1.0 };
        let layer = if op.is_op::<Conv>() {
            rows_are_channels
        } else if let Some(transposed) = op.as_op::<ConvTranspose>() {
            let groups = transposed.conv.group;
            Layer {
                channels: second.checked_mul(groups)?,
                per_group: second,
                inner: taps,
                blocks: first.checked_div(groups)?,
                bias_factor: 1.0,
            }
        } else {
            let gemm = op.as_op::<Gemm>();
            if gemm.is_none() && !op.is_op::<MatMul>() {
                return None;
            }
            let bias_factor = gemm.map_or(1.0, |gemm| f64::from(gemm.beta));
            if gemm.is_some_and(|gemm| gemm.trans_b) {
                Layer { bias_factor, ..rows_are_channels }
            } else {
                Layer { channels: second, per_group: second, inner: 1, blocks: first, bias_factor }
            }
        };
        (layer.channels > 0 && !weights.is_empty()).then_some(layer)
    }
    /// The output channel that weight `index` belongs to.
    fn channel_of(&self, index: usize) -> usize {
        let run = index / self.inner;
        run % self.per_group + run / self.per_group / self.blocks * self.per_group
    }
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
    fn integers_change_their_signs_around_their_zero_point() {
        let integers = Tensor::new(&[3, 2], &[1i8, -1, 5, -128, 7, 0]).unwrap();
        let grid = Grid { dtype: DType::I8, axis: 0, scales: vec![0.5], zeros: vec![0] };
        let (made, grid) = turned(&integers, 0, &grid, &[-1, -1, 0]).unwrap();
        assert_eq!(made, Tensor::new(&[3, 2], &[-1i8, 1, -6, 127, 0, 0]).unwrap());
        assert_eq!((grid.zeros, grid.scales), (vec![0, -1, 0], vec![0.5; 3]));
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
