//! BFloat16: the range of `fp32` in half of the bits (Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training",
//! arXiv 1905.12322).

use super::FloatFormat;

/// 1-8-7.
pub const BF16: FloatFormat = FloatFormat::ieee("bf16", "Google Brain", 8, 7);
