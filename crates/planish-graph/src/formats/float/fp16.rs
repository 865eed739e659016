//! Half precision: precise, but its largest number is 65504, so that training in it needs loss scaling
//! (Micikevicius et al., "Mixed Precision Training", 2018).

use super::FloatFormat;

/// 1-5-10.
pub const FP16: FloatFormat = FloatFormat::ieee("fp16", "IEEE 754 binary16", 5, 10);
