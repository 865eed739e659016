//! Decides for each value whether it is kept as ONNX has it or channels-last.
//!
//! Convolution, pooling and resizing compute channels-last (design.md says why), and what stands between them follows,
//! so that a network is converted once at its start and once where it leaves the spatial world.

use super::lower::{self, Facts};
use planish_graph::{DType, Fact};

/// How a value's elements are ordered in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Layout {
    /// Row-major in ONNX's axis order.
    Plain,
    /// Batch, spatial axes, channels: axis 1 comes last. Only for `f32` of rank 3 and more.
    ChannelsLast,
}

impl Layout {
    /// The extents in memory order of a value of ONNX shape `shape`.
    pub(crate) fn physical(self, shape: &[usize]) -> Vec<usize> {
        match self {
            Layout::Plain => shape.to_vec(),
            Layout::ChannelsLast => {
                let mut physical = vec![shape[0]];
                physical.extend(&shape[2..]);
                physical.push(shape[1]);
                physical
            }
        }
    }
    /// Which memory axis ONNX's `axis` is.
    pub(crate) fn axis(self, axis: usize, rank: usize) -> usize {
        match (self, axis) {
            (Layout::Plain, a) | (Layout::ChannelsLast, a @ 0) => a,
            (Layout::ChannelsLast, 1) => rank - 1,
            (Layout::ChannelsLast, a) => a - 1,
        }
    }
}

/// What an operator's kernel wants of layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Reads and writes channels-last.
    ChannelsLast,
    /// Works in either; writes what it reads.
    Follow,
    /// Reads and writes ONNX's order.
    Plain,
}

/// Whether a value may be kept channels-last at all.
pub(crate) fn may_be_channels_last(fact: Option<&Fact>) -> bool {
    fact.is_some_and(|f| f.dtype == DType::F32 && f.shape().is_some_and(|s| s.len() >= 3))
}

/// The layout of every value of a specialised graph.
pub(crate) fn assign(known: &Facts<'_>) -> Vec<Layout> {
    let Facts { graph, facts } = *known;
    let mut layouts = vec![Layout::Plain; graph.values.len()];
    let fact = |id: planish_graph::ValueId| facts[id.0 as usize].as_ref();
    for node in &graph.nodes {
        let wish = lower::wish(node, known);
        for output in node.outputs.iter().flatten() {
            if !may_be_channels_last(fact(*output)) {
                continue;
            }
            let rank = fact(*output).and_then(|f| f.shape()).map_or(0, |s| s.len());
            let channels_last = match wish {
                Wish::ChannelsLast => true,
                Wish::Plain => false,
                Wish::Follow => node.inputs.iter().flatten().any(|i| {
                    let same_rank = fact(*i).and_then(|f| f.shape()).is_some_and(|s| s.len() == rank);
                    same_rank && layouts[i.0 as usize] == Layout::ChannelsLast
                }),
            };
            if channels_last {
                layouts[output.0 as usize] = Layout::ChannelsLast;
            }
        }
    }
    layouts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_move_to_the_end() {
        assert_eq!(Layout::ChannelsLast.physical(&[2, 3, 4, 5]), [2, 4, 5, 3]);
        let axes: Vec<usize> = (0..4).map(|a| Layout::ChannelsLast.axis(a, 4)).collect();
        assert_eq!(axes, [0, 3, 1, 2]);
        assert_eq!(Layout::Plain.axis(1, 4), 1);
    }
}
