//! Products and sums of squares along an axis, in `f64`: those of `f32` soon leave its range on the way to a result
//! inside it, and a long sum of squares loses digits, as all of its terms have one sign.
//!
//! With `n` numbers the error before the last rounding is at most `n · 1.2e-16` of the result, so below `10⁸` numbers
//! the result is the `f32` next to the exact one, or its neighbour.

use crate::reduce::{COLUMNS, extents};
use crate::strided::{GRAIN, Shared, Strided};
use crate::threads::ThreadPool;
use crate::view::RowsMut;

/// Results of a single column that are kept going at a time, as one would wait for itself.
const PARTS: usize = 8;

/// What to compute of the numbers along an axis.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wide {
    Product,
    SquareSum,
    /// The square root of the sum of squares.
    Norm,
}

/// Folds the middle axis of `[outer, reduce, inner]`.
pub(crate) fn fold_wide(pool: &ThreadPool, what: Wide, input: Strided<'_>, output: RowsMut<'_>) {
    match what {
        Wide::Product => fold(pool, input, output, 1.0, |total, x| total * x, |x| x, |x| x),
        Wide::SquareSum => fold(pool, input, output, 0.0, |total, x| total + x, |x| x * x, |x| x),
        Wide::Norm => fold(pool, input, output, 0.0, |total, x| total + x, |x| x * x, f64::sqrt),
    }
}

fn fold(
    pool: &ThreadPool,
    input: Strided<'_>,
    output: RowsMut<'_>,
    start: f64,
    join: impl Fn(f64, f64) -> f64 + Copy + Sync,
    map: impl Fn(f64) -> f64 + Copy + Sync,
    finish: impl Fn(f64) -> f64 + Copy + Sync,
) {
    let (outer, length, inner) = extents(&input, &output);
    let (blocks, strides) = (inner.div_ceil(COLUMNS), input.layout().strides());
    let &[outer_step, step, column_step] = strides else { return };
    let (from, to) = (Shared(input.ptr()), (Shared(output.ptr()), output.row_stride()));
    let grain = GRAIN.div_ceil((length * inner.min(COLUMNS)).max(1));
    pool.run_ranges(outer * blocks, grain, |range| {
        for index in range {
            let (row, first) = (index / blocks, index % blocks * COLUMNS);
            let columns = (inner - first).min(COLUMNS);
            let line = from.get().wrapping_offset(row as isize * outer_step + first as isize * column_step);
            // A single column becomes several, of every eighth number each.
            let parts = if inner == 1 { PARTS } else { 1 };
            let mut totals = [start; COLUMNS];
            for place in (0..length).step_by(parts) {
                let line = line.wrapping_offset(place as isize * step);
                let (count, apart) =
                    if inner == 1 { (parts.min(length - place), step) } else { (columns, column_step) };
                for (i, total) in totals[..count].iter_mut().enumerate() {
                    // SAFETY: the three indices of the number are below the input's extents.
                    *total = join(*total, map(f64::from(unsafe { *line.offset(i as isize * apart) })));
                }
            }
            if inner == 1 {
                totals[0] = totals[..PARTS].iter().copied().reduce(join).unwrap_or(start);
            }
            for (column, &total) in (first..).zip(&totals[..columns]) {
                // SAFETY: row and column lie inside the output, and no other task has both.
                unsafe { *to.0.get().add(row * to.1 + column) = finish(total) as f32 };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::reduce::{Reduction, reduce};
    use crate::testing::random;

    /// The reduction of the middle axis of dense data.
    fn reduced(kind: Reduction, data: &[f32], shape: [usize; 3]) -> Vec<f32> {
        let mut out = vec![0.0; shape[0] * shape[2]];
        let to = RowsMut::dense(&mut out, shape[0], shape[2]).unwrap();
        let pool = ThreadPool::new(2);
        reduce(Isa::Portable, &pool, kind, Strided::dense(data, &shape).unwrap(), to);
        out
    }

    #[test]
    fn products_leave_the_range_on_the_way() {
        let column = [1e30f32, -1e30, 1e20, 1e-30, 1e-25, 1e-25];
        let data: Vec<f32> = column.iter().flat_map(|&x| [x; 3]).collect();
        for (length, inner, data) in [(6, 3, &data[..]), (6, 1, &column), (3, 1, &column)] {
            let out = reduced(Reduction::Product, &data[..length * inner], [1, length, inner]);
            let wanted = if length == 6 { -1.0 } else { f32::NEG_INFINITY };
            assert!(out.iter().all(|&x| x == wanted || (x - wanted).abs() < 1e-6), "{out:?}");
        }
    }

    #[test]
    fn norms_leave_the_range_on_the_way() {
        assert_eq!(reduced(Reduction::L2, &[3e30, -4e30], [1, 2, 1]), [5e30]);
        assert_eq!(reduced(Reduction::L2, &[3e-30, 0.0, 4e-30, 0.0], [1, 2, 2]), [5e-30, 0.0]);
        assert!(reduced(Reduction::SumSquare, &[1.0, f32::NAN], [1, 2, 1])[0].is_nan());
        assert_eq!(reduced(Reduction::L2, &[], [2, 0, 1]), [0.0; 2]);
    }

    #[test]
    fn long_sums_of_squares_are_rounded_once() {
        for (length, inner) in [(300_001, 1), (100_003, 3), (1 << 14, 65)] {
            let data = random(9, length * inner, -1.0, 3.0);
            let exact = |column: usize| -> f64 {
                data.iter().skip(column).step_by(inner).map(|&x| f64::from(x) * f64::from(x)).sum()
            };
            let squares = reduced(Reduction::SumSquare, &data, [1, length, inner]);
            let norms = reduced(Reduction::L2, &data, [1, length, inner]);
            for (column, (&sum, &norm)) in squares.iter().zip(&norms).enumerate() {
                let exact = exact(column);
                assert!((f64::from(sum) - exact).abs() <= 6.1e-8 * exact, "{sum} instead of {exact}");
                assert!((f64::from(norm) - exact.sqrt()).abs() <= 6.1e-8 * exact.sqrt(), "{norm}");
            }
        }
    }
}
