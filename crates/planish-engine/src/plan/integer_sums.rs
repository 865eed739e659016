//! What the sums of products of levels mean: weights, bias and scales of a quantised convolution or matrix product as the
//! kernels take them.
//!
//! Both operands have a scale, and so have their products: `scale of x * scale of w`, one for each output channel. The bias
//! is rounded to that unit (Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018, section 2.4), which is some thousand times finer than the output's. Where it is
//! not, with weights of few bits or in front of a sign, what rounding leaves of the bias is added to the scaled sum.

use planish_cpu::conv::{SumLevels, WeightBits};
use planish_cpu::epilogue::Levels;
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::fused::{ConvAdd, FusedActivation};
use planish_graph::ops::nn::quantized::fused::{Grid, Quantised};
use planish_graph::{Node, Operator, OperatorExt, Tensor};

/// What the sums of a convolution on levels mean: see [`planish_cpu::conv::SumLevels`].
#[derive(Clone, Debug)]
pub(crate) struct IntegerSums {
    /// The weights less their zero points, output channels first.
    pub(crate) values: Vec<f32>,
    pub(crate) input_zero: u8,
    pub(crate) bias: Vec<i32>,
    pub(crate) scales: Vec<f32>,
    pub(crate) shift: Option<Vec<f32>>,
}

/// The part of an output's step that may be lost of a bias, one among the roundings of the sum itself.
const LOST: f64 = 1.0 / 64.0;

/// A bias in units of the products: rounded, and what that leaves.
struct Units {
    whole: i32,
    rest: f64,
}

/// The activation of an operator.
pub(crate) fn activation(quantised: &Quantised) -> FusedActivation {
    quantised.op.as_op::<ConvAdd>().map_or(FusedActivation::None, |op| op.activation)
}

/// The activation of a node on levels.
pub(crate) fn activation_of(node: &Node) -> FusedActivation {
    node.op.as_op::<Quantised>().map_or(FusedActivation::None, activation)
}

/// Whether a function only limits, or scales, so that it is the same function in any unit.
fn in_any_unit(function: FusedActivation) -> bool {
    use FusedActivation::*;
    matches!(function, None | Relu | Clip { .. } | LeakyRelu { .. })
}

/// The number that is 1 to what follows the sums: the output's step, so that nothing is left to be scaled, where the
/// activation allows it.
pub(crate) fn unit(quantised: &Quantised) -> f32 {
    let step = quantised.output.as_ref().and_then(|grid| grid.single()).map_or(1.0, |(scale, _)| scale);
    if in_any_unit(activation(quantised)) { step } else { 1.0 }
}

/// What the levels of residual and output mean to the kernel.
pub(crate) fn levels(quantised: &Quantised) -> Levels {
    let unit = unit(quantised);
    let single = |grid: Option<&Grid>| grid.and_then(Grid::single);
    let (residual, zero) = single(quantised.input(3)).unwrap_or((1.0, 0));
    Levels {
        inner: single(quantised.inner.as_ref())
            .map(|(scale, zero)| [-zero as f32, (255 - zero) as f32, scale / unit]),
        residual_step: residual / unit,
        residual_zero: zero as f32,
        zero: single(quantised.output.as_ref()).map_or(0.0, |(_, zero)| zero as f32),
    }
}

