//! Depthwise convolution of levels, four taps a multiplication.
//!
//! One instruction multiplies four bytes that lie side by side and adds up the products. In a channels-last image those
//! are four channels, whose products a depthwise convolution must not add. So four neighbouring pixels of a line are
//! interleaved first, until the four bytes of a lane are those of one channel. That takes six shuffles for 64 channels,
//! and pays because what was interleaved serves several output pixels: with a stride of one, quads start at even pixels
//! only, and an odd output pixel multiplies the quad before it with weights shifted by one tap.
//!
//! A pixel at the end of a line sees pixels of padding, which are the level that stands for zero.
//!
//! The sums of integers are exact, so that they are those of the other tiles of [`depthwise`](super::depthwise), which
//! computes the kernels and strides that are not here, and channels too few to fill these vectors.

use super::problem::ConvProblem;
use super::weights::{SumLevels, Weights};
use super::window::Window;
use crate::element::{Element, ElementType};
use crate::epilogue::{Destination, Epilogue};
use crate::isa::Isa;
use crate::matmul::AlignedNumbers;
use crate::simd::{Simd, SimdOp};
use crate::view::RowsMut;

/// The most pixels of a tile: with four vectors of sums each, and what is interleaved, they fit the registers.
pub(super) const MAX_PIXELS: usize = 4;

/// The vectors of a block of channels.
const VECTORS: usize = 4;

/// Weights in quads of taps, and what sums start from and stand for, for blocks of channels of [`VECTORS`] vectors.
pub(super) struct LevelQuads {
    kernel: [usize; 3],
    stride: usize,
    /// The channels computed here.
    channels: usize,
    /// The input's level of zero.
    zero: u8,
    /// Lines of taps, along depth and height.
    lines: usize,
    /// `[block][line][shift][quad][VECTORS]` vectors of four `i8` a lane.
    weights: AlignedNumbers,
    /// `[block][line][VECTORS]` vectors of `i32`: less what the zero point of the input adds to the products of a line.
    lines_start: AlignedNumbers,
    /// `[block][VECTORS]` vectors of `i32`: the biases.
    start: AlignedNumbers,
    /// For each channel, in order, padded to whole blocks.
    scales: AlignedNumbers,
}

/// The first channels of so many that are worth it: half a block takes longer than by itself.
fn worth(channels: usize, lanes: usize) -> usize {
    let block = VECTORS * lanes;
    if channels % block > block / 2 { channels } else { channels / block * block }
}

/// Quads of taps from one even pixel on that an output pixel sees.
const fn quads(width: usize, stride: usize) -> usize {
    (width + shifts(stride) - 1).div_ceil(4)
}

/// How many taps weights are shifted by at most, and one more.
const fn shifts(stride: usize) -> usize {
    if stride == 1 { 2 } else { 1 }
}

impl LevelQuads {
    /// Those of checked weights, where there are kernels for the problem.
    pub(super) fn of(problem: &ConvProblem, isa: Isa, weights: &Weights<'_>) -> Option<Self> {
        let SumLevels { input_zero, bias, scales, shift } = weights.levels?;
        let (kernel, stride, channels) = (problem.kernel, problem.stride[2], problem.out_channels);
        let fits = |w: &f32| (-128.0..=127.0).contains(w);
        if problem.element != ElementType::U8
            || shift.is_some()
            || !matches!((kernel[2], stride), (3 | 5, 1 | 2))
            || problem.dilation[2] != 1
            || !channels.is_multiple_of(4)
            || worth(channels, isa.lanes()) == 0
            || !weights.values.iter().all(fits)
        {
            return None;
        }
        let (lanes, lines) = (isa.lanes(), kernel[0] * kernel[1]);
        let channels = worth(channels, lanes);
        let (shifts, quads) = (shifts(stride), quads(kernel[2], stride));
        let blocks = channels.div_ceil(VECTORS * lanes);
        let words = blocks * VECTORS * lanes;
        let weight = |channel: usize, line: usize, tap: usize| match channel < channels && tap < kernel[2] {
            true => weights.values[(channel * lines + line) * kernel[2] + tap] as i8,
            false => 0,
        };
        // The channel of a lane: interleaved, groups of four channels go to the vectors in turns.
        let channel = |word: usize| {
            let (block, vector, lane) = (word / (VECTORS * lanes), word / lanes % VECTORS, word % lanes);
            block * VECTORS * lanes + lane / 4 * 16 + vector * 4 + lane % 4
        };
        let fill = |len: usize, word: &dyn Fn(usize) -> u32| {
            let mut numbers = AlignedNumbers::zeros(len);
            for (i, slot) in numbers.as_mut_slice().iter_mut().enumerate() {
                *slot = f32::from_bits(word(i));
            }
            numbers
        };
        let block = VECTORS * lanes;
        let each = lines * shifts * quads * block;
        let packed = fill(blocks * each, &|at| {
            let (of_block, word) = (at / each, at % block);
            let (line, shift, quad) =
                (at % each / (shifts * quads * block), at / (quads * block) % shifts, at / block % quads);
            let tap = |i: usize| (quad * 4 + i).checked_sub(shift);
            let channel = channel(of_block * block + word);
            let bytes = std::array::from_fn(|i| tap(i).map_or(0, |tap| weight(channel, line, tap)) as u8);
            u32::from_le_bytes(bytes)
        });
        let lines_start = fill(words * lines, &|at| {
            let (of_block, line, word) = (at / (lines * block), at / block % lines, at % block);
            let channel = channel(of_block * block + word);
            let sum: i32 = (0..kernel[2]).map(|tap| i32::from(weight(channel, line, tap))).sum();
            (-i32::from(input_zero) * sum) as u32
        });
        let start =
            fill(words, &|at| bias.and_then(|bias| bias.get(channel(at))).map_or(0, |&bias| bias as u32));
        let scales = fill(words, &|at| scales.get(at).map_or(0, |scale| scale.to_bits()));
        let zero = input_zero;
        Some(Self { kernel, stride, channels, zero, lines, weights: packed, lines_start, start, scales })
    }

