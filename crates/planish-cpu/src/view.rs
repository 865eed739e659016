//! Views of activations as pixels times channels.
//!
//! Activations are channels-last, so a tensor of shape N×H×W×C is N·H·W rows of C numbers. A concatenation
//! along the channels needs no copy when each producer writes its rows into a slice of the columns of the joint
//! tensor: the rows of a view then lie further apart than they are long, and the elements in between belong to
//! somebody else. References cannot express that (two slices would overlap as ranges while no element is
//! shared), so these views hold pointers and promise disjointness element by element.

use std::fmt;
use std::marker::PhantomData;

/// Why a view does not fit the slice it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewError {
    rows: usize,
    channels: usize,
    row_stride: usize,
    len: usize,
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, channels, row_stride, len } = self;
        write!(
            f,
            "{rows} rows of {channels} at a stride of {row_stride} do not fit a slice of {len} elements"
        )
    }
}

impl std::error::Error for ViewError {}

fn check(len: usize, rows: usize, channels: usize, row_stride: usize) -> Result<(), ViewError> {
    let error = ViewError { rows, channels, row_stride, len };
    if row_stride < channels {
        return Err(error);
    }
    let needed = match rows {
        0 => Some(0),
        _ => (rows - 1).checked_mul(row_stride).and_then(|start| start.checked_add(channels)),
    };
    match needed {
        Some(needed) if needed <= len => Ok(()),
        _ => Err(error),
    }
}

/// A read-only view: `rows` pixels of `channels` numbers, `row_stride` elements from one pixel to the next.
#[derive(Debug)]
pub struct Rows<'a, T = f32> {
    ptr: *const T,
    rows: usize,
    channels: usize,
    row_stride: usize,
    life: PhantomData<&'a [T]>,
}

impl<T> Clone for Rows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rows<'_, T> {}

// SAFETY: a view only reads elements which, by the contract of its constructors, nobody writes meanwhile.
unsafe impl<T: Sync> Send for Rows<'_, T> {}
// SAFETY: as above; sharing the view shares reads.
unsafe impl<T: Sync> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// A view of a slice; refused where the last row would end beyond it or rows would overlap.
    pub fn new(data: &'a [T], rows: usize, channels: usize, row_stride: usize) -> Result<Self, ViewError> {
        check(data.len(), rows, channels, row_stride)?;
        Ok(Self { ptr: data.as_ptr(), rows, channels, row_stride, life: PhantomData })
    }

    /// A view of rows that follow each other without a gap.
    pub fn dense(data: &'a [T], rows: usize, channels: usize) -> Result<Self, ViewError> {
        Self::new(data, rows, channels, channels)
    }

    /// The same row, as often as there are rows.
    pub fn repeated(row: &'a [T], rows: usize) -> Self {
        Self { ptr: row.as_ptr(), rows, channels: row.len(), row_stride: 0, life: PhantomData }
    }

    /// A view of raw memory.
    ///
    /// # Safety
    /// For every `r < rows` and `c < channels` the element `ptr + r * row_stride + c` must be initialised,
    /// readable for the lifetime `'a`, and not written by anyone during it. Nothing is promised or assumed
    /// about the elements in between. `row_stride >= channels`, and the whole extent fits an `isize` in bytes.
    pub unsafe fn from_raw(ptr: *const T, rows: usize, channels: usize, row_stride: usize) -> Self {
        Self { ptr, rows, channels, row_stride, life: PhantomData }
    }

    /// The address of the first element of the first row.
    pub fn ptr(&self) -> *const T {
        self.ptr
    }

    /// How many pixels.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many channels a pixel has.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Elements from a pixel to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Whether the rows follow each other without a gap.
    pub fn is_dense(&self) -> bool {
        self.row_stride == self.channels
    }

    /// One pixel.
    ///
    /// # Panics
    /// Where `row` is not below [`Rows::rows`].
    pub fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row is inside the view, whose constructor promised its elements readable and unwritten.
        unsafe { std::slice::from_raw_parts(self.ptr.add(row * self.row_stride), self.channels) }
    }

    /// The pixels `start .. start + rows`.
    ///
    /// # Panics
    /// Where they are not all inside this view.
    pub fn slice(&self, start: usize, rows: usize) -> Rows<'a, T> {
        assert!(start <= self.rows && rows <= self.rows - start, "rows {start}+{rows} of {}", self.rows);
        Rows { ptr: self.ptr.wrapping_add(start * self.row_stride), rows, ..*self }
    }

    /// The channels `start .. start + channels` of every pixel.
    ///
    /// # Panics
    /// Where they are not all inside this view.
    pub fn columns(&self, start: usize, channels: usize) -> Rows<'a, T> {
        assert!(
            start <= self.channels && channels <= self.channels - start,
            "channels {start}+{channels} of {}",
            self.channels
        );
        Rows { ptr: self.ptr.wrapping_add(start), channels, ..*self }
    }
}

