//! Observers: from what was seen of a value to the range that its levels span. One observer, one file.
//!
//! Every choice is between two errors: numbers outside of the range are clipped, and those inside lie the further from a
//! level the wider the range is.

mod entropy;
pub mod mean_square;
mod min_max;
mod moving_average;
mod percentile;

use super::grid::Levels;
use super::statistics::Statistics;
use planish_graph::{Error, Result};

/// A rule for ranges.
pub trait Observer: Sync {
    /// How the command line and reports call it.
    fn name(&self) -> &'static str;
    /// The lowest and highest number that gets a level of its own. `statistics` have seen at least one number; the range
    /// lies within theirs.
    fn range(&self, statistics: &Statistics, levels: Levels) -> (f32, f32);
}

/// Every observer.
pub fn observers() -> &'static [&'static dyn Observer] {
    &[
        &min_max::MinMax,
        &moving_average::MovingAverage,
        &percentile::P99_9,
        &percentile::P99_99,
        &percentile::P99_999,
        &entropy::Entropy,
        &mean_square::MeanSquare,
    ]
}

/// The observer of that name, or an error that lists the names there are.
pub fn observer(name: &str) -> Result<&'static dyn Observer> {
    observers().iter().copied().find(|o| o.name() == name).ok_or_else(|| {
        let names: Vec<&str> = observers().iter().map(|o| o.name()).collect();
        Error::invalid(format!("there is no observer \"{name}\"; there are {}", names.join(", ")))
    })
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::random::Random;

    /// Numbers of the standard normal distribution (Box and Muller).
    pub fn normal(count: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        let mut uniform = move || (random.bits() >> 11) as f64 / (1u64 << 53) as f64;
        (0..count)
            .map(|_| {
                let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
                (radius * (std::f64::consts::TAU * uniform()).cos()) as f32
            })
            .collect()
    }

    #[test]
    fn every_range_is_inside_what_was_seen() {
        let cases: [Vec<f32>; 6] = [
            normal(5000, 1),
            normal(5000, 2).into_iter().map(|x| x.max(0.0)).collect(),
            normal(5000, 3).into_iter().map(|x| -x.abs()).collect(),
            vec![0.0; 100],
            vec![2.5; 100],
            vec![1e-38, -3e38, 3e38],
        ];
        for values in cases {
            let s = Statistics::of(&values).unwrap();
            for o in observers() {
                let (low, high) = o.range(&s, Levels::U8);
                assert!(
                    s.low <= low && low <= 0.0 && 0.0 <= high && high <= s.high,
                    "{}: {low} {high}",
                    o.name()
                );
                assert_eq!(high == 0.0, s.high == 0.0, "{}: {high} of {}", o.name(), s.high);
                assert_eq!(o.range(&s, Levels::U8), (low, high));
            }
        }
    }

    #[test]
    fn names_are_found() {
        for o in observers() {
            assert_eq!(observer(o.name()).unwrap().name(), o.name());
        }
        assert!(observer("best").err().unwrap().to_string().contains("min-max"));
    }
}
