//! Products on the tile unit (AMX, see [`crate::amx`]).
//!
//! A panel of words is what the unit wants as a right operand: a tile of 16 words by 16 columns is a piece of it, rows one
//! panel row apart. Two tiles of rows meet two tiles of columns at a time, so that each of the four that are loaded is
//! used twice; the other four hold the sums, which leave the unit once a tile and go through the epilogue of all products.
//!
//! The rows of a left tile must lie evenly spaced, and a table of addresses says where they really are. Where they are
//! evenly spaced (all pixels of a pointwise layer, neighbours along a line) they are read in place, else a block's rows
//! are copied once, for all panels. How the depth is cut depends on the shape alone, never on the addresses or the number
//! of rows, so that neither changes a bit of the result.
//!
//! The instructions were never run on the unit itself but on its emulation: how far ahead weights are fetched, and what is
//! copied rather than read in place, is reasoned, not measured.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::pack::AlignedNumbers;
use super::tile::{Scaling, Stage};
use crate::amx::instructions::{Shapes, Tiles};
use crate::amx::{TILE_ROWS, TILE_WORDS, TileProduct};
use crate::element::{Element, Factor};
use crate::epilogue::Destination;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp};

/// The words of copied rows a block may have, unless it has few rows: half of the second-level cache of the machines that
/// have the unit.
const MOST_COPIED: usize = 256 * 1024;

/// The rows a block has at least, whatever their length: as many as meet a panel at a time.
const LEAST_ROWS: usize = 2 * TILE_ROWS;

/// How many columns a vector has beside the tiles.
const LANES: usize = 16;

/// How far ahead of its use a panel is fetched, in words: eight steps of two by two tiles, some 600 cycles.
const AHEAD: usize = 8 * TILE_WORDS * 2 * LANES;

/// How many rows go through the epilogue at a time.
const FINISHED_ROWS: usize = 4;

/// A tile of the left operand: its first row, and the bytes to the next.
#[derive(Clone, Copy, Debug)]
struct LeftTile {
    start: *const u8,
    step: usize,
}

/// What a thread keeps from block to block.
#[derive(Default)]
struct Scratch {
    tiles: Vec<LeftTile>,
    copies: AlignedNumbers,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// How the depth of a product is cut into steps of a tile's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Steps {
    /// Pieces of a row: its taps as they are, or all of them copied into one.
    pieces: usize,
    /// Whole steps of a piece.
    steps: usize,
    /// Words of a step.
    words: usize,
    /// Words of a last, shorter step, filled up with zeros; only where all is copied.
    rest: usize,
}

impl Steps {
    /// Taps are cut evenly where that takes few more steps than all of them in a row would.
    fn new(taps: usize, tap_words: usize) -> Steps {
        let words = (1..=TILE_WORDS).rev().find(|&words| tap_words.is_multiple_of(words)).unwrap_or(1);
        let (steps, depth) = (tap_words / words, taps * tap_words);
        if taps * steps * 4 <= depth.div_ceil(TILE_WORDS) * 5 {
            return Steps { pieces: taps, steps, words, rest: 0 };
        }
        Steps { pieces: 1, steps: depth / TILE_WORDS, words: TILE_WORDS, rest: depth % TILE_WORDS }
    }
}

/// The instruction for a product of these factors in vectors of `S`, where `isa` has a tile unit that multiplies them.
#[inline(always)]
pub(super) fn product<S: Simd, T: Factor>(isa: Isa) -> Option<TileProduct> {
    if const { matches!(S::ISA, Isa::Avx512) && T::TILES.is_some() } && isa == Isa::Amx {
        T::TILES
    } else {
        None
    }
}

