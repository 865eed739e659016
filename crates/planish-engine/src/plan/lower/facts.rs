//! What lowering families ask of the graph: shapes that kernels can work on, and constants.
//!
//! Layouts and placement ask families before anything is lowered, so these questions need no [`Lowering`](super::Lowering).

use planish_graph::{DType, Fact, Graph, Node, NodeId, Tensor, ValueId};

/// Whether a value has a place in the arena: an `f32`, an `f16` as some graphs take and give, or `u8` as the levels of
/// quantised tensors are, of known shape.
pub(crate) fn is_kept(fact: &Fact) -> bool {
    matches!(fact.dtype, DType::F32 | DType::F16 | DType::U8) && fact.shape.is_some()
}

/// What is known of the values of the graph that is being compiled.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) facts: &'a [Option<Fact>],
    /// By value: the node that makes it and which output it is.
    pub(crate) makers: &'a [Option<(NodeId, usize)>],
}

impl<'a> Facts<'a> {
    /// The node that makes a value.
    pub(crate) fn maker(&self, v: ValueId) -> Option<&'a Node> {
        let (id, _) = self.makers[v.0 as usize]?;
        Some(&self.graph.nodes[id.0 as usize])
    }
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
    /// The shape of a value, where kernels that only move elements can work on it: see [`is_kept`].
    pub(crate) fn kept(&self, v: ValueId) -> Option<&'a [usize]> {
        self.facts[v.0 as usize].as_ref().filter(|f| is_kept(f))?.shape()
    }
    /// [`Self::kept`] of input `index` and the first output of `node`, where they are of one type.
    pub(crate) fn moved(&self, node: &Node, index: usize) -> Option<(&'a [usize], &'a [usize])> {
        let (x, y) = (node.input(index)?, node.output()?);
        let dtype = |v: ValueId| self.facts[v.0 as usize].as_ref().map(|f| f.dtype);
        if dtype(x) == dtype(y) { self.kept(x).zip(self.kept(y)) } else { None }
    }
    /// The shape of a value, where it is a `u8` of known shape: levels.
    pub(crate) fn levels(&self, v: ValueId) -> Option<&'a [usize]> {
        self.facts[v.0 as usize].as_ref().filter(|f| f.dtype == DType::U8)?.shape()
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
