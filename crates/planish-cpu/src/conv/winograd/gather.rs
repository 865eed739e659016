//! From pixels to transformed tiles.

use std::ops::Range;

use super::grid::Grid;
use super::points::MOST;
use super::transform;
use crate::element::Element;
use crate::simd::{Simd, SimdOp};
use crate::view::Rows;

/// The transform of some tiles of the input, all channels.
#[derive(Clone, Copy)]
pub(super) struct Gather<'a, T, U> {
    pub grid: &'a Grid,
    pub input: Rows<'a, T>,
    /// As many zero words as the input has channels, to read in place of padding.
    pub zeros: &'a [u32],
    pub first: usize,
    pub last: usize,
    /// `[point][tile][channel]`, from the tile `first` on.
    pub out: *mut U,
    /// Elements from tile to tile; a multiple of every vector.
    pub tile_step: usize,
    /// Elements from point to point.
    pub point_step: usize,
}

impl<T: Element, U: Element> Gather<'_, T, U> {
    /// Runs the transform compiled for the points of the grid.
    ///
    /// # Safety `out` is writable for `last - first` tiles at its steps; lanes behind the channels, up to the
    /// next whole vector, are written, too. The grid is that of a problem whose input is `input`.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(self, s: S) {
        match self.grid.form.points {
            [4, 4] => s.call(Op::<T, U, 4, 4>(self)),
            [6, 6] => s.call(Op::<T, U, 6, 6>(self)),
            [8, 8] => s.call(Op::<T, U, 8, 8>(self)),
            [1, 4] => s.call(Op::<T, U, 1, 4>(self)),
            [1, 6] => s.call(Op::<T, U, 1, 6>(self)),
            [1, 8] => s.call(Op::<T, U, 1, 8>(self)),
            [4, 1] => s.call(Op::<T, U, 4, 1>(self)),
            [6, 1] => s.call(Op::<T, U, 6, 1>(self)),
            [8, 1] => s.call(Op::<T, U, 8, 1>(self)),
            points => debug_assert!(false, "no transform of {points:?} points"),
        }
    }

    fn tiles(&self) -> Range<usize> {
        self.first..self.last
    }
}

struct Op<'a, T, U, const H: usize, const W: usize>(Gather<'a, T, U>);

impl<T: Element, U: Element, const H: usize, const W: usize> SimdOp for Op<'_, T, U, H, W> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let job = self.0;
        let channels = job.input.channels();
        let whole = channels / S::LANES * S::LANES;
        for (i, tile) in job.tiles().enumerate() {
            let place = job.grid.place(tile);
            let mut pixels = [job.zeros.as_ptr().cast::<T>(); MOST * MOST];
            for y in 0..H {
                for x in 0..W {
                    if let Some(row) = job.grid.input_row(place, y, x) {
                        pixels[y * W + x] = job.input.ptr().wrapping_add(row * job.input.row_stride());
                    }
                }
            }
            let out = job.out.wrapping_add(i * job.tile_step);
            let mut channel = 0;
            // SAFETY: pixels are rows of the input, or as many zeros; `run`'s caller promises the room.
            unsafe {
                while channel < whole {
                    vector::<S, T, U, H, W, true>(s, &pixels, channel, channels, out, job.point_step);
                    channel += S::LANES;
                }
                if channel < channels {
                    vector::<S, T, U, H, W, false>(s, &pixels, channel, channels, out, job.point_step);
                }
            }
        }
    }
}

/// One vector of channels of a tile, along the height and then along the width.
///
/// # Safety The first `H * W` pixels are readable for `channels` numbers, a whole vector from `channel` on
/// where `FULL`; `out` is writable for a vector at `channel` for each of `H * W` points.
#[inline(always)]
unsafe fn vector<S: Simd, T: Element, U: Element, const H: usize, const W: usize, const FULL: bool>(
    s: S,
    pixels: &[*const T; MOST * MOST],
    channel: usize,
    channels: usize,
    out: *mut U,
    point_step: usize,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let mut lines = [[s.zero(); W]; H];
        for x in 0..W {
            let mut column = [s.zero(); H];
            for y in 0..H {
                let p = pixels[y * W + x].add(channel);
                column[y] = if FULL { T::load(s, p) } else { T::load_partial(s, p, channels - channel) };
            }
            let column = transform::input(s, &column);
            for y in 0..H {
                lines[y][x] = column[y];
            }
        }
        for (y, line) in lines.iter().enumerate() {
            let line = transform::input(s, line);
            for (x, &v) in line.iter().enumerate() {
                U::store(s, out.add((y * W + x) * point_step + channel), v);
            }
        }
    }
}
