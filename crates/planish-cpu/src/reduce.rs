//! Sums, means, extremes and norms along an axis: the squeeze of squeeze-and-excite blocks, the last pooling of most networks and
//! the statistics of normalisation are all one of these over a different axis.
//!
//! The reduced axes are given as one: an input of `[outer, reduce, inner]`. Long reductions are cut into segments whose length
//! depends on the shape alone, so that one image's pooling is shared among threads and still gives the same bits on any number
//! of them.

use crate::elementwise::{Unary, unary_in_place};
use crate::fold::{AbsoluteSum, ExpSum, Fold, Largest, Smallest, SquareSum, Sum, fold_columns, fold_row};
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::strided::{GRAIN, Shared, Strided};
use crate::threads::ThreadPool;
use crate::view::RowsMut;
use crate::wide::{Wide, fold_wide};

/// Columns of a task.
pub(crate) const COLUMNS: usize = 64;

/// Tasks from which on long reductions are not cut.
const ENOUGH_TASKS: usize = 64;

/// What to compute of the numbers along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The sum; 0 of no numbers.
    Sum,
    /// The mean; NaN of no numbers.
    Mean,
    /// The largest, or NaN where there is one; minus infinity of no numbers.
    Max,
    /// The smallest, or NaN where there is one; infinity of no numbers.
    Min,
    /// The product, rounded once; 1 of no numbers.
    Product,
    /// The sum of the absolute values.
    L1,
    /// The square root of the sum of the squares, rounded once.
    L2,
    /// The sum of the squares, rounded once.
    SumSquare,
    /// The logarithm of the sum.
    LogSum,
    /// `ln(sum(e^x))`, without overflow on the way.
    LogSumExp,
}

/// `output[o][i] = reduction(input[o][..][i])` for an input of `[outer, reduce, inner]` and an output of `outer` rows of `inner`
/// channels.
///
/// # Panics
/// Where the shapes do not fit each other.
pub fn reduce(
    isa: Isa,
    pool: &ThreadPool,
    reduction: Reduction,
    input: Strided<'_>,
    mut output: RowsMut<'_>,
) {
    let finish = |function, output| unary_in_place(isa, pool, function, output);
    let out = output.reborrow();
    match reduction {
        Reduction::Sum => fold::<Sum>(isa, pool, input, None, out),
        Reduction::Max => fold::<Largest>(isa, pool, input, None, out),
        Reduction::Min => fold::<Smallest>(isa, pool, input, None, out),
        Reduction::Product => fold_wide(pool, Wide::Product, input, out),
        Reduction::L1 => fold::<AbsoluteSum>(isa, pool, input, None, out),
        Reduction::SumSquare => fold_wide(pool, Wide::SquareSum, input, out),
        Reduction::Mean => {
            fold::<Sum>(isa, pool, input, None, out);
            finish(Unary::Affine { scale: 1.0 / input.shape()[1] as f32, shift: 0.0 }, output);
        }
        Reduction::L2 => fold_wide(pool, Wide::Norm, input, out),
        Reduction::LogSum => {
            fold::<Sum>(isa, pool, input, None, out);
            finish(Unary::Log, output);
        }
        Reduction::LogSumExp => {
            let (rows, channels) = (out.rows(), out.channels());
            let mut largest = vec![0.0; rows * channels];
            let view = RowsMut::dense(&mut largest, rows, channels).expect("made to measure");
            fold::<Largest>(isa, pool, input, None, view);
            // Subtracting an infinite maximum would give NaN; without it the sum is 0 or infinite by itself.
            largest.iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = 0.0);
            fold::<ExpSum>(isa, pool, input, Some(&largest), out);
            finish(Unary::Log, output.reborrow());
            for row in 0..rows {
                let shifts = &largest[row * channels..][..channels];
                output.row_mut(row).iter_mut().zip(shifts).for_each(|(x, shift)| *x += shift);
            }
        }
    }
}

/// `output[o][i] = sum((input[o][..][i] - centers[o][i])^2)`
pub(crate) fn squared_deviations(
    isa: Isa,
    pool: &ThreadPool,
    input: Strided<'_>,
    centers: &[f32],
    output: RowsMut<'_>,
) {
    fold::<SquareSum>(isa, pool, input, Some(centers), output);
}

/// The extents of an input whose middle axis becomes one number, for which the output must have room.
pub(crate) fn extents(input: &Strided<'_>, output: &RowsMut<'_>) -> (usize, usize, usize) {
    let &[outer, length, inner] = input.shape() else {
        panic!("[outer, reduce, inner], not {:?}", input.shape())
    };
    assert_eq!(
        (outer, inner),
        (output.rows(), output.channels()),
        "one output for each outer and inner index"
    );
    (outer, length, inner)
}

