//! E5M2 with one NaN in the place of -0 (arXiv 2206.02915), of Graphcore and AMD processors.

use super::{FloatFormat, Specials};

/// 1-5-2, bias 16, without infinities and -0.
pub const FP8_E5M2FNUZ: FloatFormat = FloatFormat {
    bias: 16,
    specials: Specials::NegativeZeroIsNan,
    ..FloatFormat::ieee("fp8-e5m2fnuz", "Graphcore, AMD, ONNX FLOAT8E5M2FNUZ", 5, 2)
};
