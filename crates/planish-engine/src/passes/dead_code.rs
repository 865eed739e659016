//! Dead code: nodes whose results nobody reads, and values that nothing names.
//!
//! It runs first in every round, so that "the only reader" means the only reader that matters.

use super::Pass;
use planish_graph::{Graph, Result};

/// Drops what nobody reads.
pub struct DeadCode;

impl Pass for DeadCode {
    fn name(&self) -> &'static str {
        "dead-code"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let before = graph.nodes.len();
        graph.drop_unused();
        Ok(before - graph.nodes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::input;
    use planish_graph::ops::movement::identity::Identity;

    #[test]
    fn drops_chains_that_nobody_reads() {
        let (mut graph, x) = input(&[2]);
        let kept = graph.add_node("kept", Identity, &[x]);
        let dead = graph.add_node("dead", Identity, &[kept]);
        graph.add_node("deader", Identity, &[dead]);
        graph.outputs.push(kept);
        assert_eq!(DeadCode.run(&mut graph).unwrap(), 2);
        assert_eq!(DeadCode.run(&mut graph).unwrap(), 0);
        graph.validate().unwrap();
    }
}
