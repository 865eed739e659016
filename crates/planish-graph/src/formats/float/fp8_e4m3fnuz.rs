//! E4M3 with one NaN in the place of -0: Noune et al., "8-bit Numerical Formats for Deep Neural Networks" (arXiv
//! 2206.02915), of Graphcore and AMD processors.

use super::{FloatFormat, Specials};

/// 1-4-3, bias 8, without infinities and -0.
pub const FP8_E4M3FNUZ: FloatFormat = FloatFormat {
    bias: 8,
    specials: Specials::NegativeZeroIsNan,
    ..FloatFormat::ieee("fp8-e4m3fnuz", "Graphcore, AMD, ONNX FLOAT8E4M3FNUZ", 4, 3)
};
