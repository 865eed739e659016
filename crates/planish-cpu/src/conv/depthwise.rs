//! Convolution of each channel by itself.
//!
//! Depthwise layers (Chollet, *Xception*, arXiv 1610.02357; Howard et al., *MobileNets*, arXiv 1704.04861) do
//! nine multiply-adds for each number read, so they are bound by memory, and a matrix product would waste
//! nearly all of its lanes. Here a vector is a run of channels of one pixel; a tile of neighbouring pixels
//! shares each loaded weight.

use super::dense::activations_streamed;
use super::depthwise_levels::{self, LevelQuads};
use super::exact_sums::{self, ExactSums};
use super::geometry::{Axis, valid_taps};
use super::window::{Walk, Window};
use super::{
    ALL_ELEMENTS, AnyCall, ConvAlgorithm, ConvCall, ConvElement, ConvProblem, PreparedConv, Weights,
    WeightsKey,
};
use crate::element::{Element, ElementType};
use crate::epilogue::{Destination, Epilogue};
use crate::for_element;
use crate::isa::Isa;
use crate::matmul::AlignedNumbers;
use crate::rates::{Rate, Work};
use crate::simd::{Simd, SimdOp, dispatch_bytes};
use crate::threads::ThreadPool;
use crate::view::RowsMut;

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depthwise;

impl ConvAlgorithm for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn elements(&self) -> &'static [ElementType] {
        ALL_ELEMENTS
    }

    fn accepts(&self, problem: &ConvProblem, _isa: Isa) -> Result<(), String> {
        problem.validate()?;
        if problem.group_in() != 1 || problem.group_out() != 1 {
            return Err("depthwise needs one input and one output channel in each group".to_owned());
        }
        exact_sums::check(problem)
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        let vectors = problem.out_channels.div_ceil(isa.lanes()) as f64;
        let rows = problem.out_rows() as f64;
        let taps = valid_taps(problem) * vectors;
        let [_, _, stride] = problem.stride;
        // Where `Tile::compute` has a loop whose neighbouring pixels share what they load.
        let shares = problem.dilation[2] == 1
            && matches!(
                (isa.vectors(), problem.kernel[2], stride),
                (Isa::Avx512, 3, 1 | 2) | (Isa::Avx512, 5, 1) | (Isa::Avx2, 3, 1)
            );
        let lone = if shares { edge_share(problem) } else { 1.0 };
        let mut work = Work::of(&[
            (Rate::DepthwiseTap, taps * (1.0 - lone)),
            (Rate::DepthwiseLoneTap, taps * lone),
            (Rate::DepthwiseVector, rows * vectors),
            (Rate::DepthwisePixel, rows),
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
        let (channels, taps) = (problem.out_channels, problem.taps());
        let padded = channels.next_multiple_of(isa.lanes());
        let mut packed = AlignedNumbers::zeros(taps * padded);
        for (tap, row) in packed.as_mut_slice().chunks_exact_mut(padded).enumerate() {
            for (channel, slot) in row[..channels].iter_mut().enumerate() {
                *slot = weights.values[channel * taps + tap];
            }
        }
        let mut padded_bias = AlignedNumbers::zeros(padded);
        if let Some(bias) = weights.bias {
            padded_bias.as_mut_slice()[..channels].copy_from_slice(bias);
        }
        let key = self.weights_key(problem, isa);
        let levels = ExactSums::of(problem, isa.lanes(), &weights);
        let quads = LevelQuads::of(problem, isa, &weights);
        Ok(Box::new(PreparedDepthwise { key, weights: packed, bias: padded_bias, levels, quads }))
    }
}

/// The share of the output pixels whose windows are clipped at an end of their line, and so computed one by one.
fn edge_share(problem: &ConvProblem) -> f64 {
    let width = problem.out_size().map_or(1, |size| size[2]);
    let interior = Axis::of(problem, 2).interior(width);
    1.0 - interior.len() as f64 / width.max(1) as f64
}

/// Weights as `[tap][channels]` and the bias, channels padded to whole vectors.
struct PreparedDepthwise {
    key: WeightsKey,
    weights: AlignedNumbers,
    bias: AlignedNumbers,
    /// Where the problem is on levels.
    levels: Option<ExactSums>,
    /// Where it is, and there are kernels for four taps at a time.
    quads: Option<LevelQuads>,
}

impl PreparedConv for PreparedDepthwise {
    fn algorithm(&self) -> &dyn ConvAlgorithm {
        &Depthwise
    }

    fn key(&self) -> &WeightsKey {
        &self.key
    }

    fn workspace_len(&self, _problem: &ConvProblem, _threads: usize) -> usize {
        0
    }

    unsafe fn compute(&self, problem: &ConvProblem, pool: &ThreadPool, call: AnyCall<'_>) {
        for_element!(problem.element, T => {
            if let Some(call) = T::restore(call) {
                self.compute_on(problem, pool, call);
            }
        });
    }

    fn bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes() + self.quads.as_ref().map_or(0, LevelQuads::bytes)
    }
}

