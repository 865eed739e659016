//! All but a small share of the numbers: what is further out than that on either side is clipped (McKinstry et al.,
//! "Discovering Low-Precision Networks Close to Full-Precision Networks for Efficient Inference", 2018; Wu et al.,
//! "Integer Quantization for Deep Learning Inference", 2020).

use super::Observer;
use crate::quantize::grid::Levels;
use crate::quantize::statistics::Statistics;

/// See the module.
pub(super) struct Percentile {
    name: &'static str,
    /// The share of the numbers that may be clipped, on each side.
    clipped: f64,
}

/// One in a thousand is clipped.
pub(super) const P99_9: Percentile = Percentile { name: "percentile-99.9", clipped: 1e-3 };
/// One in ten thousand.
pub(super) const P99_99: Percentile = Percentile { name: "percentile-99.99", clipped: 1e-4 };
/// One in a hundred thousand.
pub(super) const P99_999: Percentile = Percentile { name: "percentile-99.999", clipped: 1e-5 };

impl Observer for Percentile {
    fn name(&self) -> &'static str {
        self.name
    }
    fn range(&self, statistics: &Statistics, _levels: Levels) -> (f32, f32) {
        let allowed = self.clipped * statistics.total() as f64;
        let filled: Vec<(f64, f64, f64)> = statistics.filled().collect();
        // Inside the bin in which the share is used up, numbers are taken to be spread evenly.
        let mut left = allowed;
        let mut low = f64::from(statistics.low);
        for &(from, to, n) in &filled {
            low = from + (to - from) * (left / n).min(1.0);
            left -= n;
            if left < 0.0 {
                break;
            }
        }
        let mut left = allowed;
        let mut high = f64::from(statistics.high);
        for &(from, to, n) in filled.iter().rev() {
            high = to - (to - from) * (left / n).min(1.0);
            left -= n;
            if left < 0.0 {
                break;
            }
        }
        let one_sided = |end: f32, cut: f64| if end == 0.0 { 0.0 } else { cut };
        let low = one_sided(statistics.low, low).min(0.0) as f32;
        let high = one_sided(statistics.high, high) as f32;
        // A side that is rarer than the share keeps a bin: a range of nothing would make all of it 0.
        let bin = statistics.bin_width() as f32;
        let high = if statistics.high > 0.0 { high.max(bin) } else { 0.0 };
        (low.max(statistics.low), high.min(statistics.high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::observe::testing::normal;

    #[test]
    fn the_normal_distribution_is_cut_where_it_should() {
        let s = Statistics::of(&normal(1_000_000, 5)).unwrap();
        let (low, high) = P99_9.range(&s, Levels::U8);
        // The quantile of the standard normal distribution at 0.999 is 3.0902.
        assert!((low + 3.09).abs() < 0.05 && (high - 3.09).abs() < 0.05, "{low} {high}");
    }
}
