//! Cuts a product into tasks, and a task into tiles.
//!
//! A task is a block of rows times a run of panels. Inside, each panel (in the second-level cache by then) is
//! multiplied with all tiles of the block. Rows are dealt out evenly: 49 rows are tiles of 13, 12, 12 and 12,
//! not 14, 14, 14 and a slow 7. Neither the cut nor the number of threads changes the order of any sum, so
//! results are the same to the bit for every number of threads.

use std::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::pack::{PackedMatrix, panel_width};
use super::row;
use super::tile::{self, Scaling, Stage, Tile};
use crate::amx::TILE_ROWS;
use crate::element::{Element, Factor};
use crate::epilogue::{Destination, Epilogue};
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp};
use crate::threads::ThreadPool;
use crate::view::RowsMut;

/// The addresses a block of rows may have at most, over all taps.
pub(super) const TABLE_LEN: usize = 2048;

/// The rows of a block at most.
const BLOCK_ROWS: usize = 112;

/// The same on the tile unit, where a block is the longer worth fetching weights for: whole lines of most layers.
pub(super) const TILE_BLOCK_ROWS: usize = 224;

/// The rows of a block at most on an instruction set.
pub(crate) fn most_block_rows(isa: Isa) -> usize {
    if isa == Isa::Amx { TILE_BLOCK_ROWS } else { BLOCK_ROWS }
}

/// The most taps a [`RowSource`] may have: so many that a tile of every instruction set fits the table.
pub(crate) const MAX_TAPS: usize = TABLE_LEN / 14;

/// The words a block of rows may copy to scratch at most, unless a single tile needs more.
const BLOCK_SCRATCH: usize = 64 * 1024;

/// The left operand of a product: rows of `taps` pieces of `tap_len` contiguous elements each. Where the product multiplies
/// them as longer numbers, it copies the rows of a block to scratch memory and widens them there.
///
/// # Safety
/// `fill` must set every address of the table to one readable for `tap_len` elements while the product runs.
pub(crate) unsafe trait RowSource<T = f32>: Sync {
    /// How many rows.
    fn rows(&self) -> usize;
    /// How many pieces a row has, at most [`MAX_TAPS`].
    fn taps(&self) -> usize;
    /// The length of a piece, a whole number of words of their factor.
    fn tap_len(&self) -> usize;
    /// How many rows lie evenly spaced, from the first on and again and again.
    fn line(&self) -> usize {
        1
    }
    /// The elements at the end of each piece that are not its own but of whatever follows, and count as zero: less than a
    /// word, and only where a product [`ends_pieces`].
    fn foreign(&self) -> usize {
        0
    }
    /// The elements of scratch memory `fill` needs for each row.
    fn scratch_per_row(&self) -> usize {
        0
    }
    /// Sets the addresses and output rows of the rows from `start`, `table.count()` of them.
    fn fill(&self, start: usize, table: &mut RowTable<'_, T>);
}

/// The addresses of the pieces of a block of rows, to be filled by a [`RowSource`].
pub(crate) struct RowTable<'a, T = f32> {
    /// Those of a tap are `stride` after those of the tap before.
    pub(super) addresses: &'a mut [MaybeUninit<*const T>],
    pub(super) stride: usize,
    pub(super) outputs: &'a mut [MaybeUninit<usize>],
    pub(super) count: usize,
    pub(super) scratch: &'a mut [T],
}

impl<T> RowTable<'_, T> {
    /// How many rows to fill.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Sets where a piece of a row starts.
    #[inline(always)]
    pub(crate) fn set(&mut self, tap: usize, row: usize, address: *const T) {
        self.addresses[tap * self.stride + row].write(address);
    }

    /// Sets which row of the result a row belongs to.
    #[inline(always)]
    pub(crate) fn set_output(&mut self, row: usize, output: usize) {
        self.outputs[row].write(output);
    }

    /// Memory to copy rows to, `scratch_per_row` elements for each.
    pub(crate) fn scratch(&mut self) -> &mut [T] {
        self.scratch
    }
}

/// The scratch memory a product of these rows needs, in words.
pub(crate) fn scratch_len<T: Element>(source: &impl RowSource<T>, threads: usize) -> usize {
    threads.max(1) * slot_len(source)
}

