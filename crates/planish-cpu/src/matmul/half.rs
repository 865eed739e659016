//! A matrix of `f16` that a few rows are multiplied with: the fully connected layers of a network at a small batch.
//!
//! Every weight is used once for each row, so the time is that of reading them. Kept as `f16` they are half of the bytes,
//! and are widened as they are loaded; sums stay `f32`. Several panels are read at once, see [`super::row`]. With more rows
//! than [`HalfMatrix::MOST_ROWS`] the weights would have to be read again, and arithmetic takes over: then a
//! [`PackedMatrix`](super::PackedMatrix) serves.

use crate::element::{Element, f16};
use crate::elementwise::convert;
use crate::epilogue::{Destination, Epilogue};
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

use super::pack::AlignedNumbers;

/// The vectors of a panel.
const PANEL: usize = 2;

/// The panels that a single row reads at once; panels are padded to so many.
const STREAMS: usize = 4;

/// A K×N matrix of `f16`, packed for one instruction set: panels of two vectors of columns, `[K][panel width]`, the last
/// ones padded with zeros.
#[derive(Clone, Debug)]
pub struct HalfMatrix {
    isa: Isa,
    rows: usize,
    columns: usize,
    data: AlignedNumbers,
}

impl HalfMatrix {
    /// The most rows it is multiplied with.
    pub const MOST_ROWS: usize = 4;

    /// Packs the matrix whose element in row `k` and column `n` is `source[k * row_step + n * column_step]`.
    ///
    /// An error where that reaches beyond the slice, or where a finite number would become infinite.
    pub fn new(
        isa: Isa,
        source: &[f32],
        rows: usize,
        columns: usize,
        row_step: usize,
        column_step: usize,
    ) -> Result<Self, String> {
        let last = |count: usize, step: usize| count.saturating_sub(1).checked_mul(step);
        let end = last(rows, row_step).zip(last(columns, column_step)).and_then(|(r, c)| r.checked_add(c));
        if rows != 0 && columns != 0 && end.is_none_or(|end| end >= source.len()) {
            return Err(format!(
                "a {rows}×{columns} matrix at steps {row_step} and {column_step} does not fit {} numbers",
                source.len()
            ));
        }
        let width = PANEL * isa.lanes();
        let padded = columns.next_multiple_of(STREAMS * width);
        let mut data = AlignedNumbers::zeros((rows * padded).div_ceil(2));
        let panels = data.as_mut_elements::<f16>().chunks_exact_mut((rows * width).max(1));
        for (panel, slots) in panels.enumerate() {
            let first = panel * width;
            for (k, slots) in slots.chunks_exact_mut(width).enumerate() {
                for (slot, column) in slots.iter_mut().zip(first..columns) {
                    let weight = source[k * row_step + column * column_step];
                    *slot = f16::from_f32(weight);
                    if slot.is_infinite() && weight.is_finite() {
                        return Err(format!("{weight} is beyond the range of f16"));
                    }
                }
            }
        }
        Ok(Self { isa, rows, columns, data })
    }

    /// The memory it takes.
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// `out = a · matrix + bias`, with the epilogue behind it: `a` is M×K with M at most [`Self::MOST_ROWS`], `bias` N numbers
    /// or none, the residual and `out` M×N. Other shapes are an error and leave `out` untouched. The result does not depend
    /// on the number of threads.
    pub fn multiply<T: Element, O: Element>(
        &self,
        pool: &ThreadPool,
        a: Rows<'_, T>,
        bias: Option<&[f32]>,
        epilogue: Epilogue<'_, O>,
        out: RowsMut<'_, O>,
    ) -> Result<(), String> {
        let rows = a.rows();
        if rows > Self::MOST_ROWS
            || (rows, a.channels(), self.columns) != (out.rows(), self.rows, out.channels())
        {
            return Err(format!(
                "{rows}×{} times {}×{} for an output of {}×{}",
                a.channels(),
                self.rows,
                self.columns,
                out.rows(),
                out.channels()
            ));
        }
        if let Some(bias) = bias.filter(|bias| bias.len() != self.columns) {
            return Err(format!("{} biases for {} columns", bias.len(), self.columns));
        }
        epilogue.check(rows, self.columns)?;
        if rows == 0 || self.columns == 0 {
            return Ok(());
        }
        let mut left = vec![0.0f32; rows * self.rows];
        convert(self.isa, pool, a, RowsMut::dense(&mut left, rows, self.rows).map_err(|e| e.to_string())?);
        let bundle = STREAMS * PANEL * self.isa.lanes();
        let bundles = self.columns.div_ceil(bundle);
        pool.run(bundles, &|index| {
            let columns = index * bundle..self.columns.min((index + 1) * bundle);
            let (left, out) = (&left[..], &out);
            dispatch(self.isa, Bundle { matrix: self, left, rows, bias, epilogue, out, columns });
        });
        Ok(())
    }
}

