//! A single row of the left operand: matrix times vector.
//!
//! Every number of the weights is used once, so the time is that of reading them, from memory where a network is larger
//! than the caches. One stream of reads does not keep memory busy: at every page of 4 KiB it starts anew. So several
//! panels are read at once. Measured on weights of 900 KiB that no cache holds (Zen 4): 17.6 GB/s from one panel, 23.9
//! from two and 27.6 from four, where one thread reads 30 GB/s of consecutive memory.

use super::tile::{Scaling, Stage};
use crate::element::{Element, Factor};
use crate::epilogue::Destination;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp};

/// How many panels are read at once.
pub(super) const STREAMS: usize = 4;

/// The product of one row with [`STREAMS`] full panels.
struct RowOp<'a, T, O, const VECTORS: usize> {
    /// Its panel is the first of them.
    stage: &'a Stage<T>,
    /// Bias, scaling and destination have the columns of all of them.
    bias: *const f32,
    scaling: &'a Scaling,
    destination: &'a Destination<O>,
    /// Words from panel to panel.
    step: usize,
}

impl<T: Factor, O: Element, const VECTORS: usize> SimdOp for RowOp<'_, T, O, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Self { stage, bias, scaling, destination, step } = self;
        let width = VECTORS / STREAMS * S::LANES;
        // Vectors of columns follow each other: those of the first panel, those of the second.
        let place = |j: usize| j * S::LANES / width * step + j * S::LANES % width;
        let mut sums = [[s.zero(); VECTORS]];
        // SAFETY: the creator of the stage promises (see `compute`) that its addresses are valid for its extents.
        unsafe {
            if !bias.is_null() {
                for (j, sum) in sums[0].iter_mut().enumerate() {
                    *sum = s.load(bias.add(j * S::LANES));
                }
            }
            let mut panel = stage.panel;
            for tap in 0..stage.taps {
                let row = *stage.table.add(tap * stage.table_stride);
                for k in 0..stage.tap_len {
                    let left = T::splat_word(s, row.add(k * T::PER_WORD));
                    for (j, sum) in sums[0].iter_mut().enumerate() {
                        *sum = T::multiply_add(s, left, s.load(panel.add(place(j))), *sum);
                    }
                    panel = panel.add(width);
                }
            }
            scaling.apply::<T, S, 1, VECTORS>(s, destination.valid, &mut sums);
            destination.store(s, &sums);
        }
    }
}

/// Computes one row times [`STREAMS`] full panels, of which that of the stage is the first and each starts `step` words
/// behind the one before. The sums are those of [`tile::compute`](super::tile::compute), to the bit.
///
/// # Safety
/// As for [`tile::compute`](super::tile::compute), for all of these panels; bias, scaling and destination have
/// their columns.
#[inline(always)]
pub(super) unsafe fn compute<S: Simd, T: Factor, O: Element>(
    s: S,
    stage: &Stage<T>,
    bias: *const f32,
    scaling: &Scaling,
    destination: &Destination<O>,
    step: usize,
) {
    match S::ISA {
        Isa::Amx | Isa::Avx512 | Isa::Avx2 => {
            s.call(RowOp::<T, O, { 2 * STREAMS }> { stage, bias, scaling, destination, step })
        }
        Isa::Portable => s.call(RowOp::<T, O, STREAMS> { stage, bias, scaling, destination, step }),
    }
}
