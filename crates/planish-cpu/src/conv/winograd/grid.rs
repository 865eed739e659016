//! How an output is cut into tiles.

use super::super::ConvProblem;
use super::points::MOST;

/// A variant on both axes, height and width. An axis along which the kernel is one wide is not transformed:
/// it has one point, one output and one tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Points, and so inputs of a tile: `outputs + taps - 1`.
    pub points: [usize; 2],
    /// Outputs of a tile.
    pub outputs: [usize; 2],
    /// Taps of the kernel.
    pub taps: [usize; 2],
}

impl Form {
    /// The form with `outputs` outputs along each axis where the kernel is longer than one; `None` where
    /// there is no such axis, two of different lengths, or no transform of the size.
    pub(super) fn new(outputs: usize, kernel: [usize; 2]) -> Option<Self> {
        let taps = kernel[0].max(kernel[1]);
        if taps < 3 || kernel.iter().any(|&k| k != 1 && k != taps) {
            return None;
        }
        let points = outputs + taps - 1;
        if points > MOST || !points.is_multiple_of(2) {
            return None;
        }
        let along = |k: usize, long: usize| if k == 1 { 1 } else { long };
        Some(Self {
            points: kernel.map(|k| along(k, points)),
            outputs: kernel.map(|k| along(k, outputs)),
            taps: kernel,
        })
    }

    /// The channels that are added up before the sum is added to that of those before them.
    ///
    /// The transform of the output magnifies the rounding errors of sums. With at most 64 products they stay
    /// what they are for 64 channels, and of 512 channels err 2.7 times less than in one run. It costs 7 %
    /// with 256 channels and 16 tiles. Four points magnify next to nothing.
    pub(super) fn longest_sum(&self) -> usize {
        if self.points[0].max(self.points[1]) > 4 { 64 } else { usize::MAX }
    }

    /// Products for each pair of an input and an output channel.
    pub(super) fn products(&self) -> usize {
        self.points[0] * self.points[1]
    }
}

/// The tiles of a problem. Tiles are numbered in row order, image after image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// What each tile is.
    pub form: Form,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    /// Zeros above and to the left of the input.
    pub pads: [usize; 2],
    /// Tiles of an image along height and width.
    pub across: [usize; 2],
    /// All tiles.
    pub tiles: usize,
}

/// Where a tile lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Its image.
    pub image: usize,
    /// Its first output pixel.
    pub output: [usize; 2],
}

impl Grid {
    /// The tiles of a valid problem of depth one.
    pub(super) fn new(form: Form, problem: &ConvProblem) -> Self {
        let output = problem.out_size().map_or([0; 2], |size| [size[1], size[2]]);
        let across = [0, 1].map(|axis| output[axis].div_ceil(form.outputs[axis]));
        Self {
            form,
            input: [problem.in_size[1], problem.in_size[2]],
            output,
            pads: [problem.pads_begin[1], problem.pads_begin[2]],
            across,
            tiles: problem.batch * across[0] * across[1],
        }
    }

    /// Where a tile lies.
    #[inline(always)]
    pub(super) fn place(&self, tile: usize) -> Place {
        let [high, wide] = self.across;
        let (x, rest) = (tile % wide, tile / wide);
        let output = [rest % high * self.form.outputs[0], x * self.form.outputs[1]];
        Place { image: rest / high, output }
    }

    /// The row of an input pixel that a tile sees at `(y, x)` from its corner; none in the padding.
    #[inline(always)]
    pub(super) fn input_row(&self, place: Place, y: usize, x: usize) -> Option<usize> {
        // Above or left of the input the differences wrap around to numbers no axis is as long as.
        let y = (place.output[0] + y).wrapping_sub(self.pads[0]);
        let x = (place.output[1] + x).wrapping_sub(self.pads[1]);
        let inside = y < self.input[0] && x < self.input[1];
        inside.then(|| (place.image * self.input[0] + y) * self.input[1] + x)
    }

    /// The row of an output pixel of a tile.
    #[inline(always)]
    pub(super) fn output_row(&self, place: Place, y: usize, x: usize) -> usize {
        (place.image * self.output[0] + place.output[0] + y) * self.output[1] + place.output[1] + x
    }
}
