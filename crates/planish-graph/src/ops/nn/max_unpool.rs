//! MaxUnpool: puts pooled maxima back where MaxPool found them, and zeros elsewhere.
//!
//! Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014); the decoder of SegNet (2015).

use super::checks::{expect_shape, float_input, split_shape};
use super::conv::{shaped, zeros};
use super::window::{per_axis, read_extents, split_pads, write_extents};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{DType, Tensor, index};
use std::sync::Arc;

/// Inputs: X, indices (of MaxPool's second output), output shape (optional, where the pooled tensor was larger than the
/// windows tell). Indices count elements of the shape that follows from the attributes; a larger output is filled with
/// zeros at the ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaxUnpool {
    /// Elements of a window along each spatial axis.
    pub kernel_shape: Vec<usize>,
    /// The distance of windows; empty for 1.
    pub strides: Vec<usize>,
    /// Padding that the pooling had; empty for none.
    pub pads: Vec<usize>,
}

impl MaxUnpool {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let attributes = &node.attributes;
        Ok(Arc::new(MaxUnpool {
            kernel_shape: Attributes::require("kernel_shape", read_extents(attributes, "kernel_shape")?)?,
            strides: read_extents(attributes, "strides")?.unwrap_or_default(),
            pads: read_extents(attributes, "pads")?.unwrap_or_default(),
        }))
    }
    /// The shape that follows from the attributes.
    fn unpooled(&self, shape: &[usize]) -> Result<Vec<usize>> {
        let (batch, channels, spatial) = split_shape(shape, 1)?;
        if self.kernel_shape.len() != spatial.len() {
            invalid!(
                "attribute \"kernel_shape\" has {} entries for {} axes",
                self.kernel_shape.len(),
                spatial.len()
            );
        }
        let kernel = per_axis("kernel_shape", &self.kernel_shape, spatial.len())?;
        let strides = per_axis("strides", &self.strides, spatial.len())?;
        let (begin, end) = split_pads(&self.pads, spatial.len())?;
        let mut full = vec![batch, channels];
        for (axis, &extent) in spatial.iter().enumerate() {
            let last = extent.checked_sub(1).and_then(|n| n.checked_mul(strides[axis]));
            let reach = last.and_then(|n| n.checked_add(kernel[axis]));
            match reach.and_then(|n| n.checked_sub(begin[axis] + end[axis])) {
                Some(extent) if extent > 0 => full.push(extent),
                _ => invalid!("attribute \"pads\": nothing is left of axis {axis} of shape {shape:?}"),
            }
        }
        element_count(&full)?;
        Ok(full)
    }
    /// The output's shape: as unpooled, or as input 2 says.
    fn output(unpooled: &[usize], wanted: &[i64]) -> Result<Vec<usize>> {
        let shape: Option<Vec<usize>> = wanted.iter().map(|&d| usize::try_from(d).ok()).collect();
        match shape {
            Some(shape)
                if shape.len() == unpooled.len()
                    && shape[..2] == unpooled[..2]
                    && shape.iter().zip(unpooled).all(|(s, u)| s >= u) =>
            {
                Ok(shape)
            }
            _ => invalid!("input 2 asks for shape {wanted:?}, where at least {unpooled:?} is needed"),
        }
    }
}

impl Operator for MaxUnpool {
    fn name(&self) -> &'static str {
        "MaxUnpool"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        for index in [1, 2] {
            super::checks::same_type(inputs, index, DType::I64)?;
        }
        let Some(shape) = required_fact(inputs, 0)?.shape() else { return Ok(vec![Fact::unknown(dtype)]) };
        expect_shape(inputs, 1, shape)?;
        let unpooled = self.unpooled(shape)?;
        let shape = match optional_fact(inputs, 2) {
            None => Some(unpooled),
            Some(Fact { value: Some(wanted), .. }) => Some(MaxUnpool::output(&unpooled, &wanted.to_i64s()?)?),
            Some(_) => None,
        };
        Ok(vec![shaped(dtype, shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let unpooled = self.unpooled(x.shape())?;
        let mut values: Vec<f64> = zeros(&unpooled)?;
        let places = required(inputs, 1)?.to_i64s()?;
        for (value, place) in x.to_f64s().into_iter().zip(places) {
            let target = usize::try_from(place).ok().and_then(|p| values.get_mut(p));
            match target {
                Some(target) => *target = value,
                None => invalid!("index {place} is outside an output of shape {unpooled:?}"),
            }
        }
        let Some(wanted) = optional(inputs, 2) else {
            return Ok(vec![Tensor::from_f64s(x.dtype(), &unpooled, &values)?]);
        };
        let shape = MaxUnpool::output(&unpooled, &wanted.to_i64s()?)?;
        let mut larger: Vec<f64> = zeros(&shape)?;
        let strides = index::strides(&shape);
        index::for_each(&unpooled, [&strides], |flat, [at]| larger[at] = values[flat]);
        Ok(vec![Tensor::from_f64s(x.dtype(), &shape, &larger)?])
    }
    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new().with("kernel_shape", write_extents(&self.kernel_shape));
        for (name, list) in [("strides", &self.strides), ("pads", &self.pads)] {
            if !list.is_empty() {
                attributes = attributes.with(name, write_extents(list));
            }
        }
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_maxima_back() {
        let x = Tensor::new(&[1, 1, 2], &[5f32, 6.]).unwrap();
        let places = Tensor::new(&[1, 1, 2], &[1i64, 2]).unwrap();
        let op = MaxUnpool { kernel_shape: vec![2], strides: vec![2], pads: vec![] };
        let y = op.eval(&[Some(&x), Some(&places)], 1).unwrap().remove(0);
        assert_eq!((y.shape(), y.to_f64s()), (&[1, 1, 4][..], vec![0., 5., 6., 0.]));
        let wanted = Tensor::from_i64s(&[1, 1, 5]).unwrap();
        let given = [Some(&x), Some(&places), Some(&wanted)];
        assert_eq!(op.eval(&given, 1).unwrap()[0].to_f64s(), [0., 5., 6., 0., 0.]);
        assert_eq!(
            op.infer(&given.map(|t| t.map(Fact::constant)), 1).unwrap()[0].shape(),
            Some(&[1, 1, 5][..])
        );
        let outside = Tensor::new(&[1, 1, 2], &[1i64, 4]).unwrap();
        assert!(op.eval(&[Some(&x), Some(&outside)], 1).is_err());
        let small = Tensor::from_i64s(&[1, 1, 3]).unwrap();
        assert!(op.eval(&[Some(&x), Some(&places), Some(&small)], 1).is_err());
    }
}