/// The words of scratch memory of a block of rows.
fn slot_len<T: Element>(source: &impl RowSource<T>) -> usize {
    (block_rows(source) * elements_per_row(source)).div_ceil(T::TYPE.per_word())
}

/// The elements of scratch memory of a row: those that the source asks for, and where it is widened.
fn elements_per_row<T: Element>(source: &impl RowSource<T>) -> usize {
    source.scratch_per_row() + widened_step(source) * T::TYPE.per_word()
}

/// The words from a row that is widened to the next: an odd number of cache lines, so that they do not meet in the same set
/// of the cache. None where rows are multiplied as they are.
fn widened_step<T: Element>(source: &impl RowSource<T>) -> usize {
    if T::WIDENED { ((source.taps() * source.tap_len()).div_ceil(16) | 1) * 16 } else { 0 }
}

/// The rows of a block, limited by the table and the scratch memory, and at least a tile of every instruction
/// set.
fn block_rows<T: Element>(source: &impl RowSource<T>) -> usize {
    let by_table = TABLE_LEN / source.taps().max(1);
    let most = BLOCK_SCRATCH * T::TYPE.per_word();
    let by_scratch = most.checked_div(elements_per_row(source)).unwrap_or(TILE_BLOCK_ROWS);
    by_table.min(by_scratch.max(TILE_ROWS)).min(TILE_BLOCK_ROWS)
}

/// The rows that blocks are counted in: a tile of vectors, or on the tile unit a line, unless it is short or long.
fn tile_unit<T: Factor>(isa: Isa, line: usize, most: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if amx::product::<T>(isa).is_some() {
        return if (TILE_ROWS / 2..=most / 2).contains(&line) { line } else { TILE_ROWS.min(most) };
    }
    let _ = (line, most);
    tile::max_rows(isa)
}

/// Whether a product of so many rows takes pieces that [end in what is not their own](RowSource::foreign): it copies them.
pub(crate) fn ends_pieces<T: Factor>(isa: Isa, rows: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    // A single row waits for the weights, which vectors read as fast.
    return rows > 1 && amx::product::<T>(isa).is_some();
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (isa, rows);
        false
    }
}

/// How many tasks of at least a microsecond a product makes.
fn worth(rows: usize, depth: usize, columns: usize) -> usize {
    const LEAST_CYCLES: usize = 4000;
    // One vector a cycle; with few rows the matrix is waited for, at about eight bytes a cycle.
    let (arithmetic, fetch) = (rows.saturating_mul(depth * columns / 16), depth * columns / 2);
    (arithmetic.max(fetch) / LEAST_CYCLES).max(1)
}

/// What the integer sums of each column of an output stand for: `(sum + row sum · offset) · scale + shift`.
pub(crate) struct SumScales {
    /// One unit of the sum.
    pub scales: Vec<f32>,
    /// Added to what was scaled, where there is anything.
    pub shift: Option<Vec<f32>>,
    /// What all weights of a column were lessened by to fit a byte, where any were.
    pub offsets: Option<Vec<i32>>,
}

/// A right operand with what follows the product, whose result is kept in another element where `O` is one.
pub(crate) struct Product<'a, T = f32, O = T> {
    /// The right operand.
    pub matrix: &'a PackedMatrix<T>,
    /// Where the columns of the result start in the output, the bias and the residual.
    pub first_column: usize,
    /// As many sums as the output has columns: the bits of integers where sums are.
    pub bias: Option<&'a [f32]>,
    /// How sums become numbers where they are integers, and only there.
    pub scales: Option<&'a SumScales>,
    /// What follows the sums.
    pub epilogue: Epilogue<'a, O>,
}

