//! Lets producers write straight into the concatenation that reads them.
//!
//! A channels-last concatenation along the channels interleaves its inputs row by row; a kernel that can write rows with
//! a gap between them can write its part in place, and the concatenation costs nothing. Networks nest and chain
//! concatenations (DenseNet concatenates everything made so far, again and again): they are taken from the last to the
//! first, so the outermost owns the memory, and an earlier one whose inputs already lie side by side in it is just a
//! narrower view.

use super::layout::Layout;
use super::lower::{self, Facts};
use planish_cpu::element::ElementType;
use planish_graph::ValueId;
use std::collections::HashMap;

/// A value's place inside another value's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The concatenation's output that owns the memory.
    pub(crate) root: ValueId,
    /// The first of the root's channels that are this value's.
    pub(crate) channel: usize,
}

/// The values that are written into another value's memory.
pub(crate) fn assign(
    known: &Facts<'_>,
    layouts: &[Layout],
    elements: &[ElementType],
) -> HashMap<ValueId, Placement> {
    let Facts { graph, facts, makers } = *known;
    let mut places: HashMap<ValueId, Placement> = HashMap::new();
    let channels = |v: ValueId| facts[v.0 as usize].as_ref().and_then(|f| f.shape()).map_or(0, |s| s[1]);
    // A producer whose output may be put elsewhere: a node with a kernel that writes its own output.
    let movable = |v: ValueId| {
        let Some((node, _)) = makers[v.0 as usize] else { return false };
        let node = &graph.nodes[node.0 as usize];
        layouts[v.0 as usize] == Layout::ChannelsLast && !lower::is_alias(node, known, layouts)
    };
    for node in graph.nodes.iter().rev() {
        let Some(output) = lower::channel_concat(node, known, layouts) else { continue };
        let inputs: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        if !places.contains_key(&output)
            && let Some(place) = side_by_side(&inputs, &places, channels)
        {
            places.insert(output, place);
            continue;
        }
        let base = places.get(&output).copied().unwrap_or(Placement { root: output, channel: 0 });
        let mut channel = base.channel;
        for input in inputs {
            let alike = elements[input.0 as usize] == elements[base.root.0 as usize];
            if alike && movable(input) && !places.contains_key(&input) && input != base.root {
                places.insert(input, Placement { root: base.root, channel });
            }
            channel += channels(input);
        }
    }
    places
}

/// The common view of `inputs` where all of them already lie next to each other, in order, in one root.
fn side_by_side(
    inputs: &[ValueId],
    places: &HashMap<ValueId, Placement>,
    channels: impl Fn(ValueId) -> usize,
) -> Option<Placement> {
    let first = *places.get(inputs.first()?)?;
    let mut channel = first.channel;
    for input in inputs {
        let place = places.get(input)?;
        if place.root != first.root || place.channel != channel {
            return None;
        }
        channel += channels(*input);
    }
    Some(first)
}