impl PreparedDepthwise {
    fn compute_on<T: Element>(&self, problem: &ConvProblem, pool: &ThreadPool, call: ConvCall<'_, T>) {
        let isa = self.key.isa;
        let ConvCall { input, epilogue, output, .. } = call;
        let pixels = if self.quads.is_some() { depthwise_levels::MAX_PIXELS } else { max_pixels(isa) };
        let Some(walk) = Walk::new(problem, &input, pixels) else { return };
        walk.for_each_line(pool, &|lines| {
            let lines = Lines { walk: &walk, prepared: self, epilogue, output: &output, lines };
            if T::INTEGER { dispatch_bytes(isa, lines) } else { T::dispatch(isa, lines) }
        });
    }
}

/// The pixels of a tile, so that the sums and a few weights fit the registers.
fn max_pixels(isa: Isa) -> usize {
    match isa {
        Isa::Portable | Isa::Avx2 => 4,
        Isa::Avx512 | Isa::Amx => 8,
    }
}

/// Some output lines.
struct Lines<'a, T> {
    walk: &'a Walk<'a, T>,
    prepared: &'a PreparedDepthwise,
    epilogue: Epilogue<'a, T>,
    output: &'a RowsMut<'a, T>,
    lines: std::ops::Range<usize>,
}

impl<T: Element> SimdOp for Lines<'_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Lines { walk, prepared, epilogue, output, lines } = self;
        for line in lines {
            walk.windows(line, |window| {
                let first = match &prepared.quads {
                    Some(quads) if T::INTEGER => quads.compute(s, window, &epilogue, output),
                    _ => 0,
                };
                if first < output.channels() {
                    Tile { window, prepared, epilogue: &epilogue, output, first }.compute(s);
                }
            });
        }
    }
}

/// A tile of pixels, all channels from the first on.
struct Tile<'a, T> {
    window: &'a Window<T>,
    prepared: &'a PreparedDepthwise,
    epilogue: &'a Epilogue<'a, T>,
    output: &'a RowsMut<'a, T>,
    first: usize,
}

impl<T: Element> Tile<'_, T> {
    /// Picks the loop for the size of the tile and the kernel.
    #[inline(always)]
    fn compute<S: Simd>(self, s: S) {
        macro_rules! pick {
            ($width:literal, $stride:literal: $($pixels:literal)*) => {
                match self.window.pixels {
                    $($pixels => s.call(TileOp::<T, $pixels, $width, $stride>(self)),)*
                    _ => s.call(TileOp::<T, 1, 0, 0>(self)),
                }
            };
        }
        let Window { pixels, taps, tap_steps, pixel_step, .. } = *self.window;
        let stride = pixel_step.checked_div(tap_steps[2]).unwrap_or(0);
        let neighbours = pixels > 2 && stride * tap_steps[2] == pixel_step;
        match (S::ISA, taps[2], stride) {
            (Isa::Avx512, 3, 1) if neighbours => pick!(3, 1: 3 4 5 6 7 8),
            (Isa::Avx512, 3, 2) if neighbours => pick!(3, 2: 3 4 5 6 7 8),
            (Isa::Avx512, 5, 1) if neighbours => pick!(5, 1: 3 4 5 6 7 8),
            (Isa::Avx2, 3, 1) if neighbours => pick!(3, 1: 3 4),
            (Isa::Avx512 | Isa::Amx, ..) => pick!(0, 0: 2 3 4 5 6 7 8),
            (Isa::Avx2 | Isa::Portable, ..) => pick!(0, 0: 2 3 4),
        }
    }
}

/// `WIDTH` taps along the width, all inside, `STRIDE` of them from pixel to pixel; any number where it is zero.
struct TileOp<'a, T, const PIXELS: usize, const WIDTH: usize, const STRIDE: usize>(Tile<'a, T>);

