//! What operators of this family read from their small integer inputs: shapes, axes, bounds and indices.

use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::tensor::{DType, Tensor};

/// Most numbers in an input that names axes, extents or bounds; no tensor has as many axes.
const MOST_NUMBERS: usize = 1024;

/// The numbers of an integer input that holds at most a list (shape, axes, bounds), where they are known; `name` is
/// what ONNX calls the input.
pub(super) fn integers(fact: &Fact, name: &str) -> Result<Option<Vec<i64>>> {
    check_index_type(fact.dtype, name)?;
    if let Some(shape) = fact.shape()
        && (shape.len() > 1 || shape.iter().any(|&n| n > MOST_NUMBERS))
    {
        invalid!(
            "input \"{name}\" has shape {shape:?}, a list of at most {MOST_NUMBERS} numbers is expected"
        );
    }
    fact.value.as_ref().map(Tensor::to_i64s).transpose()
}

/// [`integers`] of an input that may be left out: the outer `None` is "not known", the inner one "not given".
pub(super) fn optional_integers(fact: Option<&Fact>, name: &str) -> Result<Option<Option<Vec<i64>>>> {
    match fact {
        None => Ok(Some(None)),
        Some(fact) => Ok(integers(fact, name)?.map(Some)),
    }
}

/// [`integers`] that are extents: an error where one is negative.
pub(super) fn extents(fact: &Fact, name: &str) -> Result<Option<Vec<usize>>> {
    let Some(numbers) = integers(fact, name)? else { return Ok(None) };
    numbers.into_iter().map(|n| extent(n, name)).collect::<Result<Vec<usize>>>().map(Some)
}

/// `number` as an extent; an error where it is negative.
pub(super) fn extent(number: i64, name: &str) -> Result<usize> {
    usize::try_from(number).map_err(|_| Error::invalid(format!("input \"{name}\" holds the extent {number}")))
}

/// The one number of an integer input that is a scalar or a list of one, where it is known.
pub(super) fn integer(fact: &Fact, name: &str) -> Result<Option<i64>> {
    match integers(fact, name)?.as_deref() {
        None => Ok(None),
        Some([one]) => Ok(Some(*one)),
        Some(more) => invalid!("input \"{name}\" holds {} numbers, one is expected", more.len()),
    }
}

/// Whether `dtype` may hold indices: `i32` or `i64`.
pub(super) fn check_index_type(dtype: DType, name: &str) -> Result<()> {
    if !matches!(dtype, DType::I32 | DType::I64) {
        invalid!("input \"{name}\" is {dtype}, i32 or i64 is expected");
    }
    Ok(())
}

/// Two inputs must have one element type.
pub(super) fn check_same_type(fact: &Fact, other: &Fact, name: &str) -> Result<()> {
    if fact.dtype != other.dtype {
        invalid!("input \"{name}\" is {}, the data is {}", other.dtype, fact.dtype);
    }
    Ok(())
}

/// The indices in a tensor, without a widened copy.
#[derive(Clone, Copy)]
pub(super) enum Indices<'a> {
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl<'a> Indices<'a> {
    /// Of `tensor`; an error where it holds no indices.
    pub(super) fn of(tensor: &'a Tensor, name: &str) -> Result<Indices<'a>> {
        check_index_type(tensor.dtype(), name)?;
        Ok(match tensor.dtype() {
            DType::I32 => Indices::I32(tensor.as_slice()?),
            _ => Indices::I64(tensor.as_slice()?),
        })
    }
    /// How many there are.
    pub(super) fn len(self) -> usize {
        match self {
            Indices::I32(v) => v.len(),
            Indices::I64(v) => v.len(),
        }
    }
    /// The index at `place` on an axis of `extent`, counted from the end where negative; an error where it is outside.
    pub(super) fn get(self, place: usize, extent: usize) -> Result<usize> {
        let index = self.number(place);
        match position(index, extent) {
            Some(found) => Ok(found),
            None => invalid!("index {index} is outside an axis of extent {extent}"),
        }
    }
    /// The number at `place` as a count of at most `extent` elements.
    pub(super) fn count(self, place: usize, extent: usize) -> Result<usize> {
        let count = self.number(place);
        match usize::try_from(count) {
            Ok(fits) if fits <= extent => Ok(fits),
            _ => invalid!("length {count} does not fit an axis of extent {extent}"),
        }
    }
    fn number(self, place: usize) -> i64 {
        match self {
            Indices::I32(v) => i64::from(v[place]),
            Indices::I64(v) => v[place],
        }
    }
}

/// `index`, counted from the end where negative, below `extent`.
pub(super) fn position(index: i64, extent: usize) -> Option<usize> {
    let counted = if index < 0 { i128::from(index) + extent as i128 } else { i128::from(index) };
    usize::try_from(counted).ok().filter(|&i| i < extent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_and_scalars() {
        let list = Fact::constant(&Tensor::new(&[2], &[3i32, -1]).unwrap());
        assert_eq!(integers(&list, "axes").unwrap().unwrap(), [3, -1]);
        assert!(extents(&list, "shape").unwrap_err().to_string().contains("\"shape\""));
        assert!(integer(&list, "k").is_err());
        assert_eq!(integer(&Fact::constant(&Tensor::scalar(4i64)), "k").unwrap(), Some(4));
        assert_eq!(integers(&Fact::unknown(DType::I64), "axes").unwrap(), None);
        assert!(integers(&Fact::unknown(DType::F32), "axes").is_err());
        assert!(integers(&Fact::new(DType::I64, &[1 << 40]), "axes").is_err());
    }

    #[test]
    fn indices_count_from_the_end() {
        assert_eq!(position(-1, 3), Some(2));
        assert_eq!(position(-4, 3), None);
        assert_eq!(position(3, 3), None);
        assert_eq!(position(i64::MIN, usize::MAX), Some(usize::MAX / 2));
    }
}
