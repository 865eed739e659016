//! MatMul: the product of (stacks of) matrices as NumPy's `matmul` forms it. The plain loops also serve Gemm.

use super::elementwise::{Pair, WIDE, expect_same_type, pair, typed_fact};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::{element_count, room};
use crate::ops::{Arity, NodeReader, Operator, optional_fact, required};
use crate::tensor::{Numbers, Tensor, index};
use std::sync::Arc;

/// `y = a · b`: matrices are the last two axes, those before broadcast; a vector on the left is a row, one on the right a
/// column, and that axis is dropped from the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatMul;

/// The extents of a matrix product for two given shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMulShape {
    /// The axes before the matrices, broadcast.
    pub batch: Vec<usize>,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the left, rows of the right matrix.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
    /// The result's shape: the batch axes, then `m` unless the left is a vector, then `n` unless the right is one.
    pub output: Vec<usize>,
}

impl MatMulShape {
    /// The product of tensors of shapes `a` and `b`; an error where they do not fit.
    pub fn new(a: &[usize], b: &[usize]) -> Result<MatMulShape> {
        let (batch_a, m, inner_a) = match *a {
            [ref batch @ .., m, k] => (batch, Some(m), k),
            [k] => (&[][..], None, k),
            [] => invalid!("input A is a scalar, where a vector or matrices are expected"),
        };
        let (batch_b, inner_b, n) = match *b {
            [ref batch @ .., k, n] => (batch, k, Some(n)),
            [k] => (&[][..], k, None),
            [] => invalid!("input B is a scalar, where a vector or matrices are expected"),
        };
        if inner_a != inner_b {
            invalid!("shapes {a:?} and {b:?} do not multiply: {inner_a} columns meet {inner_b} rows");
        }
        let batch = index::broadcast(&[batch_a, batch_b])?;
        let output = batch.iter().copied().chain(m).chain(n).collect();
        Ok(MatMulShape { batch, m: m.unwrap_or(1), k: inner_a, n: n.unwrap_or(1), output })
    }

    /// Multiply-accumulate operations, saturating.
    pub fn macs(&self) -> u64 {
        let extents = self.batch.iter().chain([&self.m, &self.k, &self.n]);
        if extents.clone().any(|&d| d == 0) {
            0
        } else {
            extents.fold(1u64, |n, &d| n.saturating_mul(d as u64))
        }
    }

    /// The products of all pairs of matrices in row-major `a` and `b`.
    pub(crate) fn stacks<T: Copy>(
        &self,
        a: (&Tensor, &[T]),
        b: (&Tensor, &[T]),
        zero: T,
        multiply_add: impl Fn(T, T, T) -> T,
    ) -> Result<Vec<T>> {
        let batch_strides = |t: &Tensor, matrix: usize| -> Vec<usize> {
            let own = &t.shape()[..t.rank().saturating_sub(2)];
            let strides = index::broadcast_strides(own, &self.batch);
            strides.into_iter().map(|s| s.saturating_mul(matrix)).collect()
        };
        let strides_a = batch_strides(a.0, self.m.saturating_mul(self.k));
        let strides_b = batch_strides(b.0, self.k.saturating_mul(self.n));
        let mut out = room(&self.output)?;
        if element_count(&self.output)? == 0 {
            return Ok(out);
        }
        index::for_each(&self.batch, [&strides_a, &strides_b], |_, [i, j]| {
            let left = Matrix { values: a.1.get(i..).unwrap_or_default(), row: self.k, column: 1 };
            let right = Matrix { values: b.1.get(j..).unwrap_or_default(), row: self.n, column: 1 };
            multiply([self.m, self.k, self.n], left, right, zero, &multiply_add, &mut out);
        });
        Ok(out)
    }
}

/// A matrix within a slice, by its strides.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    /// Starts at the first element.
    pub values: &'a [T],
    /// The distance from a row to the next.
    pub row: usize,
    /// The distance from a column to the next.
    pub column: usize,
}

/// Appends the `m × n` product of two matrices to `out`, in row-major order.
pub(super) fn multiply<T: Copy>(
    [m, k, n]: [usize; 3],
    a: Matrix<T>,
    b: Matrix<T>,
    zero: T,
    multiply_add: impl Fn(T, T, T) -> T,
    out: &mut Vec<T>,
) {
    for row in 0..m {
        for column in 0..n {
            out.push((0..k).fold(zero, |sum, i| {
                multiply_add(
                    sum,
                    a.values[row * a.row + i * a.column],
                    b.values[i * b.row + column * b.column],
                )
            }));
        }
    }
}

