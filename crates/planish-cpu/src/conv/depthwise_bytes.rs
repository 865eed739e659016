//! Convolution of each channel of levels by itself, four bytes at a time.
//!
//! The instructions that multiply fours of bytes add up neighbours in memory, which in channels-last order are four
//! channels, and a depthwise layer wants four pixels of one. So the bytes of four neighbouring pixels are transposed, once
//! for all the outputs of the line that see them: an output whose window starts at another of the four pixels is the same
//! words times weights that are moved along, zeros before and behind them. With one word of pixels for a window of three
//! taps and two outputs that is 2 multiplications and 4 permutations where numbers in `f32` take 6 multiply-adds and 8
//! conversions.
//!
//! Pixels outside of the image are read from a line of its zero points, so that all sums have all of their taps.

use super::dense::{IntegerSums, activations_streamed};
use super::geometry::{Axis, Pixel};
use super::{AnyCall, ConvAlgorithm, ConvCall, ConvElement, ConvProblem, PreparedConv, Weights, WeightsKey};
use crate::element::{ElementType, Factor};
use crate::epilogue::{Destination, Epilogue};
use crate::isa::Isa;
use crate::matmul::AlignedNumbers;
use crate::rates::{Rate, Work};
use crate::simd::{Simd, SimdOp};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct DepthwiseBytes;

/// How windows along the width are cut into words of four pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Words {
    /// Words of pixels that a tile reads of each line.
    words: usize,
    /// Neighbouring outputs whose windows lie in them.
    outputs: usize,
}

/// The pixels of a word.
const WORD: usize = 4;

/// The most words of a tile.
const MOST_WORDS: usize = 2;

impl Words {
    /// The cut for a window of so many taps, where there is one.
    fn of(taps: usize, stride: usize) -> Option<Words> {
        let outputs = |words: usize| (words * WORD).checked_sub(taps).map(|left| left / stride + 1);
        // Two outputs of three taps see four pixels; longer windows, and steps of two, want eight.
        let words = if (2..=3).contains(&taps) && stride == 1 { 1 } else { 2 };
        outputs(words).map(|outputs| Words { words, outputs: outputs.min(4) })
    }
}

impl ConvAlgorithm for DepthwiseBytes {
    fn name(&self) -> &'static str {
        "depthwise bytes"
    }

    fn elements(&self) -> &'static [ElementType] {
        &[ElementType::U8]
    }

    fn accepts(&self, problem: &ConvProblem, _isa: Isa) -> Result<(), String> {
        problem.check_element(self)?;
        problem.validate()?;
        if problem.group_in() != 1 || problem.group_out() != 1 {
            return Err("depthwise bytes needs one input and one output channel in each group".to_owned());
        }
        if problem.kernel[0] != 1 || problem.dilation[2] != 1 {
            return Err(
                "depthwise bytes needs two dimensions and neighbouring taps along the width".to_owned()
            );
        }
        if problem.kernel[1] > MOST_LINES {
            return Err(format!("depthwise bytes takes kernels of at most {MOST_LINES} lines"));
        }
        match Words::of(problem.kernel[2], problem.stride[2]) {
            Some(_) => Ok(()),
            None => Err(format!("depthwise bytes has no words for {} taps", problem.kernel[2])),
        }
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        let vectors = problem.out_channels.div_ceil(isa.serving(ElementType::U8).lanes()) as f64;
        let Some(Words { words, outputs }) = Words::of(problem.kernel[2], problem.stride[2]) else {
            return Work::default();
        };
        let lines = problem.out_size().map_or(0, |size| problem.batch * size[0] * size[1]);
        let width = problem.out_size().map_or(0, |size| size[2]);
        let tiles = (lines * width.div_ceil(outputs)) as f64 * vectors;
        // A word is transposed in about as many steps as it has pixels; without instructions for bytes, products take
        // as long again.
        let product = if isa.has_vnni() { 1 } else { 5 };
        let steps = problem.kernel[1] * words * (WORD + outputs * product);
        let mut work = Work::of(&[
            (Rate::MultiplyAdd, tiles * steps as f64),
            (Rate::ResultVector, (lines * width) as f64 * vectors),
            (Rate::DepthwisePixel, (lines * width) as f64),
        ]);
        work += activations_streamed(problem);
        work.shared(threads as f64).called(1, threads)
    }

    fn prepare(
        &self,
        problem: &ConvProblem,
        isa: Isa,
        weights: Weights<'_>,
    ) -> Result<Box<dyn PreparedConv>, String> {
        let isa = isa.serving(problem.element);
        self.accepts(problem, isa)?;
        weights.check(problem)?;
        let levels = weights.levels.ok_or("levels that are not said")?;
        let [_, lines, taps] = problem.kernel;
        let Words { words, outputs } = Words::of(taps, problem.stride[2]).ok_or("no words for these taps")?;
        let channels = problem.out_channels;
        let padded = channels.next_multiple_of(isa.lanes());
        // Differences of levels that no byte holds are sums of several that do.
        let mut left = weights.values.to_vec();
        let mut packed = Vec::new();
        while packed.is_empty() || left.iter().any(|&w| w != 0.0) {
            let part: Vec<i8> = left.iter().map(|&w| w.clamp(-128.0, 127.0) as i8).collect();
            left.iter_mut().zip(&part).for_each(|(w, &part)| *w -= f32::from(part));
            let mut plane = AlignedNumbers::zeros(lines * outputs * words * padded);
            let rows = plane.as_mut_elements::<u8>().chunks_exact_mut(padded * WORD);
            for (row, slots) in rows.enumerate() {
                let (line, output, word) = (row / words / outputs, row / words % outputs, row % words);
                for (channel, slots) in slots.chunks_exact_mut(WORD).enumerate().take(channels) {
                    for (i, slot) in slots.iter_mut().enumerate() {
                        let tap = (word * WORD + i).checked_sub(output * problem.stride[2]);
                        if let Some(tap) = tap.filter(|&tap| tap < taps) {
                            *slot = part[(channel * lines + line) * taps + tap] as u8;
                        }
                    }
                }
            }
            packed.push(plane);
        }
        let IntegerSums { bias, scales } = IntegerSums::of(problem, weights.values, levels);
        let (mut padded_bias, mut padded_scales) =
            (AlignedNumbers::zeros(padded), AlignedNumbers::zeros(padded));
        padded_bias.as_mut_slice()[..channels].copy_from_slice(&bias);
        padded_scales.as_mut_slice()[..channels].copy_from_slice(&scales.scales);
        Ok(Box::new(Prepared {
            key: self.weights_key(problem, isa),
            stride: problem.stride[2],
            weights: packed,
            bias: padded_bias,
            scales: padded_scales,
            zeros: vec![levels.input_zero; channels],
        }))
    }

    /// Weights are moved along by the stride.
    fn weights_key(&self, problem: &ConvProblem, isa: Isa) -> WeightsKey {
        WeightsKey { stride: Some(problem.stride[2]), ..WeightsKey::new(self.name(), problem, isa) }
    }
}

