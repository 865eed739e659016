//! E2M3 of the Open Compute Project's microscaling formats (arXiv 2310.10537): every code is a finite number.

use super::{FloatFormat, Specials};

/// 1-2-3.
pub const FP6_E2M3: FloatFormat = FloatFormat {
    specials: Specials::None,
    ..FloatFormat::ieee("fp6-e2m3", "OCP MX, ONNX FLOAT6E2M3", 2, 3)
};