/// How many of so many rows are to be a block of [`Left`], where a row has so many words: evenly dealt out.
pub(super) fn block_rows(rows: usize, words: usize) -> usize {
    let most = (MOST_COPIED / words.max(1)).max(LEAST_ROWS);
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// The rows of a block, ready to be multiplied with any number of panels. The unit is this thread's meanwhile.
pub(super) struct Left {
    product: TileProduct,
    unit: Tiles,
    steps: Steps,
    rows: usize,
    /// Tiles of rows: one, or an even number.
    groups: usize,
    /// The rows of each. They overlap where there are fewer.
    height: usize,
    /// `[groups][pieces]`
    tiles: Vec<LeftTile>,
    copies: AlignedNumbers,
}

impl Left {
    /// The rows of a stage.
    ///
    /// # Safety
    /// The table holds `rows` addresses a tap, which is not none, each readable for `tap_len` words from `tap_start` on as
    /// long as this lives; the unit is available, and this thread holds no other `Left`.
    pub(super) unsafe fn new<T: Factor>(product: TileProduct, stage: &Stage<T>, rows: usize) -> Left {
        let steps = Steps::new(stage.taps, stage.tap_len);
        let groups = if rows <= TILE_ROWS { 1 } else { rows.div_ceil(2 * TILE_ROWS) * 2 };
        let height = rows.div_ceil(groups);
        let (left, right, sums) = ((height, steps.words), (steps.words, LANES), (height, LANES));
        // SAFETY: promised by the caller.
        let unit =
            unsafe { Tiles::configure(&Shapes::new([sums, sums, sums, sums, left, left, right, right])) };
        let Scratch { mut tiles, copies } = SCRATCH.take();
        tiles.clear();
        let mut left = Left { product, unit, steps, rows, groups, height, tiles, copies };
        // SAFETY: promised by the caller.
        unsafe { left.find(stage) };
        left
    }

    /// Finds the tiles of the left operand, and copies those whose rows are not evenly spaced.
    ///
    /// # Safety
    /// As for [`Left::new`], whose stage this is.
    unsafe fn find<T: Factor>(&mut self, stage: &Stage<T>) {
        let (pieces, height) = (self.steps.pieces, self.height);
        let address = |tap: usize, row: usize| {
            // SAFETY: inside the table.
            let piece = unsafe { *stage.table.add(tap * stage.table_stride + row) };
            piece.wrapping_add(stage.tap_start).cast::<u8>()
        };
        let joined = pieces != stage.taps || self.steps.rest != 0;
        let mut copied = 0;
        for first in (0..self.groups).map(|group| first_row(group, self.groups, self.rows, height)) {
            for piece in 0..pieces {
                let start = address(piece, first);
                let step =
                    if height > 1 { address(piece, first + 1).addr().wrapping_sub(start.addr()) } else { 0 };
                let even =
                    |row: usize| address(piece, first + row) == start.wrapping_add(row.wrapping_mul(step));
                let in_place = !joined && (2..height).all(even);
                copied += usize::from(!in_place);
                self.tiles.push(LeftTile { start: if in_place { start } else { std::ptr::null() }, step });
            }
        }
        if copied == 0 {
            return;
        }
        // The words of a copied row: an odd number of cache lines, so that rows do not meet in few sets of the cache.
        let words = if joined { stage.taps * stage.tap_len } else { stage.tap_len };
        let row_words = (words.div_ceil(TILE_WORDS) | 1) * TILE_WORDS;
        if self.copies.as_slice().len() < copied * height * row_words {
            self.copies = AlignedNumbers::zeros(copied * height * row_words);
        }
        let mut copies = self.copies.as_mut_slice().chunks_exact_mut(height * row_words);
        for (index, tile) in self.tiles.iter_mut().enumerate().filter(|(_, tile)| tile.start.is_null()) {
            let (first, piece) = (first_row(index / pieces, self.groups, self.rows, height), index % pieces);
            let taps = if joined { 0..stage.taps } else { piece..piece + 1 };
            let Some(copy) = copies.next() else { return };
            for (row, copy) in copy.chunks_exact_mut(row_words).enumerate() {
                for (i, tap) in taps.clone().enumerate() {
                    let to = &mut copy[i * stage.tap_len..][..stage.tap_len];
                    // SAFETY: the caller promises the words at the address.
                    unsafe {
                        let from = address(tap, first + row);
                        std::ptr::copy_nonoverlapping(from, to.as_mut_ptr().cast(), size_of_val(to));
                    }
                }
                copy[words..].fill(0.0);
            }
            *tile = LeftTile { start: copy.as_ptr().cast(), step: row_words * size_of::<f32>() };
        }
    }

    /// The first row of a group.
    fn first(&self, group: usize) -> usize {
        first_row(group, self.groups, self.rows, self.height)
    }

    /// Multiplies the rows with a panel of `width` columns.
    ///
    /// # Safety
    /// The panel has as many rows as the rows of the left operand have words; the bias is null or has a number for each
    /// valid column; the destination is that of the rows, and writable by nobody else.
    #[inline(always)]
    pub(super) unsafe fn multiply<S: Simd, T: Factor, O: Element>(
        &self,
        s: S,
        panel: &[f32],
        width: usize,
        bias: *const f32,
        scaling: &Scaling,
        destination: &Destination<O>,
    ) {
        let (left, panel, factor) = (self, panel.as_ptr(), PhantomData);
        macro_rules! call {
            ($rows:literal, $columns:literal) => {
                s.call(PanelOp::<T, O, $rows, $columns> { left, panel, bias, scaling, destination, factor })
            };
        }
        match (self.groups, width / LANES) {
            (1, 1) => call!(1, 1),
            (1, _) => call!(1, 2),
            (_, 1) => call!(2, 1),
            _ => call!(2, 2),
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        SCRATCH.set(Scratch {
            tiles: std::mem::take(&mut self.tiles),
            copies: std::mem::take(&mut self.copies),
        });
    }
}

/// The first of the `height` rows of a group: the groups cover all rows, the first from the first on, the last to the last.
fn first_row(group: usize, groups: usize, rows: usize, height: usize) -> usize {
    group * (rows - height) / (groups - 1).max(1)
}

/// A block times a panel, `ROWS` by `COLUMNS` tiles at a time.
struct PanelOp<'a, T, O, const ROWS: usize, const COLUMNS: usize> {
    left: &'a Left,
    panel: *const f32,
    bias: *const f32,
    scaling: &'a Scaling,
    destination: &'a Destination<O>,
    factor: PhantomData<T>,
}

/// Words in whole cache lines: a row for each of two tiles of rows, a column for each of two tiles of columns.
#[repr(align(64))]
struct Lines<const ROWS: usize>([[f32; 2 * LANES]; ROWS]);

impl<T: Factor, O: Element, const ROWS: usize, const COLUMNS: usize> SimdOp
    for PanelOp<'_, T, O, ROWS, COLUMNS>
{
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Self { left, panel, bias, scaling, destination, factor: _ } = self;
        let Steps { pieces, steps, words, rest } = left.steps;
        let width = COLUMNS * LANES;
        let valid = destination.valid.min(width);
        // SAFETY: the creator of `left` promised its rows, that of this the panel, the bias and the destination.
        unsafe {
            let mut biases = Lines([[0.0; 2 * LANES]; 1]);
            if !bias.is_null() {
                std::ptr::copy_nonoverlapping(bias, biases.0[0].as_mut_ptr(), valid);
            }
            let initial = if bias.is_null() { std::ptr::null() } else { biases.0[0].as_ptr() };
            // What lies behind the panel's last rows is not its own.
            let mut last = MaybeUninit::<Lines<TILE_WORDS>>::uninit();
            let last = last.as_mut_ptr().cast::<f32>();
            if rest > 0 {
                std::ptr::write_bytes(last, 0, TILE_WORDS * width);
                std::ptr::copy_nonoverlapping(panel.add(steps * words * width), last, rest * width);
            }
            let mut sums = MaybeUninit::<Lines<{ 2 * TILE_ROWS }>>::uninit();
            let sums = sums.as_mut_ptr().cast::<f32>();
            let mut covered = 0;
            for group in (0..left.groups).step_by(ROWS) {
                start::<ROWS, COLUMNS>(&left.unit, initial);
                let mut right = panel;
                for piece in 0..pieces {
                    let of = |row: usize| *left.tiles.get_unchecked((group + row) * pieces + piece);
                    let mut rows = [of(0), of(ROWS - 1)];
                    for _ in 0..steps {
                        // The other groups find the panel in the second-level cache.
                        if group == 0 {
                            for line in 0..words * COLUMNS {
                                fetch(right.wrapping_add(AHEAD + line * LANES));
                            }
                        }
                        step::<ROWS, COLUMNS>(left, rows, right);
                        rows.iter_mut()
                            .for_each(|row| row.start = row.start.wrapping_add(words * size_of::<f32>()));
                        right = right.wrapping_add(words * width);
                    }
                    if rest > 0 {
                        step::<ROWS, COLUMNS>(left, rows, last);
                    }
                }
                store::<ROWS, COLUMNS>(&left.unit, sums);
                for row in 0..ROWS {
                    let first = left.first(group + row);
                    let skip = covered - first;
                    let from = sums.add((row * TILE_ROWS + skip) * 2 * LANES);
                    finish::<S, T, O, COLUMNS>(s, from, scaling, destination, covered, left.height - skip);
                    covered = first + left.height;
                }
            }
        }
    }
}

