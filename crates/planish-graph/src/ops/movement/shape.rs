//! Shape and Size: the extents of a tensor as data. Known before the graph runs, so they are folded away.

use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// The extents of the axes from `start` up to `end`, as a list of `i64`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// The first axis, counted from the end where negative; clamped to the rank.
    pub start: i64,
    /// The axis after the last, likewise; the rank where there is none.
    pub end: Option<i64>,
}

/// The number of elements, as a scalar of `i64`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size;

fn as_i64(extent: usize) -> Result<i64> {
    i64::try_from(extent).map_err(|_| Error::limit(format!("the extent {extent} does not fit in i64")))
}

impl Shape {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Shape { start: node.attributes.int("start", 0)?, end: node.attributes.opt_int("end")? }))
    }

    fn content(&self, shape: &[usize]) -> Result<Tensor> {
        let rank = shape.len() as i64;
        let clamped =
            |axis: i64| if axis < 0 { axis.saturating_add(rank) } else { axis }.clamp(0, rank) as usize;
        let (start, end) = (clamped(self.start), clamped(self.end.unwrap_or(rank)));
        let kept = shape.get(start..end).unwrap_or_default();
        Tensor::from_i64s(&kept.iter().map(|&n| as_i64(n)).collect::<Result<Vec<_>>>()?)
    }
}

impl Operator for Shape {
    fn name(&self) -> &'static str {
        "Shape"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        Ok(vec![match required_fact(inputs, 0)?.shape() {
            None => Fact::unknown(DType::I64),
            Some(shape) => Fact::constant(&self.content(shape)?),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![self.content(required(inputs, 0)?.shape())?])
    }
    fn attributes(&self) -> Attributes {
        let written = Attributes::new().with("start", self.start);
        match self.end {
            Some(end) => written.with("end", end),
            None => written,
        }
    }
}

impl Size {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Size))
    }
}

impl Operator for Size {
    fn name(&self) -> &'static str {
        "Size"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        Ok(vec![match required_fact(inputs, 0)?.shape() {
            None => Fact::new(DType::I64, &[]),
            Some(shape) => Fact::constant(&Tensor::scalar(as_i64(element_count(shape)?)?)),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::scalar(as_i64(required(inputs, 0)?.len())?)])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, run};
    use super::*;

    #[test]
    fn lists_extents() {
        let x = counting(&[2, 3, 4]);
        let cases: [(i64, Option<i64>, &[i64]); 7] = [
            (0, None, &[2, 3, 4]),
            (1, Some(2), &[3]),
            (-1, None, &[4]),
            (0, Some(-1), &[2, 3]),
            (2, Some(1), &[]),
            (i64::MIN, Some(i64::MAX), &[2, 3, 4]),
            (7, None, &[]),
        ];
        for (start, end, wanted) in cases {
            assert_eq!(run(Shape { start, end }, &[&x]).unwrap(), ints(wanted), "{start}..{end:?}");
        }
        assert_eq!(run(Shape { start: 0, end: None }, &[&counting(&[])]).unwrap(), ints(&[]));
    }

    #[test]
    fn counts_elements() {
        assert_eq!(run(Size, &[&counting(&[2, 3])]).unwrap(), Tensor::scalar(6i64));
        assert_eq!(run(Size, &[&counting(&[2, 0])]).unwrap(), Tensor::scalar(0i64));
    }

    #[test]
    fn knows_the_content_from_the_shape_alone() {
        let x = [Some(Fact::new(DType::F32, &[5, 6]))];
        let said = Shape { start: 0, end: None }.infer(&x, 1).unwrap();
        assert_eq!(said, [Fact::constant(&ints(&[5, 6]))]);
        assert_eq!(Size.infer(&x, 1).unwrap(), [Fact::constant(&Tensor::scalar(30i64))]);
        let huge = [Some(Fact::new(DType::F32, &[usize::MAX]))];
        assert!(Size.infer(&huge, 1).is_err());
        assert!(Shape { start: 0, end: None }.infer(&huge, 1).is_err());
    }
}