impl IntegerSums {
    /// They as kernels take them.
    pub(crate) fn levels(&self) -> SumLevels<'_> {
        SumLevels {
            input_zero: self.input_zero,
            bias: Some(&self.bias),
            scales: &self.scales,
            shift: self.shift.as_deref(),
        }
    }

    /// Whether all sums are odd numbers of units, whatever the products are, as `passes/quantised/thresholds.rs` makes them.
    /// What is limited to one unit up or down then never becomes the level between.
    pub(crate) fn are_odd(&self) -> bool {
        // With `n` the whole sum, `n scale + shift` is within half a unit of 1 or -1, or beyond both.
        let Some(shift) = &self.shift else { return false };
        let odd = |(scale, shift): (&f32, &f32)| {
            (scale.abs() - 2.0).abs() < 1e-3 && (shift.abs() - 1.0).abs() < 0.4
        };
        self.scales.iter().zip(shift).all(odd)
    }

    /// Of an operator with these weights and bias; `None` where it is none that multiplies, its scales vary along anything
    /// but the output channels, or a sum could leave 32 bits.
    pub(crate) fn of(quantised: &Quantised, weights: &Tensor, bias: Option<&Tensor>) -> Option<IntegerSums> {
        let axis = channel_axis(&*quantised.op, weights)?;
        let channels = weights.shape()[axis];
        let (step, input_zero) = quantised.input(0)?.single()?;
        let grid = quantised.input(1)?;
        let along = if grid.axis < 0 { grid.axis + weights.rank() as i64 } else { grid.axis };
        let alike = grid.scales.len() == 1 || (grid.scales.len() == channels && along == axis as i64);
        if !alike || weights.dtype() != grid.dtype || !grid.dtype.is_integer() || grid.dtype.bits() > 8 {
            return None;
        }
        let of = |c: usize| if grid.scales.len() == 1 { 0 } else { c };
        let each = weights.len() / channels.max(1);
        let values = differences(weights, axis, |c| grid.zeros[of(c)] as f32);
        // In `f32` and in this order, as QLinearConv is computed here and by other engines: the last bit of a scale decides
        // about one in a hundred thousand roundings, and so about a level of most pictures.
        let products = |c: usize| step * grid.scales[of(c)];
        let bias = bias_in_units(quantised, bias, channels, products)?;
        for (c, bias) in bias.iter().enumerate() {
            let weights: f64 = values[c * each..(c + 1) * each].iter().map(|w| f64::from(w.abs())).sum();
            if weights * 255.0 + f64::from(bias.whole.unsigned_abs()) > f64::from(i32::MAX) {
                return None;
            }
        }
        let step = |grid: &Option<Grid>| grid.as_ref().and_then(Grid::single).map(|(scale, _)| scale);
        let (inner, output) = (step(&quantised.inner), step(&quantised.output));
        let unit = inner.unwrap_or(unit(quantised));
        let scales: Vec<f32> = (0..channels).map(|c| products(c) / unit).collect();
        let may_be_lost = match inner.or(output) {
            // Few bits are counted exactly, and may be compared as exactly.
            _ if WeightBits::of(&values).is_some() => 0.0,
            Some(step) => f64::from(step) * LOST,
            None => f64::INFINITY,
        };
        let lost = |(c, bias): (usize, &Units)| (bias.rest * f64::from(products(c))).abs() > may_be_lost;
        let coarse = bias.iter().enumerate().any(lost);
        let rests = bias.iter().zip(&scales).map(|(bias, scale)| (bias.rest * f64::from(*scale)) as f32);
        let shift = coarse.then(|| rests.collect());
        let bias = bias.iter().map(|bias| bias.whole).collect();
        Some(IntegerSums { values, input_zero: u8::try_from(input_zero).ok()?, bias, scales, shift })
    }
}

/// Integer weights less the zero point of their channel, those of each index of `axis` (the first or the last) together.
pub(crate) fn differences(weights: &Tensor, axis: usize, zero: impl Fn(usize) -> f32) -> Vec<f32> {
    let (channels, integers) = (weights.shape()[axis], weights.to_f32s());
    let each = integers.len() / channels.max(1);
    let mut values = Vec::with_capacity(integers.len());
    for c in 0..channels {
        let at = |k: usize| if axis == 0 { c * each + k } else { k * channels + c };
        values.extend((0..each).map(|k| integers[at(k)] - zero(c)));
    }
    values
}

/// The axis of the weights of a plain convolution or matrix product that counts output channels.
pub(crate) fn channel_axis(op: &dyn Operator, weights: &Tensor) -> Option<usize> {
    if op.is_op::<Conv>() || op.is_op::<ConvAdd>() {
        return (weights.rank() >= 3).then_some(0);
    }
    if weights.rank() != 2 {
        return None;
    }
    if let Some(gemm) = op.as_op::<Gemm>() {
        let plain = !gemm.trans_a && gemm.alpha == 1.0 && gemm.beta == 1.0;
        return plain.then_some(usize::from(!gemm.trans_b));
    }
    op.is_op::<MatMul>().then_some(1)
}