/// A writable view: `rows` pixels of `channels` numbers, `row_stride` elements from one pixel to the next.
#[derive(Debug)]
pub struct RowsMut<'a, T = f32> {
    ptr: *mut T,
    rows: usize,
    channels: usize,
    row_stride: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: the elements of a view are nobody else's during its lifetime, so it may move to another thread.
unsafe impl<T: Send> Send for RowsMut<'_, T> {}
// SAFETY: a shared `RowsMut` hands out only its address; each kernel that writes through it from several
// threads shares the elements out among them.
unsafe impl<T: Send> Sync for RowsMut<'_, T> {}

impl<'a, T> RowsMut<'a, T> {
    /// A view of a slice; refused where the last row would end beyond it or rows would overlap.
    pub fn new(
        data: &'a mut [T],
        rows: usize,
        channels: usize,
        row_stride: usize,
    ) -> Result<Self, ViewError> {
        check(data.len(), rows, channels, row_stride)?;
        Ok(Self { ptr: data.as_mut_ptr(), rows, channels, row_stride, life: PhantomData })
    }

    /// A view of rows that follow each other without a gap.
    pub fn dense(data: &'a mut [T], rows: usize, channels: usize) -> Result<Self, ViewError> {
        Self::new(data, rows, channels, channels)
    }

    /// A view of raw memory.
    ///
    /// # Safety
    /// For every `r < rows` and `c < channels` the element `ptr + r * row_stride + c` must be valid for reads
    /// and writes and belong to nobody else for the lifetime `'a`. Nothing is promised about the elements in
    /// between: they may be alive elsewhere, and are neither read nor written through this view. `row_stride >=
    /// channels`, and the whole extent fits an `isize` in bytes.
    pub unsafe fn from_raw(ptr: *mut T, rows: usize, channels: usize, row_stride: usize) -> Self {
        Self { ptr, rows, channels, row_stride, life: PhantomData }
    }

    /// The address of the first element of the first row. Writing through it from several threads is sound as
    /// long as no element is touched by two.
    pub fn ptr(&self) -> *mut T {
        self.ptr
    }

    /// How many pixels.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many channels a pixel has.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Elements from a pixel to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Whether the rows follow each other without a gap.
    pub fn is_dense(&self) -> bool {
        self.row_stride == self.channels
    }

    /// One pixel, to write.
    ///
    /// # Panics
    /// Where `row` is not below [`RowsMut::rows`].
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row is inside the view, whose elements are ours alone, and `self` is borrowed meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(row * self.row_stride), self.channels) }
    }

    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> RowsMut<'_, T> {
        RowsMut { ptr: self.ptr, life: PhantomData, ..*self }
    }

    /// The same elements to read.
    pub fn as_rows(&self) -> Rows<'_, T> {
        let Self { ptr, rows, channels, row_stride, .. } = *self;
        Rows { ptr, rows, channels, row_stride, life: PhantomData }
    }

    /// The channels `start .. start + channels` of every pixel.
    ///
    /// # Panics
    /// Where they are not all inside this view.
    pub fn into_columns(self, start: usize, channels: usize) -> RowsMut<'a, T> {
        assert!(
            start <= self.channels && channels <= self.channels - start,
            "channels {start}+{channels} of {}",
            self.channels
        );
        RowsMut { ptr: self.ptr.wrapping_add(start), channels, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_needs_no_gap_behind_it() {
        let data = [0.0f32; 11];
        assert!(Rows::new(&data, 3, 3, 4).is_ok());
        assert!(Rows::new(&data, 3, 4, 4).is_err());
        assert!(Rows::new(&data, 3, 3, 2).is_err());
        assert!(Rows::new(&data, usize::MAX, 3, 4).is_err());
        assert!(Rows::new(&data[..0], 0, 3, 4).is_ok());
    }

    #[test]
    fn columns_and_slices_move_the_origin() {
        let data: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let view = Rows::dense(&data, 3, 4).unwrap();
        assert_eq!(view.columns(1, 2).row(2), &[9.0, 10.0]);
        assert_eq!(view.slice(1, 2).row(0), &[4.0, 5.0, 6.0, 7.0]);
        let mut copy = data.clone();
        let mut out = RowsMut::dense(&mut copy, 3, 4).unwrap().into_columns(3, 1);
        out.row_mut(1)[0] = -1.0;
        assert_eq!(copy[7], -1.0);
    }
}
