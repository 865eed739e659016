//! Softmax and its logarithm, which turn the scores of a classifier, or of each pixel of a segmentation, into probabilities. The
//! largest score is subtracted first, so that no exponential overflows.

use crate::elementwise::Span;
use crate::epilogue::Map;
use crate::fold::{ExpSum, Largest, Sum, fold_columns, fold_row};
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp, dispatch, math};
use crate::strided::{GRAIN, Shared};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// Columns of a task.
const COLUMNS: usize = 64;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Softmax {
    /// `e^x / sum(e^x)`
    Probability,
    /// `x - ln(sum(e^x))`
    Logarithm,
}

/// Softmax over the channels of each row. `output` may be made of the very rows of `input` (by `from_raw`).
///
/// # Panics
/// Where the views differ in rows or channels.
pub fn softmax_channels(isa: Isa, pool: &ThreadPool, kind: Softmax, input: Rows<'_>, output: RowsMut<'_>) {
    let (rows, channels) = (input.rows(), input.channels());
    assert_eq!((rows, channels), (output.rows(), output.channels()), "as many outputs as inputs");
    if channels == 0 {
        return;
    }
    let (from, to) = (Shared(input.ptr()), Shared(output.ptr()));
    let strides = (input.row_stride(), output.row_stride());
    pool.run_ranges(rows, (GRAIN / 4).div_ceil(channels), |range| {
        dispatch(isa, RowsTask { kind, range, channels, from: from.get(), to: to.get(), strides });
    });
}

/// Softmax over groups of `axis` consecutive rows, each channel by itself: for an activation of `[outer, axis, inner]` in rows of
/// `inner` channels. `output` may be made of the very rows of `input` (by `from_raw`).
///
/// # Panics
/// Where the views differ in rows or channels, or the rows are no whole number of groups.
pub fn softmax_rows(
    isa: Isa,
    pool: &ThreadPool,
    kind: Softmax,
    axis: usize,
    input: Rows<'_>,
    output: RowsMut<'_>,
) {
    let (rows, channels) = (input.rows(), input.channels());
    assert_eq!((rows, channels), (output.rows(), output.channels()), "as many outputs as inputs");
    if rows == 0 || channels == 0 {
        return;
    }
    assert!(axis > 0 && rows % axis == 0, "{rows} rows are no groups of {axis}");
    let (from, to) = (Shared(input.ptr()), Shared(output.ptr()));
    let strides = (input.row_stride(), output.row_stride());
    let blocks = channels.div_ceil(COLUMNS);
    pool.run_ranges(rows / axis * blocks, (GRAIN / 4).div_ceil(axis * channels.min(COLUMNS)), |range| {
        for task in range {
            let (row, column) = (task / blocks * axis, task % blocks * COLUMNS);
            let columns = COLUMNS.min(channels - column);
            // SAFETY: row and column lie inside both views.
            let (from, to) =
                unsafe { (from.get().add(row * strides.0 + column), to.get().add(row * strides.1 + column)) };
            dispatch(isa, ColumnsTask { kind, rows: axis, columns, from, to, strides });
        }
    });
}

/// `e^(x - a)`
#[derive(Clone, Copy)]
struct ExpOfDifference(f32);

impl Map for ExpOfDifference {
    #[inline(always)]
    fn map<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        math::exp(s, s.sub(x, s.splat(self.0)))
    }
}

/// `x a`
#[derive(Clone, Copy)]
struct Product(f32);

impl Map for Product {
    #[inline(always)]
    fn map<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.mul(x, s.splat(self.0))
    }
}

/// `x - a - b`
#[derive(Clone, Copy)]
struct Difference(f32, f32);

impl Map for Difference {
    #[inline(always)]
    fn map<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        s.sub(s.sub(x, s.splat(self.0)), s.splat(self.1))
    }
}

struct RowsTask {
    kind: Softmax,
    range: std::ops::Range<usize>,
    channels: usize,
    from: *const f32,
    to: *mut f32,
    strides: (usize, usize),
}

impl SimdOp for RowsTask {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let n = self.channels;
        for row in self.range {
            // SAFETY: the row lies inside both views and belongs to this task; within it, what may be the same memory is read
            // before it is written.
            unsafe {
                let from = self.from.add(row * self.strides.0);
                let to = self.to.add(row * self.strides.1);
                let largest = fold_row::<S, Largest>(s, from, n, 0.0);
                match self.kind {
                    Softmax::Probability => {
                        Span::row(from, to, n).map(s, ExpOfDifference(largest));
                        let scale = 1.0 / fold_row::<S, Sum>(s, to, n, 0.0);
                        Span::row(to, to, n).map(s, Product(scale));
                    }
                    Softmax::Logarithm => {
                        let logarithm = fold_row::<S, ExpSum>(s, from, n, largest).ln();
                        Span::row(from, to, n).map(s, Difference(largest, logarithm));
                    }
                }
            }
        }
    }
}

/// Some columns of one group of rows.
struct ColumnsTask {
    kind: Softmax,
    rows: usize,
    columns: usize,
    from: *const f32,
    to: *mut f32,
    strides: (usize, usize),
}

