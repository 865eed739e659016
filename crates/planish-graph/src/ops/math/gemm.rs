//! Gemm: the product of two matrices, either transposed, scaled, plus a scaled bias.

use super::elementwise::{Pair, WIDE, expect_same_type, pair, typed_fact};
use super::matmul::{Matrix, float_multiply_add, int_multiply_add, multiply};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::room;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required};
use crate::tensor::{Numbers, Tensor, index};
use std::sync::Arc;

/// `y = alpha · a' · b' + beta · c`, where `a'` is `a` or its transpose and `c` (input 2, optional) broadcasts to the
/// product. Integers with factors other than 1 are scaled as floats and truncated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gemm {
    /// The factor of the product.
    pub alpha: f32,
    /// The factor of the bias.
    pub beta: f32,
    /// Whether `a` is given transposed, as `k × m`.
    pub trans_a: bool,
    /// Whether `b` is given transposed, as `n × k`.
    pub trans_b: bool,
}

/// `a · b + c`.
impl Default for Gemm {
    fn default() -> Gemm {
        Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }
    }
}

impl Gemm {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Gemm {
            alpha: node.attributes.float("alpha", 1.0)?,
            beta: node.attributes.float("beta", 1.0)?,
            trans_a: node.attributes.flag("transA", false)?,
            trans_b: node.attributes.flag("transB", false)?,
        }))
    }

    /// The extents `[m, k, n]` for given shapes; an error where they do not fit.
    pub fn extents(&self, a: &[usize], b: &[usize]) -> Result<[usize; 3]> {
        let (&[a0, a1], &[b0, b1]) = (a, b) else {
            invalid!("shapes {a:?} and {b:?} are not two matrices");
        };
        let (m, k) = if self.trans_a { (a1, a0) } else { (a0, a1) };
        let (rows, n) = if self.trans_b { (b1, b0) } else { (b0, b1) };
        if k != rows {
            invalid!(
                "shapes {a:?} and {b:?} do not multiply with transA = {} and transB = {}",
                self.trans_a as u8,
                self.trans_b as u8
            );
        }
        Ok([m, k, n])
    }

    /// The bare product of row-major `a` and `b`.
    fn product<T: Copy>(
        &self,
        [m, k, n]: [usize; 3],
        a: &[T],
        b: &[T],
        zero: T,
        multiply_add: impl Fn(T, T, T) -> T,
    ) -> Result<Vec<T>> {
        let by = |values, transposed, rows, columns| match transposed {
            true => Matrix { values, row: 1, column: rows },
            false => Matrix { values, row: columns, column: 1 },
        };
        let mut out = room(&[m, n])?;
        if n > 0 {
            multiply(
                [m, k, n],
                by(a, self.trans_a, m, k),
                by(b, self.trans_b, k, n),
                zero,
                multiply_add,
                &mut out,
            );
        }
        Ok(out)
    }
}

impl Operator for Gemm {
    fn name(&self) -> &'static str {
        "Gemm"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let a = typed_fact(inputs, 0, "input A", WIDE)?;
        let b = typed_fact(inputs, 1, "input B", WIDE)?;
        expect_same_type(a, b)?;
        let c = optional_fact(inputs, 2);
        if let Some(c) = c {
            expect_same_type(a, c)?;
        }
        let (Some(x), Some(y)) = (a.shape(), b.shape()) else {
            return Ok(vec![Fact::unknown(a.dtype)]);
        };
        let [m, _, n] = self.extents(x, y)?;
        if let Some(bias) = c.and_then(|c| c.shape())
            && index::broadcast(&[&[m, n], bias]).ok().as_deref() != Some(&[m, n])
        {
            invalid!("input C of shape {bias:?} does not broadcast to the product's shape [{m}, {n}]");
        }
        Ok(vec![Fact::new(a.dtype, &[m, n])])
    }
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        let shape = |i| optional_fact(inputs, i).and_then(|f| f.shape());
        let extents = shape(0).zip(shape(1)).and_then(|(a, b)| self.extents(a, b).ok());
        extents.map_or(0, |[m, k, n]| (m as u64).saturating_mul(k as u64).saturating_mul(n as u64))
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        let extents @ [m, _, n] = self.extents(a.shape(), b.shape())?;
        let shape = [m, n];
        let bias = optional(inputs, 2).filter(|_| self.beta != 0.0);
        let (alpha, beta) = (self.alpha as f64, self.beta as f64);
        let scaled = |product: Vec<f64>| -> Result<Vec<f64>> {
            let product = product.into_iter().map(|v| alpha * v).collect();
            add_bias(&shape, product, bias.map(|c| (c, c.to_f64s())), |sum, c| sum + beta * c)
        };
        let numbers = match pair(a, b)? {
            Pair::Float(x, y) => {
                Numbers::Float(scaled(self.product(extents, &x, &y, 0.0, float_multiply_add)?)?)
            }
            Pair::Int(x, y) => {
                let product = self.product(extents, &x, &y, 0, int_multiply_add)?;
                Numbers::Int(match bias.map(|c| (c, c.to_numbers())) {
                    None if self.alpha == 1.0 => product,
                    Some((c, Numbers::Int(values))) if self.alpha == 1.0 && self.beta == 1.0 => {
                        add_bias(&shape, product, Some((c, values)), i128::wrapping_add)?
                    }
                    _ => {
                        let floats = product.into_iter().map(|v| v as f64).collect();
                        scaled(floats)?.into_iter().map(|v| v as i128).collect()
                    }
                })
            }
        };
        Ok(vec![Tensor::from_numbers(a.dtype(), &shape, &numbers)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
            .with("alpha", self.alpha)
            .with("beta", self.beta)
            .with("transA", self.trans_a)
            .with("transB", self.trans_b)
    }
}

