//! What lowering families ask of the graph: shapes that kernels can work on, and constants.
//!
//! Layouts and placement ask families before anything is lowered, so these questions need no [`Lowering`](super::Lowering).

use planish_graph::{DType, Fact, Graph, Node, Tensor, ValueId};

/// What is known of the values of the graph that is being compiled.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) facts: &'a [Option<Fact>],
}

impl<'a> Facts<'a> {
    /// The shape of input `index` of `node`, where it is an `f32` of known shape.
    pub(crate) fn input(&self, node: &Node, index: usize) -> Option<&'a [usize]> {
        self.shape(node.input(index)?)
    }
    /// The shape of the first output of `node`, where it is an `f32` of known shape.
    pub(crate) fn output(&self, node: &Node) -> Option<&'a [usize]> {
        self.shape(node.output()?)
    }
    /// The shape of a value, where it is an `f32` of known shape.
    pub(crate) fn shape(&self, v: ValueId) -> Option<&'a [usize]> {
        self.facts[v.0 as usize].as_ref().filter(|f| f.dtype == DType::F32)?.shape()
    }
    /// The content of input `index` of `node`, where it is constant.
    pub(crate) fn constant(&self, node: &Node, index: usize) -> Option<&'a Tensor> {
        self.graph.constant(node.input(index)?)
    }
    /// Whether there is no input `index`, or it is a constant `f32`.
    pub(crate) fn absent_or_constant(&self, node: &Node, index: usize) -> bool {
        node.input(index).is_none() || self.constant(node, index).is_some_and(|t| t.dtype() == DType::F32)
    }
}
