//! The table of all operators: each family's module holds its lines.

use super::read::NodeReader;
use super::{Operator, control, math, movement, nn};
use crate::error::Result;
use std::sync::{Arc, LazyLock};

/// One operator type that planish reads.
#[derive(Debug)]
pub struct OperatorEntry {
    /// The ONNX domain, empty for the standard one.
    pub domain: &'static str,
    /// The ONNX operator type.
    pub name: &'static str,
    /// Makes the operator from a node of a file.
    pub read: fn(&mut NodeReader) -> Result<Arc<dyn Operator>>,
}

impl OperatorEntry {
    /// A line for a standard operator.
    pub(super) const fn onnx(
        name: &'static str,
        read: fn(&mut NodeReader) -> Result<Arc<dyn Operator>>,
    ) -> OperatorEntry {
        OperatorEntry { domain: "", name, read }
    }
}

/// Every operator type that planish reads.
pub fn table() -> &'static [&'static OperatorEntry] {
    static TABLE: LazyLock<Vec<&'static OperatorEntry>> = LazyLock::new(|| {
        [math::OPERATORS, nn::OPERATORS, movement::OPERATORS, control::OPERATORS]
            .into_iter()
            .flatten()
            .collect()
    });
    &TABLE
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_operator_is_listed_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for entry in super::table() {
            assert!(seen.insert((entry.domain, entry.name)), "{} is listed twice", entry.name);
        }
    }
}
