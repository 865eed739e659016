//! Pooling over windows of pixels, channels-last: a window is a few rows of channels, folded vector by vector, so one loop serves
//! all kinds, sizes, strides, dilations and paddings. Two-dimensional pooling is three-dimensional of depth 1. Pooling of whole
//! images is [`reduce`](crate::reduce::reduce) over the pixels.

use std::ops::Range;

use crate::element::Element;
use crate::fold::{AbsoluteSum, Fold, Largest, SquareSum, Sum};
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp};
use crate::strided::{GRAIN, Shared};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// How the numbers of a window become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pooling {
    /// The largest, or NaN where there is one. Padding does not take part; a window of nothing else gives minus infinity.
    Max,
    /// The mean. A window of nothing but padding gives 0.
    Average {
        /// Whether padding counts as zeros. Cells beyond the padding, which a size rounded up reaches, never count.
        count_include_pad: bool,
    },
    /// The mean of levels, as a level: `(mean - from) * ratio + to`. Exact up to the last rounding for windows of up to
    /// 2^24 / 255 cells; of more, sums of levels would be rounded.
    LevelMean {
        /// As for [`Pooling::Average`]; padding counts as the level `from`.
        count_include_pad: bool,
        /// The step of the input in steps of the output.
        ratio: f32,
        /// The level of the input that stands for zero.
        from: f32,
        /// The level of the output that stands for zero.
        to: f32,
    },
    /// The sum of the absolute values.
    L1,
    /// The square root of the sum of the squares.
    L2,
}

/// The window along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolAxis {
    /// Length of the input.
    pub input: usize,
    /// Length of the output, rounded up or down as the caller likes.
    pub output: usize,
    /// Cells of the window.
    pub kernel: usize,
    /// Input cells from one window to the next.
    pub stride: usize,
    /// Input cells from one cell of the window to the next.
    pub dilation: usize,
    /// Cells of padding before the input.
    pub pad_begin: usize,
    /// Cells of padding behind the input.
    pub pad_end: usize,
}

impl PoolAxis {
    /// The axis that two-dimensional pooling lacks.
    pub const NONE: Self =
        Self { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad_begin: 0, pad_end: 0 };

    /// Of the window at `output`: where its cell 0 lies in the input (may be before it), which of its cells lie in the input,
    /// and how many lie in the input or its padding.
    fn window(&self, output: usize) -> (isize, Range<usize>, usize) {
        let start = output as isize * self.stride as isize - self.pad_begin as isize;
        // The number of cells before position `end`.
        let before = |end: isize| ((end - start).max(0) as usize).div_ceil(self.dilation).min(self.kernel);
        let first = before(0);
        (start, first..before(self.input as isize).max(first), before((self.input + self.pad_end) as isize))
    }
}

/// What a pooling works on: depth, height and width of `images` activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolProblem {
    /// The batch.
    pub images: usize,
    /// Depth, height, width.
    pub axes: [PoolAxis; 3],
}

impl PoolProblem {
    /// Two-dimensional: height, width.
    pub fn plane(images: usize, height: PoolAxis, width: PoolAxis) -> Self {
        Self { images, axes: [PoolAxis::NONE, height, width] }
    }
}

/// Pools `input`, the pixels of all images row by row, into `output`.
///
/// # Panics
/// Where the views do not have the pixels of the problem or differ in channels, or a stride or dilation is 0.
pub fn pool<T: Element>(
    isa: Isa,
    threads: &ThreadPool,
    kind: Pooling,
    problem: &PoolProblem,
    input: Rows<'_, T>,
    output: RowsMut<'_, T>,
) {
    let axes = problem.axes;
    let pixels = |length: fn(&PoolAxis) -> usize| axes.iter().map(length).product::<usize>() * problem.images;
    assert_eq!(input.rows(), pixels(|axis| axis.input), "an input row for each pixel");
    assert_eq!(output.rows(), pixels(|axis| axis.output), "an output row for each pixel");
    assert_eq!(input.channels(), output.channels(), "as many output channels as input channels");
    assert!(axes.iter().all(|axis| axis.stride > 0 && axis.dilation > 0), "strides and dilations above 0");
    let lines = problem.images * axes[0].output * axes[1].output;
    let window: usize = axes.iter().map(|axis| axis.kernel).product();
    let work = (axes[2].output * input.channels() * window.div_ceil(4)).max(1);
    let output = (Shared(output.ptr()), output.row_stride());
    threads.run_ranges(lines, GRAIN.div_ceil(work), |lines| {
        let output = (output.0.get(), output.1);
        T::dispatch(isa, PoolTask { kind, axes, lines, input, output });
    });
}

