//! AffineGrid: the places that an affine map of the image reads, for GridSample (Jaderberg et al., 2015).

use super::checks::float_input;
use super::conv::shaped;
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::{element_count, room};
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Tensor, index};
use std::sync::Arc;

/// Inputs: theta `[N, axes, axes + 1]` and the image's shape `[N, C, …]`, of two or three spatial axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AffineGrid {
    /// Whether -1 and 1 are the centres of the border pixels, or their outer edges.
    pub align_corners: bool,
}

/// The output's shape `[N, …, axes]`.
fn output_shape(theta: &[usize], size: &Tensor) -> Result<Vec<usize>> {
    let size: Option<Vec<usize>> = size.to_i64s()?.into_iter().map(|v| usize::try_from(v).ok()).collect();
    let size = size.ok_or_else(|| Error::invalid("input 1 (size) holds a negative number"))?;
    let axes = size.len().saturating_sub(2);
    if !matches!(axes, 2 | 3) {
        invalid!("input 1 (size) has {} numbers, where 4 or 5 are expected", size.len());
    }
    if theta != [size[0], axes, axes + 1] {
        invalid!("input 0 is of shape {theta:?}, where {:?} is expected", [size[0], axes, axes + 1]);
    }
    let shape = [&size[..1], &size[2..], &[axes]].concat();
    element_count(&shape)?;
    Ok(shape)
}

impl AffineGrid {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(AffineGrid { align_corners: node.attributes.flag("align_corners", false)? }))
    }
    /// The place of pixel `at` of `extent`.
    fn place(&self, at: usize, extent: usize) -> f64 {
        let (at, extent) = (at as f64, extent as f64);
        match self.align_corners {
            true if extent > 1.0 => 2.0 * at / (extent - 1.0) - 1.0,
            // One pixel lies in the middle, as PyTorch has it.
            true => 0.0,
            false => (2.0 * at + 1.0) / extent - 1.0,
        }
    }
}

impl Operator for AffineGrid {
    fn name(&self) -> &'static str {
        "AffineGrid"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        super::checks::same_type(inputs, 1, DType::I64)?;
        let (theta, size) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        let shape = match (theta.shape(), &size.value) {
            (Some(theta), Some(size)) => Some(output_shape(theta, size)?),
            _ => None,
        };
        Ok(vec![shaped(dtype, shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let theta = required(inputs, 0)?;
        let shape = output_shape(theta.shape(), required(inputs, 1)?)?;
        let mut grid: Vec<f64> = room(&shape)?;
        let spatial = &shape[1..shape.len() - 1];
        let axes = spatial.len();
        let own = index::strides(spatial);
        for map in theta.to_f64s().chunks_exact(axes * (axes + 1)) {
            index::for_each(spatial, [], |flat, []| {
                // Places name the innermost axis first.
                let place = |i: usize| {
                    let axis = axes - 1 - i;
                    self.place(flat / own[axis] % spatial[axis], spatial[axis])
                };
                for row in map.chunks_exact(axes + 1) {
                    grid.push((0..axes).map(|i| row[i] * place(i)).sum::<f64>() + row[axes]);
                }
            });
        }
        Ok(vec![Tensor::from_f64s(theta.dtype(), &shape, &grid)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("align_corners", self.align_corners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_pixels_to_places() {
        let theta = Tensor::new(&[1, 2, 3], &[1f32, 0., 0., 0., 1., 0.5]).unwrap();
        let size = Tensor::from_i64s(&[1, 1, 2, 2]).unwrap();
        let run = |align_corners| AffineGrid { align_corners }.eval(&[Some(&theta), Some(&size)], 1).unwrap();
        assert_eq!(run(true)[0].to_f64s(), [-1., -0.5, 1., -0.5, -1., 1.5, 1., 1.5]);
        assert_eq!(run(false)[0].to_f64s(), [-0.5, 0., 0.5, 0., -0.5, 1., 0.5, 1.]);
        let wrong = Tensor::from_i64s(&[2, 1, 2, 2]).unwrap();
        let facts = [Some(Fact::constant(&theta)), Some(Fact::constant(&wrong))];
        assert!(AffineGrid::default().infer(&facts, 1).is_err());
    }
}
