//! The inner loop: a tile of some pixels times a vector of output channels, whose counts stay in registers.
//!
//! Plainly, 32 products of a lane are three instructions: `^`, count, add. For signs they are two and a half, because two
//! words are taken at a time and only what carries out of their sum is counted (Harley and Seal; see Muła, Kurz, Lemire,
//! "Faster Population Counts Using AVX2 Instructions", 2018). With `y = x ^ w` a bit of the sum so far goes from `o` to
//! `o ^ y1 ^ y2`, and the carry is `o` where the two differ and `y1` where they do not. Pixels and weights hold `x1 ^ x2`
//! and `w1 ^ w2`, so that the new bit is one ternary instruction, the carry another, and `y2` is never made: three
//! instructions, and a count and an addition, for two words.
//!
//! One vector of channels, not two: the words of a pixel are then read by the instructions that need them, and none is
//! spent on loading them.

use super::words::{Words, WordsOp};
use std::ops::Range;

/// The most rows of a tile on any instruction set.
pub(super) const MOST_ROWS: usize = 8;

/// A product of a plane of the input and a plane of the weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    /// Words from a pixel's first plane to its.
    pub input: usize,
    /// Words of a column from the weights' first plane to its.
    pub weights: usize,
    /// How often what was counted before is doubled.
    pub doublings: u32,
}

/// Taps that all rows of a tile see, whose words follow each other.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    /// Words from where the first tap of all reads a row to where the first of these does.
    pub input: usize,
    /// Their numbers in the kernel.
    pub numbers: Range<usize>,
}

/// What a tile reads and writes.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub passes: &'a [Pass],
    pub taps: &'a [Taps],
    /// Where the first tap reads each row.
    pub rows: *const *const u32,
    /// The words of a vector of columns: `[plane][tap][word][1 or 2][lane]`.
    pub weights: *const u32,
    /// Words of a plane of a pixel.
    pub words: usize,
    /// Whether weights are signs.
    pub signs: bool,
    /// Whether counts are worth two.
    pub twice: bool,
    /// What counts are taken from, for each lane.
    pub start: *const u32,
    /// Where the sums go, a vector for each row.
    pub sums: *mut u32,
    /// Words of the sums from row to row.
    pub sums_stride: usize,
}

/// Computes the sums of tiles of as many rows each, one below the other: what comes before the loop is not little.
struct TileOp<'a, const ROWS: usize, const SIGNS: bool> {
    tile: &'a Tile<'a>,
    tiles: usize,
}

impl<const ROWS: usize, const SIGNS: bool> WordsOp for TileOp<'_, ROWS, SIGNS> {
    type Output = ();

    #[inline(always)]
    fn eval<W: Words>(self, w: W) {
        let tile = self.tile;
        // SAFETY: the creator of the tile promises (see `compute`) that its addresses hold for its extents.
        unsafe {
            let start = w.load(tile.start);
            for above in 0..self.tiles {
                let mut rows = [std::ptr::null::<u32>(); ROWS];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = *tile.rows.add(above * ROWS + i);
                }
                let sums = tile.sums.add(above * ROWS * tile.sums_stride);
                let (last, before) = match tile.passes {
                    [] => return,
                    [before @ .., last] => (last, before),
                };
                for (index, pass) in before.iter().enumerate() {
                    let counts = count::<W, ROWS, SIGNS>(w, tile, pass, &rows);
                    for (i, counts) in counts.into_iter().enumerate() {
                        let sum = sums.add(i * tile.sums_stride);
                        w.store(sum, if index > 0 { add_doubled(w, sum, pass, counts) } else { counts });
                    }
                }
                let counts = count::<W, ROWS, SIGNS>(w, tile, last, &rows);
                for (i, mut counts) in counts.into_iter().enumerate() {
                    let sum = sums.add(i * tile.sums_stride);
                    if !before.is_empty() {
                        counts = add_doubled(w, sum, last, counts);
                    }
                    w.store(sum, w.sub(start, if tile.twice { w.add(counts, counts) } else { counts }));
                }
            }
        }
    }
}