/// Asks for a cache line, which need not be readable, in the second-level cache.
#[inline(always)]
fn fetch(p: *const f32) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: every x86-64 has the instruction, and it never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) };
}

/// Sets the sums, tiles 0 to 3, to a row of numbers each, or to zero where that is null.
///
/// # Safety
/// The numbers are readable for the columns; the tiles have shapes.
#[inline(always)]
unsafe fn start<const ROWS: usize, const COLUMNS: usize>(unit: &Tiles, initial: *const f32) {
    // SAFETY: promised by the caller; a step of nothing reads the same row for all.
    unsafe {
        if initial.is_null() {
            unit.zero::<0>();
            if COLUMNS == 2 {
                unit.zero::<1>();
            }
            if ROWS == 2 {
                unit.zero::<2>();
            }
            if ROWS == 2 && COLUMNS == 2 {
                unit.zero::<3>();
            }
            return;
        }
        let (first, second) = (initial.cast(), initial.wrapping_add(LANES).cast());
        unit.load::<0>(first, 0);
        if COLUMNS == 2 {
            unit.load::<1>(second, 0);
        }
        if ROWS == 2 {
            unit.load::<2>(first, 0);
        }
        if ROWS == 2 && COLUMNS == 2 {
            unit.load::<3>(second, 0);
        }
    }
}

