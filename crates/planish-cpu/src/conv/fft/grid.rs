//! How the output is cut into tiles, and what each reads.
//!
//! A tile of n×n input pixels gives `n - kernel + 1` output pixels along each axis that no wrapping-around has touched
//! (overlap-save): neighbouring tiles read `kernel - 1` pixels in common, and no output is in two.

use std::ops::Range;

use crate::conv::ConvProblem;

/// The tiles of a problem.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    /// Lines and pixels of a tile of the input.
    pub size: usize,
    /// Lines and pixels of the output that a tile gives.
    pub outputs: [usize; 2],
    /// Tiles along height and width.
    along: [usize; 2],
    images: usize,
    kernel: [usize; 2],
    pads: [usize; 2],
    in_size: [usize; 2],
    out_size: [usize; 2],
}

/// An axis of a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Side {
    /// The first output.
    pub output: usize,
    /// How many outputs are wanted.
    pub wanted: usize,
    /// The input of the tile's first pixel, negative in the padding.
    pub input: isize,
    /// The pixels of the tile that are inside the image and needed.
    pub inside: Range<usize>,
}

/// A tile: its image, its lines and its pixels.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub image: usize,
    pub lines: Side,
    pub pixels: Side,
}

impl Grid {
    /// The tiles of a problem, or why it cannot be cut into tiles of this size.
    pub(super) fn new(problem: &ConvProblem, size: usize) -> Result<Self, String> {
        let kernel = problem.flat_and_dense("a Fourier transform")?;
        let out = problem.out_size()?;
        let ConvProblem { batch, in_size, pads_begin, .. } = *problem;
        let pair = |triple: [usize; 3]| [triple[1], triple[2]];
        let out_size = pair(out);
        if kernel.iter().any(|&k| k > size) {
            return Err(format!("a kernel of {}×{} does not fit a tile of {size}", kernel[0], kernel[1]));
        }
        let outputs = kernel.map(|k| size + 1 - k);
        Ok(Self {
            size,
            outputs,
            along: [0, 1].map(|axis| out_size[axis].div_ceil(outputs[axis])),
            images: batch,
            kernel,
            pads: pair(pads_begin),
            in_size: pair(in_size),
            out_size,
        })
    }

    /// Whether each image is a single tile, and would be one of half the size.
    pub(super) fn is_one_of_half_the_size(&self) -> bool {
        (0..2).all(|axis| self.out_size[axis] + self.kernel[axis] - 1 <= self.size / 2)
    }

    /// How many tiles.
    pub(super) fn tiles(&self) -> usize {
        self.images * self.along[0] * self.along[1]
    }

    /// A tile.
    pub(super) fn place(&self, tile: usize) -> Place {
        let (x, rest) = (tile % self.along[1], tile / self.along[1]);
        let (y, image) = (rest % self.along[0], rest / self.along[0]);
        Place { image, lines: self.side(0, y), pixels: self.side(1, x) }
    }

    fn side(&self, axis: usize, index: usize) -> Side {
        let output = index * self.outputs[axis];
        let wanted = self.outputs[axis].min(self.out_size[axis] - output);
        let pad = self.pads[axis];
        let needed = wanted + self.kernel[axis] - 1;
        let first = pad.saturating_sub(output).min(needed);
        let end = (self.in_size[axis] + pad).saturating_sub(output).min(needed);
        // Sizes of valid problems are far below the limit of `isize`.
        Side { output, wanted, input: output as isize - pad as isize, inside: first..end.max(first) }
    }

    /// The first input row of an image, and the pixels of a line of the input.
    pub(super) fn input_lines(&self, image: usize) -> (usize, usize) {
        (image * self.in_size[0] * self.in_size[1], self.in_size[1])
    }

    /// The output row of the first pixel of a tile, and the pixels of a line of the output.
    pub(super) fn output_rows(&self, place: &Place) -> (usize, usize) {
        let line = place.image * self.out_size[0] + place.lines.output;
        (line * self.out_size[1] + place.pixels.output, self.out_size[1])
    }
}
