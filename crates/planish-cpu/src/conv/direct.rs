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
use super::padded::{self, Line, LineRows, image_len, padded_lines};
use super::{ALL_ELEMENTS, ConvAlgorithm, ConvProblem, PreparedConv, Weights};
use crate::element::{Element, ElementType};
use crate::for_element;
use crate::isa::Isa;
use crate::matmul::{MAX_TAPS, PackedMatrix, ends_pieces, panel_width, scratch_len};
use crate::rates::{Rate, Work};

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
        let line = for_element!(problem.element, T => Line::of_kernel_rows::<T>(problem, is_open::<T>(problem, isa)));
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

/// Whether pieces may end in what follows them: where that meets weights of zero and is no number, or is not read.
fn is_open<T: Element>(problem: &ConvProblem, isa: Isa) -> bool {
    T::INTEGER || ends_pieces::<T::Factor>(isa, problem.out_rows())
}

impl Lowering for Direct {
    fn piece_len(self, problem: &ConvProblem) -> usize {
        problem.kernel[2] * problem.in_channels
    }

    fn workspace_len<T: Element>(self, problem: &ConvProblem, threads: usize) -> usize {
        let of = |open: bool| {
            let line = Line::of_kernel_rows::<T>(problem, open);
            let source = LineRows::<T>::new(problem, line, std::ptr::null());
            image_len::<T>(problem, line) + scratch_len(&source, threads)
        };
        of(false).max(of(true))
    }

    fn lower<T: Element, O: Element>(self, mut call: DenseCall<'_, T, O>) {
        // The sums of rows, which offsets of weights are multiplied with, would see what lies behind a piece.
        let offsets = call.weights.scales.as_ref().is_some_and(|scales| scales.offsets.is_some());
        let isa = call.weights.groups.first().map_or(Isa::Portable, PackedMatrix::isa);
        let line = Line::of_kernel_rows::<T>(call.problem, is_open::<T>(call.problem, isa) && !offsets);
        let (image, scratch) = padded::image(&mut call, line);
        let source = LineRows::new(call.problem, line, image);
        // SAFETY: the source names output row `r` for row `r`; `workspace_len` covers its scratch.
        unsafe { call.multiply(0, &source, scratch) };
    }
}
