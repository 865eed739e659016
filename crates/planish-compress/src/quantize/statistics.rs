//! What calibration remembers of a value: its range, batch by batch, and a histogram over it.
//!
//! The pictures are run twice: the first time for the range, so that the second can count into bins of the right width.
//! Zeros are counted apart. They are what ReLU leaves behind, often half of a feature map, and always exact: spread over a
//! bin they would pull every observer towards small ranges.

use planish_graph::{Result, invalid};

/// Bins of a histogram.
pub const BINS: usize = 4096;

/// What is known of a value. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// The smallest number seen, or 0 where all are above.
    pub low: f32,
    /// The largest number seen, or 0 where all are below.
    pub high: f32,
    /// The smallest and largest number of each batch, in order.
    pub batches: Vec<(f32, f32)>,
    /// How many numbers were exactly 0.
    pub zeros: u64,
    /// How many of the others fell into each of [`BINS`] equal parts of `low` to `high`; empty before the second pass.
    pub bins: Vec<u64>,
}

impl Default for Statistics {
    fn default() -> Statistics {
        Statistics { low: 0.0, high: 0.0, batches: Vec::new(), zeros: 0, bins: Vec::new() }
    }
}

impl Statistics {
    /// The first pass: widens the range for a batch. An error where a number is not finite.
    pub fn widen(&mut self, values: &[f32]) -> Result<()> {
        let Some(&first) = values.first() else { return Ok(()) };
        let (mut low, mut high, mut finite) = (first, first, true);
        for &x in values {
            low = low.min(x);
            high = high.max(x);
            finite &= x.is_finite();
        }
        if !finite {
            let bad = values.iter().filter(|x| !x.is_finite()).count();
            invalid!("{bad} of {} numbers are NaN or infinite for the calibration pictures", values.len());
        }
        self.batches.push((low, high));
        self.low = self.low.min(low);
        self.high = self.high.max(high);
        Ok(())
    }
    /// The second pass: counts a batch.
    pub fn count(&mut self, values: &[f32]) {
        self.bins.resize(BINS, 0);
        let factor = BINS as f32 / (self.high - self.low).max(f32::MIN_POSITIVE);
        for &x in values {
            if x == 0.0 {
                self.zeros += 1;
            } else {
                let bin = ((x - self.low) * factor) as usize;
                self.bins[bin.min(BINS - 1)] += 1;
            }
        }
    }
    /// Statistics of numbers that are all there at once.
    pub fn of(values: &[f32]) -> Result<Statistics> {
        let mut all = Statistics::default();
        all.widen(values)?;
        all.count(values);
        Ok(all)
    }
    /// The bins that hold something: lower edge, upper edge, count.
    pub fn filled(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let (low, width) = (f64::from(self.low), self.bin_width());
        self.bins.iter().enumerate().filter(|(_, n)| **n > 0).map(move |(i, &n)| {
            let edge = low + i as f64 * width;
            (edge, edge + width, n as f64)
        })
    }
    /// The width of a bin.
    pub fn bin_width(&self) -> f64 {
        (f64::from(self.high) - f64::from(self.low)) / BINS as f64
    }
    /// The largest magnitude.
    pub fn largest(&self) -> f32 {
        self.high.max(-self.low)
    }
    /// How many numbers were counted.
    pub fn total(&self) -> u64 {
        self.zeros + self.bins.iter().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_it_saw() {
        let s = Statistics::of(&[0.0, 0.0, 1.0, 2.0, -2.0]).unwrap();
        assert_eq!((s.low, s.high, s.zeros, s.total()), (-2.0, 2.0, 2, 5));
        assert_eq!((s.bins[0], s.bins[BINS - 1], s.bins[BINS * 3 / 4]), (1, 1, 1));
        assert_eq!(s.batches, [(-2.0, 2.0)]);
    }

    #[test]
    fn constants_and_nothing_are_no_trouble() {
        let s = Statistics::of(&[3.0; 7]).unwrap();
        assert_eq!((s.low, s.high, s.total()), (0.0, 3.0, 7));
        let zeros = Statistics::of(&[0.0; 7]).unwrap();
        assert_eq!((zeros.largest(), zeros.zeros), (0.0, 7));
        assert_eq!(Statistics::of(&[]).unwrap().total(), 0);
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            let message = Statistics::of(&[1.0, bad, 2.0]).unwrap_err().to_string();
            assert!(message.contains("1 of 3 numbers"), "{message}");
        }
    }
}