impl<T: Factor, O: Element> Product<'_, T, O> {
    /// Whether the shapes fit each other.
    pub(crate) fn check<E: Element<Factor = T>>(
        &self,
        source: &impl RowSource<E>,
        out: &RowsMut<'_, O>,
    ) -> Result<(), String> {
        let depth = source.taps() * source.tap_len();
        if depth != self.matrix.rows() {
            return Err(format!("rows of {depth} numbers meet a matrix of {} rows", self.matrix.rows()));
        }
        if !source.tap_len().is_multiple_of(T::PER_WORD) {
            return Err(format!("pieces of {} elements are no whole words", source.tap_len()));
        }
        if source.foreign() > 0 && !ends_pieces::<T>(self.matrix.isa(), source.rows()) {
            return Err(format!("pieces that end in {} elements of others", source.foreign()));
        }
        if source.taps() > MAX_TAPS {
            return Err(format!("{} taps are more than {MAX_TAPS}", source.taps()));
        }
        let end = self.first_column + self.matrix.columns();
        if end > out.channels() {
            return Err(format!("{end} columns do not fit an output of {}", out.channels()));
        }
        if let Some(bias) = self.bias
            && bias.len() != out.channels()
        {
            return Err(format!("{} biases for {} columns", bias.len(), out.channels()));
        }
        let scales = self.scales.map(|s| {
            let all = s.scales.len();
            [all, s.shift.as_ref().map_or(all, Vec::len), s.offsets.as_ref().map_or(all, Vec::len)]
        });
        if scales != T::INTEGER.then_some([out.channels(); 3]) {
            return Err(format!(
                "{scales:?} scales, shifts and offsets for {} columns of {}",
                out.channels(),
                T::TYPE
            ));
        }
        self.epilogue.check(out.rows(), out.channels())
    }

    /// Computes the product.
    ///
    /// # Safety
    /// `check` accepted, `source` names only output rows below `out.rows()` and no two of its rows the same,
    /// and `scratch` holds [`scratch_len`] words.
    pub(crate) unsafe fn run<E: Element<Factor = T>, R: RowSource<E>>(
        &self,
        pool: &ThreadPool,
        source: &R,
        out: &RowsMut<'_, O>,
        scratch: &mut [f32],
    ) {
        let isa = self.matrix.isa();
        let (rows, panels) = (source.rows(), self.matrix.panels());
        if rows == 0 || panels == 0 {
            return;
        }
        let threads = pool.threads().max(1);
        let most = block_rows(source).min(most_block_rows(isa));
        let unit = tile_unit::<T>(isa, source.line(), most);
        let tiles = rows.div_ceil(unit);
        let least = tiles.div_ceil(most / unit);
        // A few tasks for each thread, but none so short that handing it over takes as long.
        let (depth, columns) = (self.matrix.rows(), self.matrix.columns());
        let wanted = if threads == 1 { 1 } else { (threads * 4).min(worth(rows, depth, columns)) };
        // Either the matrix is split, of which each thread then reads its part only, or the rows are, of which it then
        // writes its part only: the same in every layer, so that it finds them in its own cache.
        let copies = elements_per_row(source) != 0;
        let (blocks, runs) = if depth * columns > rows * (depth + columns) && !copies {
            // A single row is read from several panels at once.
            let runs = if rows == 1 { panels.div_ceil(row::STREAMS) } else { panels }.min(wanted);
            (least.max(wanted.div_ceil(runs).min(tiles)), runs)
        } else {
            let blocks = least.max(wanted.min(tiles));
            (blocks, wanted.div_ceil(blocks).min(panels))
        };
        let cut = |i: usize, parts: usize, whole: usize| (i as u128 * whole as u128 / parts as u128) as usize;
        let (slot_len, widened_len) = (slot_len(source), block_rows(source) * widened_step(source));
        let slots = SharedScratch::new(scratch);
        pool.run_with_slots(blocks * runs, &|slot, task| {
            let (block, run) = (task / runs, task % runs);
            let tiles_of_block = cut(block, blocks, tiles)..cut(block + 1, blocks, tiles);
            let panels_of_run = cut(run, runs, panels)..cut(run + 1, runs, panels);
            // SAFETY: slots are disjoint pieces of the scratch memory, and nobody else uses this slot
            // meanwhile.
            let scratch = unsafe { slots.piece(slot * slot_len, slot_len) };
            let (widened, scratch) = scratch.split_at_mut(widened_len);
            let scratch = as_elements(scratch);
            T::dispatch_products(
                isa,
                Block { product: self, source, out, tiles, tiles_of_block, panels_of_run, widened, scratch },
            );
        });
    }
}

