//! E4M3 of ONNX and the Open Compute Project: Micikevicius et al., "FP8 Formats for Deep Learning" (arXiv 2209.05433).
//!
//! For weights and activations, where precision counts more than range. Infinities are given up for numbers up to 448.
//! What rounds to more is NaN, or with saturation 448: processors saturate, conversions in Python mostly do not.

use super::{FloatFormat, Specials};

/// 1-4-3 without infinities.
pub const FP8_E4M3FN: FloatFormat = FloatFormat {
    specials: Specials::NanOnly,
    ..FloatFormat::ieee("fp8-e4m3fn", "OCP FP8, ONNX FLOAT8E4M3FN", 4, 3)
};