/// The bias in units of the products.
fn bias_in_units(
    quantised: &Quantised,
    bias: Option<&Tensor>,
    channels: usize,
    unit: impl Fn(usize) -> f32,
) -> Option<Vec<Units>> {
    let Some(bias) = bias else {
        return Some((0..channels).map(|_| Units { whole: 0, rest: 0.0 }).collect());
    };
    let each = bias.shape().last().is_some_and(|&last| last == channels) && bias.len() == channels;
    if !each && bias.len() != 1 {
        return None;
    }
    let given = bias.to_f64s();
    (0..channels)
        .map(|c| {
            let at = if each { c } else { 0 };
            let (units, exact) = match quantised.input(2) {
                None => (f64::from(given[at] as f32 / unit(c)), given[at] / f64::from(unit(c))),
                Some(grid) => {
                    let of = if grid.scales.len() == 1 { 0 } else { at };
                    let integer = given[at] - f64::from(grid.zeros[of]);
                    // Mostly that unit itself, and the integers stay what they are.
                    let units = integer * (f64::from(grid.scales[of]) / f64::from(unit(c)));
                    (units, units)
                }
            };
            let whole = units.round_ties_even();
            (whole.abs() <= f64::from(i32::MAX)).then_some(Units { whole: whole as i32, rest: exact - whole })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_graph::DType;
    use std::sync::Arc;

    fn gemm(trans_b: bool) -> Quantised {
        let op = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b };
        let axis = i64::from(!trans_b);
        let weights = Grid { dtype: DType::I8, axis, scales: vec![0.5, 0.25], zeros: vec![0, 3] };
        let inputs = vec![Some(Grid::levels(0.1, 7)), Some(weights), None];
        Quantised { op: Arc::new(op), inputs, output: Some(Grid::levels(0.2, 1)), inner: None }
    }

    #[test]
    fn weights_come_channel_by_channel() {
        let bias = Tensor::new(&[2], &[1.02f32, -0.5]).unwrap();
        let straight = Tensor::new(&[2, 3], &[1i8, 2, 3, 4, 5, 6]).unwrap();
        let turned = Tensor::new(&[3, 2], &[1i8, 4, 2, 5, 3, 6]).unwrap();
        for (weights, trans_b) in [(straight, true), (turned, false)] {
            let sums = IntegerSums::of(&gemm(trans_b), &weights, Some(&bias)).unwrap();
            assert_eq!(sums.values, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
            assert_eq!((sums.input_zero, &sums.bias[..]), (7, &[20, -20][..]));
            assert_eq!(sums.scales, [0.25, 0.125]);
            // 1.02 is 20.4 units of 0.05.
            let shift = sums.shift.unwrap();
            assert!((shift[0] - 0.1).abs() < 1e-6 && shift[1].abs() < 1e-6, "{shift:?}");
            let mut many = weights.to_i64s().unwrap();
            many[0] = 100;
            let many: Vec<i8> = many.into_iter().map(|w| w as i8).collect();
            let many = Tensor::new(weights.shape(), &many).unwrap();
            let shift = |bias: [f32; 2]| {
                let bias = Tensor::new(&[2], &bias).unwrap();
                IntegerSums::of(&gemm(trans_b), &many, Some(&bias)).unwrap().shift
            };
            // 0.4 units are a tenth of a step; 0.04 are a hundredth.
            assert!((shift([1.02, -0.5]).unwrap()[0] - 0.1).abs() < 1e-6);
            assert_eq!(shift([1.002, -0.5]), None);
        }
    }

    #[test]
    fn sums_beyond_32_bits_are_refused() {
        let weights = Tensor::new(&[2, 3], &[1i8, 2, 3, 4, 5, 6]).unwrap();
        for bias in [1e9f32, f32::NAN, f32::INFINITY] {
            let bias = Tensor::new(&[2], &[bias, 0.0]).unwrap();
            assert!(IntegerSums::of(&gemm(true), &weights, Some(&bias)).is_none());
        }
        let wide = Tensor::zeros(DType::I8, &[2, 3, 1]).unwrap();
        assert!(IntegerSums::of(&gemm(true), &wide, None).is_none());
    }
}
