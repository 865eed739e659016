//! Resizing images by weighted sums of neighbouring pixels: bilinear, bicubic, antialiased, or anything else that is separable. Where
//! each output coordinate reads is given as a table of taps; how the table comes about (the many coordinate transforms of ONNX) is
//! the caller's business. Nearest-neighbour resizing has no sums: it is a [`gather`](crate::gather::gather).
//!
//! An input line is interpolated along its width once and kept while output lines need it; each output line is then a weighted sum
//! of whole lines.

use std::fmt;
use std::ops::Range;

use crate::element::Element;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp};
use crate::strided::{GRAIN, Shared};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// Which input coordinates each output coordinate of an axis sums up, and with which weights.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisTaps {
    input: usize,
    taps: usize,
    indices: Vec<usize>,
    weights: Vec<f32>,
}

/// Why a table of taps is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapsError {
    /// The indices or weights are not `taps` for each output coordinate, with `taps` above zero.
    Length,
    /// An index is outside the input.
    Outside(usize),
}

impl fmt::Display for TapsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TapsError::Length => {
                f.write_str("each output coordinate needs the same number of indices and weights")
            }
            TapsError::Outside(index) => write!(f, "index {index} is outside the input"),
        }
    }
}

impl std::error::Error for TapsError {}

impl AxisTaps {
    /// Taps of an axis of `input` coordinates: `taps` for each output coordinate, the weights in the order of the indices. An output
    /// coordinate that needs fewer repeats an index with weight 0.
    pub fn new(input: usize, taps: usize, indices: Vec<usize>, weights: Vec<f32>) -> Result<Self, TapsError> {
        if taps == 0 || indices.len() != weights.len() || !indices.len().is_multiple_of(taps) {
            return Err(TapsError::Length);
        }
        match indices.iter().find(|&&index| index >= input) {
            Some(&index) => Err(TapsError::Outside(index)),
            None => Ok(Self { input, taps, indices, weights }),
        }
    }

    /// Coordinates of the input.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Taps of each output coordinate.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Coordinates of the output.
    pub fn output(&self) -> usize {
        self.indices.len() / self.taps
    }

    fn of(&self, output: usize) -> (&[usize], &[f32]) {
        let range = output * self.taps..(output + 1) * self.taps;
        (&self.indices[range.clone()], &self.weights[range])
    }
}

/// Resizes `images` images, given as the rows of their pixels: `output[y][x] = sum(wy * wx * input[iy][ix])` over the taps of
/// `height` at `y` and of `width` at `x`. Of levels, which are rounded once, and as exactly on every instruction set.
///
/// # Panics
/// Where the views have not the pixels that the taps say, or differ in channels; where lines of levels are made of more than
/// [`MOST_LINES`].
pub fn resize<T: Element>(
    isa: Isa,
    pool: &ThreadPool,
    images: usize,
    (height, width): (&AxisTaps, &AxisTaps),
    input: Rows<'_, T>,
    output: RowsMut<'_, T>,
) {
    assert_eq!(input.rows(), images * height.input() * width.input(), "an input row for each pixel");
    assert_eq!(output.rows(), images * height.output() * width.output(), "an output row for each pixel");
    assert_eq!(input.channels(), output.channels(), "as many output channels as input channels");
    assert!(!T::INTEGER || height.taps() <= MOST_LINES, "levels are added up at once");
    let line = (width.output() * input.channels()).max(1);
    let output = (Shared(output.ptr()), output.row_stride());
    // At least a few lines for a task: neighbouring ones share interpolated input lines.
    pool.run_ranges(images * height.output(), GRAIN.div_ceil(line).max(4), |lines| {
        T::dispatch(isa, ResizeTask { height, width, lines, input, output: (output.0.get(), output.1) });
    });
}

struct ResizeTask<'a, T> {
    height: &'a AxisTaps,
    width: &'a AxisTaps,
    lines: Range<usize>,
    input: Rows<'a, T>,
    output: (*mut T, usize),
}

/// The most interpolated lines kept.
pub const MOST_LINES: usize = 64;

