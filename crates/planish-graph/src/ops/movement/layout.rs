//! Moving elements of any type between dense buffers: the loops that every operator of this family is made of.
//!
//! An operator that only moves elements says where each element of an index space is read and where it is written
//! ([`Walk`]), and [`copy`] moves the bytes. Slicing, splitting, concatenating, padding, expanding, tiling and
//! transposing differ in nothing but their walks. [`select`] is the other shape of movement: whole blocks picked along
//! one axis.

use crate::error::Result;
use crate::invalid;
use crate::limits::element_count;
use crate::tensor::{Tensor, index};

/// Where the elements of an index space lie in a buffer: the first one, and how far apart neighbours along each axis
/// are. Steps may be zero or negative.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Walk {
    /// The element offset of the first index.
    pub(crate) start: usize,
    /// Elements from one index to the next, for each axis.
    pub(crate) steps: Vec<isize>,
}

impl Walk {
    /// All of a row-major buffer of `shape`, in order.
    pub(crate) fn dense(shape: &[usize]) -> Walk {
        Walk { start: 0, steps: index::strides(shape).into_iter().map(saturate).collect() }
    }
    /// A row-major buffer of `shape` read as if it had been broadcast to `target`.
    pub(crate) fn broadcast(shape: &[usize], target: &[usize]) -> Walk {
        Walk { start: 0, steps: index::broadcast_strides(shape, target).into_iter().map(saturate).collect() }
    }
    /// The box at `corner` of a row-major buffer of `shape`.
    pub(crate) fn boxed(shape: &[usize], corner: &[usize]) -> Walk {
        let strides = index::strides(shape);
        let start =
            strides.iter().zip(corner).map(|(s, c)| s.saturating_mul(*c)).fold(0, usize::saturating_add);
        Walk { start, steps: strides.into_iter().map(saturate).collect() }
    }
}

fn saturate(step: usize) -> isize {
    isize::try_from(step).unwrap_or(isize::MAX)
}

/// Copies the elements (`size` bytes each) of the index space `shape` from where `from` says to where `to` says. The
/// walks stay inside the buffers; that is the caller's arithmetic to get right.
pub(crate) fn copy(shape: &[usize], size: usize, source: &[u8], from: &Walk, target: &mut [u8], to: &Walk) {
    match size {
        1 => copy_sized::<1>(shape, source, from, target, to),
        2 => copy_sized::<2>(shape, source, from, target, to),
        4 => copy_sized::<4>(shape, source, from, target, to),
        _ => copy_sized::<8>(shape, source, from, target, to),
    }
}

fn copy_sized<const SIZE: usize>(shape: &[usize], source: &[u8], from: &Walk, target: &mut [u8], to: &Walk) {
    if shape.contains(&0) {
        return;
    }
    let axes = merged_axes(shape, from, to);
    let (lines, line) = match axes.split_last() {
        Some((last, outer)) => (outer, *last),
        None => (&[][..], Axis { extent: 1, read: 1, write: 1 }),
    };
    let mut index = vec![0usize; lines.len()];
    let (mut read, mut write) = (from.start as isize, to.start as isize);
    loop {
        copy_line::<SIZE>(line, source, read, target, write);
        let mut advanced = false;
        for (axis, i) in lines.iter().zip(&mut index).rev() {
            *i += 1;
            read += axis.read;
            write += axis.write;
            if *i < axis.extent {
                advanced = true;
                break;
            }
            read -= axis.read * axis.extent as isize;
            write -= axis.write * axis.extent as isize;
            *i = 0;
        }
        if !advanced {
            return;
        }
    }
}

/// One axis of a copy.
#[derive(Clone, Copy)]
struct Axis {
    extent: usize,
    read: isize,
    write: isize,
}

/// The axes of a copy without those of extent 1, and with neighbours joined where both buffers allow it.
fn merged_axes(shape: &[usize], from: &Walk, to: &Walk) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::with_capacity(shape.len());
    for ((&extent, &read), &write) in shape.iter().zip(&from.steps).zip(&to.steps) {
        if extent == 1 {
            continue;
        }
        if let Some(outer) = axes.last_mut()
            && outer.read == read.saturating_mul(extent as isize)
            && outer.write == write.saturating_mul(extent as isize)
        {
            *outer = Axis { extent: outer.extent * extent, read, write };
            continue;
        }
        axes.push(Axis { extent, read, write });
    }
    axes
}

