//! Copying by a table of indices per axis, because padding of every mode, nearest-neighbour resizing, cropping, tiling and picking
//! channels differ only in which input index an output index takes: the table says it, one loop does it.

use crate::strided::{GRAIN, Shared, Strided, StridedMut};
use crate::threads::ThreadPool;

/// For each output index of an axis the input index it takes, or `None` for the fill value.
pub type IndexTable = Vec<Option<usize>>;

/// What stands outside a padded axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// The fill value.
    Constant,
    /// The input mirrored at its first and last element, which are not repeated.
    Reflect,
    /// The first and the last element.
    Edge,
    /// The input from its other end.
    Wrap,
}

impl PadMode {
    /// The table of an axis of `length` with `begin` more indices before it and `end` behind it (fewer where negative). Empty where
    /// nothing is left; of an axis of length 0 only the fill value can be taken.
    pub fn table(self, length: usize, begin: isize, end: isize) -> IndexTable {
        // Cropping comes first: what is mirrored or wrapped around is what it leaves.
        let first = (-begin).max(0);
        let size = (length as isize).saturating_add(end.min(0)).saturating_sub(first).max(0);
        let total = (length as isize).saturating_add(begin).saturating_add(end);
        (0..total)
            .map(|out| out - begin.max(0))
            .map(|at| match self {
                _ if (0..size).contains(&at) => Some(at),
                _ if size == 0 => None,
                PadMode::Constant => None,
                PadMode::Edge => Some(at.clamp(0, size - 1)),
                PadMode::Wrap => Some(at.rem_euclid(size)),
                PadMode::Reflect => {
                    let period = (2 * (size - 1)).max(1);
                    let at = at.rem_euclid(period);
                    Some(at.min(period - at).min(size - 1))
                }
            })
            .map(|at| at.map(|at| (first + at) as usize))
            .collect()
    }
}

/// Consecutive output indices that take consecutive input indices, or all take the fill value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    to: usize,
    from: Option<usize>,
    len: usize,
}

fn runs(table: &[Option<usize>]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (to, &from) in table.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if from == run.from.map(|start| start + run.len) => run.len += 1,
            _ => runs.push(Run { to, from, len: 1 }),
        }
    }
    runs
}

/// `output[i][j]…[k] = input[tables[0][i]][tables[1][j]]…[tables[n][k]]`, or `fill` where one of the tables says `None`.
///
/// # Panics
/// Where the views and `tables` differ in rank, `output` has not the length of the table along each axis, or a table names an index
/// outside the input.
pub fn gather<T: Copy + Send + Sync>(
    pool: &ThreadPool,
    tables: &[IndexTable],
    fill: T,
    input: Strided<'_, T>,
    output: StridedMut<'_, T>,
) {
    let shape = output.shape();
    assert!(tables.len() == shape.len() && tables.len() == input.shape().len(), "a table for each axis");
    for ((table, &out), &length) in tables.iter().zip(shape).zip(input.shape()) {
        assert_eq!(table.len(), out, "an entry for each output index");
        assert!(table.iter().flatten().all(|&index| index < length), "entries below {length}");
    }
    let rank = shape.len();
    if shape.contains(&0) {
        return;
    }
    let (from_strides, to_strides) = (input.layout().strides(), output.layout().strides());
    // The innermost axis in runs; where it is taken as it is and nothing lies between, the one around it too.
    let mut inner = 1.min(rank);
    let unit = rank > 0 && from_strides[rank - 1] == 1 && to_strides[rank - 1] == 1;
    let mut width = 1;
    if rank > 1 && unit {
        let length = shape[rank - 1];
        let whole = length == input.shape()[rank - 1]
            && tables[rank - 1].iter().enumerate().all(|(index, &from)| from == Some(index));
        let dense = |strides: &[isize]| strides[rank - 2] == length as isize;
        if whole && dense(from_strides) && dense(to_strides) {
            (inner, width) = (2, length);
        }
    }
    let (outer, inner) = tables.split_at(rank - inner);
    let steps = match rank {
        0 => (1, 1),
        _ if width > 1 => (1, 1),
        _ => (from_strides[rank - 1], to_strides[rank - 1]),
    };
    let runs: Vec<Run> = match inner.first() {
        None => vec![Run { to: 0, from: Some(0), len: 1 }],
        Some(table) => runs(table)
            .into_iter()
            .map(|run| Run {
                to: run.to * width,
                from: run.from.map(|from| from * width),
                len: run.len * width,
            })
            .collect(),
    };
    let row_len: usize = runs.iter().map(|run| run.len).sum();
    let rows: usize = outer.iter().map(Vec::len).product();
    let (from, to) = (Shared(input.ptr()), Shared(output.ptr()));
    pool.run_ranges(rows, GRAIN.div_ceil(row_len), |range| {
        for row in range {
            let (mut rest, mut from_offset, mut to_offset) = (row, Some(0isize), 0isize);
            for (axis, table) in outer.iter().enumerate().rev() {
                let index = rest % table.len();
                rest /= table.len();
                to_offset += index as isize * to_strides[axis];
                from_offset = from_offset
                    .zip(table[index])
                    .map(|(offset, index)| offset + index as isize * from_strides[axis]);
            }
            for run in &runs {
                // SAFETY: the tables name indices inside the input, their positions indices inside the output; no other task has
                // this row.
                unsafe {
                    let to = to.get().offset(to_offset + run.to as isize * steps.1);
                    match from_offset.zip(run.from) {
                        Some((offset, start)) => {
                            let from = from.get().offset(offset + start as isize * steps.0);
                            copy_run(from, steps.0, to, steps.1, run.len);
                        }
                        None => (0..run.len as isize).for_each(|i| *to.offset(i * steps.1) = fill),
                    }
                }
            }
        }
    });
}

