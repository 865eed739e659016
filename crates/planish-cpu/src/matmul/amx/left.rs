//! The left operand of a block, as tiles.
//!
//! A tile that is loaded in place must be rows which lie evenly spaced. All rows of a pointwise layer do; those of other
//! layers along a line of the image, so that tiles are best cut where lines end. Where lines are short, the rows are copied
//! instead, so that tiles are full: a tile of few rows takes the unit as long as one of sixteen.

use std::cell::Cell;
use std::marker::PhantomData;

use super::super::driver::TILE_BLOCK_ROWS;
use super::super::pack::AlignedNumbers;
use super::super::tile::Stage;
use super::LANES;
use crate::amx::instructions::{Shapes, Tiles};
use crate::amx::{TILE_ROWS, TILE_WORDS, TileProduct};
use crate::element::Factor;
use crate::simd::{Simd, SimdOp};

/// The words of copied rows a block may have, unless it has few rows: half of the second-level cache of the machines that
/// have the unit.
const MOST_COPIED: usize = 256 * 1024;

/// The rows a block has at least, whatever their length: as many as meet a panel at a time.
const LEAST_ROWS: usize = 2 * TILE_ROWS;

/// Copying a tile takes as long as multiplying it with so many panels.
const COPY_PANELS: usize = 2;

/// Pieces of at most so many words are copied by vectors, longer ones by the system's routine.
const SHORT_PIECE: usize = 4 * LANES;

/// A tile of the left operand: its first row, and the bytes to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeftTile {
    pub start: *const u8,
    pub step: usize,
}

/// Which rows of a block a tile has: those of its height, or fewer, where it is a copy with nothing behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TileRows {
    pub first: usize,
    pub count: usize,
}

/// What a thread keeps from block to block.
#[derive(Default)]
struct Scratch {
    tiles: Vec<LeftTile>,
    rows: Vec<TileRows>,
    runs: Vec<usize>,
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
    scratch: Scratch,
}

impl Left {
    /// The rows of a stage, to be multiplied with so many panels.
    ///
    /// # Safety
    /// The table holds `rows` addresses a tap, `rows` being at least one, each readable for `tap_len` words from `tap_start`
    /// on as long as this lives, of which the last `foreign` elements count as zero, less than a word; the instruction is
    /// what [`product`](super::product) gave, and this thread holds no other `Left`.
    #[inline(always)]
    pub(in crate::matmul) unsafe fn new<S: Simd, T: Factor>(
        s: S,
        product: TileProduct,
        stage: &Stage<T>,
        foreign: usize,
        rows: usize,
        panels: usize,
    ) -> Left {
        s.call(Find { product, stage, foreign, rows, panels })
    }

    /// How many tiles of rows there are.
    pub(super) fn len(&self) -> usize {
        self.scratch.rows.len()
    }

    /// The rows of a tile. They overlap with those of the tile before where it has fewer of its own.
    pub(super) fn rows(&self, tile: usize) -> TileRows {
        self.scratch.rows[tile]
    }

    /// The pieces of a tile.
    pub(super) fn pieces(&self, tile: usize) -> &[LeftTile] {
        &self.scratch.tiles[tile * self.steps.pieces..][..self.steps.pieces]
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        SCRATCH.set(std::mem::take(&mut self.scratch));
    }
}

/// Finds the tiles of a left operand, and copies those that are no tiles where they lie.
struct Find<'a, T> {
    product: TileProduct,
    stage: &'a Stage<T>,
    foreign: usize,
    rows: usize,
    panels: usize,
}

