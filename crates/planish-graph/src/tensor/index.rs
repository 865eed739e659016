//! Walking tensors: row-major strides, broadcasting, and counters over index spaces.

use crate::error::{Error, Result};

/// The row-major strides of `shape`, in elements.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// The shape that `shapes` broadcast to under the rule of NumPy (aligned at the end, 1 stretches); an error where they
/// do not.
pub fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1usize; rank];
    for shape in shapes {
        let skip = rank - shape.len();
        for (axis, &d) in shape.iter().enumerate() {
            let o = &mut out[skip + axis];
            match (*o, d) {
                (a, b) if a == b => {}
                (1, b) => *o = b,
                (_, 1) => {}
                _ => return Err(Error::invalid(format!("shapes {shapes:?} do not broadcast"))),
            }
        }
    }
    Ok(out)
}

/// The strides with which `shape` is read when it is broadcast to `target` (0 along stretched axes).
pub fn broadcast_strides(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let own = strides(shape);
    let skip = target.len() - shape.len();
    (0..target.len())
        .map(|axis| if axis < skip || shape[axis - skip] == 1 { 0 } else { own[axis - skip] })
        .collect()
}

/// Calls `visit(flat, offsets)` for each index of `shape` in row-major order, where `flat` counts up from 0 and
/// `offsets[i]` is the element offset of that index under `strides[i]`.
pub fn for_each<const N: usize>(
    shape: &[usize],
    strides: [&[usize]; N],
    mut visit: impl FnMut(usize, [usize; N]),
) {
    // An empty space may have other extents whose product overflows.
    let count: usize = if shape.contains(&0) { 0 } else { shape.iter().product() };
    let mut index = vec![0usize; shape.len()];
    let mut offsets = [0usize; N];
    for flat in 0..count {
        visit(flat, offsets);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            for (o, s) in offsets.iter_mut().zip(&strides) {
                *o += s[axis];
            }
            if index[axis] < shape[axis] {
                break;
            }
            for (o, s) in offsets.iter_mut().zip(&strides) {
                *o -= s[axis] * shape[axis];
            }
            index[axis] = 0;
        }
    }
}

/// `axis` counted from the end where negative, as an index below `rank`; an error outside `-rank..rank`.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let r = rank as i64;
    if axis < -r || axis >= r {
        return Err(Error::invalid(format!("axis {axis} is outside a tensor of rank {rank}")));
    }
    Ok(if axis < 0 { axis + r } else { axis } as usize)
}

/// [`axis`] of each, refusing repetitions.
pub fn axes(values: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut out = Vec::with_capacity(values.len());
    for &v in values {
        let a = axis(v, rank)?;
        if out.contains(&a) {
            return Err(Error::invalid(format!("axis {v} appears twice")));
        }
        out.push(a);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_like_numpy() {
        assert_eq!(broadcast(&[&[2, 1, 4], &[3, 1]]).unwrap(), [2, 3, 4]);
        assert_eq!(broadcast(&[&[0], &[1]]).unwrap(), [0]);
        assert!(broadcast(&[&[2], &[3]]).is_err());
        assert_eq!(broadcast_strides(&[3, 1], &[2, 3, 4]), [0, 1, 0]);
    }

    #[test]
    fn visits_in_order() {
        let mut seen = Vec::new();
        for_each(&[2, 3], [&[3, 1], &[0, 1]], |flat, o| seen.push((flat, o)));
        assert_eq!(seen, [(0, [0, 0]), (1, [1, 1]), (2, [2, 2]), (3, [3, 0]), (4, [4, 1]), (5, [5, 2])]);
        let mut scalars = 0;
        for_each(&[], [&[]], |_, [o]| scalars += 1 + o);
        assert_eq!(scalars, 1);
        for_each(&[0, 3], [&[3, 1]], |_, _| panic!("nothing to visit"));
        for_each(&[1 << 40, 1 << 40, 0], [&[0, 0, 1]], |_, _| panic!("nothing to visit"));
    }

    #[test]
    fn negative_axes_count_from_the_end() {
        assert_eq!(axes(&[-1, 0], 3).unwrap(), [2, 0]);
        assert!(axes(&[-1, 2], 3).is_err());
        assert!(axis(3, 3).is_err());
    }
}
