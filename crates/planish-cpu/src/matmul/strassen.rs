//! Products with an eighth fewer multiplications.
//!
//! Cut into quarters, a product of two matrices is eight products of quarters. Strassen (*Gaussian Elimination is
//! not Optimal*, Numerische Mathematik 13, 1969) found that seven are enough; the form here is Winograd's with 15
//! additions (Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, §23.2). One level is used: with
//! quarters as small as a tile of the inner loop, every sum of products is built up in registers, and the
//! additions cost next to nothing:
//!
//! | step | product | starts from | goes to |
//! |---|---|---|---|
//! | 1 | `A11·B11` | – | X |
//! | 2 | `A12·B21` | X, bias | output, upper left |
//! | 3 | `(A21+A22-A11)·(B22-B12+B11)` | X | Y |
//! | 4 | `(A11-A21)·(B22-B12)` | Y | Z |
//! | 5 | `A22·(B21-B22+B12-B11)` | Z, bias | output, lower left |
//! | 6 | `(A21+A22)·(B12-B11)` | – | V |
//! | 7 | `(A11+A12-A21-A22)·B22` | Y, V, bias | output, upper right |
//! | 8 | – | Z, V, bias | output, lower right |
//!
//! The weights' factors are summed when they are packed. K is halved within each tap, so the rows of the left
//! operand keep their addresses; N is halved in whole vectors. M is halved within each *pair of tiles*: rows that
//! meet are close to each other, of one image, and the same whatever the batch and the number of threads.
//!
//! An output is then a sum of other products as well, which cancel: it errs more (about 2.2 times), and an
//! infinity or NaN spreads over a pair of tiles.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::chained::{self, Chain, Link};
use super::driver::{RowSource, RowTable, SharedScratch, TABLE_LEN};
use super::pack::PackedMatrix;
use super::tile::{self, Stage};
use crate::epilogue::{Destination, Epilogue};
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp, dispatch, prefetch};
use crate::threads::ThreadPool;
use crate::view::RowsMut;

/// The most rows of half a pair of tiles.
const MOST_ROWS: usize = 14;

/// The most pairs of tiles of a block.
const MOST_PAIRS: usize = 4;

/// The bytes of left factors that a block should not exceed: with a panel of the weights they fit the second-level
/// cache.
const BLOCK_BYTES: usize = 512 * 1024;

/// The left factors: the quarters 11, 12 and 22, and the four sums.
const LEFT_FACTORS: usize = 7;

/// The products.
const PRODUCTS: usize = 7;

/// The tiles of sums that wait for more: X, Y, Z and V.
const WAITING: usize = 4;

/// How many rows ahead the left operand is fetched while its sums are made.
const AHEAD: usize = 3;

/// The most taps a source may have.
pub(crate) const MAX_TAPS: usize = TABLE_LEN / (2 * MOST_ROWS);

/// A K×N matrix as the right factors of the seven products, packed panel by panel: `[panel][step][K/2][width]`.
pub(crate) struct StrassenMatrix {
    factors: PackedMatrix,
    /// Half of K.
    depth: usize,
    /// N
    columns: usize,
}

impl StrassenMatrix {
    /// The columns of the left half of N columns; `None` where nothing is left for the right half.
    pub(crate) fn left_columns(isa: Isa, columns: usize) -> Option<usize> {
        let left = columns.div_ceil(2).next_multiple_of(isa.lanes());
        (left < columns).then_some(left)
    }

