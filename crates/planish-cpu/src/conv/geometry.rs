//! Which input pixels an output pixel sees.

use super::ConvProblem;

/// The coordinates of an output pixel, advanced in row order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pixel {
    pub image: usize,
    pub z: usize,
    pub y: usize,
    pub x: usize,
}

impl Pixel {
    /// The pixel of an output row.
    pub(super) fn of_row(row: usize, size: [usize; 3]) -> Self {
        let (x, rest) = (row % size[2], row / size[2]);
        let (y, rest) = (rest % size[1], rest / size[1]);
        Self { image: rest / size[0], z: rest % size[0], y, x }
    }

    /// The next pixel.
    #[inline(always)]
    pub(super) fn advance(&mut self, size: [usize; 3]) {
        self.x += 1;
        if self.x == size[2] {
            self.x = 0;
            self.y += 1;
            if self.y == size[1] {
                self.y = 0;
                self.z += 1;
                if self.z == size[0] {
                    self.z = 0;
                    self.image += 1;
                }
            }
        }
    }
}

/// How an axis of the input is reached from the output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub size: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub pad: usize,
}

impl Axis {
    /// Depth, height or width of a problem.
    pub(super) fn of(problem: &ConvProblem, axis: usize) -> Self {
        Self {
            size: problem.in_size[axis],
            kernel: problem.kernel[axis],
            stride: problem.stride[axis],
            dilation: problem.dilation[axis],
            pad: problem.pads_begin[axis],
        }
    }

    /// The input coordinate that a tap of the kernel reads for an output coordinate; none in the padding.
    #[inline(always)]
    pub(super) fn input(&self, output: usize, tap: usize) -> Option<usize> {
        let padded = output * self.stride + tap * self.dilation;
        // Below the padding the difference wraps around to a number no axis is as long as.
        let input = padded.wrapping_sub(self.pad);
        (input < self.size).then_some(input)
    }

    /// The taps that read inside the input for an output coordinate.
    pub(super) fn valid_taps(&self, output: usize) -> std::ops::Range<usize> {
        let position = output * self.stride;
        let first = self.pad.saturating_sub(position).div_ceil(self.dilation).min(self.kernel);
        let room = (self.size + self.pad).saturating_sub(position);
        let end = room.div_ceil(self.dilation).min(self.kernel);
        first..end.max(first)
    }

    /// How many taps of all output coordinates below `outputs` read inside the input.
    fn all_valid_taps(&self, outputs: usize) -> f64 {
        let reads = |tap: usize| {
            let first = self.pad.saturating_sub(tap * self.dilation).div_ceil(self.stride);
            let end = (self.size + self.pad).saturating_sub(tap * self.dilation).div_ceil(self.stride);
            end.min(outputs).saturating_sub(first) as f64
        };
        (0..self.kernel).map(reads).sum()
    }

    /// The output coordinates below `outputs` all of whose taps read inside the input.
    pub(super) fn interior(&self, outputs: usize) -> std::ops::Range<usize> {
        let first = self.pad.div_ceil(self.stride).min(outputs);
        let span = (self.kernel - 1) * self.dilation + 1;
        let end = match (self.size + self.pad).checked_sub(span) {
            Some(last) => (last / self.stride + 1).min(outputs),
            None => 0,
        };
        first..end.max(first)
    }
}

/// The taps of all output pixels that read inside the input, which in small images are much fewer than all taps.
pub(super) fn valid_taps(problem: &ConvProblem) -> f64 {
    let out = problem.out_size().unwrap_or([0; 3]);
    let along = |axis: usize| Axis::of(problem, axis).all_valid_taps(out[axis]);
    problem.batch as f64 * along(0) * along(1) * along(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_agree_with_the_plain_question() {
        for size in 1..8 {
            for kernel in 1..5 {
                for stride in 1..4 {
                    for dilation in 1..4 {
                        for pad in 0..5 {
                            let axis = Axis { size, kernel, stride, dilation, pad };
                            let inside = |o: usize, t: usize| axis.input(o, t).is_some();
                            let interior = axis.interior(9);
                            let all: usize = (0..9).map(|o| axis.valid_taps(o).len()).sum();
                            assert_eq!(axis.all_valid_taps(9), all as f64, "{axis:?}");
                            for output in 0..9 {
                                let taps = axis.valid_taps(output);
                                for tap in 0..kernel {
                                    assert_eq!(
                                        taps.contains(&tap),
                                        inside(output, tap),
                                        "{axis:?} {output} {tap}"
                                    );
                                }
                                let all = (0..kernel).all(|tap| inside(output, tap));
                                assert_eq!(interior.contains(&output), all, "{axis:?} {output}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn pixels_advance_in_row_order() {
        let size = [2, 3, 4];
        let mut pixel = Pixel::of_row(5, size);
        for row in 5..60 {
            let want = Pixel::of_row(row, size);
            assert_eq!((pixel.image, pixel.z, pixel.y, pixel.x), (want.image, want.z, want.y, want.x));
            pixel.advance(size);
        }
    }
}
