//! The codec of all floating-point formats: `f64` to codes and back, in integers, rounding once.
//!
//! The code of a positive number, read as an integer, counts up with the number. So the significand, shifted to the
//! format's grid and rounded, is added to the exponent's field instead of put beside it: a carry out of the fraction
//! then makes the next power of two, and out of the last exponent an overflow, with no case for either.

use super::super::{Overflow, Rounding};
use super::{FloatFormat, Lowest, Specials};

/// Bits of the fraction of an `f64`.
const F64_FRACTION: u32 = 52;
const F64_INFINITY: u64 = 0x7ff << F64_FRACTION;

/// `2^exponent`, which must be one of `f64` (from -1074 to 1023).
#[inline]
pub(super) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(if exponent >= -1022 {
        ((exponent + 1023) as u64) << F64_FRACTION
    } else {
        1 << (exponent + 1074)
    })
}

/// A positive finite number as `significand · 2^(exponent - 52)` with bit 52 of the significand set.
#[inline]
fn split(magnitude: u64) -> (u64, i32) {
    let (field, fraction) = (magnitude >> F64_FRACTION, magnitude & ((1 << F64_FRACTION) - 1));
    if field != 0 {
        return (fraction | 1 << F64_FRACTION, field as i32 - 1023);
    }
    let up = fraction.leading_zeros() - (63 - F64_FRACTION);
    (fraction << up, -1022 - up as i32)
}

impl FloatFormat {
    /// The sign bit of a code, 0 where there is none.
    #[inline]
    fn sign_bit(&self) -> u64 {
        u64::from(self.signed) << (self.exponent_bits + self.fraction_bits)
    }
    /// All bits of a code but its sign.
    #[inline]
    fn magnitude_mask(&self) -> u64 {
        (1 << (self.exponent_bits + self.fraction_bits)) - 1
    }
    /// The code of positive infinity in the manner of IEEE 754.
    #[inline]
    fn top_exponent(&self) -> u64 {
        ((1 << self.exponent_bits) - 1) << self.fraction_bits
    }
    /// The code of the largest finite number.
    #[inline]
    pub(super) fn largest_code(&self) -> u64 {
        match self.specials {
            Specials::Ieee => self.top_exponent() - 1,
            Specials::NanOnly => self.magnitude_mask() - 1,
            Specials::NegativeZeroIsNan | Specials::None => self.magnitude_mask(),
        }
    }
    /// The exponent of the smallest normal number.
    #[inline]
    fn smallest_exponent(&self) -> i32 {
        i32::from(self.lowest == Lowest::Subnormals) - self.bias
    }
    /// The code of NaN with `sign`; of zero where the format has no NaN.
    fn nan(&self, sign: u64) -> u64 {
        match self.specials {
            Specials::Ieee => sign | self.top_exponent() | 1 << (self.fraction_bits - 1),
            Specials::NanOnly => sign | self.magnitude_mask(),
            Specials::NegativeZeroIsNan => self.sign_bit(),
            Specials::None => 0,
        }
    }
    /// The code of what is beyond the largest finite number, or infinite.
    fn beyond(&self, sign: u64, overflow: Overflow) -> u64 {
        match (overflow, self.specials) {
            (Overflow::Saturate, _) | (_, Specials::None) => sign | self.largest_code(),
            (Overflow::AsSpecified, Specials::Ieee) => sign | self.top_exponent(),
            (Overflow::AsSpecified, _) => self.nan(sign),
        }
    }
    /// The code of zero with `sign`.
    #[inline]
    fn zero(&self, sign: u64, overflow: Overflow) -> u64 {
        match (self.lowest, self.specials) {
            (Lowest::NoZero, _) if overflow == Overflow::AsSpecified => self.nan(sign),
            (Lowest::NoZero, _) | (_, Specials::NegativeZeroIsNan) => 0,
            _ => sign,
        }
    }
    /// The code of a number below the smallest one, `first`, in a format without subnormal ones.
    #[cold]
    fn below(
        &self,
        value: f64,
        first: f64,
        sign: u64,
        rounding: &mut Rounding<'_>,
        overflow: Overflow,
    ) -> u64 {
        if self.lowest == Lowest::NoZero {
            return self.zero(sign, overflow);
        }
        let share = match rounding {
            // To nearest sees the fraction only; fraction 0 is the code of zero.
            Rounding::TiesEven | Rounding::TiesAway => {
                let steps = power_of_two(self.fraction_bits as i32 - self.smallest_exponent());
                value.abs() * steps - power_of_two(self.fraction_bits as i32)
            }
            _ => value.abs() / first,
        };
        if rounding.goes_away(share) { sign | 1 } else { self.zero(sign, overflow) }
    }

    #[inline]
    pub(super) fn encode_value(&self, value: f64, rounding: &mut Rounding<'_>, overflow: Overflow) -> u64 {
        let bits = value.to_bits();
        let (negative, magnitude) = (bits >> 63 == 1, bits & !(1 << 63));
        let sign = if negative { self.sign_bit() } else { 0 };
        if magnitude > F64_INFINITY || (negative && !self.signed && magnitude != 0) {
            return self.nan(sign);
        }
        if magnitude == F64_INFINITY {
            return self.beyond(sign, overflow);
        }
        if magnitude == 0 {
            return self.zero(sign, overflow);
        }
        let (significand, exponent) = split(magnitude);
        let smallest = self.smallest_exponent();
        let subnormals = self.lowest == Lowest::Subnormals;
        if !subnormals && exponent <= smallest {
            let first = self.decode_magnitude(u64::from(self.lowest == Lowest::ZeroAlone));
            if value.abs() < first {
                return self.below(value, first, sign, rounding, overflow);
            }
        }
        // The exponent of the numbers among which this one lies.
        let grid = exponent.max(smallest);
        let dropped = F64_FRACTION - self.fraction_bits + (grid - exponent) as u32;
        let kept = rounding.shift(significand, dropped);
        let leading = if subnormals { 0 } else { 1 << self.fraction_bits };
        let code = (((grid - smallest) as u64) << self.fraction_bits) + kept - leading;
        if code > self.largest_code() {
            self.beyond(sign, overflow)
        } else if code == 0 {
            self.zero(sign, Overflow::Saturate)
        } else {
            sign | code
        }
    }

    #[inline]
    pub(super) fn decode_code(&self, code: u64) -> f64 {
        let (sign, magnitude) = (code & self.sign_bit(), code & self.magnitude_mask());
        let special = match self.specials {
            Specials::Ieee if magnitude == self.top_exponent() => f64::INFINITY,
            Specials::Ieee if magnitude > self.top_exponent() => f64::NAN,
            Specials::NanOnly if magnitude == self.magnitude_mask() => f64::NAN,
            Specials::NegativeZeroIsNan if sign != 0 && magnitude == 0 => f64::NAN,
            _ => self.decode_magnitude(magnitude),
        };
        if sign != 0 { -special } else { special }
    }

    /// The finite number of a code without its sign.
    #[inline]
    pub(super) fn decode_magnitude(&self, code: u64) -> f64 {
        let (field, fraction) = (code >> self.fraction_bits, code & ((1 << self.fraction_bits) - 1));
        let (significand, field) = match self.lowest {
            Lowest::Subnormals if field == 0 => (fraction, 1),
            Lowest::ZeroAlone if code == 0 => (0, 0),
            _ => (fraction | 1 << self.fraction_bits, field),
        };
        significand as f64 * power_of_two(field as i32 - self.bias - self.fraction_bits as i32)
    }
}