/// All rows times some panels: as many as a single row reads at once.
struct Bundle<'a, O> {
    matrix: &'a HalfMatrix,
    /// `[rows][K]`
    left: &'a [f32],
    rows: usize,
    bias: Option<&'a [f32]>,
    epilogue: Epilogue<'a, O>,
    out: &'a RowsMut<'a, O>,
    columns: std::ops::Range<usize>,
}

impl<O: Element> SimdOp for Bundle<'_, O> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        match self.rows {
            1 => self.multiply::<S, 1, { PANEL * STREAMS }>(s),
            2 => self.multiply::<S, 2, { PANEL * STREAMS / 2 }>(s),
            3 => self.multiply::<S, 3, PANEL>(s),
            4 => self.multiply::<S, 4, PANEL>(s),
            more => debug_assert!(false, "{more} rows"),
        }
    }
}

impl<O: Element> Bundle<'_, O> {
    /// So many rows, so many vectors of columns at a time.
    #[inline(always)]
    fn multiply<S: Simd, const ROWS: usize, const VECTORS: usize>(&self, s: S) {
        let mut column = self.columns.start;
        while column < self.columns.end {
            s.call(Tile::<O, ROWS, VECTORS> { bundle: self, column });
            column += VECTORS * S::LANES;
        }
    }
}

/// `ROWS` rows times `VECTORS` vectors of columns, of which the first exists.
struct Tile<'a, O, const ROWS: usize, const VECTORS: usize> {
    bundle: &'a Bundle<'a, O>,
    column: usize,
}