/// Some lines of output pixels.
struct PoolTask<'a, T> {
    kind: Pooling,
    axes: [PoolAxis; 3],
    lines: Range<usize>,
    input: Rows<'a, T>,
    output: (*mut T, usize),
}

impl<T: Element> SimdOp for PoolTask<'_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        match self.kind {
            Pooling::Max if T::INTEGER => self.lines::<S, Largest, true>(s, |x, _, _| x),
            Pooling::Max => self.lines::<S, Largest, false>(s, |x, _, _| x),
            Pooling::Average { count_include_pad: false } => {
                self.lines::<S, Sum, false>(s, |x, inside, _| s.mul(x, s.splat(1.0 / inside.max(1) as f32)));
            }
            Pooling::Average { count_include_pad: true } => {
                self.lines::<S, Sum, false>(s, |x, _, padded| s.mul(x, s.splat(1.0 / padded.max(1) as f32)));
            }
            Pooling::LevelMean { count_include_pad, ratio, from, to } => {
                self.lines::<S, Sum, false>(s, |x, inside, padded| {
                    let count = if count_include_pad { padded } else { inside };
                    // Whole numbers until the product.
                    let sum = s.sub(x, s.splat(inside as f32 * from));
                    let mean = s.mul(sum, s.splat(ratio / count.max(1) as f32));
                    s.add(s.round(mean), s.splat(to))
                });
            }
            Pooling::L1 => self.lines::<S, AbsoluteSum, false>(s, |x, _, _| x),
            Pooling::L2 => self.lines::<S, SquareSum, false>(s, |x, _, _| s.sqrt(x)),
        }
    }
}

/// The window of one output pixel.
struct Window {
    /// The input row of the first cell inside.
    row: usize,
    /// Cells inside along each axis, and input rows from one to the next.
    cells: [(usize, usize); 3],
}