/// Reads as many elements as there is room for, as `f32`.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn widen<S: Simd, E: Element>(s: S, from: *const E, to: &mut [f32]) {
    for (i, to) in to.chunks_mut(S::LANES).enumerate() {
        // SAFETY: promised by the caller; the chunk has room for its own length.
        unsafe {
            let from = from.add(i * S::LANES);
            if to.len() == S::LANES {
                s.store(to.as_mut_ptr(), E::load(s, from));
            } else {
                s.store_partial(to.as_mut_ptr(), to.len(), E::load_partial(s, from, to.len()));
            }
        }
    }
}

/// The sum of so many bytes.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn sum_of_bytes(start: *const u8, len: usize) -> i32 {
    // SAFETY: promised by the caller.
    let bytes = unsafe { std::slice::from_raw_parts(start, len) };
    bytes.iter().map(|&byte| i32::from(byte)).sum()
}

/// Words seen as elements.
pub(crate) fn as_elements<T: Element>(words: &mut [f32]) -> &mut [T] {
    // SAFETY: the same memory; every pattern is an element and a word, and an element is aligned no more than a word.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * T::TYPE.per_word()) }
}

/// A pointer to memory whose users share it out by index.
pub(crate) struct SharedScratch(*mut f32);

// SAFETY: only disjoint pieces are handed out, see `piece`.
unsafe impl Sync for SharedScratch {}

impl SharedScratch {
    /// Shares out this memory.
    pub(crate) fn new(memory: &mut [f32]) -> Self {
        Self(memory.as_mut_ptr())
    }

    /// An address inside the memory.
    pub(crate) fn at(&self, start: usize) -> *mut f32 {
        self.0.wrapping_add(start)
    }

    /// Part of the memory.
    ///
    /// # Safety
    /// The piece is inside the memory, which outlives `'a`, and no other piece in use overlaps it.
    pub(crate) unsafe fn piece<'a>(&self, start: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// One task.
struct Block<'a, E: Element, O, R> {
    product: &'a Product<'a, E::Factor, O>,
    source: &'a R,
    out: &'a RowsMut<'a, O>,
    /// The tiles of all blocks together; row `r` starts tile `t` where `r = t * rows / tiles`.
    tiles: usize,
    tiles_of_block: std::ops::Range<usize>,
    panels_of_run: std::ops::Range<usize>,
    /// Room for the rows of a block as longer numbers, where they are multiplied as such.
    widened: &'a mut [f32],
    scratch: &'a mut [E],
}

