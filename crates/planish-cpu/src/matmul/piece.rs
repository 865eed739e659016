//! A piece of a product, computed by the calling thread.

use std::ops::Range;

use super::pack::PackedMatrix;
use super::tile::{self, Tile};
use crate::epilogue::{Destination, Epilogue};
use crate::simd::Simd;
use crate::view::RowsMut;

/// The most rows of a [`Piece`].
pub(crate) const PIECE_ROWS: usize = 112;

/// Some rows of a plain left operand times one panel of the right, of which some rows take part.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// The right operand.
    pub matrix: &'a PackedMatrix,
    /// Its panel.
    pub panel: usize,
    /// The first of its rows that takes part, and how many do.
    pub first: usize,
    /// As many as the left operand has numbers in a row.
    pub depth: usize,
    /// The left operand.
    pub left: *const f32,
    /// Numbers from row to row.
    pub left_step: usize,
    /// The rows of the left operand, at most [`PIECE_ROWS`].
    pub rows: usize,
    /// What sums start with: a number for each column of the panel, those that pad it included.
    pub bias: Option<&'a [f32]>,
    /// Where the columns of the panel go, those that pad it included.
    pub out: *mut f32,
    /// Numbers from row to row.
    pub out_step: usize,
}

impl Piece<'_> {
    /// Computes the piece. The order of no sum depends on how rows are cut into pieces.
    ///
    /// # Safety
    /// The left operand is readable and the output writable for the extents the fields state, the output by
    /// nobody else; `S` is the instruction set that the matrix is packed for.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd>(&self, s: S) {
        let Self { matrix, panel, rows, .. } = *self;
        let width = matrix.panel_width(panel);
        let Range { start, end } = self.first * width..(self.first + self.depth) * width;
        let right = &matrix.panel(panel)[start..end];
        assert!(rows <= PIECE_ROWS && matrix.isa() == S::ISA);
        assert!(self.bias.is_none_or(|bias| bias.len() >= width));
        let mut table = [std::ptr::null(); PIECE_ROWS];
        let mut outputs = [0; PIECE_ROWS];
        for row in 0..rows {
            table[row] = self.left.wrapping_add(row * self.left_step);
            outputs[row] = row;
        }
        // SAFETY: promised by the caller.
        let out = unsafe { RowsMut::from_raw(self.out, rows, width, self.out_step) };
        let tiles = rows.div_ceil(tile::max_rows(S::ISA));
        for i in 0..tiles {
            let (from, to) = (i * rows / tiles, (i + 1) * rows / tiles);
            let destination =
                Destination::new(&out, &Epilogue::default(), 0, width, &raw const outputs[from]);
            let tile = Tile {
                table: &raw const table[from],
                table_stride: rows,
                taps: 1,
                tap_len: self.depth,
                panel: right.as_ptr(),
                bias: self.bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
                destination,
            };
            // SAFETY: the table holds `to - from` rows from here on, which the caller promises as he does the
            // output; the panel has `depth` rows.
            unsafe { tile::compute(s, &tile, to - from, width) };
        }
    }
}
