//! RoiAlign: the part of a feature map under each box, brought to one size by interpolation.
//!
//! He et al., "Mask R-CNN" (2017). Unlike pooling over rounded boxes it does not move what it looks at.

use super::checks::{float_input, same_type, split_shape};
use super::conv::shaped;
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::{element_count, room};
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Most samples along an edge of an output element; boxes that would take more are refused.
const MOST_SAMPLES: usize = 1 << 12;

/// Inputs: X `[N, C, H, W]`, boxes `[R, 4]`, and the image of each box `[R]`. Output: `[R, C, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoiAlign {
    /// The output's height.
    pub output_height: usize,
    /// The output's width.
    pub output_width: usize,
    /// Samples along each edge of an output element; 0 for as many as pixels.
    pub sampling_ratio: usize,
    /// Pixels of the feature map for one unit of the boxes.
    pub spatial_scale: f32,
    /// Whether pixel centres lie at halves, so that boxes move by half a pixel (the default since opset 16).
    pub half_pixel: bool,
    /// Whether the largest sample is taken, rather than the mean.
    pub takes_max: bool,
}

impl RoiAlign {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let attributes = &node.attributes;
        let extent = |name: &str, default| match usize::try_from(attributes.int(name, default)?) {
            Ok(value) => Ok(value),
            Err(_) => Err(Error::invalid(format!("attribute \"{name}\" must not be negative"))),
        };
        let usual = if node.before(16) { "output_half_pixel" } else { "half_pixel" };
        let half_pixel = match attributes.string("coordinate_transformation_mode", usual)?.as_str() {
            "half_pixel" => true,
            "output_half_pixel" => false,
            other => invalid!("attribute \"coordinate_transformation_mode\" is unknown: \"{other}\""),
        };
        let takes_max = match attributes.string("mode", "avg")?.as_str() {
            "avg" => false,
            "max" => true,
            other => invalid!("attribute \"mode\" is unknown: \"{other}\""),
        };
        Ok(Arc::new(RoiAlign {
            output_height: extent("output_height", 1)?,
            output_width: extent("output_width", 1)?,
            sampling_ratio: extent("sampling_ratio", 0)?,
            spatial_scale: attributes.float("spatial_scale", 1.0)?,
            half_pixel,
            takes_max,
        }))
    }
    /// Start and length of a box's edge on the feature map.
    fn edge(&self, from: f64, to: f64) -> (f64, f64) {
        let scale = f64::from(self.spatial_scale);
        let offset = if self.half_pixel { 0.5 } else { 0.0 };
        let length = (to - from) * scale;
        (from * scale - offset, if self.half_pixel { length } else { length.max(1.0) })
    }
    /// Samples of one edge of `output` elements: for each element, those of its own.
    fn samples(
        &self,
        (start, length): (f64, f64),
        output: usize,
        extent: usize,
    ) -> Result<Vec<Vec<Option<Sample>>>> {
        let each = length / output as f64;
        let count = if self.sampling_ratio > 0 { self.sampling_ratio } else { each.ceil().max(0.0) as usize };
        if count > MOST_SAMPLES {
            return Err(Error::limit(format!(
                "a box takes {count} samples an element, more than {MOST_SAMPLES}"
            )));
        }
        let place =
            |element: usize, i: usize| start + element as f64 * each + (i as f64 + 0.5) * each / count as f64;
        Ok((0..output).map(|e| (0..count).map(|i| Sample::at(place(e, i), extent)).collect()).collect())
    }
}

/// Two neighbouring pixels and the weight of the second.
#[derive(Clone, Copy)]
struct Sample {
    low: usize,
    high: usize,
    part: f64,
}

impl Sample {
    /// The pixels around `at`; `None` more than a pixel outside.
    fn at(at: f64, extent: usize) -> Option<Sample> {
        if !(-1.0..=extent as f64).contains(&at) {
            return None;
        }
        let at = at.max(0.0);
        let low = at as usize;
        if low + 1 >= extent {
            let last = extent - 1;
            return Some(Sample { low: last, high: last, part: 0.0 });
        }
        Some(Sample { low, high: low + 1, part: at - low as f64 })
    }
}

