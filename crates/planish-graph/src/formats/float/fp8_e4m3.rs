//! E4M3 as IEEE 754 would have it, with infinities (`float8_e4m3` of ml_dtypes): the price is the topmost exponent, so
//! that 240 is the largest number where `fp8-e4m3fn` has 448.

use super::FloatFormat;

/// 1-4-3 with infinities.
pub const FP8_E4M3: FloatFormat = FloatFormat::ieee("fp8-e4m3", "IEEE style, ml_dtypes", 4, 3);
