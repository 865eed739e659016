//! Det: the determinants of square matrices.

use super::elementwise::{FLOATS, typed_fact};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::room;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// `y = det x` of the matrices in the last two axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Det;

impl Det {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Det))
    }
}

/// The axes before the matrices, and the matrices' extent.
fn split(shape: &[usize]) -> Result<(&[usize], usize)> {
    match shape {
        [batch @ .., rows, columns] if rows == columns => Ok((batch, *rows)),
        _ => invalid!("shape {shape:?} does not end in square matrices"),
    }
}

/// The determinant of a row-major `n × n` matrix, by elimination with the largest pivots.
fn determinant(mut matrix: Vec<f64>, n: usize) -> f64 {
    let mut product = 1.0;
    for column in 0..n {
        let size = |row: usize| matrix[row * n + column].abs();
        let pivot = (column + 1..n).fold(column, |best, row| if size(row) > size(best) { row } else { best });
        if pivot != column {
            (0..n).for_each(|i| matrix.swap(pivot * n + i, column * n + i));
            product = -product;
        }
        let head = matrix[column * n + column];
        if head == 0.0 {
            return 0.0;
        }
        product *= head;
        for row in column + 1..n {
            let factor = matrix[row * n + column] / head;
            for i in column..n {
                matrix[row * n + i] -= factor * matrix[column * n + i];
            }
        }
    }
    product
}

impl Operator for Det {
    fn name(&self) -> &'static str {
        "Det"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = typed_fact(inputs, 0, "the input", FLOATS)?;
        Ok(vec![match x.shape() {
            Some(shape) => Fact::new(x.dtype, split(shape)?.0),
            None => Fact::unknown(x.dtype),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (batch, n) = split(x.shape())?;
        let (values, step) = (x.to_f64s(), n.saturating_mul(n));
        let mut out = room(batch)?;
        let unit = vec![0; batch.len()];
        index::for_each(batch, [&unit], |flat, _| {
            let matrix = values.get(flat * step..(flat + 1) * step).unwrap_or_default();
            out.push(determinant(matrix.to_vec(), n));
        });
        Ok(vec![Tensor::from_f64s(x.dtype(), batch, &out)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{eval, floats, refusal};
    use crate::tensor::DType;

    #[test]
    fn of_one_and_of_many() {
        let x = floats(&[2, 2], &[0., 1., 2., 3.]);
        assert_eq!(eval(&Det, &[&x]), Tensor::scalar(-2f32));
        let x =
            floats(&[2, 3, 3], &[1., 2., 3., 4., 5., 6., 7., 8., 10., 2., 0., 0., 0., 3., 0., 9., 9., 4.]);
        for (got, expected) in eval(&Det, &[&x]).to_f32s().iter().zip([-3., 24.]) {
            assert!((got - expected).abs() < 1e-5, "{got}");
        }
        assert_eq!(eval(&Det, &[&floats(&[2, 2], &[1., 2., 2., 4.])]), Tensor::scalar(0f32));
    }

    #[test]
    fn of_nothing() {
        let x = Tensor::zeros(DType::F32, &[2, 0, 0]).unwrap();
        assert_eq!(eval(&Det, &[&x]), floats(&[2], &[1., 1.]));
        assert_eq!(eval(&Det, &[&Tensor::zeros(DType::F32, &[0, 2, 2]).unwrap()]).shape(), [0]);
    }

    #[test]
    fn refuses_what_is_not_square() {
        for shape in [&[][..], &[2], &[2, 3]] {
            assert!(refusal(&Det, &[Fact::new(DType::F32, shape)]).contains("square"));
        }
    }
}
