//! Unsigned bytes: activations behind a ReLU, which have no negative numbers to spend codes on.

use super::IntegerFormat;

/// From 0 to 255.
pub const UINT8: IntegerFormat =
    IntegerFormat { name: "uint8", origin: "ONNX UINT8", bits: 8, lowest: 0, largest: 255 };
