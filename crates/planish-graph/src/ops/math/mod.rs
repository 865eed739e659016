//! Arithmetic on elements: unary and binary functions, comparisons, logic, reductions, matrix products.

use super::OperatorEntry;

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[];
