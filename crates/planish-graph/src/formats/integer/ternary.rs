//! Ternary numbers: Li, Zhang and Liu, "Ternary Weight Networks" (arXiv 1605.04711).
//!
//! -1, 0 and 1 in two bits of two's complement: the low one is a mask of what is not zero, the high one the sign. Which
//! weights become 0 is a quantiser's choice, made by the scale that it divides by; here numbers go to the nearest. Code 2
//! is none of the format's; it decodes as two's complement says.

use super::IntegerFormat;

/// From -1 to 1.
pub const TERNARY: IntegerFormat =
    IntegerFormat { name: "ternary", origin: "Ternary Weight Networks", bits: 2, lowest: -1, largest: 1 };
