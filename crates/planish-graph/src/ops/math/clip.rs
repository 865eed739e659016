//! Clip: limits elements to an interval.

use super::elementwise::{FLOATS, NUMBERS, expect_single, map, shaped_like, typed_fact};
use super::special::{maximum, minimum};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required};
use crate::tensor::{DType, Numbers, Tensor};
use std::sync::Arc;

/// `y = min(max, max(min, x))` with the limits as optional inputs 1 and 2 (so `max` wins where `min` is larger).
///
/// Limits have the type of `x`. Before opset 11 they were attributes, which are `f32` whatever the type of `x`, so `f32`
/// limits are also taken for other floats; a writer must cast those.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip;

impl Clip {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        if node.before(11) {
            for (index, name) in [(1, "min"), (2, "max")] {
                if let Some(limit) = node.attributes.opt_float(name)? {
                    node.set_constant_input(index, Tensor::scalar(limit));
                }
            }
        }
        Ok(Arc::new(Clip))
    }
}

/// The one number of `limit`, as a float and as an integer.
fn number(limit: &Tensor) -> (f64, i128) {
    match limit.to_numbers() {
        Numbers::Float(v) => (v.first().copied().unwrap_or(f64::NAN), 0),
        Numbers::Int(v) => (f64::NAN, v.first().copied().unwrap_or(0)),
    }
}

impl Operator for Clip {
    fn name(&self) -> &'static str {
        "Clip"
    }
    fn arity(&self) -> Arity {
        Arity::range(1, 3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = typed_fact(inputs, 0, "the input", NUMBERS)?;
        for (index, name) in [(1, "min"), (2, "max")] {
            let Some(limit) = optional_fact(inputs, index) else { continue };
            let from_attribute = limit.dtype == DType::F32 && FLOATS.contains(&x.dtype);
            if limit.dtype != x.dtype && !from_attribute {
                invalid!("{name} has type {}, the input has type {}", limit.dtype, x.dtype);
            }
            expect_single(limit, name)?;
        }
        Ok(vec![shaped_like(x.dtype, x)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (low, high) = (optional(inputs, 1).map(number), optional(inputs, 2).map(number));
        let float = |v: f64| {
            let raised = low.map_or(v, |(low, _)| maximum(v, low));
            high.map_or(raised, |(high, _)| minimum(raised, high))
        };
        let int = |v: i128| {
            let raised = low.map_or(v, |(_, low)| v.max(low));
            high.map_or(raised, |(_, high)| raised.min(high))
        };
        Ok(vec![map(x, float, int)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{eval, eval_all, floats, node, refusal};
    use crate::ops::read_operator;

    #[test]
    fn limits() {
        let x = floats(&[4], &[-3., 0.5, 9., f32::NAN]);
        let (low, high) = (Tensor::scalar(-1f32), floats(&[1], &[2.]));
        let got = eval(&Clip, &[&x, &low, &high]).to_f32s();
        assert_eq!(got[..3], [-1., 0.5, 2.]);
        assert!(got[3].is_nan());
        assert_eq!(eval_all(&Clip, &[Some(&x), None, Some(&high)], 1)[0].to_f32s()[..3], [-3., 0.5, 2.]);
        assert_eq!(eval(&Clip, &[&x, &low]).to_f32s()[..3], [-1., 0.5, 9.]);
        assert_eq!(eval(&Clip, &[&x]), x);
        assert_eq!(eval(&Clip, &[&x, &high, &low]).to_f32s()[..3], [-1., -1., -1.]);
        let (x, high) = (Tensor::new(&[2], &[5i8, -5]).unwrap(), Tensor::scalar(1i8));
        assert_eq!(eval_all(&Clip, &[Some(&x), None, Some(&high)], 1)[0].to_i64s().unwrap(), [1, -5]);
    }

    #[test]
    fn old_attributes_become_inputs() {
        let attributes = Attributes::new().with("max", 6f32);
        let mut old = node("Clip", 6, attributes);
        read_operator(&mut old).unwrap();
        assert_eq!(old.added_inputs.into_iter().collect::<Vec<_>>(), [(2, Tensor::scalar(6f32))]);
        let half = Tensor::from_f64s(DType::F16, &[2], &[1.0, 7.0]).unwrap();
        let six = Tensor::scalar(6f32);
        assert_eq!(eval_all(&Clip, &[Some(&half), None, Some(&six)], 1)[0].to_f32s(), [1., 6.]);
    }

    #[test]
    fn refuses_other_limits() {
        let fact = Fact::new;
        assert!(
            refusal(&Clip, &[fact(DType::F32, &[2]), fact(DType::F32, &[2])]).contains("min must be one")
        );
        assert!(
            refusal(&Clip, &[fact(DType::I32, &[2]), fact(DType::F32, &[])]).contains("min has type f32")
        );
    }
}
