//! Binary numbers: Courbariaux, Bengio and David, "BinaryConnect" (2015); Rastegari et al., "XNOR-Net" (2016).
//!
//! -1 (bit 0) and 1 (bit 1), and no zero. To nearest, the sign decides, and that of 0 is +, as everybody who publishes
//! binary networks has agreed; stochastically, 1 has the chance `clip((x + 1) / 2, 0, 1)`, BinaryConnect's "hard sigmoid".

use super::super::{Facts, NumberFormat, Overflow, Rounding};

/// One bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binary;

/// -1 and 1.
pub const BINARY: Binary = Binary;

impl NumberFormat for Binary {
    fn name(&self) -> &'static str {
        "binary"
    }
    fn origin(&self) -> &'static str {
        "BinaryConnect, QONNX BIPOLAR"
    }
    fn facts(&self) -> Facts {
        Facts { signed: true, bits: 1, float: None, lowest: -1.0, largest: 1.0, specials: "none, no 0" }
    }
    fn code_bytes(&self) -> usize {
        1
    }
    fn own_rounding(&self) -> Rounding<'static> {
        Rounding::TiesAway
    }
    #[inline]
    fn decode(&self, code: u64) -> f64 {
        if code & 1 == 1 { 1.0 } else { -1.0 }
    }
    #[inline]
    fn encode(&self, value: f64, rounding: &mut Rounding<'_>, _overflow: Overflow) -> u64 {
        let above = match rounding {
            Rounding::Stochastic(random) if !value.is_nan() => random.uniform() < (value + 1.0) / 2.0,
            // Between -1 and 1 every mode but that one goes by the sign: NaN's counts as that of 0.
            _ => value >= 0.0 || value.is_nan(),
        };
        u64::from(above)
    }
}
