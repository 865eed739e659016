//! ArgMax and ArgMin: where along an axis the extreme element stands.

use super::elementwise::{Lanes, NUMBERS, functions, typed_fact};
use crate::attributes::Attributes;
use crate::error::{Context, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::room;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{DType, Numbers, Tensor, index};
use std::sync::Arc;

functions! {
    /// Which extreme is looked for. NaN, where there is one, is either.
    ArgFunction {
        /// The largest.
        Max = "ArgMax",
        /// The smallest.
        Min = "ArgMin",
    }
}

/// The positions (`i64`) of the extreme elements along `axis`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArgReduce {
    /// Which extreme.
    pub function: ArgFunction,
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Whether the axis stays, with extent 1.
    pub keepdims: bool,
    /// Whether the last of equal elements is taken instead of the first.
    pub select_last_index: bool,
}

impl ArgReduce {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(ArgReduce {
            function: ArgFunction::from_name(&node.op_type)?,
            axis: node.attributes.int("axis", 0)?,
            keepdims: node.attributes.flag("keepdims", true)?,
            select_last_index: node.attributes.flag("select_last_index", false)?,
        }))
    }

    /// The axis and the output's shape for an input of `shape`.
    fn plan(&self, shape: &[usize]) -> Result<(usize, Vec<usize>)> {
        let axis = index::axis(self.axis, shape.len()).context(|| "attribute \"axis\"")?;
        if shape[axis] == 0 {
            invalid!("axis {axis} of the input's shape {shape:?} has no elements to choose from");
        }
        let mut out = shape.to_vec();
        if self.keepdims {
            out[axis] = 1;
        } else {
            out.remove(axis);
        }
        Ok((axis, out))
    }

    /// The positions for elements of any sort.
    fn positions<T: PartialOrd + Copy>(&self, lanes: Lanes, values: &[T], out: &mut Vec<i64>) {
        let beats = match self.function {
            ArgFunction::Max => |a: T, b: T| a > b,
            ArgFunction::Min => |a: T, b: T| a < b,
        };
        out.extend(lanes.starts().map(|start| {
            let lane = lanes.lane(start).map(|i| values[i]);
            position_of_extreme(lane, beats, self.select_last_index) as i64
        }));
    }
}

/// The position of the element that no other beats: the first of equals, or the last. An element that is not equal to
/// itself (NaN) beats all others. 0 where there are none.
pub(super) fn position_of_extreme<T: PartialOrd + Copy>(
    values: impl Iterator<Item = T>,
    beats: impl Fn(T, T) -> bool,
    last: bool,
) -> usize {
    let mut best: Option<(usize, T)> = None;
    for (position, value) in values.enumerate() {
        let is_nan = |v: T| v.partial_cmp(&v).is_none();
        let better = match best {
            None => true,
            Some((_, b)) if is_nan(b) => last && is_nan(value),
            Some((_, b)) => is_nan(value) || beats(value, b) || (last && value == b),
        };
        if better {
            best = Some((position, value));
        }
    }
    best.map_or(0, |(position, _)| position)
}

impl Operator for ArgReduce {
    fn name(&self) -> &'static str {
        self.function.name()
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = typed_fact(inputs, 0, "the input", NUMBERS)?;
        Ok(vec![match x.shape() {
            Some(shape) => Fact::new(DType::I64, &self.plan(shape)?.1),
            None => Fact::unknown(DType::I64),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (axis, shape) = self.plan(x.shape())?;
        let lanes = Lanes::new(x.shape(), axis);
        let mut out = room(&shape)?;
        match x.to_numbers() {
            Numbers::Float(values) => self.positions(lanes, &values, &mut out),
            Numbers::Int(values) => self.positions(lanes, &values, &mut out),
        }
        Ok(vec![Tensor::new(&shape, &out)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
            .with("axis", self.axis)
            .with("keepdims", self.keepdims)
            .with("select_last_index", self.select_last_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{eval, floats, read, refusal};

    fn op(name: &str, axis: i64, keepdims: i64, last: i64) -> Arc<dyn Operator> {
        let a =
            Attributes::new().with("axis", axis).with("keepdims", keepdims).with("select_last_index", last);
        let op = read(name, 13, a).unwrap();
        assert_eq!(format!("{op:?}"), format!("{:?}", read(name, 21, op.attributes()).unwrap()));
        op
    }

    #[test]
    fn first_and_last_extremes() {
        let x = floats(&[2, 3], &[2., 7., 7., 1., 0., 0.]);
        for (name, axis, keepdims, last, shape, expected) in [
            ("ArgMax", 1, 0, 0, &[2][..], &[1i64, 0][..]),
            ("ArgMax", -1, 1, 1, &[2, 1], &[2, 0]),
            ("ArgMin", 1, 0, 0, &[2], &[0, 1]),
            ("ArgMin", 1, 0, 1, &[2], &[0, 2]),
            ("ArgMax", 0, 1, 0, &[1, 3], &[0, 0, 0]),
        ] {
            let got = eval(op(name, axis, keepdims, last).as_ref(), &[&x]);
            assert_eq!(got, Tensor::new(shape, expected).unwrap(), "{name} {axis}");
        }
    }

    #[test]
    fn nan_and_large_integers() {
        let x = floats(&[4], &[1., f32::NAN, 3., f32::NAN]);
        for (last, expected) in [(0, 1), (1, 3)] {
            for name in ["ArgMax", "ArgMin"] {
                assert_eq!(eval(op(name, 0, 0, last).as_ref(), &[&x]), Tensor::scalar(expected as i64));
            }
        }
        let x = Tensor::new(&[2], &[u64::MAX - 1, u64::MAX]).unwrap();
        assert_eq!(eval(op("ArgMax", 0, 0, 0).as_ref(), &[&x]), Tensor::scalar(1i64));
    }

    #[test]
    fn empty_tensors() {
        let x = Tensor::zeros(DType::F32, &[0, 3]).unwrap();
        assert_eq!(eval(op("ArgMax", 1, 1, 0).as_ref(), &[&x]).shape(), [0, 1]);
        assert!(refusal(op("ArgMax", 0, 1, 0).as_ref(), &[Fact::constant(&x)]).contains("no elements"));
        assert!(refusal(op("ArgMax", 0, 1, 0).as_ref(), &[Fact::new(DType::F32, &[])]).contains("\"axis\""));
    }
}
