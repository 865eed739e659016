//! The two ways of addressing elements by index that gathering and scattering share: an index along one axis for each
//! element ([`AlongAxis`]), and tuples of indices that each name a block ([`Tuples`]).

use super::inputs::Indices;
use crate::error::Result;
use crate::invalid;
use crate::limits::element_count;
use crate::tensor::{Tensor, index};

/// Element `p` of the indices names the element of the data at `p`, with the coordinate along one axis replaced by the
/// index found there.
pub(super) struct AlongAxis {
    axis: usize,
}

impl AlongAxis {
    /// Checks that indices of shape `indices` fit data of shape `data` along `axis`.
    pub(super) fn new(axis: i64, data: &[usize], indices: &[usize]) -> Result<AlongAxis> {
        let axis = index::axis(axis, data.len())?;
        let fits = indices.len() == data.len() && (0..data.len()).all(|a| a == axis || indices[a] <= data[a]);
        if !fits {
            invalid!("input \"indices\" has shape {indices:?}, which does not fit data of shape {data:?}");
        }
        Ok(AlongAxis { axis })
    }

    /// Calls `visit` with each place in `indices` and the place in the data that it names.
    pub(super) fn for_each(
        &self,
        data: &[usize],
        indices: &Tensor,
        mut visit: impl FnMut(usize, usize),
    ) -> Result<()> {
        let given = Indices::of(indices, "indices")?;
        let mut strides = index::strides(data);
        let along = std::mem::replace(&mut strides[self.axis], 0);
        let mut result = Ok(());
        index::for_each(indices.shape(), [&strides], |place, [offset]| {
            if result.is_ok() {
                result = given.get(place, data[self.axis]).map(|i| visit(place, offset + i * along));
            }
        });
        result
    }
}

/// The last axis of the indices holds tuples; each names the block of the data at those first coordinates (behind
/// `batch` axes that data and indices share).
pub(super) struct Tuples {
    batch: usize,
    /// Coordinates in a tuple.
    length: usize,
}

impl Tuples {
    /// Checks that indices of shape `indices` fit data of shape `data`.
    pub(super) fn new(batch: i64, data: &[usize], indices: &[usize]) -> Result<Tuples> {
        let shared = usize::try_from(batch).ok().filter(|&b| b < data.len() && b < indices.len());
        let Some(batch) = shared else {
            invalid!(
                "attribute \"batch_dims\" is {batch}, data {data:?} and indices {indices:?} do not share that"
            );
        };
        if data[..batch] != indices[..batch] {
            invalid!("data {data:?} and indices {indices:?} differ in the first {batch} axes");
        }
        let length = indices.last().copied().unwrap_or(0);
        if length == 0 || length > data.len() - batch {
            invalid!("input \"indices\" holds tuples of {length} for data of shape {data:?}");
        }
        Ok(Tuples { batch, length })
    }

    /// The shape of the blocks that the tuples name, one for each tuple.
    pub(super) fn blocks(&self, data: &[usize], indices: &[usize]) -> Vec<usize> {
        [&indices[..indices.len() - 1], &data[self.batch + self.length..]].concat()
    }

    /// Elements of one block.
    pub(super) fn block_len(&self, data: &[usize]) -> Result<usize> {
        element_count(&data[self.batch + self.length..])
    }

    /// Calls `visit` with the number of each tuple and the number of the block in the data that it names.
    pub(super) fn for_each(
        &self,
        data: &[usize],
        indices: &Tensor,
        mut visit: impl FnMut(usize, usize),
    ) -> Result<()> {
        let given = Indices::of(indices, "indices")?;
        let tuples = given.len() / self.length;
        let addressed = &data[self.batch..self.batch + self.length];
        let in_batch = element_count(&indices.shape()[self.batch..indices.rank() - 1])?;
        for tuple in 0..tuples {
            let mut block = tuple / in_batch;
            for (i, &extent) in addressed.iter().enumerate() {
                block = block * extent + given.get(tuple * self.length + i, extent)?;
            }
            visit(tuple, block);
        }
        Ok(())
    }
}