impl<T: Element> PoolTask<'_, T> {
    /// `finish` gets the folded window, the number of its cells inside the input, and inside the input or its padding.
    /// `BYTES` only where the result is the largest of bytes.
    #[inline(always)]
    fn lines<S: Simd, F: Fold, const BYTES: bool>(
        &self,
        s: S,
        finish: impl Fn(S::F32, usize, usize) -> S::F32,
    ) {
        let [depth, height, width] = self.axes;
        let row_steps = [height.input * width.input, width.input, 1];
        let channels = self.input.channels();
        let along_width: Vec<_> = (0..width.output).map(|x| width.window(x)).collect();
        for line in self.lines.clone() {
            let (plane, y) = (line / height.output, line % height.output);
            let (image, z) = (plane / depth.output, plane % depth.output);
            let image_row = image * depth.input * row_steps[0];
            let (across_depth, across_height) = (depth.window(z), height.window(y));
            for (x, along_width) in along_width.iter().enumerate() {
                let windows = [&across_depth, &across_height, along_width];
                let mut window = Window { row: image_row, cells: [(0, 0); 3] };
                let (mut inside, mut padded) = (1, 1);
                for (axis, &(start, ref range, count)) in windows.into_iter().enumerate() {
                    let dilation = self.axes[axis].dilation;
                    let first = start + (range.start * dilation) as isize;
                    // Of an empty range the first cell may lie outside; it is never read then.
                    window.row += first.max(0) as usize * row_steps[axis];
                    window.cells[axis] = (range.len(), dilation * row_steps[axis]);
                    inside *= range.len();
                    padded *= count;
                }
                // SAFETY: the pixel lies inside the output, and no other task has its line.
                let to = unsafe { self.output.0.add((line * width.output + x) * self.output.1) };
                let mut channel = 0;
                while channel < channels {
                    let n = channels - channel;
                    // SAFETY: at most `n` channels from `channel` on are touched, of input rows inside the image and of this
                    // output pixel.
                    unsafe {
                        let to = to.add(channel);
                        if BYTES && n >= 4 * S::LANES {
                            s.store(to.cast(), self.largest_bytes(s, &window, channel));
                            channel += 4 * S::LANES;
                        } else if n >= 4 * S::LANES {
                            let sums = self.fold::<S, F, 4>(s, &window, channel, n);
                            for (v, sum) in sums.into_iter().enumerate() {
                                T::store(s, to.add(v * S::LANES), finish(sum, inside, padded));
                            }
                            channel += 4 * S::LANES;
                        } else {
                            let [sum] = self.fold::<S, F, 1>(s, &window, channel, n);
                            T::store_partial(s, to, n, finish(sum, inside, padded));
                            channel += S::LANES;
                        }
                    }
                }
            }
        }
    }

    /// The largest of each channel in a window, for a whole vector of bytes.
    ///
    /// # Safety
    /// The window's cells are rows of the input, whose elements are bytes; a vector of them exists from `channel` on.
    #[inline(always)]
    unsafe fn largest_bytes<S: Simd>(&self, s: S, window: &Window, channel: usize) -> S::F32 {
        let mut largest = s.zero();
        self.for_each_cell(window, channel, |p| {
            // SAFETY: promised by the caller.
            largest = s.max_u8(largest, unsafe { s.load(p.cast()) });
        });
        largest
    }

    /// Folds `V` vectors of channels over a window.
    ///
    /// # Safety
    /// The window's cells are rows of the input; `n` channels exist from `channel` on, at least `V` vectors where `V > 1`.
    #[inline(always)]
    unsafe fn fold<S: Simd, F: Fold, const V: usize>(
        &self,
        s: S,
        window: &Window,
        channel: usize,
        n: usize,
    ) -> [S::F32; V] {
        let mut sums = [s.splat(F::IDENTITY); V];
        self.for_each_cell(window, channel, |p| {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: promised by the caller.
                let x = unsafe {
                    let p = p.add(v * S::LANES);
                    if V > 1 { T::load(s, p) } else { T::load_partial(s, p, n) }
                };
                *sum = F::join(s, *sum, F::term(s, x, s.zero()));
            }
        });
        sums
    }

    /// Calls `visit` with the address of a channel in each cell of a window.
    #[inline(always)]
    fn for_each_cell(&self, window: &Window, channel: usize, mut visit: impl FnMut(*const T)) {
        let stride = self.input.row_stride();
        let origin = self.input.ptr().wrapping_add(window.row * stride + channel);
        let [(planes, plane), (lines, line), (cells, cell)] = window.cells;
        for z in 0..planes {
            for y in 0..lines {
                let mut p = origin.wrapping_add((z * plane + y * line) * stride);
                for _ in 0..cells {
                    visit(p);
                    p = p.wrapping_add(cell * stride);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Input, Tolerance, check};
    use proptest::prelude::*;

    const KINDS: [Pooling; 5] = [
        Pooling::Max,
        Pooling::Average { count_include_pad: false },
        Pooling::Average { count_include_pad: true },
        Pooling::L1,
        Pooling::L2,
    ];

    fn exact(kind: Pooling, problem: &PoolProblem, input: &Input, row: usize, channel: usize) -> f64 {
        let [depth, height, width] = problem.axes;
        let (x, rest) = (row % width.output, row / width.output);
        let (y, rest) = (rest % height.output, rest / height.output);
        let (z, image) = (rest % depth.output, rest / depth.output);
        let (mut numbers, mut padded) = (Vec::new(), 0);
        for kz in 0..depth.kernel {
            for ky in 0..height.kernel {
                for kx in 0..width.kernel {
                    let at = |axis: PoolAxis, out: usize, k: usize| {
                        (out * axis.stride + k * axis.dilation) as isize - axis.pad_begin as isize
                    };
                    let at = [at(depth, z, kz), at(height, y, ky), at(width, x, kx)];
                    let all = |limit: &dyn Fn(PoolAxis) -> usize| {
                        at.iter().zip(problem.axes).all(|(&at, axis)| at < limit(axis) as isize)
                    };
                    padded += usize::from(all(&|axis| axis.input + axis.pad_end));
                    if at.iter().all(|&at| at >= 0) && all(&|axis| axis.input) {
                        let [z, y, x] = at.map(|at| at as usize);
                        let row = ((image * depth.input + z) * height.input + y) * width.input + x;
                        numbers.push(input.at(row, channel));
                    }
                }
            }
        }
        let sum: f64 = numbers.iter().sum();
        match kind {
            Pooling::Max => numbers.into_iter().fold(f64::NEG_INFINITY, f64::max),
            Pooling::Average { count_include_pad: true } => sum / padded.max(1) as f64,
            Pooling::Average { count_include_pad: false } => sum / numbers.len().max(1) as f64,
            Pooling::LevelMean { .. } => unreachable!("tested on levels, with the kernels for them"),
            Pooling::L1 => numbers.into_iter().map(f64::abs).sum(),
            Pooling::L2 => numbers.into_iter().map(|x| x * x).sum::<f64>().sqrt(),
        }
    }

    fn check_problem(kind: Pooling, problem: PoolProblem, channels: usize, gap: usize) {
        let pixels = |length: fn(&PoolAxis) -> usize| {
            problem.axes.iter().map(length).product::<usize>() * problem.images
        };
        let input = Input::new(21, pixels(|axis| axis.input), channels, gap, -1.0, 1.0);
        let expected = |row, channel| exact(kind, &problem, &input, row, channel);
        let shape = (pixels(|axis| axis.output), channels, gap);
        check(shape, Tolerance::both(3e-6), expected, |isa, threads, out| {
            pool(isa, threads, kind, &problem, input.rows(), out);
        });
    }

    fn axis(
        input: usize,
        kernel: usize,
        stride: usize,
        dilation: usize,
        pads: (usize, usize),
        ceil: bool,
    ) -> PoolAxis {
        let span = (input + pads.0 + pads.1).saturating_sub(dilation * (kernel - 1) + 1);
        let output = 1 + if ceil { span.div_ceil(stride) } else { span / stride };
        PoolAxis { input, output, kernel, stride, dilation, pad_begin: pads.0, pad_end: pads.1 }
    }

    #[test]
    fn shapes_of_networks() {
        for kind in KINDS {
            let resnet = axis(28, 3, 2, 1, (1, 1), false);
            check_problem(kind, PoolProblem::plane(2, resnet, resnet), 64, 0);
            let squeezenet = axis(27, 3, 2, 1, (0, 0), true);
            check_problem(kind, PoolProblem::plane(1, squeezenet, squeezenet), 96, 3);
            check_problem(kind, PoolProblem::plane(0, resnet, resnet), 8, 0);
            check_problem(kind, PoolProblem { images: 1, axes: [axis(4, 2, 2, 1, (0, 0), false); 3] }, 5, 0);
        }
    }

    #[test]
    fn cells_beyond_the_padding_never_count() {
        // 5 cells, window 3, stride 3, rounded up: the second window has two cells and nothing behind them.
        let line = axis(5, 3, 3, 1, (0, 0), true);
        assert_eq!(line.output, 2);
        assert_eq!(line.window(1), (3, 0..2, 2));
        let padded = axis(5, 3, 3, 1, (1, 1), true);
        assert_eq!(padded.window(0), (-1, 1..3, 3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(80))]
        #[test]
        fn any_problem(
            kind in prop::sample::select(&KINDS[..]), images in 0usize..3, channels in 1usize..80, gap in 0usize..3,
            draws in prop::collection::vec((1usize..10, 1usize..4, 1usize..4, 1usize..3, 0usize..3, 0usize..3, any::<bool>()), 3),
            deep: bool,
        ) {
            let mut axes = [PoolAxis::NONE; 3];
            for (to, (input, kernel, stride, dilation, begin, end, ceil)) in axes.iter_mut().zip(draws) {
                *to = axis(input, kernel, stride, dilation, (begin, end), ceil);
            }
            if !deep {
                axes[0] = PoolAxis::NONE;
            }
            check_problem(kind, PoolProblem { images, axes }, channels, gap);
        }
    }
}
