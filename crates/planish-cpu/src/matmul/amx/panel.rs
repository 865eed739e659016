//! A block of the left operand times panels of the right one.
//!
//! The sums of two by two tiles leave the unit through memory, and what follows them is work for vectors. Done at once,
//! either would wait for the other. So the sums of one pair of tiles of rows are [`Unfinished`] until the products of the
//! next pair are on their way.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::LANES;
use super::left::{Left, LeftTile, Steps};
use crate::amx::instructions::Tiles;
use crate::amx::{TILE_ROWS, TILE_WORDS};
use crate::element::{Element, Factor};
use crate::epilogue::Destination;
use crate::matmul::tile::Scaling;
use crate::simd::{Simd, SimdOp};

/// How far ahead of its use a panel is fetched that is used once, in words: eight steps of two by two tiles.
const AHEAD: usize = 8 * TILE_WORDS * 2 * LANES;

/// How many rows go through the epilogue at a time.
const FINISHED_ROWS: usize = 4;

/// The words from a row of stored sums to the next.
const SUMS_STEP: usize = 2 * LANES;

/// A panel of the right operand, and what follows the sums of its columns.
pub(in crate::matmul) struct Panel<'a, O> {
    /// Its rows of words, one after the other; the next panel is expected behind them.
    pub words: &'a [f32],
    /// Its columns, filled up to whole vectors.
    pub width: usize,
    /// For each valid column; null where there is none.
    pub bias: *const f32,
    /// How sums become numbers, where they are integers.
    pub scaling: Scaling,
    /// Where the rows of the block go.
    pub destination: Destination<O>,
}

/// Words in whole cache lines: a row for each of two tiles of rows, a column for each of two tiles of columns.
#[repr(align(64))]
struct Lines<const ROWS: usize>([[f32; 2 * LANES]; ROWS]);

/// The rows of a tile that no tile before it has.
#[derive(Clone, Copy, Default)]
struct Part {
    /// The first of them, in the block.
    first: usize,
    /// How many they are.
    count: usize,
    /// Rows of the tile before them.
    skip: usize,
}

/// The sums that the unit left behind, but that are not yet scaled, activated and written. To be [flushed](Left::flush) in
/// the end. It stays where it is: to move what was just written would wait for that.
pub(in crate::matmul) struct Unfinished<O> {
    sums: [MaybeUninit<Lines<{ 2 * TILE_ROWS }>>; 2],
    /// Which of them is free.
    free: usize,
    /// The tiles of columns that wait in the other, of each of two tiles of rows; zero where nothing does.
    columns: usize,
    parts: [Part; 2],
    scaling: Scaling,
    destination: Option<Destination<O>>,
}

impl<O> Unfinished<O> {
    /// Nothing.
    pub(in crate::matmul) fn new() -> Self {
        Self {
            sums: [MaybeUninit::uninit(), MaybeUninit::uninit()],
            free: 0,
            columns: 0,
            parts: [Part::default(); 2],
            scaling: Scaling::NONE,
            destination: None,
        }
    }
}

impl Left {
    /// Multiplies the rows with a panel, and finishes the sums that waited for that.
    ///
    /// # Safety
    /// The panel has as many rows as the rows of the left operand have words; the bias is null or has a number for each
    /// valid column; the destination is that of the rows, and writable by nobody else. What is unfinished comes from this
    /// function or is nothing, and what its panels point to is still there.
    #[inline(always)]
    pub(in crate::matmul) unsafe fn multiply<S: Simd, T: Factor, O: Element>(
        &self,
        s: S,
        panel: &Panel<'_, O>,
        unfinished: &mut Unfinished<O>,
    ) {
        let (left, factor) = (self, PhantomData::<T>);
        if panel.width == LANES {
            s.call(PanelOp::<T, O, 1> { left, panel, unfinished, factor });
        } else {
            s.call(PanelOp::<T, O, 2> { left, panel, unfinished, factor });
        }
    }

