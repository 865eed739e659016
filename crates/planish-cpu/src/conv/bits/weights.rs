//! The weights of a convolution as planes of bits, and what their sums are corrected with.
//!
//! A weight is a sign `2s - 1` times a magnitude of a few bits, an input is a sum of planes of bits. Of a plane `b` of the
//! input and a plane `m` of the magnitudes, `sum b m (2s - 1) = count(s & m) - count(m & (b ^ s))`: the first count is the
//! weights' own, the second is what the kernel counts. Summed over all pairs of planes by their places, less the input's
//! zero point times the weights, that is the sum of products. Bits of channels that do not exist are zero in both, and
//! count nothing.

use super::super::ConvProblem;
use super::super::weights::SumLevels;
use super::few::WeightBits;
use super::pack::PixelLayout;
use crate::matmul::AlignedNumbers;

/// Packed weights: a panel is a vector of output channels.
pub(super) struct BitWeights {
    /// `[group][panel][plane][tap][word][1 or 2][lane]`: where weights are signs, pairs of words as the pixels have them;
    /// else the signs of a word and then its magnitudes.
    words: AlignedNumbers,
    /// What a tap adds to the sums where it meets the image, `[tap][column]`, columns of all groups.
    taps: Vec<i32>,
    /// Added to all sums, for each column of all groups; so below.
    pub bias: Vec<i32>,
    pub scales: Vec<f32>,
    /// Added to numbers, where there is anything to add.
    pub shift: Option<Vec<f32>>,
    pub shape: Columns,
}

/// The columns of a group: its output channels, and what fills the last vector that finishes sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    /// Output channels of a group.
    pub channels: usize,
    /// Columns of a panel.
    pub lanes: usize,
    /// Columns that are finished at a time: those of one panel or more.
    pub finished: usize,
    /// Words of all taps and planes for a column.
    pub depth: usize,
}

impl Columns {
    /// Columns of a group.
    pub(super) fn all(self) -> usize {
        self.channels.next_multiple_of(self.finished)
    }
}

impl BitWeights {
    /// Packs checked weights of a valid problem.
    pub(super) fn new(
        problem: &ConvProblem,
        layout: PixelLayout,
        [lanes, finished]: [usize; 2],
        values: &[f32],
        levels: SumLevels<'_>,
    ) -> BitWeights {
        let (taps, inputs, outputs) = (problem.taps(), problem.group_in(), problem.group_out());
        let planes = layout.few.weights.planes();
        let each = layout.weight_words();
        let depth = planes * taps * layout.words * each;
        let shape = Columns { channels: outputs, lanes, finished, depth };
        let columns = shape.all();
        let mut packed = AlignedNumbers::zeros(problem.groups * columns * shape.depth);
        let mut constants = vec![0i32; taps * problem.groups * columns];
        let (unit, input_planes) = (layout.few.input.unit(), layout.few.input.planes());
        // All planes of the input set.
        let full = unit * ((1 << input_planes) - 1);
        let slots = packed.as_mut_slice();
        for channel in 0..problem.out_channels {
            let (group, column) = (channel / outputs, channel % outputs);
            let lane = column % lanes;
            let first = (group * columns + column - lane) * depth + lane;
            for tap in 0..taps {
                let weight = |input: usize| values[(channel * inputs + input) * taps + tap] as i32;
                let (mut sum, mut positive) = (0, 0);
                for input in 0..inputs {
                    sum += weight(input);
                    positive += weight(input).max(0);
                }
                constants[tap * problem.groups * columns + group * columns + column] =
                    (full * positive).wrapping_sub(i32::from(levels.input_zero).wrapping_mul(sum));
                for plane in 0..planes {
                    for pair in 0..layout.words / 2 {
                        let bits = |is_set: &dyn Fn(i32) -> bool| {
                            let channels = pair * 64..inputs.min(pair * 64 + 64);
                            channels.rev().fold(0, |bits, input| bits << 1 | u64::from(is_set(weight(input))))
                        };
                        let signs = layout.pair(bits(&|w| w > 0));
                        let magnitudes = layout.pair(bits(&|w| w.unsigned_abs() >> plane & 1 == 1));
                        for word in 0..2 {
                            let at = (plane * taps + tap) * layout.words + pair * 2 + word;
                            let mut put = |index: usize, bits: u32| {
                                slots[first + (at * each + index) * lanes] = f32::from_bits(bits);
                            };
                            put(0, signs[word]);
                            if layout.few.weights != WeightBits::Signs {
                                put(1, magnitudes[word]);
                            }
                        }
                    }
                }
            }
        }
        let padded = |numbers: &[f32]| -> Vec<f32> { spread(numbers, outputs, columns) };
        BitWeights {
            words: packed,
            taps: constants,
            bias: levels.bias.map_or(vec![0; problem.groups * columns], |b| spread(b, outputs, columns)),
            scales: padded(levels.scales),
            shift: levels.shift.map(padded),
            shape,
        }
    }

    /// The words of the panel that starts at a column.
    pub(super) fn panel(&self, column: usize) -> *const u32 {
        self.words.as_slice()[column * self.shape.depth..].as_ptr().cast()
    }

    /// What a tap adds to the sums of all columns.
    pub(super) fn tap(&self, tap: usize) -> &[i32] {
        let columns = self.bias.len();
        &self.taps[tap * columns..(tap + 1) * columns]
    }

    /// The memory of it all.
    pub(super) fn bytes(&self) -> usize {
        self.words.bytes() + (self.taps.len() + 2 * self.bias.len()) * size_of::<f32>()
    }
}

/// What is for each channel, for each column of all panels.
fn spread<T: Copy + Default>(numbers: &[T], group: usize, columns: usize) -> Vec<T> {
    let padding = std::iter::repeat_n(T::default(), columns - group);
    numbers.chunks_exact(group).flat_map(|own| own.iter().copied().chain(padding.clone())).collect()
}