/// Folds the middle axis. `centers` has one number for each result, in rows without gaps.
fn fold<F: Fold>(
    isa: Isa,
    pool: &ThreadPool,
    input: Strided<'_>,
    centers: Option<&[f32]>,
    mut output: RowsMut<'_>,
) {
    let (outer, length, inner) = extents(&input, &output);
    assert!(centers.is_none_or(|centers| centers.len() == outer * inner), "one center for each output");
    if outer * inner == 0 {
        return;
    }
    if length == 0 {
        (0..outer).for_each(|row| output.row_mut(row).fill(F::IDENTITY));
        return;
    }
    let width = inner.min(COLUMNS);
    let segment = match outer * inner.div_ceil(COLUMNS) {
        tasks if tasks >= ENOUGH_TASKS => length,
        _ => (GRAIN / width).next_power_of_two().max(256).min(length),
    };
    let segments = length.div_ceil(segment);
    if segments == 1 {
        fold_segments::<F>(isa, pool, input, centers, segment, output);
        return;
    }
    let mut partial = vec![0.0; outer * segments * inner];
    let view = RowsMut::dense(&mut partial, outer * segments, inner).expect("made to measure");
    fold_segments::<F>(isa, pool, input, centers, segment, view);
    for row in 0..outer {
        let (first, rest) = partial[row * segments * inner..][..segments * inner].split_at(inner);
        let sums = output.row_mut(row);
        sums.copy_from_slice(first);
        for part in rest.chunks_exact(inner) {
            sums.iter_mut().zip(part).for_each(|(sum, &x)| *sum = F::join_one(*sum, x));
        }
    }
}

/// Folds each segment of each outer index into a row of `output`.
fn fold_segments<F: Fold>(
    isa: Isa,
    pool: &ThreadPool,
    input: Strided<'_>,
    centers: Option<&[f32]>,
    segment: usize,
    output: RowsMut<'_>,
) {
    let inner = input.shape()[2];
    let tasks = output.rows() * inner.div_ceil(COLUMNS);
    let task = FoldTask::<F> {
        input: (Shared(input.ptr()), *input.layout()),
        centers: centers.map(|centers| Shared(centers.as_ptr())),
        segment,
        output: (Shared(output.ptr()), output.row_stride()),
        fold: std::marker::PhantomData,
    };
    pool.run_ranges(tasks, GRAIN.div_ceil(segment * inner.min(COLUMNS)), |range| {
        dispatch(isa, FoldRange { task, range });
    });
}

/// What each task needs to know: task after task, one segment of one outer index, up to [`COLUMNS`] columns of it.
#[derive(Clone, Copy)]
struct FoldTask<F> {
    input: (Shared<*const f32>, crate::strided::Layout),
    centers: Option<Shared<*const f32>>,
    segment: usize,
    output: (Shared<*mut f32>, usize),
    fold: std::marker::PhantomData<F>,
}

struct FoldRange<F> {
    task: FoldTask<F>,
    range: std::ops::Range<usize>,
}

impl<F: Fold> SimdOp for FoldRange<F> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for index in self.range {
            self.task.run(s, index);
        }
    }
}

