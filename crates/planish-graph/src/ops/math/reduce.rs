//! Reductions along axes: sum, mean, maximum, norms and logarithms of sums; one operator with a table of functions.

use super::elementwise::{NUMBERS, WIDE, functions, typed_fact};
use super::special::{maximum, minimum};
use crate::attributes::Attributes;
use crate::error::{Context, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::room;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required};
use crate::tensor::{DType, Numbers, Tensor, index};
use std::sync::Arc;

functions! {
    /// What is made of the elements that are reduced to one.
    ReduceFunction {
        /// The sum; 0 of nothing.
        Sum = "ReduceSum",
        /// The sum divided by the count; integers truncate. NaN (0 for integers) of nothing.
        Mean = "ReduceMean",
        /// The largest; NaN where any is NaN. Minus infinity or the type's smallest of nothing.
        Max = "ReduceMax",
        /// The smallest; NaN where any is NaN. Infinity or the type's largest of nothing.
        Min = "ReduceMin",
        /// The product; 1 of nothing.
        Prod = "ReduceProd",
        /// The sum of absolute values.
        L1 = "ReduceL1",
        /// The square root of the sum of squares.
        L2 = "ReduceL2",
        /// The logarithm of the sum.
        LogSum = "ReduceLogSum",
        /// The logarithm of the sum of exponentials, without overflow.
        LogSumExp = "ReduceLogSumExp",
        /// The sum of squares.
        SumSquare = "ReduceSumSquare",
    }
}

/// A step that takes one more element into an accumulator.
type Step<T> = fn(T, T) -> T;

impl ReduceFunction {
    /// Whether ONNX gives this function the element type.
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            ReduceFunction::Max | ReduceFunction::Min => NUMBERS.contains(&dtype) || dtype == DType::Bool,
            _ => WIDE.contains(&dtype),
        }
    }
    /// The first opset that gives the axes as an input.
    fn axes_input_since(self) -> i64 {
        if self == ReduceFunction::Sum { 13 } else { 18 }
    }
    /// Where a float accumulation starts, and its step. (`LogSumExp` accumulates shifted exponentials.)
    fn float_fold(self) -> (f64, Step<f64>) {
        use ReduceFunction::*;
        match self {
            Sum | Mean | LogSum | LogSumExp => (0.0, |a, x| a + x),
            Max => (f64::NEG_INFINITY, maximum),
            Min => (f64::INFINITY, minimum),
            Prod => (1.0, |a, x| a * x),
            L1 => (0.0, |a, x| a + x.abs()),
            L2 | SumSquare => (0.0, |a, x| a + x * x),
        }
    }
    /// The result from what a float accumulation over `count` elements ended with.
    fn float_finish(self, total: f64, count: usize) -> f64 {
        match self {
            ReduceFunction::Mean => total / count as f64,
            ReduceFunction::L2 => total.sqrt(),
            ReduceFunction::LogSum | ReduceFunction::LogSumExp => total.ln(),
            _ => total,
        }
    }
    /// Where an exact integer accumulation starts, and its step; `None` for functions whose result is no integer.
    fn int_fold(self, dtype: DType) -> Option<(i128, Step<i128>)> {
        use ReduceFunction::*;
        let (low, high) = dtype.integer_range()?;
        Some(match self {
            Sum | Mean => (0, |a, x| a.wrapping_add(x)),
            Max => (low, |a, x| a.max(x)),
            Min => (high, |a, x| a.min(x)),
            Prod => (1, |a, x| a.wrapping_mul(x)),
            L1 => (0, |a, x| a.wrapping_add(x.abs())),
            SumSquare => (0, |a, x| a.wrapping_add(x.wrapping_mul(x))),
            L2 | LogSum | LogSumExp => return None,
        })
    }
}

/// `y = function` of the elements along the axes that input 1 lists (all axes where there is none or an empty one, or no
/// axis with `noop_with_empty_axes`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reduce {
    /// What is computed.
    pub function: ReduceFunction,
    /// Whether reduced axes stay, with extent 1.
    pub keepdims: bool,
    /// Whether no axes mean none instead of all; the function is then still applied to each element by itself.
    pub noop_with_empty_axes: bool,
}

