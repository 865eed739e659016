//! What all convolutions that are matrix products share: the packed weights, and running over groups.
//!
//! The rows of the packed matrix are taps in row order times input channels, `[kd][kh][kw][C]`, because a row
//! of a channels-last image is contiguous in just that order. Pointwise, direct, indirect and im2col differ
//! only in how they find the rows of the left operand.
//!
//! Products of `bf16` take two numbers at a time. Pieces of an odd length are filled up with a zero, in the weights and in
//! the copy that the lowering makes of such pieces.

use super::{
    AnyCall, ConvAlgorithm, ConvCall, ConvElement, ConvProblem, PreparedConv, SumLevels, Weights, WeightsKey,
};
use crate::amx::{TILE_ROWS, TILE_WORDS};
use crate::element::{Element, ElementType, Factor};
use crate::epilogue::Epilogue;
use crate::for_element;
use crate::isa::Isa;
use crate::matmul::{PackedMatrix, Product, RowSource, SumScales, most_block_rows, panel_width, tile_rows};
use crate::rates::{LAST_LEVEL, Rate, SECOND_LEVEL, Work, weights_read};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};
use std::sync::Arc;

/// How an algorithm feeds a convolution, in the groups that its weights are packed in, to the matrix product.
pub(super) trait Lowering: ConvAlgorithm + Copy + Send + 'static {
    /// The rows of the matrix that lie side by side in a piece of the left operand.
    fn piece_len(self, problem: &ConvProblem) -> usize;

    /// The workspace it needs for a problem on `T`.
    fn workspace_len<T: Element>(self, problem: &ConvProblem, threads: usize) -> usize;

    /// Runs a problem that it accepts, with views of the right shapes and enough workspace.
    fn lower<T: Element, O: Element>(self, call: DenseCall<'_, T, O>);
}

/// A run of a dense convolution, whose result is kept in another element where `O` is one.
pub(super) struct DenseCall<'a, T: Element, O = T> {
    pub problem: &'a ConvProblem,
    pub weights: &'a DenseWeights<T>,
    pub pool: &'a ThreadPool,
    pub input: Rows<'a, T>,
    pub epilogue: Epilogue<'a, O>,
    pub output: RowsMut<'a, O>,
    pub workspace: &'a mut [f32],
}

impl<T: Element, O: Element> DenseCall<'_, T, O> {
    /// Multiplies the rows of a group with its weights.
    ///
    /// # Safety
    /// The source has a row for each output pixel and names it as its output row; `scratch` has the length that
    /// `scratch_len` asks for.
    pub(super) unsafe fn multiply(&self, group: usize, source: &impl RowSource<T>, scratch: &mut [f32]) {
        let product = Product {
            matrix: &self.weights.groups[group],
            first_column: group * self.problem.group_out(),
            bias: self.weights.bias.as_deref(),
            scales: self.weights.scales.as_ref(),
            epilogue: self.epilogue,
        };
        debug_assert_eq!(product.check(source, &self.output), Ok(()));
        // SAFETY: promised by the caller; the shapes were checked before `lower`.
        unsafe { product.run(self.pool, source, &self.output, scratch) };
    }
}

/// The weights of each group, packed as what multiplies `T`, and the bias of all.
pub(super) struct DenseWeights<T: Element> {
    pub groups: Arc<[PackedMatrix<T::Factor>]>,
    /// In the units of the sums, the bits of integers where sums are.
    pub bias: Option<Vec<f32>>,
    pub scales: Option<SumScales>,
    /// What to read in place of padding: as many as a group has input channels.
    pub zeros: Vec<T>,
}

impl<T: Element> DenseWeights<T> {
    /// What padding is made of.
    pub(super) fn zero(&self) -> T {
        self.zeros.first().copied().unwrap_or_default()
    }
}

/// A prepared convolution that is lowered to matrix products.
struct Dense<L, T: Element> {
    lowering: L,
    key: WeightsKey,
    weights: DenseWeights<T>,
}

/// The prepared convolution of a lowering.
pub(super) fn prepare<L: Lowering>(
    lowering: L,
    problem: &ConvProblem,
    isa: Isa,
    weights: Weights<'_>,
) -> Result<Box<dyn PreparedConv>, String> {
    lowering.accepts(problem, isa)?;
    weights.check(problem)?;
    Ok(packed(lowering, lowering.weights_key(problem, isa), problem, isa, weights))
}

/// The prepared convolution of a key, whose products are those of a problem with checked weights.
pub(super) fn packed<L: Lowering>(
    lowering: L,
    key: WeightsKey,
    problem: &ConvProblem,
    isa: Isa,
    weights: Weights<'_>,
) -> Box<dyn PreparedConv> {
    for_element!(problem.element, T => Box::new(Dense {
        lowering,
        key,
        weights: pack::<T>(problem, isa, lowering.piece_len(problem), weights),
    }))
}

