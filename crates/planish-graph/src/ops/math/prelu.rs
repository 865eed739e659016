//! PRelu: the leaky rectifier whose slopes are learned.

use super::elementwise::{Pair, WIDE, expect_same_type, pair, shaped_like, typed_fact, zip};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{Numbers, Tensor, index};
use std::sync::Arc;

/// `y = x` where `x ≥ 0`, else `slope · x`; `slope` broadcasts to the shape of `x`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PRelu;

impl PRelu {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(PRelu))
    }
}

impl Operator for PRelu {
    fn name(&self) -> &'static str {
        "PRelu"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = typed_fact(inputs, 0, "the input", WIDE)?;
        let slope = typed_fact(inputs, 1, "the slope", WIDE)?;
        expect_same_type(x, slope)?;
        if let (Some(shape), Some(own)) = (x.shape(), slope.shape())
            && index::broadcast(&[shape, own]).ok().as_deref() != Some(shape)
        {
            invalid!("the slope of shape {own:?} does not broadcast to the input's shape {shape:?}");
        }
        Ok(vec![shaped_like(x.dtype, x)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, slope) = (required(inputs, 0)?, required(inputs, 1)?);
        let (at_x, at_slope) = (x.shape(), slope.shape());
        let numbers = match pair(x, slope)? {
            Pair::Float(v, s) => {
                let leak = |x: f64, s: f64| if x < 0.0 { x * s } else { x };
                Numbers::Float(zip(at_x, (at_x, &v), (at_slope, &s), leak)?)
            }
            Pair::Int(v, s) => {
                let leak = |x: i128, s: i128| if x < 0 { x.wrapping_mul(s) } else { x };
                Numbers::Int(zip(at_x, (at_x, &v), (at_slope, &s), leak)?)
            }
        };
        Ok(vec![Tensor::from_numbers(x.dtype(), at_x, &numbers)?])
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
    fn slopes_broadcast_to_the_input() {
        let x = floats(&[2, 2], &[-1., 2., -3., -4.]);
        let slope = floats(&[2, 1], &[0.5, 2.]);
        assert_eq!(eval(&PRelu, &[&x, &slope]), floats(&[2, 2], &[-0.5, 2., -6., -8.]));
        let (x, slope) = (Tensor::new(&[2], &[-3i32, 3]).unwrap(), Tensor::scalar(2i32));
        assert_eq!(eval(&PRelu, &[&x, &slope]).to_i64s().unwrap(), [-6, 3]);
    }

    #[test]
    fn the_input_does_not_broadcast() {
        let fact = |shape: &[usize]| Fact::new(DType::F32, shape);
        assert!(refusal(&PRelu, &[fact(&[1]), fact(&[2])]).contains("slope"));
        assert!(refusal(&PRelu, &[fact(&[2]), fact(&[1, 2])]).contains("slope"));
    }
}