impl Reduce {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let function = ReduceFunction::from_name(&node.op_type)?;
        let keepdims = node.attributes.flag("keepdims", true)?;
        if node.before(function.axes_input_since()) {
            if let Some(axes) = node.attributes.opt_ints("axes")? {
                node.set_constant_input(1, Tensor::from_i64s(&axes)?);
            }
            return Ok(Arc::new(Reduce { function, keepdims, noop_with_empty_axes: false }));
        }
        let noop_with_empty_axes = node.attributes.flag("noop_with_empty_axes", false)?;
        Ok(Arc::new(Reduce { function, keepdims, noop_with_empty_axes }))
    }

    /// For each axis of a tensor of `rank`, whether it is reduced.
    pub fn reduced_axes(&self, rank: usize, axes: Option<&Tensor>) -> Result<Vec<bool>> {
        let listed = axes.map_or(Ok(Vec::new()), |t| t.to_i64s())?;
        if listed.is_empty() {
            return Ok(vec![!self.noop_with_empty_axes; rank]);
        }
        let mut reduced = vec![false; rank];
        for axis in index::axes(&listed, rank).context(|| "axes")? {
            reduced[axis] = true;
        }
        Ok(reduced)
    }

    /// The output's shape.
    fn output_shape(&self, shape: &[usize], reduced: &[bool]) -> Vec<usize> {
        let axes = shape.iter().zip(reduced);
        axes.filter(|(_, r)| self.keepdims || !**r).map(|(&d, &r)| if r { 1 } else { d }).collect()
    }
}

/// The elements of a tensor of `shape`, accumulated into `totals` by `step`; `strides` lead to an element's place there.
fn accumulate<T: Copy>(
    shape: &[usize],
    values: &[T],
    strides: &[usize],
    totals: &mut [T],
    step: impl Fn(T, T) -> T,
) {
    index::for_each(shape, [strides], |flat, [place]| totals[place] = step(totals[place], values[flat]));
}

/// `count` times `start`.
fn filled<T: Copy>(shape: &[usize], start: T) -> Result<Vec<T>> {
    let mut values = room(shape)?;
    values.resize(crate::limits::element_count(shape)?, start);
    Ok(values)
}