    /// Finishes what waits.
    ///
    /// # Safety
    /// As for [`Left::multiply`], after the last panel.
    #[inline(always)]
    pub(in crate::matmul) unsafe fn flush<S: Simd, T: Factor, O: Element>(
        s: S,
        unfinished: &mut Unfinished<O>,
    ) {
        match std::mem::take(&mut unfinished.columns) {
            0 => {}
            1 => s.call(FinishOp::<T, O, 1>(unfinished, PhantomData)),
            _ => s.call(FinishOp::<T, O, 2>(unfinished, PhantomData)),
        }
    }
}

/// A block times a panel of `COLUMNS` tiles, two tiles of rows at a time, and the last by itself where it has no other.
struct PanelOp<'a, T, O, const COLUMNS: usize> {
    left: &'a Left,
    panel: &'a Panel<'a, O>,
    unfinished: &'a mut Unfinished<O>,
    factor: PhantomData<T>,
}

impl<T: Factor, O: Element, const COLUMNS: usize> SimdOp for PanelOp<'_, T, O, COLUMNS> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Self { left, panel, unfinished, factor: _ } = self;
        let &Panel { words: right, bias, scaling, destination, .. } = panel;
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
                let from = right.as_ptr().add(steps * words * width);
                std::ptr::copy_nonoverlapping(from, last, rest * width);
            }
            let (tiles, pairs) = (left.len(), left.len().div_ceil(2));
            let lines = words * COLUMNS;
            // A panel that is used again and again leaves time to fetch the next one: each pair a part of it.
            let (mut next, share) = match pairs {
                1 => (right.as_ptr().wrapping_add(AHEAD), lines),
                _ => (right.as_ptr_range().end, lines.div_ceil(pairs)),
            };
            let walk = Walk { left, right: right.as_ptr(), last, initial, share };
            let mut covered = 0;
            for tile in (0..tiles).step_by(2) {
                let two = tile + 1 < tiles;
                next = if two {
                    walk.all::<2, COLUMNS>(tile, pieces, next)
                } else {
                    walk.all::<1, COLUMNS>(tile, pieces, next)
                };
                Left::flush::<S, T, O>(s, unfinished);
                let sums = unfinished.sums[unfinished.free].as_mut_ptr().cast::<f32>();
                if two {
                    store::<2, COLUMNS>(&left.unit, sums);
                } else {
                    store::<1, COLUMNS>(&left.unit, sums);
                }
                unfinished.parts[1].count = 0;
                for (part, tile) in unfinished.parts.iter_mut().zip(tile..tiles) {
                    let rows = left.rows(tile);
                    let skip = covered - rows.first;
                    *part = Part { first: covered, count: rows.count - skip, skip };
                    covered = rows.first + rows.count;
                }
                (unfinished.scaling, unfinished.destination) = (scaling, Some(destination));
                (unfinished.columns, unfinished.free) = (COLUMNS, 1 - unfinished.free);
            }
        }
    }
}

/// How the products of one or two tiles of rows with a panel are made.
struct Walk<'a> {
    left: &'a Left,
    right: *const f32,
    /// The last rows of the panel, filled up with zeros, where they are fewer than a tile's.
    last: *const f32,
    initial: *const f32,
    /// The lines that each step fetches.
    share: usize,
}

impl Walk<'_> {
    /// Leaves the sums of the tiles from this one on in the unit, and returns how far what lies at `next` was fetched.
    ///
    /// # Safety
    /// The rows and the panel are there, and the initial sums, unless they are null.
    #[inline(always)]
    unsafe fn all<const ROWS: usize, const COLUMNS: usize>(
        &self,
        tile: usize,
        pieces: usize,
        next: *const f32,
    ) -> *const f32 {
        let Walk { left, mut right, last, initial, share } = *self;
        let Steps { steps, words, rest, .. } = left.steps;
        let (first, second) = (left.pieces(tile), left.pieces(tile + ROWS - 1));
        let mut next = next;
        // SAFETY: promised by the caller; there are as many pieces of each tile.
        unsafe {
            start::<ROWS, COLUMNS>(&left.unit, initial);
            for piece in 0..pieces {
                let mut rows = [*first.get_unchecked(piece), *second.get_unchecked(piece)];
                for _ in 0..steps {
                    for line in 0..share {
                        fetch(next.wrapping_add(line * LANES));
                    }
                    next = next.wrapping_add(share * LANES);
                    step::<ROWS, COLUMNS>(left, rows, right);
                    rows.iter_mut()
                        .for_each(|row| row.start = row.start.wrapping_add(words * size_of::<f32>()));
                    right = right.wrapping_add(words * COLUMNS * LANES);
                }
                if rest > 0 {
                    step::<ROWS, COLUMNS>(left, rows, last);
                }
            }
        }
        next
    }
}

