//! Convolution of few bits: planes of bits, compared word by word, and counted.
//!
//! Where activations and weights are signs, a word of 32 of each is 32 products: their sum is 32 less twice the bits in
//! which the words differ (Courbariaux et al., "Binarized Neural Networks", arXiv 1602.02830; Rastegari et al., "XNOR-Net",
//! arXiv 1603.05279). Ternary weights (Li, Zhang, Liu, arXiv 1605.04711) have a second plane that says which count, and
//! more bits are sums over pairs of planes by their places (Zhou et al., "DoReFa-Net", arXiv 1606.06160). All sums are exact
//! integers, and the same as those of bytes.
//!
//! Activations lie in memory as bytes, as all levels do, so that nothing else needs to know of bits; a run packs them first,
//! 64 with an instruction. Lanes are output channels, as in products of matrices, and a tile of pixels shares the words of
//! the weights; see [`tile`] for the loop, [`regions`] for the borders.

mod few;
mod pack;
mod regions;
mod run;
#[cfg(test)]
mod tests;
mod tile;
mod weights;
mod words;

pub use few::{FewBits, InputBits, MOST_BITS, WeightBits};

use self::pack::PixelLayout;
use self::tile::Pass;
use self::weights::BitWeights;
use self::words::{Words, WordsOp};
use super::problem::check_workspace;
use super::{AnyCall, ConvAlgorithm, ConvCall, ConvProblem, PreparedConv, Weights, WeightsKey};
use crate::element::{Element, ElementType};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::rates::{Rate, Work};
use crate::simd::Simd;
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// The fewest input channels of a group: below, words would be all but empty.
const LEAST_CHANNELS: usize = 8;

/// The name of the algorithm on few bits.
pub const BIT_ALGORITHM: &str = "bits";

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits;

/// A convolution on few bits with its weights packed. As [`PreparedConv`] from levels to levels; by itself from levels to
/// whatever is wanted.
pub struct BitConv {
    key: WeightsKey,
    layout: PixelLayout,
    weights: BitWeights,
    passes: Vec<Pass>,
}

impl BitConv {
    /// Packs the weights of a problem on levels of few bits.
    pub fn new(problem: &ConvProblem, isa: Isa, weights: Weights<'_>) -> Result<BitConv, String> {
        let few = few_bits(problem)?;
        weights.check(problem)?;
        few.weights.check(weights.values)?;
        let levels = weights.levels.ok_or("a convolution on levels needs to know what they are")?;
        if few.input == InputBits::Signs && levels.input_zero != 1 {
            return Err(format!("signs lie around the level 1, not {}", levels.input_zero));
        }
        let (key, layout) = (Bits.weights_key(problem, isa), layout(problem, few));
        let lanes = words::dispatch(key.isa, LanesOf);
        let weights = BitWeights::new(problem, layout, lanes, weights.values, levels);
        Ok(BitConv { key, layout, weights, passes: passes(problem, &layout) })
    }

    /// The `f32` of workspace a run needs.
    pub fn workspace_len(&self, problem: &ConvProblem) -> usize {
        problem.in_rows() * self.layout.pixel_words()
    }

    /// The memory of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Computes `epilogue((sums + bias) * scale + shift)` from levels. An error, with nothing written, where shapes do not
    /// match the problem, or it is not one that was prepared for.
    pub fn run<O: Element>(
        &self,
        problem: &ConvProblem,
        pool: &ThreadPool,
        input: Rows<'_, u8>,
        epilogue: Epilogue<'_, O>,
        output: RowsMut<'_, O>,
        workspace: &mut [f32],
    ) -> Result<(), String> {
        few_bits(problem)?;
        super::check_key(&self.key, &Bits.weights_key(problem, self.key.isa))?;
        problem.check_input(&input)?;
        problem.check_output(&epilogue, &output)?;
        check_workspace(workspace.len(), self.workspace_len(problem))?;
        if output.rows() != 0 {
            // SAFETY: all of it was just checked.
            unsafe { run::run(self, problem, pool, input, epilogue, output, workspace) };
        }
        Ok(())
    }

    /// [`run`](BitConv::run) to numbers, for a layer behind which nothing is quantised: not generic, so that it is compiled
    /// here, with the kernels' optimisation.
    pub fn numbers(
        &self,
        problem: &ConvProblem,
        pool: &ThreadPool,
        input: Rows<'_, u8>,
        epilogue: Epilogue<'_>,
        output: RowsMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), String> {
        self.run(problem, pool, input, epilogue, output, workspace)
    }
}

