//! Moving elements without computing on them: reshaping, slicing, gathering, padding, and shapes as data.

pub mod center_crop_pad;
pub mod concat;
pub mod constant;
pub mod diagonal;
pub mod expand;
pub mod flatten;
pub mod gather;
pub mod gather_elements;
pub mod identity;
mod indexing;
mod inputs;
pub(crate) mod layout;
pub mod non_zero;
mod number;
pub mod one_hot;
pub mod pad;
pub mod range;
pub mod reshape;
pub mod reverse_sequence;
pub mod scatter;
pub mod shape;
pub mod slice;
pub mod split;
pub mod squeeze;
#[cfg(test)]
pub(crate) mod testing;
pub mod transpose;
pub mod unique;

use super::OperatorEntry;

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[
    OperatorEntry::onnx("CenterCropPad", center_crop_pad::CenterCropPad::read),
    OperatorEntry::onnx("Compress", non_zero::Compress::read),
    OperatorEntry::onnx("Concat", concat::Concat::read),
    OperatorEntry::onnx("Constant", constant::Constant::read),
    OperatorEntry::onnx("ConstantOfShape", constant::ConstantOfShape::read),
    OperatorEntry::onnx("Expand", expand::Expand::read),
    OperatorEntry::onnx("EyeLike", diagonal::EyeLike::read),
    OperatorEntry::onnx("Flatten", flatten::Flatten::read),
    OperatorEntry::onnx("Gather", gather::Gather::read),
    OperatorEntry::onnx("GatherElements", gather_elements::GatherElements::read),
    OperatorEntry::onnx("GatherND", gather_elements::GatherND::read),
    OperatorEntry::onnx("Identity", identity::Identity::read),
    OperatorEntry::onnx("NonZero", non_zero::NonZero::read),
    OperatorEntry::onnx("OneHot", one_hot::OneHot::read),
    OperatorEntry::onnx("Pad", pad::Pad::read),
    OperatorEntry::onnx("Range", range::Range::read),
    OperatorEntry::onnx("Reshape", reshape::Reshape::read),
    OperatorEntry::onnx("ReverseSequence", reverse_sequence::ReverseSequence::read),
    OperatorEntry::onnx("Scatter", scatter::ScatterElements::read),
    OperatorEntry::onnx("ScatterElements", scatter::ScatterElements::read),
    OperatorEntry::onnx("ScatterND", scatter::ScatterND::read),
    OperatorEntry::onnx("Shape", shape::Shape::read),
    OperatorEntry::onnx("Size", shape::Size::read),
    OperatorEntry::onnx("Slice", slice::Slice::read),
    OperatorEntry::onnx("Split", split::Split::read),
    OperatorEntry::onnx("Squeeze", squeeze::Squeeze::read),
    OperatorEntry::onnx("Tile", expand::Tile::read),
    OperatorEntry::onnx("Transpose", transpose::Transpose::read),
    OperatorEntry::onnx("Trilu", diagonal::Trilu::read),
    OperatorEntry::onnx("Unique", unique::Unique::read),
    OperatorEntry::onnx("Unsqueeze", squeeze::Unsqueeze::read),
];
