//! ONNX files in and out.
//!
//! [`load`] turns a file into a [`planish_graph::Graph`], [`save`] turns a graph into a file. Operators read and write
//! themselves in a neutral form (`planish_graph::ops`); this crate moves that form to and from protobuf, and is where
//! hostile files are stopped: truncated, overlong, cyclic, self-referring, or naming files that are not theirs.

#[cfg(target_endian = "big")]
compile_error!(
    "ONNX stores weights little-endian and planish moves them unchanged: big-endian machines are not supported"
);

mod attribute;
mod call;
mod export;
mod external;
mod import;
mod integer_products;
mod legacy;
mod lower;
mod microsoft;
mod operator;
mod opset;
mod proto;
mod read;
mod scope;
mod survey;
mod tensor;
mod tensor_file;
#[cfg(test)]
mod tests;
mod unsupported;
mod wire;
mod write;

pub use read::{NEWEST_OPSET, OLDEST_OPSET, ReadOptions, load, read};
pub use survey::{Survey, survey};
pub use tensor_file::{load_tensor, read_tensor, save_tensor};
pub use write::{WriteOptions, save, write};
