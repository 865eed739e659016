//! From numbers to levels and back, exactly as ONNX's QuantizeLinear and DequantizeLinear define them: a true division,
//! rounded to `f32`, then to the nearest integer, ties to even.

use std::ops::Range;

use crate::elementwise::map_rows;
use crate::epilogue::Map;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::strided::{GRAIN, Shared};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// What the levels of a tensor mean: `scale * (level - zero)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// The number from one level to the next.
    pub scale: f32,
    /// The level that is 0; a whole number.
    pub zero: f32,
}

/// What the levels of a tensor mean, or of each of its channels.
#[derive(Clone, Copy, Debug)]
pub enum Grids<'a> {
    /// All of them.
    One(Grid),
    /// Those of each channel, one for each channel of a row.
    Each(&'a [Grid]),
}

/// The level of a number, not yet kept within bounds; NaN becomes the zero point.
#[inline(always)]
pub(super) fn level<S: Simd>(s: S, x: S::F32, scale: S::F32, zero: S::F32) -> S::F32 {
    let quotient = s.round(s.div(x, scale));
    s.add(s.select(s.eq(quotient, quotient), quotient, s.zero()), zero)
}

/// The number of a level.
#[inline(always)]
pub(super) fn number<S: Simd>(s: S, level: S::F32, scale: S::F32, zero: S::F32) -> S::F32 {
    s.mul(s.sub(level, zero), scale)
}

#[derive(Clone, Copy)]
struct ToLevel(Grid);

impl Map for ToLevel {
    #[inline(always)]
    fn map<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        level(s, x, s.splat(self.0.scale), s.splat(self.0.zero))
    }
}

#[derive(Clone, Copy)]
struct ToNumber(Grid);

impl Map for ToNumber {
    #[inline(always)]
    fn map<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        number(s, x, s.splat(self.0.scale), s.splat(self.0.zero))
    }
}

#[derive(Clone, Copy)]
struct ToSign;

impl Map for ToSign {
    #[inline(always)]
    fn map<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.select(s.le(s.zero(), x), s.splat(2.0), s.zero())
    }
}

/// Some rows, each channel with a grid of its own. To levels where `LEVELS`, to numbers otherwise.
struct EachChannel<T, O, const LEVELS: bool> {
    from: (*const T, usize),
    to: (*mut O, usize),
    rows: Range<usize>,
    scales: Vec<f32>,
    zeros: Vec<f32>,
}

impl<T: crate::element::Element, O: crate::element::Element, const LEVELS: bool> SimdOp
    for &EachChannel<T, O, LEVELS>
{
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for row in self.rows.clone() {
            let mut i = 0;
            while i < self.scales.len() {
                let n = self.scales.len() - i;
                // SAFETY: at most the `n` channels that are left of the row are touched; the rows lie inside both views.
                unsafe {
                    let (from, to) =
                        (self.from.0.add(row * self.from.1 + i), self.to.0.add(row * self.to.1 + i));
                    let (scale, zero) = (
                        s.load_partial(self.scales.as_ptr().add(i), n),
                        s.load_partial(self.zeros.as_ptr().add(i), n),
                    );
                    let x = T::load_partial(s, from, n);
                    let y = if LEVELS { level(s, x, scale, zero) } else { number(s, x, scale, zero) };
                    O::store_partial(s, to, n, y);
                }
                i += S::LANES;
            }
        }
    }
}

fn each_channel<T: crate::element::Element, O: crate::element::Element, const LEVELS: bool>(
    isa: Isa,
    pool: &ThreadPool,
    grids: &[Grid],
    input: Rows<'_, T>,
    output: RowsMut<'_, O>,
) {
    assert_eq!(grids.len(), input.channels(), "a grid for each channel");
    assert_eq!(
        (input.rows(), input.channels()),
        (output.rows(), output.channels()),
        "as many outputs as inputs"
    );
    let (from, to) = (Shared(input.ptr()), Shared(output.ptr()));
    let strides = (input.row_stride(), output.row_stride());
    pool.run_ranges(input.rows(), GRAIN.div_ceil(grids.len().max(1)), |rows| {
        let task = EachChannel::<T, O, LEVELS> {
            from: (from.get(), strides.0),
            to: (to.get(), strides.1),
            rows,
            scales: grids.iter().map(|g| g.scale).collect(),
            zeros: grids.iter().map(|g| g.zero).collect(),
        };
        dispatch(isa, &task);
    });
}

/// The levels of numbers: `round(x / scale) + zero`, kept within 0 and 255. NaN becomes the zero point.
///
/// # Panics
/// Where the views differ in rows or channels, or there is not a grid for each channel.
pub fn quantize(isa: Isa, pool: &ThreadPool, grids: Grids<'_>, input: Rows<'_>, output: RowsMut<'_, u8>) {
    match grids {
        Grids::One(grid) => map_rows(isa, pool, ToLevel(grid), input, output),
        Grids::Each(grids) => each_channel::<_, _, true>(isa, pool, grids, input, output),
    }
}

/// The levels of signs, which lie around the zero point 1 so that there is one for padding: 2 where a number is at least 0,
/// else, and for NaN, 0. Where kernels take subnormal numbers for 0 (`denormals.rs`), those are positive.
///
/// # Panics
/// Where the views differ in rows or channels.
pub fn signs(isa: Isa, pool: &ThreadPool, input: Rows<'_>, output: RowsMut<'_, u8>) {
    map_rows(isa, pool, ToSign, input, output);
}

/// The numbers of levels: `(level - zero) * scale`.
///
/// # Panics
/// As [`quantize`].
pub fn dequantize(isa: Isa, pool: &ThreadPool, grids: Grids<'_>, input: Rows<'_, u8>, output: RowsMut<'_>) {
    match grids {
        Grids::One(grid) => map_rows(isa, pool, ToNumber(grid), input, output),
        Grids::Each(grids) => each_channel::<_, _, false>(isa, pool, grids, input, output),
    }
}