    /// Packs the matrix whose halves of K have `depth` rows each; the number in row `k` of a half and column `n` is
    /// `source[start + n * step]`, where `(start, step)` is `upper(k)` or `lower(k)`. `columns` must have two halves, see
    /// [`Self::left_columns`].
    pub(crate) fn new(
        isa: Isa,
        depth: usize,
        columns: usize,
        source: &[f32],
        upper: impl Fn(usize) -> (usize, usize),
        lower: impl Fn(usize) -> (usize, usize),
    ) -> Option<Self> {
        let left = Self::left_columns(isa, columns)?;
        let factors = PackedMatrix::from_panels(isa, PRODUCTS * depth, left, |range, data| {
            let width = range.len().next_multiple_of(isa.lanes());
            for k in 0..depth {
                let (up, down) = (upper(k), lower(k));
                for (slot, n) in range.clone().enumerate() {
                    let at = |(start, step): (usize, usize), n: usize| f64::from(source[start + n * step]);
                    let (b11, b21) = (at(up, n), at(down, n));
                    let (b12, b22) =
                        if left + n < columns { (at(up, left + n), at(down, left + n)) } else { (0.0, 0.0) };
                    let (right, rows) = (b12 - b11, b22 - b12);
                    let factors = [b11, b21, b22 - right, rows, b21 - (b22 - right), right, b22];
                    for (step, factor) in factors.into_iter().enumerate() {
                        data[(step * depth + k) * width + slot] = factor as f32;
                    }
                }
            }
        });
        Some(Self { factors, depth, columns })
    }

    /// The memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.factors.bytes()
    }

    /// The instruction set it is packed for.
    pub(crate) fn isa(&self) -> Isa {
        self.factors.isa()
    }
}

/// How the rows of a product are cut into pairs of tiles, and those into blocks.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Rows that may meet: those of an image.
    image: usize,
    /// Pairs of tiles of an image.
    pairs: usize,
    /// Pairs of tiles of a block at most.
    block: usize,
}

impl Cut {
    fn new(isa: Isa, image: usize, depth: usize) -> Self {
        let rows = tile::max_rows(isa);
        let bytes = LEFT_FACTORS * rows * depth * size_of::<f32>();
        let block = (BLOCK_BYTES / bytes.max(1)).clamp(1, MOST_PAIRS);
        Self { image, pairs: image.div_ceil(2 * rows).max(1), block }
    }

    /// The rows of a pair of tiles.
    fn rows(&self, pair: usize) -> Range<usize> {
        let (image, pair) = (pair / self.pairs, pair % self.pairs);
        let at = |pair: usize| image * self.image + pair * self.image / self.pairs;
        at(pair)..at(pair + 1)
    }
}

/// Numbers from row to row of a left factor in scratch memory: an odd number of cache lines, so that rows do not meet
/// in one set of the cache, with room for what the last vector of a row writes beyond its end.
fn row_step(depth: usize) -> usize {
    ((depth + 15).div_ceil(16) | 1) * 16
}

/// The scratch memory of a thread, in numbers: left factors and waiting sums of a block.
fn slot_len(isa: Isa, cut: &Cut, depth: usize) -> usize {
    let rows = cut.block * tile::max_rows(isa);
    rows * LEFT_FACTORS * row_step(depth) + WAITING * tile::max_rows(isa) * super::panel_width(isa)
}

/// The scratch memory that [`StrassenProduct::run`] needs, in numbers, for images of `image` rows.
pub(crate) fn strassen_scratch_len(isa: Isa, image: usize, depth: usize, threads: usize) -> usize {
    threads.max(1) * slot_len(isa, &Cut::new(isa, image, depth), depth)
}

/// How many times the matrix is read for an image.
pub(crate) fn strassen_passes(isa: Isa, image: usize, depth: usize) -> usize {
    let cut = Cut::new(isa, image, depth);
    cut.pairs.div_ceil(cut.block)
}

/// A product by seven products of quarters.
pub(crate) struct StrassenProduct<'a> {
    /// The right operand.
    pub matrix: &'a StrassenMatrix,
    /// As many numbers as there are columns.
    pub bias: Option<&'a [f32]>,
    /// Residual and activation.
    pub epilogue: Epilogue<'a>,
    /// How many rows belong to an image.
    pub image: usize,
    /// Whether the rows of the left operand are copied together first, because they would meet in one set of the
    /// cache where they are.
    pub copies: bool,
}

