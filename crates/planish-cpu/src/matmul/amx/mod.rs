//! Products on the tile unit (AMX, see [`crate::amx`]).
//!
//! A panel of words is what the unit wants as a right operand: a tile of 16 words by 16 columns is a piece of it, rows one
//! panel row apart. Two tiles of rows meet two tiles of columns at a time, so that each of the four that are loaded is
//! used twice; the other four hold the sums, which leave the unit once a tile and go through the epilogue of all products.
//!
//! The rows of a left tile must lie evenly spaced, and a table of addresses says where they really are. Where they are
//! evenly spaced (all pixels of a pointwise layer, neighbours along a line) they are read in place, else a block's rows
//! are copied once, for all panels. How the depth is cut depends on the shape alone, never on the addresses or the number
//! of rows, so that neither changes a bit of the result.
//!
//! Measured on one core of an Emerald Rapids (2.9 TFLOP/s of `bf16` where all lies in tiles): four loads and four products
//! take 24 ns with operands in the first-level cache, 30 in the second, 45 with a panel that is fetched from the last cache
//! for 128 rows, 100 for 32. A tile of fewer rows or words takes as long as a full one.

mod left;
mod panel;

pub(super) use left::{Left, block_rows};
pub(super) use panel::{Panel, Unfinished};

use crate::amx::TileProduct;
use crate::element::Factor;
use crate::isa::Isa;
use crate::simd::Simd;

/// The columns of a tile of sums; as many as a vector has lanes.
const LANES: usize = 16;

/// Whether there are kernels on the tile unit for these factors beside vectors of `S`. Callers ask in a constant of their
/// own, so that others are not compiled.
pub(super) const fn is_possible<S: Simd, T: Factor>() -> bool {
    matches!(S::ISA, Isa::Avx512) && T::TILES.is_some()
}

/// The instruction that multiplies these factors where `isa` has a tile unit, and it is there: what was packed for
/// [`Isa::Amx`] is multiplied in vectors elsewhere.
#[inline(always)]
pub(super) fn product<T: Factor>(isa: Isa) -> Option<TileProduct> {
    if isa == Isa::Amx && isa.is_available() { T::TILES } else { None }
}