impl<T: Element> SimdOp for ResizeTask<'_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let channels = self.input.channels();
        let line_len = self.width.output() * channels;
        let slots = self.height.taps.min(MOST_LINES);
        // Interpolated lines and which input line each is, over all images.
        let mut lines = vec![0.0f32; slots * line_len];
        let mut held = vec![usize::MAX; slots];
        for line in self.lines.clone() {
            let (image, y) = (line / self.height.output(), line % self.height.output());
            let (indices, weights) = self.height.of(y);
            for (group, (indices, weights)) in indices.chunks(slots).zip(weights.chunks(slots)).enumerate() {
                let mut sources = [(0usize, 0.0f32); MOST_LINES];
                for (source, (&index, &weight)) in sources.iter_mut().zip(indices.iter().zip(weights)) {
                    let wanted = image * self.height.input() + index;
                    let slot = held.iter().position(|&line| line == wanted).unwrap_or_else(|| {
                        // There is a slot for each tap of the group, so one of them holds none of its lines.
                        let needed =
                            |line: usize| indices.iter().any(|i| image * self.height.input() + i == line);
                        let free = held.iter().position(|&line| !needed(line)).unwrap_or(0);
                        held[free] = wanted;
                        self.interpolate(s, wanted, &mut lines[free * line_len..][..line_len]);
                        free
                    });
                    *source = (slot, weight);
                }
                self.blend(s, line, group > 0, &sources[..indices.len()], &lines);
            }
        }
    }
}

/// `sum + weight * v`. Rounded once where that is faster, twice where all instruction sets must agree.
#[inline(always)]
fn add_weighted<S: Simd, T: Element>(s: S, sum: S::F32, v: S::F32, weight: f32) -> S::F32 {
    let weight = s.splat(weight);
    if T::INTEGER { s.add(sum, s.mul(v, weight)) } else { s.mul_add(v, weight, sum) }
}

