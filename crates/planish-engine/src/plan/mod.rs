//! A plan: a graph compiled for one machine and one set of input shapes.
//!
//! Planning goes: [`crate::passes::specialise`] resolves shapes; `layout` decides which values are kept channels-last,
//! `precision` which are kept short;
//! `placement` lets producers write straight into the concatenation that reads them; `lower` turns each node into
//! steps, asking [`choose`] for each convolution's algorithm; `memory` gives every buffer an address. A node for which
//! there is no kernel becomes a step that runs its reference evaluation, so that every graph runs.

pub mod choose;
pub(crate) mod cut;
pub(crate) mod few_bits;
pub mod fit;
pub(crate) mod integer_sums;
pub(crate) mod layout;
pub(crate) mod lower;
pub mod measure;
pub(crate) mod memory;
pub(crate) mod placement;
pub(crate) mod precision;
pub mod rates;
pub mod tune;
pub mod wisdom;

use crate::run::environment::Environment;
use planish_cpu::element::ElementType;
use planish_graph::{DType, Result, Tensor};

/// A window of an arena buffer: `rows` runs of `channels` elements, `row_stride` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferView {
    pub(crate) buffer: usize,
    /// Where the first row starts in the buffer, in elements.
    pub(crate) start: usize,
    pub(crate) rows: usize,
    pub(crate) channels: usize,
    pub(crate) row_stride: usize,
    /// What the elements are.
    pub(crate) element: ElementType,
}

impl BufferView {
    /// Whether the rows follow each other without a gap.
    pub(crate) fn is_dense(&self) -> bool {
        self.row_stride == self.channels || self.rows <= 1
    }
    /// The same elements as other rows; only for dense views.
    pub(crate) fn reshaped(&self, rows: usize, channels: usize) -> BufferView {
        debug_assert!(self.is_dense() && rows * channels == self.rows * self.channels);
        BufferView { rows, channels, row_stride: channels, ..*self }
    }
    /// A range of the channels of every row.
    pub(crate) fn columns(&self, start: usize, channels: usize) -> BufferView {
        BufferView { start: self.start + start, channels, ..*self }
    }
}

/// Where a value is found at run time.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    /// In the arena.
    Buffer(BufferView),
    /// An input of the graph, seen as dense rows.
    Input { index: usize, rows: usize, channels: usize, element: ElementType },
    /// A constant, seen as dense rows.
    Constant { tensor: Tensor, rows: usize, channels: usize },
    /// A tensor made at run time, by slot.
    Heap(usize),
}

impl Operand {
    /// What the elements are; of a tensor that no kernel reads, nothing is meant by it.
    pub(crate) fn element(&self) -> ElementType {
        match self {
            Operand::Buffer(view) => view.element,
            Operand::Input { element, .. } => *element,
            Operand::Constant { tensor, .. } => lower::element_of(tensor.dtype()),
            Operand::Heap(_) => ElementType::F32,
        }
    }
    /// Whether consecutive rows follow each other without a gap.
    pub(crate) fn is_dense(&self) -> bool {
        match self {
            Operand::Buffer(view) => view.is_dense(),
            _ => true,
        }
    }
    /// The same elements as other rows; only for dense operands that are not made at run time.
    pub(crate) fn reshaped(&self, new_rows: usize, new_channels: usize) -> Operand {
        match self {
            Operand::Buffer(view) => Operand::Buffer(view.reshaped(new_rows, new_channels)),
            Operand::Input { index, element, .. } => {
                Operand::Input { index: *index, rows: new_rows, channels: new_channels, element: *element }
            }
            Operand::Constant { tensor, .. } => {
                Operand::Constant { tensor: tensor.clone(), rows: new_rows, channels: new_channels }
            }
            Operand::Heap(slot) => Operand::Heap(*slot),
        }
    }
}

/// One kernel call, ready to run.
pub(crate) trait Kernel: Send + Sync {
    /// Does the work.
    fn run(&self, environment: &mut Environment<'_>) -> Result<()>;
}

impl<F: Fn(&mut Environment<'_>) -> Result<()> + Send + Sync> Kernel for F {
    fn run(&self, environment: &mut Environment<'_>) -> Result<()> {
        self(environment)
    }
}

/// What a step is, for people.
#[derive(Clone, Debug, Default)]
pub struct StepInfo {
    /// The node's name.
    pub node: String,
    /// The operator, or what the planner put in.
    pub operator: String,
    /// The algorithm or kernel.
    pub algorithm: String,
    /// Why it was chosen.
    pub reason: String,
    /// Of a convolution, every algorithm there was to choose from, the pick first.
    pub candidates: Vec<choose::Candidate>,
    /// The shape of the first output.
    pub shape: Vec<usize>,
    /// Multiply-accumulate operations.
    pub macs: u64,
}

/// A kernel call of a plan and what it is.
pub(crate) struct Step {
    pub(crate) info: StepInfo,
    pub(crate) kernel: Box<dyn Kernel>,
}

/// A graph compiled for one machine and one set of input shapes; run by [`crate::Session`].
pub struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) offsets: Vec<usize>,
    pub(crate) arena_len: usize,
    pub(crate) heap_slots: usize,
    /// Type and shape of each output, where known before the run.
    pub(crate) outputs: Vec<(DType, Option<Vec<usize>>)>,
}

impl Plan {
    /// The steps in order, as people want to see them.
    pub fn steps(&self) -> impl Iterator<Item = &StepInfo> {
        self.steps.iter().map(|s| &s.info)
    }
    /// Bytes of working memory that one run takes, constants not counted.
    pub fn arena_bytes(&self) -> usize {
        self.arena_len.saturating_mul(4)
    }
    /// Type and shape (where known before the run) of each output.
    pub fn outputs(&self) -> &[(DType, Option<Vec<usize>>)] {
        &self.outputs
    }
}
