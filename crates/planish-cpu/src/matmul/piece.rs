//! A piece of a product, computed by the calling thread.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::pack::PackedMatrix;
use super::tile::{self, Scaling, Stage, Tile};
#[cfg(target_arch = "x86_64")]
use crate::amx::TileProduct;
use crate::element::Factor;
use crate::epilogue::{Destination, Epilogue};
use crate::simd::Simd;
use crate::view::RowsMut;

/// The most rows of a tile of any instruction set.
const MOST_ROWS: usize = 14;

/// The most rows of a [`Piece`].
pub(crate) const PIECE_ROWS: usize = 112;

/// Some rows of a plain left operand times one panel of the right, of which some rows take part.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a, T = f32> {
    /// The right operand.
    pub matrix: &'a PackedMatrix<T>,
    /// Its panel.
    pub panel: usize,
    /// The first of its rows that takes part, a whole number of words from the first of all.
    pub first: usize,
    /// How many of them do, whole words again: as many as the left operand has elements in a row.
    pub depth: usize,
    /// At most this many products are added up before their sum is added to that of those before them.
    ///
    /// A rounding error is proportional to the partial sum at the time, so a long sum errs more than a sum of
    /// shorter ones (Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, §4.2).
    pub longest_sum: usize,
    /// The left operand.
    pub left: *const T,
    /// Elements from row to row.
    pub left_step: usize,
    /// The rows of the left operand, at most [`PIECE_ROWS`].
    pub rows: usize,
    /// Where the columns of the panel go, those that pad it included.
    pub out: *mut f32,
    /// Numbers from row to row.
    pub out_step: usize,
}

impl<T: Factor> Piece<'_, T> {
    /// Computes the piece. The order of no sum depends on how rows are cut into pieces.
    ///
    /// # Safety
    /// The left operand is readable and the output writable for the extents the fields state, the output by
    /// nobody else; `S` is the instruction set that the matrix is packed for.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd>(&self, s: S) {
        let Self { matrix, panel, rows, .. } = *self;
        let width = matrix.panel_width(panel);
        let (first, words) = (self.first / T::PER_WORD, self.depth / T::PER_WORD);
        let Range { start, end } = first * width..(first + words) * width;
        let right = &matrix.panel(panel)[start..end];
        assert!(rows <= PIECE_ROWS && matrix.isa().vectors() == S::ISA);
        debug_assert_eq!((first * T::PER_WORD, words * T::PER_WORD), (self.first, self.depth));
        let outputs: [usize; PIECE_ROWS] = std::array::from_fn(|row| row);
        // SAFETY: promised by the caller.
        let out = unsafe { RowsMut::from_raw(self.out, rows, width, self.out_step) };
        let runs = self.depth.div_ceil(self.longest_sum).max(1);
        #[cfg(target_arch = "x86_64")]
        if const { amx::is_possible::<S, T>() }
            && let Some(product) = amx::product::<T>(matrix.isa())
        {
            // SAFETY: promised by the caller.
            unsafe { self.run_on_tiles(s, product, right, width, runs, &out, &outputs) };
            return;
        }
        let tiles = rows.div_ceil(tile::max_rows(S::ISA));
        for i in 0..tiles {
            let (from, to) = (i * rows / tiles, (i + 1) * rows / tiles);
            let whole =
                Destination::<f32>::new(&out, &Epilogue::default(), 0, width, &raw const outputs[from]);
            let mut addresses = [std::ptr::null::<T>(); MOST_ROWS];
            for run in 0..runs {
                let (start, end) = (run * words / runs, (run + 1) * words / runs);
                for (row, address) in addresses.iter_mut().enumerate().take(to - from) {
                    *address = self.left.wrapping_add((from + row) * self.left_step + start * T::PER_WORD);
                }
                let stage = Stage {
                    table: addresses.as_ptr(),
                    table_stride: MOST_ROWS,
                    taps: 1,
                    tap_start: 0,
                    tap_len: end - start,
                    panel: right[start * width..].as_ptr(),
                };
                let tile = Tile {
                    stage,
                    bias: std::ptr::null(),
                    scaling: Scaling::NONE,
                    destination: if run == 0 { whole } else { whole.accumulating() },
                };
                // SAFETY: the addresses are those of `to - from` rows from word `start` on, which the
                // caller promises as he does the output, written in the first run; the panel has as
                // many words.
                unsafe { tile::compute(s, &tile, to - from, width) };
            }
        }
    }

    /// [`Piece::run`] by the tile unit.
    ///
    /// # Safety
    /// As for [`Piece::run`], whose panel rows, width, runs and output these are; the product is what [`amx::product`] gave.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn run_on_tiles<S: Simd>(
        &self,
        s: S,
        product: TileProduct,
        right: &[f32],
        width: usize,
        runs: usize,
        out: &RowsMut<'_, f32>,
        outputs: &[usize; PIECE_ROWS],
    ) {
        if self.rows == 0 {
            return;
        }
        let words = self.depth / T::PER_WORD;
        let whole = Destination::<f32>::new(out, &Epilogue::default(), 0, width, outputs.as_ptr());
        let table: [*const T; PIECE_ROWS] =
            std::array::from_fn(|row| self.left.wrapping_add(row.min(self.rows - 1) * self.left_step));
        for run in 0..runs {
            let (start, end) = (run * words / runs, (run + 1) * words / runs);
            let stage = Stage {
                table: table.as_ptr(),
                table_stride: PIECE_ROWS,
                taps: 1,
                tap_start: start * T::PER_WORD,
                tap_len: end - start,
                panel: std::ptr::null(),
            };
            let destination = if run == 0 { whole } else { whole.accumulating() };
            let panel = amx::Panel {
                words: &right[start * width..end * width],
                width,
                bias: std::ptr::null(),
                scaling: Scaling::NONE,
                destination,
            };
            // SAFETY: the caller promises the rows, the panel, the unit and the output.
            unsafe {
                let left = amx::Left::new(s, product, &stage, 0, self.rows, 1);
                let mut unfinished = amx::Unfinished::new();
                left.multiply::<S, T, f32>(s, &panel, &mut unfinished);
                amx::Left::flush::<S, T, f32>(s, &mut unfinished);
            }
        }
    }
}
