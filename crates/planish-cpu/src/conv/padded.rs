//! Images with their padding around them, and patches as pieces of their lines.
//!
//! Where padding is part of the image, output pixels along a line see patches that lie evenly spaced, whatever tap of the
//! kernel one looks at: nothing depends on where the borders are. The copy costs one pass over the input.

use super::dense::DenseCall;
use super::geometry::Pixel;
use super::problem::ConvProblem;
use crate::element::{Element, Factor};
use crate::matmul::{RowSource, RowTable, as_elements};
use crate::view::RowsMut;

/// The size of the padded image.
fn padded_size(problem: &ConvProblem) -> [usize; 3] {
    [0, 1, 2].map(|axis| problem.in_size[axis] + problem.pads_begin[axis] + problem.pads_end[axis])
}

/// The lines of the padded images.
pub(super) fn padded_lines(problem: &ConvProblem) -> usize {
    let [depth, height, _] = padded_size(problem);
    problem.batch * depth * height
}

/// How the pieces of a line of the padded image lie.
#[derive(Clone, Copy)]
pub(super) struct Line {
    /// Elements of a line.
    pub len: usize,
    /// Elements from the piece of an output pixel to that of the next.
    step: usize,
    /// Elements of a piece.
    piece: usize,
    /// Pieces under a row of the kernel, and the elements from one to the next.
    along: (usize, usize),
    /// Elements at the end of a piece that count as zero, whatever they are.
    foreign: usize,
    /// Pieces overlap in the image itself where they are whole words. Otherwise each is copied by itself and filled up.
    apart: bool,
    /// Whether the input itself, be it padded or not, will not do.
    pub copied: bool,
}

impl Line {
    /// A piece is what a row of the kernel reads. It may be `open`, which is end in what follows it.
    pub(super) fn of_kernel_rows<T: Element>(problem: &ConvProblem, open: bool) -> Line {
        let (numbers, width) = (problem.kernel[2] * problem.in_channels, padded_size(problem)[2]);
        let piece = numbers.next_multiple_of(T::Factor::PER_WORD);
        let (copied, along) = (piece != numbers, (1, 0));
        if open || !copied {
            let channels = problem.in_channels;
            let step = problem.stride[2] * channels;
            let foreign = if T::INTEGER { 0 } else { piece - numbers };
            return Line { len: width * channels, step, piece, along, foreign, apart: false, copied };
        }
        let outputs = problem.out_size().map_or(0, |size| size[2]);
        Line { len: outputs * piece, step: piece, piece, along, foreign: 0, apart: true, copied }
    }

    /// A piece is so many channels of a pixel, whole words.
    pub(super) fn of_pixels(problem: &ConvProblem, channels: usize) -> Line {
        let all = problem.in_channels;
        Line {
            len: padded_size(problem)[2] * all,
            step: problem.stride[2] * all,
            piece: channels,
            along: (problem.kernel[2], problem.dilation[2] * all),
            foreign: 0,
            apart: false,
            copied: false,
        }
    }
}

/// The image that pieces lie in, padded in the workspace if it must be, and what is left of that.
pub(super) fn image<'a, T: Element, O: Element>(
    call: &mut DenseCall<'a, T, O>,
    line: Line,
) -> (*const T, &'a mut [f32]) {
    let workspace = std::mem::take(&mut call.workspace);
    let (image, rest) = workspace.split_at_mut(image_len::<T>(call.problem, line));
    if !call.problem.is_padded() && call.input.is_dense() && !line.copied {
        return (call.input.ptr(), rest);
    }
    let image = as_elements(image);
    pad(call, line, image);
    (image.as_ptr(), rest)
}

/// The words of the padded image, and one that the last open piece ends in.
pub(super) fn image_len<T: Element>(problem: &ConvProblem, line: Line) -> usize {
    (padded_lines(problem) * line.len).div_ceil(T::TYPE.per_word()) + 1
}

/// Copies the input into the middle of padding.
fn pad<T: Element, O: Element>(call: &DenseCall<'_, T, O>, line: Line, image: &mut [T]) {
    let problem = call.problem;
    let size = padded_size(problem);
    let (lines, width) = (padded_lines(problem), size[2] * problem.in_channels);
    let Ok(image) = RowsMut::dense(&mut image[..lines * line.len], lines, line.len) else { return };
    // Enough lines a task that starting it costs nothing beside.
    let step = (16 * 1024 / line.len.max(1)).max(1);
    call.pool.run(lines.div_ceil(step), &|task| {
        let mut whole = vec![T::default(); if line.apart { width } else { 0 }];
        for at in task * step..((task + 1) * step).min(lines) {
            // SAFETY: each line of the image is written by one task.
            let out = unsafe { std::slice::from_raw_parts_mut(image.ptr().add(at * line.len), line.len) };
            if !line.apart {
                pad_line(call, at, out);
                continue;
            }
            pad_line(call, at, &mut whole);
            let numbers = problem.kernel[2] * problem.in_channels;
            for (x, piece) in out.chunks_exact_mut(line.piece).enumerate() {
                let (piece, rest) = piece.split_at_mut(numbers);
                piece.copy_from_slice(&whole[x * problem.stride[2] * problem.in_channels..][..numbers]);
                rest.fill(T::default());
            }
        }
    });
}

