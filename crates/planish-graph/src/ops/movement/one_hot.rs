//! OneHot: turns class numbers into vectors that are "on" at one place.

use super::inputs::position;
use super::layout;
use super::number::Number;
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Tensor, index};
use std::sync::Arc;

/// Inputs: indices, depth (the extent of the new axis), and the values `[off, on]`. Indices outside of
/// `-depth..depth` are off everywhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneHot {
    /// Where in the output the new axis stands, counted from the end where negative.
    pub axis: i64,
}

impl OneHot {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(OneHot { axis: node.attributes.int("axis", -1)? }))
    }

    fn depth(tensor: &Tensor) -> Result<usize> {
        let depth = Number::read(tensor.dtype(), tensor.bytes());
        let whole = depth.whole().and_then(|n| usize::try_from(n).ok());
        whole.ok_or_else(|| Error::invalid(format!("input \"depth\" is {depth:?}")))
    }
}

impl Operator for OneHot {
    fn name(&self) -> &'static str {
        "OneHot"
    }
    fn arity(&self) -> Arity {
        Arity::exact(3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let (indices, depth, values) =
            (required_fact(inputs, 0)?, required_fact(inputs, 1)?, required_fact(inputs, 2)?);
        for (fact, name) in [(indices, "indices"), (depth, "depth")] {
            if fact.dtype == DType::Bool {
                invalid!("input \"{name}\" is bool, numbers are expected");
            }
        }
        if depth.shape().is_some_and(|s| !matches!(s, [] | [1])) {
            invalid!("input \"depth\" has shape {:?}, a scalar is expected", depth.shape());
        }
        if values.shape().is_some_and(|s| s != [2]) {
            invalid!("input \"values\" has shape {:?}, [2] is expected", values.shape());
        }
        let Some(shape) = indices.shape() else { return Ok(vec![Fact::unknown(values.dtype)]) };
        let axis = index::axis(self.axis, shape.len() + 1)?;
        let Some(depth) = &depth.value else { return Ok(vec![Fact::unknown(values.dtype)]) };
        let mut out = shape.to_vec();
        out.insert(axis, OneHot::depth(depth)?);
        Ok(vec![Fact::new(values.dtype, &out)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (indices, values) = (required(inputs, 0)?, required(inputs, 2)?);
        let depth = OneHot::depth(required(inputs, 1)?)?;
        let axis = index::axis(self.axis, indices.rank() + 1)?;
        let mut shape = indices.shape().to_vec();
        shape.insert(axis, depth);
        let mut out = Tensor::zeros(values.dtype(), &shape)?;
        let size = values.dtype().size();
        let (off, on) = values.bytes().split_at(size);
        layout::fill(out.bytes_mut(), off);
        let inner = element_count(&indices.shape()[axis..])?;
        let numbers = indices.bytes().chunks_exact(indices.dtype().size());
        for (i, number) in numbers.enumerate() {
            let whole = Number::read(indices.dtype(), number).whole();
            if let Some(class) = whole.and_then(|n| position(n, depth)) {
                let place = (i / inner * depth + class) * inner + i % inner;
                out.bytes_mut()[place * size..][..size].copy_from_slice(on);
            }
        }
        Ok(vec![out])
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
    fn turns_one_place_on() {
        let values = Tensor::new(&[2], &[1i8, 5]).unwrap();
        let classes = ints(&[1, -1, 3]);
        let last = run(OneHot { axis: -1 }, &[&classes, &Tensor::scalar(3f32), &values]).unwrap();
        assert_eq!(last, Tensor::new(&[3, 3], &[1i8, 5, 1, 1, 1, 5, 1, 1, 1]).unwrap());
        let first = run(OneHot { axis: 0 }, &[&classes, &ints(&[2]), &values]).unwrap();
        assert_eq!(first, Tensor::new(&[2, 3], &[1i8, 1, 1, 5, 5, 1]).unwrap());
        let scalar = run(OneHot { axis: 0 }, &[&Tensor::scalar(0f32), &ints(&[2]), &values]).unwrap();
        assert_eq!(scalar, Tensor::new(&[2], &[5i8, 1]).unwrap());
        assert_eq!(run(OneHot { axis: 0 }, &[&classes, &ints(&[0]), &values]).unwrap().shape(), [0, 3]);
        assert_eq!(run(OneHot { axis: 1 }, &[&ints(&[]), &ints(&[4]), &values]).unwrap().shape(), [0, 4]);
    }

    #[test]
    fn refuses_what_is_no_depth_or_axis() {
        let (classes, values) = (ints(&[1]), counting(&[2]));
        assert!(run(OneHot { axis: 0 }, &[&classes, &ints(&[-1]), &values]).is_err());
        assert!(run(OneHot { axis: 0 }, &[&classes, &Tensor::scalar(f32::NAN), &values]).is_err());
        assert!(run(OneHot { axis: 0 }, &[&classes, &ints(&[1, 2]), &values]).is_err());
        assert!(run(OneHot { axis: 2 }, &[&classes, &ints(&[1]), &values]).is_err());
        assert!(run(OneHot { axis: 0 }, &[&classes, &ints(&[1]), &counting(&[3])]).is_err());
        assert!(run(OneHot { axis: 0 }, &[&classes, &ints(&[i64::MAX]), &values]).is_err());
    }
}
