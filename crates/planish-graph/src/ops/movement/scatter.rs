//! ScatterElements and ScatterND: writes elements or blocks to places given by index.

use super::indexing::{AlongAxis, Tuples};
use super::inputs::{check_index_type, check_same_type};
use super::number::Number;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Tensor};
use std::cmp::Ordering;
use std::sync::Arc;

/// What an update does to the element that it meets. Each step rounds to the element type; where several updates meet
/// one element they are applied in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Takes its place.
    None,
    /// Is added.
    Add,
    /// Is multiplied.
    Mul,
    /// The larger stays; NaN if either is.
    Max,
    /// The smaller stays; NaN if either is.
    Min,
}

impl Reduction {
    const ALL: [(Reduction, &'static str); 5] = [
        (Reduction::None, "none"),
        (Reduction::Add, "add"),
        (Reduction::Mul, "mul"),
        (Reduction::Max, "max"),
        (Reduction::Min, "min"),
    ];

    fn read(node: &NodeReader) -> Result<Reduction> {
        let name = node.attributes.string("reduction", "none")?;
        match Reduction::ALL.iter().find(|(_, known)| *known == name) {
            Some((reduction, _)) => Ok(*reduction),
            None => {
                invalid!("attribute \"reduction\" is \"{name}\", one of none, add, mul, max, min is expected")
            }
        }
    }

    fn name(self) -> &'static str {
        Reduction::ALL.iter().find(|(known, _)| *known == self).map_or("none", |(_, name)| name)
    }

    fn combine(self, old: Number, new: Number) -> Number {
        let chosen = |wanted: Ordering| {
            let is_nan = |n: Number| matches!(n, Number::Float(x) if x.is_nan());
            if is_nan(old) || (!is_nan(new) && old.order(new) == wanted) { old } else { new }
        };
        match (self, old, new) {
            (Reduction::None, _, new) => new,
            (Reduction::Add, Number::Float(a), Number::Float(b)) => Number::Float(a + b),
            (Reduction::Mul, Number::Float(a), Number::Float(b)) => Number::Float(a * b),
            (Reduction::Add, Number::Int(a), Number::Int(b)) => Number::Int(a.wrapping_add(b)),
            (Reduction::Mul, Number::Int(a), Number::Int(b)) => Number::Int(a.wrapping_mul(b)),
            (Reduction::Max, ..) => chosen(Ordering::Greater),
            (Reduction::Min, ..) => chosen(Ordering::Less),
            (_, old, _) => old,
        }
    }

    /// Updates the elements in `target` by those in `updates`.
    fn apply(self, dtype: DType, target: &mut [u8], updates: &[u8]) {
        if self == Reduction::None {
            target.copy_from_slice(updates);
            return;
        }
        let size = dtype.size();
        for (place, update) in target.chunks_exact_mut(size).zip(updates.chunks_exact(size)) {
            self.combine(Number::read(dtype, place), Number::read(dtype, update)).write(dtype, place);
        }
    }
}

/// The data, with each element of the updates brought to the place that the index beside it names: its own, but for
/// the coordinate along `axis`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScatterElements {
    /// The axis, counted from the end where negative.
    pub axis: i64,
    /// What an update does.
    pub reduction: Reduction,
}

/// The data, with each block of the updates brought to where the tuple in the last axis of the indices says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScatterND {
    /// What an update does.
    pub reduction: Reduction,
}

/// The checks and the result that both share; `expected` is the shape that updates must have.
fn infer_scatter(
    inputs: &[Option<Fact>],
    expected: impl Fn(&[usize], &[usize]) -> Result<Vec<usize>>,
) -> Result<Vec<Fact>> {
    let (data, indices, updates) =
        (required_fact(inputs, 0)?, required_fact(inputs, 1)?, required_fact(inputs, 2)?);
    check_index_type(indices.dtype, "indices")?;
    check_same_type(data, updates, "updates")?;
    if let (Some(shape), Some(given)) = (data.shape(), indices.shape()) {
        let expected = expected(shape, given)?;
        if updates.shape().is_some_and(|s| s != expected) {
            invalid!("input \"updates\" has shape {:?}, {expected:?} is expected", updates.shape());
        }
    }
    Ok(vec![Fact { value: None, ..data.clone() }])
}

/// A copy of `data` to write to, charged as a tensor of its own.
fn copy_of(data: &Tensor) -> Result<Tensor> {
    Tensor::from_bytes(data.dtype(), data.shape(), data.bytes())
}

impl ScatterElements {
    /// Reads Scatter too, the name that opset 9 gave it.
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let axis = node.attributes.int("axis", 0)?;
        Ok(Arc::new(ScatterElements { axis, reduction: Reduction::read(node)? }))
    }
}

impl Operator for ScatterElements {
    fn name(&self) -> &'static str {
        "ScatterElements"
    }
    fn arity(&self) -> Arity {
        Arity::exact(3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        infer_scatter(inputs, |data, indices| {
            AlongAxis::new(self.axis, data, indices)?;
            Ok(indices.to_vec())
        })
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (data, indices, updates) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let along = AlongAxis::new(self.axis, data.shape(), indices.shape())?;
        let mut out = copy_of(data)?;
        let (dtype, size) = (data.dtype(), data.dtype().size());
        let (source, target) = (updates.bytes(), out.bytes_mut());
        along.for_each(data.shape(), indices, |from, to| {
            self.reduction.apply(dtype, &mut target[to * size..][..size], &source[from * size..][..size]);
        })?;
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("axis", self.axis).with("reduction", self.reduction.name())
    }
}

