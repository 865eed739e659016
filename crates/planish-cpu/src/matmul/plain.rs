//! The rows of a plain matrix as a left operand.

use super::driver::{RowSource, RowTable, scratch_len};
use crate::element::{Element, Factor};
use crate::view::Rows;

/// The bytes after which addresses meet in the same set of a first-level cache of 64 sets.
const SET_PERIOD: usize = 4096;

/// The elements by which copied rows are longer than they need to be, to spread them over the sets.
const SPREAD: usize = 16;

/// The rows of a view.
///
/// Rows a multiple of 4 KiB apart all fall into one set of the first-level cache, which holds fewer of them
/// than a tile has rows; such rows are copied to scratch memory first, a little further apart. So are rows that are no
/// whole number of words, which the copies are filled up to with zeros.
pub(crate) struct PlainRows<'a, T = f32> {
    rows: Rows<'a, T>,
    copies: bool,
}

impl<'a, T: Element> PlainRows<'a, T> {
    /// The rows of a left operand that will meet this many columns.
    pub(crate) fn new(rows: Rows<'a, T>, columns: usize) -> Self {
        let collide = (rows.row_stride() * size_of::<T>()).is_multiple_of(SET_PERIOD);
        // A copy costs about as much as four columns, and rows that are used once need none; nor do those of which the
        // product makes copies.
        let pays = collide && !T::WIDENED && rows.rows() > 4 && rows.channels() > SPREAD && columns >= 64;
        Self { rows, copies: pays || !rows.channels().is_multiple_of(T::Factor::PER_WORD) }
    }

    /// The most scratch memory a product of this shape can need, whatever the stride of its rows.
    pub(crate) fn most_scratch(rows: usize, channels: usize, threads: usize) -> usize {
        if rows == 0 {
            return 0;
        }
        let view = Rows::<T>::dense(&[], 0, channels);
        view.map_or(0, |rows| scratch_len(&PlainRows { rows, copies: true }, threads))
    }
}

// SAFETY: every address is that of a row of the view or of a whole copy of it in the scratch memory.
unsafe impl<T: Element> RowSource<T> for PlainRows<'_, T> {
    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn taps(&self) -> usize {
        1
    }

    fn tap_len(&self) -> usize {
        self.rows.channels().next_multiple_of(T::Factor::PER_WORD)
    }

    fn scratch_per_row(&self) -> usize {
        if self.copies { self.tap_len() + SPREAD } else { 0 }
    }

    // Inside what calls it, so that vectors of its instruction set fill the table.
    #[inline(always)]
    fn fill(&self, start: usize, table: &mut RowTable<'_, T>) {
        for i in 0..table.count() {
            let row = start + i;
            table.set_output(i, row);
            if self.copies {
                let copy = &mut table.scratch()[i * self.scratch_per_row()..][..self.tap_len()];
                let (numbers, rest) = copy.split_at_mut(self.rows.channels());
                numbers.copy_from_slice(self.rows.row(row));
                rest.fill(T::default());
                let address = copy.as_ptr();
                table.set(0, i, address);
            } else {
                table.set(0, i, self.rows.ptr().wrapping_add(row * self.rows.row_stride()));
            }
        }
    }
}
