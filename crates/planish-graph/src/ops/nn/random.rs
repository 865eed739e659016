//! The random numbers of NumPy's `RandomState`, in whose terms ONNX's tests of seeded operators are written.
//!
//! The Mersenne Twister MT19937: Matsumoto and Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed uniform
//! pseudo-random number generator" (1998).

const LENGTH: usize = 624;
const SHIFT: usize = 397;

/// A generator and its state.
pub(super) struct MersenneTwister {
    state: Vec<u32>,
    next: usize,
}

impl MersenneTwister {
    /// The generator that starts from `seed`.
    pub(super) fn new(seed: u32) -> MersenneTwister {
        let mut state = vec![seed];
        for i in 1..LENGTH as u32 {
            let last = state[i as usize - 1];
            state.push((last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i));
        }
        MersenneTwister { state, next: LENGTH }
    }
    fn bits(&mut self) -> u32 {
        if self.next == LENGTH {
            for i in 0..LENGTH {
                let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % LENGTH] & 0x7fff_ffff);
                let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + SHIFT) % LENGTH] ^ (mixed >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut bits = self.state[self.next];
        self.next += 1;
        bits ^= bits >> 11;
        bits ^= (bits << 7) & 0x9d2c_5680;
        bits ^= (bits << 15) & 0xefc6_0000;
        bits ^ (bits >> 18)
    }
    /// A number from 0 to below 1, of 53 random bits.
    pub(super) fn uniform(&mut self) -> f64 {
        let (high, low) = (f64::from(self.bits() >> 5), f64::from(self.bits() >> 6));
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_the_numbers_of_numpy() {
        // numpy.random.RandomState(0).uniform(size=3)
        let mut random = MersenneTwister::new(0);
        for wanted in [0.5488135039273248, 0.7151893663724195, 0.6027633760716439] {
            assert_eq!(random.uniform(), wanted);
        }
    }
}