/// The products of planes, those first whose places are highest.
fn passes(problem: &ConvProblem, layout: &PixelLayout) -> Vec<Pass> {
    let (inputs, planes) = (layout.few.input.planes(), layout.few.weights.planes());
    let plane_words = problem.taps() * layout.words * layout.weight_words();
    let mut places: Vec<[usize; 2]> =
        (0..inputs).flat_map(|input| (0..planes).map(move |plane| [input, plane])).collect();
    let place = |[input, plane]: [usize; 2]| input + plane;
    places.sort_by_key(|places| std::cmp::Reverse(place(*places)));
    (0..places.len())
        .map(|i| Pass {
            input: places[i][0] * layout.words,
            weights: places[i][1] * plane_words,
            doublings: i.checked_sub(1).map_or(0, |last| place(places[last]) - place(places[i])) as u32,
        })
        .collect()
}

/// The lanes of a vector that counts, and of one that finishes sums.
struct LanesOf;

impl WordsOp for LanesOf {
    type Output = [usize; 2];

    #[inline(always)]
    fn eval<W: Words>(self, _words: W) -> [usize; 2] {
        [size_of::<W::V>() / size_of::<u32>(), W::Simd::LANES]
    }
}

/// How few bits a problem has; refuses those that the kernels do not take.
fn few_bits(problem: &ConvProblem) -> Result<FewBits, String> {
    problem.validate()?;
    problem.check_element(&Bits)?;
    let few = problem.bits.ok_or("bits needs levels and weights of few bits")?;
    few.check()?;
    if problem.group_in() < LEAST_CHANNELS {
        let channels = problem.group_in();
        return Err(format!(
            "bits needs {LEAST_CHANNELS} input channels in each group to fill words, not {channels}"
        ));
    }
    Ok(few)
}

fn layout(problem: &ConvProblem, few: FewBits) -> PixelLayout {
    PixelLayout {
        groups: problem.groups,
        channels: problem.group_in(),
        words: 2 * problem.group_in().div_ceil(64),
        few,
        paired: few.weights == WeightBits::Signs,
    }
}

impl ConvAlgorithm for Bits {
    fn name(&self) -> &'static str {
        BIT_ALGORITHM
    }

    fn elements(&self) -> &'static [ElementType] {
        &[ElementType::U8]
    }

    fn accepts(&self, problem: &ConvProblem, _isa: Isa) -> Result<(), String> {
        few_bits(problem).map(|_| ())
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        let Some(few) = problem.bits else { return Work::default() };
        let layout = layout(problem, few);
        let [lanes, _] = words::dispatch(words::serving(isa), LanesOf);
        let vectors = (problem.groups * problem.group_out().div_ceil(lanes)) as f64;
        let products = super::geometry::valid_taps(problem) * vectors * (layout.words * few.passes()) as f64;
        let kind = if layout.paired { Rate::SignWord } else { Rate::MaskedWord };
        Work::of(&[
            (kind, products),
            (Rate::BitVector, problem.out_rows() as f64 * vectors),
            (Rate::PackedWord, (problem.in_rows() * layout.pixel_words()) as f64),
        ])
        .shared(threads as f64)
        .called(2, threads)
    }

    fn weights_key(&self, problem: &ConvProblem, isa: Isa) -> WeightsKey {
        WeightsKey {
            isa: words::serving(isa),
            bits: problem.bits,
            ..WeightsKey::new(self.name(), problem, Isa::Portable)
        }
    }

    fn prepare(
        &self,
        problem: &ConvProblem,
        isa: Isa,
        weights: Weights<'_>,
    ) -> Result<Box<dyn PreparedConv>, String> {
        Ok(Box::new(BitConv::new(problem, isa, weights)?))
    }
}

impl PreparedConv for BitConv {
    fn algorithm(&self) -> &dyn ConvAlgorithm {
        &Bits
    }

    fn key(&self) -> &WeightsKey {
        &self.key
    }

    fn workspace_len(&self, problem: &ConvProblem, _threads: usize) -> usize {
        if few_bits(problem).is_err() { 0 } else { BitConv::workspace_len(self, problem) }
    }

    unsafe fn compute(&self, problem: &ConvProblem, pool: &ThreadPool, call: AnyCall<'_>) {
        let AnyCall::U8(ConvCall { input, epilogue, output, workspace }) = call else { return };
        // SAFETY: promised by the caller.
        unsafe { run::run(self, problem, pool, input, epilogue, output, workspace) };
    }

    fn bytes(&self) -> usize {
        self.weights.bytes()
    }
}
