//! E5M2: `fp16` with its fraction cut to two bits. For gradients, where range counts more than precision (arXiv
//! 2209.05433; first Wang et al., "Training Deep Neural Networks with 8-bit Floating Point Numbers", 2018).

use super::FloatFormat;

/// 1-5-2 with infinities.
pub const FP8_E5M2: FloatFormat = FloatFormat::ieee("fp8-e5m2", "OCP FP8, ONNX FLOAT8E5M2", 5, 2);
