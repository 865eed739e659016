//! NonZero and Compress: picking by content, so that the shape of the output depends on data.

use super::layout;
use super::number::Number;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::{element_count, room};
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Tensor, index};
use std::sync::Arc;

/// The indices of the elements that are not zero, one column for each and one row for each axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NonZero;

/// The slices of the first input along `axis` where the second one, a list of truth values, is true. The list may be
/// shorter than the axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compress {
    /// The axis, counted from the end where negative; the input is flattened where there is none.
    pub axis: Option<i64>,
}

impl NonZero {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(NonZero))
    }
}

impl Operator for NonZero {
    fn name(&self) -> &'static str {
        "NonZero"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        required_fact(inputs, 0)?;
        Ok(vec![Fact::unknown(DType::I64)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let dtype = data.dtype();
        let elements = data.bytes().chunks_exact(dtype.size());
        // Of floats, a byte may differ from 0 in a negative zero.
        let truth = |bytes: &[u8]| match dtype.is_float() {
            true => !Number::read(dtype, bytes).is_zero(),
            false => bytes.iter().any(|&byte| byte != 0),
        };
        let truths = || elements.clone().map(truth);
        let mut found: Vec<usize> = room(&[truths().filter(|&truth| truth).count()])?;
        found.extend(truths().enumerate().filter(|&(_, truth)| truth).map(|(flat, _)| flat));
        let mut out = Tensor::zeros(DType::I64, &[data.rank(), found.len()])?;
        if out.is_empty() {
            return Ok(vec![out]);
        }
        let rows = out.as_mut_slice::<i64>()?.chunks_exact_mut(found.len());
        for ((row, &extent), stride) in rows.zip(data.shape()).zip(index::strides(data.shape())) {
            for (place, flat) in row.iter_mut().zip(&found) {
                *place = (flat / stride % extent) as i64;
            }
        }
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

impl Compress {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Compress { axis: node.attributes.opt_int("axis")? }))
    }

    /// The shape that is picked from, and the axis.
    fn picked_from(&self, shape: &[usize]) -> Result<(Vec<usize>, usize)> {
        match self.axis {
            None => Ok((vec![element_count(shape)?], 0)),
            Some(axis) => Ok((shape.to_vec(), index::axis(axis, shape.len())?)),
        }
    }

    /// The places where `condition` is true; an error where one is past the end of an axis of `extent`.
    fn places(condition: &Tensor, extent: usize) -> Result<Vec<usize>> {
        let truths = condition.as_bools()?;
        let found = || truths.iter().enumerate().filter(|(_, truth)| **truth != 0).map(|(i, _)| i);
        let mut places = room(&[found().count()])?;
        places.extend(found());
        match places.last() {
            Some(&last) if last >= extent => {
                invalid!("input \"condition\" is true at {last}, past the end of an axis of extent {extent}")
            }
            _ => Ok(places),
        }
    }
}

impl Operator for Compress {
    fn name(&self) -> &'static str {
        "Compress"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let (data, condition) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        if condition.dtype != DType::Bool {
            invalid!("input \"condition\" is {}, bool is expected", condition.dtype);
        }
        if condition.shape().is_some_and(|s| s.len() != 1) {
            invalid!("input \"condition\" has shape {:?}, a list is expected", condition.shape());
        }
        let Some(shape) = data.shape() else { return Ok(vec![Fact::unknown(data.dtype)]) };
        let (mut shape, axis) = self.picked_from(shape)?;
        let Some(condition) = &condition.value else { return Ok(vec![Fact::unknown(data.dtype)]) };
        shape[axis] = Compress::places(condition, shape[axis])?.len();
        Ok(vec![Fact::new(data.dtype, &shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let (shape, axis) = self.picked_from(data.shape())?;
        let places = Compress::places(required(inputs, 1)?, shape[axis])?;
        Ok(vec![layout::select(&data.reshaped(&shape)?, axis, places.len(), |i| places[i])?])
    }
    fn attributes(&self) -> Attributes {
        match self.axis {
            Some(axis) => Attributes::new().with("axis", axis),
            None => Attributes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, run};
    use super::*;

    #[test]
    fn finds_what_is_not_zero() {
        let x = Tensor::new(&[2, 2], &[1f32, -0.0, f32::NAN, 1.]).unwrap();
        assert_eq!(run(NonZero, &[&x]).unwrap(), Tensor::new(&[2, 3], &[0i64, 1, 1, 0, 0, 1]).unwrap());
        assert_eq!(run(NonZero, &[&Tensor::scalar(1u8)]).unwrap().shape(), [0, 1]);
        assert_eq!(run(NonZero, &[&ints(&[0, 0])]).unwrap().shape(), [1, 0]);
        assert_eq!(run(NonZero, &[&counting(&[2, 0])]).unwrap().shape(), [2, 0]);
    }

    #[test]
    fn picks_where_true() {
        let x = counting(&[2, 3]);
        let condition = Tensor::from_bools(&[2], &[false, true]).unwrap();
        let columns = run(Compress { axis: Some(-1) }, &[&x, &condition]).unwrap();
        assert_eq!(columns, Tensor::new(&[2, 1], &[1f32, 4.]).unwrap());
        assert_eq!(run(Compress { axis: None }, &[&x, &condition]).unwrap().to_f32s(), [1.]);
        let none = Tensor::from_bools(&[0], &[]).unwrap();
        assert_eq!(run(Compress { axis: Some(0) }, &[&x, &none]).unwrap().shape(), [0, 3]);
        let past = Tensor::from_bools(&[3], &[false, false, true]).unwrap();
        assert!(run(Compress { axis: Some(0) }, &[&x, &past]).is_err());
        assert!(run(Compress { axis: Some(2) }, &[&x, &none]).is_err());
        assert!(run(Compress { axis: None }, &[&x, &ints(&[1])]).is_err());
    }
}
