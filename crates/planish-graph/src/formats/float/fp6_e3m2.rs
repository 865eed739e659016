//! E3M2 of the Open Compute Project's microscaling formats (arXiv 2310.10537): every code is a finite number.

use super::{FloatFormat, Specials};

/// 1-3-2.
pub const FP6_E3M2: FloatFormat = FloatFormat {
    specials: Specials::None,
    ..FloatFormat::ieee("fp6-e3m2", "OCP MX, ONNX FLOAT6E3M2", 3, 2)
};
