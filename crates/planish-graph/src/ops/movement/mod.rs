//! Moving elements without computing on them: reshaping, slicing, gathering, padding, and shapes as data.

pub mod identity;

use super::OperatorEntry;

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[OperatorEntry::onnx("Identity", identity::Identity::read)];
