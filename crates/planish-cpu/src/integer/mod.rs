//! Kernels on the levels of quantised tensors, because a network whose convolutions compute in integers is slow again if
//! what stands between them goes by way of `f32`: each change costs five bytes an element where one would do.
//!
//! A tensor of levels is kept as `u8`; a number is `scale * (level - zero point)` (Jacob et al., "Quantization and Training
//! of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018). Signed levels are the same numbers with
//! a zero point 128 higher, so no kernel knows them. What moves or compares levels (copies, the largest of a window) is in
//! the modules of those operations, generic over elements; here is what has to know scales.
//!
//! Every kernel gives the same bytes on every instruction set: sums of levels are exact in `f32`, products and sums are
//! rounded one by one, and nothing is estimated.

mod binary;
mod quantize;
mod range;
mod table;

pub use binary::{LevelBinary, level_binary};
pub use quantize::{Grid, Grids, dequantize, quantize, signs};
pub use range::own_grid;
pub use table::{LevelTable, look_up};

#[cfg(test)]
mod tests;
