//! Flatten: the same elements as a matrix.

use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use std::sync::Arc;

/// The axes before `axis` become the rows, those from it on the columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flatten {
    /// The first axis of the columns, counted from the end where negative; may be the rank.
    pub axis: i64,
}

impl Flatten {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Flatten { axis: node.attributes.int("axis", 1)? }))
    }

    fn target(&self, shape: &[usize]) -> Result<[usize; 2]> {
        let rank = shape.len() as i64;
        if self.axis < -rank || self.axis > rank {
            invalid!("attribute \"axis\" is {}, outside a tensor of rank {rank}", self.axis);
        }
        let axis = if self.axis < 0 { self.axis + rank } else { self.axis } as usize;
        Ok([element_count(&shape[..axis])?, element_count(&shape[axis..])?])
    }
}

impl Operator for Flatten {
    fn name(&self) -> &'static str {
        "Flatten"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        Ok(vec![match data.shape() {
            None => Fact::unknown(data.dtype),
            Some(shape) => Fact::new(data.dtype, &self.target(shape)?),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        Ok(vec![data.reshaped(&self.target(data.shape())?)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("axis", self.axis)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, run};
    use super::*;

    #[test]
    fn makes_a_matrix() {
        let cases: [(&[usize], i64, [usize; 2]); 6] = [
            (&[2, 3, 4], 1, [2, 12]),
            (&[2, 3, 4], 0, [1, 24]),
            (&[2, 3, 4], 3, [24, 1]),
            (&[2, 3, 4], -1, [6, 4]),
            (&[], 0, [1, 1]),
            (&[0, 3], 1, [0, 3]),
        ];
        for (shape, axis, target) in cases {
            assert_eq!(run(Flatten { axis }, &[&counting(shape)]).unwrap().shape(), target);
        }
    }

    #[test]
    fn refuses_axes_outside() {
        for axis in [3, -3, i64::MIN, i64::MAX] {
            let error = run(Flatten { axis }, &[&counting(&[2, 3])]).unwrap_err();
            assert!(error.to_string().contains("\"axis\""), "{error}");
        }
    }
}
