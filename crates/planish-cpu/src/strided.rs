//! Views of tensors of any rank with any strides, because broadcasting, transposing, slicing, concatenating, tiling and
//! shuffling are all the same loop nest over different strides: a kernel written against this module serves them all.
//!
//! Strides are counted in elements and may be 0 (one element repeated: broadcasting) or negative (flipped). `Nest` joins axes
//! that can be walked as one and shares the rest out among threads in blocks of two axes.

use std::fmt;
use std::marker::PhantomData;

use crate::element::Element;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// The most axes a view can have.
pub const MAX_RANK: usize = 8;

/// Elements of work below which a region is not shared among threads.
pub(crate) const GRAIN: usize = 16 * 1024;

/// Why a view cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StridedError {
    shape: Vec<usize>,
    strides: Vec<isize>,
    len: usize,
}

impl fmt::Display for StridedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, strides, len } = self;
        write!(
            f,
            "shape {shape:?} at strides {strides:?} does not fit a slice of {len} elements and {MAX_RANK} axes"
        )
    }
}

impl std::error::Error for StridedError {}

/// A shape and strides, without memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    rank: usize,
    shape: [usize; MAX_RANK],
    strides: [isize; MAX_RANK],
}

impl Layout {
    fn new(shape: &[usize], strides: &[isize]) -> Option<Self> {
        if shape.len() > MAX_RANK || shape.len() != strides.len() {
            return None;
        }
        let mut layout = Self { rank: shape.len(), shape: [1; MAX_RANK], strides: [0; MAX_RANK] };
        layout.shape[..shape.len()].copy_from_slice(shape);
        layout.strides[..shape.len()].copy_from_slice(strides);
        Some(layout)
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.rank]
    }

    /// Elements from one index of each axis to the next.
    pub fn strides(&self) -> &[isize] {
        &self.strides[..self.rank]
    }

    /// Whether every element lies within `0..len`, counted without overflow. `exclusive`: no two indices share an element,
    /// by the sufficient condition that the axes can be sorted so that each strides beyond all smaller ones.
    fn fits(&self, len: usize, exclusive: bool) -> bool {
        if self.shape().contains(&0) {
            return true;
        }
        let (mut low, mut high) = (0i128, 0i128);
        let mut axes = [(0u128, 0u128); MAX_RANK];
        for (axis, (&size, &stride)) in self.shape().iter().zip(self.strides()).enumerate() {
            let reach = (size as i128 - 1) * stride as i128;
            low += reach.min(0);
            high += reach.max(0);
            axes[axis] = (stride.unsigned_abs() as u128, reach.unsigned_abs());
        }
        let mut inner_reach = 0;
        axes[..self.rank].sort_unstable();
        let apart = axes[..self.rank].iter().zip(self.shape()).all(|(&(stride, reach), _)| {
            let single = reach == 0 && stride == 0;
            let fine = single || stride > inner_reach || reach == 0;
            inner_reach += reach;
            fine
        });
        let repeated =
            self.shape().iter().zip(self.strides()).any(|(&size, &stride)| size > 1 && stride == 0);
        low >= 0 && high < len as i128 && (!exclusive || (apart && !repeated))
    }

    fn permute(&self, order: &[usize]) -> Self {
        assert_eq!(order.len(), self.rank, "a permutation names every axis");
        let mut seen = [false; MAX_RANK];
        let mut result = *self;
        for (axis, &from) in order.iter().enumerate() {
            assert!(from < self.rank && !seen[from], "{order:?} is no permutation");
            seen[from] = true;
            result.shape[axis] = self.shape[from];
            result.strides[axis] = self.strides[from];
        }
        result
    }

    fn broadcast(&self, shape: &[usize]) -> Option<Self> {
        let missing = shape.len().checked_sub(self.rank)?;
        let mut strides = [0; MAX_RANK];
        for (axis, (&size, &stride)) in self.shape().iter().zip(self.strides()).enumerate() {
            strides[missing + axis] = match size {
                _ if size == shape[missing + axis] => stride,
                1 => 0,
                _ => return None,
            };
        }
        Self::new(shape, strides.get(..shape.len())?)
    }

    /// Elements from the origin to the index `start` of `axis`, and the rest of the layout with `size` indices there, `step` apart.
    fn window(&self, axis: usize, start: usize, size: usize, step: isize) -> (isize, Self) {
        assert!(axis < self.rank, "axis {axis} of {}", self.rank);
        let last = start as i128 + step as i128 * (size as i128 - 1);
        let inside = |index: i128| (0..self.shape[axis] as i128).contains(&index);
        assert!(
            size == 0 || (inside(start as i128) && inside(last)),
            "window {start}+{size}*{step} of {self:?}"
        );
        let mut result = *self;
        result.shape[axis] = size;
        result.strides[axis] = self.strides[axis] * step;
        (if size == 0 { 0 } else { start as isize * self.strides[axis] }, result)
    }
}

