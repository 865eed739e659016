//! Floating-point formats: a sign, an exponent, a fraction, and a convention for what is neither.
//!
//! They all differ in a few numbers only, so that each format's file is its definition and the codec is one
//! (`codec.rs`). A normal number is `(-1)^s · 2^(e - bias) · (1 + f / 2^m)`; where there are subnormal ones, exponent 0
//! means `(-1)^s · 2^(1 - bias) · f / 2^m`.

mod bf16;
mod codec;
mod dlfloat16;
mod fp16;
mod fp32;
mod fp4_e2m1;
mod fp64;
mod fp6_e2m3;
mod fp6_e3m2;
mod fp8_e4m3;
mod fp8_e4m3b11fnuz;
mod fp8_e4m3fn;
mod fp8_e4m3fnuz;
mod fp8_e5m2;
mod fp8_e5m2fnuz;
mod fp8_e8m0;
mod tf32;

pub use bf16::BF16;
pub use dlfloat16::DLFLOAT16;
pub use fp4_e2m1::FP4_E2M1;
pub use fp6_e2m3::FP6_E2M3;
pub use fp6_e3m2::FP6_E3M2;
pub use fp8_e4m3::FP8_E4M3;
pub use fp8_e4m3b11fnuz::FP8_E4M3B11FNUZ;
pub use fp8_e4m3fn::FP8_E4M3FN;
pub use fp8_e4m3fnuz::FP8_E4M3FNUZ;
pub use fp8_e5m2::FP8_E5M2;
pub use fp8_e5m2fnuz::FP8_E5M2FNUZ;
pub use fp8_e8m0::FP8_E8M0;
pub use fp16::FP16;
pub use fp32::FP32;
pub use fp64::FP64;
pub use tf32::TF32;

use super::{Facts, FloatFacts, NumberFormat, Overflow, Rounding};

/// Which codes are no finite numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// The exponent of all ones: with fraction 0 infinity, else NaN (IEEE 754).
    Ieee,
    /// The code of all ones, of either sign, is NaN; there is no infinity ("fn": finite).
    NanOnly,
    /// What would be -0 is the one NaN; there is no infinity ("fnuz": finite, unsigned zero).
    NegativeZeroIsNan,
    /// Every code is a finite number.
    None,
}

/// What the smallest exponent means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lowest {
    /// Subnormal numbers, evenly spaced down to 0.
    Subnormals,
    /// Numbers of full precision; only fraction 0 is the number 0. What rounds to less than the smallest of them
    /// becomes 0 in the modes to nearest: there is nothing in between, and hardware does not look.
    ZeroAlone,
    /// Numbers of full precision, and no 0 at all.
    NoZero,
}

/// The definition of a floating-point format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatFormat {
    /// The name that planish knows it by.
    pub name: &'static str,
    /// Where it comes from, in a line.
    pub origin: &'static str,
    /// Whether there is a sign bit.
    pub signed: bool,
    /// Bits of the exponent.
    pub exponent_bits: u32,
    /// Bits of the fraction.
    pub fraction_bits: u32,
    /// What is subtracted from the exponent's field.
    pub bias: i32,
    /// Which codes are no finite numbers.
    pub specials: Specials,
    /// What the smallest exponent means.
    pub lowest: Lowest,
    /// Whether the format's own rounding takes ties away from zero instead of to even.
    pub ties_away: bool,
    /// Zero bits below the fraction in which a code is stored.
    pub padding: u32,
}

impl FloatFormat {
    /// A format in the manner of IEEE 754: subnormal numbers, infinities, NaNs, the bias in the middle.
    const fn ieee(
        name: &'static str,
        origin: &'static str,
        exponent_bits: u32,
        fraction_bits: u32,
    ) -> FloatFormat {
        FloatFormat {
            name,
            origin,
            signed: true,
            exponent_bits,
            fraction_bits,
            bias: (1 << (exponent_bits - 1)) - 1,
            specials: Specials::Ieee,
            lowest: Lowest::Subnormals,
            ties_away: false,
            padding: 0,
        }
    }
    /// Bits that mean something.
    const fn bits(&self) -> u32 {
        self.signed as u32 + self.exponent_bits + self.fraction_bits
    }
}

impl NumberFormat for FloatFormat {
    fn name(&self) -> &'static str {
        self.name
    }
    fn origin(&self) -> &'static str {
        self.origin
    }
    fn facts(&self) -> Facts {
        let largest = self.decode_magnitude(self.largest_code());
        let smallest_code = u64::from(self.lowest != Lowest::NoZero);
        let (smallest_normal, smallest_subnormal) = match self.lowest {
            Lowest::Subnormals => {
                (self.decode_magnitude(1 << self.fraction_bits), Some(self.decode_magnitude(1)))
            }
            _ => (self.decode_magnitude(smallest_code), None),
        };
        Facts {
            signed: self.signed,
            bits: self.bits(),
            float: Some(FloatFacts {
                exponent_bits: self.exponent_bits,
                fraction_bits: self.fraction_bits,
                bias: self.bias,
                smallest_normal,
                smallest_subnormal,
                epsilon: codec::power_of_two(-(self.fraction_bits as i32)),
            }),
            lowest: if self.signed { -largest } else { smallest_normal },
            largest,
            specials: match (self.specials, self.ties_away) {
                (Specials::Ieee, _) => "±inf, NaN",
                (Specials::NanOnly, true) => "one NaN-or-infinity",
                (Specials::NanOnly, false) => "NaN",
                (Specials::NegativeZeroIsNan, _) => "one NaN, no -0",
                (Specials::None, _) => "none",
            },
        }
    }
    fn code_bytes(&self) -> usize {
        (self.bits() + self.padding).div_ceil(8).next_power_of_two() as usize
    }
    fn own_rounding(&self) -> Rounding<'static> {
        if self.ties_away { Rounding::TiesAway } else { Rounding::TiesEven }
    }
    #[inline]
    fn decode(&self, code: u64) -> f64 {
        self.decode_code(code >> self.padding)
    }
    #[inline]
    fn encode(&self, value: f64, rounding: &mut Rounding<'_>, overflow: Overflow) -> u64 {
        self.encode_value(value, rounding, overflow) << self.padding
    }
}
