//! Output pixels that see the same taps of the kernel.
//!
//! Padding is neither of two signs, so it has no bits, and a sum near the border is one of fewer products. Along an axis the
//! taps that meet the image change only near its ends, so the pixels that see the same ones are a box; a tile of pixels of
//! one box has its taps and its constants in common, and no work is done for padding.

use super::super::ConvProblem;
use super::super::geometry::Axis;
use super::pack::PixelLayout;
use super::tile::Taps;
use std::ops::Range;

/// A box of output pixels, over all images.
#[derive(Clone, Debug)]
pub(super) struct Region {
    /// The coordinates, along depth, height and width.
    outputs: [Range<usize>; 3],
    /// The taps that meet the image.
    pub taps: Vec<Taps>,
    /// Where the first of them reads, along the axes.
    first: [usize; 3],
}

/// Where a pixel is read and written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The input pixel that the first tap reads.
    pub input: usize,
    /// The row of the output.
    pub output: usize,
}

/// The output coordinates of an axis, by the taps they see.
fn spans(axis: &Axis, outputs: usize) -> Vec<[Range<usize>; 2]> {
    let mut spans: Vec<[Range<usize>; 2]> = Vec::new();
    for output in 0..outputs {
        let taps = axis.valid_taps(output);
        match spans.last_mut() {
            Some([outputs, last]) if *last == taps => outputs.end = output + 1,
            _ => spans.push([output..output + 1, taps]),
        }
    }
    spans
}

impl Region {
    /// All of a valid problem whose pixels are packed so.
    pub(super) fn all(problem: &ConvProblem, layout: PixelLayout) -> Vec<Region> {
        let Ok(size) = problem.out_size() else { return Vec::new() };
        let [depth, height, width] = [0, 1, 2].map(|axis| spans(&Axis::of(problem, axis), size[axis]));
        let mut regions = Vec::with_capacity(depth.len() * height.len() * width.len());
        for [z, z_taps] in &depth {
            for [y, y_taps] in &height {
                for [x, x_taps] in &width {
                    let taps = [z_taps, y_taps, x_taps];
                    regions.push(Region {
                        outputs: [z.clone(), y.clone(), x.clone()],
                        first: taps.map(|taps| taps.start),
                        taps: Region::taps(problem, layout, taps),
                    });
                }
            }
        }
        regions
    }

    fn taps(problem: &ConvProblem, layout: PixelLayout, [z, y, x]: [&Range<usize>; 3]) -> Vec<Taps> {
        let ([_, height, width], dilation, kernel) = (problem.in_size, problem.dilation, problem.kernel);
        let mut taps: Vec<Taps> = Vec::new();
        for at_z in z.clone() {
            for at_y in y.clone() {
                for at_x in x.clone() {
                    let line = (at_z - z.start) * dilation[0] * height + (at_y - y.start) * dilation[1];
                    let pixel = line * width + (at_x - x.start) * dilation[2];
                    let number = (at_z * kernel[1] + at_y) * kernel[2] + at_x;
                    let input = pixel * layout.pixel_words();
                    match taps.last_mut() {
                        Some(last)
                            if layout.words == layout.pixel_words()
                                && last.numbers.end == number
                                && last.input + last.numbers.len() * layout.words == input =>
                        {
                            last.numbers.end = number + 1;
                        }
                        _ => taps.push(Taps { input, numbers: number..number + 1 }),
                    }
                }
            }
        }
        taps
    }

    /// Its pixels in `batch` images.
    pub(super) fn pixels(&self, batch: usize) -> usize {
        self.outputs.iter().fold(batch, |product, range| product * range.len())
    }

    /// Where some of its pixels lie, from number `first` on.
    pub(super) fn places(&self, problem: &ConvProblem, out: [usize; 3], first: usize, places: &mut [Place]) {
        let [z, y, x] = &self.outputs;
        let (mut at_x, rest) = (first % x.len() + x.start, first / x.len());
        let (mut at_y, rest) = (rest % y.len() + y.start, rest / y.len());
        let (mut at_z, mut image) = (rest % z.len() + z.start, rest / z.len());
        for place in places {
            let along = |axis: usize, output: usize| {
                // A region without taps reads nothing; the difference must merely not overflow.
                (output * problem.stride[axis] + self.first[axis] * problem.dilation[axis])
                    .saturating_sub(problem.pads_begin[axis])
            };
            let line = (image * problem.in_size[0] + along(0, at_z)) * problem.in_size[1] + along(1, at_y);
            *place = Place {
                input: line * problem.in_size[2] + along(2, at_x),
                output: ((image * out[0] + at_z) * out[1] + at_y) * out[2] + at_x,
            };
            at_x += 1;
            if at_x == x.end {
                (at_x, at_y) = (x.start, at_y + 1);
                if at_y == y.end {
                    (at_y, at_z) = (y.start, at_z + 1);
                    if at_z == z.end {
                        (at_z, image) = (z.start, image + 1);
                    }
                }
            }
        }
    }
}