impl<T: Factor> SimdOp for Find<'_, T> {
    type Output = Left;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> Left {
        let Find { product, stage, foreign, rows, panels } = self;
        let steps = Steps::new(stage.taps, stage.tap_len);
        let joined = steps.pieces != stage.taps || steps.rest != 0 || foreign > 0;
        let mut scratch = SCRATCH.take();
        let Scratch { tiles, rows: of_tiles, runs, copies } = &mut scratch;
        tiles.clear();
        let address = |tap: usize, row: usize| {
            // SAFETY: inside the table, which the creator of `stage` promises to be filled.
            let piece = unsafe { *stage.table.add(tap * stage.table_stride + row) };
            piece.wrapping_add(stage.tap_start).cast::<u8>()
        };
        let addresses = (0..if joined { 0 } else { steps.pieces }).map(|piece| {
            // SAFETY: as above, for all rows; an address is as long as the number of it.
            unsafe {
                std::slice::from_raw_parts(stage.table.add(piece * stage.table_stride).cast::<usize>(), rows)
            }
        });
        find_runs(rows, addresses, runs);
        let height = cut(rows, runs, panels, joined, of_tiles);
        let run_of = |row: usize| runs.partition_point(|&start| start <= row);
        let in_place = |tile: &TileRows| {
            let last = tile.first + tile.count - 1;
            !joined && tile.count == height && run_of(tile.first) == run_of(last)
        };
        let pieces = Pieces::<T>::new(stage.taps, stage.tap_len, foreign);
        let row_words = pieces.row_words();
        let copied = of_tiles.iter().filter(|tile| !in_place(tile)).count();
        if copies.as_slice().len() < copied * height * row_words {
            *copies = AlignedNumbers::zeros(copied * height * row_words);
        }
        let mut copies = copies.as_mut_slice().chunks_exact_mut((height * row_words).max(1));
        for tile in of_tiles.iter() {
            if in_place(tile) {
                for piece in 0..steps.pieces {
                    let start = address(piece, tile.first);
                    let next = if height > 1 { address(piece, tile.first + 1) } else { start };
                    tiles.push(LeftTile { start, step: next.addr().wrapping_sub(start.addr()) });
                }
                continue;
            }
            let Some(copy) = copies.next() else { break };
            let step = row_words * size_of::<f32>();
            let start = |piece: usize| copy.as_ptr().wrapping_add(piece * stage.tap_len).cast();
            tiles.extend((0..steps.pieces).map(|piece| LeftTile { start: start(piece), step }));
            // SAFETY: the caller promises the words at the addresses.
            unsafe { pieces.copy(s, tile.count, |tap, row| address(tap, tile.first + row).cast(), copy) };
        }
        let (left, right, sums) = ((height, steps.words), (steps.words, LANES), (height, LANES));
        let shapes = Shapes::new([sums, sums, sums, sums, left, left, right, right]);
        // SAFETY: `Left::new` was promised the unit.
        let unit = unsafe { Tiles::configure(&shapes) };
        Left { product, unit, steps, scratch }
    }
}

/// How the pieces of a row that is copied follow each other.
struct Pieces<T> {
    taps: usize,
    /// Words of a piece.
    words: usize,
    /// Elements at its end that count as zero.
    foreign: usize,
    element: PhantomData<T>,
}

impl<T: Factor> Pieces<T> {
    /// So many pieces of so many words; none where those are none.
    fn new(taps: usize, words: usize, foreign: usize) -> Self {
        Self { taps: if words == 0 { 0 } else { taps }, words, foreign, element: PhantomData }
    }

    /// The whole vectors of a piece that is copied by vectors, and the words of its last one.
    fn vectors(&self) -> (usize, usize) {
        (self.words.saturating_sub(1) / LANES, self.words.saturating_sub(1) % LANES + 1)
    }

    /// The words from a row to the next: room for whole vectors, and an odd number of cache lines, so that rows do not meet
    /// in few sets of the cache.
    fn row_words(&self) -> usize {
        let room = self.taps * self.words + LANES - self.vectors().1;
        (room.div_ceil(TILE_WORDS) | 1) * TILE_WORDS
    }

    /// Copies rows, each with zeros up to a whole number of vectors.
    ///
    /// # Safety
    /// Each piece of each row is readable, and there is room for [`row_words`](Self::row_words) for each.
    #[inline(always)]
    unsafe fn copy<S: Simd>(
        &self,
        s: S,
        rows: usize,
        piece: impl Fn(usize, usize) -> *const f32,
        to: &mut [f32],
    ) {
        let step = self.row_words();
        debug_assert!(to.len() >= rows * step && S::LANES == LANES);
        let (whole, last) = self.vectors();
        let words = self.taps * self.words;
        // SAFETY: promised by the caller. A vector that is stored for part of a piece ends at most `LANES - last` words
        // behind it, for which there is room, as there is up to a whole number of vectors; what it overwrites there is
        // written later.
        unsafe {
            if !words.is_multiple_of(LANES) {
                for row in 0..rows {
                    s.store(to.as_mut_ptr().add(row * step + words / LANES * LANES), s.zero());
                }
            }
            for tap in 0..self.taps {
                for row in 0..rows {
                    let (from, to) = (piece(tap, row), to.as_mut_ptr().add(row * step + tap * self.words));
                    if self.words > SHORT_PIECE {
                        // As bytes, so that nothing needs to be aligned.
                        let bytes = self.words * size_of::<f32>();
                        std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast(), bytes);
                    } else {
                        for vector in 0..whole {
                            s.store(to.add(vector * LANES), s.load(from.wrapping_add(vector * LANES)));
                        }
                        let words = s.load_partial(from.wrapping_add(whole * LANES), last);
                        s.store(to.add(whole * LANES), words);
                    }
                    // Of a constant number, so that the compiler sees no array to fill.
                    for back in 1..T::PER_WORD {
                        if back <= self.foreign {
                            to.add(self.words).cast::<T>().sub(back).write(T::default());
                        }
                    }
                }
            }
        }
    }
}

