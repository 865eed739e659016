//! Signed integers of two bits, four a byte.

use super::IntegerFormat;

/// From -2 to 1.
pub const INT2: IntegerFormat =
    IntegerFormat { name: "int2", origin: "ONNX INT2", bits: 2, lowest: -2, largest: 1 };
