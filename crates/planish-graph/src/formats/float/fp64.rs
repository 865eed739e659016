//! Double precision: what references are computed in.

use super::FloatFormat;

/// 1-11-52.
pub const FP64: FloatFormat = FloatFormat::ieee("fp64", "IEEE 754 binary64", 11, 52);