impl StrassenProduct<'_> {
    /// Computes the product.
    ///
    /// # Safety
    /// The pieces of `source` are of even length and as many numbers as K together, its taps at most [`MAX_TAPS`];
    /// its rows are a multiple of `image`; it names only output rows below `out.rows()`, none twice; output, bias and
    /// residual have N columns; `scratch` holds [`strassen_scratch_len`] numbers.
    pub(crate) unsafe fn run<R: RowSource>(
        &self,
        pool: &ThreadPool,
        source: &R,
        out: &RowsMut<'_>,
        scratch: &mut [f32],
    ) {
        if source.rows() == 0 || self.image == 0 {
            return;
        }
        let (isa, depth) = (self.matrix.isa(), self.matrix.depth);
        let cut = Cut::new(isa, self.image, depth);
        let pairs = source.rows() / self.image * cut.pairs;
        let panels = self.matrix.factors.panels();
        let wanted = if pool.threads() <= 1 { 1 } else { pool.threads() * 4 };
        // The sums of the left operand are made anew for each run of panels, so rows are shared out first.
        let blocks = pairs.div_ceil(cut.block).max(wanted.min(pairs));
        let runs = wanted.div_ceil(blocks).min(panels);
        let share = |i: usize, parts: usize, whole: usize| i * whole / parts;
        let slot_len = slot_len(isa, &cut, depth);
        assert!(scratch.len() >= slot_len * pool.threads().max(1) && source.taps() <= MAX_TAPS);
        let slots = SharedScratch::new(scratch);
        pool.run_with_slots(blocks * runs, &|slot, task| {
            let (block, run) = (task / runs, task % runs);
            let pairs = share(block, blocks, pairs)..share(block + 1, blocks, pairs);
            let panels = share(run, runs, panels)..share(run + 1, runs, panels);
            // SAFETY: slots are disjoint pieces of the scratch memory, and nobody else uses this one meanwhile.
            let scratch = unsafe { slots.piece(slot * slot_len, slot_len) };
            dispatch(isa, Block { product: self, source, out, cut, pairs, panels, scratch });
        });
    }
}

/// One task: some pairs of tiles times some panels.
struct Block<'a, R> {
    product: &'a StrassenProduct<'a>,
    source: &'a R,
    out: &'a RowsMut<'a>,
    cut: Cut,
    pairs: Range<usize>,
    panels: Range<usize>,
    scratch: &'a mut [f32],
}

/// A pair of tiles: rows `0 .. height` are the upper one, the next `height` the lower one. Where the number of rows is
/// odd, the last upper row is the last lower one as well, and is computed twice.
#[derive(Clone, Copy)]
struct Pair {
    height: usize,
    /// The addresses of the rows, `2 * height` a tap.
    table: *const *const f32,
    /// How many pieces a row has, and half of the length of each.
    taps: usize,
    half: usize,
    /// The output rows.
    outputs: *const usize,
    /// The left factors in scratch memory, `[factor][row]`, `row_step` from row to row.
    factors: *mut f32,
    row_step: usize,
    /// The addresses of their rows.
    factor_rows: [[*const f32; MOST_ROWS]; LEFT_FACTORS],
    /// The sums that wait, `[X, Y, Z, V][row][panel width]`.
    waiting: *mut f32,
}