/// `sum + x · y` for floats.
pub(super) fn float_multiply_add(sum: f64, x: f64, y: f64) -> f64 {
    sum + x * y
}

/// `sum + x · y` for integers, wrapping.
pub(super) fn int_multiply_add(sum: i128, x: i128, y: i128) -> i128 {
    sum.wrapping_add(x.wrapping_mul(y))
}

impl MatMul {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(MatMul))
    }
}

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let a = typed_fact(inputs, 0, "input A", WIDE)?;
        let b = typed_fact(inputs, 1, "input B", WIDE)?;
        expect_same_type(a, b)?;
        Ok(vec![match (a.shape(), b.shape()) {
            (Some(x), Some(y)) => Fact::new(a.dtype, &MatMulShape::new(x, y)?.output),
            _ => Fact::unknown(a.dtype),
        }])
    }
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        let shape = |i| optional_fact(inputs, i).and_then(|f| f.shape());
        match (shape(0), shape(1)) {
            (Some(a), Some(b)) => MatMulShape::new(a, b).map_or(0, |s| s.macs()),
            _ => 0,
        }
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        let shape = MatMulShape::new(a.shape(), b.shape())?;
        let numbers = match pair(a, b)? {
            Pair::Float(x, y) => Numbers::Float(shape.stacks((a, &x), (b, &y), 0.0, float_multiply_add)?),
            Pair::Int(x, y) => Numbers::Int(shape.stacks((a, &x), (b, &y), 0, int_multiply_add)?),
        };
        Ok(vec![Tensor::from_numbers(a.dtype(), &shape.output, &numbers)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{counting, eval, floats, refusal};
    use crate::tensor::DType;

    #[test]
    fn matrices_and_vectors() {
        let (m, v) = (counting(&[2, 3]), counting(&[3]));
        assert_eq!(eval(&MatMul, &[&m, &counting(&[3, 2])]), floats(&[2, 2], &[10., 13., 28., 40.]));
        assert_eq!(eval(&MatMul, &[&m, &v]), floats(&[2], &[5., 14.]));
        assert_eq!(eval(&MatMul, &[&v, &counting(&[3, 2])]), floats(&[2], &[10., 13.]));
        assert_eq!(eval(&MatMul, &[&v, &v]), Tensor::scalar(5f32));
    }

    #[test]
    fn stacks_broadcast() {
        let (a, b) = (counting(&[2, 1, 1, 2]), counting(&[3, 2, 1]));
        let got = eval(&MatMul, &[&a, &b]);
        assert_eq!(got, floats(&[2, 3, 1, 1], &[1., 3., 5., 3., 13., 23.]));
        assert_eq!(eval(&MatMul, &[&counting(&[2]), &b]).shape(), [3, 1]);
        let facts = [&a, &b].map(|t| Some(Fact::constant(t)));
        assert_eq!(MatMul.macs(&facts, &[]), 12);
    }

    #[test]
    fn empty_extents() {
        let zeros = |shape: &[usize]| Tensor::zeros(DType::F32, shape).unwrap();
        assert_eq!(eval(&MatMul, &[&zeros(&[2, 0]), &zeros(&[0, 3])]), zeros(&[2, 3]));
        assert_eq!(eval(&MatMul, &[&zeros(&[0, 2]), &zeros(&[2, 3])]).shape(), [0, 3]);
        assert_eq!(eval(&MatMul, &[&zeros(&[4, 2, 0]), &zeros(&[1, 0, 3])]), zeros(&[4, 2, 3]));
        assert_eq!(eval(&MatMul, &[&zeros(&[0, 2, 2]), &zeros(&[2, 3])]).shape(), [0, 2, 3]);
    }

    #[test]
    fn integers_wrap() {
        let a = Tensor::new(&[2], &[u64::MAX, u64::MAX]).unwrap();
        assert_eq!(eval(&MatMul, &[&a, &a]), Tensor::scalar(2u64));
    }

    #[test]
    fn refuses_what_does_not_multiply() {
        let fact = |shape: &[usize]| Fact::new(DType::F32, shape);
        assert!(refusal(&MatMul, &[fact(&[2, 3]), fact(&[2, 3])]).contains("3 columns meet 2 rows"));
        assert!(refusal(&MatMul, &[fact(&[]), fact(&[2])]).contains("scalar"));
        assert!(refusal(&MatMul, &[fact(&[2, 1, 1]), fact(&[3, 1, 1])]).contains("broadcast"));
        assert!(refusal(&MatMul, &[Fact::new(DType::I8, &[1]), Fact::new(DType::I8, &[1])]).contains("i8"));
    }
}
