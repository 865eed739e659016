//! Walking an image in tiles of neighbouring output pixels, for the algorithms that keep vectors of channels.
//!
//! Inside an output line most pixels see the whole kernel; only those near the ends lose taps to the padding,
//! and near the first and last lines all of them lose the same rows of taps. So a line is cut into single
//! pixels with clipped windows at its ends and tiles of several pixels with a common window in between: no
//! pixel pays for the padding of another, and nothing is copied into a padded image.

use super::ConvProblem;
use super::geometry::{Axis, Pixel};
use crate::threads::ThreadPool;
use crate::view::Rows;

/// The most pixels of a tile.
pub(super) const MAX_PIXELS: usize = 8;

/// A tile of neighbouring output pixels and the taps they all see.
pub(super) struct Window<T> {
    /// Where the first tap of the first pixel reads.
    pub input: *const T,
    /// The taps seen, along depth, height and width.
    pub taps: [usize; 3],
    /// Numbers of the input from tap to tap, along depth, height and width.
    pub tap_steps: [usize; 3],
    /// The first tap seen, along depth, height and width.
    pub first_tap: [usize; 3],
    /// Numbers of the input from pixel to pixel.
    pub pixel_step: usize,
    /// How many pixels.
    pub pixels: usize,
    /// Their output rows.
    pub outputs: [usize; MAX_PIXELS],
}

impl<T> Window<T> {
    /// Calls `body(tap, input)` for every tap: its number in the kernel, and where the first pixel reads it.
    #[inline(always)]
    pub(super) fn for_each_tap(&self, kernel: [usize; 3], mut body: impl FnMut(usize, *const T)) {
        self.for_each_tap_line(kernel, |first, mut input| {
            for tap in first..first + self.taps[2] {
                body(tap, input);
                input = input.wrapping_add(self.tap_steps[2]);
            }
        });
    }

    /// Calls `body(tap, input)` for the first tap of every line of taps along the width.
    #[inline(always)]
    pub(super) fn for_each_tap_line(&self, kernel: [usize; 3], mut body: impl FnMut(usize, *const T)) {
        for z in 0..self.taps[0] {
            for y in 0..self.taps[1] {
                let (tap, input) = self.tap_line(kernel, z, y);
                body(tap, input);
            }
        }
    }

    /// The first tap of a line of taps along the width, of those that are seen: its number in the kernel, and where the
    /// first pixel reads it. For bodies too long for a compiler to inline them into a loop of another function, where
    /// they would be compiled without the instructions they are for.
    #[inline(always)]
    pub(super) fn tap_line(&self, kernel: [usize; 3], z: usize, y: usize) -> (usize, *const T) {
        let line = (self.first_tap[0] + z) * kernel[1] + self.first_tap[1] + y;
        let input = self.input.wrapping_add(z * self.tap_steps[0] + y * self.tap_steps[1]);
        (line * kernel[2] + self.first_tap[2], input)
    }
}

/// How the output lines of a problem are cut.
pub(super) struct Walk<'a, T> {
    problem: &'a ConvProblem,
    axes: [Axis; 3],
    out_size: [usize; 3],
    input: *const T,
    row_stride: usize,
    max_pixels: usize,
}

// SAFETY: the input is only read, and outlives the walk.
unsafe impl<T: Sync> Sync for Walk<'_, T> {}

impl<'a, T: Sync> Walk<'a, T> {
    /// A walk over a valid problem with tiles of at most this many pixels (1 to [`MAX_PIXELS`]).
    pub(super) fn new(problem: &'a ConvProblem, input: &'a Rows<'_, T>, max_pixels: usize) -> Option<Self> {
        Some(Self {
            problem,
            axes: [0, 1, 2].map(|axis| Axis::of(problem, axis)),
            out_size: problem.out_size().ok()?,
            input: input.ptr(),
            row_stride: input.row_stride(),
            max_pixels: max_pixels.min(MAX_PIXELS),
        })
    }

    /// Calls `body` with every output line in some task of the pool.
    pub(super) fn for_each_line(&self, pool: &ThreadPool, body: &(dyn Fn(std::ops::Range<usize>) + Sync)) {
        let lines = self.problem.batch * self.out_size[0] * self.out_size[1];
        // Tasks of at least some thousand multiply-adds each, but a few for every thread.
        let line_macs = (self.problem.macs() / lines.max(1) as u64) as usize;
        let least = (64 * 1024 / line_macs.max(1)).max(1);
        let step = lines.div_ceil(pool.threads() * 4).max(least).max(1);
        pool.run(lines.div_ceil(step), &|task| body(task * step..((task + 1) * step).min(lines)));
    }

    /// Calls `body` with the windows of an output line.
    #[inline(always)]
    pub(super) fn windows(&self, line: usize, mut body: impl FnMut(&Window<T>)) {
        let [depth, height, width] = &self.axes;
        let out_width = self.out_size[2];
        let first_row = line * out_width;
        let pixel = Pixel::of_row(first_row, self.out_size);
        let (z_taps, y_taps) = (depth.valid_taps(pixel.z), height.valid_taps(pixel.y));
        // With no tap inside, the start is not used; the difference must merely not overflow.
        let start = |axis: &Axis, output: usize, tap: usize| {
            (output * axis.stride + tap * axis.dilation).saturating_sub(axis.pad)
        };
        let z = pixel.image * depth.size + start(depth, pixel.z, z_taps.start);
        let y = z * height.size + start(height, pixel.y, y_taps.start);
        let interior = width.interior(out_width);
        let mut x = 0;
        while x < out_width {
            let pixels = if interior.contains(&x) {
                let left = interior.end - x;
                left.div_ceil(left.div_ceil(self.max_pixels))
            } else {
                1
            };
            let x_taps = width.valid_taps(x);
            let at = y * width.size + start(width, x, x_taps.start);
            body(&Window {
                input: self.input.wrapping_add(at * self.row_stride),
                taps: [z_taps.len(), y_taps.len(), x_taps.len()],
                tap_steps: [
                    depth.dilation * height.size * width.size * self.row_stride,
                    height.dilation * width.size * self.row_stride,
                    width.dilation * self.row_stride,
                ],
                first_tap: [z_taps.start, y_taps.start, x_taps.start],
                pixel_step: width.stride * self.row_stride,
                pixels,
                outputs: std::array::from_fn(|i| first_row + x + i),
            });
            x += pixels;
        }
    }
}
