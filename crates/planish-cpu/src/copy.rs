//! Moving elements without changing them: transposing, slicing, concatenating, tiling, flipping, and the exchanges between pixels and
//! channels. All are one copy between two strided views ([`copy`]); what differs is how the views are made.
//!
//! The copy looks for the best pair of axes: runs that are contiguous on both sides are moved as such; where each side is
//! contiguous along an axis of its own, tiles of 8×8 are turned in registers, in blocks that fit the first cache.

use crate::isa::Isa;
use crate::simd::Simd;
use crate::strided::{Block, BlockKernel, Nest, Shared, Strided, StridedMut, dense_strides};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// Copies `input` to `output`, element by element, for elements of any size.
///
/// # Panics
/// Where the shapes differ.
pub fn copy<T: Copy + Send + Sync>(
    isa: Isa,
    pool: &ThreadPool,
    input: Strided<'_, T>,
    output: StridedMut<'_, T>,
) {
    assert_eq!(input.shape(), output.shape(), "as many outputs as inputs along each axis");
    // In the order of the output's memory, so that writing is contiguous wherever it can be.
    let layouts = [input.layout(), output.layout()];
    let mut nest = Nest::sorted_by_key(layouts, |[from, to]| {
        std::cmp::Reverse((to.unsigned_abs(), from.unsigned_abs()))
    });
    let (_, steps) = nest.innermost();
    let turn = steps[0] != 1 && steps[1] == 1 && nest.pair_with_contiguous(0);
    let kernel = CopyKernel { from: Shared(input.ptr()), to: Shared(output.ptr()), turn };
    nest.run(isa, pool, &kernel);
}

struct CopyKernel<T> {
    from: Shared<*const T>,
    to: Shared<*mut T>,
    /// The input is contiguous along the rows of a block, the output along its columns.
    turn: bool,
}

impl<T: Copy + Send + Sync> BlockKernel<2> for CopyKernel<T> {
    // Elements are moved, not converted.
    type Dispatch = f32;

    #[inline(always)]
    unsafe fn block<S: Simd>(&self, _: S, block: &Block<2>) {
        // SAFETY: the block lies inside both views.
        unsafe {
            let from = self.from.get().offset(block.offsets[0]);
            let to = self.to.get().offset(block.offsets[1]);
            if self.turn {
                turn_block::<S, T>(from, block.steps[0], to, block.row_strides[1], block.rows, block.len);
                return;
            }
            for row in 0..block.rows as isize {
                let from = from.offset(row * block.row_strides[0]);
                let to = to.offset(row * block.row_strides[1]);
                match block.steps {
                    // A call to copy a handful of elements costs more than they do.
                    [1, 1] if block.len > 8 => std::ptr::copy_nonoverlapping(from, to, block.len),
                    [1, 1] => (0..block.len).for_each(|i| *to.add(i) = *from.add(i)),
                    [0, 1] => (0..block.len).for_each(|i| *to.add(i) = *from),
                    [from_step, to_step] => {
                        for i in 0..block.len as isize {
                            *to.offset(i * to_step) = *from.offset(i * from_step);
                        }
                    }
                }
            }
        }
    }
}