/// Multiplies tiles of rows with what is at `right`, and adds that to the sums.
///
/// # Safety
/// The tiles' rows are readable, and the rows of the panel at `right` that are a tile's.
#[inline(always)]
unsafe fn step<const ROWS: usize, const COLUMNS: usize>(left: &Left, rows: [LeftTile; 2], right: *const f32) {
    let (unit, product, width) = (&left.unit, left.product, COLUMNS * LANES * size_of::<f32>());
    // SAFETY: promised by the caller; `Left::new` gave the tiles shapes that fit.
    unsafe {
        unit.load::<4>(rows[0].start.cast(), rows[0].step);
        unit.load::<6>(right.cast(), width);
        unit.multiply::<0, 4, 6>(product);
        if ROWS == 2 {
            unit.load::<5>(rows[1].start.cast(), rows[1].step);
            unit.multiply::<2, 5, 6>(product);
        }
        if COLUMNS == 2 {
            unit.load::<7>(right.wrapping_add(LANES).cast(), width);
            unit.multiply::<1, 4, 7>(product);
        }
        if ROWS == 2 && COLUMNS == 2 {
            unit.multiply::<3, 5, 7>(product);
        }
    }
}

/// Writes the sums, the second tile of rows [`TILE_ROWS`] behind the first.
///
/// # Safety
/// There is room for `2 * TILE_ROWS` rows of `2 * LANES` numbers.
#[inline(always)]
unsafe fn store<const ROWS: usize, const COLUMNS: usize>(unit: &Tiles, sums: *mut f32) {
    const STEP: usize = 2 * LANES * size_of::<f32>();
    let below = sums.wrapping_add(TILE_ROWS * 2 * LANES);
    // SAFETY: promised by the caller.
    unsafe {
        unit.store::<0>(sums.cast(), STEP);
        if COLUMNS == 2 {
            unit.store::<1>(sums.wrapping_add(LANES).cast(), STEP);
        }
        if ROWS == 2 {
            unit.store::<2>(below.cast(), STEP);
        }
        if ROWS == 2 && COLUMNS == 2 {
            unit.store::<3>(below.wrapping_add(LANES).cast(), STEP);
        }
    }
}

