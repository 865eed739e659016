//! Convolution as a matrix product over a table of addresses.
//!
//! For each tap of the kernel the table says where the channels of the input pixel lie; padding points at
//! zeros. Nothing is copied, whatever the stride, the dilation or the padding (Dukhan, *The Indirect
//! Convolution Algorithm*, arXiv 1907.02129). The table is made for a block of output pixels at a time and used
//! for all panels of the weights. With few channels the inner loop is too short to pay for changing addresses;
//! see `direct` and `im2col` for those.

use super::dense::{self, DenseCall, Lowering};
use super::geometry::{Axis, Pixel};
use super::{ALL_ELEMENTS, ConvAlgorithm, ConvProblem, PreparedConv, Weights};
use crate::element::{Element, ElementType};
use crate::isa::Isa;
use crate::matmul::{MAX_TAPS, RowSource, RowTable, panel_width, scratch_len};
use crate::rates::{Rate, Work};
use crate::view::Rows;

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Indirect;

impl ConvAlgorithm for Indirect {
    fn name(&self) -> &'static str {
        "indirect"
    }

    fn elements(&self) -> &'static [ElementType] {
        ALL_ELEMENTS
    }

    fn accepts(&self, problem: &ConvProblem, _isa: Isa) -> Result<(), String> {
        problem.validate()?;
        if problem.taps() > MAX_TAPS {
            return Err(format!("{} taps are more than the table holds ({MAX_TAPS})", problem.taps()));
        }
        if !problem.group_in().is_multiple_of(problem.element.factor().per_word()) {
            return Err(format!(
                "indirect needs whole words of 32 bits of channels, not {} of {}",
                problem.group_in(),
                problem.element
            ));
        }
        Ok(())
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        let mut work = dense::product_work(problem, isa, threads);
        work += dense::collisions(problem, &work, isa);
        let addresses = (problem.out_rows() * problem.taps() * problem.groups) as f64;
        let panels = problem.group_out().div_ceil(panel_width(isa)) as f64;
        work += Work::of(&[(Rate::Address, addresses), (Rate::AddressLoad, addresses * panels)])
            .shared(threads as f64);
        if dense::on_tiles(problem.element, isa) && problem.taps() > 1 {
            // Most tiles of pixels are not evenly spaced: their lines end, or a tap meets the padding.
            let bytes = problem.out_rows() * problem.taps() * problem.in_channels * problem.element.bytes();
            work += Work::of(&[(Rate::CopiedByte, bytes as f64)]).shared(threads as f64);
        }
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

impl Lowering for Indirect {
    fn piece_len(self, problem: &ConvProblem) -> usize {
        problem.group_in()
    }

    fn workspace_len<T: Element>(self, problem: &ConvProblem, threads: usize) -> usize {
        scratch_len(&IndirectRows::<T>::of_nothing(problem), threads)
    }

    fn lower<T: Element, O: Element>(self, mut call: DenseCall<'_, T, O>) {
        let scratch = std::mem::take(&mut call.workspace);
        let channels = call.problem.group_in();
        for group in 0..call.problem.groups {
            let input = call.input.columns(group * channels, channels);
            let source = IndirectRows::new(call.problem, input, &call.weights.zeros);
            // SAFETY: the source names output row `r` for row `r`; `workspace_len` covers its scratch.
            unsafe { call.multiply(group, &source, scratch) };
        }
    }
}

/// The rows of a group: for each tap the address of a pixel's channels, or of zeros.
pub(super) struct IndirectRows<'a, T> {
    problem: &'a ConvProblem,
    out_size: [usize; 3],
    axes: [Axis; 3],
    input: *const T,
    row_stride: usize,
    zeros: *const T,
}

impl<'a, T> IndirectRows<'a, T> {
    /// The rows of a group of a valid problem, given its channels of the input and as many zeros.
    pub(super) fn new(problem: &'a ConvProblem, input: Rows<'a, T>, zeros: &'a [T]) -> Self {
        debug_assert!(input.channels() == problem.group_in() && zeros.len() >= input.channels());
        let (row_stride, nothing) = (input.row_stride(), Self::of_nothing(problem));
        Self { input: input.ptr(), row_stride, zeros: zeros.as_ptr(), ..nothing }
    }

    /// Rows of which only the shape may be asked.
    fn of_nothing(problem: &'a ConvProblem) -> Self {
        Self {
            problem,
            // No rows are asked for where there is no output.
            out_size: problem.out_size().unwrap_or([1; 3]),
            axes: [0, 1, 2].map(|axis| Axis::of(problem, axis)),
            input: std::ptr::null(),
            row_stride: 0,
            zeros: std::ptr::null(),
        }
    }
}

// SAFETY: the input is only read, and outlives the source.
unsafe impl<T: Sync> Sync for IndirectRows<'_, T> {}

// SAFETY: an address is that of a pixel inside the input view, whose channels of the group are readable, or of
// as many zeros.
unsafe impl<T: Element> RowSource<T> for IndirectRows<'_, T> {
    fn rows(&self) -> usize {
        self.problem.out_rows()
    }

    fn taps(&self) -> usize {
        self.problem.taps()
    }

    fn tap_len(&self) -> usize {
        self.problem.group_in()
    }

    fn fill(&self, start: usize, table: &mut RowTable<'_, T>) {
        let [depth, height, width] = self.axes;
        let mut pixel = Pixel::of_row(start, self.out_size);
        for i in 0..table.count() {
            table.set_output(i, start + i);
            let mut tap = 0;
            for kz in 0..depth.kernel {
                let z = depth.input(pixel.z, kz);
                for ky in 0..height.kernel {
                    let y = height.input(pixel.y, ky);
                    let line = z
                        .zip(y)
                        .map(|(z, y)| ((pixel.image * depth.size + z) * height.size + y) * width.size);
                    for kx in 0..width.kernel {
                        let address = match (line, width.input(pixel.x, kx)) {
                            (Some(line), Some(x)) => self.input.wrapping_add((line + x) * self.row_stride),
                            _ => self.zeros,
                        };
                        table.set(tap, i, address);
                        tap += 1;
                    }
                }
            }
            pixel.advance(self.out_size);
        }
    }
}
