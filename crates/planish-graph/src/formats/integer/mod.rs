//! Integers of few bits, ternary and binary numbers: what is left when a scale is kept beside them.
//!
//! Alone they say little; a layer's weights are `scale * (integer - zero point)`. They always saturate, and NaN becomes 0:
//! there is no code that says otherwise.

mod binary;
mod int2;
mod int4;
mod int8;
mod ternary;
mod uint2;
mod uint4;
mod uint8;

pub use binary::{BINARY, Binary};
pub use int2::INT2;
pub use int4::INT4;
pub use int8::INT8;
pub use ternary::TERNARY;
pub use uint2::UINT2;
pub use uint4::UINT4;
pub use uint8::UINT8;

use super::{Facts, NumberFormat, Overflow, Rounding};

/// The definition of a format of consecutive integers, whose codes are their two's complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntegerFormat {
    /// The name that planish knows it by.
    pub name: &'static str,
    /// Where it comes from, in a line.
    pub origin: &'static str,
    /// Bits of a code, at most 8.
    pub bits: u32,
    /// The smallest number.
    pub lowest: i8,
    /// The largest number.
    pub largest: u8,
}

impl NumberFormat for IntegerFormat {
    fn name(&self) -> &'static str {
        self.name
    }
    fn origin(&self) -> &'static str {
        self.origin
    }
    fn facts(&self) -> Facts {
        Facts {
            signed: self.lowest < 0,
            bits: self.bits,
            float: None,
            lowest: f64::from(self.lowest),
            largest: f64::from(self.largest),
            specials: "none",
        }
    }
    fn code_bytes(&self) -> usize {
        1
    }
    #[inline]
    fn decode(&self, code: u64) -> f64 {
        let unused = 64 - self.bits;
        if self.lowest < 0 {
            ((code << unused) as i64 >> unused) as f64
        } else {
            (code << unused >> unused) as f64
        }
    }
    #[inline]
    fn encode(&self, value: f64, rounding: &mut Rounding<'_>, _overflow: Overflow) -> u64 {
        let value = if value.is_nan() { 0.0 } else { value };
        let inside = value.clamp(f64::from(self.lowest), f64::from(self.largest));
        rounding.whole(inside) as i64 as u64 & ((1 << self.bits) - 1)
    }
}