impl Operator for RoiAlign {
    fn name(&self) -> &'static str {
        "RoiAlign"
    }
    fn arity(&self) -> Arity {
        Arity::exact(3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        same_type(inputs, 1, dtype)?;
        same_type(inputs, 2, DType::I64)?;
        for (name, value) in [("output_height", self.output_height), ("output_width", self.output_width)] {
            if value == 0 {
                invalid!("attribute \"{name}\" is 0, where a positive number is expected");
            }
        }
        if self.sampling_ratio > MOST_SAMPLES {
            invalid!("attribute \"sampling_ratio\" is {}, more than {MOST_SAMPLES}", self.sampling_ratio);
        }
        let shape = |i| Ok::<_, Error>(required_fact(inputs, i)?.shape());
        let (Some(x), Some(boxes), Some(images)) = (shape(0)?, shape(1)?, shape(2)?) else {
            return Ok(vec![Fact::unknown(dtype)]);
        };
        let (_, channels, spatial) = split_shape(x, 2)?;
        if spatial.len() != 2 || spatial.contains(&0) {
            invalid!("input 0 is of shape {x:?}, where an image of two axes is expected");
        }
        if boxes != [images.first().copied().unwrap_or(0), 4] || images.len() != 1 {
            invalid!("boxes of shape {boxes:?} and images of shape {images:?} do not fit [R, 4] and [R]");
        }
        let shape = vec![boxes[0], channels, self.output_height, self.output_width];
        element_count(&shape)?;
        Ok(vec![shaped(dtype, Some(shape))])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, boxes) = (required(inputs, 0)?, required(inputs, 1)?);
        let &[batch, channels, height, width] = x.shape() else {
            invalid!("input 0 is of shape {:?}, where 4 axes are expected", x.shape())
        };
        let shape = [boxes.shape()[0], channels, self.output_height, self.output_width];
        let mut out: Vec<f64> = room(&shape)?;
        let (values, images) = (x.to_f64s(), required(inputs, 2)?.to_i64s()?);
        for (corners, image) in boxes.to_f64s().chunks_exact(4).zip(images) {
            let Some(image) = usize::try_from(image).ok().filter(|&i| i < batch) else {
                invalid!("input 2 names image {image} of {batch}")
            };
            let rows = self.samples(self.edge(corners[1], corners[3]), self.output_height, height)?;
            let columns = self.samples(self.edge(corners[0], corners[2]), self.output_width, width)?;
            for channel in 0..channels {
                let plane = &values[(image * channels + channel) * height * width..][..height * width];
                for row in &rows {
                    out.extend(columns.iter().map(|column| self.reduce(plane, width, row, column)));
                }
            }
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), &shape, &out)?])
    }
    fn attributes(&self) -> Attributes {
        let number = |v: usize| i64::try_from(v).unwrap_or(i64::MAX);
        Attributes::new()
            .with("output_height", number(self.output_height))
            .with("output_width", number(self.output_width))
            .with("sampling_ratio", number(self.sampling_ratio))
            .with("spatial_scale", self.spatial_scale)
            .with(
                "coordinate_transformation_mode",
                if self.half_pixel { "half_pixel" } else { "output_half_pixel" },
            )
            .with("mode", if self.takes_max { "max" } else { "avg" })
    }
}

impl RoiAlign {
    /// One output element from the samples of its rows and columns. As the definition has it, the maximum is over the
    /// four weighted pixels of each sample, not over their sums.
    fn reduce(
        &self,
        plane: &[f64],
        width: usize,
        rows: &[Option<Sample>],
        columns: &[Option<Sample>],
    ) -> f64 {
        let mut sum = 0.0;
        let mut largest = None;
        for row in rows {
            for column in columns {
                let terms = match (row, column) {
                    (Some(r), Some(c)) => [
                        plane[r.low * width + c.low] * (1.0 - r.part) * (1.0 - c.part),
                        plane[r.low * width + c.high] * (1.0 - r.part) * c.part,
                        plane[r.high * width + c.low] * r.part * (1.0 - c.part),
                        plane[r.high * width + c.high] * r.part * c.part,
                    ],
                    _ => [0.0; 4],
                };
                sum += terms.iter().sum::<f64>();
                let top = terms.into_iter().fold(f64::NEG_INFINITY, f64::max);
                largest = Some(largest.map_or(top, |l: f64| l.max(top)));
            }
        }
        if self.takes_max { largest.unwrap_or(0.0) } else { sum / (rows.len() * columns.len()).max(1) as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: RoiAlign = RoiAlign {
        output_height: 1,
        output_width: 2,
        sampling_ratio: 1,
        spatial_scale: 1.0,
        half_pixel: true,
        takes_max: false,
    };

    #[test]
    fn samples_boxes() {
        let x = Tensor::new(&[1, 1, 2, 4], &[0f32, 1., 2., 3., 10., 11., 12., 13.]).unwrap();
        let boxes = Tensor::new(&[1, 4], &[0f32, 0., 4., 2.]).unwrap();
        let images = Tensor::from_i64s(&[0]).unwrap();
        let run = |op: RoiAlign| op.eval(&[Some(&x), Some(&boxes), Some(&images)], 1).unwrap()[0].to_f64s();
        assert_eq!(run(PLAIN), [5.5, 7.5]);
        // Without the half pixel, samples lie at (1, 1) and (1, 3).
        assert_eq!(run(RoiAlign { half_pixel: false, ..PLAIN }), [11., 13.]);
        assert_eq!(run(RoiAlign { half_pixel: false, takes_max: true, ..PLAIN }), [11., 13.]);
        let wrong = Tensor::from_i64s(&[1]).unwrap();
        assert!(PLAIN.eval(&[Some(&x), Some(&boxes), Some(&wrong)], 1).is_err());
        let vast = Tensor::new(&[1, 4], &[0f32, 0., 1e30, 2.]).unwrap();
        let adaptive = RoiAlign { sampling_ratio: 0, ..PLAIN };
        assert!(adaptive.eval(&[Some(&x), Some(&vast), Some(&images)], 1).is_err());
    }

    #[test]
    fn infers_and_refuses() {
        let fact = |s: &[usize]| Some(Fact::new(DType::F32, s));
        let images = Some(Fact::new(DType::I64, &[3]));
        let y = PLAIN.infer(&[fact(&[1, 2, 5, 5]), fact(&[3, 4]), images.clone()], 1).unwrap();
        assert_eq!(y, [Fact::new(DType::F32, &[3, 2, 1, 2])]);
        assert!(PLAIN.infer(&[fact(&[1, 2, 5, 5]), fact(&[2, 4]), images.clone()], 1).is_err());
        let flat = RoiAlign { output_height: 0, ..PLAIN };
        let message = flat.infer(&[fact(&[1, 2, 5, 5]), fact(&[3, 4]), images], 1).unwrap_err().to_string();
        assert!(message.contains("output_height"), "{message}");
    }
}
