//! Comparisons: two elements of one type make a truth value.

use super::elementwise::{NUMBERS, Pair, broadcast_fact, expect_same_type, functions, pair, typed_fact, zip};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{DType, Tensor, index};
use std::sync::Arc;

functions! {
    /// A comparison of two elements; all are false where one is NaN.
    CompareFunction {
        /// `a == b`
        Equal = "Equal",
        /// `a > b`
        Greater = "Greater",
        /// `a >= b`
        GreaterOrEqual = "GreaterOrEqual",
        /// `a < b`
        Less = "Less",
        /// `a <= b`
        LessOrEqual = "LessOrEqual",
    }
}

impl CompareFunction {
    /// The element types that ONNX gives this comparison.
    pub fn types(self) -> &'static [DType] {
        match self {
            CompareFunction::Equal => &DType::ALL,
            _ => NUMBERS,
        }
    }
    /// Whether it holds.
    pub fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            CompareFunction::Equal => a == b,
            CompareFunction::Greater => a > b,
            CompareFunction::GreaterOrEqual => a >= b,
            CompareFunction::Less => a < b,
            CompareFunction::LessOrEqual => a <= b,
        }
    }
}

/// Whether the comparison holds, element by element, with broadcasting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compare {
    /// What is asked of each pair.
    pub function: CompareFunction,
}

impl Compare {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Compare { function: CompareFunction::from_name(&node.op_type)? }))
    }
}

impl Operator for Compare {
    fn name(&self) -> &'static str {
        self.function.name()
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let a = typed_fact(inputs, 0, "input A", self.function.types())?;
        let b = typed_fact(inputs, 1, "input B", self.function.types())?;
        expect_same_type(a, b)?;
        Ok(vec![broadcast_fact(DType::Bool, &[a, b])?])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        let shape = index::broadcast(&[a.shape(), b.shape()])?;
        let f = self.function;
        let held = match pair(a, b)? {
            Pair::Float(x, y) => zip(&shape, (a.shape(), &x), (b.shape(), &y), |x, y| f.holds(x, y))?,
            Pair::Int(x, y) => zip(&shape, (a.shape(), &x), (b.shape(), &y), |x, y| f.holds(x, y))?,
        };
        Ok(vec![Tensor::from_bools(&shape, &held)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::CompareFunction::*;
    use super::*;
    use crate::ops::math::testing::{eval, floats, refusal};

    #[test]
    fn all_comparisons() {
        let (a, b) = (floats(&[4], &[1., 2., 3., f32::NAN]), Tensor::scalar(2f32));
        for (function, expected) in [
            (Equal, [0, 1, 0, 0]),
            (Greater, [0, 0, 1, 0]),
            (GreaterOrEqual, [0, 1, 1, 0]),
            (Less, [1, 0, 0, 0]),
            (LessOrEqual, [1, 1, 0, 0]),
        ] {
            let got = eval(&Compare { function }, &[&a, &b]);
            assert_eq!(got.as_bools().unwrap(), expected, "{function:?}");
        }
    }

    #[test]
    fn large_integers_are_not_rounded() {
        let (a, b) = (Tensor::scalar(i64::MAX), Tensor::scalar(i64::MAX - 1));
        assert_eq!(eval(&Compare { function: Equal }, &[&a, &b]).as_bools().unwrap(), [0]);
        let truth = Tensor::from_bools(&[2], &[true, false]).unwrap();
        let one = Tensor::from_bools(&[], &[true]).unwrap();
        assert_eq!(eval(&Compare { function: Equal }, &[&truth, &one]).as_bools().unwrap(), [1, 0]);
    }

    #[test]
    fn truth_values_have_no_order() {
        let fact = Fact::new(DType::Bool, &[]);
        assert!(refusal(&Compare { function: Less }, &[fact.clone(), fact]).contains("bool"));
    }
}