impl ReduceFunction {
    /// Floats of `shape` reduced to `kept` (the shape with reduced axes 1); `strides` lead to an element's place there.
    fn floats(self, shape: &[usize], values: &[f64], kept: &[usize], strides: &[usize]) -> Result<Vec<f64>> {
        let (start, step) = self.float_fold();
        let mut totals = filled(kept, start)?;
        let reduced = shape.iter().zip(kept).filter(|(d, k)| d != k).map(|(d, _)| *d);
        let count = reduced.fold(1usize, usize::saturating_mul);
        if self != ReduceFunction::LogSumExp {
            accumulate(shape, values, strides, &mut totals, step);
            return Ok(totals.into_iter().map(|t| self.float_finish(t, count)).collect());
        }
        let mut peaks = filled(kept, f64::NEG_INFINITY)?;
        accumulate(shape, values, strides, &mut peaks, maximum);
        index::for_each(shape, [strides], |flat, [p]| {
            totals[p] = step(totals[p], (values[flat] - peaks[p]).exp())
        });
        let whole = |(peak, total): (f64, f64)| match peak.is_finite() {
            true => peak + self.float_finish(total, count),
            false => peak,
        };
        Ok(peaks.into_iter().zip(totals).map(whole).collect())
    }
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        self.function.name()
    }
    fn arity(&self) -> Arity {
        Arity::range(1, 2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = typed_fact(inputs, 0, "the input", &DType::ALL)?;
        if !self.function.takes(x.dtype) {
            invalid!("the input has type {}, which {} does not take", x.dtype, self.name());
        }
        let axes = optional_fact(inputs, 1);
        if let Some(axes) = axes {
            typed_fact(inputs, 1, "axes", &[DType::I64])?;
            if axes.shape().is_some_and(|s| s.len() > 1) {
                invalid!("axes has shape {:?}, where a list is expected", axes.shape().unwrap_or_default());
            }
        }
        let known = axes.is_none_or(|a| a.value.is_some());
        let Some(shape) = x.shape().filter(|_| known) else {
            return Ok(vec![Fact::unknown(x.dtype)]);
        };
        let reduced = self.reduced_axes(shape.len(), axes.and_then(|a| a.value.as_ref()))?;
        Ok(vec![Fact::new(x.dtype, &self.output_shape(shape, &reduced))])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (shape, dtype) = (x.shape(), x.dtype());
        let reduced = self.reduced_axes(shape.len(), optional(inputs, 1))?;
        let kept: Vec<usize> = shape.iter().zip(&reduced).map(|(&d, &r)| if r { 1 } else { d }).collect();
        let strides = index::broadcast_strides(&kept, shape);
        let numbers = match (x.to_numbers(), self.function.int_fold(dtype)) {
            (Numbers::Int(values), Some((start, step))) => {
                let mut totals = filled(&kept, start)?;
                accumulate(shape, &values, &strides, &mut totals, step);
                if self.function == ReduceFunction::Mean {
                    let count = (values.len() / totals.len().max(1)).max(1) as i128;
                    totals.iter_mut().for_each(|t| *t /= count);
                }
                Numbers::Int(totals)
            }
            (values, _) => {
                let totals = self.function.floats(shape, &values.into_floats(), &kept, &strides)?;
                match dtype.is_float() {
                    true => Numbers::Float(totals),
                    false => Numbers::Int(totals.into_iter().map(|t| t as i128).collect()),
                }
            }
        };
        Ok(vec![Tensor::from_numbers(dtype, &self.output_shape(shape, &reduced), &numbers)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
            .with("keepdims", self.keepdims)
            .with("noop_with_empty_axes", self.noop_with_empty_axes)
    }
}

#[cfg(test)]
mod tests {
    use super::ReduceFunction::*;
    use super::*;
    use crate::ops::math::testing::{counting, eval, floats, node, read, refusal};
    use crate::ops::{OperatorExt, read_operator};

    fn op(function: ReduceFunction) -> Reduce {
        Reduce { function, keepdims: false, noop_with_empty_axes: false }
    }

    #[test]
    fn every_function_along_one_axis() {
        let x = floats(&[2, 2], &[1., -2., 3., 4.]);
        let axes = Tensor::from_i64s(&[-1]).unwrap();
        for (function, expected) in [
            (Sum, [-1., 7.]),
            (Mean, [-0.5, 3.5]),
            (Max, [1., 4.]),
            (Min, [-2., 3.]),
            (Prod, [-2., 12.]),
            (L1, [3., 7.]),
            (L2, [5f32.sqrt(), 5.]),
            (LogSumExp, [1.0485873, 4.3132617]),
            (SumSquare, [5., 25.]),
        ] {
            assert_eq!(eval(&op(function), &[&x, &axes]), floats(&[2], &expected), "{function:?}");
        }
        assert_eq!(eval(&op(LogSum), &[&x, &axes]).to_f32s()[1], 7f32.ln());
        let big = floats(&[2], &[1000., 1000.]);
        assert_eq!(eval(&op(LogSumExp), &[&big]), Tensor::scalar(1000f32 + std::f32::consts::LN_2));
    }

    #[test]
    fn axes_and_kept_dimensions() {
        let x = counting(&[2, 3, 2]);
        let keep = Reduce { keepdims: true, ..op(Sum) };
        let axes = Tensor::from_i64s(&[0, -1]).unwrap();
        assert_eq!(eval(&keep, &[&x, &axes]), floats(&[1, 3, 1], &[14., 22., 30.]));
        assert_eq!(eval(&op(Sum), &[&x, &axes]).shape(), [3]);
        assert_eq!(eval(&keep, &[&x]), floats(&[1, 1, 1], &[66.]));
        let none = Tensor::from_i64s(&[]).unwrap();
        assert_eq!(eval(&op(Sum), &[&x, &none]), Tensor::scalar(66f32));
        let noop = Reduce { noop_with_empty_axes: true, ..op(SumSquare) };
        assert_eq!(eval(&noop, &[&counting(&[3]), &none]), floats(&[3], &[0., 1., 4.]));
        assert_eq!(eval(&op(Sum), &[&Tensor::scalar(3f32)]), Tensor::scalar(3f32));
    }

    #[test]
    fn of_nothing() {
        let x = Tensor::zeros(DType::F32, &[2, 0]).unwrap();
        let axes = Tensor::from_i64s(&[1]).unwrap();
        let inf = f32::INFINITY;
        let table =
            [(Sum, 0.), (Prod, 1.), (Max, -inf), (Min, inf), (LogSum, -inf), (LogSumExp, -inf), (L2, 0.)];
        for (function, expected) in table {
            assert_eq!(eval(&op(function), &[&x, &axes]), floats(&[2], &[expected; 2]), "{function:?}");
        }
        assert!(eval(&op(Mean), &[&x, &axes]).to_f32s()[0].is_nan());
        let x = Tensor::zeros(DType::I32, &[0]).unwrap();
        for (function, expected) in [(Max, i32::MIN), (Min, i32::MAX), (Mean, 0), (Sum, 0)] {
            assert_eq!(eval(&op(function), &[&x]), Tensor::scalar(expected), "{function:?}");
        }
        let x = Tensor::zeros(DType::Bool, &[0]).unwrap();
        assert_eq!(eval(&op(Min), &[&x]).as_bools().unwrap(), [1]);
        assert_eq!(eval(&op(Sum), &[&Tensor::zeros(DType::F32, &[0, 2]).unwrap(), &axes]).shape(), [0]);
    }

    #[test]
    fn integers() {
        let x = Tensor::new(&[3], &[-3i32, -4, 2]).unwrap();
        for (function, expected) in [(Mean, -1), (L1, 9), (L2, 5), (Prod, 24), (SumSquare, 29)] {
            assert_eq!(eval(&op(function), &[&x]), Tensor::scalar(expected), "{function:?}");
        }
        let big = Tensor::new(&[2], &[u64::MAX, u64::MAX]).unwrap();
        assert_eq!(eval(&op(SumSquare), &[&big]), Tensor::scalar(2u64));
        let truth = Tensor::from_bools(&[2], &[true, false]).unwrap();
        assert_eq!(eval(&op(Max), &[&truth]).as_bools().unwrap(), [1]);
    }

    #[test]
    fn reads_old_axes() {
        let attributes = Attributes::new().with("axes", vec![1, 2]).with("keepdims", 0i64);
        for (name, opset) in [("ReduceSum", 12), ("ReduceMean", 17)] {
            let mut old = node(name, opset, attributes.clone());
            let op = read_operator(&mut old).unwrap();
            assert!(!op.as_op::<Reduce>().unwrap().keepdims);
            assert_eq!(old.added_inputs[&1].to_i64s().unwrap(), [1, 2]);
        }
        for &function in ReduceFunction::ALL {
            let op = Reduce { function, keepdims: false, noop_with_empty_axes: true };
            assert_eq!(format!("{:?}", read(op.name(), 21, op.attributes()).unwrap()), format!("{op:?}"));
        }
    }

    #[test]
    fn refuses_bad_axes_and_types() {
        let x = Fact::new(DType::F32, &[2, 3]);
        let axes = |v: &[i64]| Fact::constant(&Tensor::from_i64s(v).unwrap());
        assert!(refusal(&op(Sum), &[x.clone(), axes(&[2])]).contains("axes: axis 2"));
        assert!(refusal(&op(Sum), &[x.clone(), axes(&[0, -2])]).contains("twice"));
        assert!(refusal(&op(Sum), &[x, Fact::new(DType::F32, &[1])]).contains("axes has type f32"));
        assert!(refusal(&op(Sum), &[Fact::new(DType::Bool, &[])]).contains("bool"));
    }
}