    pub(super) fn bytes(&self) -> usize {
        [&self.weights, &self.lines_start, &self.start, &self.scales].iter().map(|n| n.bytes()).sum()
    }

    /// The number of a line of taps that a window sees.
    #[inline(always)]
    fn line<T>(&self, window: &Window<T>, z: usize, y: usize) -> usize {
        (window.first_tap[0] + z) * self.kernel[1] + window.first_tap[1] + y
    }

    /// Computes a window of at most [`MAX_PIXELS`] pixels, and says how many channels, from the first on, it did.
    #[inline(always)]
    pub(super) fn compute<S: Simd, T: Element>(
        &self,
        s: S,
        window: &Window<T>,
        epilogue: &Epilogue<'_, T>,
        output: &RowsMut<'_, T>,
    ) -> usize {
        macro_rules! pick {
            ($($width:literal, $stride:literal: $($pixels:literal)*;)*) => {
                match (self.kernel[2], self.stride, window.pixels) {
                    $($(($width, $stride, $pixels) => {
                        s.call(TileOp::<T, $pixels, $width, $stride> { quads: self, window, epilogue, output });
                    })*)*
                    _ => return 0,
                }
            };
        }
        pick!(3, 1: 1 2 3 4; 3, 2: 1 2 3 4; 5, 1: 1 2 3 4; 5, 2: 1 2 3 4;);
        self.channels
    }
}

/// A tile of pixels, all channels.
struct TileOp<'a, T, const PIXELS: usize, const WIDTH: usize, const STRIDE: usize> {
    quads: &'a LevelQuads,
    window: &'a Window<T>,
    epilogue: &'a Epilogue<'a, T>,
    output: &'a RowsMut<'a, T>,
}

impl<T: Element, const PIXELS: usize, const WIDTH: usize, const STRIDE: usize> SimdOp
    for TileOp<'_, T, PIXELS, WIDTH, STRIDE>
{
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let channels = self.quads.channels;
        let mut channel = 0;
        while channel + VECTORS * S::LANES <= channels {
            self.block::<S, true>(s, channel);
            channel += VECTORS * S::LANES;
        }
        if channel < channels {
            self.block::<S, false>(s, channel);
        }
    }
}

/// Does `$body` for each number below `$end`, at most 6, as a constant `$i`.
macro_rules! written_out {
    ($i:ident below $end:expr => $body:block) => {
        written_out!(@each [0 1 2 3 4 5] $i $end, $body)
    };
    (@each [$($number:literal)*] $i:ident $end:expr, $body:block) => {
        $(if $number < $end {
            #[allow(non_upper_case_globals)]
            const $i: usize = $number;
            $body
        })*
    };
}