/// The strides of a tensor of this shape without gaps, the last axis contiguous.
pub fn dense_strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis] as isize);
    }
    strides
}

macro_rules! strided_view {
    ($(#[$doc:meta])* $name:ident, $slice:ty, $pointer:ty, $as_ptr:ident, $exclusive:expr, $safety:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'a, T = f32> {
            ptr: $pointer,
            layout: Layout,
            life: PhantomData<$slice>,
        }

        impl<'a, T> $name<'a, T> {
            /// A view of a slice whose first element is the one at index 0 of every axis; refused where an element lies outside
            /// (a writable view also where two indices may share an element).
            pub fn new(data: $slice, shape: &[usize], strides: &[isize]) -> Result<Self, StridedError> {
                match Layout::new(shape, strides) {
                    Some(layout) if layout.fits(data.len(), $exclusive) => {
                        Ok(Self { ptr: data.$as_ptr(), layout, life: PhantomData })
                    }
                    _ => Err(StridedError { shape: shape.to_vec(), strides: strides.to_vec(), len: data.len() }),
                }
            }

            /// A view of a slice without gaps, the last axis contiguous.
            pub fn dense(data: $slice, shape: &[usize]) -> Result<Self, StridedError> {
                Self::new(data, shape, &dense_strides(shape))
            }

            /// A view of raw memory.
            ///
            /// # Safety
            #[doc = $safety]
            /// All offsets in bytes fit an `isize`.
            ///
            /// # Panics
            /// Where `shape` and `strides` differ in length or have more than [`MAX_RANK`] axes.
            pub unsafe fn from_raw(ptr: $pointer, shape: &[usize], strides: &[isize]) -> Self {
                let layout = Layout::new(shape, strides).expect("as many strides as axes, at most MAX_RANK");
                Self { ptr, layout, life: PhantomData }
            }

            /// The address of the element at index 0 of every axis.
            pub fn ptr(&self) -> $pointer {
                self.ptr
            }

            /// The shape and the strides.
            pub fn layout(&self) -> &Layout {
                &self.layout
            }

            /// The length of each axis.
            pub fn shape(&self) -> &[usize] {
                self.layout.shape()
            }

            /// The same elements with axis `i` being this view's axis `order[i]`.
            ///
            /// # Panics
            /// Where `order` is no permutation of the axes.
            pub fn permute(self, order: &[usize]) -> Self {
                Self { layout: self.layout.permute(order), ..self }
            }

            /// Of one axis, `size` indices from `start` on, `step` apart (negative: backwards).
            ///
            /// # Panics
            /// Where they are not all inside.
            pub fn window(self, axis: usize, start: usize, size: usize, step: isize) -> Self {
                let (offset, layout) = self.layout.window(axis, start, size, step);
                Self { ptr: self.ptr.wrapping_offset(offset), layout, ..self }
            }
        }
    };
}

strided_view! {
    /// A read-only view of any rank.
    Strided, &'a [T], *const T, as_ptr, false,
    "Every element of the view must be initialised and readable for the lifetime `'a`, and not written by anyone during it, but \
     for kernels that say so about their own output."
}

strided_view! {
    /// A writable view of any rank; no two indices share an element.
    StridedMut, &'a mut [T], *mut T, as_mut_ptr, true,
    "Every element of the view must be writable and belong to nobody else for the lifetime `'a`, but for kernels that say so \
     about their own input, and no two indices may share an element."
}

impl<T> Clone for Strided<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Strided<'_, T> {}

impl<'a, T> Strided<'a, T> {
    /// Repeats axes of length 1, and missing leading axes, to fill `shape`. `None` where the shapes do not agree by the rule
    /// of numpy.
    pub fn broadcast(self, shape: &[usize]) -> Option<Self> {
        Some(Self { layout: self.layout.broadcast(shape)?, ..self })
    }
}

impl<'a, T> From<Rows<'a, T>> for Strided<'a, T> {
    fn from(rows: Rows<'a, T>) -> Self {
        // SAFETY: the elements are those of the view, with its promises.
        unsafe {
            Self::from_raw(rows.ptr(), &[rows.rows(), rows.channels()], &[rows.row_stride() as isize, 1])
        }
    }
}

impl<'a, T> From<RowsMut<'a, T>> for StridedMut<'a, T> {
    fn from(rows: RowsMut<'a, T>) -> Self {
        // SAFETY: the elements are those of the view, with its promises.
        unsafe {
            Self::from_raw(rows.ptr(), &[rows.rows(), rows.channels()], &[rows.row_stride() as isize, 1])
        }
    }
}

/// A pointer that tasks share. They write disjoint elements through it, or only read.
#[derive(Clone, Copy)]
pub(crate) struct Shared<P>(pub P);

