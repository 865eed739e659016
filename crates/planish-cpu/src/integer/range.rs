//! What the levels of a tensor mean that is quantised by its own smallest and largest number, as ONNX's
//! DynamicQuantizeLinear defines it.

use std::ops::Range;
use std::sync::Mutex;

use super::quantize::Grid;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::strided::Shared;
use crate::threads::ThreadPool;
use crate::view::Rows;

/// Numbers of a task.
const TASK: usize = 16 * 1024;

/// The smallest and the largest of some rows and 0. NaN counts for nothing.
struct RangeOp {
    from: (*const f32, usize),
    channels: usize,
    rows: Range<usize>,
}

impl SimdOp for RangeOp {
    type Output = [f32; 2];

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> [f32; 2] {
        // Several of each, so that no comparison waits for the one before.
        let (mut low, mut high) = ([s.zero(); 4], [s.zero(); 4]);
        for row in self.rows {
            let mut i = 0;
            while i < self.channels {
                for j in 0..4 {
                    let n = self.channels.saturating_sub(i);
                    // SAFETY: at most the `n` channels that are left of the row are read; missing lanes are 0.
                    let x = unsafe {
                        let p = self.from.0.wrapping_add(row * self.from.1 + i);
                        if n >= S::LANES { s.load(p) } else { s.load_partial(p, n) }
                    };
                    (low[j], high[j]) = (s.min(x, low[j]), s.max(x, high[j]));
                    i += S::LANES;
                }
            }
        }
        let low = s.min(s.min(low[0], low[1]), s.min(low[2], low[3]));
        let high = s.max(s.max(high[0], high[1]), s.max(high[2], high[3]));
        [-s.reduce_max(s.neg(low)), s.reduce_max(high)]
    }
}

/// The grid of all 256 levels that spans `input` and 0, whose zero point is a whole number; its scale is 1 where there is
/// nothing but zeros. NaN counts for nothing.
pub fn own_grid(isa: Isa, pool: &ThreadPool, input: Rows<'_>) -> Grid {
    let (count, channels) = (input.rows(), input.channels());
    // Dense rows are one run, cut where it suits.
    let (rows, channels, stride) = match input.is_dense() && channels > 0 {
        true => {
            let all = count * channels;
            let each = all.min(TASK);
            (all / each.max(1), each, each)
        }
        false => (count, channels, input.row_stride()),
    };
    let from = Shared(input.ptr());
    let found = Mutex::new([0f32; 2]);
    let join = |[low, high]: [f32; 2]| {
        let mut found = found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *found = [found[0].min(low), found[1].max(high)];
    };
    pool.run_ranges(rows, (TASK / channels.max(1)).max(1), |rows| {
        join(dispatch(isa, RangeOp { from: (from.get(), stride), channels, rows }));
    });
    let done = rows * channels;
    if input.is_dense() && done < count * input.channels() {
        let rest = count * input.channels() - done;
        let from = (from.get().wrapping_add(done), rest);
        join(dispatch(isa, RangeOp { from, channels: rest, rows: 0..1 }));
    }
    let [low, high] = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    // In the order of the definition, and rounded where it rounds.
    let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
    let zero = (-low / scale).clamp(0.0, 255.0).round_ties_even();
    Grid { scale, zero: if zero.is_nan() { 0.0 } else { zero } }
}