impl<T: Element, const PIXELS: usize, const WIDTH: usize, const STRIDE: usize>
    TileOp<'_, T, PIXELS, WIDTH, STRIDE>
{
    /// Input pixels that the tile sees in a line.
    const SPAN: usize = (PIXELS - 1) * STRIDE + WIDTH;

    /// The quad that the first taps of an output pixel are in, counted from the tile's first pixel in steps of two
    /// pixels, and the taps its weights are shifted by.
    const fn place(pixel: usize) -> (usize, usize) {
        if STRIDE == 1 { (pixel / 2, pixel % 2) } else { (pixel, 0) }
    }

    /// Quads of the tile, counted in steps of two pixels.
    const STEPS: usize = Self::place(PIXELS - 1).0 + 2 * (quads(WIDTH, STRIDE) - 1) + 1;

    /// A block of channels from `channel` on; all of them exist where `FULL`.
    #[inline(always)]
    fn block<S: Simd, const FULL: bool>(&self, s: S, channel: usize) {
        let Self { quads: all, window, epilogue, output } = *self;
        let (block, left) = (channel / (VECTORS * S::LANES), all.channels - channel);
        let vectors = |numbers: &AlignedNumbers, first: usize| {
            numbers.as_slice()[first * VECTORS * S::LANES..].as_ptr()
        };
        let per_line = shifts(STRIDE) * quads(WIDTH, STRIDE);
        let weights = vectors(&all.weights, block * all.lines * per_line);
        let lines_start = vectors(&all.lines_start, block * all.lines);
        let (bias, scales) = (vectors(&all.start, block), vectors(&all.scales, block));
        // SAFETY: weights, starts and scales hold this block; a window's taps are pixels inside the input, which have
        // `left` channels from this one on, a multiple of four; several pixels see all taps along the width; the window
        // names `PIXELS` output rows, which no other window names.
        unsafe {
            let mut start = [s.zero(); VECTORS];
            for (v, start) in start.iter_mut().enumerate() {
                *start = s.load(bias.add(v * S::LANES));
            }
            for z in 0..window.taps[0] {
                for y in 0..window.taps[1] {
                    let line = all.line(window, z, y);
                    for (v, start) in start.iter_mut().enumerate() {
                        let at = (line * VECTORS + v) * S::LANES;
                        *start = s.add_i32(*start, s.load(lines_start.add(at)));
                    }
                }
            }
            let padding = s.splat_bits(u32::from_le_bytes([all.zero; 4]));
            let mut sums = [start; PIXELS];
            for z in 0..window.taps[0] {
                for y in 0..window.taps[1] {
                    let weights = weights.add(all.line(window, z, y) * per_line * VECTORS * S::LANES);
                    let (_, input) = window.tap_line(all.kernel, z, y);
                    // Of a single pixel, taps before and behind those it sees are padding.
                    let seen = window.first_tap[2]..window.first_tap[2] + window.taps[2];
                    let input = input.wrapping_add(channel).cast::<f32>();
                    let input = input.wrapping_byte_sub(seen.start * window.tap_steps[2]);
                    macro_rules! pixel {
                        ($number:expr) => {{
                            let p = input.wrapping_byte_add($number * window.tap_steps[2]);
                            if $number >= Self::SPAN {
                                s.zero()
                            } else if PIXELS == 1 && !seen.contains(&$number) {
                                padding
                            } else if FULL {
                                s.load(p)
                            } else {
                                s.load_partial(p, left / 4)
                            }
                        }};
                    }
                    let mut first = s.interleave_bytes(pixel!(0), pixel!(1));
                    written_out!(step below Self::STEPS => {
                        let second = s.interleave_bytes(pixel!(2 * step + 2), pixel!(2 * step + 3));
                        let [a, b] = s.interleave_byte_pairs(first[0], second[0]);
                        let [c, d] = s.interleave_byte_pairs(first[1], second[1]);
                        let quad = [a, b, c, d];
                        for (pixel, sums) in sums.iter_mut().enumerate() {
                            let (at, shift) = Self::place(pixel);
                            for number in 0..quads(WIDTH, STRIDE) {
                                if at + 2 * number == step {
                                    let from = (shift * quads(WIDTH, STRIDE) + number) * VECTORS;
                                    for (v, sum) in sums.iter_mut().enumerate() {
                                        let weight = s.load(weights.add((from + v) * S::LANES));
                                        *sum = s.dot_u8(quad[v], weight, *sum);
                                    }
                                }
                            }
                        }
                        first = second;
                    });
                }
            }
            let mut numbers = [[s.zero(); VECTORS]; PIXELS];
            for (numbers, &sums) in numbers.iter_mut().zip(&sums) {
                *numbers = s.groups_in_order(sums);
                for (v, number) in numbers.iter_mut().enumerate() {
                    *number = s.mul(s.i32_to_f32(*number), s.load(scales.add(v * S::LANES)));
                }
            }
            let valid = left.min(VECTORS * S::LANES);
            let destination = Destination::new(output, epilogue, channel, valid, window.outputs.as_ptr());
            destination.store(s, &numbers);
        }
    }
}
