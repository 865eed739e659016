//! Convolution in many narrow groups.
//!
//! ResNeXt (Xie et al., arXiv 1611.05431) has groups of 4 to 32 channels. A matrix product for each of them
//! would leave most lanes of a vector empty. Here one vector of output channels spans several groups: all of
//! their input channels are in one loaded vector too, and a permutation brings to each lane the input channel
//! of its own group, so that every lane of every multiply-add counts. Depthwise layers with several outputs for
//! each input are the case of one input channel a group.

use super::dense::activations_streamed;
use super::exact_sums::{self, ExactSums};
use super::geometry::valid_taps;
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
use crate::simd::{Simd, SimdOp};
use crate::threads::ThreadPool;
use crate::view::RowsMut;

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grouped;

/// The first input channel a vector of output channels needs, and how many from there.
fn input_span(problem: &ConvProblem, lanes: usize, block: usize) -> (usize, usize) {
    let (group_in, group_out) = (problem.group_in(), problem.group_out());
    let last = ((block + 1) * lanes).min(problem.out_channels) - 1;
    let (first_group, last_group) = (block * lanes / group_out, last / group_out);
    (first_group * group_in, (last_group - first_group + 1) * group_in)
}

impl ConvAlgorithm for Grouped {
    fn name(&self) -> &'static str {
        "grouped"
    }

    fn elements(&self) -> &'static [ElementType] {
        ALL_ELEMENTS
    }

    fn accepts(&self, problem: &ConvProblem, isa: Isa) -> Result<(), String> {
        problem.validate()?;
        if problem.groups == 1 {
            return Err("grouped needs several groups".to_owned());
        }
        let lanes = isa.serving(problem.element).lanes();
        let blocks = problem.out_channels.div_ceil(lanes);
        if (0..blocks).any(|block| input_span(problem, lanes, block).1 > lanes) {
            return Err(format!(
                "the groups of {lanes} output channels see more than {lanes} input channels"
            ));
        }
        exact_sums::check(problem)
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        let vectors = problem.out_channels.div_ceil(isa.lanes()) as f64;
        let rows = problem.out_rows() as f64;
        let taps = valid_taps(problem) * vectors;
        let mut work = Work::of(&[
            (Rate::GroupedStep, taps * problem.group_in() as f64),
            (Rate::GroupedTap, taps),
            (Rate::GroupedVector, rows * vectors),
            (Rate::GroupedPixel, rows),
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
        let lanes = isa.lanes();
        let (group_in, group_out, taps) = (problem.group_in(), problem.group_out(), problem.taps());
        let blocks = problem.out_channels.div_ceil(lanes);
        let mut packed = AlignedNumbers::zeros(blocks * taps * group_in * lanes);
        let mut choices = vec![0u32; blocks * group_in * lanes];
        let mut inputs = Vec::with_capacity(blocks);
        let mut padded_bias = AlignedNumbers::zeros(blocks * lanes);
        if let Some(bias) = weights.bias {
            padded_bias.as_mut_slice()[..problem.out_channels].copy_from_slice(bias);
        }
        for block in 0..blocks {
            let (first_input, _) = input_span(problem, lanes, block);
            inputs.push(first_input);
            for lane in 0..lanes.min(problem.out_channels - block * lanes) {
                let output = block * lanes + lane;
                for c in 0..group_in {
                    let input = output / group_out * group_in + c;
                    choices[(block * group_in + c) * lanes + lane] = (input - first_input) as u32;
                    for tap in 0..taps {
                        packed.as_mut_slice()[((block * taps + tap) * group_in + c) * lanes + lane] =
                            weights.values[(output * group_in + c) * taps + tap];
                    }
                }
            }
        }
        let key = self.weights_key(problem, isa);
        let levels = ExactSums::of(problem, lanes, &weights);
        Ok(Box::new(PreparedGrouped { key, weights: packed, choices, inputs, bias: padded_bias, levels }))
    }
}

/// Packed weights; a block is one vector of output channels.
struct PreparedGrouped {
    key: WeightsKey,
    /// `[block][tap][input channel of the group][lane]`
    weights: AlignedNumbers,
    /// `[block][input channel of the group][lane]`: where in the loaded vector a lane finds it.
    choices: Vec<u32>,
    /// The first input channel of each block.
    inputs: Vec<usize>,
    bias: AlignedNumbers,
    /// Where the problem is on levels.
    levels: Option<ExactSums>,
}

impl PreparedConv for PreparedGrouped {
    fn algorithm(&self) -> &dyn ConvAlgorithm {
        &Grouped
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
        self.weights.bytes() + self.bias.bytes() + self.choices.len() * size_of::<u32>()
    }
}

impl PreparedGrouped {
    fn compute_on<T: Element>(&self, problem: &ConvProblem, pool: &ThreadPool, call: ConvCall<'_, T>) {
        let isa = self.key.isa;
        let ConvCall { input, epilogue, output, .. } = call;
        let Some(walk) = Walk::new(problem, &input, max_pixels(isa)) else { return };
        walk.for_each_line(pool, &|lines| {
            T::dispatch(isa, Lines { walk: &walk, prepared: self, epilogue, output: &output, lines });
        });
    }
}

/// The pixels of a tile: an input vector and a sum for each of them must fit the registers.
fn max_pixels(isa: Isa) -> usize {
    match isa {
        Isa::Portable => 2,
        Isa::Avx2 => 6,
        Isa::Avx512 | Isa::Amx => 8,
    }
}

/// Some output lines.
struct Lines<'a, T> {
    walk: &'a Walk<'a, T>,
    prepared: &'a PreparedGrouped,
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
                let tile = Tile { window, prepared, epilogue: &epilogue, output };
                match window.pixels {
                    1 => s.call(TileOp::<T, 1>(tile)),
                    2 => s.call(TileOp::<T, 2>(tile)),
                    3 => s.call(TileOp::<T, 3>(tile)),
                    4 => s.call(TileOp::<T, 4>(tile)),
                    5 => s.call(TileOp::<T, 5>(tile)),
                    6 => s.call(TileOp::<T, 6>(tile)),
                    7 => s.call(TileOp::<T, 7>(tile)),
                    _ => s.call(TileOp::<T, 8>(tile)),
                }
            });
        }
    }
}

