//! Convolution straight from a padded image.
//!
//! In a padded channels-last image a row of the kernel reads `kw · C` contiguous numbers, whatever the padding.
//! So a patch is `kd · kh` pieces, and the matrix product walks them in place. The copy into a padded image
//! costs one pass over the input, which is nothing for the three channels of a first layer, where other ways to
//! find the patches cost as much as the arithmetic. Where a row of the kernel is no whole number of words (three `bf16`
//! times an odd width), each is copied by itself once a line, and shared by the `kh` output lines that see it. Levels
//! need no such copies: a piece just ends in what follows it, which weights of zero meet. (Numbers there might be
//! infinite.) Nor does the tile unit, whose product copies such pieces anyway and leaves out what is not theirs.

use super::dense::{self, DenseCall, Lowering};
use super::geometry::Pixel;
use super::{ALL_ELEMENTS, ConvAlgorithm, ConvProblem, PreparedConv, Weights};
use crate::element::{Element, ElementType, Factor};
use crate::for_element;
use crate::isa::Isa;
use crate::matmul::{
    MAX_TAPS, PackedMatrix, RowSource, RowTable, as_elements, ends_pieces, panel_width, scratch_len,
};
use crate::rates::{Rate, Work};
use crate::view::RowsMut;

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct;

impl ConvAlgorithm for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn elements(&self) -> &'static [ElementType] {
        ALL_ELEMENTS
    }

    fn accepts(&self, problem: &ConvProblem, _isa: Isa) -> Result<(), String> {
        problem.validate()?;
        if problem.groups != 1 || problem.dilation[2] != 1 {
            return Err("direct needs one group and no dilation along the width".to_owned());
        }
        let pieces = problem.kernel[0] * problem.kernel[1];
        if pieces > MAX_TAPS {
            return Err(format!("{pieces} rows of the kernel are more than the table holds ({MAX_TAPS})"));
        }
        Ok(())
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        let mut work = dense::product_work(problem, isa, threads);
        work += dense::collisions(problem, &work, isa);
        let addresses = (problem.out_rows() * problem.kernel[0] * problem.kernel[1]) as f64;
        let panels = problem.out_channels.div_ceil(panel_width(isa)) as f64;
        let line = for_element!(problem.element, T => Line::of::<T>(problem, is_open::<T>(problem, isa)));
        let copies = problem.is_padded() || line.copied;
        let copied = if copies { padded_lines(problem) * line.len * problem.element.bytes() } else { 0 };
        work += Work::of(&[
            (Rate::Address, addresses),
            (Rate::AddressLoad, addresses * panels),
            (Rate::PaddedByte, copied as f64),
        ])
        .shared(threads as f64);
        work.called(if copies { 2 } else { 1 }, threads)
    }

    fn prepare(
        &self,
        problem: &ConvProblem,
        isa: Isa,
        weights: Weights<'_>,
    ) -> Result<Box<dyn PreparedConv>, String> {
        dense::prepare(*self, problem, isa, weights)
    }
}

/// The size of the padded image.
fn padded_size(problem: &ConvProblem) -> [usize; 3] {
    [0, 1, 2].map(|axis| problem.in_size[axis] + problem.pads_begin[axis] + problem.pads_end[axis])
}

/// The lines of the padded images.
fn padded_lines(problem: &ConvProblem) -> usize {
    let [depth, height, _] = padded_size(problem);
    problem.batch * depth * height
}

/// Whether pieces may end in what follows them: where that meets weights of zero and is no number, or is not read.
fn is_open<T: Element>(problem: &ConvProblem, isa: Isa) -> bool {
    T::INTEGER || ends_pieces::<T::Factor>(isa, problem.out_rows())
}

/// How the pieces of a line of the padded image lie.
#[derive(Clone, Copy)]
struct Line {
    /// Elements of a line.
    len: usize,
    /// Elements from the piece of an output pixel to that of the next.
    step: usize,
    /// Elements of a piece.
    piece: usize,
    /// Elements at the end of a piece that count as zero, whatever they are.
    foreign: usize,
    /// Pieces overlap in the image itself where they are whole words. Otherwise each is copied by itself and filled up.
    apart: bool,
    /// Whether the input itself, be it padded or not, will not do.
    copied: bool,
}

