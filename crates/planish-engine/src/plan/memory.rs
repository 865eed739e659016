//! Gives every buffer of a plan an address in one arena, so that buffers that are never alive together share memory.
//!
//! Greedy by size: the largest buffer first, each at the lowest offset that is free during its whole life (Pisarchyk and
//! Lee 2020, "Efficient Memory Management for Deep Neural Net Inference", arXiv 2001.03288, section 4.2). Within a few
//! percent of the lower bound on convolutional networks, and quick.

/// A buffer's length in words of 4 bytes and the first and last step that touch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) len: usize,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// Where each buffer starts, in words, and how long the arena is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) offsets: Vec<usize>,
    pub(crate) len: usize,
}

/// Buffers start at multiples of this many words: one cache line.
const ALIGNMENT: usize = 16;

/// Assigns offsets. Lengths are summed with saturation: a plan that cannot fit shows as an arena of `usize::MAX`.
pub(crate) fn assign(lives: &[Life]) -> Layout {
    let mut order: Vec<usize> = (0..lives.len()).filter(|&i| lives[i].len > 0).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lives[i].len), lives[i].first));
    let mut offsets = vec![0usize; lives.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(order.len()); // by offset
    let mut total = 0;
    for i in order {
        let life = lives[i];
        let len = life.len.checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX);
        let mut offset = 0usize;
        for &other in &placed {
            let o = lives[other];
            if o.last < life.first || life.last < o.first {
                continue;
            }
            if offset.saturating_add(len) <= offsets[other] {
                break;
            }
            let end = offsets[other]
                .saturating_add(o.len.checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX));
            offset = offset.max(end);
        }
        offsets[i] = offset;
        total = total.max(offset.saturating_add(len));
        let at = placed.partition_point(|&p| offsets[p] <= offset);
        placed.insert(at, i);
    }
    Layout { offsets, len: total }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn life(len: usize, first: usize, last: usize) -> Life {
        Life { len, first, last }
    }

    #[test]
    fn buffers_that_never_meet_share_memory() {
        let layout = assign(&[life(32, 0, 1), life(32, 1, 2), life(32, 2, 3)]);
        assert_eq!(layout.len, 64);
        assert_eq!(layout.offsets[0], layout.offsets[2]);
    }

    #[test]
    fn impossible_sizes_saturate() {
        assert_eq!(assign(&[life(usize::MAX, 0, 1), life(16, 0, 1)]).len, usize::MAX);
    }

    proptest! {
        #[test]
        fn no_two_live_buffers_overlap(raw in prop::collection::vec((0usize..200, 0usize..20, 0usize..6), 0..40)) {
            let lives: Vec<Life> = raw.iter().map(|&(len, first, more)| life(len, first, first + more)).collect();
            let layout = assign(&lives);
            for (i, a) in lives.iter().enumerate() {
                prop_assert!(layout.offsets[i].is_multiple_of(ALIGNMENT) && layout.offsets[i] + a.len <= layout.len || a.len == 0);
                for (j, b) in lives.iter().enumerate().skip(i + 1) {
                    let apart = a.last < b.first || b.last < a.first || a.len == 0 || b.len == 0;
                    let (x, y) = (layout.offsets[i], layout.offsets[j]);
                    prop_assert!(apart || x + a.len <= y || y + b.len <= x);
                }
            }
        }
    }
}
