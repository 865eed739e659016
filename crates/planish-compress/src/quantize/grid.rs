//! Evenly spaced levels: the integers that numbers are stored as, and the scale and zero point between the two.
//!
//! `real = scale · (integer − zero)`: Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference" (CVPR 2018). Zero is always exact: it is what padding and ReLU leave.

/// The integers that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The smallest.
    pub low: i32,
    /// The largest.
    pub high: i32,
}

impl Levels {
    /// What `u8` holds.
    pub const U8: Levels = Levels { low: 0, high: 255 };
    /// What `i8` holds.
    pub const I8: Levels = Levels { low: -128, high: 127 };

    /// As many negative as positive ones, in `bits` (2 to 16) bits: `-(2^(bits-1) - 1)` and up.
    pub fn symmetric(bits: u32) -> Levels {
        let high = (1 << (bits.clamp(2, 16) - 1)) - 1;
        Levels { low: -high, high }
    }
    /// All `2^bits` (`bits` from 1 to 16), from zero.
    pub fn unsigned(bits: u32) -> Levels {
        Levels { low: 0, high: (1 << bits.clamp(1, 16)) - 1 }
    }
    /// The bits that tell them apart.
    pub fn bits(&self) -> u32 {
        (self.high - self.low).max(1).ilog2() + 1
    }
    /// As many as `bits` tell apart, signed where these are.
    pub fn of_bits(&self, bits: u32) -> Levels {
        if self.low < 0 { Levels::signed(bits) } else { Levels::unsigned(bits) }
    }
    /// All `2^bits` (`bits` from 1 to 16), half of them negative.
    pub fn signed(bits: u32) -> Levels {
        let half = 1 << (bits.clamp(1, 16) - 1);
        Levels { low: -half, high: half - 1 }
    }
}

/// A scale, a zero point, and the integers between which numbers are clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// The distance of two levels; positive and finite.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero: i32,
    /// The integers there are.
    pub levels: Levels,
}

/// Ranges below this hold nothing but zeros, for all that `f32` scales can tell.
const SMALLEST_RANGE: f64 = 1e-30;

impl Grid {
    /// The grid that spans `low` to `high` and 0, moved by up to half a step so that 0 has a level. A range of nothing but
    /// 0 gets scale 1, as with ONNX's DynamicQuantizeLinear.
    pub fn spanning(low: f32, high: f32, levels: Levels) -> Grid {
        let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
        let steps = f64::from(levels.high - levels.low);
        if high - low < SMALLEST_RANGE {
            let zero = if levels.low < 0 && levels.high > 0 { 0 } else { levels.low };
            return Grid { scale: 1.0, zero, levels };
        }
        let scale = (high - low) / steps;
        let zero = (f64::from(levels.low) - low / scale).round_ties_even() as i32;
        Grid { scale: scale as f32, zero: zero.clamp(levels.low, levels.high), levels }
    }
    /// The grid around 0 that reaches `largest` on both sides, as far as `levels` do.
    pub fn symmetric(largest: f32, levels: Levels) -> Grid {
        let largest = f64::from(largest);
        let scale = if largest < SMALLEST_RANGE { 1.0 } else { (largest / f64::from(levels.high)) as f32 };
        Grid { scale, zero: 0, levels }
    }
    /// The integer for `x`, as ONNX's QuantizeLinear computes it: divided in `f32`, ties to even, saturated.
    pub fn quantise(&self, x: f32) -> i32 {
        let rounded = (x / self.scale).round_ties_even();
        // A float outside of i32 saturates; NaN becomes 0.
        (rounded as i32).saturating_add(self.zero).clamp(self.levels.low, self.levels.high)
    }
    /// What the integer `q` stands for.
    pub fn restore(&self, q: i32) -> f32 {
        (q - self.zero) as f32 * self.scale
    }
    /// `x` moved to its level.
    pub fn snap(&self, x: f32) -> f32 {
        self.restore(self.quantise(x))
    }
    /// The sum of squared differences that rounding `values` to this grid makes.
    pub fn squared_error(&self, values: impl Iterator<Item = f32>) -> f64 {
        values.map(|x| f64::from(x - self.snap(x)).powi(2)).sum()
    }
    /// The lowest and the highest number that has a level.
    pub fn reach(&self) -> (f32, f32) {
        (self.restore(self.levels.low), self.restore(self.levels.high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn levels_count_their_bits() {
        for bits in 1..=16 {
            assert_eq!([Levels::unsigned(bits).bits(), Levels::signed(bits).bits()], [bits; 2]);
        }
        assert_eq!((Levels::I8.of_bits(4), Levels::U8.of_bits(4)), (Levels::signed(4), Levels::unsigned(4)));
    }

    #[test]
    fn positive_ranges_start_at_zero() {
        let grid = Grid::spanning(1.0, 6.0, Levels::U8);
        assert_eq!((grid.zero, grid.scale), (0, 6.0 / 255.0));
        assert_eq!(grid.snap(7.0), 6.0);
        let negative = Grid::spanning(-2.0, -1.0, Levels::U8);
        assert_eq!((negative.zero, negative.snap(0.0)), (255, 0.0));
    }

    #[test]
    fn nothing_but_zeros_gets_scale_one() {
        for levels in [Levels::U8, Levels::I8] {
            let grid = Grid::spanning(0.0, 0.0, levels);
            assert_eq!((grid.scale, grid.zero), (1.0, 0));
            assert_eq!(Grid::symmetric(0.0, levels).scale, 1.0);
        }
    }

    #[test]
    fn whatever_comes_gets_a_level() {
        let grid = Grid::spanning(-1.0, 1.0, Levels::I8);
        assert_eq!(grid.quantise(f32::INFINITY), 127);
        assert_eq!(grid.quantise(f32::NEG_INFINITY), -128);
        assert_eq!(grid.quantise(f32::NAN), grid.zero);
        let huge = Grid::spanning(-3e38, 3e38, Levels::U8);
        assert!(huge.scale.is_finite() && huge.scale > 0.0);
    }

    proptest! {
        #[test]
        fn snapping_is_idempotent_and_near(low in -10f32..0.0, high in 0f32..10.0, x in -10f32..10.0, bits in 2u32..=12) {
            for levels in [Levels::unsigned(bits), Levels::signed(bits)] {
                let grid = Grid::spanning(low, high, levels);
                prop_assert!(grid.scale > 0.0 && (levels.low..=levels.high).contains(&grid.zero));
                prop_assert_eq!(grid.snap(0.0), 0.0);
                let snapped = grid.snap(x);
                prop_assert_eq!(grid.snap(snapped), snapped);
                let (bottom, top) = grid.reach();
                if (bottom..=top).contains(&x) {
                    prop_assert!((x - snapped).abs() <= 0.5001 * grid.scale, "{} {}", x, snapped);
                }
            }
        }

        #[test]
        fn more_bits_err_less(high in 0.1f32..10.0, x in 0f32..1.0) {
            let errors: Vec<f32> = (2..=16)
                .map(|bits| { let g = Grid::spanning(0.0, high, Levels::unsigned(bits)); (g.snap(x * high) - x * high).abs() })
                .collect();
            for (bits, error) in (2..=16).zip(errors) {
                prop_assert!(error <= 0.51 * high / ((1 << bits) - 1) as f32 + 1e-6 * high);
            }
        }
    }
}
