//! Range: numbers counting up or down by a step.

use super::inputs::check_same_type;
use super::number::Number;
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// `start`, `start + delta`, … up to and without `limit`; the inputs are these three, scalars of one type. Each element
/// is computed from its place, in `f64` for floats, so nothing accumulates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range;

impl Range {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Range))
    }

    fn count(start: Number, limit: Number, delta: Number) -> Result<usize> {
        if delta.is_zero() {
            invalid!("input \"delta\" is 0");
        }
        let count = match (start, limit, delta) {
            (Number::Int(start), Number::Int(limit), Number::Int(delta)) => {
                let (span, delta) = if delta > 0 { (limit - start, delta) } else { (start - limit, -delta) };
                usize::try_from(if span <= 0 { 0 } else { (span - 1) / delta + 1 }).ok()
            }
            (Number::Float(start), Number::Float(limit), Number::Float(delta)) => {
                let count = ((limit - start) / delta).ceil();
                if !count.is_finite() {
                    invalid!("cannot count from {start} to {limit} by {delta}");
                }
                // Beyond 2^53 neighbours are no longer told apart, and no machine could hold them.
                (count < 2f64.powi(53)).then_some(count.max(0.0) as usize)
            }
            _ => None,
        };
        count.ok_or_else(|| {
            Error::limit(format!("counting from {start:?} to {limit:?} by {delta:?} is too long"))
        })
    }
}

fn scalar(tensor: &Tensor) -> Number {
    Number::read(tensor.dtype(), tensor.bytes())
}

impl Operator for Range {
    fn name(&self) -> &'static str {
        "Range"
    }
    fn arity(&self) -> Arity {
        Arity::exact(3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let start = required_fact(inputs, 0)?;
        if start.dtype == DType::Bool {
            invalid!("input \"start\" is {}, numbers are expected", start.dtype);
        }
        let mut values = Vec::new();
        for (i, name) in ["start", "limit", "delta"].into_iter().enumerate() {
            let fact = required_fact(inputs, i)?;
            check_same_type(start, fact, name)?;
            if fact.shape().is_some_and(|s| !matches!(s, [] | [1])) {
                invalid!("input \"{name}\" has shape {:?}, a scalar is expected", fact.shape());
            }
            values.extend(fact.value.as_ref().map(scalar));
        }
        Ok(vec![match values[..] {
            [first, limit, delta] => Fact::new(start.dtype, &[Range::count(first, limit, delta)?]),
            _ => Fact::unknown(start.dtype),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let dtype = required(inputs, 0)?.dtype();
        let [start, limit, delta] =
            [scalar(required(inputs, 0)?), scalar(required(inputs, 1)?), scalar(required(inputs, 2)?)];
        let mut out = Tensor::zeros(dtype, &[Range::count(start, limit, delta)?])?;
        for (i, place) in out.bytes_mut().chunks_exact_mut(dtype.size()).enumerate() {
            let number = match (start, delta) {
                (Number::Int(start), Number::Int(delta)) => Number::Int(start + i as i128 * delta),
                (Number::Float(start), Number::Float(delta)) => Number::Float(start + i as f64 * delta),
                (other, _) => other,
            };
            number.write(dtype, place);
        }
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ints, run};
    use super::*;
    use crate::limits::{Budget, with_budget};

    fn range<T: crate::tensor::Element>(start: T, limit: T, delta: T) -> Result<Tensor> {
        run(Range, &[&Tensor::scalar(start), &Tensor::scalar(limit), &Tensor::scalar(delta)])
    }

    #[test]
    fn counts_up_and_down() {
        assert_eq!(range(3i64, 9, 3).unwrap(), ints(&[3, 6]));
        assert_eq!(range(10i64, 4, -2).unwrap(), ints(&[10, 8, 6]));
        assert_eq!(range(1i64, 1, 1).unwrap(), ints(&[]));
        assert_eq!(range(0i64, 5, -1).unwrap(), ints(&[]));
        assert_eq!(range(1f32, 2., 0.25).unwrap().to_f32s(), [1., 1.25, 1.5, 1.75]);
        assert_eq!(range(i64::MIN, i64::MAX, i64::MAX).unwrap(), ints(&[i64::MIN, -1, i64::MAX - 1]));
        assert_eq!(range(0u64, u64::MAX, u64::MAX).unwrap().len(), 1);
    }

    #[test]
    fn refuses_what_never_ends() {
        assert!(range(0i32, 1, 0).is_err());
        for (start, limit, delta) in
            [(0f32, 1., 0.), (0., f32::NAN, 1.), (0., f32::INFINITY, 1.), (0., 1e30, 1e-30)]
        {
            assert!(range(start, limit, delta).is_err(), "{start} {limit} {delta}");
        }
        with_budget(&Budget::new(1000), || assert!(range(0i64, i64::MAX, 1).is_err()));
        assert!(range(i64::MIN, i64::MAX, 1).is_err());
        assert!(run(Range, &[&ints(&[1, 2]), &ints(&[3]), &ints(&[1])]).is_err());
    }
}
