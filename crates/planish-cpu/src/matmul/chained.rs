//! A tile whose sum is built up of several products and of sums that other tiles left behind.
//!
//! Strassen's product needs it: most of its seven products go into more than one quarter of the result. What a quarter
//! shares with the next is stored on the way, so that every product is computed once and every other addition happens
//! in registers. Kept apart from [`tile`](super::tile), because sums that may be stored midway are kept in memory by the
//! compiler, which costs a plain product of few channels a tenth of its time.

use super::tile::{Stage, accumulate, for_tile_size, load_bias};
use crate::epilogue::Destination;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp};

/// A product on the way to a sum.
#[derive(Clone, Copy)]
pub(super) struct Link {
    /// Sums that are added first, `[rows][width]`; null where there are none.
    pub initial: *const f32,
    /// What is added then.
    pub stage: Stage,
    /// Where the sums are kept for other tiles once this is added, `[rows][width]`; null where nobody wants them.
    pub kept: *mut f32,
}

impl Link {
    /// This product and nothing else.
    pub(super) fn of(stage: Stage) -> Link {
        Link { initial: std::ptr::null(), stage, kept: std::ptr::null_mut() }
    }
}

/// Everything about such a tile but its height and width.
#[derive(Clone, Copy)]
pub(super) struct Chain<'a> {
    /// What is added up, one after the other.
    pub links: &'a [Link],
    /// One number for each column that exists, null where there is none; added before the last link, which nobody
    /// else takes from.
    pub bias: *const f32,
    /// Where the result goes, and the columns of the panel that exist.
    pub destination: Destination<f32>,
}

/// Computes `ROWS` rows and `VECTORS` vectors of columns.
struct ChainOp<'a, const ROWS: usize, const VECTORS: usize>(&'a Chain<'a>);

impl<const ROWS: usize, const VECTORS: usize> SimdOp for ChainOp<'_, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Chain { links, bias, destination } = self.0;
        let mut sums = [[s.zero(); VECTORS]; ROWS];
        // SAFETY: the creator of the chain promises (see `compute`) that its addresses are valid for its extents.
        unsafe {
            for (index, link) in links.iter().enumerate() {
                if index + 1 == links.len() {
                    let bias = load_bias::<S, VECTORS>(s, *bias, destination.valid);
                    for row in &mut sums {
                        for (sum, &bias) in row.iter_mut().zip(&bias) {
                            *sum = s.add(*sum, bias);
                        }
                    }
                }
                if !link.initial.is_null() {
                    for (i, row) in sums.iter_mut().enumerate() {
                        for (j, sum) in row.iter_mut().enumerate() {
                            *sum = s.add(*sum, s.load(link.initial.add((i * VECTORS + j) * S::LANES)));
                        }
                    }
                }
                accumulate::<S, f32, ROWS, VECTORS>(s, &link.stage, &mut sums);
                if !link.kept.is_null() {
                    for (i, row) in sums.iter().enumerate() {
                        for (j, &sum) in row.iter().enumerate() {
                            s.store(link.kept.add((i * VECTORS + j) * S::LANES), sum);
                        }
                    }
                }
            }
            destination.store(s, &sums);
        }
    }
}

/// Computes a tile of `rows` rows (1 to [`max_rows`](super::tile::max_rows)) and `width` columns (a panel's padded
/// width).
///
/// # Safety
/// The addresses of the chain are valid for the extents its fields state, for `rows` rows; the elements it writes are
/// nobody else's.
#[inline(always)]
pub(super) unsafe fn compute<S: Simd>(s: S, chain: &Chain<'_>, rows: usize, width: usize) {
    for_tile_size!(S, rows, width, ROWS, VECTORS => s.call(ChainOp::<ROWS, VECTORS>(chain)));
}
