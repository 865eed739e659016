//! Concat: joins tensors along an axis.

use super::inputs::check_same_type;
use super::layout::{self, Walk};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// The inputs one after another along `axis`; they agree in type and in every other extent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Concat {
    /// The axis, counted from the end where negative.
    pub axis: i64,
}

impl Concat {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let axis = Attributes::require("axis", node.attributes.opt_int("axis")?)?;
        Ok(Arc::new(Concat { axis }))
    }

    /// The axis as an index, and the output's shape.
    fn joined(&self, shapes: &[&[usize]]) -> Result<(usize, Vec<usize>)> {
        let Some(first) = shapes.first() else { invalid!("nothing to concatenate") };
        let axis = index::axis(self.axis, first.len())?;
        let mut out = first.to_vec();
        for shape in &shapes[1..] {
            let fits = shape.len() == out.len() && (0..out.len()).all(|a| a == axis || shape[a] == out[a]);
            if !fits {
                invalid!("shapes {shapes:?} differ beside axis {axis}");
            }
            out[axis] = out[axis]
                .checked_add(shape[axis])
                .ok_or_else(|| Error::limit("the concatenated extent overflows"))?;
        }
        Ok((axis, out))
    }
}

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }
    fn arity(&self) -> Arity {
        Arity::range(1, usize::MAX)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let first = required_fact(inputs, 0)?;
        let mut shapes = Vec::with_capacity(inputs.len());
        for i in 0..inputs.len() {
            let fact = required_fact(inputs, i)?;
            check_same_type(first, fact, &format!("inputs[{i}]"))?;
            shapes.extend(fact.shape());
        }
        if shapes.is_empty() {
            return Ok(vec![Fact::unknown(first.dtype)]);
        }
        // What is known must fit, even where not all is known.
        let (_, out) = self.joined(&shapes)?;
        if shapes.len() < inputs.len() {
            return Ok(vec![Fact::unknown(first.dtype)]);
        }
        Ok(vec![Fact::new(first.dtype, &out)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let tensors = (0..inputs.len()).map(|i| required(inputs, i)).collect::<Result<Vec<_>>>()?;
        let shapes: Vec<&[usize]> = tensors.iter().map(|t| t.shape()).collect();
        let (axis, shape) = self.joined(&shapes)?;
        let mut out = Tensor::zeros(tensors[0].dtype(), &shape)?;
        let size = out.dtype().size();
        let mut corner = vec![0; shape.len()];
        for tensor in tensors {
            let own = tensor.shape();
            let to = Walk::boxed(&shape, &corner);
            layout::copy(own, size, tensor.bytes(), &Walk::dense(own), out.bytes_mut(), &to);
            corner[axis] += own[axis];
        }
        Ok(vec![out])
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
    fn joins_along_any_axis() {
        let (a, b) = (counting(&[2, 2]), counting(&[2, 1]));
        let joined = run(Concat { axis: -1 }, &[&a, &b]).unwrap();
        assert_eq!(joined, Tensor::new(&[2, 3], &[0f32, 1., 0., 2., 3., 1.]).unwrap());
        let stacked = run(Concat { axis: 0 }, &[&a, &a]).unwrap();
        assert_eq!(stacked.shape(), [4, 2]);
        assert_eq!(run(Concat { axis: 0 }, &[&b]).unwrap(), b);
    }

    #[test]
    fn empty_parts_add_nothing() {
        let (none, some) = (counting(&[0, 2]), counting(&[1, 2]));
        assert_eq!(run(Concat { axis: 0 }, &[&none, &some, &none]).unwrap(), some);
        assert!(run(Concat { axis: 1 }, &[&none, &none]).unwrap().is_empty());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let (a, b) = (counting(&[2, 2]), counting(&[3, 2]));
        assert!(run(Concat { axis: 1 }, &[&a, &b]).is_err());
        assert!(run(Concat { axis: 2 }, &[&a, &a]).is_err());
        assert!(run(Concat { axis: 0 }, &[&Tensor::scalar(1f32)]).is_err());
        assert!(run(Concat { axis: 0 }, &[&a, &Tensor::new(&[1, 2], &[1i32, 2]).unwrap()]).is_err());
        let huge = Some(Fact::new(a.dtype(), &[usize::MAX, 0]));
        assert!(Concat { axis: 0 }.infer(&[huge.clone(), huge], 1).is_err());
    }
}
