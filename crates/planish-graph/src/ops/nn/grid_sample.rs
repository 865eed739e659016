//! GridSample: an image read at arbitrary places, which another tensor names.
//!
//! The sampler of Jaderberg et al., "Spatial transformer networks" (2015). Places run from -1 to 1 across the image;
//! values between pixels are interpolated, values outside are zeros, the border, or the image mirrored.

use super::checks::{float_input, split_shape};
use super::conv::shaped;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::{element_count, room};
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// How values between pixels are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GridMode {
    /// From the two pixels around, along each axis.
    #[default]
    Linear,
    /// By the nearest pixel, ties to even.
    Nearest,
    /// From the four pixels around (Keys, a = -0.75), along each axis.
    Cubic,
}

/// What lies outside the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GridPadding {
    /// Zeros.
    #[default]
    Zeros,
    /// The nearest pixel of the border.
    Border,
    /// The image mirrored at its border.
    Reflection,
}

/// Inputs: X `[N, C, …]` and grid `[N, …, axes]`, the last axis of which names the place, innermost axis first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GridSample {
    /// How values between pixels are made.
    pub mode: GridMode,
    /// What lies outside the image.
    pub padding: GridPadding,
    /// Whether -1 and 1 are the centres of the border pixels, or their outer edges.
    pub align_corners: bool,
}

impl GridSample {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let attributes = &node.attributes;
        let mode = match attributes.string("mode", "linear")?.as_str() {
            "linear" | "bilinear" => GridMode::Linear,
            "nearest" => GridMode::Nearest,
            "cubic" | "bicubic" => GridMode::Cubic,
            other => invalid!("attribute \"mode\" is unknown: \"{other}\""),
        };
        let padding = match attributes.string("padding_mode", "zeros")?.as_str() {
            "zeros" => GridPadding::Zeros,
            "border" => GridPadding::Border,
            "reflection" => GridPadding::Reflection,
            other => invalid!("attribute \"padding_mode\" is unknown: \"{other}\""),
        };
        Ok(Arc::new(GridSample { mode, padding, align_corners: attributes.flag("align_corners", false)? }))
    }
    fn output_shape(&self, x: &[usize], grid: &[usize]) -> Result<Vec<usize>> {
        let (batch, channels, spatial) = split_shape(x, 1)?;
        let fits = grid.len() == x.len() && grid[0] == batch && grid[grid.len() - 1] == spatial.len();
        if !fits || spatial.len() > 3 {
            invalid!("an input of shape {x:?} and a grid of shape {grid:?} do not fit each other");
        }
        let shape = [&[batch, channels], &grid[1..grid.len() - 1]].concat();
        if spatial.contains(&0) && element_count(&shape)? != 0 {
            invalid!("input 0 is of shape {x:?}: there is nothing to sample");
        }
        Ok(shape)
    }
    /// The pixels and weights along one axis of `extent` pixels for place `at`; pixels outside that count as zeros are
    /// left out. Beyond the border it is each pixel that is brought back, not the place: so do PyTorch and ONNX Runtime,
    /// though not ONNX's own reference, in cubic mode.
    fn taps(&self, at: f64, extent: usize) -> Vec<(usize, f64)> {
        let length = extent as f64;
        let (low, high) = if self.align_corners { (0.0, length - 1.0) } else { (-0.5, length - 0.5) };
        // As in the frameworks, places are carried to pixels in single precision, which decides the nearest pixel.
        let mut at = f64::from((low + (at + 1.0) / 2.0 * (high - low)) as f32);
        if self.mode == GridMode::Nearest {
            at = at.round_ties_even();
        }
        if !at.is_finite() {
            at = -1.0;
        }
        if self.padding == GridPadding::Reflection {
            at = reflect(at, low, high);
        }
        let first = at.floor();
        let part = at - first;
        let weights: Vec<(f64, f64)> = match self.mode {
            GridMode::Nearest => vec![(at, 1.0)],
            GridMode::Linear => vec![(first, 1.0 - part), (first + 1.0, part)],
            GridMode::Cubic => (-1..3).map(|i| (first + f64::from(i), keys(part - f64::from(i)))).collect(),
        };
        let inside = |pixel: f64| match self.padding {
            GridPadding::Zeros => (0.0..length).contains(&pixel).then_some(pixel),
            GridPadding::Border => Some(pixel.clamp(0.0, length - 1.0)),
            GridPadding::Reflection => Some(reflect(pixel, low, high).clamp(0.0, length - 1.0)),
        };
        let taps = weights.into_iter().filter(|(_, weight)| *weight != 0.0);
        taps.filter_map(|(pixel, weight)| Some((inside(pixel)? as usize, weight))).collect()
    }
}

