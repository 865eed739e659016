//! E4M3 with bias 11 and one NaN in the place of -0 (`float8_e4m3b11fnuz` of ml_dtypes): Sun et al., "Hybrid 8-bit
//! Floating Point (HFP8) Training and Inference for Deep Neural Networks" (2019) moved the bias so, towards smaller numbers.

use super::{FloatFormat, Specials};

/// 1-4-3, bias 11, without infinities and -0.
pub const FP8_E4M3B11FNUZ: FloatFormat = FloatFormat {
    bias: 11,
    specials: Specials::NegativeZeroIsNan,
    ..FloatFormat::ieee("fp8-e4m3b11fnuz", "HFP8, ml_dtypes", 4, 3)
};
