//! Min, Max, Sum and Mean of any number of tensors, with broadcasting.

use super::elementwise::{
    FLOATS, Lists, NUMBERS, all_numbers, broadcast_fact, expect_same_type, functions, typed_fact,
};
use super::special::{maximum, minimum};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::room;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{DType, Numbers, Tensor, index};
use std::sync::Arc;

functions! {
    /// A function of any number of elements of one type.
    VariadicFunction {
        /// The smallest; NaN where any is NaN.
        Min = "Min",
        /// The largest; NaN where any is NaN.
        Max = "Max",
        /// The sum.
        Sum = "Sum",
        /// The sum divided by the number of inputs.
        Mean = "Mean",
    }
}

impl VariadicFunction {
    /// The element types that ONNX gives this function.
    pub fn types(self) -> &'static [DType] {
        match self {
            VariadicFunction::Min | VariadicFunction::Max => NUMBERS,
            VariadicFunction::Sum | VariadicFunction::Mean => FLOATS,
        }
    }
    fn float(self, a: f64, b: f64) -> f64 {
        match self {
            VariadicFunction::Min => minimum(a, b),
            VariadicFunction::Max => maximum(a, b),
            VariadicFunction::Sum | VariadicFunction::Mean => a + b,
        }
    }
    fn int(self, a: i128, b: i128) -> i128 {
        match self {
            VariadicFunction::Min => a.min(b),
            VariadicFunction::Max => a.max(b),
            VariadicFunction::Sum | VariadicFunction::Mean => a + b,
        }
    }
}

/// `y = function(x₀, x₁, …)`, element by element, with broadcasting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variadic {
    /// What is computed of the elements at each place.
    pub function: VariadicFunction,
}

impl Variadic {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Variadic { function: VariadicFunction::from_name(&node.op_type)? }))
    }
}

/// The elements at each place of `shape`, folded in order over inputs of the shapes `owns`.
fn fold<T: Copy>(
    shape: &[usize],
    owns: &[&[usize]],
    lists: &[Vec<T>],
    f: impl Fn(T, T) -> T,
) -> Result<Vec<T>> {
    let mut out: Vec<T> = room(shape)?;
    for (number, (own, values)) in owns.iter().zip(lists).enumerate() {
        let strides = index::broadcast_strides(own, shape);
        index::for_each(shape, [&strides], |place, [i]| match number {
            0 => out.push(values[i]),
            _ => out[place] = f(out[place], values[i]),
        });
    }
    Ok(out)
}

impl Operator for Variadic {
    fn name(&self) -> &'static str {
        self.function.name()
    }
    fn arity(&self) -> Arity {
        Arity::range(1, usize::MAX)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let mut facts = Vec::with_capacity(inputs.len());
        for i in 0..inputs.len() {
            let fact = typed_fact(inputs, i, &format!("input {i}"), self.function.types())?;
            expect_same_type(facts.first().copied().unwrap_or(fact), fact)?;
            facts.push(fact);
        }
        let Some(first) = facts.first() else {
            invalid!("at least one input is expected");
        };
        Ok(vec![broadcast_fact(first.dtype, &facts)?])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let dtype = required(inputs, 0)?.dtype();
        let (shapes, lists) = all_numbers(inputs)?;
        let shape = index::broadcast(&shapes)?;
        let numbers = match lists {
            Lists::Float(lists) => {
                let mut values = fold(&shape, &shapes, &lists, |a, b| self.function.float(a, b))?;
                if self.function == VariadicFunction::Mean {
                    values.iter_mut().for_each(|v| *v /= inputs.len() as f64);
                }
                Numbers::Float(values)
            }
            Lists::Int(lists) => Numbers::Int(fold(&shape, &shapes, &lists, |a, b| self.function.int(a, b))?),
        };
        Ok(vec![Tensor::from_numbers(dtype, &shape, &numbers)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::VariadicFunction::*;
    use super::*;
    use crate::ops::math::testing::{eval, floats, refusal};

    #[test]
    fn of_one_two_and_three() {
        let (a, b, c) = (floats(&[2, 1], &[3., 2.]), floats(&[2], &[1., 5.]), Tensor::scalar(4f32));
        for (function, expected) in [
            (Min, [1., 3., 1., 2.]),
            (Max, [4., 5., 4., 5.]),
            (Sum, [8., 12., 7., 11.]),
            (Mean, [8. / 3., 4., 7. / 3., 11. / 3.]),
        ] {
            assert_eq!(
                eval(&Variadic { function }, &[&a, &b, &c]),
                floats(&[2, 2], &expected),
                "{function:?}"
            );
            assert_eq!(eval(&Variadic { function }, &[&a]), a);
        }
    }

    #[test]
    fn integers_and_nan() {
        let (a, b) = (Tensor::scalar(u64::MAX), Tensor::scalar(3u64));
        assert_eq!(eval(&Variadic { function: Max }, &[&a, &b]), a);
        assert_eq!(eval(&Variadic { function: Min }, &[&a, &b]), b);
        let (nan, one) = (Tensor::scalar(f32::NAN), Tensor::scalar(1f32));
        for function in [Min, Max] {
            assert!(eval(&Variadic { function }, &[&one, &nan]).to_f32s()[0].is_nan());
        }
    }

    #[test]
    fn refuses_holes_and_mixtures() {
        let op = Variadic { function: Max };
        let fact = |dtype| Fact::new(dtype, &[2]);
        assert!(refusal(&op, &[fact(DType::F32), fact(DType::I32)]).contains("different types"));
        assert!(op.infer(&[Some(fact(DType::F32)), None], 1).is_err() && op.infer(&[], 1).is_err());
        assert!(refusal(&Variadic { function: Sum }, &[fact(DType::I32)]).contains("i32"));
    }
}
