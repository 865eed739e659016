//! Single precision: what networks are trained and stored in unless somebody chose otherwise.

use super::FloatFormat;

/// 1-8-23.
pub const FP32: FloatFormat = FloatFormat::ieee("fp32", "IEEE 754 binary32", 8, 23);
