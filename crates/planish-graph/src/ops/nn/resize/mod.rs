//! Resize: images enlarged and shrunk by interpolation, along any axes. Upsample is its old name.
//!
//! What each output coordinate reads is one [`TapTable`] an axis (see [`taps`]); evaluation applies the tables one axis
//! after another, and so does the fast kernel.

mod read;
pub mod taps;

pub use taps::{AxisResize, Coordinates, Interpolation, NearestMode, TapTable};

use super::checks::product;
use super::conv::{shaped, zeros};
use crate::attributes::Attributes;
use crate::error::{Context, Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{DType, Numbers, Tensor, index};

/// How `sizes` are met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AspectRatio {
    /// Exactly, the ratio of the image changing.
    #[default]
    Stretch,
    /// The ratio stays, and no axis is larger than asked.
    NotLarger,
    /// The ratio stays, and no axis is smaller than asked.
    NotSmaller,
}

/// Inputs: X, region (optional; `[start…, end…]` for the axes), scales or sizes (one of them) for the axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// How output coordinates are carried to the input.
    pub coordinates: Coordinates,
    /// How values between pixels are made.
    pub interpolation: Interpolation,
    /// Whether pixels outside the input lose their weight to those inside.
    pub exclude_outside: bool,
    /// The value outside the region.
    pub extrapolation_value: f32,
    /// The axes that region, scales and sizes speak of; all where left out.
    pub axes: Option<Vec<i64>>,
    /// How sizes are met.
    pub aspect_ratio: AspectRatio,
}

impl Default for Resize {
    fn default() -> Resize {
        Resize {
            coordinates: Coordinates::HalfPixel,
            interpolation: Interpolation::Nearest(NearestMode::RoundPreferFloor),
            exclude_outside: false,
            extrapolation_value: 0.0,
            axes: None,
            aspect_ratio: AspectRatio::Stretch,
        }
    }
}

/// An input that is not there or has no elements, which say the same.
fn given(tensor: Option<&Tensor>) -> Option<&Tensor> {
    tensor.filter(|t| !t.is_empty())
}

/// `extent * scale` elements, in the precision in which ONNX's shape inference multiplies.
fn scaled(extent: usize, scale: f32) -> Result<usize> {
    let size = (extent as f32 * scale).floor();
    if !scale.is_finite() || scale <= 0.0 || size > 1e15 {
        invalid!("a scale is {scale}, where positive numbers of reasonable size are expected");
    }
    Ok(size as usize)
}

impl Resize {
    /// How each axis of an input of `shape` is resized; one entry an axis, untouched ones with equal extents.
    pub fn resolve(
        &self,
        shape: &[usize],
        region: Option<&Tensor>,
        scales: Option<&Tensor>,
        sizes: Option<&Tensor>,
    ) -> Result<Vec<AxisResize>> {
        let axes = match &self.axes {
            Some(axes) => index::axes(axes, shape.len()).context(|| "attribute \"axes\"")?,
            None => (0..shape.len()).collect(),
        };
        let mut resized: Vec<AxisResize> = shape.iter().map(|&extent| self.untouched(extent)).collect();
        if let Some(region) = given(region).filter(|_| self.coordinates == Coordinates::TfCropAndResize) {
            let region = region.to_f64s();
            if region.len() != 2 * axes.len() {
                invalid!("input 1 (roi) has {} numbers for {} axes", region.len(), axes.len());
            }
            for (i, &axis) in axes.iter().enumerate() {
                resized[axis].region = (region[i], region[axes.len() + i]);
            }
        }
        match (given(scales), given(sizes)) {
            (Some(scales), None) => {
                let scales = scales.to_f32s();
                if scales.len() != axes.len() {
                    invalid!("input 2 (scales) has {} numbers for {} axes", scales.len(), axes.len());
                }
                for (&axis, &scale) in axes.iter().zip(&scales) {
                    resized[axis].output = scaled(shape[axis], scale)?;
                    resized[axis].scale = f64::from(scale);
                }
            }
            (None, Some(sizes)) => self.meet(&mut resized, &axes, &sizes.to_i64s()?)?,
            (None, None) if axes.is_empty() => {}
            _ => invalid!("exactly one of inputs 2 (scales) and 3 (sizes) must be given"),
        }
        for axis in &resized {
            if axis.input == 0 && axis.output != 0 {
                invalid!("an axis without elements cannot be resized to {}", axis.output);
            }
        }
        Ok(resized)
    }
    fn untouched(&self, extent: usize) -> AxisResize {
        AxisResize {
            input: extent,
            output: extent,
            scale: 1.0,
            region: (0.0, 1.0),
            coordinates: self.coordinates,
            interpolation: self.interpolation,
            exclude_outside: self.exclude_outside,
        }
    }
    /// Sets extents and scales from wanted sizes.
    fn meet(&self, resized: &mut [AxisResize], axes: &[usize], sizes: &[i64]) -> Result<()> {
        if sizes.len() != axes.len() {
            invalid!("input 3 (sizes) has {} numbers for {} axes", sizes.len(), axes.len());
        }
        for (&axis, &size) in axes.iter().zip(sizes) {
            let axis = &mut resized[axis];
            axis.output = usize::try_from(size).map_err(|_| {
                Error::invalid(format!("input 3 (sizes) holds {size}, which must not be negative"))
            })?;
            axis.scale = if axis.input == 0 { 1.0 } else { axis.output as f64 / axis.input as f64 };
        }
        let ratios = axes.iter().map(|&axis| resized[axis].scale);
        let common = match self.aspect_ratio {
            AspectRatio::Stretch => return Ok(()),
            AspectRatio::NotLarger => ratios.fold(f64::INFINITY, f64::min),
            AspectRatio::NotSmaller => ratios.fold(0.0, f64::max),
        };
        for &axis in axes {
            let axis = &mut resized[axis];
            let size = (common * axis.input as f64 + 0.5).floor();
            if size > 1e15 {
                invalid!("input 3 (sizes) asks for an axis of {size} elements");
            }
            (axis.output, axis.scale) = (size as usize, common);
        }
        Ok(())
    }
    fn check(&self) -> Result<()> {
        match self.interpolation {
            Interpolation::Cubic { a, .. } if !a.is_finite() => {
                invalid!("attribute \"cubic_coeff_a\" is {a}")
            }
            _ => Ok(()),
        }
    }
}

