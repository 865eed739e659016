//! Moving elements without computing on them: reshaping, slicing, gathering, padding, and shapes as data.

pub mod concat;
pub mod expand;
pub mod flatten;
pub mod gather;
pub mod identity;
mod inputs;
pub(crate) mod layout;
pub mod pad;
pub mod reshape;
pub mod shape;
pub mod slice;
pub mod split;
pub mod squeeze;
#[cfg(test)]
pub(crate) mod testing;
pub mod transpose;

use super::OperatorEntry;

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[
    OperatorEntry::onnx("Concat", concat::Concat::read),
    OperatorEntry::onnx("Expand", expand::Expand::read),
    OperatorEntry::onnx("Flatten", flatten::Flatten::read),
    OperatorEntry::onnx("Gather", gather::Gather::read),
    OperatorEntry::onnx("Identity", identity::Identity::read),
    OperatorEntry::onnx("Pad", pad::Pad::read),
    OperatorEntry::onnx("Reshape", reshape::Reshape::read),
    OperatorEntry::onnx("Shape", shape::Shape::read),
    OperatorEntry::onnx("Size", shape::Size::read),
    OperatorEntry::onnx("Slice", slice::Slice::read),
    OperatorEntry::onnx("Split", split::Split::read),
    OperatorEntry::onnx("Squeeze", squeeze::Squeeze::read),
    OperatorEntry::onnx("Tile", expand::Tile::read),
    OperatorEntry::onnx("Transpose", transpose::Transpose::read),
    OperatorEntry::onnx("Unsqueeze", squeeze::Unsqueeze::read),
];
