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
        let Self { problem, prepared, out_size, input, output, .. } = self;
        let [_, height, width] = [0, 1, 2].map(|axis| Axis::of(problem, axis));
        // Outputs from `inside.start` on, in steps of a tile, see nothing but pixels of the image.
        let first = width.pad.div_ceil(width.stride).min(out_size[2]);
        let room = (width.size + width.pad).checked_sub(first * width.stride + WORDS * WORD);
        let most = room.map_or(0, |room| room / (OUTPUTS * width.stride) + 1);
        let tiles = most.min((out_size[2] - first) / OUTPUTS);
        for line in self.lines.clone() {
            let first_row = line * out_size[2];
            let pixel = Pixel::of_row(first_row, *out_size);
            let mut lines = [(prepared.zeros.as_ptr(), 0); MOST_LINES];
            for (tap, place) in lines.iter_mut().enumerate().take(height.kernel) {
                if let Some(y) = height.input(pixel.y, tap) {
                    let from = ((pixel.image * problem.in_size[0] + pixel.z) * height.size + y) * width.size;
                    *place = (input.ptr().wrapping_add(from * input.row_stride()), input.row_stride());
                }
            }
            let lines = &lines[..height.kernel];
            let line = Line { prepared, epilogue: &self.epilogue, output, width, lines, first_row };
            for x in (0..first).chain(first + tiles * OUTPUTS..out_size[2]) {
                s.call(EdgeOp::<WORDS, OUTPUTS> { line: &line, x });
            }
            s.call(InsideOp::<WORDS, OUTPUTS> { line: &line, x: first, tiles });
        }
    }
}

/// A line of outputs.
struct Line<'a> {
    prepared: &'a Prepared,
    epilogue: &'a Epilogue<'a, u8>,
    output: &'a RowsMut<'a, u8>,
    width: Axis,
    /// Where the line of the input lies that each line of the kernel sees, and the bytes from pixel to pixel; where it is
    /// padding, a pixel of zero points and no bytes.
    lines: &'a [(*const u8, usize)],
    /// The output row of the first.
    first_row: usize,
}

/// The rows of a tile, counted from its first.
static ROWS: [usize; 4] = [0, 1, 2, 3];

impl Line<'_> {
    /// Where a vector of channels of the outputs from `x` on goes.
    #[inline(always)]
    fn destination(&self, channel: usize, valid: usize, x: usize) -> Destination<u8> {
        Destination::new(self.output, self.epilogue, channel, valid, ROWS.as_ptr())
            .from_row(self.first_row + x)
    }

    /// Where a channel of four pixels of the windows from output `x` on lies, of the line of the input that this line of
    /// the kernel sees; `INSIDE` where they are known to be in the image.
    ///
    /// No closure: what a compiler chooses not to inline would be compiled without the instructions of its caller.
    #[inline(always)]
    fn pixels<const INSIDE: bool>(
        &self,
        line: usize,
        x: usize,
        first: usize,
        channel: usize,
    ) -> [*const u8; WORD] {
        let (start, step) = self.lines[line];
        let at = (x * self.width.stride + first).wrapping_sub(self.width.pad);
        let pixel = start.wrapping_add(at.wrapping_mul(step));
        let mut pixels =
            [pixel, pixel.wrapping_add(step), pixel.wrapping_add(2 * step), pixel.wrapping_add(3 * step)];
        for (i, pixel) in pixels.iter_mut().enumerate() {
            if !INSIDE && at.wrapping_add(i) >= self.width.size {
                *pixel = self.prepared.zeros.as_ptr();
            }
            *pixel = pixel.wrapping_add(channel);
        }
        pixels
    }

    /// The numbers of a vector of channels of `COUNT` outputs from `x` on, all of whose pixels are in the image where
    /// `INSIDE`.
    ///
    /// # Safety
    /// `valid` channels exist from `channel` on.
    #[inline(always)]
    unsafe fn sums<S, const WORDS: usize, const OUTPUTS: usize, const COUNT: usize, const INSIDE: bool>(
        &self,
        s: S,
        channel: usize,
        valid: usize,
        x: usize,
    ) -> [[S::F32; 1]; COUNT]
    where
        S: Simd,
    {
        let Prepared { weights, bias, scales, .. } = self.prepared;
        let padded = bias.as_slice().len();
        // SAFETY: biases, scales and weights are padded to whole vectors; pixels are promised by the caller.
        unsafe {
            let mut sums = [[s.load(bias.as_slice().as_ptr().add(channel))]; COUNT];
            for plane in weights {
                let plane = plane.as_slice().as_ptr().wrapping_add(channel);
                for line in 0..self.lines.len() {
                    for word in 0..WORDS {
                        let pixels = self.pixels::<INSIDE>(line, x, word * WORD, channel);
                        let pixels = if valid == S::LANES {
                            s.load_fours(pixels)
                        } else {
                            s.load_fours_partial(pixels, valid)
                        };
                        for (output, sum) in sums.iter_mut().enumerate() {
                            let row = (line * OUTPUTS + output) * WORDS + word;
                            sum[0] = s.dot_u8(pixels, s.load(plane.wrapping_add(row * padded)), sum[0]);
                        }
                    }
                }
            }
            let scale = s.load(scales.as_slice().as_ptr().add(channel));
            for sum in &mut sums {
                sum[0] = s.mul(s.from_i32(sum[0]), scale);
            }
            sums
        }
    }
}

/// An output whose tile would reach beyond the image.
struct EdgeOp<'a, const WORDS: usize, const OUTPUTS: usize> {
    line: &'a Line<'a>,
    x: usize,
}

impl<const WORDS: usize, const OUTPUTS: usize> SimdOp for EdgeOp<'_, WORDS, OUTPUTS> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Self { line, x } = self;
        let channels = line.output.channels();
        for channel in (0..channels).step_by(S::LANES) {
            let valid = (channels - channel).min(S::LANES);
            // SAFETY: pixels have all channels; the row of the output is the line's own.
            unsafe {
                let sums = line.sums::<S, WORDS, OUTPUTS, 1, false>(s, channel, valid, x);
                line.destination(channel, valid, x).store(s, &sums);
            }
        }
    }
}

/// Tiles of outputs from `x` on that see pixels of the image only.
struct InsideOp<'a, const WORDS: usize, const OUTPUTS: usize> {
    line: &'a Line<'a>,
    x: usize,
    tiles: usize,
}

impl<const WORDS: usize, const OUTPUTS: usize> SimdOp for InsideOp<'_, WORDS, OUTPUTS> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Self { line, x, tiles } = self;
        let channels = line.output.channels();
        for channel in (0..channels).step_by(S::LANES) {
            let valid = (channels - channel).min(S::LANES);
            let mut destination = line.destination(channel, valid, x);
            for tile in 0..tiles {
                let x = x + tile * OUTPUTS;
                // SAFETY: pixels have all channels; the rows of the output are the line's own.
                unsafe {
                    let sums = line.sums::<S, WORDS, OUTPUTS, OUTPUTS, true>(s, channel, valid, x);
                    destination.store(s, &sums);
                }
                destination = destination.from_row(OUTPUTS);
            }
        }
    }
}
