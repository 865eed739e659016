//! Control flow: operators that run nested graphs.

use super::OperatorEntry;

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[];