/// `to[r * to_stride + c] = from[r + c * from_stride]` for `rows` × `columns`.
///
/// # Safety
/// These elements must be readable and writable, and the two sides must not overlap.
#[inline(always)]
unsafe fn turn_block<S: Simd, T: Copy>(
    from: *const T,
    from_stride: isize,
    to: *mut T,
    to_stride: isize,
    rows: usize,
    columns: usize,
) {
    const TILE: usize = 8;
    // SAFETY: all indices stay below `rows` and `columns`; tiles at the end overlap their neighbours and write the same again.
    unsafe {
        if rows < TILE || columns < TILE {
            macro_rules! narrow {
                ($($width:literal)*) => {
                    match (columns, rows) {
                        $(($width, _) => turn_narrow::<T, $width>(from, 1, from_stride, to, to_stride, 1, rows),)*
                        $((_, $width) => turn_narrow::<T, $width>(from, from_stride, 1, to, 1, to_stride, columns),)*
                        _ => {}
                    }
                };
            }
            narrow!(1 2 3 4 5 6 7);
            return;
        }
        // Lines that lie a power of two apart share few places in a cache: the side where they do is walked along its lines, so that
        // each is done with at once.
        let along_input = from_stride.trailing_zeros() > to_stride.trailing_zeros();
        let (outer, inner) = if along_input { (columns, rows) } else { (rows, columns) };
        for outer_at in (0..outer).step_by(TILE).map(|at| at.min(outer - TILE)) {
            for inner_at in (0..inner).step_by(TILE).map(|at| at.min(inner - TILE)) {
                let (row, column) = if along_input { (inner_at, outer_at) } else { (outer_at, inner_at) };
                let from = from.offset(column as isize * from_stride).add(row);
                let to = to.offset(row as isize * to_stride).add(column);
                #[cfg(target_arch = "x86_64")]
                if S::ISA >= Isa::Avx2 && size_of::<T>() == size_of::<f32>() {
                    turn_tile_avx2(from.cast(), from_stride, to.cast(), to_stride);
                    continue;
                }
                for r in 0..TILE {
                    for c in 0..TILE {
                        *to.offset(r as isize * to_stride).add(c) =
                            *from.offset(c as isize * from_stride).add(r);
                    }
                }
            }
        }
    }
}

/// Moves `length` groups of `WIDTH` elements, each side with a stride between groups and one inside them.
///
/// # Safety
/// These elements must be readable and writable, and the two sides must not overlap.
#[inline(always)]
unsafe fn turn_narrow<T: Copy, const WIDTH: usize>(
    from: *const T,
    from_group: isize,
    from_step: isize,
    to: *mut T,
    to_group: isize,
    to_step: isize,
    length: usize,
) {
    for i in 0..length as isize {
        // SAFETY: promised by the caller.
        unsafe {
            let (from, to) = (from.offset(i * from_group), to.offset(i * to_group));
            let group: [T; WIDTH] = std::array::from_fn(|j| *from.offset(j as isize * from_step));
            for (j, x) in group.into_iter().enumerate() {
                *to.offset(j as isize * to_step) = x;
            }
        }
    }
}

/// Turns a tile of 8×8 elements of 4 bytes.
///
/// # Safety
/// The machine must have AVX2; 8 elements must be readable in each of 8 rows at `from` and writable in each of 8 rows at `to`.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn turn_tile_avx2(from: *const f32, from_stride: isize, to: *mut f32, to_stride: isize) {
    use std::arch::x86_64::*;
    let zero = [_mm256_setzero_ps(); 8];
    let (mut rows, mut pairs, mut quads) = (zero, zero, zero);
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: promised by the caller.
        *row = unsafe { _mm256_loadu_ps(from.offset(i as isize * from_stride)) };
    }
    for i in (0..8).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for i in (0..8).step_by(2) {
        // Of rows 0..4 (i < 4) or 4..8, columns i and i + 4, i + 1 and i + 5.
        let (a, b) = (pairs[(i & 4) + (i >> 1 & 1)], pairs[(i & 4) + (i >> 1 & 1) + 2]);
        quads[i] = _mm256_shuffle_ps::<0x44>(a, b);
        quads[i + 1] = _mm256_shuffle_ps::<0xee>(a, b);
    }
    for i in 0..4 {
        let (a, b) = (quads[i], quads[i + 4]);
        // SAFETY: promised by the caller.
        unsafe {
            _mm256_storeu_ps(to.offset(i as isize * to_stride), _mm256_permute2f128_ps::<0x20>(a, b));
            _mm256_storeu_ps(to.offset((i as isize + 4) * to_stride), _mm256_permute2f128_ps::<0x31>(a, b));
        }
    }
}