fn copy_line<const SIZE: usize>(line: Axis, source: &[u8], read: isize, target: &mut [u8], write: isize) {
    if line.read == 1 && line.write == 1 {
        let bytes = line.extent * SIZE;
        target[write as usize * SIZE..][..bytes].copy_from_slice(&source[read as usize * SIZE..][..bytes]);
        return;
    }
    let (mut read, mut write) = (read, write);
    for _ in 0..line.extent {
        target[write as usize * SIZE..][..SIZE].copy_from_slice(&source[read as usize * SIZE..][..SIZE]);
        read += line.read;
        write += line.write;
    }
}

/// Writes `element` all over `target`.
pub(crate) fn fill(target: &mut [u8], element: &[u8]) {
    if element.iter().all(|&b| b == 0) {
        target.fill(0);
        return;
    }
    for place in target.chunks_exact_mut(element.len()) {
        place.copy_from_slice(element);
    }
}

/// `tensor` with `count` slices along `axis`, of which slice `i` is slice `pick(i)` of the input. An error where a pick
/// is past the end.
pub(crate) fn select(
    tensor: &Tensor,
    axis: usize,
    count: usize,
    pick: impl Fn(usize) -> usize,
) -> Result<Tensor> {
    let mut shape = tensor.shape().to_vec();
    let extent = std::mem::replace(&mut shape[axis], count);
    let mut out = Tensor::zeros(tensor.dtype(), &shape)?;
    if out.is_empty() {
        return Ok(out);
    }
    let outer = element_count(&shape[..axis])?;
    let block = element_count(&shape[axis + 1..])? * tensor.dtype().size();
    let source = tensor.bytes();
    let mut places = out.bytes_mut().chunks_exact_mut(block);
    for o in 0..outer {
        for (i, place) in (0..count).zip(&mut places) {
            let picked = pick(i);
            if picked >= extent {
                invalid!("index {picked} is outside axis {axis} of extent {extent}");
            }
            place.copy_from_slice(&source[(o * extent + picked) * block..][..block]);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_against_the_grain() {
        let source: Vec<u8> = (0..6).collect();
        let mut target = vec![0u8; 6];
        let columns = Walk { start: 5, steps: vec![-1, -3] };
        copy(&[3, 2], 1, &source, &columns, &mut target, &Walk::dense(&[3, 2]));
        assert_eq!(target, [5, 2, 4, 1, 3, 0]);
    }

    #[test]
    fn joins_axes_that_lie_together() {
        let axes = merged_axes(&[2, 3, 1, 4], &Walk::dense(&[2, 3, 1, 4]), &Walk::dense(&[2, 3, 1, 4]));
        assert_eq!(axes.len(), 1);
        assert_eq!(axes[0].extent, 24);
        let broadcast = Walk::broadcast(&[3, 1], &[2, 3, 4]);
        assert_eq!(merged_axes(&[2, 3, 4], &broadcast, &Walk::dense(&[2, 3, 4])).len(), 3);
    }

    #[test]
    fn empty_spaces_and_single_elements() {
        let mut target = [7u8; 2];
        copy(&[3, 0], 1, &[], &Walk::dense(&[3, 0]), &mut target, &Walk::dense(&[3, 0]));
        assert_eq!(target, [7, 7]);
        copy(&[], 2, &[1, 2], &Walk::dense(&[]), &mut target, &Walk::dense(&[]));
        assert_eq!(target, [1, 2]);
    }

    #[test]
    fn selects_slices() {
        let t = Tensor::new(&[2, 3], &[0i16, 1, 2, 3, 4, 5]).unwrap();
        let picked = select(&t, 1, 2, |i| 2 * i).unwrap();
        assert_eq!(picked, Tensor::new(&[2, 2], &[0i16, 2, 3, 5]).unwrap());
        assert!(select(&t, 0, 1, |_| 2).is_err());
    }
}
