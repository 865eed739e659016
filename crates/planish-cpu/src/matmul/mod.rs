//! Matrix products, and the part of every dense convolution that is one.
//!
//! The blocking is Goto's (Goto and van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, ACM TOMS
//! 2008) with two changes for inference. The right operand is a layer's weights: it is packed once into panels
//! ([`PackedMatrix`]) and stays so. The left operand is never packed: its rows are long and contiguous in
//! channels-last order, and a tile reads them through a table of row addresses, a table per tap of the kernel,
//! which turns the same loop into a convolution without im2col (Dukhan, *The Indirect Convolution Algorithm*,
//! arXiv 1907.02129).

#[cfg(target_arch = "x86_64")]
mod amx;
mod blocks;
mod chained;
mod driver;
mod half;
mod pack;
mod piece;
mod plain;
mod row;
mod strassen;
mod tile;

#[cfg(test)]
mod tests;

pub use blocks::{BlockMatrix, BlockScale};
pub(crate) use driver::{
    MAX_TAPS, Product, RowSource, RowTable, SharedScratch, SumScales, as_elements, ends_pieces,
    most_block_rows, scratch_len,
};
pub use half::HalfMatrix;
pub use pack::PackedMatrix;
pub(crate) use pack::{AlignedNumbers, panel_width};
pub(crate) use piece::{PIECE_ROWS, Piece};
pub(crate) use plain::PlainRows;
pub(crate) use strassen::{
    MAX_TAPS as STRASSEN_TAPS, StrassenMatrix, StrassenProduct, strassen_passes, strassen_scratch_len,
};
pub(crate) use tile::max_rows as tile_rows;

use crate::element::{Element, Factor};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// `out = a · b + bias`, with the epilogue behind it.
///
/// `a` is M×K (rows times channels), `b` K×N packed for an instruction set, `bias` N numbers or none,
/// the residual and `out` M×N, of the element of `a` or another. Mismatched shapes are an error and leave `out`
/// untouched.
pub fn matmul<T: Element, O: Element>(
    pool: &ThreadPool,
    a: Rows<'_, T>,
    b: &PackedMatrix<T::Factor>,
    bias: Option<&[f32]>,
    epilogue: Epilogue<'_, O>,
    out: RowsMut<'_, O>,
) -> Result<(), String> {
    if a.channels().next_multiple_of(T::Factor::PER_WORD) != b.rows() {
        return Err(format!("the left operand has {} columns, the right {} rows", a.channels(), b.rows()));
    }
    let product = Product { matrix: b, first_column: 0, bias, scales: None, epilogue };
    let source = PlainRows::new(a, b.columns());
    product.check(&source, &out)?;
    if out.rows() != a.rows() {
        return Err(format!("{} rows of output for {} of input", out.rows(), a.rows()));
    }
    let mut scratch = vec![0.0; scratch_len(&source, pool.threads())];
    // SAFETY: checked above; a plain operand names each output row once; the scratch has the length asked for.
    unsafe { product.run(pool, &source, &out, &mut scratch) };
    Ok(())
}

/// [`matmul`] where both operands are activations: packs `b` (K×N, element `(k, n)` at
/// `b[k * row_step + n * column_step]`) first.
pub fn matmul_dynamic(
    isa: Isa,
    pool: &ThreadPool,
    a: Rows<'_>,
    b: &[f32],
    columns: usize,
    row_step: usize,
    column_step: usize,
    out: RowsMut<'_>,
) -> Result<(), String> {
    let packed = PackedMatrix::<f32>::from_strided(isa, b, a.channels(), columns, row_step, column_step)?;
    matmul(pool, a, &packed, None, Epilogue::default(), out)
}
