//! The range of a usual batch: the exponential moving average of each batch's smallest and largest number, as quantisation-
//! aware training keeps it (Jacob et al., CVPR 2018).

use super::Observer;
use crate::quantize::grid::Levels;
use crate::quantize::statistics::Statistics;

/// See the module.
pub(super) struct MovingAverage;

/// The weight of a new batch.
const NEW: f64 = 0.1;

impl Observer for MovingAverage {
    fn name(&self) -> &'static str {
        "moving-average"
    }
    fn range(&self, statistics: &Statistics, _levels: Levels) -> (f32, f32) {
        let mut batches = statistics.batches.iter().map(|&(low, high)| (f64::from(low), f64::from(high)));
        let Some((mut low, mut high)) = batches.next() else { return (statistics.low, statistics.high) };
        for (l, h) in batches {
            low += NEW * (l - low);
            high += NEW * (h - high);
        }
        // Rounding must not carry an average beyond what it is an average of.
        ((low.min(0.0) as f32).max(statistics.low), (high.max(0.0) as f32).min(statistics.high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_batch_counts_little() {
        let mut s = Statistics::default();
        for scale in [1.0, 1.0, 11.0] {
            s.widen(&[-scale, 2.0 * scale]).unwrap();
        }
        assert_eq!(MovingAverage.range(&s, Levels::U8), (-2.0, 4.0));
    }
}
