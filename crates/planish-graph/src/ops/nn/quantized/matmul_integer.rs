//! MatMulInteger and QLinearMatMul: matrix products of small integers.
//!
//! As for the integer convolutions: exact sums of `(a - zero point of a) * (b - zero point of b)`, handed out as 32-bit
//! integers or brought to the scale of the output. Scales and zero points are one number, or one for each row of `a`
//! and each column of `b`.

use super::conv_integer::byte_type;
use super::quantize::check_scales;
use super::scales::requantize;
use crate::attributes::Attributes;
use crate::error::{Context, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::{element_count, room};
use crate::ops::math::matmul::MatMulShape;
use crate::ops::nn::conv::shaped;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{DType, Tensor, index};
use std::sync::Arc;

/// Inputs: a, b, zero point of a (optional), zero point of b (optional). The output is `i32`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatMulInteger;

/// Inputs: a, its scale and zero point, b, its scale and zero point, scale and zero point of the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QLinearMatMul;

/// A product of stacks of matrices with a parameter for each row of `a` and each column of `b`.
struct Product {
    shape: MatMulShape,
    /// The operands' shapes, vectors as matrices.
    a: Vec<usize>,
    b: Vec<usize>,
}

impl Product {
    fn resolve(a: &[usize], b: &[usize]) -> Result<Product> {
        let shape = MatMulShape::new(a, b)?;
        element_count(&shape.output)?;
        let a = if a.len() == 1 { vec![1, a[0]] } else { a.to_vec() };
        let b = if b.len() == 1 { vec![b[0], 1] } else { b.to_vec() };
        Ok(Product { shape, a, b })
    }
    /// The output with rows and columns, even where an operand is a vector.
    fn matrices(&self) -> Vec<usize> {
        [&self.shape.batch[..], &[self.shape.m, self.shape.n]].concat()
    }
    /// Strides with which a row parameter (of `a`) or a column parameter (of `b`) of this shape is read for elements of
    /// `target`; an error where it does not fit.
    fn parameter(&self, shape: &[usize], of_rows: bool, target: &[usize]) -> Result<Vec<usize>> {
        let wanted = if of_rows { self.shape.m } else { self.shape.n };
        let shape = match shape {
            [] | [1] => vec![1, 1],
            &[count] if of_rows && count == wanted => vec![count, 1],
            &[count] if count == wanted => vec![1, count],
            [.., last, 1] if of_rows && *last == wanted => shape.to_vec(),
            [.., 1, last] if !of_rows && *last == wanted => shape.to_vec(),
            _ => invalid!("a parameter of shape {shape:?} does not fit {wanted} rows or columns"),
        };
        if index::broadcast(&[&shape, target])? != target {
            invalid!("a parameter of shape {shape:?} does not fit operands of shape {target:?}");
        }
        Ok(index::broadcast_strides(&shape, target))
    }
    /// The sums, in the order of [`Self::matrices`].
    fn sums(&self, a: (&Tensor, Option<&Tensor>), b: (&Tensor, Option<&Tensor>)) -> Result<Vec<i64>> {
        let [left, right] = [self.shifted(a, true)?, self.shifted(b, false)?];
        self.shape.stacks((a.0, &left), (b.0, &right), 0, |sum, x, y| sum + x * y)
    }
    /// An operand less its zero point.
    fn shifted(&self, (values, zero): (&Tensor, Option<&Tensor>), is_a: bool) -> Result<Vec<i64>> {
        let shape = if is_a { &self.a } else { &self.b };
        let mut shifted = values.to_i64s()?;
        if let Some(zero) = zero {
            let strides = self.parameter(zero.shape(), is_a, shape)?;
            let zeros = zero.to_i64s()?;
            index::for_each(shape, [&strides], |flat, [at]| shifted[flat] -= zeros[at]);
        }
        Ok(shifted)
    }
}

/// The product's shape where both operands' are known, after checking the parameters: inputs `rows` belong to `a`,
/// inputs `columns` to `b`.
fn infer_shape(
    inputs: &[Option<Fact>],
    [a, b]: [usize; 2],
    rows: &[usize],
    columns: &[usize],
) -> Result<Option<Vec<usize>>> {
    let (Some(a), Some(b)) = (required_fact(inputs, a)?.shape(), required_fact(inputs, b)?.shape()) else {
        return Ok(None);
    };
    let product = Product::resolve(a, b)?;
    for (list, of_rows) in [(rows, true), (columns, false)] {
        for &parameter in list {
            if let Some(shape) = optional_fact(inputs, parameter).and_then(|f| f.shape()) {
                let target = if of_rows { &product.a } else { &product.b };
                product.parameter(shape, of_rows, target).context(|| format!("input {parameter}"))?;
            }
        }
    }
    Ok(Some(product.shape.output))
}

fn count(inputs: &[Option<Fact>], [a, b]: [usize; 2]) -> u64 {
    let shape = |i: usize| optional_fact(inputs, i).and_then(|f| f.shape());
    match (shape(a), shape(b)) {
        (Some(a), Some(b)) => Product::resolve(a, b).map_or(0, |p| p.shape.macs()),
        _ => 0,
    }
}

impl MatMulInteger {
    pub(in crate::ops::nn) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(MatMulInteger))
    }
}

