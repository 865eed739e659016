//! Gather: picks slices along an axis by index.

use super::inputs::{Indices, check_index_type};
use super::layout;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// The slices of the first input along `axis` that the second one lists; the shape of the indices takes the place of
/// that axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gather {
    /// The axis, counted from the end where negative.
    pub axis: i64,
}

impl Gather {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Gather { axis: node.attributes.int("axis", 0)? }))
    }
}

impl Operator for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let (data, indices) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        check_index_type(indices.dtype, "indices")?;
        let Some(shape) = data.shape() else { return Ok(vec![Fact::unknown(data.dtype)]) };
        let axis = index::axis(self.axis, shape.len())?;
        let Some(picked) = indices.shape() else { return Ok(vec![Fact::unknown(data.dtype)]) };
        Ok(vec![Fact::new(data.dtype, &[&shape[..axis], picked, &shape[axis + 1..]].concat())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (data, given) = (required(inputs, 0)?, required(inputs, 1)?);
        let axis = index::axis(self.axis, data.rank())?;
        let (shape, extent) = (data.shape(), data.shape()[axis]);
        let indices = Indices::of(given, "indices")?;
        for place in 0..given.len() {
            indices.get(place, extent)?;
        }
        // Every index was just seen to be inside, so the fallback, which `select` would refuse, is never taken.
        let pick = |i| indices.get(i, extent).unwrap_or(extent);
        let picked = layout::select(data, axis, element_count(given.shape())?, pick)?;
        Ok(vec![picked.reshaped(&[&shape[..axis], given.shape(), &shape[axis + 1..]].concat())?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("axis", self.axis)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, run};
    use super::*;

    #[test]
    fn picks_slices() {
        let x = counting(&[2, 3]);
        let columns =
            run(Gather { axis: -1 }, &[&x, &ints(&[2, 0, -1, 0]).reshaped(&[2, 2]).unwrap()]).unwrap();
        assert_eq!(columns, Tensor::new(&[2, 2, 2], &[2f32, 0., 2., 0., 5., 3., 5., 3.]).unwrap());
        let row = run(Gather { axis: 0 }, &[&x, &Tensor::scalar(1i32)]).unwrap();
        assert_eq!(row, Tensor::new(&[3], &[3f32, 4., 5.]).unwrap());
        let one = run(Gather { axis: 0 }, &[&ints(&[7, 8]), &Tensor::scalar(-1i64)]).unwrap();
        assert_eq!(one, Tensor::scalar(8i64));
    }

    #[test]
    fn nothing_picked_and_nothing_to_pick_from() {
        assert_eq!(run(Gather { axis: 1 }, &[&counting(&[2, 3]), &ints(&[])]).unwrap().shape(), [2, 0]);
        assert_eq!(run(Gather { axis: 0 }, &[&counting(&[0, 3]), &ints(&[])]).unwrap().shape(), [0, 3]);
        assert_eq!(run(Gather { axis: 0 }, &[&counting(&[2, 0]), &ints(&[1])]).unwrap().shape(), [1, 0]);
        assert!(run(Gather { axis: 0 }, &[&counting(&[0, 3]), &ints(&[0])]).is_err());
    }

    #[test]
    fn refuses_what_is_outside() {
        let x = counting(&[2, 3]);
        for index in [2, -3, i64::MIN, i64::MAX] {
            assert!(run(Gather { axis: 0 }, &[&x, &ints(&[index])]).is_err(), "{index}");
        }
        assert!(run(Gather { axis: 2 }, &[&x, &ints(&[0])]).is_err());
        assert!(run(Gather { axis: 0 }, &[&x, &x]).is_err());
        assert!(run(Gather { axis: 0 }, &[&Tensor::scalar(1f32), &ints(&[0])]).is_err());
    }
}