pub(super) fn pack<T: Element>(
    problem: &ConvProblem,
    isa: Isa,
    piece: usize,
    weights: Weights<'_>,
) -> DenseWeights<T> {
    let (channels, columns, taps) = (problem.group_in(), problem.group_out(), problem.taps());
    let padded = piece.next_multiple_of(T::Factor::PER_WORD);
    let integers = weights.levels.map(|levels| IntegerSums::of(problem, weights.values, levels));
    let offsets = integers.as_ref().and_then(|integers| integers.scales.offsets.as_deref());
    let groups = (0..problem.groups)
        .map(|group| {
            let values = &weights.values[group * columns * channels * taps..];
            // Weights are [out][in][tap]; a row of the matrix is one input channel under one tap.
            let row = |k: usize| {
                let row = k / padded * piece + k % padded;
                let (tap, channel) = (row / channels, row % channels);
                (k % padded < piece).then_some((channel * taps + tap, channels * taps))
            };
            PackedMatrix::from_values(isa, taps * channels / piece * padded, columns, row, |index, column| {
                let offset = offsets.map_or(0, |offsets| offsets[group * columns + column]);
                T::Factor::right(values[index] - offset as f32)
            })
        })
        .collect();
    let zero = weights.levels.map_or(T::default(), |levels| T::from_f32(f32::from(levels.input_zero)));
    let zeros = vec![zero; channels];
    match integers {
        Some(IntegerSums { bias, scales }) => {
            DenseWeights { groups, bias: Some(bias), scales: Some(scales), zeros }
        }
        None => DenseWeights { groups, bias: weights.bias.map(<[f32]>::to_vec), scales: None, zeros },
    }
}

/// What is done to sums of products of levels.
struct IntegerSums {
    /// The bits of integers: the bias, less what the zero point of the input adds to every sum.
    bias: Vec<f32>,
    scales: SumScales,
}

impl IntegerSums {
    fn of(problem: &ConvProblem, values: &[f32], levels: SumLevels<'_>) -> Self {
        let sums = problem.channel_sums(values);
        let each = problem.group_in() * problem.taps();
        let offsets: Vec<i32> = values.chunks_exact(each).map(offset).collect();
        let bias = sums.iter().enumerate().map(|(channel, &sum)| {
            let own = levels.bias.map_or(0, |bias| bias[channel]);
            let zero = sum.wrapping_mul(i32::from(levels.input_zero));
            f32::from_bits(own.wrapping_sub(zero) as u32)
        });
        let bias = bias.collect();
        let offsets = offsets.iter().any(|&offset| offset != 0).then_some(offsets);
        let (scales, shift) = (levels.scales.to_vec(), levels.shift.map(<[f32]>::to_vec));
        IntegerSums { bias, scales: SumScales { scales, shift, offsets } }
    }
}

/// What weights that are differences of levels must be lessened by to fit an `i8`.
fn offset(weights: &[f32]) -> i32 {
    let (low, high) = weights.iter().fold((0f32, 0f32), |(low, high), &w| (low.min(w), high.max(w)));
    let fits = low >= f32::from(i8::MIN) && high <= f32::from(i8::MAX);
    if fits { 0 } else { low as i32 - i32::from(i8::MIN) }
}

impl<L, T: Element> Dense<L, T> {
    /// The problem in the groups that the weights are packed in.
    fn as_packed(&self, problem: &ConvProblem) -> ConvProblem {
        ConvProblem { groups: self.weights.groups.len(), ..problem.clone() }
    }
}

impl<L: Lowering, T: ConvElement> PreparedConv for Dense<L, T> {
    fn algorithm(&self) -> &dyn ConvAlgorithm {
        &self.lowering
    }

    fn key(&self) -> &WeightsKey {
        &self.key
    }

    fn workspace_len(&self, problem: &ConvProblem, threads: usize) -> usize {
        if self.lowering.accepts(problem, self.key.isa).is_err() {
            return 0;
        }
        self.lowering.workspace_len::<T>(&self.as_packed(problem), threads)
    }

    unsafe fn compute(&self, problem: &ConvProblem, pool: &ThreadPool, call: AnyCall<'_>) {
        let Some(ConvCall { input, epilogue, output, workspace }) = T::restore(call) else { return };
        let (problem, weights) = (&self.as_packed(problem), &self.weights);
        self.lowering.lower(DenseCall { problem, weights, pool, input, epilogue, output, workspace });
    }

    fn bytes(&self) -> usize {
        self.weights.groups.iter().map(PackedMatrix::bytes).sum()
    }
}

