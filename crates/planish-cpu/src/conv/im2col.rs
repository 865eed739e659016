//! Convolution by copying the patch of each output pixel into a row.
//!
//! The oldest lowering (Chellapilla, Puri and Simard, *High Performance Convolutional Neural Networks for
//! Document Processing*, 2006) accepts everything. The matrix of patches is never made whole: a block of rows
//! is copied to scratch memory of the second-level cache's size, multiplied with all panels, and overwritten by
//! the next.

use super::dense::{self, DenseCall, Lowering};
use super::geometry::{Axis, Pixel};
use super::{ALL_ELEMENTS, ConvAlgorithm, ConvProblem, PreparedConv, Weights};
use crate::element::{Element, ElementType, Factor};
use crate::isa::Isa;
use crate::matmul::{RowSource, RowTable, scratch_len};
use crate::rates::{Rate, Work};
use crate::view::Rows;

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Im2col;

impl ConvAlgorithm for Im2col {
    fn name(&self) -> &'static str {
        "im2col"
    }

    fn elements(&self) -> &'static [ElementType] {
        ALL_ELEMENTS
    }

    fn accepts(&self, problem: &ConvProblem, _isa: Isa) -> Result<(), String> {
        problem.validate()
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        let mut work = dense::product_work(problem, isa, threads);
        let runs = (problem.out_rows() * problem.taps() * problem.groups) as f64;
        let runs = if joins_taps(problem) { runs / problem.kernel[2] as f64 } else { runs };
        let bytes = problem.out_rows() * problem.taps() * problem.in_channels * problem.element.bytes();
        work += Work::of(&[(Rate::CopiedRun, runs), (Rate::CopiedByte, bytes as f64)]).shared(threads as f64);
        work.called(problem.groups, threads)
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

/// Whether the taps of a kernel row lie next to each other in memory, given a dense input.
fn joins_taps(problem: &ConvProblem) -> bool {
    problem.groups == 1 && problem.dilation[2] == 1
}

impl Lowering for Im2col {
    fn piece_len(self, problem: &ConvProblem) -> usize {
        problem.taps() * problem.group_in()
    }

    fn workspace_len<T: Element>(self, problem: &ConvProblem, threads: usize) -> usize {
        // Only the shape of the input matters here, so a view of nothing stands for it.
        let input = Rows::<T>::dense(&[], 0, problem.group_in());
        input.map_or(0, |input| scratch_len(&PatchRows::new(problem, input, T::default()), threads))
    }

    fn lower<T: Element, O: Element>(self, mut call: DenseCall<'_, T, O>) {
        let scratch = std::mem::take(&mut call.workspace);
        let channels = call.problem.group_in();
        for group in 0..call.problem.groups {
            let input = call.input.columns(group * channels, channels);
            let source = PatchRows::new(call.problem, input, call.weights.zero());
            // SAFETY: the source names output row `r` for row `r`; `workspace_len` covers its scratch.
            unsafe { call.multiply(group, &source, scratch) };
        }
    }
}

/// The patches of a group.
struct PatchRows<'a, T> {
    problem: &'a ConvProblem,
    out_size: [usize; 3],
    axes: [Axis; 3],
    input: Rows<'a, T>,
    /// Numbers in a patch.
    depth: usize,
    joins: bool,
    /// What padding is made of.
    zero: T,
}

impl<'a, T: Element> PatchRows<'a, T> {
    fn new(problem: &'a ConvProblem, input: Rows<'a, T>, zero: T) -> Self {
        Self {
            problem,
            out_size: problem.out_size().unwrap_or([1; 3]),
            axes: [0, 1, 2].map(|axis| Axis::of(problem, axis)),
            input,
            depth: problem.taps() * problem.group_in(),
            joins: joins_taps(problem) && input.is_dense(),
            zero,
        }
    }

    /// Copies the patch of a pixel.
    fn gather(&self, pixel: Pixel, patch: &mut [T]) {
        let [depth, height, width] = self.axes;
        let channels = self.input.channels();
        let mut lines = patch.chunks_exact_mut(width.kernel * channels);
        for kz in 0..depth.kernel {
            let z = depth.input(pixel.z, kz);
            for ky in 0..height.kernel {
                let Some(line) = lines.next() else { return };
                let Some((z, y)) = z.zip(height.input(pixel.y, ky)) else {
                    line.fill(self.zero);
                    continue;
                };
                let first = ((pixel.image * depth.size + z) * height.size + y) * width.size;
                let taps = width.valid_taps(pixel.x);
                line[..taps.start * channels].fill(self.zero);
                line[taps.end * channels..].fill(self.zero);
                if taps.is_empty() {
                    continue;
                }
                let x = pixel.x * width.stride + taps.start * width.dilation - width.pad;
                if self.joins {
                    let run = taps.len() * channels;
                    // SAFETY: the view is dense and the pixels `x .. x + taps.len()` of this line are inside
                    // it.
                    let source = unsafe {
                        std::slice::from_raw_parts(self.input.ptr().add((first + x) * channels), run)
                    };
                    line[taps.start * channels..][..run].copy_from_slice(source);
                } else {
                    for (i, slot) in line[taps.start * channels..taps.end * channels]
                        .chunks_exact_mut(channels)
                        .enumerate()
                    {
                        slot.copy_from_slice(self.input.row(first + x + i * width.dilation));
                    }
                }
            }
        }
    }
}

// SAFETY: every address is that of a whole patch in the scratch memory.
unsafe impl<T: Element> RowSource<T> for PatchRows<'_, T> {
    fn rows(&self) -> usize {
        self.problem.out_rows()
    }

    fn taps(&self) -> usize {
        1
    }

    fn tap_len(&self) -> usize {
        self.depth.next_multiple_of(T::Factor::PER_WORD)
    }

    fn scratch_per_row(&self) -> usize {
        // An odd number of cache lines, so that rows do not meet in the same set of the cache.
        let line = 16 * T::TYPE.per_word();
        (self.depth.div_ceil(line) | 1) * line
    }

    fn fill(&self, start: usize, table: &mut RowTable<'_, T>) {
        let step = self.scratch_per_row();
        let mut pixel = Pixel::of_row(start, self.out_size);
        for i in 0..table.count() {
            table.set_output(i, start + i);
            let patch = &mut table.scratch()[i * step..][..self.tap_len()];
            let (numbers, rest) = patch.split_at_mut(self.depth);
            self.gather(pixel, numbers);
            rest.fill(T::default());
            let address = patch.as_ptr();
            table.set(0, i, address);
            pixel.advance(self.out_size);
        }
    }
}