impl ScatterND {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(ScatterND { reduction: Reduction::read(node)? }))
    }
}

impl Operator for ScatterND {
    fn name(&self) -> &'static str {
        "ScatterND"
    }
    fn arity(&self) -> Arity {
        Arity::exact(3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        infer_scatter(inputs, |data, indices| Ok(Tuples::new(0, data, indices)?.blocks(data, indices)))
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (data, indices, updates) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let tuples = Tuples::new(0, data.shape(), indices.shape())?;
        let mut out = copy_of(data)?;
        let block = tuples.block_len(data.shape())? * data.dtype().size();
        let (dtype, source, target) = (data.dtype(), updates.bytes(), out.bytes_mut());
        if block > 0 {
            tuples.for_each(data.shape(), indices, |from, to| {
                let updates = &source[from * block..][..block];
                self.reduction.apply(dtype, &mut target[to * block..][..block], updates);
            })?;
        }
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("reduction", self.reduction.name())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, node, run};
    use super::*;

    fn elements(axis: i64, reduction: Reduction) -> ScatterElements {
        ScatterElements { axis, reduction }
    }

    #[test]
    fn elements_along_an_axis() {
        let x = counting(&[2, 3]);
        let indices = Tensor::new(&[1, 2], &[1i64, -1]).unwrap();
        let updates = Tensor::new(&[1, 2], &[10f32, 20.]).unwrap();
        let made = run(elements(1, Reduction::None), &[&x, &indices, &updates]).unwrap();
        assert_eq!(made.to_f32s(), [0., 10., 20., 3., 4., 5.]);
        let made = run(elements(0, Reduction::Add), &[&x, &indices, &updates]).unwrap();
        assert_eq!(made.to_f32s(), [0., 1., 2., 13., 24., 5.]);
        let nothing = [Tensor::new::<i64>(&[0, 3], &[]).unwrap(), counting(&[0, 3])];
        assert_eq!(run(elements(0, Reduction::Mul), &[&x, &nothing[0], &nothing[1]]).unwrap(), x);
        assert!(run(elements(1, Reduction::None), &[&x, &indices, &counting(&[2, 1])]).is_err());
        let outside = Tensor::new(&[1, 2], &[3i64, 0]).unwrap();
        assert!(run(elements(1, Reduction::None), &[&x, &outside, &updates]).is_err());
    }

    #[test]
    fn updates_that_meet_are_applied_in_order() {
        let x = Tensor::new(&[2], &[100i8, 2]).unwrap();
        let (twice, updates) = (ints(&[0, 0]), Tensor::new(&[2], &[100i8, 3]).unwrap());
        let made =
            |reduction| run(elements(0, reduction), &[&x, &twice, &updates]).unwrap().to_i64s().unwrap()[0];
        assert_eq!(made(Reduction::None), 3);
        assert_eq!(made(Reduction::Add), -53);
        assert_eq!(made(Reduction::Mul), i64::from(30000i16 as i8));
        assert_eq!((made(Reduction::Max), made(Reduction::Min)), (100, 3));
        let nan = Tensor::new(&[2], &[f32::NAN, 7.]).unwrap();
        let made = run(elements(0, Reduction::Min), &[&counting(&[2]), &twice, &nan]).unwrap();
        assert!(made.to_f32s()[0].is_nan());
    }

    #[test]
    fn blocks_by_tuples() {
        let x = counting(&[2, 2]);
        let plain = ScatterND { reduction: Reduction::None };
        let made = run(plain, &[&x, &Tensor::new(&[1, 1], &[-1i64]).unwrap(), &counting(&[1, 2])]).unwrap();
        assert_eq!(made.to_f32s(), [0., 1., 0., 1.]);
        let places = Tensor::new(&[2, 2], &[0i64, 1, 0, 1]).unwrap();
        let added = ScatterND { reduction: Reduction::Add };
        let made = run(added, &[&x, &places, &Tensor::new(&[2], &[5f32, 6.]).unwrap()]).unwrap();
        assert_eq!(made.to_f32s(), [0., 12., 2., 3.]);
        assert!(run(plain, &[&x, &places, &counting(&[3])]).is_err());
        assert!(run(plain, &[&x, &places, &ints(&[1, 2])]).is_err());
        assert!(run(plain, &[&x, &ints(&[2]), &counting(&[2])]).is_err());
    }

    #[test]
    fn reads_scatter_and_refuses_unknown_reductions() {
        let old = ScatterElements::read(&mut node("Scatter", 9, 3, Attributes::new())).unwrap();
        assert_eq!(old.name(), "ScatterElements");
        let odd = Attributes::new().with("reduction", "avg");
        assert!(ScatterND::read(&mut node("ScatterND", 18, 3, odd)).is_err());
    }
}