/// `at` mirrored at `low` and `high` until it lies between them.
fn reflect(at: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low.max(0.0);
    }
    let beyond = if at < low {
        low - at
    } else if at > high {
        at - high
    } else {
        return at;
    };
    let (turns, rest) = ((beyond / range).trunc(), beyond % range);
    let from_low = (at < low) == (turns % 2.0 == 0.0);
    if from_low { low + rest } else { high - rest }
}

/// The cubic kernel at a distance, with a = -0.75.
fn keys(distance: f64) -> f64 {
    let (d, a) = (distance.abs(), -0.75);
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    }
}

impl Operator for GridSample {
    fn name(&self) -> &'static str {
        "GridSample"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        let (x, grid) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        if !grid.dtype.is_wide_float() {
            invalid!("input 1 is of type {}, where a float type is expected", grid.dtype);
        }
        let shape = match (x.shape(), grid.shape()) {
            (Some(x), Some(grid)) => Some(self.output_shape(x, grid)?),
            _ => None,
        };
        Ok(vec![shaped(dtype, shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, grid) = (required(inputs, 0)?, required(inputs, 1)?);
        let shape = self.output_shape(x.shape(), grid.shape())?;
        let mut out: Vec<f64> = room(&shape)?;
        let (_, channels, spatial) = split_shape(x.shape(), 1)?;
        if element_count(&shape)? > 0 {
            let (values, places) = (x.to_f64s(), grid.to_f64s());
            let plane: usize = spatial.iter().product();
            let strides = index::strides(spatial);
            let axes = spatial.len();
            let each = shape[2..].iter().product::<usize>() * axes;
            for (index, image) in values.chunks_exact(plane).enumerate() {
                let places = &places[index / channels * each..][..each];
                for place in places.chunks_exact(axes) {
                    let mut taps = vec![(0usize, 1.0)];
                    for (axis, &extent) in spatial.iter().enumerate() {
                        let along = self.taps(place[axes - 1 - axis], extent);
                        let wider = taps.iter().flat_map(|&(offset, weight)| {
                            let stride = strides[axis];
                            along.iter().map(move |&(i, w)| (offset + i * stride, weight * w))
                        });
                        taps = wider.collect();
                    }
                    out.push(taps.into_iter().map(|(offset, weight)| image[offset] * weight).sum());
                }
            }
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), &shape, &out)?])
    }
    fn attributes(&self) -> Attributes {
        let mode = match self.mode {
            GridMode::Linear => "linear",
            GridMode::Nearest => "nearest",
            GridMode::Cubic => "cubic",
        };
        let padding = match self.padding {
            GridPadding::Zeros => "zeros",
            GridPadding::Border => "border",
            GridPadding::Reflection => "reflection",
        };
        Attributes::new()
            .with("mode", mode)
            .with("padding_mode", padding)
            .with("align_corners", self.align_corners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn line(op: GridSample, places: &[f32]) -> Vec<f64> {
        let x = Tensor::new(&[1, 1, 4], &[1f32, 2., 3., 4.]).unwrap();
        let grid = Tensor::new(&[1, places.len(), 1], places).unwrap();
        op.eval(&[Some(&x), Some(&grid)], 1).unwrap()[0].to_f64s()
    }

    #[test]
    fn reads_between_and_outside() {
        let aligned = GridSample { align_corners: true, ..GridSample::default() };
        assert_eq!(line(aligned, &[-1., 0., 1.]), [1., 2.5, 4.]);
        assert_eq!(line(GridSample::default(), &[-1., 0., 2.]), [0.5, 2.5, 0.]);
        let border = GridSample { padding: GridPadding::Border, ..GridSample::default() };
        assert_eq!(line(border, &[-1., 5., f32::NAN]), [1., 4., 1.]);
        let mirrored = GridSample { padding: GridPadding::Reflection, ..GridSample::default() };
        assert_eq!(line(mirrored, &[-1.25, 1.25, 2.75]), [1., 4., 1.]);
        let nearest = GridSample { mode: GridMode::Nearest, ..aligned };
        assert_eq!(line(nearest, &[-0.4, 0.4]), [2., 3.]);
        let cubic = GridSample { mode: GridMode::Cubic, ..aligned };
        assert_eq!(line(cubic, &[0., 1.]), [2.5, 4.]);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let fact = |s: &[usize]| Some(Fact::new(DType::F32, s));
        let op = GridSample::default();
        assert!(op.infer(&[fact(&[1, 1, 4, 4]), fact(&[1, 2, 2, 3])], 1).is_err());
        assert!(op.infer(&[fact(&[1, 1, 0, 4]), fact(&[1, 2, 2, 2])], 1).is_err());
        let y = op.infer(&[fact(&[0, 3, 4, 4]), fact(&[0, 5, 6, 2])], 1).unwrap();
        assert_eq!(y, [Fact::new(DType::F32, &[0, 3, 5, 6])]);
    }
}