impl<F: Fold> FoldTask<F> {
    #[inline(always)]
    fn run<S: Simd>(&self, s: S, index: usize) {
        let (shape, strides) = (self.input.1.shape(), self.input.1.strides());
        let (length, inner) = (shape[1], shape[2]);
        let blocks = inner.div_ceil(COLUMNS);
        let segments = length.div_ceil(self.segment);
        let (row, mut column) = (index / blocks, index % blocks * COLUMNS);
        let (outer, start) = (row / segments, row % segments * self.segment);
        let rows = self.segment.min(length - start);
        let end = (column + COLUMNS).min(inner);
        let offset = outer as isize * strides[0] + start as isize * strides[1];
        // SAFETY: rows `start..start + rows` and columns `column..end` lie inside the input, row `row` inside the output, and
        // no other task has this row and these columns.
        unsafe {
            let p = self.input.0.get().offset(offset);
            let to = self.output.0.get().add(row * self.output.1);
            let center = |column: usize| self.centers.map(|p| p.get().add(outer * inner + column));
            if inner == 1 && strides[1] == 1 {
                *to = fold_row::<S, F>(s, p, rows, center(0).map_or(0.0, |p| *p));
                return;
            }
            while column < end {
                let (n, from) = (end - column, p.offset(column as isize * strides[2]));
                if strides[2] != 1 && inner > 1 {
                    // Columns apart from each other, one at a time.
                    let center = [s.splat(center(column).map_or(0.0, |p| *p))];
                    let sum = fold_columns::<S, F, 1>(s, from, rows, strides[1], 1, center);
                    s.store_partial(to.add(column), 1, sum[0]);
                    column += 1;
                } else if n >= 4 * S::LANES {
                    let center = std::array::from_fn(|v| {
                        center(column + v * S::LANES).map_or(s.zero(), |p| s.load(p))
                    });
                    let sums = fold_columns::<S, F, 4>(s, from, rows, strides[1], n, center);
                    (0..4).for_each(|v| s.store(to.add(column + v * S::LANES), sums[v]));
                    column += 4 * S::LANES;
                } else {
                    let center = [center(column).map_or(s.zero(), |p| s.load_partial(p, n))];
                    let sum = fold_columns::<S, F, 1>(s, from, rows, strides[1], n, center);
                    s.store_partial(to.add(column), n, sum[0]);
                    column += S::LANES;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, random};
    use proptest::prelude::*;

    const ALL: [Reduction; 10] = [
        Reduction::Sum,
        Reduction::Mean,
        Reduction::Max,
        Reduction::Min,
        Reduction::Product,
        Reduction::L1,
        Reduction::L2,
        Reduction::SumSquare,
        Reduction::LogSum,
        Reduction::LogSumExp,
    ];

    fn exact(reduction: Reduction, numbers: impl Iterator<Item = f64> + Clone) -> f64 {
        let count = numbers.clone().count() as f64;
        let sum = || numbers.clone().sum::<f64>();
        let squares = || numbers.clone().map(|x| x * x).sum::<f64>();
        match reduction {
            Reduction::Sum => sum(),
            Reduction::Mean => sum() / count,
            Reduction::Max => numbers.fold(f64::NEG_INFINITY, f64::max),
            Reduction::Min => numbers.fold(f64::INFINITY, f64::min),
            Reduction::Product => numbers.product(),
            Reduction::L1 => numbers.map(f64::abs).sum(),
            Reduction::L2 => squares().sqrt(),
            Reduction::SumSquare => squares(),
            Reduction::LogSum => sum().ln(),
            Reduction::LogSumExp => numbers.map(f64::exp).sum::<f64>().ln(),
        }
    }

    fn check_shape(reduction: Reduction, [outer, length, inner]: [usize; 3], gap: usize, low: f32) {
        let stride = inner + gap;
        let data = random(7, outer * length * stride, low, 1.1);
        let at = |o: usize, i: usize| (0..length).map(move |l| (o * length + l) * stride + i);
        // Of numbers that may cancel, the error is relative to the sum of their magnitudes, at most 1.1 each.
        let tolerance = Tolerance { absolute: 2e-7 * 1.1 * (length as f64).max(1.0), relative: 2e-6 };
        let expected = |o, i| exact(reduction, at(o, i).map(|index| f64::from(data[index])));
        check((outer, inner, gap), tolerance, expected, |isa, pool, out| {
            let strides = [(length * stride) as isize, stride as isize, 1];
            let input = Strided::new(&data, &[outer, length, inner], &strides).unwrap();
            reduce(isa, pool, reduction, input, out);
        });
    }

    #[test]
    fn shapes_of_networks() {
        for reduction in ALL {
            for shape in
                [[2, 49, 130], [1, 12_544, 33], [1, 70_000, 1], [3, 40, 1], [70, 65, 1], [2, 0, 5], [0, 3, 4]]
            {
                // Products of many numbers below 1 vanish.
                let low = if reduction == Reduction::Product { 0.95 } else { 0.1 };
                if reduction != Reduction::Product || shape[1] < 100 {
                    check_shape(reduction, shape, 0, low);
                }
            }
        }
    }

    #[test]
    fn a_long_sum_keeps_its_digits() {
        let data = vec![0.1f32; 1 << 21];
        for isa in Isa::available() {
            for shape in [[1, 1 << 21, 1], [1, 1 << 20, 2]] {
                let mut out = vec![0.0; shape[2]];
                let input = Strided::dense(&data, &shape).unwrap();
                reduce(
                    isa,
                    &ThreadPool::new(2),
                    Reduction::Mean,
                    input,
                    RowsMut::dense(&mut out, 1, shape[2]).unwrap(),
                );
                assert!(out.iter().all(|&x| (x - 0.1).abs() < 1e-7), "{isa}: {out:?}");
            }
        }
    }

    #[test]
    fn extremes_and_exponentials_of_infinity_and_nan() {
        let rows = [[f32::NEG_INFINITY; 40], [f32::INFINITY; 40], [800.0; 40], [f32::NAN; 40]];
        let mut data = rows.concat();
        data[3 * 40 + 7..].fill(1.0);
        for isa in Isa::available() {
            for reduction in [Reduction::Max, Reduction::LogSumExp] {
                let mut out = [0.0; 4];
                let input = Strided::dense(&data, &[4, 40, 1]).unwrap();
                reduce(isa, &ThreadPool::new(1), reduction, input, RowsMut::dense(&mut out, 4, 1).unwrap());
                assert_eq!(out[..2], [f32::NEG_INFINITY, f32::INFINITY], "{isa} {reduction:?}");
                let high = if reduction == Reduction::Max { 800.0 } else { 800.0 + 40f32.ln() };
                assert!((out[2] - high).abs() < 1e-3 && out[3].is_nan(), "{isa} {reduction:?} {out:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_shape(
            reduction in prop::sample::select(&ALL[..]),
            outer in 0usize..4, length in 1usize..80, inner in 1usize..150, gap in 0usize..3,
        ) {
            check_shape(reduction, [outer, length, inner], gap, 0.5);
        }
    }
}