/// `product` of `shape` with the elements of `bias`, where there is one, broadcast and added by `add`.
fn add_bias<T: Copy>(
    shape: &[usize],
    mut product: Vec<T>,
    bias: Option<(&Tensor, Vec<T>)>,
    add: impl Fn(T, T) -> T,
) -> Result<Vec<T>> {
    if let Some((c, values)) = bias {
        let strides = index::broadcast_strides(c.shape(), shape);
        index::for_each(shape, [&strides], |flat, [i]| product[flat] = add(product[flat], values[i]));
    }
    Ok(product)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{counting, eval, floats, read, refusal};
    use crate::tensor::DType;

    fn op(trans_a: bool, trans_b: bool) -> Gemm {
        Gemm { alpha: 1.0, beta: 1.0, trans_a, trans_b }
    }

    #[test]
    fn all_transpositions() {
        let transposed = |x: &Tensor| {
            let v = x.to_f32s();
            let (rows, columns) = (x.shape()[0], x.shape()[1]);
            let moved: Vec<f32> = (0..v.len()).map(|i| v[i % rows * columns + i / rows]).collect();
            floats(&[columns, rows], &moved)
        };
        let (a, b) = (counting(&[2, 3]), counting(&[3, 2]));
        let expected = floats(&[2, 2], &[10., 13., 28., 40.]);
        assert_eq!(eval(&op(false, false), &[&a, &b]), expected);
        assert_eq!(eval(&op(true, false), &[&transposed(&a), &b]), expected);
        assert_eq!(eval(&op(false, true), &[&a, &transposed(&b)]), expected);
        assert_eq!(eval(&op(true, true), &[&transposed(&a), &transposed(&b)]), expected);
        let facts = [&a, &b].map(|t| Some(Fact::constant(t)));
        assert_eq!(op(false, false).macs(&facts, &[]), 12);
    }

    #[test]
    fn factors_and_biases() {
        let (a, b) = (floats(&[2, 1], &[1., 2.]), floats(&[1, 2], &[3., 4.]));
        let attributes = Attributes::new().with("alpha", 0.5f32).with("beta", 2f32);
        let scaled = read("Gemm", 13, attributes).unwrap();
        for (c, expected) in [
            (Tensor::scalar(1f32), [3.5, 4., 5., 6.]),
            (floats(&[2], &[1., 2.]), [3.5, 6., 5., 8.]),
            (floats(&[2, 1], &[1., 2.]), [3.5, 4., 7., 8.]),
            (floats(&[2, 2], &[0., 1., 2., 3.]), [1.5, 4., 7., 10.]),
        ] {
            assert_eq!(eval(scaled.as_ref(), &[&a, &b, &c]), floats(&[2, 2], &expected), "{c:?}");
        }
        let nan = Tensor::scalar(f32::NAN);
        let off = Gemm { beta: 0.0, ..op(false, false) };
        assert_eq!(eval(&off, &[&a, &b, &nan]), floats(&[2, 2], &[3., 4., 6., 8.]));
    }

    #[test]
    fn integers_and_empties() {
        let (a, c) = (Tensor::new(&[1, 1], &[i64::MAX]).unwrap(), Tensor::scalar(3i64));
        assert_eq!(eval(&op(false, false), &[&a, &a, &c]), Tensor::new(&[1, 1], &[4i64]).unwrap());
        let x = Tensor::new(&[1, 1], &[3i32]).unwrap();
        let half = Gemm { alpha: 0.5, ..op(false, false) };
        assert_eq!(eval(&half, &[&x, &x, &Tensor::scalar(1i32)]).to_i64s().unwrap(), [5]);
        let (a, b) =
            (Tensor::zeros(DType::F32, &[2, 0]).unwrap(), Tensor::zeros(DType::F32, &[0, 3]).unwrap());
        assert_eq!(eval(&op(false, false), &[&a, &b, &Tensor::scalar(1f32)]), floats(&[2, 3], &[1.; 6]));
        assert_eq!(eval(&op(true, false), &[&a, &counting(&[2, 3])]).shape(), [0, 3]);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let fact = |shape: &[usize]| Fact::new(DType::F32, shape);
        assert!(refusal(&op(false, false), &[fact(&[2, 3]), fact(&[2, 3])]).contains("transB = 0"));
        assert!(refusal(&op(false, false), &[fact(&[2]), fact(&[2, 3])]).contains("two matrices"));
        let bias = [fact(&[1, 2]), fact(&[2, 3]), fact(&[2, 3])];
        assert!(refusal(&op(false, false), &bias).contains("input C"));
    }
}
