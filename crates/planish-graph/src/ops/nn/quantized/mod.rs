//! Networks in integers: from and to floating point by scales and zero points, and the products in between (Jacob et al.,
//! arXiv 1712.05877).

pub mod conv_integer;
pub mod fused;
pub mod matmul_integer;
pub mod qonnx;
pub mod quantize;
pub mod scaled_sums;
pub mod scales;
pub mod short_weights;
