//! The range that loses least information: of all thresholds, the one whose quantised distribution diverges least from the
//! original by Kullback and Leibler's measure.
//!
//! Migacz, "8-bit Inference with TensorRT" (GTC 2017): a histogram of magnitudes in 2048 bins; for every threshold, the
//! reference is the histogram up to it with all that is beyond in its last bin, and the candidate the same bins merged to as
//! many as there are levels and spread again over those that were not empty. Zeros are exact on every grid and take no part.

use super::Observer;
use crate::quantize::grid::Levels;
use crate::quantize::statistics::{BINS, Statistics};

/// See the module.
pub(super) struct Entropy;

/// Bins of magnitudes.
const MAGNITUDES: usize = 2048;

impl Observer for Entropy {
    fn name(&self) -> &'static str {
        "entropy"
    }
    fn range(&self, statistics: &Statistics, levels: Levels) -> (f32, f32) {
        let largest = f64::from(statistics.largest());
        if largest == 0.0 {
            return (0.0, 0.0);
        }
        let counts = magnitudes(statistics, largest);
        let two_sided = statistics.low < 0.0 && statistics.high > 0.0;
        let all = (levels.high - levels.low) as usize + 1;
        let merged = if two_sided { all.div_ceil(2) } else { all }.min(MAGNITUDES);
        let mut best = (f64::INFINITY, MAGNITUDES);
        for kept in merged..=MAGNITUDES {
            let divergence = divergence(&counts, kept, merged);
            if divergence < best.0 {
                best = (divergence, kept);
            }
        }
        let threshold = ((best.1 as f64 + 0.5) * largest / MAGNITUDES as f64) as f32;
        (statistics.low.max(-threshold), statistics.high.min(threshold))
    }
}

/// The histogram of magnitudes.
fn magnitudes(statistics: &Statistics, largest: f64) -> Vec<f64> {
    let mut counts = vec![0.0; MAGNITUDES];
    let (low, width) = (f64::from(statistics.low), statistics.bin_width());
    for (i, &n) in statistics.bins.iter().enumerate().take(BINS) {
        let centre = (low + (i as f64 + 0.5) * width).abs();
        counts[((centre / largest * MAGNITUDES as f64) as usize).min(MAGNITUDES - 1)] += n as f64;
    }
    counts
}

/// How far the first `kept` bins, merged to `merged`, are from the distribution clipped there.
fn divergence(counts: &[f64], kept: usize, merged: usize) -> f64 {
    let beyond: f64 = counts[kept..].iter().sum();
    let inside: f64 = counts[..kept].iter().sum();
    if inside == 0.0 {
        return f64::INFINITY;
    }
    let total = inside + beyond;
    let mut sum = 0.0;
    for level in 0..merged {
        let bins = level * kept / merged..(level + 1) * kept / merged;
        let held = &counts[bins.clone()];
        let filled = held.iter().filter(|n| **n > 0.0).count();
        let spread = held.iter().sum::<f64>() / filled.max(1) as f64;
        for (bin, &n) in bins.zip(held) {
            let reference = if bin + 1 == kept { n + beyond } else { n };
            if reference > 0.0 {
                // Where clipping put numbers into an empty bin the candidate has nothing: as improbable as can be.
                let candidate = if n > 0.0 { spread / inside } else { 1e-12 };
                sum += reference / total * (reference / total / candidate).ln();
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::observe::testing::normal;

    #[test]
    fn outliers_are_given_up() {
        let mut values = normal(200_000, 7);
        values.push(60.0);
        let s = Statistics::of(&values).unwrap();
        let (low, high) = Entropy.range(&s, Levels::I8);
        assert!((2.5..12.0).contains(&high), "{high}");
        assert!((-12.0..-2.5).contains(&low), "{low}");
    }

    #[test]
    fn even_distributions_are_kept_whole() {
        let values: Vec<f32> = (0..100_000).map(|i| i as f32 / 1e5).collect();
        let (_, high) = Entropy.range(&Statistics::of(&values).unwrap(), Levels::U8);
        assert!(high > 0.95, "{high}");
    }
}
