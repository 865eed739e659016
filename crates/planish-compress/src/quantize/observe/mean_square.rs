//! The range of the smallest mean squared error, by search over what a histogram says of every candidate.
//!
//! The error of a candidate is exact for numbers that are spread evenly within their bins: the squared distance to the
//! nearest level is integrated over each bin, rounding and clipping at once. That holds for two levels as well as for many,
//! where the usual "a twelfth of the squared step" does not.

use super::Observer;
use crate::quantize::grid::{Grid, Levels};
use crate::quantize::statistics::Statistics;

/// See the module.
pub(super) struct MeanSquare;

/// Candidates of a first look, evenly spaced, and of the closer one around the best of them.
const COARSE: usize = 64;
const FINE: usize = 16;

impl Observer for MeanSquare {
    fn name(&self) -> &'static str {
        "mse"
    }
    fn range(&self, statistics: &Statistics, levels: Levels) -> (f32, f32) {
        let (low, high) = (statistics.low, statistics.high);
        let error = |low, high| squared_error(statistics, &Grid::spanning(low, high, levels));
        // Both ends together first; then each by itself, where there are two.
        let share = best_share(|t| error(low * t, high * t));
        let mut range = (low * share, high * share);
        if low < 0.0 && high > 0.0 {
            range.1 = high * best_share(|t| error(range.0, high * t));
            range.0 = low * best_share(|t| error(low * t, range.1));
        }
        range
    }
}

/// The largest magnitude of the symmetric grid of least squared error.
pub fn symmetric_clip(statistics: &Statistics, levels: Levels) -> f32 {
    let largest = statistics.largest();
    largest * best_share(|t| squared_error(statistics, &Grid::symmetric(largest * t, levels)))
}

/// The share of 1 for which `error` is smallest; 1 where none is better.
pub fn best_share(error: impl Fn(f32) -> f64) -> f32 {
    let mut best = (error(1.0), 1.0);
    let mut look = |shares: &mut dyn Iterator<Item = f32>| {
        for t in shares.filter(|t| (f32::MIN_POSITIVE..1.0).contains(t)) {
            let found = error(t);
            if found < best.0 {
                best = (found, t);
            }
        }
        best.1
    };
    let mut width = 1.0 / COARSE as f32;
    let mut near = look(&mut (1..COARSE).rev().map(|i| i as f32 * width));
    for _ in 0..2 {
        near = look(&mut (1..FINE).map(|i| near + width * (2.0 * i as f32 / FINE as f32 - 1.0)));
        width *= 2.0 / FINE as f32;
    }
    near
}

/// The sum of squared differences that rounding to `grid` would make.
pub fn squared_error(statistics: &Statistics, grid: &Grid) -> f64 {
    let scale = f64::from(grid.scale);
    let (bottom, top) = (f64::from(grid.levels.low - grid.zero), f64::from(grid.levels.high - grid.zero));
    statistics
        .filled()
        .map(|(from, to, n)| {
            n / (to - from) * scale.powi(3) * integral(from / scale, to / scale, bottom, top)
        })
        .sum()
}

/// The integral from `from` to `to` of the squared distance to the nearest whole number between `bottom` and `top`.
fn integral(from: f64, to: f64, bottom: f64, top: f64) -> f64 {
    let cubes = |a: f64, b: f64, level: f64| ((b - level).powi(3) - (a - level).powi(3)) / 3.0;
    let mut sum = 0.0;
    let mut at = from;
    if at < bottom {
        let end = to.min(bottom);
        sum += cubes(at, end, bottom);
        at = end;
    }
    // Steps wholly inside a bin are worth a twelfth each; only the first and the last are cut.
    let inside = to.min(top);
    while at < inside {
        let level = (at + 0.5).floor();
        let end = (level + 0.5).min(inside);
        if end <= at {
            break;
        }
        sum += cubes(at, end, level);
        at = end;
        let whole = (inside - at).floor();
        if whole >= 1.0 {
            sum += whole / 12.0;
            at += whole;
        }
    }
    if to > top {
        sum += cubes(at.max(top), to, top);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::observe::testing::normal;
    use crate::quantize::statistics::BINS;

    /// The histogram of a distribution of this density, without the noise of a sample.
    fn distribution(low: f32, high: f32, zeros: u64, density: impl Fn(f64) -> f64) -> Statistics {
        let mut s = Statistics { low, high, zeros, ..Statistics::default() };
        let width = s.bin_width();
        s.bins = (0..BINS)
            .map(|i| (1e15 * width * density(f64::from(low) + (i as f64 + 0.5) * width)) as u64)
            .collect();
        s
    }

    fn gauss(x: f64) -> f64 {
        (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
    }

    /// The optimal clips of symmetric narrow grids, in standard deviations, and for Laplace's distribution in its scale, as a
    /// search over sums of eight million terms finds them.
    #[test]
    fn finds_the_known_optima() {
        let normal = distribution(-8.0, 8.0, 0, gauss);
        for (bits, clip) in [(2, 1.22), (3, 1.95), (4, 2.47), (5, 2.90), (6, 3.26), (8, 3.94)] {
            let found = symmetric_clip(&normal, Levels::symmetric(bits));
            assert!((found - clip).abs() < 0.05, "{bits} bits: {found} instead of {clip}");
        }
        let laplace = distribution(-30.0, 30.0, 0, |x| (-x.abs()).exp() / 2.0);
        for (bits, clip) in [(2, 2.00), (3, 3.48), (4, 4.81), (5, 6.10), (6, 7.36), (8, 9.89)] {
            let found = symmetric_clip(&laplace, Levels::symmetric(bits));
            assert!((found - clip).abs() < 0.05, "{bits} bits: {found} instead of {clip}");
        }
    }

    #[test]
    fn positive_numbers_use_all_levels() {
        let positive = distribution(0.0, 8.0, 500_000_000_000_000, gauss);
        for (bits, clip) in [(2, 1.95), (3, 2.47), (4, 2.89), (8, 4.25)] {
            let (low, high) = MeanSquare.range(&positive, Levels::unsigned(bits));
            assert!(low == 0.0 && (high - clip).abs() < 0.05, "{bits} bits: {high} instead of {clip}");
        }
    }

    #[test]
    fn the_error_is_what_rounding_makes() {
        let values: Vec<f32> = normal(100_000, 17);
        let statistics = Statistics::of(&values).unwrap();
        for bits in [2, 4, 6] {
            let grid = Grid::symmetric(2.0, Levels::symmetric(bits));
            let exact = grid.squared_error(values.iter().copied());
            let estimated = squared_error(&statistics, &grid);
            assert!((estimated / exact - 1.0).abs() < 0.01, "{bits}: {estimated} {exact}");
        }
    }
}
