//! Number formats: what a few bits can say, and how a real number becomes one of them.
//!
//! Networks are kept and computed in ever narrower numbers, and the literature, ONNX, the Open Compute Project and
//! processors each name their own. Here each is one file that states its definition: a float as widths, bias and what its
//! topmost codes mean ([`float::FloatFormat`], one codec for all of them), an integer as its range
//! ([`integer::IntegerFormat`]). All stand behind [`NumberFormat`]; [`all`] lists them, `planish formats` prints that list.
//!
//! Conversion is exact: decoding gives the number as `f64`, encoding rounds an `f64` once (an `f32` is an `f64`), in the
//! mode that is asked for ([`Rounding`]), and what is too large follows [`Overflow`].

pub mod float;
pub mod integer;
mod rounding;
#[cfg(test)]
mod tests;

pub use rounding::{Overflow, Random, Rounding};

use std::fmt::Debug;

/// What a format can express, for tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// Whether it has negative numbers.
    pub signed: bool,
    /// Bits that mean something (`tf32`: 19 of the 32 that are stored).
    pub bits: u32,
    /// Widths and bias, of a float.
    pub float: Option<FloatFacts>,
    /// The most negative finite number, 0 or the smallest where there are no negative ones.
    pub lowest: f64,
    /// The largest finite number.
    pub largest: f64,
    /// What it has beside finite numbers.
    pub specials: &'static str,
}

/// What only floats have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatFacts {
    /// Bits of the exponent.
    pub exponent_bits: u32,
    /// Bits of the fraction, the leading one not counted.
    pub fraction_bits: u32,
    /// What is subtracted from the exponent's field.
    pub bias: i32,
    /// The smallest positive number of full precision.
    pub smallest_normal: f64,
    /// The smallest positive number below those, where there are any.
    pub smallest_subnormal: Option<f64>,
    /// From 1 to the next number.
    pub epsilon: f64,
}

/// A number format. Codes are the format's bits, right-aligned, as they are stored ([`NumberFormat::code_bytes`]).
pub trait NumberFormat: Debug + Send + Sync {
    /// The name that planish knows it by: `fp8-e4m3fn`.
    fn name(&self) -> &'static str;
    /// Where it comes from, in a line.
    fn origin(&self) -> &'static str;
    /// What it can express.
    fn facts(&self) -> Facts;
    /// Bytes in which [`Self::encode_slice`] stores one code: 1, 2, 4 or 8.
    fn code_bytes(&self) -> usize;
    /// How the format itself rounds: to nearest, ties to even for all but DLFloat16 and binary.
    fn own_rounding(&self) -> Rounding<'static> {
        Rounding::TiesEven
    }
    /// The number that `code` stands for, exactly; bits beyond the format's are ignored.
    fn decode(&self, code: u64) -> f64;
    /// The code of `value`, rounded once.
    fn encode(&self, value: f64, rounding: &mut Rounding<'_>, overflow: Overflow) -> u64;

    /// `value` as the format holds it.
    fn round(&self, value: f64, rounding: &mut Rounding<'_>, overflow: Overflow) -> f64 {
        self.decode(self.encode(value, rounding, overflow))
    }
    /// Each of `values` as the format holds it, in place.
    fn round_slice(&self, values: &mut [f32], rounding: &mut Rounding<'_>, overflow: Overflow) {
        for value in values {
            *value = self.round(f64::from(*value), rounding, overflow) as f32;
        }
    }
    /// The codes of `values`, each in [`Self::code_bytes`] bytes, little end first.
    ///
    /// # Panics
    /// Where `codes` is not that many times as long as `values`.
    fn encode_slice(
        &self,
        values: &[f32],
        codes: &mut [u8],
        rounding: &mut Rounding<'_>,
        overflow: Overflow,
    ) {
        let width = self.code_bytes();
        assert_eq!(codes.len(), values.len() * width, "room for the codes");
        for (&value, code) in values.iter().zip(codes.chunks_exact_mut(width)) {
            let bytes = self.encode(f64::from(value), rounding, overflow).to_le_bytes();
            code.copy_from_slice(&bytes[..width]);
        }
    }
    /// The numbers of `codes` as [`Self::encode_slice`] stores them, in `f32` (which rounds those of `fp64` only).
    ///
    /// # Panics
    /// Where `codes` is not [`Self::code_bytes`] times as long as `values`.
    fn decode_slice(&self, codes: &[u8], values: &mut [f32]) {
        let width = self.code_bytes();
        assert_eq!(codes.len(), values.len() * width, "room for the numbers");
        for (value, code) in values.iter_mut().zip(codes.chunks_exact(width)) {
            let mut bytes = [0; 8];
            bytes[..width].copy_from_slice(code);
            *value = self.decode(u64::from_le_bytes(bytes)) as f32;
        }
    }
}

/// Every format, the widest of each sort first.
pub fn all() -> &'static [&'static dyn NumberFormat] {
    &[
        &float::FP64,
        &float::FP32,
        &float::TF32,
        &float::FP16,
        &float::BF16,
        &float::DLFLOAT16,
        &float::FP8_E4M3,
        &float::FP8_E4M3FN,
        &float::FP8_E4M3FNUZ,
        &float::FP8_E4M3B11FNUZ,
        &float::FP8_E5M2,
        &float::FP8_E5M2FNUZ,
        &float::FP8_E8M0,
        &float::FP6_E2M3,
        &float::FP6_E3M2,
        &float::FP4_E2M1,
        &integer::INT8,
        &integer::UINT8,
        &integer::INT4,
        &integer::UINT4,
        &integer::INT2,
        &integer::UINT2,
        &integer::TERNARY,
        &integer::BINARY,
    ]
}

/// The format that is called `name`, if there is one.
pub fn named(name: &str) -> Option<&'static dyn NumberFormat> {
    all().iter().copied().find(|f| f.name() == name)
}
