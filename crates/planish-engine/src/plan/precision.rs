//! Decides for each value whether it is kept as `f32` or shorter, where a session was asked to keep activations shorter.
//!
//! Convolutions and matrix products read and write short values: that is where the time goes, and what stands between
//! them channels-last follows. Everything else computes as the graph says: a value is converted once where somebody wants
//! it otherwise. What a graph takes and gives is never short, and neither is arithmetic outside of the spatial world:
//! a detector's boxes would be off by whole pixels. What the graph itself has as `u8`, the levels of quantised networks, or
//! as `f16` is kept as that whatever is asked for.

use super::layout::Layout;
use super::lower::{self, Facts};
use planish_cpu::element::ElementType;
use planish_graph::{DType, Fact};

/// What an operator's kernel does with values that are kept short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Reads and writes `f32`.
    Long,
    /// Works on either; writes what it reads.
    Follow,
    /// Reads and writes short ones.
    Short,
    /// Reads short ones and writes either: short ones where a reader takes them.
    Either,
}

/// What every value of a specialised graph is kept as, where `element` is asked for.
pub(crate) fn assign(known: &Facts<'_>, layouts: &[Layout], element: ElementType) -> Vec<ElementType> {
    let Facts { graph, facts, .. } = *known;
    let kept = |fact: &Option<Fact>| match fact {
        Some(fact) if lower::is_kept(fact) => lower::element_of(fact.dtype),
        _ => ElementType::F32,
    };
    let mut elements: Vec<ElementType> = facts.iter().map(kept).collect();
    if element == ElementType::F32 {
        return elements;
    }
    let keeps: Vec<Keeps> = graph.nodes.iter().map(|node| lower::keeps(node, known, layouts)).collect();
    let mut wanted = vec![false; graph.values.len()];
    for (node, _) in graph.nodes.iter().zip(&keeps).filter(|(_, keeps)| **keeps != Keeps::Long) {
        node.inputs.iter().flatten().for_each(|v| wanted[v.0 as usize] = true);
    }
    for (node, keeps) in graph.nodes.iter().zip(keeps) {
        let short = match keeps {
            Keeps::Long => false,
            Keeps::Follow => node.inputs.iter().flatten().any(|v| elements[v.0 as usize] == element),
            Keeps::Short => true,
            Keeps::Either => node.outputs.iter().flatten().any(|v| wanted[v.0 as usize]),
        };
        for v in node.outputs.iter().flatten().filter(|_| short) {
            let fact = facts[v.0 as usize].as_ref();
            if fact.is_some_and(|f| f.dtype == DType::F32 && f.shape.is_some()) {
                elements[v.0 as usize] = element;
            }
        }
    }
    elements
}
