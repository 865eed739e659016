//! What few bits of an activation or a weight mean.

use std::fmt;

/// The most bits of an activation, and of a weight's magnitude, that are computed plane by plane.
pub const MOST_BITS: u8 = 4;

/// How few bits the levels of a problem have, where that is known: what a convolution needs to compute on planes of bits.
/// All of its values are levels and weights as any other, so that every algorithm on bytes serves such a problem too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FewBits {
    /// Of the input.
    pub input: InputBits,
    /// Of the weights.
    pub weights: WeightBits,
}

/// The levels of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputBits {
    /// -1 and 1, kept as the levels 0 and 2 around the zero point 1: padding, which is neither, has a level then too.
    Signs,
    /// 0 to `2^bits - 1`, around any zero point; 1 to [`MOST_BITS`] bits.
    Unsigned(u8),
}

/// The values of weights, zero points taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightBits {
    /// -1 and 1.
    Signs,
    /// A sign, and a magnitude up to `2^bits - 1`: ternary weights have one bit of it. 1 to [`MOST_BITS`] bits.
    Magnitude(u8),
}

impl FewBits {
    /// Refuses what is not few, or nothing at all.
    pub fn check(self) -> Result<(), String> {
        let counts = [self.input.planes(), self.weights.planes()];
        match counts.iter().find(|count| !(1..=usize::from(MOST_BITS)).contains(*count)) {
            Some(count) => Err(format!("{count} bits, where 1 to {MOST_BITS} are computed plane by plane")),
            None => Ok(()),
        }
    }

    /// Products of planes.
    pub fn passes(self) -> usize {
        self.input.planes() * self.weights.planes()
    }
}

impl InputBits {
    /// The input whose levels go up to `highest`, where they are few.
    pub fn up_to(highest: u8) -> Option<InputBits> {
        let bits = (u8::BITS - highest.leading_zeros()) as u8;
        (1..=MOST_BITS).contains(&bits).then_some(InputBits::Unsigned(bits))
    }

    /// Planes of bits.
    pub fn planes(self) -> usize {
        match self {
            InputBits::Signs => 1,
            InputBits::Unsigned(bits) => bits.into(),
        }
    }

    /// The bit of a level that the lowest plane holds.
    pub(super) fn lowest_bit(self) -> usize {
        usize::from(self == InputBits::Signs)
    }

    /// What a bit of the lowest plane is worth.
    pub(super) fn unit(self) -> i32 {
        1 << self.lowest_bit()
    }
}

impl WeightBits {
    /// What these weights, which are whole numbers, can be kept as; `None` where they have too many bits.
    pub fn of(values: &[f32]) -> Option<WeightBits> {
        if !values.is_empty() && values.iter().all(|w| w.abs() == 1.0) {
            return Some(WeightBits::Signs);
        }
        let most = values.iter().fold(0f32, |most, w| most.max(w.abs()));
        (1..=MOST_BITS).find(|&bits| most < f32::from(1u8 << bits)).map(WeightBits::Magnitude)
    }

    /// Planes of magnitudes.
    pub fn planes(self) -> usize {
        match self {
            WeightBits::Signs => 1,
            WeightBits::Magnitude(bits) => bits.into(),
        }
    }

    /// Refuses other weights.
    pub(super) fn check(self, values: &[f32]) -> Result<(), String> {
        let fits = |w: f32| match self {
            WeightBits::Signs => w.abs() == 1.0,
            WeightBits::Magnitude(bits) => w.trunc() == w && w.abs() < f32::from(1u8 << bits),
        };
        match values.iter().find(|&&w| !fits(w)) {
            Some(other) => Err(format!("a weight of {other} among {self}")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for InputBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InputBits::Signs => f.write_str("signs"),
            InputBits::Unsigned(bits) => write!(f, "levels of {bits} bits"),
        }
    }
}

impl fmt::Display for WeightBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightBits::Signs => f.write_str("signs"),
            WeightBits::Magnitude(1) => f.write_str("ternary weights"),
            WeightBits::Magnitude(bits) => write!(f, "weights of a sign and {bits} bits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_bits_are_found() {
        assert_eq!(WeightBits::of(&[1.0, -1.0]), Some(WeightBits::Signs));
        assert_eq!(WeightBits::of(&[1.0, 0.0]), Some(WeightBits::Magnitude(1)));
        assert_eq!(WeightBits::of(&[-2.0, 1.0]), Some(WeightBits::Magnitude(2)));
        assert_eq!(WeightBits::of(&[15.0, 3.0]), Some(WeightBits::Magnitude(4)));
        assert_eq!(WeightBits::of(&[16.0]), None);
        assert_eq!(InputBits::up_to(1), Some(InputBits::Unsigned(1)));
        assert_eq!(InputBits::up_to(9), Some(InputBits::Unsigned(4)));
        assert_eq!((InputBits::up_to(0), InputBits::up_to(16)), (None, None));
        assert!(WeightBits::Signs.check(&[0.0]).unwrap_err().contains("signs"));
        assert!(WeightBits::Magnitude(1).check(&[0.5]).is_err());
        let few = |input, weights| FewBits { input, weights };
        assert!(few(InputBits::Unsigned(5), WeightBits::Signs).check().is_err());
        assert!(few(InputBits::Signs, WeightBits::Magnitude(0)).check().is_err());
        assert_eq!(few(InputBits::Unsigned(2), WeightBits::Magnitude(3)).passes(), 6);
    }
}
