//! MaxRoiPool: the part of a feature map under each box, in whole pixels, brought to one size by maxima.
//!
//! Girshick, "Fast R-CNN" (2015). RoiAlign took its place.

use super::checks::{float_input, same_type, split_shape};
use super::conv::shaped;
use super::window::{read_extents, write_extents};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::{element_count, room};
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// Inputs: X `[N, C, H, W]` and boxes `[R, 5]`: the image, then two corners. Output: `[R, C, …pooled_shape]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxRoiPool {
    /// The output's height and width.
    pub pooled_shape: Vec<usize>,
    /// Pixels of the feature map for one unit of the boxes.
    pub spatial_scale: f32,
}

/// The pixels under each of `pooled` parts of an edge from `from` to `to`, both inclusive.
fn parts(from: f64, to: f64, pooled: usize, extent: usize) -> Vec<Range<usize>> {
    let length = (to - from + 1.0).max(1.0) / pooled as f64;
    let pixel = |v: f64| (v + from).clamp(0.0, extent as f64) as usize;
    (0..pooled).map(|i| pixel((i as f64 * length).floor())..pixel(((i + 1) as f64 * length).ceil())).collect()
}

impl MaxRoiPool {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let pooled = read_extents(&node.attributes, "pooled_shape")?;
        Ok(Arc::new(MaxRoiPool {
            pooled_shape: Attributes::require("pooled_shape", pooled)?,
            spatial_scale: node.attributes.float("spatial_scale", 1.0)?,
        }))
    }
}

impl Operator for MaxRoiPool {
    fn name(&self) -> &'static str {
        "MaxRoiPool"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        same_type(inputs, 1, dtype)?;
        if self.pooled_shape.len() != 2 || self.pooled_shape.contains(&0) {
            invalid!(
                "attribute \"pooled_shape\" is {:?}, where two positive numbers are expected",
                self.pooled_shape
            );
        }
        let (x, boxes) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        let (Some(x), Some(boxes)) = (x.shape(), boxes.shape()) else {
            return Ok(vec![Fact::unknown(dtype)]);
        };
        let (_, channels, spatial) = split_shape(x, 2)?;
        let (2, &[count, 5]) = (spatial.len(), boxes) else {
            invalid!("inputs of shapes {x:?} and {boxes:?} do not fit [N, C, H, W] and [R, 5]")
        };
        let shape = vec![count, channels, self.pooled_shape[0], self.pooled_shape[1]];
        element_count(&shape)?;
        Ok(vec![shaped(dtype, Some(shape))])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, boxes) = (required(inputs, 0)?, required(inputs, 1)?);
        let (&[batch, channels, height, width], &[pooled_height, pooled_width]) =
            (x.shape(), &self.pooled_shape[..])
        else {
            invalid!("input 0 is of shape {:?}, where 4 axes are expected", x.shape())
        };
        let shape = [boxes.shape()[0], channels, pooled_height, pooled_width];
        let mut out: Vec<f64> = room(&shape)?;
        let values = x.to_f64s();
        for corners in boxes.to_f64s().chunks_exact(5) {
            if !(0.0..batch as f64).contains(&corners[0]) {
                invalid!("input 1 names image {} of {batch}", corners[0]);
            }
            let image = corners[0] as usize;
            let at = |i: usize| (corners[i] * f64::from(self.spatial_scale)).round();
            let rows = parts(at(2), at(4), pooled_height, height);
            let columns = parts(at(1), at(3), pooled_width, width);
            for channel in 0..channels {
                let plane = &values[(image * channels + channel) * height * width..][..height * width];
                for row in &rows {
                    for column in &columns {
                        let pixels =
                            row.clone().flat_map(|y| column.clone().map(move |x| plane[y * width + x]));
                        // Where no pixel lies under a part, it is 0.
                        out.push(pixels.reduce(f64::max).unwrap_or(0.0));
                    }
                }
            }
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), &shape, &out)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
            .with("pooled_shape", write_extents(&self.pooled_shape))
            .with("spatial_scale", self.spatial_scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn pools_boxes() {
        let x = Tensor::new(&[1, 1, 2, 4], &[0f32, 1., 2., 3., 10., 11., 12., 13.]).unwrap();
        let boxes = Tensor::new(&[2, 5], &[0f32, 0., 0., 3., 0., 0., 8., 8., 9., 9.]).unwrap();
        let op = MaxRoiPool { pooled_shape: vec![1, 2], spatial_scale: 1.0 };
        let y = op.eval(&[Some(&x), Some(&boxes)], 1).unwrap().remove(0);
        assert_eq!((y.shape(), y.to_f64s()), (&[2, 1, 1, 2][..], vec![1., 3., 0., 0.]));
        let fact = |s: &[usize]| Some(Fact::new(DType::F32, s));
        assert!(op.infer(&[fact(&[1, 1, 2, 4]), fact(&[2, 4])], 1).is_err());
        let flat = MaxRoiPool { pooled_shape: vec![0, 1], ..op };
        let message = flat.infer(&[fact(&[1, 1, 2, 4]), fact(&[2, 5])], 1).unwrap_err().to_string();
        assert!(message.contains("pooled_shape"), "{message}");
    }
}