/// Packed weights.
struct Prepared {
    key: WeightsKey,
    stride: usize,
    /// Planes that are added up, each `[line][output][word][channels]` words of four taps.
    weights: Vec<AlignedNumbers>,
    /// The bits of integers, padded to whole vectors.
    bias: AlignedNumbers,
    scales: AlignedNumbers,
    /// A pixel of zero points.
    zeros: Vec<u8>,
}

impl PreparedConv for Prepared {
    fn algorithm(&self) -> &dyn ConvAlgorithm {
        &DepthwiseBytes
    }

    fn key(&self) -> &WeightsKey {
        &self.key
    }

    fn workspace_len(&self, _problem: &ConvProblem, _threads: usize) -> usize {
        0
    }

    unsafe fn compute(&self, problem: &ConvProblem, pool: &ThreadPool, call: AnyCall<'_>) {
        let Some(ConvCall { input, epilogue, output, .. }) = u8::restore(call) else { return };
        let Ok(out_size) = problem.out_size() else { return };
        let Some(words) = Words::of(problem.kernel[2], self.stride) else { return };
        let lines = problem.batch * out_size[0] * out_size[1];
        let line_macs = (problem.macs() / lines.max(1) as u64) as usize;
        let least = (128 * 1024 / line_macs.max(1)).max(1);
        let step = lines.div_ceil(pool.threads() * 4).max(least).max(1);
        pool.run(lines.div_ceil(step), &|task| {
            let lines = task * step..((task + 1) * step).min(lines);
            let run =
                Lines { problem, prepared: self, words, out_size, input, epilogue, output: &output, lines };
            u8::dispatch_products(self.key.isa, run);
        });
    }

    fn bytes(&self) -> usize {
        self.weights.iter().map(AlignedNumbers::bytes).sum::<usize>()
            + self.bias.bytes()
            + self.scales.bytes()
    }
}

/// The most lines of a kernel: as many as addresses are kept for.
const MOST_LINES: usize = 8;

/// Some output lines.
struct Lines<'a> {
    problem: &'a ConvProblem,
    prepared: &'a Prepared,
    words: Words,
    out_size: [usize; 3],
    input: Rows<'a, u8>,
    epilogue: Epilogue<'a, u8>,
    output: &'a RowsMut<'a, u8>,
    lines: std::ops::Range<usize>,
}