impl<R: RowSource> SimdOp for Block<'_, R> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Block { product, source, out, cut, pairs, panels, scratch } = self;
        let depth = product.matrix.depth;
        let step = row_step(depth);
        let most_rows = tile::max_rows(S::ISA);
        let (factors, waiting) = scratch.split_at_mut(cut.block * most_rows * LEFT_FACTORS * step);
        let mut addresses = [MaybeUninit::uninit(); TABLE_LEN];
        let mut outputs = [MaybeUninit::uninit(); 2 * MOST_ROWS * MOST_PAIRS];
        for first in pairs.clone().step_by(cut.block) {
            let block = first..pairs.end.min(first + cut.block);
            // A table holds as many pairs as their addresses fit, so pairs of many taps are done one by one.
            let fitting = TABLE_LEN / (2 * most_rows * source.taps());
            for first in block.clone().step_by(fitting.max(1)) {
                let block = first..block.end.min(first + fitting.max(1));
                let mut tiles = [None; MOST_PAIRS];
                let mut at = 0;
                for (i, pair) in block.enumerate() {
                    let rows = cut.rows(pair);
                    let (count, height) = (rows.len(), rows.len().div_ceil(2));
                    let outputs = &mut outputs[i * 2 * most_rows..][..2 * height];
                    let table = &mut addresses[at..at + 2 * height * source.taps()];
                    at += table.len();
                    let stride = 2 * height;
                    source.fill(
                        rows.start,
                        &mut RowTable { addresses: table, stride, outputs, count, scratch: &mut [] },
                    );
                    if count < stride {
                        outputs[count] = outputs[height - 1];
                        for tap in 0..source.taps() {
                            table[tap * stride + count] = table[tap * stride + height - 1];
                        }
                    }
                    let factors = factors[i * most_rows * LEFT_FACTORS * step..].as_mut_ptr();
                    let pair = Pair {
                        height,
                        table: table.as_ptr().cast(),
                        taps: source.taps(),
                        half: source.tap_len() / 2,
                        outputs: outputs.as_ptr().cast(),
                        factors,
                        row_step: step,
                        factor_rows: std::array::from_fn(|factor| {
                            std::array::from_fn(|row| {
                                factors.wrapping_add((factor * height + row) * step).cast_const()
                            })
                        }),
                        waiting: waiting.as_mut_ptr(),
                    };
                    // SAFETY: the table was just filled with addresses of pieces of twice `half` numbers; the factors
                    // have room for `most_rows` rows each.
                    unsafe { pair.left_factors(s, product.copies) };
                    tiles[i] = Some(pair);
                }
                for panel in panels.clone() {
                    for pair in tiles.iter().flatten() {
                        // SAFETY: table, factors and outputs were filled for the pair; the caller of `run` promises
                        // the output rows, and nobody else has this pair and panel.
                        unsafe { pair.multiply(s, product, out, panel) };
                    }
                }
            }
        }
    }
}

impl Pair {
    /// Writes the left factors that are not read where they lie: the sums 21+22, 21+22-11, 11-21 and 11+12-21-22, and,
    /// where `copies`, the quarters 11, 12 and 22 in front of them.
    ///
    /// # Safety
    /// The table holds `taps` pieces of `2 * half` readable numbers for each row; the factors have room for `height`
    /// rows of `row_step` numbers each, and that is at least `taps * half`.
    #[inline(always)]
    unsafe fn left_factors<S: Simd>(&self, s: S, copies: bool) {
        let Pair { height, table, taps, half, factors, row_step, .. } = *self;
        for row in 0..height {
            for tap in 0..taps {
                // SAFETY: promised by the caller; `left` numbers of each half of a piece and of a factor's row remain.
                unsafe {
                    let upper = *table.add(tap * 2 * height + row);
                    let lower = *table.add(tap * 2 * height + height + row);
                    let to = factors.add(row * row_step + tap * half);
                    if row + AHEAD < height {
                        let next = table.add(tap * 2 * height + row + AHEAD);
                        for line in (0..2 * half).step_by(16) {
                            prefetch((*next).wrapping_add(line));
                            prefetch((*next.add(height)).wrapping_add(line));
                        }
                    }
                    let mut c = 0;
                    while c < half {
                        let left = half - c;
                        let factors = if left >= S::LANES {
                            let load = |p: *const f32| s.load(p.add(c));
                            sums(s, [load(upper), load(upper.add(half)), load(lower), load(lower.add(half))])
                        } else {
                            let load = |p: *const f32| s.load_partial(p.add(c), left);
                            sums(s, [load(upper), load(upper.add(half)), load(lower), load(lower.add(half))])
                        };
                        // Where a half ends within a vector, what follows is written over or padding.
                        let store =
                            |index: usize| s.store(to.add(index * height * row_step + c), factors[index]);
                        if copies {
                            store(0);
                            store(1);
                            store(2);
                        }
                        store(3);
                        store(4);
                        store(5);
                        store(6);
                        c += S::LANES;
                    }
                }
            }
        }
    }