/// Finds the starts of the runs of rows that lie evenly spaced in every piece, given the addresses of each.
#[inline(always)]
fn find_runs<'a>(rows: usize, pieces: impl Iterator<Item = &'a [usize]>, runs: &mut Vec<usize>) {
    // Where the distance changes, in some piece: neighbours side by side, so that vectors find it.
    let mut changes = [0; TILE_BLOCK_ROWS];
    for addresses in pieces {
        for (change, three) in changes[..rows].iter_mut().skip(2).zip(addresses.windows(3)) {
            *change |= three[2].wrapping_sub(three[1]) ^ three[1].wrapping_sub(three[0]);
        }
    }
    runs.clear();
    runs.push(0);
    let mut start = 0;
    for (row, &change) in changes[..rows].iter().enumerate() {
        if change != 0 && row > start + 1 {
            start = row;
            runs.push(row);
        }
    }
}

/// Cuts rows into tiles, and returns their height: as runs end, or all in a row, whatever the unit and the copies take less
/// time with. In a run, or with all to be copied, tiles are of even heights.
fn cut(rows: usize, runs: &[usize], panels: usize, joined: bool, tiles: &mut Vec<TileRows>) -> usize {
    let even = |rows: usize| rows.div_ceil(rows.div_ceil(TILE_ROWS).max(1));
    let lengths = || runs.iter().zip(runs[1..].iter().chain([&rows])).map(|(start, end)| end - start);
    let height = lengths().map(even).max().unwrap_or(1);
    let by_run: usize = lengths().map(|run| run.div_ceil(height)).sum();
    let short = lengths().filter(|&run| run < height).count();
    let whole = rows.div_ceil(TILE_ROWS);
    let cost = |tiles: usize, copied: usize| tiles * panels + copied * COPY_PANELS;
    tiles.clear();
    if joined || runs.len() == 1 || cost(by_run, short) > cost(whole, whole) {
        let height = even(rows);
        cut_run(0, rows, height, tiles);
        return height;
    }
    for (&start, length) in runs.iter().zip(lengths()) {
        cut_run(start, length, height, tiles);
    }
    height
}

/// Cuts a run into tiles of this height, or one of fewer rows: the first from its first row on, the last to its last.
fn cut_run(start: usize, rows: usize, height: usize, tiles: &mut Vec<TileRows>) {
    let count = rows.div_ceil(height);
    let beyond = rows.saturating_sub(height);
    tiles.extend(
        (0..count).map(|tile| TileRows {
            first: start + tile * beyond / (count - 1).max(1),
            count: height.min(rows),
        }),
    );
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

    /// The rows of every tile, and their height.
    fn cut_of(rows: usize, runs: &[usize], panels: usize, joined: bool) -> (Vec<(usize, usize)>, usize) {
        let mut tiles = Vec::new();
        let height = cut(rows, runs, panels, joined, &mut tiles);
        (tiles.into_iter().map(|tile| (tile.first, tile.count)).collect(), height)
    }

    #[test]
    fn tiles_end_where_lines_do_unless_lines_are_short() {
        assert_eq!(cut_of(28, &[0, 14], 8, false), (vec![(0, 14), (14, 14)], 14));
        assert_eq!(cut_of(56, &[0, 28], 8, false), (vec![(0, 14), (14, 14), (28, 14), (42, 14)], 14));
        // Seven tiles of seven rows would take longer than to copy the rows of four.
        let runs: Vec<usize> = (0..7).map(|line| line * 7).collect();
        assert_eq!(cut_of(49, &runs, 16, false), (vec![(0, 13), (12, 13), (24, 13), (36, 13)], 13));
        // What is joined is copied, and evenly spaced then.
        assert_eq!(cut_of(28, &[0, 14], 8, true), (vec![(0, 14), (14, 14)], 14));
        // A rest of a line is a tile of its own.
        assert_eq!(cut_of(33, &[0, 16, 32], 8, false), (vec![(0, 16), (16, 16), (32, 1)], 16));
        assert_eq!(cut_of(1, &[0], 1, false), (vec![(0, 1)], 1));
    }

    #[test]
    fn tiles_cover_all_rows_in_order() {
        for rows in 1..70 {
            for line in 1..40 {
                let runs: Vec<usize> = (0..rows).step_by(line).collect();
                for joined in [false, true] {
                    let (tiles, height) = cut_of(rows, &runs, 3, joined);
                    let mut covered = 0;
                    for (first, count) in tiles {
                        assert!(
                            first <= covered && first + count > covered && count <= height.min(TILE_ROWS)
                        );
                        covered = first + count;
                    }
                    assert_eq!(covered, rows);
                }
            }
        }
    }

    #[test]
    fn runs_end_where_the_distance_changes() {
        let found = |pieces: &[&[usize]]| {
            let mut runs = Vec::new();
            find_runs(pieces[0].len(), pieces.iter().copied(), &mut runs);
            runs
        };
        assert_eq!(found(&[&[0, 2, 4, 6]]), [0]);
        assert_eq!(found(&[&[0, 2, 4, 9, 11, 13]]), [0, 3]);
        assert_eq!(found(&[&[0, 2, 4, 6, 8], &[0, 2, 4, 7, 10]]), [0, 3]);
        assert_eq!(found(&[&[5]]), [0]);
        let mut runs = Vec::new();
        find_runs(4, std::iter::empty(), &mut runs);
        assert_eq!(runs, [0]);
    }
}
