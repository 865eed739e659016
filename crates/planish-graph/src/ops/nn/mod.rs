//! The layers of networks: convolution, pooling, normalisation, resizing, quantisation, detection heads.

use super::OperatorEntry;

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[];
