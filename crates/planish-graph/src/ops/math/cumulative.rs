//! CumSum and CumProd: running sums and products along an axis.

use super::elementwise::{Lanes, WIDE, expect_single, functions, shaped_like, typed_fact};
use crate::attributes::Attributes;
use crate::error::{Context, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{DType, Numbers, Tensor, index};
use std::sync::Arc;

functions! {
    /// What is accumulated.
    CumulativeFunction {
        /// The sum.
        Sum = "CumSum",
        /// The product.
        Product = "CumProd",
    }
}

/// Each element replaced by the sum or product of those up to it along the axis that input 1 gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cumulative {
    /// What is accumulated.
    pub function: CumulativeFunction,
    /// Whether the element itself is left out.
    pub exclusive: bool,
    /// Whether the accumulation runs from the end of the axis.
    pub reverse: bool,
}

impl Cumulative {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Cumulative {
            function: CumulativeFunction::from_name(&node.op_type)?,
            exclusive: node.attributes.flag("exclusive", false)?,
            reverse: node.attributes.flag("reverse", false)?,
        }))
    }

    /// The running totals of `values`.
    fn run<T: Copy>(&self, lanes: Lanes, values: &[T], start: T, step: impl Fn(T, T) -> T) -> Vec<T> {
        let mut out = values.to_vec();
        for first in lanes.starts() {
            let mut total = start;
            let mut visit = |i: usize| {
                let before = total;
                total = step(total, values[i]);
                out[i] = if self.exclusive { before } else { total };
            };
            if self.reverse {
                lanes.lane(first).rev().for_each(&mut visit);
            } else {
                lanes.lane(first).for_each(&mut visit);
            }
        }
        out
    }
}

/// The axis that `axis` names in a tensor of `rank`.
fn named_axis(axis: &Tensor, rank: usize) -> Result<usize> {
    match axis.to_i64s()?.first() {
        Some(&a) => index::axis(a, rank).context(|| "input \"axis\""),
        None => invalid!("input \"axis\" is empty"),
    }
}

impl Operator for Cumulative {
    fn name(&self) -> &'static str {
        self.function.name()
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = typed_fact(inputs, 0, "the input", WIDE)?;
        let axis = typed_fact(inputs, 1, "input \"axis\"", &[DType::I32, DType::I64])?;
        expect_single(axis, "input \"axis\"")?;
        if let (Some(shape), Some(axis)) = (x.shape(), &axis.value) {
            named_axis(axis, shape.len())?;
        }
        Ok(vec![shaped_like(x.dtype, x)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let lanes = Lanes::new(x.shape(), named_axis(required(inputs, 1)?, x.rank())?);
        let numbers = match (x.to_numbers(), self.function) {
            (Numbers::Float(v), CumulativeFunction::Sum) => {
                Numbers::Float(self.run(lanes, &v, 0.0, |a, b| a + b))
            }
            (Numbers::Float(v), CumulativeFunction::Product) => {
                Numbers::Float(self.run(lanes, &v, 1.0, |a, b| a * b))
            }
            (Numbers::Int(v), CumulativeFunction::Sum) => {
                Numbers::Int(self.run(lanes, &v, 0, i128::wrapping_add))
            }
            (Numbers::Int(v), CumulativeFunction::Product) => {
                Numbers::Int(self.run(lanes, &v, 1, i128::wrapping_mul))
            }
        };
        Ok(vec![Tensor::from_numbers(x.dtype(), x.shape(), &numbers)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("exclusive", self.exclusive).with("reverse", self.reverse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{eval, floats, read, refusal};

    #[test]
    fn all_directions() {
        let x = floats(&[3], &[1., 2., 3.]);
        for (name, exclusive, reverse, expected) in [
            ("CumSum", false, false, [1., 3., 6.]),
            ("CumSum", true, false, [0., 1., 3.]),
            ("CumSum", false, true, [6., 5., 3.]),
            ("CumSum", true, true, [5., 3., 0.]),
            ("CumProd", false, false, [1., 2., 6.]),
            ("CumProd", true, false, [1., 1., 2.]),
            ("CumProd", false, true, [6., 6., 3.]),
            ("CumProd", true, true, [6., 3., 1.]),
        ] {
            let op = read(name, 26, Attributes::new().with("exclusive", exclusive).with("reverse", reverse))
                .unwrap();
            assert_eq!(eval(op.as_ref(), &[&x, &Tensor::scalar(0i32)]), floats(&[3], &expected), "{op:?}");
        }
    }

    #[test]
    fn along_any_axis_of_integers() {
        let op = read("CumSum", 14, Attributes::new()).unwrap();
        let x = Tensor::new(&[2, 2], &[i32::MAX, 1, 1, 2]).unwrap();
        assert_eq!(
            eval(op.as_ref(), &[&x, &Tensor::scalar(0i64)]).to_i64s().unwrap(),
            [2147483647, 1, -2147483648, 3]
        );
        let minus = Tensor::from_i64s(&[-1]).unwrap();
        assert_eq!(eval(op.as_ref(), &[&x, &minus]).to_i64s().unwrap()[2..], [1, 3]);
        let empty = Tensor::zeros(DType::F32, &[0, 2]).unwrap();
        assert_eq!(eval(op.as_ref(), &[&empty, &minus]), empty);
    }

    #[test]
    fn refuses_bad_axes() {
        let op = read("CumSum", 14, Attributes::new()).unwrap();
        let x = Fact::new(DType::F32, &[2]);
        assert!(
            refusal(op.as_ref(), &[x.clone(), Fact::constant(&Tensor::scalar(1i64))]).contains("\"axis\"")
        );
        assert!(refusal(op.as_ref(), &[x, Fact::new(DType::I64, &[2])]).contains("one number"));
    }
}