impl Operator for MatMulInteger {
    fn name(&self) -> &'static str {
        "MatMulInteger"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 4)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        for index in [0, 1] {
            let dtype = byte_type(inputs, index)?;
            crate::ops::nn::checks::same_type(inputs, index + 2, dtype)?;
        }
        Ok(vec![shaped(DType::I32, infer_shape(inputs, [0, 1], &[2], &[3])?)])
    }
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        count(inputs, [0, 1])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        let product = Product::resolve(a.shape(), b.shape())?;
        let sums = product.sums((a, optional(inputs, 2)), (b, optional(inputs, 3)))?;
        let mut wide: Vec<i128> = room(&product.shape.output)?;
        wide.extend(sums.into_iter().map(i128::from));
        Ok(vec![Tensor::from_ints(DType::I32, &product.shape.output, &wide)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

impl QLinearMatMul {
    pub(in crate::ops::nn) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(QLinearMatMul))
    }
}

impl Operator for QLinearMatMul {
    fn name(&self) -> &'static str {
        "QLinearMatMul"
    }
    fn arity(&self) -> Arity {
        Arity::exact(8)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        for (values, zero) in [(0, 2), (3, 5)] {
            let dtype = byte_type(inputs, values)?;
            crate::ops::nn::checks::same_type(inputs, zero, dtype)?;
        }
        let target = byte_type(inputs, 7)?;
        let scale = required_fact(inputs, 1)?.dtype;
        if !scale.is_wide_float() {
            invalid!("input 1 is of type {scale}, where a float type is expected");
        }
        for index in [4, 6] {
            crate::ops::nn::checks::same_type(inputs, index, scale)?;
        }
        for index in [1, 4, 6] {
            check_scales(inputs, index)?;
        }
        for index in [6, 7] {
            match required_fact(inputs, index)?.shape() {
                None | Some([] | [1]) => {}
                Some(shape) => invalid!("input {index} is of shape {shape:?}, where one number is expected"),
            }
        }
        Ok(vec![shaped(target, infer_shape(inputs, [0, 3], &[1, 2], &[4, 5])?)])
    }
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        count(inputs, [0, 3])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (a, b) = (required(inputs, 0)?, required(inputs, 3)?);
        let product = Product::resolve(a.shape(), b.shape())?;
        let sums = product.sums((a, optional(inputs, 2)), (b, optional(inputs, 5)))?;
        let (a_scale, b_scale, y_zero) = (required(inputs, 1)?, required(inputs, 4)?, required(inputs, 7)?);
        let (a_scales, b_scales) = (a_scale.to_f32s(), b_scale.to_f32s());
        let (y_scale, zero) = (required(inputs, 6)?.to_f32s(), y_zero.to_i64s()?);
        let (&[y_scale], &[zero]) = (&y_scale[..], &zero[..]) else {
            invalid!("the scale and the zero point of y must hold one number each")
        };
        let matrices = product.matrices();
        let at_a = product.parameter(a_scale.shape(), true, &matrices)?;
        let at_b = product.parameter(b_scale.shape(), false, &matrices)?;
        let mut values: Vec<i128> = room(&matrices)?;
        index::for_each(&matrices, [&at_a, &at_b], |flat, [a, b]| {
            let multiplier = a_scales[a] * b_scales[b] / y_scale;
            values.push(requantize(sums[flat], multiplier, i128::from(zero), y_zero.dtype()));
        });
        Ok(vec![Tensor::from_ints(y_zero.dtype(), &product.shape.output, &values)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_less_the_zero_points() {
        let a = Tensor::new(&[4, 3], &[11u8, 7, 3, 10, 6, 2, 9, 5, 1, 8, 4, 0]).unwrap();
        let b = Tensor::new(&[3, 2], &[1u8, 4, 2, 5, 3, 6]).unwrap();
        let (za, zb) = (Tensor::new(&[1], &[12u8]).unwrap(), Tensor::new(&[1], &[0u8]).unwrap());
        let y = MatMulInteger.eval(&[Some(&a), Some(&b), Some(&za), Some(&zb)], 1).unwrap().remove(0);
        assert_eq!(y.as_slice::<i32>().unwrap(), [-38, -83, -44, -98, -50, -113, -56, -128]);
        let v = Tensor::new(&[3], &[1u8, 1, 1]).unwrap();
        let columns = Tensor::new(&[2], &[1u8, 5]).unwrap();
        let y = MatMulInteger.eval(&[Some(&v), Some(&b), None, Some(&columns)], 1).unwrap().remove(0);
        assert_eq!((y.shape(), y.as_slice::<i32>().unwrap()), (&[2][..], &[3, 0][..]));
    }

    #[test]
    fn scales_rows_and_columns() {
        let a = Tensor::new(&[2, 2], &[1i8, 2, 3, 4]).unwrap();
        let b = Tensor::new(&[2, 2], &[1i8, 0, 0, 1]).unwrap();
        let (rows, zeros) = (Tensor::new(&[2], &[1f32, 2.]).unwrap(), Tensor::new(&[2], &[0i8, 0]).unwrap());
        let columns = Tensor::new(&[2], &[10f32, 1.]).unwrap();
        let (ys, yz) = (Tensor::scalar(1f32), Tensor::scalar(0i8));
        let given = [&a, &rows, &zeros, &b, &columns, &zeros, &ys, &yz].map(Some);
        let y = QLinearMatMul.eval(&given, 1).unwrap().remove(0);
        assert_eq!(y.as_slice::<i8>().unwrap(), [10, 2, 60, 8]);
        let facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(QLinearMatMul.infer(&facts, 1).unwrap(), [Fact::new(DType::I8, &[2, 2])]);
        assert_eq!(QLinearMatMul.macs(&facts, &[]), 8);
    }

    #[test]
    fn refuses_what_does_not_multiply() {
        let fact = |s: &[usize]| Some(Fact::new(DType::I8, s));
        assert!(MatMulInteger.infer(&[fact(&[2, 3]), fact(&[2, 3])], 1).is_err());
        assert!(MatMulInteger.infer(&[fact(&[]), fact(&[2, 3])], 1).is_err());
        assert!(MatMulInteger.infer(&[fact(&[2, 3]), fact(&[3, 4]), fact(&[3])], 1).is_err());
        let none = Tensor::zeros(DType::I8, &[0, 3]).unwrap();
        let b = Tensor::zeros(DType::I8, &[3, 4]).unwrap();
        assert_eq!(MatMulInteger.eval(&[Some(&none), Some(&b)], 1).unwrap()[0].shape(), [0, 4]);
    }
}
