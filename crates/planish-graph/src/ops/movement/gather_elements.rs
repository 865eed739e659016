//! GatherElements and GatherND: picks elements or blocks by index.

use super::indexing::{AlongAxis, Tuples};
use super::inputs::check_index_type;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use std::sync::Arc;

/// In the shape of the indices, the elements of the data at the same place but for the coordinate along `axis`, which
/// is the index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatherElements {
    /// The axis, counted from the end where negative.
    pub axis: i64,
}

/// The blocks of the data that the tuples in the last axis of the indices name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatherND {
    /// How many leading axes data and indices share.
    pub batch_dims: i64,
}

impl GatherElements {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(GatherElements { axis: node.attributes.int("axis", 0)? }))
    }
}

impl Operator for GatherElements {
    fn name(&self) -> &'static str {
        "GatherElements"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let (data, indices) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        check_index_type(indices.dtype, "indices")?;
        if let (Some(shape), Some(given)) = (data.shape(), indices.shape()) {
            AlongAxis::new(self.axis, shape, given)?;
        }
        Ok(vec![Fact { dtype: data.dtype, shape: indices.shape.clone(), value: None }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (data, indices) = (required(inputs, 0)?, required(inputs, 1)?);
        let along = AlongAxis::new(self.axis, data.shape(), indices.shape())?;
        let mut out = Tensor::zeros(data.dtype(), indices.shape())?;
        let (size, source, target) = (data.dtype().size(), data.bytes(), out.bytes_mut());
        along.for_each(data.shape(), indices, |to, from| {
            target[to * size..][..size].copy_from_slice(&source[from * size..][..size]);
        })?;
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("axis", self.axis)
    }
}

impl GatherND {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(GatherND { batch_dims: node.attributes.int("batch_dims", 0)? }))
    }
}

impl Operator for GatherND {
    fn name(&self) -> &'static str {
        "GatherND"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let (data, indices) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        check_index_type(indices.dtype, "indices")?;
        let (Some(shape), Some(given)) = (data.shape(), indices.shape()) else {
            return Ok(vec![Fact::unknown(data.dtype)]);
        };
        let blocks = Tuples::new(self.batch_dims, shape, given)?.blocks(shape, given);
        Ok(vec![Fact::new(data.dtype, &blocks)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (data, indices) = (required(inputs, 0)?, required(inputs, 1)?);
        let tuples = Tuples::new(self.batch_dims, data.shape(), indices.shape())?;
        let mut out = Tensor::zeros(data.dtype(), &tuples.blocks(data.shape(), indices.shape()))?;
        let block = tuples.block_len(data.shape())? * data.dtype().size();
        let (source, target) = (data.bytes(), out.bytes_mut());
        if block > 0 {
            tuples.for_each(data.shape(), indices, |to, from| {
                target[to * block..][..block].copy_from_slice(&source[from * block..][..block]);
            })?;
        }
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("batch_dims", self.batch_dims)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, run};
    use super::*;

    fn table(shape: &[usize], values: &[i64]) -> Tensor {
        Tensor::new(shape, values).unwrap()
    }

    #[test]
    fn elements_along_an_axis() {
        let x = counting(&[2, 3]);
        let made = run(GatherElements { axis: 1 }, &[&x, &table(&[2, 2], &[2, 0, -1, 1])]).unwrap();
        assert_eq!(made, Tensor::new(&[2, 2], &[2f32, 0., 5., 4.]).unwrap());
        let made = run(GatherElements { axis: 0 }, &[&x, &table(&[1, 2], &[1, 0])]).unwrap();
        assert_eq!(made.to_f32s(), [3., 1.]);
        assert!(run(GatherElements { axis: 0 }, &[&x, &table(&[0, 3], &[])]).unwrap().is_empty());
        assert!(run(GatherElements { axis: 0 }, &[&x, &table(&[1, 1], &[2])]).is_err());
        assert!(run(GatherElements { axis: 0 }, &[&x, &table(&[1, 4], &[0; 4])]).is_err());
        assert!(run(GatherElements { axis: 0 }, &[&x, &ints(&[0])]).is_err());
        assert!(run(GatherElements { axis: 2 }, &[&x, &table(&[1, 1], &[0])]).is_err());
        assert!(run(GatherElements { axis: 0 }, &[&Tensor::scalar(1f32), &Tensor::scalar(0i64)]).is_err());
    }

    #[test]
    fn blocks_by_tuples() {
        let x = counting(&[2, 2, 2]);
        let plain = GatherND { batch_dims: 0 };
        let made = run(plain, &[&x, &table(&[2, 2], &[0, 1, 1, 0])]).unwrap();
        assert_eq!(made, Tensor::new(&[2, 2], &[2f32, 3., 4., 5.]).unwrap());
        let made = run(plain, &[&x, &ints(&[-1, 0, 1])]).unwrap();
        assert_eq!(made, Tensor::scalar(5f32));
        let batched = run(GatherND { batch_dims: 1 }, &[&x, &table(&[2, 1], &[1, 0])]).unwrap();
        assert_eq!(batched, Tensor::new(&[2, 2], &[2f32, 3., 4., 5.]).unwrap());
        assert!(run(plain, &[&x, &table(&[0, 1], &[])]).unwrap().is_empty());
        assert_eq!(run(plain, &[&counting(&[2, 0]), &ints(&[1])]).unwrap().shape(), [0]);
    }

    #[test]
    fn refuses_tuples_that_do_not_fit() {
        let x = counting(&[2, 2]);
        for (batch_dims, indices) in [
            (0, table(&[1, 3], &[0, 0, 0])),
            (0, table(&[2, 0], &[])),
            (0, ints(&[2])),
            (0, Tensor::scalar(0i64)),
            (1, ints(&[0])),
            (1, table(&[1, 1], &[0])),
            (-1, table(&[2, 1], &[0, 0])),
        ] {
            assert!(run(GatherND { batch_dims }, &[&x, &indices]).is_err(), "{batch_dims} {indices:?}");
        }
    }
}