/// The rows of a view taken apart into the axes `outer`, its channels into the axes `inner`.
///
/// # Panics
/// Where the sizes do not multiply to those of the view.
fn split<'a, T>(view: Rows<'a, T>, outer: &[usize], inner: &[usize]) -> Strided<'a, T> {
    let (shape, strides) = split_layout(view.rows(), view.channels(), view.row_stride(), outer, inner);
    // SAFETY: the elements are those of the view, since the sizes multiply to its own.
    unsafe { Strided::from_raw(view.ptr(), &shape, &strides) }
}

/// As [`split`], to write.
fn split_mut<'a, T>(view: RowsMut<'a, T>, outer: &[usize], inner: &[usize]) -> StridedMut<'a, T> {
    let (shape, strides) = split_layout(view.rows(), view.channels(), view.row_stride(), outer, inner);
    // SAFETY: the elements are those of the view, since the sizes multiply to its own.
    unsafe { StridedMut::from_raw(view.ptr(), &shape, &strides) }
}

fn split_layout(
    rows: usize,
    channels: usize,
    row_stride: usize,
    outer: &[usize],
    inner: &[usize],
) -> (Vec<usize>, Vec<isize>) {
    assert_eq!(rows, outer.iter().product::<usize>(), "the rows taken apart into {outer:?}");
    assert_eq!(channels, inner.iter().product::<usize>(), "the channels taken apart into {inner:?}");
    let rows = dense_strides(outer).into_iter().map(|stride| stride.saturating_mul(row_stride as isize));
    ([outer, inner].concat(), rows.chain(dense_strides(inner)).collect())
}

/// From channels-first (`[images, channels, pixels]` without gaps) to channels-last rows.
///
/// # Panics
/// Where `input` has not exactly the elements of `output`, or its rows are no whole number of images.
pub fn to_channels_last<T: Copy + Send + Sync>(
    isa: Isa,
    pool: &ThreadPool,
    images: usize,
    input: &[T],
    output: RowsMut<'_, T>,
) {
    let (channels, pixels) = (output.channels(), output.rows() / images.max(1));
    assert_eq!(input.len(), output.rows() * channels, "as many elements on both sides");
    let input = Strided::dense(input, &[images, channels, pixels]).expect("the length is checked");
    copy(isa, pool, input.permute(&[0, 2, 1]), split_mut(output, &[images, pixels], &[channels]));
}

/// From channels-last rows to channels-first (`[images, channels, pixels]` without gaps).
///
/// # Panics
/// Where `output` has not exactly the elements of `input`, or its rows are no whole number of images.
pub fn to_channels_first<T: Copy + Send + Sync>(
    isa: Isa,
    pool: &ThreadPool,
    images: usize,
    input: Rows<'_, T>,
    output: &mut [T],
) {
    let (channels, pixels) = (input.channels(), input.rows() / images.max(1));
    assert_eq!(output.len(), input.rows() * channels, "as many elements on both sides");
    let output = StridedMut::dense(output, &[images, channels, pixels]).expect("the length is checked");
    copy(isa, pool, split(input, &[images, pixels], &[channels]), output.permute(&[0, 2, 1]));
}

/// Interleaves `groups` groups of channels: channel `k` of group `j` becomes channel `k * groups + j` (ShuffleNet, arXiv 1707.01083).
///
/// # Panics
/// Where the views differ in rows or channels, or the channels are no whole number of groups.
pub fn channel_shuffle<T: Copy + Send + Sync>(
    isa: Isa,
    pool: &ThreadPool,
    groups: usize,
    input: Rows<'_, T>,
    output: RowsMut<'_, T>,
) {
    let (rows, channels) = (input.rows(), input.channels());
    assert!(groups > 0, "at least one group");
    let members = channels / groups;
    let input = split(input, &[rows], &[groups, members]).permute(&[0, 2, 1]);
    copy(isa, pool, input, split_mut(output, &[rows], &[members, groups]));
}

/// How the channels of a pixel are taken apart into a block of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepthOrder {
    /// `[block, block, channels]`: ONNX calls it DCR.
    BlockFirst,
    /// `[channels, block, block]`: ONNX calls it CRD, PyTorch pixel shuffle.
    ChannelFirst,
}

