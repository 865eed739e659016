//! Activations that the kernel before them does as well, while its result is still in registers.
//!
//! A pass of its own puts activations into convolutions, because that changes what else can be fused. For the other
//! kernels it is enough to decide here, where layouts are known, and no operator has to be invented for each pair: the
//! kernel writes what the activation would have written, and the activation makes no step.

use super::{Facts, Layout, Lowering, elementwise, family};
use planish_cpu::element::ElementType;
use planish_cpu::epilogue::Activation;
use planish_graph::{Error, Node, Result, ValueId};
use std::collections::HashMap;

/// An activation that is done by the node before it.
pub(super) struct Follower {
    /// The activation's node.
    pub(super) node: usize,
    activation: Activation,
}

/// By node, the activation that its kernel does: the only reader of its only output, in the same layout and element.
pub(super) fn assign(
    known: &Facts<'_>,
    layouts: &[Layout],
    elements: &[ElementType],
) -> HashMap<usize, Follower> {
    let graph = known.graph;
    let mut readers: HashMap<ValueId, (usize, usize)> = HashMap::new();
    for (n, node) in graph.nodes.iter().enumerate() {
        for &v in node.inputs.iter().flatten() {
            let (count, last) = readers.entry(v).or_default();
            (*count, *last) = (*count + 1, n);
        }
    }
    let follower = |node: &Node| {
        let &[Some(made)] = &node.outputs[..] else { return None };
        let &(1, reader) = readers.get(&made).filter(|_| !graph.outputs.contains(&made))? else {
            return None;
        };
        let next = &graph.nodes[reader];
        let activation = elementwise::activation(next, known).filter(|_| next.input(0) == Some(made))?;
        let form = |v: ValueId| (layouts[v.0 as usize], elements[v.0 as usize]);
        let same = form(made) == form(next.output()?);
        let able = same && family(node, known).is_some_and(|(f, _)| f.activates(node, known));
        able.then_some(Follower { node: reader, activation })
    };
    let of = |(n, node): (usize, &Node)| Some((n, follower(node)?));
    graph.nodes.iter().enumerate().filter_map(of).collect()
}

impl Lowering<'_> {
    /// The activation that the kernel of the node that is being lowered does, and the value that it makes by that.
    pub(crate) fn result(&self, node: &Node) -> Result<(ValueId, Activation)> {
        let follower = self.followers.get(&self.node_index);
        let last = follower.map_or(node, |f| &self.graph.nodes[f.node]);
        let made = last.output().ok_or_else(|| Error::invalid("a node lost its output"))?;
        Ok((made, follower.map_or(Activation::None, |f| f.activation)))
    }
}
