//! planish's own fused operators as the standard operators they stand for.

use planish_graph::{Graph, Result, unsupported};

/// `graph` in standard operators only, or `None` where it is that already.
pub(crate) fn to_standard(graph: &Graph) -> Result<Option<Graph>> {
    match graph.nodes.iter().find(|n| !n.op.domain().is_empty()) {
        None => Ok(None),
        Some(node) => unsupported!(
            "{}: {}::{} has no counterpart among the standard operators",
            node.place(),
            node.op.domain(),
            node.op.name()
        ),
    }
}
