//! Everything that was seen: nothing is clipped, and one outlier makes all steps coarse.

use super::Observer;
use crate::quantize::grid::Levels;
use crate::quantize::statistics::Statistics;

/// See the module.
pub(super) struct MinMax;

impl Observer for MinMax {
    fn name(&self) -> &'static str {
        "min-max"
    }
    fn range(&self, statistics: &Statistics, _levels: Levels) -> (f32, f32) {
        (statistics.low, statistics.high)
    }
}
