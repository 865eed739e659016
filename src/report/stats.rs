//! What a list of measured times comes to.

use serde::Serialize;

/// The order statistics and the mean of some measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many there were.
    pub count: usize,
    /// The smallest.
    pub min: f64,
    /// The 10th percentile.
    pub p10: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// The arithmetic mean.
    pub mean: f64,
}

impl Summary {
    /// Summarises `measurements`, in any order; `None` where there are none, or one is not a number.
    pub fn of(measurements: &[f64]) -> Option<Summary> {
        if measurements.is_empty() || measurements.iter().any(|x| x.is_nan()) {
            return None;
        }
        let mut sorted = measurements.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Summary {
            count: sorted.len(),
            min: sorted[0],
            p10: percentile(&sorted, 10.0),
            p50: percentile(&sorted, 50.0),
            p90: percentile(&sorted, 90.0),
            p99: percentile(&sorted, 99.0),
            max: sorted[sorted.len() - 1],
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
        })
    }
}

/// The `percent`-th percentile of `sorted` (ascending, not empty), interpolated linearly as NumPy does.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let place = percent / 100.0 * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    if below == above { below } else { below + (above - below) * place.fract() }
}

/// The geometric mean of positive numbers, the right mean of ratios; `None` where there are none or one is not positive.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    if ratios.is_empty() || !ratios.iter().all(|&r| r > 0.0) {
        return None;
    }
    Some((ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numpys() {
        // numpy.percentile([15, 20, 35, 40, 50], [10, 50, 90, 99])
        let summary = Summary::of(&[40.0, 15.0, 50.0, 35.0, 20.0]).unwrap();
        assert_eq!(
            (summary.count, summary.min, summary.p50, summary.max, summary.mean),
            (5, 15.0, 35.0, 50.0, 32.0)
        );
        assert!((summary.p10 - 17.0).abs() < 1e-9);
        assert!((summary.p90 - 46.0).abs() < 1e-9 && (summary.p99 - 49.6).abs() < 1e-9);
        let single = Summary::of(&[3.0]).unwrap();
        assert_eq!((single.min, single.p99, single.mean), (3.0, 3.0, 3.0));
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn ratios_have_a_geometric_mean() {
        assert!((geometric_mean(&[0.5, 2.0, 8.0]).unwrap() - 2.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
    }
}