impl<T: Element> ResizeTask<'_, T> {
    /// Interpolates an input line along the width.
    #[inline(always)]
    fn interpolate<S: Simd>(&self, s: S, line: usize, to: &mut [f32]) {
        let channels = self.input.channels();
        for (x, pixel) in to.chunks_exact_mut(channels.max(1)).enumerate() {
            let (indices, weights) = self.width.of(x);
            let mut channel = 0;
            while channel < channels {
                let n = channels - channel;
                let mut sum = s.zero();
                for (&index, &weight) in indices.iter().zip(weights) {
                    let row = line * self.width.input() + index;
                    // SAFETY: the pixel lies inside the input, at most the `n` channels that are left are read.
                    let v = unsafe {
                        T::load_partial(s, self.input.ptr().add(row * self.input.row_stride() + channel), n)
                    };
                    sum = add_weighted::<S, T>(s, sum, v, weight);
                }
                // SAFETY: at most the `n` channels that are left of the pixel are written.
                unsafe { s.store_partial(pixel.as_mut_ptr().add(channel), n, sum) };
                channel += S::LANES;
            }
        }
    }

    /// Writes (or where `more`, adds to) an output line the weighted sum of interpolated lines.
    #[inline(always)]
    fn blend<S: Simd>(&self, s: S, line: usize, more: bool, sources: &[(usize, f32)], lines: &[f32]) {
        let (channels, pixels) = (self.input.channels(), self.width.output());
        let line_len = channels * pixels;
        // Without gaps between its pixels a line is one long row.
        let (rows, len) = if self.output.1 == channels { (1, line_len) } else { (pixels, channels) };
        for row in 0..rows {
            let mut i = 0;
            while i < len {
                let n = len - i;
                // SAFETY: at most the `n` numbers that are left of the row are touched; the line belongs to this task.
                unsafe {
                    let to = self.output.0.add((line * pixels + row) * self.output.1 + i);
                    let mut sum = if more { T::load_partial(s, to, n) } else { s.zero() };
                    for &(slot, weight) in sources {
                        let p = lines.as_ptr().add(slot * line_len + row * len + i);
                        let v = if n >= S::LANES { s.load(p) } else { s.load_partial(p, n) };
                        sum = add_weighted::<S, T>(s, sum, v, weight);
                    }
                    if n >= S::LANES { T::store(s, to, sum) } else { T::store_partial(s, to, n, sum) }
                }
                i += S::LANES;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Input, Tolerance, check, random};
    use proptest::prelude::*;

    /// Half-pixel bilinear taps.
    fn linear(input: usize, output: usize) -> AxisTaps {
        let (mut indices, mut weights) = (Vec::new(), Vec::new());
        for x in 0..output {
            let at = ((x as f64 + 0.5) * input as f64 / output as f64 - 0.5).clamp(0.0, input as f64 - 1.0);
            let low = at.floor() as usize;
            indices.extend([low, (low + 1).min(input - 1)]);
            weights.extend([1.0 - at.fract() as f32, at.fract() as f32]);
        }
        AxisTaps::new(input, 2, indices, weights).unwrap()
    }

    fn drawn(seed: u64, input: usize, output: usize, taps: usize) -> AxisTaps {
        let indices =
            random(seed, output * taps, 0.0, input as f32).into_iter().map(|x| (x as usize).min(input - 1));
        AxisTaps::new(input, taps, indices.collect(), random(seed + 1, output * taps, -1.0, 1.0)).unwrap()
    }

    fn check_resize(images: usize, height: &AxisTaps, width: &AxisTaps, channels: usize, gap: usize) {
        let input = Input::new(71, images * height.input() * width.input(), channels, gap, -1.0, 1.0);
        let expected = |row: usize, channel| {
            let (x, rest) = (row % width.output(), row / width.output());
            let (y, image) = (rest % height.output(), rest / height.output());
            let mut sum = 0.0;
            for (iy, wy) in height.of(y).0.iter().zip(height.of(y).1) {
                for (ix, wx) in width.of(x).0.iter().zip(width.of(x).1) {
                    let row = (image * height.input() + iy) * width.input() + ix;
                    sum += f64::from(*wy) * f64::from(*wx) * input.at(row, channel);
                }
            }
            sum
        };
        // Relative to the weights, whose magnitudes sum to as many as there are taps at most.
        let taps = (height.taps * width.taps) as f64;
        let tolerance = Tolerance { absolute: 3e-7 * taps, relative: 1e-6 };
        check(
            (images * height.output() * width.output(), channels, gap),
            tolerance,
            expected,
            |isa, pool, out| {
                resize(isa, pool, images, (height, width), input.rows(), out);
            },
        );
    }

    #[test]
    fn shapes_of_networks() {
        check_resize(2, &linear(14, 28), &linear(14, 28), 64, 0);
        check_resize(1, &linear(33, 129), &linear(33, 129), 21, 3);
        check_resize(1, &linear(40, 17), &linear(50, 9), 3, 0);
        check_resize(0, &linear(4, 8), &linear(4, 8), 3, 0);
        // Antialiasing takes more taps than lines are kept.
        check_resize(1, &drawn(72, 90, 3, MOST_LINES + 7), &linear(8, 5), 5, 1);
    }

    #[test]
    fn tables_outside_the_input_are_refused() {
        assert_eq!(AxisTaps::new(3, 1, vec![0, 3], vec![1.0; 2]), Err(TapsError::Outside(3)));
        assert_eq!(AxisTaps::new(3, 2, vec![0, 1, 2], vec![1.0; 3]), Err(TapsError::Length));
        assert_eq!(AxisTaps::new(3, 0, vec![], vec![]), Err(TapsError::Length));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn any_taps(
            images in 0usize..3, input in (1usize..9, 1usize..9), output in (0usize..12, 0usize..12),
            taps in (1usize..5, 1usize..5), channels in 1usize..70, gap in 0usize..3,
        ) {
            let (height, width) = (drawn(73, input.0, output.0, taps.0), drawn(75, input.1, output.1, taps.1));
            check_resize(images, &height, &width, channels, gap);
        }
    }
}
