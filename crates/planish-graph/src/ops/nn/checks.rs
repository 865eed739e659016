//! Small checks that the type rules of this family share.

use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{optional_fact, required_fact};
use crate::tensor::DType;

/// The float type of input 0; an error for another type.
pub(super) fn float_input(inputs: &[Option<Fact>]) -> Result<DType> {
    let dtype = required_fact(inputs, 0)?.dtype;
    if !dtype.is_wide_float() {
        invalid!("input 0 is of type {dtype}, where a float type is expected");
    }
    Ok(dtype)
}

/// Input `index`, where given, must be of type `dtype`.
pub(super) fn same_type(inputs: &[Option<Fact>], index: usize, dtype: DType) -> Result<()> {
    match optional_fact(inputs, index) {
        Some(fact) if fact.dtype != dtype => {
            invalid!("input {index} is of type {}, where {dtype} is expected", fact.dtype)
        }
        _ => Ok(()),
    }
}

/// Input `index`, where given and its shape known, must be of `shape`.
pub(super) fn expect_shape(inputs: &[Option<Fact>], index: usize, shape: &[usize]) -> Result<()> {
    match optional_fact(inputs, index).and_then(|f| f.shape()) {
        Some(found) if found != shape => {
            invalid!("input {index} is of shape {found:?}, where {shape:?} is expected")
        }
        _ => Ok(()),
    }
}

/// A shape of batch, channels and at least `spatial` further axes, split; an error for fewer.
pub(super) fn split_shape(shape: &[usize], spatial: usize) -> Result<(usize, usize, &[usize])> {
    match shape {
        [batch, channels, rest @ ..] if rest.len() >= spatial => Ok((*batch, *channels, rest)),
        _ => invalid!("input 0 is of shape {shape:?}, where at least {} axes are expected", spatial + 2),
    }
}

/// The product of some extents of a shape, saturating: other extents may be 0, so it need not be addressable.
pub(super) fn product(extents: &[usize]) -> usize {
    extents.iter().fold(1, |n, &d| n.saturating_mul(d))
}