/// The work of the products of a convolution, shared among threads: whole tiles of arithmetic, and reading the weights
/// once for each block of rows.
pub(super) fn product_work(problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
    let count = |n: usize| n as f64;
    let (rows, groups) = (problem.out_rows(), count(problem.groups));
    let factor = problem.element.factor();
    let depth = count(problem.taps() * steps_of_depth(problem.group_in(), factor, isa));
    let vectors = count(problem.group_out().div_ceil(isa.lanes()));
    let panels = count(problem.group_out().div_ceil(panel_width(isa)));
    let tiles = count(rows.div_ceil(tile_rows(isa)));
    let weights = depth * vectors * count(isa.lanes() * size_of::<f32>());
    let mut work = Work::of(&[(Rate::ResultVector, count(rows) * vectors)]);
    // A single row is a matter of vectors, see the driver of products.
    let arithmetic = if on_tiles(factor, isa) && rows > 1 {
        tile_work(count(rows), depth, problem.group_out())
    } else {
        let (multiply_adds, steps) = (count(rows) * vectors * depth, tiles * panels * depth);
        Work::of(&[(Rate::MultiplyAdd, multiply_adds), (Rate::PanelStep, steps)])
    };
    let passes = count(rows.div_ceil(most_block_rows(isa)));
    work += weights_read(weights, passes, multiply_adds_beside(&arithmetic), isa);
    work += arithmetic;
    if factor != problem.element {
        let widened = rows * problem.taps() * problem.group_in() * factor.bytes();
        work += Work::of(&[(Rate::CopiedByte, count(widened))]);
    }
    let mut work = work.times(groups);
    work += activations_read(problem);
    work.shared(busy(tiles * panels, threads))
}

/// Whether products of these factors go to the tile unit.
pub(super) fn on_tiles(factor: ElementType, isa: Isa) -> bool {
    isa == Isa::Amx && for_element!(factor, T => <T as Element>::Factor::TILES.is_some())
}

/// The work of a product on the tile unit: of so many rows, each of so many words, with so many columns.
pub(super) fn tile_work(rows: f64, words: f64, columns: usize) -> Work {
    let columns = columns.div_ceil(TILE_WORDS) as f64;
    let steps = (words / TILE_WORDS as f64).ceil();
    // Two tiles of rows by two of columns at a time. Tiles of fewer rows take as long as full ones.
    let (tiles, pairs) = ((rows / TILE_ROWS as f64).ceil(), (rows / (2 * TILE_ROWS) as f64).ceil());
    Work::of(&[
        (Rate::TileProduct, tiles * steps * columns),
        (Rate::TileLoad, tiles * steps * (columns / 2.0).ceil() + pairs * steps * columns),
    ])
}

/// The multiply-adds of vectors that take as long as this arithmetic of a product, for what they hide: a product of tiles
/// with its share of loads takes as long as some 50.
pub(super) fn multiply_adds_beside(arithmetic: &Work) -> f64 {
    arithmetic.count(Rate::MultiplyAdd) + 50.0 * arithmetic.count(Rate::TileProduct)
}

/// The multiply-adds of a sum of products over so many channels.
pub(super) fn steps_of_depth(channels: usize, factor: ElementType, isa: Isa) -> usize {
    // Without the instruction for it, a word of `bf16` is two multiply-adds and what takes it apart.
    let steps = if factor == ElementType::Bf16 && !isa.has_bf16() { 5 } else { 1 };
    channels.div_ceil(factor.per_word()) * steps
}

/// How many threads have something to do where so many tasks are dealt out.
pub(super) fn busy(tasks: f64, threads: usize) -> f64 {
    tasks.min(threads as f64).max(1.0)
}

/// The bytes of input and output.
fn activations(problem: &ConvProblem) -> f64 {
    let numbers = problem.in_rows() * problem.in_channels + problem.out_rows() * problem.out_channels;
    (numbers * problem.element.bytes()) as f64
}

/// The work of input and output, as far as they come from beyond the second-level cache, beside much arithmetic.
pub(super) fn activations_read(problem: &ConvProblem) -> Work {
    let bytes = activations(problem);
    Work::of(&[
        (Rate::ActivationByte, (bytes - SECOND_LEVEL).max(0.0)),
        (Rate::MemoryByte, (bytes - LAST_LEVEL).max(0.0)),
    ])
}

/// The bytes of input and output that stay in the last cache between a layer that writes them and one that reads them.
const KEPT: f64 = 6e6;

/// The work of input and output, as far as they do not stay in the last cache, beside little arithmetic.
pub(super) fn activations_streamed(problem: &ConvProblem) -> Work {
    Work::of(&[(Rate::StreamedByte, (activations(problem) - KEPT).max(0.0))])
}

/// The additional work of products where the pixels of a tile are a multiple of 4 KiB apart and so meet in one set of
/// the first-level cache.
pub(super) fn collisions(problem: &ConvProblem, products: &Work, isa: Isa) -> Work {
    let collide = collide(problem.stride[2] * problem.in_channels * problem.element.bytes(), isa);
    // Where rows are widened, it is their copies that are multiplied.
    let collide = collide && problem.element == problem.element.factor();
    let count = if collide && problem.out_rows() > 4 { products.count(Rate::MultiplyAdd) } else { 0.0 };
    Work::of(&[(Rate::CollidingMultiplyAdd, count)])
}

/// Whether the rows of a tile, this many bytes apart, meet in one set of the first-level cache.
pub(super) fn collide(step: usize, isa: Isa) -> bool {
    // The six rows of the narrower tiles fit a set of eight.
    isa.vectors() == Isa::Avx512 && step.is_multiple_of(4096)
}