/// Applies a table along one axis. `none` is the value of a coordinate outside; `mix` makes a value of taps.
fn along<T: Copy + Default>(
    values: &[T],
    shape: &mut [usize],
    axis: usize,
    table: &TapTable,
    none: T,
    add: impl Fn(T, T, f64) -> T,
) -> Result<Vec<T>> {
    let inner = product(&shape[axis + 1..]);
    let before = shape[axis];
    shape[axis] = table.len();
    let mut out: Vec<T> = zeros(shape)?;
    if out.is_empty() {
        return Ok(out);
    }
    let slabs = values.chunks_exact(before * inner).zip(out.chunks_exact_mut(table.len() * inner));
    for (from, to) in slabs {
        for (output, line) in to.chunks_exact_mut(inner).enumerate() {
            let taps = table.of(output);
            if taps.is_empty() {
                line.fill(none);
            }
            for &(input, weight) in taps {
                let source = &from[input * inner..][..inner];
                line.iter_mut().zip(source).for_each(|(sum, &v)| *sum = add(*sum, v, weight));
            }
        }
    }
    Ok(out)
}

impl Operator for Resize {
    fn name(&self) -> &'static str {
        "Resize"
    }
    fn arity(&self) -> Arity {
        Arity::range(1, 4)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        self.check()?;
        let x = required_fact(inputs, 0)?;
        for index in [1, 2] {
            if let Some(other) = optional_fact(inputs, index).filter(|f| !f.dtype.is_wide_float()) {
                invalid!("input {index} is of type {}, where a float type is expected", other.dtype);
            }
        }
        super::checks::same_type(inputs, 3, DType::I64)?;
        let interpolates = !matches!(self.interpolation, Interpolation::Nearest(_));
        if x.dtype == DType::Bool && interpolates {
            invalid!("attribute \"mode\": truth values can only be resized by nearest");
        }
        // The region does not change the shape; the others must be known for it.
        let known = |i: usize| match optional_fact(inputs, i) {
            Some(fact) if fact.shape() == Some(&[0]) => Some(None),
            Some(fact) => fact.value.as_ref().map(Some),
            None => Some(None),
        };
        let shape = match (x.shape(), known(2), known(3)) {
            (Some(shape), Some(scales), Some(sizes)) => {
                let region = optional_fact(inputs, 1).and_then(|f| f.value.as_ref());
                let axes = self.resolve(shape, region, scales, sizes)?;
                let shape: Vec<usize> = axes.iter().map(|a| a.output).collect();
                element_count(&shape)?;
                Some(shape)
            }
            _ => None,
        };
        Ok(vec![shaped(x.dtype, shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let input = |i| optional(inputs, i);
        let axes = self.resolve(x.shape(), input(1), input(2), input(3))?;
        let output: Vec<usize> = axes.iter().map(|a| a.output).collect();
        if element_count(&output)? == 0 {
            return Ok(vec![Tensor::zeros(x.dtype(), &output)?]);
        }
        let tables = axes.iter().map(|a| (a.taps(), a.input)).enumerate();
        let tables: Vec<_> = tables.filter(|(_, (table, input))| !table.is_identity(*input)).collect();
        let mut shape = x.shape().to_vec();
        let outside = f64::from(self.extrapolation_value);
        let numbers = match (x.to_numbers(), self.interpolation) {
            (Numbers::Int(mut values), Interpolation::Nearest(_)) => {
                for (axis, (table, _)) in &tables {
                    values = along(&values, &mut shape, *axis, table, outside as i128, |_, v, _| v)?;
                }
                Numbers::Int(values)
            }
            (numbers, interpolation) => {
                let mut values = numbers.into_floats();
                let nearest = matches!(interpolation, Interpolation::Nearest(_));
                let add = |sum: f64, v: f64, weight: f64| if nearest { v } else { sum + v * weight };
                for (axis, (table, _)) in &tables {
                    values = along(&values, &mut shape, *axis, table, outside, add)?;
                }
                match x.dtype().integer_range() {
                    None => Numbers::Float(values),
                    Some((low, high)) => {
                        let round = |v: f64| (v.round_ties_even() as i128).clamp(low, high);
                        Numbers::Int(values.into_iter().map(round).collect())
                    }
                }
            }
        };
        Ok(vec![Tensor::from_numbers(x.dtype(), &output, &numbers)?])
    }
    fn attributes(&self) -> Attributes {
        self.written()
    }
}