// SAFETY: only the address is shared; each kernel shares the elements out among its tasks.
unsafe impl<P> Send for Shared<P> {}
// SAFETY: as above.
unsafe impl<P> Sync for Shared<P> {}

impl<P: Copy> Shared<P> {
    pub(crate) fn get(&self) -> P {
        self.0
    }
}

/// What is done with a block of a [`Nest`] over `N` tensors.
pub(crate) trait BlockKernel<const N: usize>: Sync {
    /// The element whose instructions the kernel is compiled with.
    type Dispatch: Element;

    /// Handles one block. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// `offsets` are those of a block inside the tensors the kernel knows.
    unsafe fn block<S: Simd>(&self, simd: S, block: &Block<N>);
}

/// Two axes of a nest: `rows` times `len` elements.
#[derive(Clone, Copy)]
pub(crate) struct Block<const N: usize> {
    /// Where the block begins in each tensor.
    pub offsets: [isize; N],
    pub rows: usize,
    pub row_strides: [isize; N],
    pub len: usize,
    pub steps: [isize; N],
}

/// The loop nest over `N` tensors of one shape, axes joined where all of them can be walked as one.
#[derive(Clone, Debug)]
pub(crate) struct Nest<const N: usize> {
    /// From the outermost to the innermost, at least two axes.
    axes: Vec<(usize, [isize; N])>,
    /// Columns of a block, where there are enough rows.
    columns: usize,
}

impl<const N: usize> Nest<N> {
    pub(crate) fn new(layouts: [&Layout; N]) -> Self {
        let mut axes: Vec<(usize, [isize; N])> = Vec::with_capacity(MAX_RANK);
        for (axis, &size) in layouts[0].shape().iter().enumerate() {
            debug_assert!(layouts.iter().all(|layout| layout.shape()[axis] == size));
            let strides = layouts.map(|layout| layout.strides()[axis]);
            match axes.last_mut() {
                _ if size == 1 => {}
                Some((outer, outer_strides))
                    if *outer_strides == strides.map(|stride| stride * size as isize) =>
                {
                    *outer *= size;
                    *outer_strides = strides;
                }
                _ => axes.push((size, strides)),
            }
        }
        while axes.len() < 2 {
            axes.insert(0, (1, [0; N]));
        }
        Self { axes, columns: GRAIN / 2 }
    }

    /// The same nest with an innermost axis along which every tensor is contiguous, of length 1 where there is none.
    pub(crate) fn with_unit_steps(mut self) -> Self {
        if self.axes.last().is_none_or(|&(_, steps)| steps != [1; N]) {
            self.axes.push((1, [1; N]));
        }
        self
    }

    /// The same nest, its axes in the order that `rank` sorts them to.
    pub(crate) fn sorted_by_key<K: Ord>(layouts: [&Layout; N], rank: impl Fn([isize; N]) -> K) -> Self {
        let mut order: Vec<usize> = (0..layouts[0].rank).collect();
        order.sort_by_key(|&axis| rank(layouts.map(|layout| layout.strides[axis])));
        let permuted = layouts.map(|layout| layout.permute(&order));
        Self::new(std::array::from_fn(|tensor| &permuted[tensor]))
    }

    /// The length of the innermost axis and the strides along it.
    pub(crate) fn innermost(&self) -> (usize, [isize; N]) {
        self.axes[self.axes.len() - 1]
    }

    /// Moves the axis along which tensor `tensor` is contiguous next to the innermost one, and makes blocks square rather than
    /// wide. Whether there is one.
    pub(crate) fn pair_with_contiguous(&mut self, tensor: usize) -> bool {
        let last = self.axes.len() - 1;
        let found = self.axes[..last].iter().position(|&(size, strides)| size > 1 && strides[tensor] == 1);
        if let Some(axis) = found {
            self.axes[axis..last].rotate_left(1);
            self.columns = 128;
        }
        found.is_some()
    }