/// Asks for a cache line, which need not be readable, not to be in the first-level cache. (Measured: the hint for the outer
/// caches is 5 to 10 % faster than that for the second level.)
#[inline(always)]
fn fetch(p: *const f32) {
    use std::arch::x86_64::{_MM_HINT_T2, _mm_prefetch};
    // SAFETY: every x86-64 has the instruction, and it never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T2>(p.cast()) };
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
    const STEP: usize = SUMS_STEP * size_of::<f32>();
    let below = sums.wrapping_add(TILE_ROWS * SUMS_STEP);
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

/// Does the epilogue of the sums that wait.
struct FinishOp<'a, T, O, const COLUMNS: usize>(&'a Unfinished<O>, PhantomData<T>);

impl<T: Factor, O: Element, const COLUMNS: usize> SimdOp for FinishOp<'_, T, O, COLUMNS> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Unfinished { sums, free, parts, scaling, destination, .. } = self.0;
        let Some(destination) = destination else { return };
        let sums = sums[1 - free].as_ptr().cast::<f32>();
        for (tile, &Part { first, count, skip }) in parts.iter().enumerate() {
            let (mut scaling, mut destination) = (*scaling, *destination);
            let sums = sums.wrapping_add((tile * TILE_ROWS + skip) * SUMS_STEP);
            destination.outputs = destination.outputs.wrapping_add(first);
            scaling.row_sums = scaling.row_sums.wrapping_add(first);
            // SAFETY: who left these sums waiting stored them, and promised the destination of their rows and columns.
            unsafe {
                let mut done = 0;
                while done + FINISHED_ROWS <= count {
                    finish::<S, T, O, FINISHED_ROWS, COLUMNS>(
                        s,
                        sums.add(done * SUMS_STEP),
                        &scaling,
                        &destination,
                    );
                    destination.outputs = destination.outputs.wrapping_add(FINISHED_ROWS);
                    scaling.row_sums = scaling.row_sums.wrapping_add(FINISHED_ROWS);
                    done += FINISHED_ROWS;
                }
                while done < count {
                    finish::<S, T, O, 1, COLUMNS>(s, sums.add(done * SUMS_STEP), &scaling, &destination);
                    destination.outputs = destination.outputs.wrapping_add(1);
                    scaling.row_sums = scaling.row_sums.wrapping_add(1);
                    done += 1;
                }
            }
        }
    }
}

/// Does the epilogue of the first rows of sums and of a destination.
///
/// # Safety
/// The sums are there, scaling and destination are those of the rows, and the destination is writable for them.
#[inline(always)]
unsafe fn finish<S: Simd, T: Factor, O: Element, const ROWS: usize, const COLUMNS: usize>(
    s: S,
    sums: *const f32,
    scaling: &Scaling,
    destination: &Destination<O>,
) {
    let mut rows = [[s.zero(); COLUMNS]; ROWS];
    // SAFETY: promised by the caller.
    unsafe {
        for (i, row) in rows.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate() {
                *sum = s.load(sums.add(i * SUMS_STEP + j * LANES));
            }
        }
        scaling.apply::<T, S, ROWS, COLUMNS>(s, destination.valid, &mut rows);
        destination.store::<S, ROWS, COLUMNS>(s, &rows);
    }
}