/// A tile of pixels, all channels.
struct Tile<'a, T> {
    window: &'a Window<T>,
    prepared: &'a PreparedGrouped,
    epilogue: &'a Epilogue<'a, T>,
    output: &'a RowsMut<'a, T>,
}

struct TileOp<'a, T, const PIXELS: usize>(Tile<'a, T>);

impl<T: Element, const PIXELS: usize> SimdOp for TileOp<'_, T, PIXELS> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let key = &self.0.prepared.key;
        for (block, &first_input) in self.0.prepared.inputs.iter().enumerate() {
            // Loading a whole vector where the input has one spares the masks.
            if first_input + S::LANES <= key.in_channels {
                self.block::<S, true>(s, block, first_input);
            } else {
                self.block::<S, false>(s, block, first_input);
            }
        }
    }
}

impl<T: Element, const PIXELS: usize> TileOp<'_, T, PIXELS> {
    /// One vector of output channels; a whole vector of input channels exists where `FULL`.
    #[inline(always)]
    fn block<S: Simd, const FULL: bool>(&self, s: S, block: usize, first_input: usize) {
        let Tile { window, prepared, epilogue, output } = self.0;
        let key = &prepared.key;
        let group_in = key.in_channels / key.groups;
        let taps: usize = key.kernel.iter().product();
        let weights = prepared.weights.as_slice()[block * taps * group_in * S::LANES..].as_ptr();
        let choices = prepared.choices[block * group_in * S::LANES..].as_ptr();
        let bias = prepared.bias.as_slice()[block * S::LANES..].as_ptr();
        let channel = block * S::LANES;
        let start = match &prepared.levels {
            Some(levels) if T::INTEGER => {
                if window.taps == key.kernel {
                    levels.start(s, channel)
                } else {
                    let mut seen = s.zero();
                    window.for_each_tap(key.kernel, |tap, _| {
                        for c in 0..group_in {
                            // SAFETY: weights hold a vector for each channel of the group.
                            seen =
                                s.add(seen, unsafe { s.load(weights.add((tap * group_in + c) * S::LANES)) });
                        }
                    });
                    levels.start_of(s, channel, seen)
                }
            }
            // SAFETY: the bias is padded to whole vectors.
            _ => unsafe { s.load(bias) },
        };
        let mut sums = [[start]; PIXELS];
        for z in 0..window.taps[0] {
            for y in 0..window.taps[1] {
                let (first, mut input) = window.tap_line(key.kernel, z, y);
                for tap in first..first + window.taps[2] {
                    let mut pixels = [s.zero(); PIXELS];
                    for (i, pixel) in pixels.iter_mut().enumerate() {
                        let p = input.wrapping_add(first_input + i * window.pixel_step);
                        // SAFETY: a window's taps are pixels inside the input, of which the channels from `first_input`
                        // on exist.
                        *pixel = unsafe {
                            if FULL {
                                T::load(s, p)
                            } else {
                                T::load_partial(s, p, key.in_channels - first_input)
                            }
                        };
                    }
                    for c in 0..group_in {
                        // SAFETY: weights and choices hold a vector for each channel of the group, choices below LANES.
                        let (weight, choice) = unsafe {
                            let weight = s.load(weights.add((tap * group_in + c) * S::LANES));
                            (weight, s.load_index(choices.add(c * S::LANES)))
                        };
                        for (sum, &pixel) in sums.iter_mut().zip(&pixels) {
                            sum[0] = s.mul_add(s.swizzle(pixel, choice), weight, sum[0]);
                        }
                    }
                    input = input.wrapping_add(window.tap_steps[2]);
                }
            }
        }
        if let Some(levels) = &prepared.levels
            && T::INTEGER
        {
            levels.finish(s, channel, &mut sums);
        }
        let valid = (output.channels() - channel).min(S::LANES);
        let destination = Destination::new(output, epilogue, channel, valid, window.outputs.as_ptr());
        // SAFETY: the window names `PIXELS` output rows, which no other window names.
        unsafe { destination.store(s, &sums) };
    }
}
