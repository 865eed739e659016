//! Convolution straight from a padded image.
//!
//! In a padded channels-last image a row of the kernel reads `kw · C` contiguous numbers, whatever the padding.
//! So a patch is `kd · kh` pieces, and the matrix product walks them in place. The copy into a padded image
//! costs one pass over the input, which is nothing for the three channels of a first layer, where other ways to
//! find the patches cost as much as the arithmetic.

use super::dense::{self, DenseCall, DenseWeights, Lowering};
use super::geometry::Pixel;
use super::{ConvAlgorithm, ConvProblem, PreparedConv};
use crate::isa::Isa;
use crate::matmul::{MAX_TAPS, RowSource, RowTable, panel_width};
use crate::rates::{Rate, Work};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct;

impl ConvAlgorithm for Direct {
    fn name(&self) -> &'static str {
        "direct"
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
        let copied = if problem.is_padded() { padded_len(problem) * size_of::<f32>() } else { 0 };
        work += Work::of(&[
            (Rate::Address, addresses),
            (Rate::AddressLoad, addresses * panels),
            (Rate::PaddedByte, copied as f64),
        ])
        .shared(threads as f64);
        work.called(if copied > 0 { 2 } else { 1 }, threads)
    }

    fn prepare(
        &self,
        problem: &ConvProblem,
        isa: Isa,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Box<dyn PreparedConv>, String> {
        dense::prepare(*self, problem, isa, weights, bias)
    }
}

/// The size of the padded image.
fn padded_size(problem: &ConvProblem) -> [usize; 3] {
    [0, 1, 2].map(|axis| problem.in_size[axis] + problem.pads_begin[axis] + problem.pads_end[axis])
}

/// The numbers of the padded images.
fn padded_len(problem: &ConvProblem) -> usize {
    problem.batch * padded_size(problem).iter().product::<usize>() * problem.in_channels
}

impl Lowering for Direct {
    fn workspace_len(self, problem: &ConvProblem, _threads: usize, _weights: &DenseWeights) -> usize {
        padded_len(problem)
    }

    fn lower(self, mut call: DenseCall<'_>) {
        let Ok(out_size) = call.problem.out_size() else { return };
        let workspace = std::mem::take(&mut call.workspace);
        let image = if call.problem.is_padded() || !call.input.is_dense() {
            pad(call.problem, call.pool, call.input, workspace);
            workspace.as_ptr()
        } else {
            call.input.ptr()
        };
        let source = LineRows { problem: call.problem, out_size, padded: padded_size(call.problem), image };
        // SAFETY: the source names output row `r` for row `r`, and needs no scratch.
        unsafe { call.multiply(0, &source, &mut []) };
    }
}

/// Copies the input into the middle of zeros.
fn pad(problem: &ConvProblem, pool: &ThreadPool, input: Rows<'_>, image: &mut [f32]) {
    let size = padded_size(problem);
    let channels = problem.in_channels;
    let lines = problem.batch * size[0] * size[1];
    let width = size[2] * channels;
    let Ok(image) = RowsMut::dense(image, lines, width) else { return };
    let first = problem.pads_begin;
    // Enough lines a task that starting it costs nothing beside.
    let step = (16 * 1024 / width.max(1)).max(1);
    pool.run(lines.div_ceil(step), &|task| {
        for line in task * step..((task + 1) * step).min(lines) {
            let (z, y) = (line / size[1] % size[0], line % size[1]);
            // SAFETY: each line of the image is written by one task.
            let out = unsafe { std::slice::from_raw_parts_mut(image.ptr().add(line * width), width) };
            let inside =
                |at: usize, axis: usize| (first[axis]..first[axis] + problem.in_size[axis]).contains(&at);
            if !inside(z, 0) || !inside(y, 1) {
                out.fill(0.0);
                continue;
            }
            let image = line / (size[0] * size[1]);
            let row = ((image * problem.in_size[0] + z - first[0]) * problem.in_size[1] + y - first[1])
                * problem.in_size[2];
            let (before, rest) = out.split_at_mut(first[2] * channels);
            let (middle, after) = rest.split_at_mut(problem.in_size[2] * channels);
            before.fill(0.0);
            after.fill(0.0);
            if input.is_dense() {
                // SAFETY: the pixels of a line follow each other without a gap, and all are inside the view.
                let line =
                    unsafe { std::slice::from_raw_parts(input.ptr().add(row * channels), middle.len()) };
                middle.copy_from_slice(line);
            } else {
                for (x, pixel) in middle.chunks_exact_mut(channels).enumerate() {
                    pixel.copy_from_slice(input.row(row + x));
                }
            }
        }
    });
}

/// The patches as pieces of a dense padded image.
struct LineRows<'a> {
    problem: &'a ConvProblem,
    out_size: [usize; 3],
    padded: [usize; 3],
    image: *const f32,
}

// SAFETY: the image is only read, and outlives the source.
unsafe impl Sync for LineRows<'_> {}

// SAFETY: in the padded image every piece of a patch of an output pixel is inside, by the definition of the
// output size.
unsafe impl RowSource for LineRows<'_> {
    fn rows(&self) -> usize {
        self.problem.out_rows()
    }

    fn taps(&self) -> usize {
        self.problem.kernel[0] * self.problem.kernel[1]
    }

    fn tap_len(&self) -> usize {
        self.problem.kernel[2] * self.problem.in_channels
    }

    fn fill(&self, start: usize, table: &mut RowTable<'_>) {
        let ConvProblem { kernel, stride, dilation, in_channels, .. } = *self.problem;
        let [depth, height, width] = self.padded;
        let mut pixel = Pixel::of_row(start, self.out_size);
        for i in 0..table.count() {
            table.set_output(i, start + i);
            for kz in 0..kernel[0] {
                let z = pixel.image * depth + pixel.z * stride[0] + kz * dilation[0];
                for ky in 0..kernel[1] {
                    let y = z * height + pixel.y * stride[1] + ky * dilation[1];
                    let x = y * width + pixel.x * stride[2];
                    table.set(kz * kernel[1] + ky, i, self.image.wrapping_add(x * in_channels));
                }
            }
            pixel.advance(self.out_size);
        }
    }
}
