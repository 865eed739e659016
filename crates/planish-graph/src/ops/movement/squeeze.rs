//! Squeeze and Unsqueeze: take away and put in axes of extent 1.

use super::inputs::{integers, optional_integers};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, optional_fact, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// Without the axes that the second input lists (all of extent 1), or without every axis of extent 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Squeeze;

/// With axes of extent 1 at the places in the output that the second input lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unsqueeze;

/// Until opset 13 the axes were an attribute.
fn read_axes(node: &mut NodeReader) -> Result<()> {
    if node.before(13)
        && let Some(axes) = node.attributes.opt_ints("axes")?
    {
        node.set_constant_input(1, Tensor::from_i64s(&axes)?);
    }
    Ok(())
}

/// Evaluates either operator: both are a reshape to what the shape rule says.
fn reshape_as_inferred(op: &impl Operator, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
    let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Fact::constant)).collect();
    match op.infer(&facts, 1)?.first().and_then(|f| f.shape()) {
        Some(shape) => Ok(vec![required(inputs, 0)?.reshaped(shape)?]),
        None => invalid!("the axes are not known"),
    }
}

impl Squeeze {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        read_axes(node)?;
        Ok(Arc::new(Squeeze))
    }
}

impl Operator for Squeeze {
    fn name(&self) -> &'static str {
        "Squeeze"
    }
    fn arity(&self) -> Arity {
        Arity::range(1, 2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        let axes = optional_integers(optional_fact(inputs, 1), "axes")?;
        let (Some(shape), Some(axes)) = (data.shape(), axes) else {
            return Ok(vec![Fact::unknown(data.dtype)]);
        };
        let gone: Vec<bool> = match axes {
            None => shape.iter().map(|&n| n == 1).collect(),
            Some(axes) => {
                let mut gone = vec![false; shape.len()];
                for axis in index::axes(&axes, shape.len())? {
                    if shape[axis] != 1 {
                        invalid!("axis {axis} of shape {shape:?} is not of extent 1");
                    }
                    gone[axis] = true;
                }
                gone
            }
        };
        let kept: Vec<usize> = shape.iter().zip(gone).filter(|(_, gone)| !gone).map(|(&n, _)| n).collect();
        Ok(vec![Fact::new(data.dtype, &kept)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        reshape_as_inferred(self, inputs)
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

impl Unsqueeze {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        read_axes(node)?;
        Ok(Arc::new(Unsqueeze))
    }
}

impl Operator for Unsqueeze {
    fn name(&self) -> &'static str {
        "Unsqueeze"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        let axes = integers(required_fact(inputs, 1)?, "axes")?;
        let (Some(shape), Some(axes)) = (data.shape(), axes) else {
            return Ok(vec![Fact::unknown(data.dtype)]);
        };
        let rank = shape.len() + axes.len();
        let mut is_new = vec![false; rank];
        for axis in index::axes(&axes, rank)? {
            is_new[axis] = true;
        }
        let mut old = shape.iter().copied();
        let target: Vec<usize> =
            is_new.iter().map(|&new| if new { 1 } else { old.next().unwrap_or(1) }).collect();
        Ok(vec![Fact::new(data.dtype, &target)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        reshape_as_inferred(self, inputs)
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, node, run};
    use super::*;

    #[test]
    fn takes_axes_away() {
        let x = counting(&[1, 3, 1]);
        assert_eq!(run(Squeeze, &[&x]).unwrap().shape(), [3]);
        assert_eq!(run(Squeeze, &[&x, &ints(&[-1])]).unwrap().shape(), [1, 3]);
        assert_eq!(run(Squeeze, &[&counting(&[1, 0]), &ints(&[0])]).unwrap().shape(), [0]);
        assert_eq!(run(Squeeze, &[&counting(&[1])]).unwrap().shape(), [0; 0]);
        for axes in [&[1i64][..], &[0, -3], &[3]] {
            assert!(run(Squeeze, &[&x, &ints(axes)]).is_err(), "{axes:?}");
        }
    }

    #[test]
    fn puts_axes_in() {
        let x = counting(&[2, 3]);
        assert_eq!(run(Unsqueeze, &[&x, &ints(&[-1, 0])]).unwrap().shape(), [1, 2, 3, 1]);
        assert_eq!(run(Unsqueeze, &[&x, &ints(&[2, 1])]).unwrap().shape(), [2, 1, 1, 3]);
        assert_eq!(run(Unsqueeze, &[&counting(&[]), &Tensor::scalar(0i64)]).unwrap().shape(), [1]);
        for axes in [&[3i64][..], &[0, 0], &[0, -4]] {
            assert!(run(Unsqueeze, &[&x, &ints(axes)]).is_err(), "{axes:?}");
        }
    }

    #[test]
    fn reads_the_axes_that_were_an_attribute() {
        let mut old = node("Unsqueeze", 11, 1, Attributes::new().with("axes", vec![0i64]));
        Unsqueeze::read(&mut old).unwrap();
        assert_eq!(old.added_inputs[&1], ints(&[0]));
        let mut all = node("Squeeze", 11, 1, Attributes::new());
        Squeeze::read(&mut all).unwrap();
        assert!(all.added_inputs.is_empty());
    }
}
