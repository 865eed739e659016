//! The left operand of a block, as tiles.

use std::cell::Cell;

use super::super::pack::AlignedNumbers;
use super::super::tile::Stage;
use super::LANES;
use crate::amx::instructions::{Shapes, Tiles};
use crate::amx::{TILE_ROWS, TILE_WORDS, TileProduct};
use crate::element::Factor;

/// The words of copied rows a block may have, unless it has few rows: half of the second-level cache of the machines that
/// have the unit.
const MOST_COPIED: usize = 256 * 1024;

/// The rows a block has at least, whatever their length: as many as meet a panel at a time.
const LEAST_ROWS: usize = 2 * TILE_ROWS;

/// A tile of the left operand: its first row, and the bytes to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeftTile {
    pub start: *const u8,
    pub step: usize,
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
pub(super) struct Steps {
    /// Pieces of a row: its taps as they are, or all of them copied into one.
    pub pieces: usize,
    /// Whole steps of a piece.
    pub steps: usize,
    /// Words of a step.
    pub words: usize,
    /// Words of a last, shorter step, filled up with zeros; only where all is copied.
    pub rest: usize,
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

/// How many of so many rows are to be a block of [`Left`], where a row has so many words: evenly dealt out.
pub(in crate::matmul) fn block_rows(rows: usize, words: usize) -> usize {
    let most = (MOST_COPIED / words.max(1)).max(LEAST_ROWS);
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// The rows of a block, ready to be multiplied with any number of panels. The unit is this thread's meanwhile.
pub(in crate::matmul) struct Left {
    pub(super) product: TileProduct,
    pub(super) unit: Tiles,
    pub(super) steps: Steps,
    rows: usize,
    /// Tiles of rows: one, or an even number.
    pub(super) groups: usize,
    /// The rows of each. They overlap where there are fewer.
    pub(super) height: usize,
    /// `[groups][pieces]`
    pub(super) tiles: Vec<LeftTile>,
    copies: AlignedNumbers,
}

impl Left {
    /// The rows of a stage.
    ///
    /// # Safety
    /// The table holds `rows` addresses a tap, which is not none, each readable for `tap_len` words from `tap_start` on as
    /// long as this lives; the instruction is what [`product`] gave, and this thread holds no other `Left`.
    pub(in crate::matmul) unsafe fn new<T: Factor>(
        product: TileProduct,
        stage: &Stage<T>,
        rows: usize,
    ) -> Left {
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
    pub(super) fn first(&self, group: usize) -> usize {
        first_row(group, self.groups, self.rows, self.height)
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
