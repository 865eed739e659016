//! Unique: the different elements, or slices, of a tensor.

use super::layout;
use super::number::Number;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::limits::{element_count, room};
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Tensor, index};
use std::cmp::Ordering;
use std::sync::Arc;

/// Outputs: the different slices along `axis`; for each, where it first occurs; for each slice of the input, which of
/// them it is; for each, how often it occurs. All NaNs are one value, and so are the two zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unique {
    /// The axis, counted from the end where negative; the input is flattened where there is none.
    pub axis: Option<i64>,
    /// In ascending order, or in the order of first occurrence.
    pub sorted: bool,
}

impl Unique {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let sorted = node.attributes.flag("sorted", true)?;
        Ok(Arc::new(Unique { axis: node.attributes.opt_int("axis")?, sorted }))
    }

    /// The shape whose slices are compared, and the axis.
    fn compared(&self, shape: &[usize]) -> Result<(Vec<usize>, usize)> {
        match self.axis {
            None => Ok((vec![element_count(shape)?], 0)),
            Some(axis) => Ok((shape.to_vec(), index::axis(axis, shape.len())?)),
        }
    }
}

/// The slices of a tensor along an axis, for comparing.
struct Slices<'a> {
    bytes: &'a [u8],
    dtype: DType,
    outer: usize,
    extent: usize,
    inner: usize,
}

impl Slices<'_> {
    /// The elements of slice `i`, in order.
    fn elements(&self, i: usize) -> impl Iterator<Item = Number> {
        let size = self.dtype.size();
        (0..self.outer).flat_map(move |o| {
            let block = &self.bytes[(o * self.extent + i) * self.inner * size..][..self.inner * size];
            block.chunks_exact(size).map(|element| Number::read(self.dtype, element))
        })
    }
    fn order(&self, a: usize, b: usize) -> Ordering {
        let pairs = self.elements(a).zip(self.elements(b));
        pairs.map(|(x, y)| x.order(y)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl Operator for Unique {
    fn name(&self) -> &'static str {
        "Unique"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1).outputs(1, 4)
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        let mut inverse = Fact::unknown(DType::I64);
        if let Some(shape) = data.shape() {
            let (shape, axis) = self.compared(shape)?;
            inverse.shape = Some(vec![shape[axis]]);
        }
        let mut facts =
            vec![Fact::unknown(data.dtype), Fact::unknown(DType::I64), inverse, Fact::unknown(DType::I64)];
        facts.truncate(outputs);
        Ok(facts)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let (shape, axis) = self.compared(data.shape())?;
        let data = data.reshaped(&shape)?;
        let extent = shape[axis];
        let (outer, inner) = if data.is_empty() {
            (0, 0)
        } else {
            (element_count(&shape[..axis])?, element_count(&shape[axis + 1..])?)
        };
        let slices = Slices { bytes: data.bytes(), dtype: data.dtype(), outer, extent, inner };

        let mut order: Vec<usize> = room(&[extent])?;
        order.extend(0..extent);
        // A stable sort, so that each group of equals starts with its first occurrence.
        order.sort_by(|&a, &b| slices.order(a, b));
        let mut groups: Vec<&[usize]> = order.chunk_by(|&a, &b| slices.order(a, b).is_eq()).collect();
        if !self.sorted {
            groups.sort_by_key(|group| group[0]);
        }

        let unique = layout::select(&data, axis, groups.len(), |i| groups[i][0])?;
        let mut first = Tensor::zeros(DType::I64, &[groups.len()])?;
        let mut inverse = Tensor::zeros(DType::I64, &[extent])?;
        let mut counts = Tensor::zeros(DType::I64, &[groups.len()])?;
        let (firsts, inverses) = (first.as_mut_slice::<i64>()?, inverse.as_mut_slice::<i64>()?);
        let places = firsts.iter_mut().zip(counts.as_mut_slice::<i64>()?);
        for ((number, group), (first, count)) in groups.iter().enumerate().zip(places) {
            *first = group[0] as i64;
            *count = group.len() as i64;
            for &member in *group {
                inverses[member] = number as i64;
            }
        }
        let mut made = vec![unique, first, inverse, counts];
        made.truncate(outputs);
        Ok(made)
    }
    fn attributes(&self) -> Attributes {
        let written = Attributes::new().with("sorted", self.sorted);
        match self.axis {
            Some(axis) => written.with("axis", axis),
            None => written,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, run_many};
    use super::*;

    #[test]
    fn of_elements() {
        let x = ints(&[2, 1, 1, 3, 4, 3]);
        let sorted = run_many(Unique { axis: None, sorted: true }, &[Some(&x)], 4).unwrap();
        assert_eq!(sorted, [&[1, 2, 3, 4][..], &[1, 0, 3, 4], &[1, 0, 0, 2, 3, 2], &[2, 1, 2, 1]].map(ints));
        let seen = run_many(Unique { axis: None, sorted: false }, &[Some(&x)], 4).unwrap();
        assert_eq!(seen, [&[2, 1, 3, 4][..], &[0, 1, 3, 4], &[0, 1, 1, 2, 3, 2], &[1, 2, 2, 1]].map(ints));
        let nans = Tensor::new(&[4], &[f32::NAN, 0., -0.0, f32::NAN]).unwrap();
        let one = run_many(Unique { axis: None, sorted: true }, &[Some(&nans)], 3).unwrap();
        assert_eq!(one[2], ints(&[1, 0, 0, 1]));
        assert_eq!(
            run_many(Unique { axis: None, sorted: true }, &[Some(&Tensor::scalar(5u8))], 1).unwrap()[0]
                .shape(),
            [1]
        );
    }

    #[test]
    fn of_slices() {
        let x = Tensor::new(&[2, 4], &[1i32, 0, 2, 0, 1, 1, 1, 1]).unwrap();
        let made = run_many(Unique { axis: Some(1), sorted: true }, &[Some(&x)], 4).unwrap();
        assert_eq!(made[0], Tensor::new(&[2, 3], &[0i32, 1, 2, 1, 1, 1]).unwrap());
        assert_eq!(made[1..], [&[1, 0, 2][..], &[1, 0, 2, 0], &[2, 1, 1]].map(ints));
    }

    #[test]
    fn of_nothing() {
        let all = Unique { axis: None, sorted: true };
        assert_eq!(run_many(all, &[Some(&counting(&[2, 0]))], 1).unwrap()[0].shape(), [0]);
        let rows = Unique { axis: Some(0), sorted: true };
        let made = run_many(rows, &[Some(&counting(&[2, 0]))], 4).unwrap();
        assert_eq!((made[0].shape(), &made[3]), (&[1, 0][..], &ints(&[2])));
        assert!(run_many(Unique { axis: Some(1), ..all }, &[Some(&ints(&[1]))], 1).is_err());
    }
}
