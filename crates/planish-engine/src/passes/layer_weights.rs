//! The constant weights and biases of layers, and the same layers with every output channel multiplied by a factor.
//!
//! Weights are numbers, or integers that a DequantizeLinear makes numbers of. Factors go into the numbers, or into the scales
//! of the integers, whose signs change where a factor is negative.

use super::absorb_affine::Affine;
use super::pattern::per_channel;
use super::quantised::grids::dequantised;
use super::rewrite::Rewriter;
use crate::plan::integer_sums::channel_axis;
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::conv_transpose::ConvTranspose;
use planish_graph::ops::nn::quantized::fused::Grid;
use planish_graph::{Node, Operator, OperatorExt, Tensor, ValueId};

/// Constant weights.
pub(super) enum Weights {
    Numbers(Tensor),
    /// Integers, what they mean, and the numbers that they were read as before.
    Integers(Tensor, Grid, ValueId),
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
pub(super) struct Given<'r> {
    pub(super) tensor: &'r Tensor,
    /// Where they are integers: what they mean, the axis that counts channels, and the numbers.
    pub(super) meaning: Option<(Grid, usize, ValueId)>,
}

impl<'r> Given<'r> {
    pub(super) fn of(rewriter: &'r Rewriter, layer: &Node) -> Option<Given<'r>> {
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
    pub(super) fn times(&self, affine: &Affine, target: &Layer) -> Option<Weights> {
        let Some((grid, axis, numbers)) = &self.meaning else {
            let values = self.tensor.to_f64s().into_iter().enumerate();
            let scaled: Vec<f64> = values.map(|(i, w)| w * affine[target.channel_of(i)].0).collect();
            let scaled = Tensor::from_f64s(self.tensor.dtype(), self.tensor.shape(), &scaled).ok()?;
            return Some(Weights::Numbers(scaled));
        };
        let signs: Vec<i8> =
            affine.iter().map(|(factor, _)| i8::from(*factor > 0.0) - i8::from(*factor < 0.0)).collect();
        let (integers, mut grid) = with_signs(self.tensor, *axis, grid, &signs)?;
        for (scale, (factor, _)) in grid.scales.iter_mut().zip(affine).filter(|(_, map)| map.0 != 0.0) {
            *scale = (f64::from(*scale) * factor.abs()) as f32;
        }
        let usable = grid.scales.iter().all(|scale| scale.is_finite() && *scale > 0.0);
        usable.then_some(Weights::Integers(integers, grid, *numbers))
    }
}

/// Whether one scale is for all weights, or one for each index of `axis`.
pub(super) fn grid_along(grid: &Grid, weights: &Tensor, axis: usize) -> Option<()> {
    let along = if grid.axis < 0 { grid.axis + weights.rank() as i64 } else { grid.axis };
    let each = grid.scales.len() == weights.shape()[axis] && along == axis as i64;
    (each || grid.scales.len() == 1).then_some(())
}

/// Integer weights and what they mean, times -1, 0 or 1 for each index of `axis`; all have a scale and a zero point then.
pub(super) fn with_signs(weights: &Tensor, axis: usize, grid: &Grid, signs: &[i8]) -> Option<(Tensor, Grid)> {
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
pub(super) struct Layer {
    pub(super) channels: usize,
    /// Output channels of one group.
    per_group: usize,
    /// Weights of one output channel that lie together.
    inner: usize,
    /// Blocks of weights (input channels, where they come first) of one group.
    blocks: usize,
    pub(super) bias_factor: f64,
}

impl Layer {
    pub(super) fn of(op: &dyn Operator, weights: &Tensor) -> Option<Layer> {
        let &[first, second, ref taps @ ..] = weights.shape() else { return None };
        let taps: usize = taps.iter().product();
        let rows_are_channels =
            Layer { channels: first, per_group: first, inner: second * taps, blocks: 1, bias_factor: 1.0 };
        let layer = if op.is_op::<Conv>() {
            rows_are_channels
        } else if let Some(transposed) = op.as_op::<ConvTranspose>() {
            let groups = transposed.conv.group;
            // Others are the operator's to refuse.
            if groups == 0 || !first.is_multiple_of(groups) {
                return None;
            }
            Layer {
                channels: second.checked_mul(groups)?,
                per_group: second,
                inner: taps,
                blocks: first / groups,
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

#[cfg(test)]
mod tests {
    use super::*;
    use planish_graph::DType;

    #[test]
    fn integers_change_their_signs_around_their_zero_point() {
        let integers = Tensor::new(&[3, 2], &[1i8, -1, 5, -128, 7, 0]).unwrap();
        let grid = Grid { dtype: DType::I8, axis: 0, scales: vec![0.5], zeros: vec![0] };
        let (made, grid) = with_signs(&integers, 0, &grid, &[-1, -1, 0]).unwrap();
        assert_eq!(made, Tensor::new(&[3, 2], &[-1i8, 1, -6, 127, 0, 0]).unwrap());
        assert_eq!((grid.zeros, grid.scales), (vec![0, -1, 0], vec![0.5; 3]));
    }
}