/// Does the epilogue of some rows of sums, those of the destination from `row` on.
///
/// # Safety
/// The sums are there, scaling and destination are those of the rows, and the destination is writable for them.
#[inline(always)]
unsafe fn finish<S: Simd, T: Factor, O: Element, const COLUMNS: usize>(
    s: S,
    sums: *const f32,
    scaling: &Scaling,
    destination: &Destination<O>,
    row: usize,
    count: usize,
) {
    let (mut scaling, mut destination) = (*scaling, *destination);
    let valid = destination.valid;
    // SAFETY: promised by the caller.
    unsafe {
        destination.outputs = destination.outputs.add(row);
        scaling.row_sums = scaling.row_sums.wrapping_add(row);
        let mut done = 0;
        while done < count {
            let load =
                |row: usize, column: usize| s.load(sums.add((done + row) * 2 * LANES + column * LANES));
            if count - done >= FINISHED_ROWS {
                let mut rows = [[s.zero(); COLUMNS]; FINISHED_ROWS];
                for (i, row) in rows.iter_mut().enumerate() {
                    for (j, sum) in row.iter_mut().enumerate() {
                        *sum = load(i, j);
                    }
                }
                scaling.apply::<T, S, FINISHED_ROWS, COLUMNS>(s, valid, &mut rows);
                destination.store::<S, FINISHED_ROWS, COLUMNS>(s, &rows);
                scaling.row_sums = scaling.row_sums.wrapping_add(FINISHED_ROWS);
                (destination.outputs, done) = (destination.outputs.add(FINISHED_ROWS), done + FINISHED_ROWS);
            } else {
                let mut row = [[s.zero(); COLUMNS]];
                for (j, sum) in row[0].iter_mut().enumerate() {
                    *sum = load(0, j);
                }
                scaling.apply::<T, S, 1, COLUMNS>(s, valid, &mut row);
                destination.store::<S, 1, COLUMNS>(s, &row);
                scaling.row_sums = scaling.row_sums.wrapping_add(1);
                (destination.outputs, done) = (destination.outputs.add(1), done + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_is_cut_evenly_where_that_takes_few_more_steps() {
        let steps = |pieces, steps, words, rest| Steps { pieces, steps, words, rest };
        assert_eq!(Steps::new(1, 64), steps(1, 4, 16, 0));
        assert_eq!(Steps::new(9, 32), steps(9, 2, 16, 0));
        assert_eq!(Steps::new(1, 20), steps(1, 2, 10, 0));
        // Half a tile for each tap would take twice the steps.
        assert_eq!(Steps::new(9, 8), steps(1, 4, 16, 8));
        assert_eq!(Steps::new(1, 17), steps(1, 1, 16, 1));
        assert_eq!(Steps::new(1, 14), steps(1, 1, 14, 0));
        assert_eq!(Steps::new(3, 0), steps(3, 0, 16, 0));
        for taps in 1..12 {
            for words in 0..70 {
                let Steps { pieces, steps, words: step, rest } = Steps::new(taps, words);
                assert_eq!(pieces * steps * step + rest, taps * words);
                assert!(step <= TILE_WORDS && rest < TILE_WORDS && (rest == 0 || pieces == 1));
            }
        }
    }

    #[test]
    fn blocks_are_even() {
        assert_eq!(block_rows(112, 64), 112);
        assert_eq!(block_rows(112, 4096), 56);
        assert_eq!(block_rows(112, 1 << 30), 28);
        assert_eq!(block_rows(1, 0), 1);
    }
}