impl DepthOrder {
    /// The axes of the channels, and where they go among `[images, height, block, width, block, channels]`.
    fn axes(self, block: usize, channels: usize) -> ([usize; 3], [usize; 6]) {
        match self {
            DepthOrder::BlockFirst => ([block, block, channels], [0, 1, 3, 2, 4, 5]),
            DepthOrder::ChannelFirst => ([channels, block, block], [0, 1, 4, 2, 5, 3]),
        }
    }
}

/// Each pixel of `[images, height, width]` becomes `block` × `block` pixels with as many times fewer channels.
///
/// # Panics
/// Where the views do not have these rows, or the channels are no whole number of blocks.
pub fn depth_to_space<T: Copy + Send + Sync>(
    isa: Isa,
    pool: &ThreadPool,
    [images, height, width]: [usize; 3],
    (block, order): (usize, DepthOrder),
    input: Rows<'_, T>,
    output: RowsMut<'_, T>,
) {
    let channels = output.channels();
    let (inner, permutation) = order.axes(block, channels);
    let input = split(input, &[images, height, width], &inner).permute(&permutation);
    copy(isa, pool, input, split_mut(output, &[images, height, block, width, block], &[channels]));
}

/// Each `block` × `block` pixels become one of `[images, height, width]` pixels with as many times more channels.
///
/// # Panics
/// Where the views do not have these rows, or the channels of `output` are no whole number of blocks.
pub fn space_to_depth<T: Copy + Send + Sync>(
    isa: Isa,
    pool: &ThreadPool,
    [images, height, width]: [usize; 3],
    (block, order): (usize, DepthOrder),
    input: Rows<'_, T>,
    output: RowsMut<'_, T>,
) {
    let channels = input.channels();
    let (inner, permutation) = order.axes(block, channels);
    let output = split_mut(output, &[images, height, width], &inner).permute(&permutation);
    copy(isa, pool, split(input, &[images, height, block, width, block], &[channels]), output);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Input, Tolerance, check};
    use proptest::prelude::*;

    /// Copies between views of one shape, the axes of each in memory in its own order, and compares with the plain loop.
    fn check_copy<T: Copy + Send + Sync + PartialEq + std::fmt::Debug>(
        shape: &[usize],
        from_order: &[usize],
        to_order: &[usize],
        number: impl Fn(usize) -> T,
    ) {
        let count: usize = shape.iter().product();
        let strides = |order: &[usize]| {
            let memory: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
            let mut strides = vec![0; shape.len()];
            for (&axis, stride) in order.iter().zip(dense_strides(&memory)) {
                strides[axis] = stride;
            }
            strides
        };
        let (from_strides, to_strides) = (strides(from_order), strides(to_order));
        let data: Vec<T> = (0..count).map(&number).collect();
        let mut wanted = vec![number(0); count];
        for index in 0..count {
            let (mut rest, mut from, mut to) = (index, 0, 0);
            for axis in (0..shape.len()).rev() {
                from += (rest % shape[axis]) as isize * from_strides[axis];
                to += (rest % shape[axis]) as isize * to_strides[axis];
                rest /= shape[axis];
            }
            wanted[to as usize] = data[from as usize];
        }
        for isa in Isa::available() {
            for threads in [1, 3] {
                let mut out = vec![number(0); count];
                let input = Strided::new(&data, shape, &from_strides).unwrap();
                copy(
                    isa,
                    &ThreadPool::new(threads),
                    input,
                    StridedMut::new(&mut out, shape, &to_strides).unwrap(),
                );
                assert_eq!(out, wanted, "{isa} {shape:?} {from_order:?} {to_order:?}");
            }
        }
    }

    #[test]
    fn layouts_of_networks() {
        for (images, pixels, channels) in
            [(1, 224 * 224, 3), (2, 49, 512), (1, 1000, 17), (3, 5, 9), (1, 1, 40), (2, 30, 1), (0, 4, 4)]
        {
            check_copy(&[images, pixels, channels], &[0, 2, 1], &[0, 1, 2], |i| i as u32);
            check_copy(&[images, pixels, channels], &[0, 1, 2], &[0, 2, 1], |i| i as u8);
        }
    }

    #[test]
    fn channels_first_and_back_with_gaps() {
        let (images, pixels, channels) = (2, 35, 11);
        let input = Input::new(51, images * pixels, channels, 3, -1.0, 1.0);
        let at = |r: usize, c: usize| input.at(r, c);
        check((images * pixels, channels, 2), Tolerance::EXACT, at, |isa, pool, out| {
            let mut first = vec![0.0; images * pixels * channels];
            to_channels_first(isa, pool, images, input.rows(), &mut first);
            assert_eq!(f64::from(first[channels * pixels + 4 * pixels + 3]), input.at(pixels + 3, 4));
            to_channels_last(isa, pool, images, &first, out);
        });
    }

    #[test]
    fn slices_tiles_and_flips() {
        let data: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let pool = ThreadPool::new(1);
        for isa in Isa::available() {
            let view = Strided::dense(&data, &[4, 6]).unwrap();
            let mut out = [0.0; 4];
            copy(
                isa,
                &pool,
                view.window(0, 3, 2, -2).window(1, 1, 2, 3),
                StridedMut::dense(&mut out, &[2, 2]).unwrap(),
            );
            assert_eq!(out, [19.0, 22.0, 7.0, 10.0], "{isa}");
            let mut tiled = [0.0; 12];
            let row = Strided::dense(&data[..6], &[6]).unwrap().broadcast(&[2, 6]).unwrap();
            copy(isa, &pool, row, StridedMut::dense(&mut tiled, &[2, 6]).unwrap());
            assert_eq!((&tiled[..6], &tiled[6..]), (&data[..6], &data[..6]), "{isa}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(80))]
        #[test]
        fn any_permutation(
            shape in prop::collection::vec(0usize..14, 4),
            from in Just([0, 1, 2, 3]).prop_shuffle(),
            to in Just([0, 1, 2, 3]).prop_shuffle(),
        ) {
            check_copy(&shape, &from, &to, |i| i as u32);
            check_copy(&shape, &from, &to, |i| i as u64);
        }

        #[test]
        fn shuffles_and_blocks(
            images in 0usize..3, height in 1usize..5, width in 1usize..5, block in 1usize..4, channels in 1usize..12,
            gap in 0usize..3, first: bool,
        ) {
            let order = if first { DepthOrder::BlockFirst } else { DepthOrder::ChannelFirst };
            let deep = channels * block * block;
            let axes = [images, height, width];
            let input = Input::new(52, images * height * width, deep, gap, -1.0, 1.0);
            let shuffled = |r: usize, c: usize| input.at(r, c % channels * block * block + c / channels);
            check((images * height * width, deep, gap), Tolerance::EXACT, shuffled, |isa, pool, out| {
                channel_shuffle(isa, pool, channels, input.rows(), out);
            });
            let spread = |r: usize, c: usize| {
                let (x, rest) = (r % (width * block), r / (width * block));
                let (y, image) = (rest % (height * block), rest / (height * block));
                let cell = (y % block) * block + x % block;
                let channel = if first { cell * channels + c } else { c * block * block + cell };
                input.at((image * height + y / block) * width + x / block, channel)
            };
            let wide = (images * height * width * block * block, channels, gap);
            check(wide, Tolerance::EXACT, spread, |isa, pool, out| {
                depth_to_space(isa, pool, axes, (block, order), input.rows(), out);
            });
            // And back again.
            let same = |r: usize, c: usize| input.at(r, c);
            check((images * height * width, deep, gap), Tolerance::EXACT, same, |isa, pool, out| {
                let mut between = vec![0.0; wide.0 * channels];
                let view = RowsMut::dense(&mut between, wide.0, channels).unwrap();
                depth_to_space(isa, pool, axes, (block, order), input.rows(), view);
                let view = Rows::dense(&between, wide.0, channels).unwrap();
                space_to_depth(isa, pool, axes, (block, order), view, out);
            });
        }
    }
}
