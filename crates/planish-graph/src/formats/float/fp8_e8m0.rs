//! E8M0: a power of two and nothing else, the scale that a block of small numbers shares (Rouhani et al., "Microscaling
//! Data Formats for Deep Learning", arXiv 2310.10537).
//!
//! It has no sign and no zero. Zero and what is below the smallest become the smallest with saturation, NaN without;
//! negative numbers become NaN. ONNX rounds scales away from zero unless told otherwise.

use super::{FloatFormat, Lowest, Specials};

/// 0-8-0.
pub const FP8_E8M0: FloatFormat = FloatFormat {
    signed: false,
    specials: Specials::NanOnly,
    lowest: Lowest::NoZero,
    ..FloatFormat::ieee("fp8-e8m0", "OCP MX scale, ONNX FLOAT8E8M0", 8, 0)
};