impl SimdOp for ColumnsTask {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (from_stride, to_stride) = self.strides;
        let mut column = 0;
        while column < self.columns {
            let n = self.columns - column;
            // SAFETY: these columns lie inside both views and belong to this task; what may be the same memory is read before it
            // is written.
            unsafe {
                let (from, to) = (self.from.add(column), self.to.add(column));
                let (rows, stride) = (self.rows, from_stride as isize);
                let [largest] = fold_columns::<S, Largest, 1>(s, from, rows, stride, n, [s.zero()]);
                match self.kind {
                    Softmax::Probability => {
                        let power = |x| math::exp(s, s.sub(x, largest));
                        map_column(s, (from, from_stride), (to, to_stride), rows, n, power);
                        let [sum] = fold_columns::<S, Sum, 1>(s, to, rows, to_stride as isize, n, [s.zero()]);
                        let scale = s.div(s.splat(1.0), sum);
                        map_column(s, (to, to_stride), (to, to_stride), rows, n, |x| s.mul(x, scale));
                    }
                    Softmax::Logarithm => {
                        let [sum] = fold_columns::<S, ExpSum, 1>(s, from, rows, stride, n, [largest]);
                        let logarithm = math::ln(s, sum);
                        let shift = |x| s.sub(s.sub(x, largest), logarithm);
                        map_column(s, (from, from_stride), (to, to_stride), rows, n, shift);
                    }
                }
            }
            column += S::LANES;
        }
    }
}

/// Applies `f` to a column of vectors of which `n` lanes exist.
///
/// # Safety
/// `min(n, LANES)` numbers must be readable at `from` and writable at `to` in each of `rows` rows, a stride apart.
#[inline(always)]
unsafe fn map_column<S: Simd>(
    s: S,
    (from, from_stride): (*const f32, usize),
    (to, to_stride): (*mut f32, usize),
    rows: usize,
    n: usize,
    f: impl Fn(S::F32) -> S::F32,
) {
    for row in 0..rows {
        // SAFETY: promised by the caller.
        unsafe {
            let x = s.load_partial(from.add(row * from_stride), n);
            s.store_partial(to.add(row * to_stride), n, f(x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Input, Tolerance, check};
    use proptest::prelude::*;

    fn exact(kind: Softmax, x: f64, axis: impl Iterator<Item = f64> + Clone) -> f64 {
        let largest = axis.clone().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = axis.map(|y| (y - largest).exp()).sum();
        match kind {
            Softmax::Probability => (x - largest).exp() / sum,
            Softmax::Logarithm => x - largest - sum.ln(),
        }
    }

    const CLOSE: Tolerance = Tolerance::both(2e-6);

    fn check_channels(kind: Softmax, rows: usize, channels: usize, gap: usize) {
        let input = Input::new(11, rows, channels, gap, -9.0, 9.0);
        let expected = |r, c| exact(kind, input.at(r, c), (0..channels).map(|c| input.at(r, c)));
        check((rows, channels, gap + 1), CLOSE, expected, |isa, pool, out| {
            softmax_channels(isa, pool, kind, input.rows(), out);
        });
    }

    fn check_rows(kind: Softmax, groups: usize, axis: usize, channels: usize, gap: usize) {
        let input = Input::new(12, groups * axis, channels, gap, -9.0, 9.0);
        let expected =
            |r, c| exact(kind, input.at(r, c), (0..axis).map(|a| input.at(r / axis * axis + a, c)));
        check((groups * axis, channels, gap), CLOSE, expected, |isa, pool, out| {
            softmax_rows(isa, pool, kind, axis, input.rows(), out);
        });
    }

    #[test]
    fn shapes_of_networks() {
        for kind in [Softmax::Probability, Softmax::Logarithm] {
            check_channels(kind, 3, 1000, 0);
            check_channels(kind, 4000, 21, 0);
            check_channels(kind, 0, 10, 0);
            check_channels(kind, 5, 1, 3);
            check_rows(kind, 2, 21, 900, 0);
            check_rows(kind, 0, 21, 9, 0);
        }
    }

    #[test]
    fn large_scores_do_not_overflow() {
        for isa in Isa::available() {
            let mut out = [0.0; 3];
            let input = [1e30, 1e30, f32::NEG_INFINITY];
            let view = Rows::dense(&input, 1, 3).unwrap();
            softmax_channels(
                isa,
                &ThreadPool::new(1),
                Softmax::Probability,
                view,
                RowsMut::dense(&mut out, 1, 3).unwrap(),
            );
            assert_eq!(out, [0.5, 0.5, 0.0], "{isa}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_shape(logarithm: bool, groups in 0usize..5, axis in 1usize..40, channels in 1usize..150, gap in 0usize..3) {
            let kind = if logarithm { Softmax::Logarithm } else { Softmax::Probability };
            check_channels(kind, groups * axis, channels, gap);
            check_rows(kind, groups, axis, channels, gap);
        }
    }
}
