//! Control flow: operators that run nested graphs.

mod accumulate;
pub mod branch;
pub mod iterate;
mod nested;
pub mod scan;

use super::OperatorEntry;

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[
    OperatorEntry::onnx("If", branch::If::read),
    OperatorEntry::onnx("Loop", iterate::Loop::read),
    OperatorEntry::onnx("Scan", scan::Scan::read),
];

pub use nested::NESTED_WORK;