impl<T: Element, const PIXELS: usize, const WIDTH: usize, const STRIDE: usize> SimdOp
    for TileOp<'_, T, PIXELS, WIDTH, STRIDE>
{
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let channels = self.0.output.channels();
        let mut channel = self.0.first;
        // A single pixel needs more vectors at a time to keep several sums going.
        while PIXELS == 1 && channel + 4 * S::LANES <= channels {
            self.block::<S, 4, true>(s, channel);
            channel += 4 * S::LANES;
        }
        while channel + 2 * S::LANES <= channels {
            self.block::<S, 2, true>(s, channel);
            channel += 2 * S::LANES;
        }
        if channel + S::LANES <= channels {
            self.block::<S, 1, true>(s, channel);
            channel += S::LANES;
        }
        if channel < channels {
            self.block::<S, 1, false>(s, channel);
        }
    }
}

impl<T: Element, const PIXELS: usize, const WIDTH: usize, const STRIDE: usize>
    TileOp<'_, T, PIXELS, WIDTH, STRIDE>
{
    /// `VECTORS` vectors of channels from `channel`; all of their lanes exist where `FULL`.
    #[inline(always)]
    fn block<S: Simd, const VECTORS: usize, const FULL: bool>(&self, s: S, channel: usize) {
        let Tile { window, prepared, epilogue, output, .. } = self.0;
        let weights = prepared.weights.as_slice().as_ptr().wrapping_add(channel);
        let padded = prepared.bias.as_slice().len();
        let bias = prepared.bias.as_slice()[channel..].as_ptr();
        let left = output.channels() - channel;
        let mut sums = [[s.zero(); VECTORS]; PIXELS];
        for j in 0..VECTORS {
            let offset = j * S::LANES;
            let start = match &prepared.levels {
                Some(levels) if T::INTEGER => {
                    if window.taps == prepared.key.kernel {
                        levels.start(s, channel + offset)
                    } else {
                        let mut seen = s.zero();
                        window.for_each_tap(prepared.key.kernel, |tap, _| {
                            // SAFETY: weights are padded to whole vectors.
                            seen =
                                s.add(seen, unsafe { s.load(weights.wrapping_add(tap * padded + offset)) });
                        });
                        levels.start_of(s, channel + offset, seen)
                    }
                }
                // SAFETY: the bias is padded to whole vectors.
                _ => unsafe { s.load(bias.add(offset)) },
            };
            for row in &mut sums {
                row[j] = start;
            }
        }
        // SAFETY: a window's taps are pixels inside the input, of which `left` channels from this one on exist.
        let load = |p: *const T| unsafe { if FULL { T::load(s, p) } else { T::load_partial(s, p, left) } };
        if WIDTH == 0 {
            window.for_each_tap(prepared.key.kernel, |tap, input| {
                let input = input.wrapping_add(channel);
                let weights = weights.wrapping_add(tap * padded);
                for j in 0..VECTORS {
                    let offset = j * S::LANES;
                    // SAFETY: weights are padded to whole vectors.
                    let weight = unsafe { s.load(weights.add(offset)) };
                    for (i, row) in sums.iter_mut().enumerate() {
                        let x = load(input.wrapping_add(i * window.pixel_step + offset));
                        row[j] = s.mul_add(x, weight, row[j]);
                    }
                }
            });
        } else {
            // With everything unrolled, an input that several pixels see is loaded once.
            window.for_each_tap_line(prepared.key.kernel, |tap, input| {
                let input = input.wrapping_add(channel);
                let weights = weights.wrapping_add(tap * padded);
                for j in 0..VECTORS {
                    let offset = j * S::LANES;
                    let mut line = [s.zero(); WIDTH];
                    for (k, weight) in line.iter_mut().enumerate() {
                        // SAFETY: weights are padded to whole vectors.
                        *weight = unsafe { s.load(weights.add(k * padded + offset)) };
                    }
                    for (i, row) in sums.iter_mut().enumerate() {
                        for (k, &weight) in line.iter().enumerate() {
                            let x = load(input.wrapping_add((i * STRIDE + k) * window.tap_steps[2] + offset));
                            row[j] = s.mul_add(x, weight, row[j]);
                        }
                    }
                }
            });
        }
        if let Some(levels) = &prepared.levels
            && T::INTEGER
        {
            levels.finish(s, channel, &mut sums);
        }
        let valid = left.min(VECTORS * S::LANES);
        let destination = Destination::new(output, epilogue, channel, valid, window.outputs.as_ptr());
        // SAFETY: the window names `PIXELS` output rows, which no other window names.
        unsafe { destination.store(s, &sums) };
    }
}
