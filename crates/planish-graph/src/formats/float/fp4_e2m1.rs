//! E2M1, the sixteen numbers ±{0, 0.5, 1, 1.5, 2, 3, 4, 6} of the Open Compute Project's microscaling formats (arXiv
//! 2310.10537).

use super::{FloatFormat, Specials};

/// 1-2-1.
pub const FP4_E2M1: FloatFormat = FloatFormat {
    specials: Specials::None,
    ..FloatFormat::ieee("fp4-e2m1", "OCP MX, ONNX FLOAT4E2M1", 2, 1)
};