impl<O: Element, const ROWS: usize, const VECTORS: usize> SimdOp for Tile<'_, O, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Bundle { matrix, left, bias, ref epilogue, out, ref columns, .. } = *self.bundle;
        let (depth, column) = (matrix.rows, self.column);
        let width = PANEL * S::LANES;
        let valid = (columns.end - column).min(VECTORS * S::LANES);
        let mut sums = [[s.zero(); VECTORS]; ROWS];
        if let Some(bias) = bias {
            for j in 0..VECTORS {
                let bias = &bias[column..column + valid][valid.min(j * S::LANES)..];
                // SAFETY: no more numbers are read than the slice has.
                let vector = unsafe { s.load_partial(bias.as_ptr(), bias.len()) };
                sums.iter_mut().for_each(|row| row[j] = vector);
            }
        }
        let panels = matrix.data.as_slice().as_ptr().cast::<f16>().wrapping_add(column * depth);
        // Vectors of columns follow each other: those of the first panel, those of the second.
        let place = |j: usize| j / PANEL * depth * width + j % PANEL * S::LANES;
        debug_assert!(left.len() == ROWS * depth && matrix.isa.vectors() == S::ISA);
        for k in 0..depth {
            let row = panels.wrapping_add(k * width);
            for j in 0..VECTORS {
                // SAFETY: columns are padded to whole bundles of panels, each of which has `depth` rows of `width`.
                let right = unsafe { s.load_f16(row.add(place(j))) };
                for (i, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: the left operand has `ROWS` rows of `depth` numbers.
                    let left = s.splat(unsafe { *left.get_unchecked(i * depth + k) });
                    sums[j] = s.mul_add(left, right, sums[j]);
                }
            }
        }
        let outputs: [usize; ROWS] = std::array::from_fn(|row| row);
        let destination = Destination::new(out, epilogue, column, valid, outputs.as_ptr());
        // SAFETY: the output has these rows and columns, which no other tile has, and so do the residual and what is for
        // each channel.
        unsafe { destination.store(s, &sums) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epilogue::Activation;
    use crate::testing::random;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn products_agree_with_sums_in_double_precision(
            rows in 0usize..=HalfMatrix::MOST_ROWS, depth in 0usize..200, columns in 1usize..400, gap in 0usize..3,
            transposed: bool, with_bias: bool, with_residual: bool, seed: u64,
        ) {
            let round = |numbers: Vec<f32>| numbers.into_iter().map(f16::from_f32).collect::<Vec<_>>();
            let a = round(random(seed, rows * (depth + gap), -1.0, 1.0));
            let source: Vec<f32> =
                round(random(seed + 1, depth * columns, -1.0, 1.0)).into_iter().map(f16::to_f32).collect();
            let bias = with_bias.then(|| random(seed + 2, columns, -1.0, 1.0));
            let residual = with_residual.then(|| round(random(seed + 3, rows * columns, -1.0, 1.0)));
            let (row_step, column_step) = if transposed { (1, depth) } else { (columns, 1) };
            for isa in Isa::available_for(crate::element::ElementType::F16) {
                let matrix = HalfMatrix::new(isa, &source, depth, columns, row_step, column_step).unwrap();
                let mut results = Vec::new();
                for threads in [1, 3] {
                    let mut out = vec![f16::from_f32(7.5); rows * columns];
                    let left = Rows::new(&a, rows, depth, depth + gap).unwrap();
                    let residual = residual.as_ref().map(|r| Rows::dense(r, rows, columns).unwrap());
                    let epilogue = Epilogue { residual, activation: Activation::Relu, ..Epilogue::default() };
                    let to = RowsMut::dense(&mut out, rows, columns).unwrap();
                    matrix.multiply(&ThreadPool::new(threads), left, bias.as_deref(), epilogue, to).unwrap();
                    results.push(out);
                }
                prop_assert_eq!(&results[0], &results[1], "{}", isa);
                for (i, got) in results[0].iter().enumerate() {
                    let (row, column) = (i / columns, i % columns);
                    let start = bias.as_ref().map_or(0.0, |b| f64::from(b[column]))
                        + residual.as_ref().map_or(0.0, |r| r[i].to_f64());
                    let products = (0..depth).map(|k| {
                        a[row * (depth + gap) + k].to_f64() * f64::from(source[k * row_step + column * column_step])
                    });
                    let (mut sum, mut magnitude) = (start, start.abs() + 1.0);
                    products.for_each(|product| (sum, magnitude) = (sum + product, magnitude + product.abs()));
                    let want = sum.max(0.0);
                    // Any order of summation keeps to the first (Higham 2002, §3.1); then the result is rounded.
                    let bound = (depth + 3) as f64 * magnitude * f64::from(f32::EPSILON) / 2.0;
                    let bound = bound + (want + bound) / 2048.0 + 3e-8;
                    prop_assert!((got.to_f64() - want).abs() <= bound, "{}: {} for {}", isa, got, want);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let of = |weight: f32| HalfMatrix::new(Isa::Portable, &[1.0, weight], 1, 2, 2, 1);
        assert!(of(65519.0).is_ok() && of(f32::INFINITY).is_ok());
        assert!(of(-65520.0).is_err_and(|error| error.contains("65520")));
        assert!(HalfMatrix::new(Isa::Portable, &[1.0; 5], 2, 3, 3, 1).is_err());
        assert!(HalfMatrix::new(Isa::Portable, &[1.0; 5], usize::MAX, 3, 3, 1).is_err());
        let matrix = of(2.0).unwrap();
        let run = |rows: usize, columns: usize| {
            let mut out = vec![0.0f32; rows * columns];
            let to = RowsMut::dense(&mut out, rows, columns).unwrap();
            let a = vec![1.0f32; rows];
            matrix.multiply(
                &ThreadPool::new(1),
                Rows::dense(&a, rows, 1).unwrap(),
                None,
                Epilogue::default(),
                to,
            )
        };
        assert!(run(4, 2).is_ok() && run(5, 2).is_err() && run(1, 3).is_err());
    }
}
