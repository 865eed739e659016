//! Convolution by single pixels: a matrix product with nothing to prepare.
//!
//! With a kernel of one, stride one and no padding the image is the left operand as it lies in memory. Most of
//! the arithmetic of ResNet-50 and nearly all of MobileNet's is this.

use super::dense::{self, DenseCall, Lowering};
use super::{ALL_ELEMENTS, ConvAlgorithm, ConvProblem, PreparedConv, Weights};
use crate::element::{Element, ElementType};
use crate::isa::Isa;
use crate::matmul::{PlainRows, scratch_len};
use crate::rates::Work;

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pointwise;

impl ConvAlgorithm for Pointwise {
    fn name(&self) -> &'static str {
        "pointwise"
    }

    fn elements(&self) -> &'static [ElementType] {
        ALL_ELEMENTS
    }

    fn accepts(&self, problem: &ConvProblem, _isa: Isa) -> Result<(), String> {
        problem.validate()?;
        if problem.kernel != [1; 3] || problem.stride != [1; 3] || problem.is_padded() {
            return Err("pointwise needs a kernel of 1, stride 1 and no padding".to_owned());
        }
        Ok(())
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        dense::product_work(problem, isa, threads).called(problem.groups, threads)
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

impl Lowering for Pointwise {
    fn piece_len(self, problem: &ConvProblem) -> usize {
        problem.group_in()
    }

    fn workspace_len<T: Element>(self, problem: &ConvProblem, threads: usize) -> usize {
        // The stride of the input is not known yet, so room is kept for copies of colliding rows.
        PlainRows::<T>::most_scratch(problem.in_rows(), problem.group_in(), threads)
    }

    fn lower<T: Element, O: Element>(self, mut call: DenseCall<'_, T, O>) {
        let scratch = std::mem::take(&mut call.workspace);
        let channels = call.problem.group_in();
        for group in 0..call.problem.groups {
            let rows = call.input.columns(group * channels, channels);
            let source = PlainRows::new(rows, call.problem.group_out());
            debug_assert!(scratch.len() >= scratch_len(&source, call.pool.threads()));
            // SAFETY: row `r` of a plain source is output row `r`; `workspace_len` covers its scratch.
            unsafe { call.multiply(group, &source, scratch) };
        }
    }
}
