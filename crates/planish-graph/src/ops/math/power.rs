//! Pow: the one arithmetic function whose inputs may have different types.

use super::elementwise::{NUMBERS, broadcast_fact, typed_fact, zip};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{DType, Numbers, Tensor, index};
use std::sync::Arc;

/// `y = x ^ exponent` in the type of `x`, with broadcasting. Integer powers of integers are exact and wrap; where the
/// exponent is negative they are truncated towards zero (0 for a base of 0, as there is no infinity).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pow;

/// The types of the base.
const BASES: &[DType] = &[DType::F64, DType::F32, DType::F16, DType::BF16, DType::I32, DType::I64];

impl Pow {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Pow))
    }
}

/// `base ^ exponent`, wrapping.
fn int_power(base: i128, exponent: i128) -> i128 {
    if exponent < 0 {
        return match base {
            1 => 1,
            -1 if exponent % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut result, mut square, mut left) = (1i128, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        left >>= 1;
    }
    result
}

impl Operator for Pow {
    fn name(&self) -> &'static str {
        "Pow"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let base = typed_fact(inputs, 0, "the base", BASES)?;
        let exponent = typed_fact(inputs, 1, "the exponent", NUMBERS)?;
        Ok(vec![broadcast_fact(base.dtype, &[base, exponent])?])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, e) = (required(inputs, 0)?, required(inputs, 1)?);
        let shape = index::broadcast(&[x.shape(), e.shape()])?;
        let (at_x, at_e) = (x.shape(), e.shape());
        let numbers = match (x.to_numbers(), e.to_numbers()) {
            (Numbers::Float(b), e) => {
                Numbers::Float(zip(&shape, (at_x, &b), (at_e, &e.into_floats()), f64::powf)?)
            }
            (Numbers::Int(b), Numbers::Int(e)) => {
                Numbers::Int(zip(&shape, (at_x, &b), (at_e, &e), int_power)?)
            }
            (Numbers::Int(b), Numbers::Float(e)) => {
                Numbers::Int(zip(&shape, (at_x, &b), (at_e, &e), |b: i128, e: f64| {
                    (b as f64).powf(e) as i128
                })?)
            }
        };
        Ok(vec![Tensor::from_numbers(x.dtype(), &shape, &numbers)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{eval, floats, refusal};

    #[test]
    fn powers_of_each_pair_of_sorts() {
        let x = floats(&[3], &[1., 2., 3.]);
        let e = Tensor::new(&[3], &[4i64, 5, -1]).unwrap();
        assert_eq!(eval(&Pow, &[&x, &e]), floats(&[3], &[1., 32., 1. / 3.]));
        let x = Tensor::new(&[2, 1], &[2i32, -3]).unwrap();
        let e = floats(&[2], &[2., 0.5]);
        assert_eq!(eval(&Pow, &[&x, &e]).to_i64s().unwrap(), [4, 1, 9, 0]);
        let e = Tensor::new(&[2], &[3u8, 255]).unwrap();
        assert_eq!(
            eval(&Pow, &[&x, &e]).to_i64s().unwrap(),
            [8, 0, -27, 3i32.wrapping_pow(255).wrapping_neg() as i64]
        );
    }

    #[test]
    fn negative_integer_powers() {
        for (base, exponent, expected) in
            [(2, -1, 0), (1, -5, 1), (-1, -3, -1), (-1, -4, 1), (0, -1, 0), (0, 0, 1)]
        {
            assert_eq!(int_power(base, exponent), expected, "{base}^{exponent}");
        }
        assert_eq!(int_power(3, 1000) as u64, 3u64.wrapping_pow(1000));
        assert_eq!(int_power(2, i128::from(u64::MAX)), 0);
    }

    #[test]
    fn refuses_bases_that_onnx_does_not_list() {
        assert!(refusal(&Pow, &[Fact::new(DType::U8, &[]), Fact::new(DType::U8, &[])]).contains("the base"));
    }
}