impl<T: Factor, E: Element<Factor = T>, O: Element, R: RowSource<E>> SimdOp for Block<'_, E, O, R> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Block { product, source, out, tiles, tiles_of_block, panels_of_run, widened, scratch } = self;
        let &Product { matrix, first_column, bias, scales, epilogue } = product;
        let start_of = |tile: usize| (tile as u128 * source.rows() as u128 / tiles as u128) as usize;
        let start = start_of(tiles_of_block.start);
        let count = start_of(tiles_of_block.end) - start;
        let mut addresses = [MaybeUninit::uninit(); TABLE_LEN];
        let mut outputs = [MaybeUninit::uninit(); TILE_BLOCK_ROWS];
        let (table, stride) = (&mut addresses[..], count);
        source.fill(start, &mut RowTable { addresses: table, stride, outputs: &mut outputs, count, scratch });
        let (mut taps, mut tap_len) = (source.taps(), source.tap_len());
        if const { E::WIDENED } {
            let step = widened_step(source);
            for (row, to) in widened.chunks_exact_mut(step.max(1)).enumerate().take(count) {
                for tap in 0..taps {
                    let to = &mut to[tap * tap_len..][..tap_len];
                    // SAFETY: the source filled the table for `count` rows, each address with one that is readable for a
                    // piece.
                    unsafe { widen(s, addresses[tap * count + row].assume_init(), to) };
                }
                // From here on the table names the row as the factors it is multiplied as, in one piece.
                addresses[row].write(to.as_ptr().cast());
            }
            (taps, tap_len) = (1, taps * tap_len);
        }
        let stage = |first: usize, panel: &[f32]| Stage::<T> {
            table: addresses.as_ptr().wrapping_add(first).cast(),
            table_stride: count,
            taps,
            tap_start: 0,
            tap_len: tap_len / T::PER_WORD,
            panel: panel.as_ptr(),
        };
        let mut row_sums = Vec::new();
        if scales.is_some_and(|s| s.offsets.is_some()) {
            row_sums.extend((0..count).map(|row| {
                let pieces = (0..source.taps()).map(|tap| {
                    // SAFETY: the source filled the table for `count` rows, each address with one that is readable for
                    // a piece; only products of bytes have scales, so that an element is one.
                    unsafe {
                        sum_of_bytes(addresses[tap * count + row].assume_init().cast(), source.tap_len())
                    }
                });
                pieces.sum::<i32>()
            }));
        }
        let scaling = |first: usize, column: usize| match scales {
            None => Scaling::NONE,
            Some(SumScales { scales, shift, offsets }) => Scaling {
                scales: scales[column..].as_ptr(),
                shift: shift.as_ref().map_or(std::ptr::null(), |shift| shift[column..].as_ptr()),
                offsets: offsets.as_ref().map_or(std::ptr::null(), |offsets| offsets[column..].as_ptr()),
                row_sums: row_sums.as_ptr().wrapping_add(first),
            },
        };
        let bias_of = |column: usize| bias.map_or(std::ptr::null(), |bias| bias[column..].as_ptr());
        let destination = |first: usize, column: usize, columns: usize| {
            Destination::new(out, &epilogue, column, columns, outputs[first..].as_ptr().cast())
        };
        #[cfg(target_arch = "x86_64")]
        if const { amx::is_possible::<S, T>() }
            && ends_pieces::<T>(matrix.isa(), source.rows())
            && let Some(product) = amx::product::<T>(matrix.isa())
        {
            let most = amx::block_rows(count, matrix.rows() / T::PER_WORD);
            for first in (0..count).step_by(most) {
                let rows = most.min(count - first);
                let mut unfinished = amx::Unfinished::new();
                // SAFETY: the table was filled by a source that promises its addresses; `product` says that the unit is
                // there; the panels are whole, and the output as below.
                unsafe {
                    let left = amx::Left::new(
                        s,
                        product,
                        &stage(first, &[]),
                        source.foreign(),
                        rows,
                        panels_of_run.len(),
                    );
                    for panel in panels_of_run.clone() {
                        let (column, valid) = matrix.panel_columns(panel);
                        let (width, column) = (matrix.panel_width(panel), first_column + column);
                        let panel = amx::Panel {
                            words: matrix.panel(panel),
                            width,
                            bias: bias_of(column),
                            scaling: scaling(first, column),
                            destination: destination(first, column, valid),
                        };
                        left.multiply::<S, T, O>(s, &panel, &mut unfinished);
                    }
                    amx::Left::flush::<S, T, O>(s, &mut unfinished);
                }
            }
            return;
        }
        let mut panels = panels_of_run;
        while let Some(panel) = panels.next() {
            let (column, valid) = matrix.panel_columns(panel);
            let together = row::STREAMS * panel_width(S::ISA);
            if count == 1 && panels.len() + 1 >= row::STREAMS && column + together <= matrix.columns() {
                let (stage, column) = (stage(0, matrix.panels_from(panel)), first_column + column);
                let to = destination(0, column, together);
                // SAFETY: as below; the panels that follow are whole, and of this task.
                unsafe {
                    let (bias, scaling) = (bias_of(column), scaling(0, column));
                    row::compute(s, &stage, bias, &scaling, &to, matrix.panel(panel).len());
                }
                panels.start += row::STREAMS - 1;
                continue;
            }
            let column = first_column + column;
            for block_tile in tiles_of_block.clone() {
                let first = start_of(block_tile) - start;
                let rows = start_of(block_tile + 1) - start - first;
                let tile = Tile {
                    stage: stage(first, matrix.panel(panel)),
                    bias: bias_of(column),
                    scaling: scaling(first, column),
                    destination: destination(first, column, valid),
                };
                // SAFETY: the table and the output rows were filled for `count` rows by a source that promises
                // them, the panel is whole, and the caller of `run` promises disjoint output rows; tiles of one
                // row block and panel are computed by one task only.
                unsafe { tile::compute(s, &tile, rows, matrix.panel_width(panel)) };
            }
        }
    }
}
