//! Signed bytes: what processors multiply four at a time, and the first step down from floats that keeps accuracy (Jacob
//! et al., arXiv 1712.05877).

use super::IntegerFormat;

/// From -128 to 127.
pub const INT8: IntegerFormat =
    IntegerFormat { name: "int8", origin: "ONNX INT8", bits: 8, lowest: -128, largest: 127 };
