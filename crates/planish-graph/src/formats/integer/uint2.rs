//! Unsigned integers of two bits, four a byte.

use super::IntegerFormat;

/// From 0 to 3.
pub const UINT2: IntegerFormat =
    IntegerFormat { name: "uint2", origin: "ONNX UINT2", bits: 2, lowest: 0, largest: 3 };
