//! Signed integers of four bits, two a byte: weights, with a scale for each block of them.

use super::IntegerFormat;

/// From -8 to 7.
pub const INT4: IntegerFormat =
    IntegerFormat { name: "int4", origin: "ONNX INT4", bits: 4, lowest: -8, largest: 7 };