/// Copies `len` elements, a step apart on each side.
///
/// # Safety
/// They must be readable at `from` and writable at `to`, and the two must not overlap.
#[inline(always)]
unsafe fn copy_run<T: Copy>(from: *const T, from_step: isize, to: *mut T, to_step: isize, len: usize) {
    // SAFETY: promised by the caller.
    unsafe {
        if (from_step, to_step) == (1, 1) && len > 8 {
            std::ptr::copy_nonoverlapping(from, to, len);
        } else {
            (0..len as isize).for_each(|i| *to.offset(i * to_step) = *from.offset(i * from_step));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use proptest::prelude::*;

    const MODES: [PadMode; 4] = [PadMode::Constant, PadMode::Reflect, PadMode::Edge, PadMode::Wrap];

    fn indices(mode: PadMode, length: usize, begin: isize, end: isize) -> Vec<isize> {
        mode.table(length, begin, end)
            .into_iter()
            .map(|index| index.map_or(-1, |index| index as isize))
            .collect()
    }

    #[test]
    fn tables_of_every_mode() {
        assert_eq!(indices(PadMode::Constant, 3, 2, 1), [-1, -1, 0, 1, 2, -1]);
        assert_eq!(indices(PadMode::Reflect, 3, 4, 3), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1]);
        assert_eq!(indices(PadMode::Edge, 3, 2, 1), [0, 0, 0, 1, 2, 2]);
        assert_eq!(indices(PadMode::Wrap, 3, 2, 1), [1, 2, 0, 1, 2, 0]);
        assert_eq!(indices(PadMode::Reflect, 1, 1, 1), [0, 0, 0]);
        assert_eq!(indices(PadMode::Edge, 5, -2, -1), [2, 3]);
        assert_eq!(indices(PadMode::Edge, 0, 1, 1), [-1, -1]);
        assert!(indices(PadMode::Wrap, 3, -2, -2).is_empty());
        // Cropping comes first.
        assert_eq!(indices(PadMode::Wrap, 3, -1, 2), [1, 2, 1, 2]);
        assert_eq!(indices(PadMode::Reflect, 4, -1, 2), [1, 2, 3, 2, 1]);
    }

    fn check_gather(tables: &[IndexTable], shape: &[usize], gap: usize) {
        let strides = |shape: &[usize]| {
            let mut wide = shape.to_vec();
            *wide.last_mut().unwrap() += gap;
            (crate::strided::dense_strides(&wide), wide.iter().product::<usize>())
        };
        let out_shape: Vec<usize> = tables.iter().map(Vec::len).collect();
        let ((from_strides, from_len), (to_strides, to_len)) = (strides(shape), strides(&out_shape));
        let data = random(61, from_len, -1.0, 1.0);
        let mut wanted = vec![9.0; to_len];
        for index in 0..out_shape.iter().product() {
            let (mut rest, mut from, mut to) = (index, Some(0), 0);
            for axis in (0..shape.len()).rev() {
                let at = rest % out_shape[axis];
                rest /= out_shape[axis];
                to += at as isize * to_strides[axis];
                from = from.zip(tables[axis][at]).map(|(sum, at)| sum + at as isize * from_strides[axis]);
            }
            wanted[to as usize] = from.map_or(7.0, |from| data[from as usize]);
        }
        for threads in [1, 3] {
            let mut out = vec![9.0; to_len];
            let input = Strided::new(&data, shape, &from_strides).unwrap();
            let output = StridedMut::new(&mut out, &out_shape, &to_strides).unwrap();
            gather(&ThreadPool::new(threads), tables, 7.0, input, output);
            assert_eq!(out, wanted);
        }
    }

    #[test]
    fn a_large_padding_and_a_nearest_neighbour() {
        let same = |length: usize| PadMode::Constant.table(length, 0, 0);
        let padded = |length: usize| PadMode::Reflect.table(length, 3, 3);
        let twice = |length: usize| (0..2 * length).map(|i| Some(i / 2)).collect::<IndexTable>();
        check_gather(&[same(2), padded(56), padded(56), same(16)], &[2, 56, 56, 16], 0);
        check_gather(&[same(1), twice(20), twice(20), same(33)], &[1, 20, 20, 33], 0);
        check_gather(&[same(2), same(9), same(9), PadMode::Constant.table(16, 8, 8)], &[2, 9, 9, 16], 0);
        check_gather(&[same(0), same(9)], &[0, 9], 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_padding(
            draws in prop::collection::vec((0usize..7, -2isize..5, -2isize..5, prop::sample::select(&MODES[..])), 1..4),
            channels in 1usize..20, gap in 0usize..2,
        ) {
            let mut shape: Vec<usize> = draws.iter().map(|draw| draw.0).collect();
            let mut tables: Vec<IndexTable> = draws.into_iter().map(|(n, begin, end, mode)| mode.table(n, begin, end)).collect();
            shape.push(channels);
            tables.push(PadMode::Constant.table(channels, 0, 0));
            check_gather(&tables, &shape, gap);
        }
    }
}
