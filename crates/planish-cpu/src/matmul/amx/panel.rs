//! A block of the left operand times a panel of the right one.

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

/// How far ahead of its use a panel is fetched, in words: eight steps of two by two tiles, some 600 cycles.
const AHEAD: usize = 8 * TILE_WORDS * 2 * LANES;

/// How many rows go through the epilogue at a time.
const FINISHED_ROWS: usize = 4;

impl Left {
    /// Multiplies the rows with a panel of `width` columns.
    ///
    /// # Safety
    /// The panel has as many rows as the rows of the left operand have words; the bias is null or has a number for each
    /// valid column; the destination is that of the rows, and writable by nobody else.
    #[inline(always)]
    pub(in crate::matmul) unsafe fn multiply<S: Simd, T: Factor, O: Element>(
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
