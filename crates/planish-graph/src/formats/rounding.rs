//! To which of its two neighbours in a format a number goes, and what becomes of one beyond the largest.
//!
//! Stochastic rounding goes up with the probability that makes the expectation exact, so that many small updates of a
//! weight are not all lost (Gupta et al., "Deep Learning with Limited Numerical Precision", 2015).

/// How numbers between two codes are rounded.
#[derive(Debug)]
pub enum Rounding<'a> {
    /// To the nearest; from the middle to the code whose last bit is 0.
    TiesEven,
    /// To the nearest; from the middle away from zero ("nearest up" in magnitude).
    TiesAway,
    /// To the neighbour nearer to zero.
    TowardZero,
    /// To the neighbour farther from zero.
    AwayFromZero,
    /// To either neighbour, so that the expectation is the number itself; the draws are this generator's.
    Stochastic(&'a mut Random),
}

/// What a number beyond the largest finite one becomes, after rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The largest finite number of its sign, infinities too ("satfinite").
    Saturate,
    /// What the format says: infinity where it has one, else NaN; formats with neither saturate.
    AsSpecified,
}

impl Rounding<'_> {
    /// `significand / 2^dropped` as an integer. At most 53 bits are given, so that every sum here fits.
    #[inline]
    pub(super) fn shift(&mut self, significand: u64, dropped: u32) -> u64 {
        if dropped == 0 {
            return significand;
        }
        // From here on everything is below a quarter of the first kept bit, whatever the number of bits.
        let near = dropped.min(56);
        let kept = significand >> near;
        let rest = significand & ((1 << near) - 1);
        match self {
            Rounding::TiesEven => (significand + ((1 << (near - 1)) - 1) + (kept & 1)) >> near,
            Rounding::TiesAway => (significand + (1 << (near - 1))) >> near,
            Rounding::TowardZero => kept,
            Rounding::AwayFromZero => kept + u64::from(rest != 0),
            Rounding::Stochastic(random) => {
                // The chance as a share of 2^64; below 2^-64 it is 0.
                let chance = match dropped {
                    0..=63 => (significand << (64 - dropped), significand >> dropped),
                    64..=127 => (significand >> (dropped - 64), 0),
                    _ => (0, 0),
                };
                chance.1 + u64::from(random.next() < chance.0)
            }
        }
    }

    /// `value` as an integer.
    #[inline]
    pub(super) fn whole(&mut self, value: f64) -> f64 {
        match self {
            Rounding::TiesEven => value.round_ties_even(),
            Rounding::TiesAway => value.round(),
            Rounding::TowardZero => value.trunc(),
            Rounding::AwayFromZero => value.abs().ceil().copysign(value),
            Rounding::Stochastic(random) => {
                let below = value.floor();
                below + f64::from(u8::from(random.uniform() < value - below))
            }
        }
    }

    /// Whether a number that lies `share` of the way from a neighbour of even code to one farther from zero goes to the
    /// latter.
    pub(super) fn goes_away(&mut self, share: f64) -> bool {
        match self {
            Rounding::TiesEven => share > 0.5,
            Rounding::TiesAway => share >= 0.5,
            Rounding::TowardZero => share >= 1.0,
            Rounding::AwayFromZero => share > 0.0,
            Rounding::Stochastic(random) => random.uniform() < share,
        }
    }
}

/// A generator of random numbers that starts from a seed and gives the same ones everywhere: SplitMix64 (Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator that starts from `seed`.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }
    /// 64 random bits.
    #[inline]
    #[allow(clippy::should_implement_trait)] // a generator has no end
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
    /// A number from 0 to below 1, of 53 random bits.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The first numbers that the authors' program gives for seed 1234567.
        let mut random = Random::new(1_234_567);
        let wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423];
        assert_eq!(wanted.map(|_| random.next()), wanted);
    }

    #[test]
    fn shifts_round_in_every_mode() {
        let cases: [(u64, u32, [u64; 4]); 7] = [
            (0b1011, 2, [3, 3, 2, 3]),
            (0b1010, 2, [2, 3, 2, 3]),
            (0b1110, 2, [4, 4, 3, 4]),
            (0b1000, 2, [2, 2, 2, 2]),
            (1 << 52, 53, [0, 1, 0, 1]),
            ((1 << 53) - 1, 54, [0, 0, 0, 1]),
            (1 << 52, 1000, [0, 0, 0, 1]),
        ];
        for (value, dropped, wanted) in cases {
            let modes =
                [Rounding::TiesEven, Rounding::TiesAway, Rounding::TowardZero, Rounding::AwayFromZero];
            assert_eq!(modes.map(|mut m| m.shift(value, dropped)), wanted, "{value} {dropped}");
        }
        let mut random = Random::new(1);
        let mut stochastic = Rounding::Stochastic(&mut random);
        assert_eq!([(8, 2), (0, 5), (1 << 52, 1000)].map(|(v, d)| stochastic.shift(v, d)), [2, 0, 0]);
    }
}