/// Copies the pixels of line `line` of the padded images, or padding.
fn pad_line<T: Element, O: Element>(call: &DenseCall<'_, T, O>, line: usize, out: &mut [T]) {
    let (problem, input, zero) = (call.problem, call.input, call.weights.zero());
    let (size, first, channels) = (padded_size(problem), problem.pads_begin, problem.in_channels);
    let (z, y) = (line / size[1] % size[0], line % size[1]);
    let inside = |at: usize, axis: usize| (first[axis]..first[axis] + problem.in_size[axis]).contains(&at);
    if !inside(z, 0) || !inside(y, 1) {
        out.fill(zero);
        return;
    }
    let image = line / (size[0] * size[1]);
    let row = ((image * problem.in_size[0] + z - first[0]) * problem.in_size[1] + y - first[1])
        * problem.in_size[2];
    let (before, rest) = out.split_at_mut(first[2] * channels);
    let (middle, after) = rest.split_at_mut(problem.in_size[2] * channels);
    before.fill(zero);
    after.fill(zero);
    if input.is_dense() {
        // SAFETY: the pixels of a line follow each other without a gap, and all are inside the view.
        let line = unsafe { std::slice::from_raw_parts(input.ptr().add(row * channels), middle.len()) };
        middle.copy_from_slice(line);
    } else {
        for (x, pixel) in middle.chunks_exact_mut(channels).enumerate() {
            pixel.copy_from_slice(input.row(row + x));
        }
    }
}

/// The patches as pieces of a dense padded image.
pub(super) struct LineRows<'a, T> {
    problem: &'a ConvProblem,
    out_size: [usize; 3],
    padded: [usize; 3],
    line: Line,
    image: *const T,
}

impl<'a, T: Element> LineRows<'a, T> {
    /// The rows of a valid problem, given the padded image and its lines.
    pub(super) fn new(problem: &'a ConvProblem, line: Line, image: *const T) -> Self {
        // No rows are asked for where there is no output.
        let out_size = problem.out_size().unwrap_or([1; 3]);
        Self { problem, out_size, padded: padded_size(problem), line, image }
    }

    /// The same of channels further on.
    pub(super) fn beginning_at(&self, channel: usize) -> LineRows<'a, T> {
        Self { image: self.image.wrapping_add(channel), ..*self }
    }
}

// SAFETY: the image is only read, and outlives the source.
unsafe impl<T: Sync> Sync for LineRows<'_, T> {}

// SAFETY: in the padded image every piece of a patch of an output pixel is inside, by the definition of the
// output size, and behind the copy of an image is a word that a piece may end in; or there is a copy of it for every
// output pixel of a line.
unsafe impl<T: Element> RowSource<T> for LineRows<'_, T> {
    fn rows(&self) -> usize {
        self.problem.out_rows()
    }

    fn taps(&self) -> usize {
        self.problem.kernel[0] * self.problem.kernel[1] * self.line.along.0
    }

    fn tap_len(&self) -> usize {
        self.line.piece
    }

    fn line(&self) -> usize {
        self.out_size[2]
    }

    fn foreign(&self) -> usize {
        self.line.foreign
    }

    // Inside what calls it, so that vectors of its instruction set fill the table.
    #[inline(always)]
    fn fill(&self, start: usize, table: &mut RowTable<'_, T>) {
        let ConvProblem { kernel, stride, dilation, .. } = *self.problem;
        let [depth, height, _] = self.padded;
        let mut row = 0;
        let (along, tap_step) = self.line.along;
        // The pixels of a line are a piece's step apart, under every row of the kernel.
        while row < table.count() {
            let pixel = Pixel::of_row(start + row, self.out_size);
            let pixels = (self.out_size[2] - pixel.x).min(table.count() - row);
            for kz in 0..kernel[0] {
                let z = pixel.image * depth + pixel.z * stride[0] + kz * dilation[0];
                for ky in 0..kernel[1] {
                    let y = z * height + pixel.y * stride[1] + ky * dilation[1];
                    let first = self.image.wrapping_add(y * self.line.len + pixel.x * self.line.step);
                    for kx in 0..along {
                        let first = first.wrapping_add(kx * tap_step);
                        for x in 0..pixels {
                            let address = first.wrapping_add(x * self.line.step);
                            table.set((kz * kernel[1] + ky) * along + kx, row + x, address);
                        }
                    }
                }
            }
            for x in 0..pixels {
                table.set_output(row + x, start + row + x);
            }
            row += pixels;
        }
    }
}
