//! Unsigned integers of four bits, two a byte.

use super::IntegerFormat;

/// From 0 to 15.
pub const UINT4: IntegerFormat =
    IntegerFormat { name: "uint4", origin: "ONNX UINT4", bits: 4, lowest: 0, largest: 15 };