impl SimdOp for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Words { words, outputs } = self.words;
        match (words, outputs) {
            (1, 1) => self.each::<S, 1, 1>(s),
            (1, 2) => self.each::<S, 1, 2>(s),
            (1, 3) => self.each::<S, 1, 3>(s),
            (2, 1) => self.each::<S, 2, 1>(s),
            (2, 2) => self.each::<S, 2, 2>(s),
            (2, 3) => self.each::<S, 2, 3>(s),
            (2, 4) => self.each::<S, 2, 4>(s),
            _ => debug_assert!(false, "no tile of {words} words and {outputs} outputs"),
        }
    }
}

impl Lines<'_> {
    #[inline(always)]
    fn each<S: Simd, const WORDS: usize, const OUTPUTS: usize>(&self, s: S) {
        let Self { problem, prepared, out_size, input, .. } = self;
        let [_, height, width] = [0, 1, 2].map(|axis| Axis::of(problem, axis));
        let zeros = prepared.zeros.as_ptr();
        for line in self.lines.clone() {
            let first_row = line * out_size[2];
            let pixel = Pixel::of_row(first_row, *out_size);
            for x in (0..out_size[2]).step_by(OUTPUTS) {
                let mut tile = Tile {
                    prepared,
                    pixels: [[zeros; MOST_WORDS * WORD]; MOST_LINES],
                    lines: height.kernel,
                    epilogue: &self.epilogue,
                    output: self.output,
                    rows: std::array::from_fn(|i| first_row + x + i),
                };
                for (tap, pixels) in tile.pixels.iter_mut().enumerate().take(height.kernel) {
                    let Some(y) = height.input(pixel.y, tap) else { continue };
                    let from = (pixel.image * problem.in_size[0] + pixel.z) * height.size + y;
                    for (i, address) in pixels.iter_mut().enumerate().take(WORDS * WORD) {
                        let at = (x * width.stride + i).wrapping_sub(width.pad);
                        if at < width.size {
                            *address =
                                input.ptr().wrapping_add((from * width.size + at) * input.row_stride());
                        }
                    }
                }
                // A last tile has fewer outputs than its windows could be.
                let count = OUTPUTS.min(out_size[2] - x);
                if count == OUTPUTS {
                    s.call(TileOp::<WORDS, OUTPUTS, OUTPUTS>(&tile));
                } else {
                    match count {
                        1 => s.call(TileOp::<WORDS, OUTPUTS, 1>(&tile)),
                        2 => s.call(TileOp::<WORDS, OUTPUTS, 2>(&tile)),
                        _ => s.call(TileOp::<WORDS, OUTPUTS, 3>(&tile)),
                    }
                }
            }
        }
    }
}

/// Neighbouring outputs of a line, all channels.
struct Tile<'a> {
    prepared: &'a Prepared,
    /// For each line of the kernel, the pixels that the tile sees.
    pixels: [[*const u8; MOST_WORDS * WORD]; MOST_LINES],
    lines: usize,
    epilogue: &'a Epilogue<'a, u8>,
    output: &'a RowsMut<'a, u8>,
    /// The output rows.
    rows: [usize; 4],
}

/// `COUNT` outputs of a tile that weights are packed for `OUTPUTS` of.
struct TileOp<'a, const WORDS: usize, const OUTPUTS: usize, const COUNT: usize>(&'a Tile<'a>);

impl<const WORDS: usize, const OUTPUTS: usize, const COUNT: usize> SimdOp
    for TileOp<'_, WORDS, OUTPUTS, COUNT>
{
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let tile = self.0;
        let channels = tile.output.channels();
        let padded = tile.prepared.bias.as_slice().len();
        for channel in (0..channels).step_by(S::LANES) {
            let valid = (channels - channel).min(S::LANES);
            // SAFETY: biases, scales and weights are padded to whole vectors; pixels have all channels; the rows are the
            // tile's own.
            unsafe {
                let mut sums = [[s.load(tile.prepared.bias.as_slice()[channel..].as_ptr())]; COUNT];
                for plane in &tile.prepared.weights {
                    let plane = plane.as_slice().as_ptr().wrapping_add(channel);
                    for line in 0..tile.lines {
                        for word in 0..WORDS {
                            let pixels: [*const u8; WORD] = std::array::from_fn(|i| {
                                tile.pixels[line][word * WORD + i].wrapping_add(channel)
                            });
                            let word_of = if valid == S::LANES {
                                s.load_fours(pixels)
                            } else {
                                s.load_fours_partial(pixels, valid)
                            };
                            for (output, sum) in sums.iter_mut().enumerate() {
                                let row = (line * OUTPUTS + output) * WORDS + word;
                                sum[0] = s.dot_u8(word_of, s.load(plane.wrapping_add(row * padded)), sum[0]);
                            }
                        }
                    }
                }
                let scale = s.load(tile.prepared.scales.as_slice()[channel..].as_ptr());
                for sum in &mut sums {
                    sum[0] = s.mul(s.from_i32(sum[0]), scale);
                }
                Destination::new(tile.output, tile.epilogue, channel, valid, tile.rows.as_ptr())
                    .store(s, &sums);
            }
        }
    }
}
