//! Sums of levels in `f32`, exactly.
//!
//! Kernels with a few products in a sum spend their time on loads rather than on multiplications, so that instructions
//! which multiply four bytes at a time win nothing there unless the bytes are interleaved first, as
//! [`depthwise_levels`](super::depthwise_levels) does where it can. The others compute on levels as on numbers: integers
//! up to 2²⁴ and their sums are `f32` without an error, whatever the order. What the zero point adds to a sum is taken
//! off before, and the rest of the arithmetic is that of integers.

use super::problem::ConvProblem;
use super::weights::{SumLevels, Weights};
use crate::element::ElementType;
use crate::matmul::AlignedNumbers;
use crate::simd::{Simd, each_row};

/// The most products whose sum and that of what the zero point adds stay below 2²⁴, together with a bias.
const MOST_PRODUCTS: usize = 112;

/// The largest bias for which that holds.
const MOST_BIAS: u32 = (1 << 24) - 2 * MOST_PRODUCTS as u32 * 255 * 255;

/// Refuses problems on levels whose sums might not be exact.
pub(super) fn check(problem: &ConvProblem) -> Result<(), String> {
    let products = problem.taps() * problem.group_in();
    if problem.element == ElementType::U8 && products > MOST_PRODUCTS {
        return Err(format!("sums of {products} products of levels may not be exact in f32"));
    }
    Ok(())
}

/// What is done to the sums of each output channel, padded to whole vectors.
pub(super) struct ExactSums {
    /// The input's level of zero.
    zero: f32,
    /// What a sum over all taps starts from: less the weights times the input's zero.
    start: AlignedNumbers,
    /// What is added to a sum over some of the taps: the bias, where that is exact.
    bias: AlignedNumbers,
    /// The bits of integers to add to sums too long for that.
    far_bias: Option<AlignedNumbers>,
    scales: AlignedNumbers,
    shift: Option<AlignedNumbers>,
}

impl ExactSums {
    /// Those of checked weights of a problem on levels, `None` for others.
    pub(super) fn of(problem: &ConvProblem, lanes: usize, weights: &Weights<'_>) -> Option<Self> {
        let SumLevels { input_zero, bias, scales, shift } = weights.levels?;
        let padded = |numbers: &mut dyn Iterator<Item = f32>| {
            let mut aligned = AlignedNumbers::zeros(problem.out_channels.next_multiple_of(lanes));
            aligned.as_mut_slice().iter_mut().zip(numbers).for_each(|(slot, number)| *slot = number);
            aligned
        };
        let sums = problem.channel_sums(weights.values);
        let zero = f32::from(input_zero);
        let bias = bias.unwrap_or_default();
        let far = bias.iter().any(|bias| bias.unsigned_abs() > MOST_BIAS);
        let near =
            |channel: usize| if far { 0.0 } else { bias.get(channel).map_or(0.0, |&bias| bias as f32) };
        Some(Self {
            zero,
            start: padded(&mut sums.iter().enumerate().map(|(i, &sum)| near(i) - zero * sum as f32)),
            bias: padded(&mut (0..sums.len()).map(near)),
            far_bias: far.then(|| padded(&mut bias.iter().map(|&bias| f32::from_bits(bias as u32)))),
            scales: padded(&mut scales.iter().copied()),
            shift: shift.map(|shift| padded(&mut shift.iter().copied())),
        })
    }

    /// What the sums of a vector of channels start from where all taps are seen.
    #[inline(always)]
    pub(super) fn start<S: Simd>(&self, s: S, channel: usize) -> S::F32 {
        // SAFETY: padded to whole vectors, of which `channel` starts one.
        unsafe { s.load(self.start.as_slice()[channel..].as_ptr()) }
    }

    /// What they start from where only taps are seen whose weights add up to this.
    #[inline(always)]
    pub(super) fn start_of<S: Simd>(&self, s: S, channel: usize, weights: S::F32) -> S::F32 {
        // SAFETY: padded to whole vectors, of which `channel` starts one.
        let bias = unsafe { s.load(self.bias.as_slice()[channel..].as_ptr()) };
        s.sub(bias, s.mul(weights, s.splat(self.zero)))
    }

    /// Makes the sums of whole vectors of channels, from `channel` on, the numbers they stand for: `VECTORS` of each row.
    // Vectors are the outer loop, so that their constants are loaded once.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    pub(super) fn finish<S: Simd, const VECTORS: usize, const ROWS: usize>(
        &self,
        s: S,
        channel: usize,
        sums: &mut [[S::F32; VECTORS]; ROWS],
    ) {
        for j in 0..VECTORS {
            let first = channel + j * S::LANES;
            // SAFETY: padded to whole vectors, of which `first` starts one.
            let load = |numbers: &AlignedNumbers| unsafe { s.load(numbers.as_slice()[first..].as_ptr()) };
            if let Some(bias) = &self.far_bias {
                let bias = load(bias);
                each_row!(i of ROWS {
                    sums[i][j] = s.i32_to_f32(s.add_i32(s.f32_to_i32(sums[i][j]), bias));
                });
            }
            let scale = load(&self.scales);
            each_row!(i of ROWS {
                sums[i][j] = s.mul(sums[i][j], scale);
            });
            if let Some(shift) = &self.shift {
                let shift = load(shift);
                each_row!(i of ROWS {
                    sums[i][j] = s.add(sums[i][j], shift);
                });
            }
        }
    }
}
