//! Functions of single elements, because what is not fused behind a convolution (an activation before one, a residual add, the
//! product of a squeeze-and-excite block) moves every activation through memory once: these kernels keep to that once.
//!
//! [`unary`] maps rows, [`binary`] combines two tensors of any strides with broadcasting. Both may work in place. [`convert`]
//! makes other elements of the same numbers.

mod binary;
mod unary;

pub use binary::{Binary, binary};
pub(crate) use binary::{Combine, Operands};
pub(crate) use unary::{Span, map_rows};
pub use unary::{Unary, convert, unary, unary_in_place};

#[cfg(test)]
mod tests;
