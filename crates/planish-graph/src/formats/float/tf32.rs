//! TF32, the inputs of NVIDIA's tensor cores since the A100: `fp32` with the fraction of `fp16`.
//!
//! It is no storage format: products are of inputs rounded so, sums are `fp32`. A code is that of `fp32` with its last 13
//! bits 0; decoding ignores those bits, as the hardware does.

use super::FloatFormat;

/// 1-8-10, stored as `fp32`.
pub const TF32: FloatFormat = FloatFormat { padding: 13, ..FloatFormat::ieee("tf32", "NVIDIA A100", 8, 10) };
