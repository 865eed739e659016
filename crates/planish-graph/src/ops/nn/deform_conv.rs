//! DeformConv: a convolution whose taps are moved, each by its own learnt offset.
//!
//! Dai et al., "Deformable convolutional networks" (2017); the mask, a weight for each tap, is from the second version
//! (Zhu et al., 2019).

use super::checks::{expect_shape, float_input, same_type};
use super::conv::{Conv, ConvProblem, add_per_channel, shaped, zeros};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, optional, required, required_fact};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Inputs: X `[N, C, H, W]`, W, offset `[N, groups * taps * 2, oH, oW]` (row, then column), bias (optional), mask
/// `[N, groups * taps, oH, oW]` (optional).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeformConv {
    /// The attributes that it shares with the convolution.
    pub conv: Conv,
    /// Into how many groups, with offsets of their own, the channels are split.
    pub offset_group: usize,
}

impl DeformConv {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let groups = node.attributes.int("offset_group", 1)?;
        Ok(Arc::new(DeformConv {
            conv: Conv::from_attributes(&node.attributes)?,
            offset_group: match usize::try_from(groups) {
                Ok(groups) if groups > 0 => groups,
                _ => invalid!("attribute \"offset_group\" is {groups}, where a positive number is expected"),
            },
        }))
    }
    fn resolve(&self, x: &[usize], w: &[usize]) -> Result<ConvProblem> {
        let problem = self.conv.resolve(x, w)?;
        if problem.window.kernel.len() != 2 {
            invalid!("input 0 is of shape {x:?}, where two spatial axes are expected");
        }
        if self.offset_group == 0 || !problem.in_channels.is_multiple_of(self.offset_group) {
            invalid!(
                "attribute \"offset_group\": {} groups do not divide {} channels",
                self.offset_group,
                problem.in_channels
            );
        }
        Ok(problem)
    }
    /// The sums without bias.
    fn sums(
        &self,
        problem: &ConvProblem,
        x: &[f64],
        w: &[f64],
        offset: &[f64],
        mask: Option<&[f64]>,
    ) -> Result<Vec<f64>> {
        let window = &problem.window;
        let (plane, image) = (element_count(&window.output)?, element_count(&window.input)?);
        let taps = element_count(&window.kernel)?;
        let mut out: Vec<f64> = zeros(&problem.output_shape())?;
        if out.is_empty() || x.is_empty() {
            return Ok(out);
        }
        let channels = problem.in_channels / problem.group;
        let per_group = problem.out_channels / problem.group;
        let per_offset = problem.in_channels / self.offset_group;
        for n in 0..problem.batch {
            for c in 0..problem.in_channels {
                let pixels = &x[(n * problem.in_channels + c) * image..][..image];
                let group = c / channels;
                for tap in 0..taps {
                    let at = (n * self.offset_group + c / per_offset) * taps + tap;
                    for place in 0..plane {
                        let moved = |axis: usize, output: usize, tap: usize| {
                            let start = output * window.strides[axis] + tap * window.dilations[axis];
                            start as f64 - window.pads_begin[axis] as f64
                                + offset[(at * 2 + axis) * plane + place]
                        };
                        let row = moved(0, place / window.output[1], tap / window.kernel[1]);
                        let column = moved(1, place % window.output[1], tap % window.kernel[1]);
                        let weight = mask.map_or(1.0, |m| m[at * plane + place]);
                        let value = weight * bilinear(pixels, &window.input, row, column);
                        for m in group * per_group..(group + 1) * per_group {
                            let weight = w[(m * channels + c % channels) * taps + tap];
                            out[(n * problem.out_channels + m) * plane + place] += weight * value;
                        }
                    }
                }
            }
        }
        Ok(out)
    }
}

/// The image at a place between pixels; zeros lie around it.
fn bilinear(pixels: &[f64], extents: &[usize], row: f64, column: f64) -> f64 {
    let (top, left) = (row.floor(), column.floor());
    let mut sum = 0.0;
    for (y, weight_y) in [(top, 1.0 - (row - top)), (top + 1.0, row - top)] {
        for (x, weight_x) in [(left, 1.0 - (column - left)), (left + 1.0, column - left)] {
            let is_inside = (0.0..extents[0] as f64).contains(&y) && (0.0..extents[1] as f64).contains(&x);
            if is_inside {
                sum += weight_y * weight_x * pixels[y as usize * extents[1] + x as usize];
            }
        }
    }
    sum
}

impl Operator for DeformConv {
    fn name(&self) -> &'static str {
        "DeformConv"
    }
    fn arity(&self) -> Arity {
        Arity::range(3, 5)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        for index in 1..5 {
            same_type(inputs, index, dtype)?;
        }
        let (x, w) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        let (Some(x), Some(w)) = (x.shape(), w.shape()) else { return Ok(vec![Fact::unknown(dtype)]) };
        let problem = self.resolve(x, w)?;
        let output = problem.output_shape();
        element_count(&output)?;
        let taps = element_count(&[&[self.offset_group], &problem.window.kernel[..]].concat())?;
        expect_shape(inputs, 2, &[problem.batch, taps.saturating_mul(2), output[2], output[3]])?;
        expect_shape(inputs, 3, &[problem.out_channels])?;
        expect_shape(inputs, 4, &[problem.batch, taps, output[2], output[3]])?;
        Ok(vec![shaped(dtype, Some(output))])
    }
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        self.conv.count(inputs, 1)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
        let problem = self.resolve(x.shape(), w.shape())?;
        let mask = optional(inputs, 4).map(|t| t.to_f64s());
        let offset = required(inputs, 2)?.to_f64s();
        let mut sums = self.sums(&problem, &x.to_f64s(), &w.to_f64s(), &offset, mask.as_deref())?;
        if let Some(bias) = optional(inputs, 3) {
            add_per_channel(&mut sums, &bias.to_f64s(), &problem.window.output);
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), &problem.output_shape(), &sums)?])
    }
    fn attributes(&self) -> Attributes {
        self.conv.written().with("offset_group", i64::try_from(self.offset_group).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn moves_its_taps() {
        let x = Tensor::new(&[1, 1, 1, 3], &[0f32, 10., 20.]).unwrap();
        let w = Tensor::new(&[1, 1, 1, 2], &[1f32, 1.]).unwrap();
        let offset = Tensor::new(&[1, 4, 1, 2], &[0f32, 0., 0.5, 0., 0., 0., 0., 0.5]).unwrap();
        let op = DeformConv { offset_group: 1, ..DeformConv::default() };
        let given = [Some(&x), Some(&w), Some(&offset)];
        // 5 + 10, and 10 + half of 20 beyond the border.
        assert_eq!(op.eval(&given, 1).unwrap()[0].to_f64s(), [15., 20.]);
        let mask = Tensor::new(&[1, 2, 1, 2], &[1f32, 1., 0., 2.]).unwrap();
        let bias = Tensor::new(&[1], &[1f32]).unwrap();
        let given = [Some(&x), Some(&w), Some(&offset), Some(&bias), Some(&mask)];
        assert_eq!(op.eval(&given, 1).unwrap()[0].to_f64s(), [6., 31.]);
        let mut facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(op.infer(&facts, 1).unwrap()[0].shape(), Some(&[1, 1, 1, 2][..]));
        facts[4] = Some(Fact::new(DType::F32, &[1, 1, 1, 2]));
        assert!(op.infer(&facts, 1).is_err());
        let groups = DeformConv { offset_group: 2, ..op };
        assert!(groups.infer(&facts[..3], 1).unwrap_err().to_string().contains("offset_group"));
    }
}