/// What was counted before, doubled as often as a pass says, and what it counted.
///
/// # Safety
/// A vector must be readable at `sum`.
#[inline(always)]
unsafe fn add_doubled<W: Words>(w: W, sum: *const u32, pass: &Pass, counts: W::V) -> W::V {
    // SAFETY: promised by the caller.
    let mut before = unsafe { w.load(sum) };
    for _ in 0..pass.doublings {
        before = w.add(before, before);
    }
    w.add(before, counts)
}

/// The counts of a pass.
///
/// # Safety
/// As [`compute`].
#[inline(always)]
unsafe fn count<W: Words, const ROWS: usize, const SIGNS: bool>(
    w: W,
    tile: &Tile<'_>,
    pass: &Pass,
    rows: &[*const u32; ROWS],
) -> [W::V; ROWS] {
    let lanes = size_of::<W::V>() / size_of::<u32>();
    // A step takes two words of signs, or one with its magnitudes: two vectors of weights in both cases.
    let (steps, taken) = if SIGNS { (tile.words / 2, 2) } else { (tile.words, 1) };
    let weights = tile.weights.wrapping_add(pass.weights * lanes);
    let (zero, mut pending) = (w.splat(0), 0);
    let mut odd = [zero; ROWS];
    let mut counts = [zero; ROWS];
    let mut totals = [zero; ROWS];
    macro_rules! flush {
        () => {
            for i in 0..ROWS {
                let wide = w.widen(counts[i]);
                totals[i] = w.add(totals[i], if SIGNS { w.add(wide, wide) } else { wide });
                counts[i] = zero;
            }
        };
    }
    for taps in tile.taps {
        let mut weights = weights.wrapping_add(taps.numbers.start * steps * 2 * lanes);
        let mut at = pass.input + taps.input;
        let mut left = steps * taps.numbers.len();
        while left > 0 {
            let run = left.min(W::RUN - pending);
            for _ in 0..run {
                // SAFETY: promised by the caller.
                unsafe {
                    let (first, second) = (w.load(weights), w.load(weights.add(lanes)));
                    weights = weights.add(2 * lanes);
                    for i in 0..ROWS {
                        let input = w.splat(*rows[i].wrapping_add(at));
                        let counted = if SIGNS {
                            let both = w.splat(*rows[i].wrapping_add(at + 1));
                            let after = w.xor3(odd[i], both, second);
                            let carry = w.carry(odd[i], after, w.xor(input, first));
                            odd[i] = after;
                            carry
                        } else {
                            w.masked_xor(second, input, first)
                        };
                        counts[i] = w.add_counts(counts[i], w.count(counted));
                    }
                    at += taken;
                }
            }
            left -= run;
            if const { W::RUN != usize::MAX } {
                pending += run;
                if pending == W::RUN {
                    flush!();
                    pending = 0;
                }
            }
        }
    }
    flush!();
    if SIGNS {
        for i in 0..ROWS {
            totals[i] = w.add(totals[i], w.widen(w.count(odd[i])));
        }
    }
    totals
}

/// The sums of `tiles` tiles of `rows` rows (1 to [`Words::ROWS`]), one below the other.
///
/// # Safety
/// For each of the rows, pass and tap, `words` words are readable, and as many of the weights for each lane, twice as many
/// where weights are no signs; a number for each lane of `start`, and one of each row of the sums is writable.
#[inline(always)]
pub(super) unsafe fn compute<W: Words>(w: W, tile: &Tile<'_>, rows: usize, tiles: usize) {
    macro_rules! pick {
        ($($rows:literal)*) => {
            match (rows, tile.signs) {
                $(($rows, true) => w.call(TileOp::<$rows, true> { tile, tiles }),
                ($rows, false) => w.call(TileOp::<$rows, false> { tile, tiles }),)*
                _ => debug_assert!(false, "a tile of {rows} rows"),
            }
        };
    }
    match W::ROWS {
        8 => pick!(1 2 3 4 5 6 7 8),
        4 => pick!(1 2 3 4),
        _ => pick!(1 2),
    }
}