    /// A quarter of the left operand where it lies.
    fn quarter(&self, row: usize, start: usize) -> Stage {
        Stage {
            table: self.table.wrapping_add(row),
            table_stride: 2 * self.height,
            taps: self.taps,
            tap_start: start,
            tap_len: self.half,
            ..NOTHING
        }
    }

    /// A left factor in scratch memory.
    fn factor(&self, index: usize) -> Stage {
        Stage {
            table: self.factor_rows[index].as_ptr(),
            table_stride: MOST_ROWS,
            taps: 1,
            tap_len: self.taps * self.half,
            ..NOTHING
        }
    }

    /// The steps of the table above for a panel.
    ///
    /// # Safety
    /// As `left_factors`, which was called; the output rows are nobody else's.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, s: S, product: &StrassenProduct<'_>, out: &RowsMut<'_>, panel: usize) {
        let StrassenProduct { matrix, bias, epilogue, copies, .. } = *product;
        let (height, half) = (self.height, self.half);
        let (column, _) = matrix.factors.panel_columns(panel);
        let (width, left) = (matrix.factors.panel_width(panel), matrix.factors.columns());
        let sums = |i: usize| self.waiting.wrapping_add(i * height * width);
        let (x, y, z, v) = (sums(0), sums(1), sums(2), sums(3));
        let panels = matrix.factors.panel(panel).as_ptr();
        let step = |number: usize, stage: Stage| {
            Link::of(Stage { panel: panels.wrapping_add((number - 1) * matrix.depth * width), ..stage })
        };
        let a11 = if copies { self.factor(0) } else { self.quarter(0, 0) };
        let a12 = if copies { self.factor(1) } else { self.quarter(0, half) };
        let a22 = if copies { self.factor(2) } else { self.quarter(height, half) };
        let nothing = Link::of(NOTHING);
        let upper_left = [Link { kept: x, ..step(1, a11) }, step(2, a12)];
        let lower_left = [
            Link { initial: x, kept: y, ..step(3, self.factor(4)) },
            Link { kept: z, ..step(4, self.factor(5)) },
            step(5, a22),
        ];
        let upper_right =
            [Link { kept: v, ..step(6, self.factor(3)) }, Link { initial: y, ..step(7, self.factor(6)) }];
        let lower_right = [Link { initial: z, ..nothing }, Link { initial: v, ..nothing }];
        let tile = |links: &[Link], column: usize, valid: usize, rows: usize| {
            let bias = bias.map_or(std::ptr::null(), |bias| bias[column..].as_ptr());
            let rows = self.outputs.wrapping_add(rows);
            let destination = Destination::new(out, &epilogue, column, valid, rows);
            // SAFETY: promised by the caller; a panel holds `depth` rows for each product; the sums that wait have
            // room for a tile each, and are kept before they are added.
            unsafe { chained::compute(s, &Chain { links, bias, destination }, height, width) };
        };
        let valid = (matrix.columns.min(left) - column).min(width);
        tile(&upper_left, column, valid, 0);
        tile(&lower_left, column, valid, height);
        let valid = matrix.columns.saturating_sub(left + column).min(width);
        if valid > 0 {
            tile(&upper_right, left + column, valid, 0);
            tile(&lower_right, left + column, valid, height);
        }
    }
}

/// The left factors of the quarters 11, 12, 21 and 22.
#[inline(always)]
fn sums<S: Simd>(s: S, [a11, a12, a21, a22]: [S::F32; 4]) -> [S::F32; LEFT_FACTORS] {
    let both = s.add(a21, a22);
    let without = s.sub(both, a11);
    [a11, a12, a22, both, without, s.sub(a11, a21), s.sub(a12, without)]
}

/// A stage that adds nothing.
const NOTHING: Stage = Stage {
    table: std::ptr::null(),
    table_stride: 0,
    taps: 0,
    tap_start: 0,
    tap_len: 0,
    panel: std::ptr::null(),
};