impl Line {
    /// Pieces may be `open`, which is end in what follows them.
    fn of<T: Element>(problem: &ConvProblem, open: bool) -> Line {
        let (numbers, width) = (Direct.piece_len(problem), padded_size(problem)[2]);
        let piece = numbers.next_multiple_of(T::Factor::PER_WORD);
        let copied = piece != numbers;
        if open || !copied {
            let channels = problem.in_channels;
            let step = problem.stride[2] * channels;
            let foreign = if T::INTEGER { 0 } else { piece - numbers };
            return Line { len: width * channels, step, piece, foreign, apart: false, copied };
        }
        let outputs = problem.out_size().map_or(0, |size| size[2]);
        Line { len: outputs * piece, step: piece, piece, foreign: 0, apart: true, copied }
    }
}

impl Lowering for Direct {
    fn piece_len(self, problem: &ConvProblem) -> usize {
        problem.kernel[2] * problem.in_channels
    }

    fn workspace_len<T: Element>(self, problem: &ConvProblem, threads: usize) -> usize {
        let of = |open: bool| {
            let source = LineRows::<T>::new(problem, Line::of::<T>(problem, open), std::ptr::null());
            image_len::<T>(problem, source.line) + scratch_len(&source, threads)
        };
        of(false).max(of(true))
    }

    fn lower<T: Element, O: Element>(self, mut call: DenseCall<'_, T, O>) {
        // The sums of rows, which offsets of weights are multiplied with, would see what lies behind a piece.
        let offsets = call.weights.scales.as_ref().is_some_and(|scales| scales.offsets.is_some());
        let isa = call.weights.groups.first().map_or(Isa::Portable, PackedMatrix::isa);
        let line = Line::of::<T>(call.problem, is_open::<T>(call.problem, isa) && !offsets);
        let workspace = std::mem::take(&mut call.workspace);
        let (image, scratch) = workspace.split_at_mut(image_len::<T>(call.problem, line));
        let image = as_elements(image);
        let image = if call.problem.is_padded() || !call.input.is_dense() || line.copied {
            pad(&call, line, image);
            image.as_ptr()
        } else {
            call.input.ptr()
        };
        let source = LineRows::new(call.problem, line, image);
        // SAFETY: the source names output row `r` for row `r`; `workspace_len` covers its scratch.
        unsafe { call.multiply(0, &source, scratch) };
    }
}

/// The words of the padded image, and one that the last open piece ends in.
fn image_len<T: Element>(problem: &ConvProblem, line: Line) -> usize {
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
            let numbers = Direct.piece_len(problem);
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
struct LineRows<'a, T> {
    problem: &'a ConvProblem,
    out_size: [usize; 3],
    padded: [usize; 3],
    line: Line,
    image: *const T,
}

impl<'a, T: Element> LineRows<'a, T> {
    /// The rows of a valid problem, given the padded image and its lines.
    fn new(problem: &'a ConvProblem, line: Line, image: *const T) -> Self {
        // No rows are asked for where there is no output.
        let out_size = problem.out_size().unwrap_or([1; 3]);
        Self { problem, out_size, padded: padded_size(problem), line, image }
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
        self.problem.kernel[0] * self.problem.kernel[1]
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
        // The pixels of a line are a piece's step apart, under every row of the kernel.
        while row < table.count() {
            let pixel = Pixel::of_row(start + row, self.out_size);
            let pixels = (self.out_size[2] - pixel.x).min(table.count() - row);
            for kz in 0..kernel[0] {
                let z = pixel.image * depth + pixel.z * stride[0] + kz * dilation[0];
                for ky in 0..kernel[1] {
                    let y = z * height + pixel.y * stride[1] + ky * dilation[1];
                    let first = self.image.wrapping_add(y * self.line.len + pixel.x * self.line.step);
                    for x in 0..pixels {
                        let address = first.wrapping_add(x * self.line.step);
                        table.set(kz * kernel[1] + ky, row + x, address);
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
