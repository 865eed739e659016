//! How finely a tensor is quantised: which scale (and zero point) belongs to which element, and the rounding that all
//! quantising operators share.
//!
//! One scale for the tensor, one for each index of an axis (Krishnamoorthi, "Quantizing deep convolutional networks for
//! efficient inference", 2018: one a channel saves most of the accuracy), or one for each block of an axis.

use crate::error::Result;
use crate::invalid;
use crate::ops::nn::checks::product;
use crate::tensor::{DType, index};

/// Which scale belongs to which element of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleLayout {
    /// Elements from one index of the axis to the next.
    inner: usize,
    /// The extent of the axis.
    extent: usize,
    /// Elements along the axis that share a scale.
    block: usize,
    /// Whether the other axes have scales of their own (blocked), or share those of the axis.
    by_position: bool,
}

impl ScaleLayout {
    /// The layout of scales of shape `scales` for a tensor of shape `shape`; `block` is 0 where scales are not blocked.
    pub fn resolve(shape: &[usize], scales: &[usize], axis: i64, block: usize) -> Result<ScaleLayout> {
        let whole = ScaleLayout { inner: 1, extent: 1, block: 1, by_position: false };
        if block == 0 && matches!(scales, [] | [1]) {
            return Ok(whole);
        }
        let axis = match index::axis(axis, shape.len()) {
            Ok(axis) => axis,
            Err(_) => invalid!("attribute \"axis\" is {axis}, outside a tensor of rank {}", shape.len()),
        };
        let (inner, extent) = (product(&shape[axis + 1..]), shape[axis]);
        if block == 0 {
            if scales != [extent] {
                invalid!(
                    "scales of shape {scales:?} do not fit axis {axis} of shape {shape:?}; blocks would need attribute \"block_size\""
                );
            }
            return Ok(ScaleLayout { inner, extent, block: 1, by_position: false });
        }
        let mut wanted = shape.to_vec();
        wanted[axis] = extent.div_ceil(block);
        if scales != wanted {
            invalid!(
                "attribute \"block_size\": blocks of {block} along axis {axis} of shape {shape:?} take scales of shape {wanted:?}, not {scales:?}"
            );
        }
        Ok(ScaleLayout { inner, extent, block, by_position: true })
    }
    /// The scale of the element at `flat`, in row-major order.
    pub fn index(&self, flat: usize) -> usize {
        let (outer, along) = (flat / self.inner / self.extent, flat / self.inner % self.extent);
        if self.by_position {
            let blocks = self.extent.div_ceil(self.block);
            (outer * blocks + along / self.block) * self.inner + flat % self.inner
        } else {
            along
        }
    }
}

/// `value`, which a float of type `dtype` would hold after rounding to nearest even.
pub fn round_to(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::F16 => half::f16::from_f64(value).to_f64(),
        DType::BF16 => half::bf16::from_f64(value).to_f64(),
        _ => value,
    }
}

/// `quotient` rounded to nearest even, plus `zero_point`, kept within the integer type `dtype`; NaN counts as 0.
pub fn quantize(quotient: f64, zero_point: i128, dtype: DType) -> i128 {
    let (low, high) = dtype.integer_range().unwrap_or((i128::MIN, i128::MAX));
    // The conversion saturates, far beyond any type's range but with room for the zero point.
    let rounded = i128::from(quotient.round_ties_even() as i64);
    (rounded + zero_point).clamp(low, high)
}

/// A 32-bit sum in the scale of the output: `sum * multiplier` in `f32`, as integer engines compute it.
pub fn requantize(sum: i64, multiplier: f32, zero_point: i128, dtype: DType) -> i128 {
    quantize(f64::from(sum as f32 * multiplier), zero_point, dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_scale_of_an_element() {
        let of = |scales: &[usize], axis, block| {
            let layout = ScaleLayout::resolve(&[2, 3, 2], scales, axis, block).unwrap();
            (0..12).map(|i| layout.index(i)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[], 9, 0), [0; 12]);
        assert_eq!(of(&[3], -2, 0), [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
        assert_eq!(of(&[2, 2, 2], 1, 2), [0, 1, 0, 1, 2, 3, 4, 5, 4, 5, 6, 7]);
        let message = |scales: &[usize], axis, block| {
            ScaleLayout::resolve(&[2, 3, 2], scales, axis, block).unwrap_err().to_string()
        };
        assert!(message(&[3], 3, 0).contains("axis"));
        assert!(message(&[2], 1, 0).contains("do not fit"));
        assert!(message(&[2, 3, 2], 1, 2).contains("block_size"));
    }

    #[test]
    fn rounds_to_even_and_saturates() {
        let u8s = |q| quantize(q, 10, DType::U8);
        assert_eq!([0.5, 1.5, -10.6, 300.0].map(u8s), [10, 12, 0, 255]);
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(u8s), [10, 255, 0]);
        assert_eq!(quantize(f64::INFINITY, -100, DType::I8), 127);
        assert_eq!(round_to(DType::F16, 1.0001), 1.0);
        assert_eq!(requantize(25, 0.1, 1, DType::I8), 3);
    }
}