    /// Runs `kernel` over all blocks. Each element is visited once, by one thread; a block has at most 16 Ki elements unless
    /// its rows are longer and cannot be cut evenly.
    pub(crate) fn run<K: BlockKernel<N>>(&self, isa: Isa, pool: &ThreadPool, kernel: &K) {
        let (outer, inner) = self.axes.split_at(self.axes.len() - 2);
        let [(rows, row_strides), (len, steps)] = [inner[0], inner[1]];
        if self.axes.iter().any(|&(size, _)| size == 0) {
            return;
        }
        // A long row is cut at multiples of all vector lengths, short rows are taken together.
        let columns = len.min((GRAIN / 2 / rows).max(self.columns));
        let block_rows = (GRAIN / 2 / columns).clamp(1, rows);
        let mut axes = [(1, [0; N]); MAX_RANK + 2];
        let count = self.axes.len();
        axes[..count - 2].copy_from_slice(outer);
        axes[count - 2] = (rows.div_ceil(block_rows), row_strides.map(|stride| stride * block_rows as isize));
        axes[count - 1] = (len.div_ceil(columns), steps.map(|step| step * columns as isize));
        let whole = Block { offsets: [0; N], rows: block_rows, row_strides, len: columns, steps };
        let blocks = axes.iter().map(|&(size, _)| size).product();
        let size = (rows, len);
        // What takes a few microseconds is done before another thread has it in its cache.
        pool.run_ranges(blocks, (4 * GRAIN).div_ceil(block_rows * columns), |range| {
            K::Dispatch::dispatch(isa, Blocks { range, axes: &axes[..count], whole, size, kernel });
        });
    }
}

/// A range of blocks on one thread, compiled for each instruction set.
struct Blocks<'a, const N: usize, K> {
    range: std::ops::Range<usize>,
    /// How many blocks there are along each axis, and the distance from one to the next. The last two axes are those of the blocks.
    axes: &'a [(usize, [isize; N])],
    /// A block of full size.
    whole: Block<N>,
    /// The lengths of the last two axes, of which the last blocks may have only a part.
    size: (usize, usize),
    kernel: &'a K,
}

impl<const N: usize, K: BlockKernel<N>> SimdOp for Blocks<'_, N, K> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let mut block = self.whole;
        let last = self.axes.len() - 1;
        // Where the range begins; from there on, counted up digit by digit.
        let mut position = [0; MAX_RANK + 2];
        let mut rest = self.range.start;
        for (axis, &(size, strides)) in self.axes.iter().enumerate().rev() {
            position[axis] = rest % size;
            rest /= size;
            for (offset, stride) in block.offsets.iter_mut().zip(strides) {
                *offset += position[axis] as isize * stride;
            }
        }
        for _ in self.range {
            block.rows = self.whole.rows.min(self.size.0 - position[last - 1] * self.whole.rows);
            block.len = self.whole.len.min(self.size.1 - position[last] * self.whole.len);
            // SAFETY: the position counts blocks of the nest, whose axes are those of the tensors.
            unsafe { self.kernel.block(simd, &block) };
            for (axis, &(size, strides)) in self.axes.iter().enumerate().rev() {
                position[axis] += 1;
                let full = position[axis] == size;
                let steps = if full { 1 - size as isize } else { 1 };
                for (offset, stride) in block.offsets.iter_mut().zip(strides) {
                    *offset += steps * stride;
                }
                if !full {
                    break;
                }
                position[axis] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_outside_the_slice_are_refused() {
        let mut data = [0.0f32; 12];
        assert!(Strided::dense(&data, &[3, 4]).is_ok());
        assert!(Strided::dense(&data, &[3, 5]).is_err());
        assert!(Strided::new(&data, &[3, 4], &[0, 1]).is_ok());
        assert!(Strided::new(&data, &[3, 4], &[-4, 1]).is_err());
        assert!(Strided::new(&data, &[usize::MAX, usize::MAX], &[isize::MAX, 1]).is_err());
        assert!(Strided::dense(&data, &[1; 9]).is_err());
        assert!(StridedMut::new(&mut data, &[3, 4], &[0, 1]).is_err());
        assert!(StridedMut::new(&mut data, &[3, 4], &[1, 1]).is_err());
        assert!(StridedMut::new(&mut data, &[3, 4], &[1, 3]).is_ok());
        assert!(StridedMut::new(&mut data, &[1, 12, 1], &[0, 1, 0]).is_ok());
        assert!(StridedMut::new(&mut data, &[1, 12], &[5, 1]).is_ok());
    }

    #[test]
    fn axes_are_joined_where_all_tensors_allow() {
        let data = [0.0f32; 24];
        let dense = Strided::dense(&data, &[2, 3, 4]).unwrap();
        let channel = Strided::dense(&data[..4], &[4]).unwrap().broadcast(&[2, 3, 4]).unwrap();
        assert_eq!(Nest::new([dense.layout(), dense.layout()]).axes, [(1, [0, 0]), (24, [1, 1])]);
        assert_eq!(Nest::new([dense.layout(), channel.layout()]).axes, [(6, [4, 0]), (4, [1, 1])]);
        assert!(Strided::dense(&data[..3], &[3]).unwrap().broadcast(&[2, 3, 4]).is_none());
    }

    #[test]
    fn windows_run_backwards_too() {
        let data: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let view = Strided::dense(&data, &[10]).unwrap().window(0, 9, 4, -3);
        assert_eq!((view.shape(), view.layout().strides()), (&[4][..], &[-3][..]));
        assert_eq!(view.ptr(), &raw const data[9]);
    }
}
