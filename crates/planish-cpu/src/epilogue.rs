//! What is fused behind a convolution or a matrix product.
//!
//! A sum that is complete sits in a register; adding the shortcut of a residual block and applying the activation
//! there costs a few instructions, while doing it in a pass of its own would read and write the whole tensor once
//! more. The order is fixed: `out = activation(sum + bias + residual)`.

use crate::simd::{Simd, math};
use crate::view::Rows;

/// A function of one number, applied to every element.
///
/// NaN stays NaN. Definitions follow the ONNX operators of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Activation {
    /// `x`
    #[default]
    None,
    /// `max(0, x)`
    Relu,
    /// `min(max(x, min), max)`
    Clip {
        /// The smallest result.
        min: f32,
        /// The largest result.
        max: f32,
    },
    /// `x` where `x >= 0`, else `alpha x`
    LeakyRelu {
        /// The slope below zero.
        alpha: f32,
    },
    /// `x` where `x >= 0`, else `alpha (e^x - 1)`
    Elu {
        /// The distance of the limit at minus infinity from zero.
        alpha: f32,
    },
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `min(max(alpha x + beta, 0), 1)`
    HardSigmoid {
        /// The slope.
        alpha: f32,
        /// The value at zero.
        beta: f32,
    },
    /// `x / (1 + e^-x)`
    Silu,
    /// `x min(max(x / 6 + 1 / 2, 0), 1)`
    HardSwish,
    /// The hyperbolic tangent.
    Tanh,
    /// `x (1 + erf(x / sqrt 2)) / 2`
    Gelu,
    /// `x tanh(ln(1 + e^x))`
    Mish,
    /// `ln(1 + e^x)`
    Softplus,
}

impl Activation {
    /// The limits of an activation that only limits, `None` for the others. No activation at all has infinite ones.
    #[inline]
    pub fn limits(self) -> Option<(f32, f32)> {
        match self {
            Activation::None => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Activation::Relu => Some((0.0, f32::INFINITY)),
            Activation::Clip { min, max } => Some((min, max)),
            _ => None,
        }
    }

    /// The function of every lane.
    #[inline(always)]
    pub fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        match self {
            Activation::None => x,
            Activation::Relu => s.max(s.zero(), x),
            // The order of the operands keeps NaN, and lets the upper limit win where they cross, as in ONNX.
            Activation::Clip { min, max } => s.min(s.splat(max), s.max(s.splat(min), x)),
            Activation::LeakyRelu { alpha } => {
                s.select(s.lt(x, s.zero()), s.mul(x, s.splat(alpha)), x)
            }
            Activation::Elu { alpha } => {
                s.select(s.lt(x, s.zero()), s.mul(math::exp_m1(s, x), s.splat(alpha)), x)
            }
            Activation::Sigmoid => math::sigmoid(s, x),
            Activation::HardSigmoid { alpha, beta } => {
                let line = s.mul_add(x, s.splat(alpha), s.splat(beta));
                s.min(s.splat(1.0), s.max(s.zero(), line))
            }
            Activation::Silu => math::silu(s, x),
            Activation::HardSwish => {
                let line = s.mul_add(x, s.splat(1.0 / 6.0), s.splat(0.5));
                s.mul(x, s.min(s.splat(1.0), s.max(s.zero(), line)))
            }
            Activation::Tanh => math::tanh(s, x),
            Activation::Gelu => math::gelu(s, x),
            Activation::Mish => math::mish(s, x),
            Activation::Softplus => math::softplus(s, x),
        }
    }
}

/// What follows the sum: an optional residual of the shape of the output, then the activation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added before the activation.
    pub residual: Option<Rows<'a>>,
    /// Applied last.
    pub activation: Activation,
}
