//! Products of rows of levels and constant weights whose result is numbers: the last layer of a quantised network, behind
//! which nothing is quantised any more. Its weights are a byte each, and reading them is all that takes time.

use super::dense::{self, DenseWeights};
use super::{ConvProblem, Weights};
use crate::element::ElementType;
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::matmul::{PlainRows, Product, scratch_len};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// A constant right operand for levels, packed, and what its sums mean.
pub struct LevelMatrix {
    weights: DenseWeights<u8>,
    depth: usize,
}

impl LevelMatrix {
    /// Packs weights of `columns` outputs from `depth` inputs each: those of a pointwise convolution on levels.
    pub fn new(isa: Isa, depth: usize, columns: usize, weights: Weights<'_>) -> Result<LevelMatrix, String> {
        let plain = ConvProblem::new_2d(1, depth, columns, [1, 1], [1, 1]);
        let problem = ConvProblem { element: ElementType::U8, ..plain };
        problem.validate()?;
        weights.check(&problem)?;
        Ok(LevelMatrix { weights: dense::pack(&problem, isa, depth, weights), depth })
    }

    /// The bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.groups.iter().map(|matrix| matrix.bytes()).sum()
    }

    /// `out = (sums of (a - zero) w, plus bias) * scale`, with the epilogue behind it. Mismatched shapes are an error and
    /// leave `out` untouched.
    pub fn multiply(
        &self,
        pool: &ThreadPool,
        a: Rows<'_, u8>,
        epilogue: Epilogue<'_, f32>,
        out: RowsMut<'_, f32>,
    ) -> Result<(), String> {
        if a.channels() != self.depth || a.rows() != out.rows() {
            let (rows, channels) = (a.rows(), a.channels());
            return Err(format!("{rows}×{channels} levels for {} rows of {}", out.rows(), self.depth));
        }
        let [matrix] = &self.weights.groups[..] else { return Err("one matrix is expected".to_owned()) };
        let (bias, scales) = (self.weights.bias.as_deref(), self.weights.scales.as_ref());
        let product = Product { matrix, first_column: 0, bias, scales, epilogue };
        let source = PlainRows::new(a, matrix.columns());
        product.check(&source, &out)?;
        let mut scratch = vec![0.0; scratch_len(&source, pool.threads())];
        // SAFETY: checked above; a plain operand names each output row once; the scratch has the length asked for.
        unsafe { product.run(pool, &source, &out, &mut scratch) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::SumLevels;
    use crate::epilogue::Activation;
    use crate::testing::random;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn numbers_are_scaled_sums(
            rows in 0usize..9, depth in 1usize..70, columns in 1usize..70, input_zero: u8, wide: bool, seed: u64,
        ) {
            let a: Vec<u8> = random(seed, rows * depth, 0.0, 256.0).into_iter().map(|x| x as u8).collect();
            // Unsigned weights with a zero point of their own need an offset to fit a byte.
            let (low, high) = if wide { (-40.0, 216.0) } else { (-128.0, 128.0) };
            let values: Vec<f32> = random(seed + 1, columns * depth, low, high).into_iter().map(f32::floor).collect();
            let scales = random(seed + 2, columns, 0.001, 0.1);
            let bias: Vec<i32> = random(seed + 3, columns, -9e3, 9e3).into_iter().map(|x| x as i32).collect();
            let levels = SumLevels { input_zero, bias: Some(&bias), scales: &scales, shift: None };
            let weights = Weights { values: &values, bias: None, levels: Some(levels) };
            let mut wanted = vec![0.0f32; rows * columns];
            for (i, out) in wanted.iter_mut().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let products = (0..depth).map(|k| {
                    (i32::from(a[row * depth + k]) - i32::from(input_zero)) * values[column * depth + k] as i32
                });
                *out = ((products.sum::<i32>() + bias[column]) as f32 * scales[column]).max(0.0);
            }
            for isa in Isa::available() {
                let matrix = LevelMatrix::new(isa, depth, columns, weights).unwrap();
                prop_assert!(matrix.bytes() >= depth * columns);
                for threads in [1, 3] {
                    let mut out = vec![7.0; rows * columns];
                    let epilogue = Epilogue { activation: Activation::Relu, ..Epilogue::default() };
                    let (from, to) = (Rows::dense(&a, rows, depth), RowsMut::dense(&mut out, rows, columns));
                    let pool = ThreadPool::new(threads);
                    matrix.multiply(&pool, from.unwrap(), epilogue, to.unwrap()).unwrap();
                    prop_assert_eq!(&out, &wanted, "{}", isa);
                }
            }
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let scales = [1.0f32; 2];
        let levels = SumLevels { input_zero: 0, bias: None, scales: &scales, shift: None };
        let weights = Weights { values: &[1.0; 6], bias: None, levels: Some(levels) };
        let matrix = LevelMatrix::new(Isa::Portable, 3, 2, weights).unwrap();
        let (a, mut out) = ([0u8; 8], [0.0f32; 4]);
        let run = |a, out| matrix.multiply(&ThreadPool::new(1), a, Epilogue::default(), out);
        let wrong = run(Rows::dense(&a, 2, 4).unwrap(), RowsMut::dense(&mut out, 2, 2).unwrap());
        assert!(wrong.is_err());
        assert!(LevelMatrix::new(Isa::Portable, 4, 2, weights).is_err());
    }
}
