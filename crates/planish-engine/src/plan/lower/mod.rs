//! Turns the nodes of a specialised graph into steps: one family of operators a file.
//!
//! A lowering says what layout its operators wish for, and writes steps through [`Lowering`], which finds where operands
//! are, converts layouts on demand (once a value and layout), and hands out places for outputs.

mod fallback;

use super::layout::{self, Layout, Wish};
use super::placement::{self, Placement};
use super::{BufferView, Kernel, Operand, Step, StepInfo, memory};
use crate::run::environment::Environment;
use planish_graph::error::Context;
use planish_graph::limits::element_count;
use planish_graph::{DType, Error, Fact, Graph, Node, Result, Tensor, ValueId};
use std::collections::HashMap;

/// What the plan is made for.
pub(crate) struct Target<'a> {
    pub(crate) isa: planish_cpu::isa::Isa,
    pub(crate) threads: usize,
    pub(crate) chooser: &'a super::choose::Chooser,
}

/// A plan in the making.
pub(crate) struct Lowering<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) facts: &'a [Option<Fact>],
    pub(crate) target: &'a Target<'a>,
    layouts: Vec<Layout>,
    placements: HashMap<ValueId, Placement>,
    roots: HashMap<ValueId, usize>,
    /// Where each value is, in each layout it was made in or converted to.
    found: HashMap<(ValueId, Layout), Operand>,
    lives: Vec<memory::Life>,
    /// How many values name each buffer: 1 where it may be written over at its last use.
    names: Vec<usize>,
    /// The last node that reads each value; `usize::MAX` for graph outputs.
    last_reader: Vec<usize>,
    node_index: usize,
    steps: Vec<Step>,
    heap_slots: usize,
}

/// The operands that a step names, so that the memory plan knows when they live.
pub(crate) struct Touched {
    buffers: Vec<usize>,
}

/// What the operator of `node` wishes of layouts.
pub(crate) fn wish(node: &Node, facts: &[Option<Fact>]) -> Wish {
    let _ = (node, facts);
    Wish::Plain
}

/// Whether the node's output is a view of its input's memory, never a memory of its own.
pub(crate) fn is_alias(node: &Node, facts: &[Option<Fact>], layouts: &[Layout]) -> bool {
    let _ = (node, facts, layouts);
    false
}

/// The output of `node` where it is a channels-last concatenation along the channels.
pub(crate) fn channel_concat(node: &Node, facts: &[Option<Fact>], layouts: &[Layout]) -> Option<ValueId> {
    let _ = (node, facts, layouts);
    None
}
