//! DLFloat16: Agrawal et al., "DLFloat: A 16-b Floating Point Format Designed for Deep Learning Training and Inference"
//! (ARITH 2019).
//!
//! Made for small hardware: no subnormal numbers, one code for NaN and both infinities, one rounding mode (nearest, ties up
//! in magnitude). Both outermost exponents hold ordinary numbers, but for fraction 0 of the lowest, which is zero, and
//! fraction 511 of the highest, which is the one symbol. What rounds to less than 2^-31 · (1 + 1/512) becomes zero.

use super::{FloatFormat, Lowest, Specials};

/// 1-6-9, bias 31.
pub const DLFLOAT16: FloatFormat = FloatFormat {
    specials: Specials::NanOnly,
    lowest: Lowest::ZeroAlone,
    ties_away: true,
    ..FloatFormat::ieee("dlfloat16", "IBM, ARITH 2019", 6, 9)
};
