//! Turns the nodes of a specialised graph into steps: one family of operators a file.
//!
//! A lowering says what layout its operators wish for, and writes steps through [`Lowering`], which finds where operands
//! are, converts layouts on demand (once a value and layout), and hands out places for outputs.

mod cast;
mod chain;
mod conv;
mod dynamic;
mod elementwise;
mod facts;
mod fallback;
mod follow;
mod gather;
mod level_numbers;
mod matmul;
mod movement;
mod normalize;
mod operands;
mod outputs;
mod pad;
mod pool;
mod quantise;
mod quantised;
mod reduce;
mod resize;
mod short_weights;
mod shuffle;

pub(crate) use facts::{Facts, is_kept};
pub(crate) use follow::Abilities;
pub(crate) use operands::{element_of, layouts_agree};
pub(crate) use quantised::of_each_level;

use super::layout;
pub(crate) use super::layout::{Layout, Wish};
use super::placement::{self, Placement};
use super::precision;
pub(crate) use super::precision::Keeps;
use super::{BufferView, Kernel, Operand, Step, StepInfo, memory};
use crate::run::environment::Environment;
use planish_cpu::element::ElementType;
use planish_graph::error::Context;
use planish_graph::limits::element_count;
use planish_graph::{Error, Fact, Graph, Node, Result, Tensor, ValueId};
use std::collections::{HashMap, HashSet};

/// What the plan is made for.
pub(crate) struct Target<'a> {
    pub(crate) isa: planish_cpu::isa::Isa,
    pub(crate) pool: &'a planish_cpu::threads::ThreadPool,
    pub(crate) chooser: &'a super::choose::Chooser,
    /// What activations are kept as where kernels allow it.
    pub(crate) element: ElementType,
}

/// A plan in the making.
pub(crate) struct Lowering<'a> {
    pub(crate) graph: &'a Graph,
    known: Facts<'a>,
    pub(crate) target: &'a Target<'a>,
    layouts: Vec<Layout>,
    elements: Vec<ElementType>,
    placements: HashMap<ValueId, Placement>,
    roots: HashMap<ValueId, usize>,
    /// Where each value is, in each layout and element it was made in or converted to.
    found: HashMap<(ValueId, Layout, ElementType), Operand>,
    lives: Vec<memory::Life>,
    /// How many values name each buffer: 1 where it may be written over at its last use.
    names: Vec<usize>,
    /// The last node that reads each value; `usize::MAX` for graph outputs.
    last_reader: Vec<usize>,
    /// By node, what its kernel does of those behind it.
    followers: HashMap<usize, follow::Followers>,
    chains: chain::Chains,
    node_index: usize,
    steps: Vec<Step>,
    heap_slots: usize,
}

/// A family of operators that has kernels.
pub(crate) trait Family: Sync {
    /// What the family's kernel for `node` wishes of layouts; `None` where it has none for this operator, type or shape.
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish>;
    /// The layout in which the kernel for `node` reads its input best, given that it writes `layout`; `None` where it
    /// reads either just as well. Not asked of those that follow.
    fn reads(&self, _node: &Node, _facts: &Facts<'_>, layout: Layout) -> Option<Layout> {
        Some(layout)
    }
    /// What the family's kernel for `node` does with values that are kept short, given that its values are in `layouts`;
    /// where it is more than `f32`, `lower` asks [`Lowering::element`].
    fn keeps(&self, _node: &Node, _facts: &Facts<'_>, _layouts: &[Layout]) -> Keeps {
        Keeps::Long
    }
    /// The steps of a node for which [`Self::wish`] answered.
    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()>;
    /// Whether the node's outputs are views of its input's memory, given that its values are in `layouts`.
    fn is_alias(&self, _node: &Node, _facts: &Facts<'_>, _layouts: &[Layout]) -> bool {
        false
    }
    /// What the kernel for `node` can do to its result besides; where that is anything, `lower` asks
    /// [`Lowering::result`].
    fn follows(&self, _node: &Node, _facts: &Facts<'_>) -> Abilities {
        Abilities::default()
    }
}

/// Every family, asked in this order.
static FAMILIES: &[&dyn Family] = &[
    &conv::Convolutions,
    &conv::TransposedConvolutions,
    &elementwise::Elementwise,
    &movement::Movement,
    &cast::Casts,
    &pool::Pools,
    &quantise::Conversions,
    &quantised::Levels,
    &dynamic::OwnRanges,
    &dynamic::DynamicProducts,
    &matmul::MatrixProducts,
    &short_weights::ShortProducts,
    &reduce::Reductions,
    &normalize::BatchNormalizations,
    &normalize::GroupNormalizations,
    &normalize::LayerNormalizations,
    &normalize::ResponseNormalizations,
    &resize::Resizes,
    &shuffle::Shuffles,
    &pad::Pads,
    &gather::Gathers,
];

fn family(node: &Node, facts: &Facts<'_>) -> Option<(&'static dyn Family, Wish)> {
    // Kernels need not think of tensors without elements: there is nothing to be fast about.
    let is_empty = |v: &ValueId| facts.kept(*v).is_some_and(|s| s.contains(&0));
    if node.inputs.iter().chain(&node.outputs).flatten().any(is_empty) {
        return None;
    }
    FAMILIES.iter().find_map(|f| f.wish(node, facts).map(|w| (*f, w)))
}

/// What the operator of `node` wishes of layouts.
pub(crate) fn wish(node: &Node, facts: &Facts<'_>) -> Wish {
    family(node, facts).map_or(Wish::Plain, |(_, wish)| wish)
}

/// The layout in which `node` reads its input best, given that it writes `layout`; `None` where either does as well.
pub(crate) fn reads(node: &Node, facts: &Facts<'_>, layout: Layout) -> Option<Layout> {
    family(node, facts).map_or(Some(Layout::Plain), |(family, _)| family.reads(node, facts, layout))
}

/// What the kernel of `node` does with values that are kept short.
pub(crate) fn keeps(node: &Node, facts: &Facts<'_>, layouts: &[Layout]) -> Keeps {
    family(node, facts).map_or(Keeps::Long, |(f, _)| f.keeps(node, facts, layouts))
}

/// Whether the node's output is a view of its input's memory, never a memory of its own.
pub(crate) fn is_alias(node: &Node, facts: &Facts<'_>, layouts: &[Layout]) -> bool {
    family(node, facts).is_some_and(|(f, _)| f.is_alias(node, facts, layouts))
}

/// The output of `node` where it is a channels-last concatenation along the channels.
pub(crate) fn channel_concat(node: &Node, facts: &Facts<'_>, layouts: &[Layout]) -> Option<ValueId> {
    movement::channel_concat(node, facts, layouts)
}

/// Compiles a specialised graph.
pub(crate) fn lower(graph: &Graph, facts: &[Option<Fact>], target: &Target<'_>) -> Result<super::Plan> {
    for (value, fact) in graph.values.iter().zip(facts) {
        if let Some(shape) = fact.as_ref().and_then(|f| f.shape()) {
            element_count(shape).context(|| format!("value \"{}\"", value.name))?;
        }
    }
    let makers = graph.producers();
    let known = Facts { graph, facts, makers: &makers };
    let layouts = layout::assign(&known, layout::Prices::new(target.chooser.rates()));
    let elements = precision::assign(&known, &layouts, target.element);
    let placements = placement::assign(&known, &layouts, &elements);
    let followers = follow::assign(&known, &layouts, &elements);
    if target.chooser.is_tuned() {
        target.chooser.tune(&conv::requests(&known, &elements), target.pool)?;
    }
    let chains = chain::assign(&known, &layouts, &elements, &followers, target)?;
    let followed = followers.values().flat_map(|f| f.nodes.iter().copied());
    let done: HashSet<usize> = followed.chain(chains.inner()).collect();
    let mut last_reader = vec![0; graph.values.len()];
    for (n, node) in graph.nodes.iter().enumerate() {
        for v in node.inputs.iter().flatten() {
            last_reader[v.0 as usize] = n;
        }
    }
    // A chain reads its input when its last node has its turn.
    for nodes in chains.nodes() {
        for v in graph.nodes[nodes[0]].inputs.iter().flatten() {
            let reader = &mut last_reader[v.0 as usize];
            *reader = (*reader).max(nodes[nodes.len() - 1]);
        }
    }
    for v in &graph.outputs {
        last_reader[v.0 as usize] = usize::MAX;
    }
    let mut lowering = Lowering {
        graph,
        known,
        target,
        layouts,
        elements,
        placements,
        roots: HashMap::new(),
        found: HashMap::new(),
        lives: Vec::new(),
        names: Vec::new(),
        last_reader,
        followers,
        chains,
        node_index: 0,
        steps: Vec::new(),
        heap_slots: 0,
    };
    lowering.place_inputs()?;
    for (n, node) in graph.nodes.iter().enumerate().filter(|(n, _)| !done.contains(n)) {
        lowering.node_index = n;
        lowering.node(node).context(|| node.place())?;
    }
    lowering.node_index = graph.nodes.len();
    for (index, &v) in graph.outputs.iter().enumerate() {
        lowering.graph_output(index, v)?;
    }
    let memory = memory::assign(&lowering.lives);
    let outputs = graph
        .outputs
        .iter()
        .map(|v| match &facts[v.0 as usize] {
            Some(fact) => Ok((fact.dtype, fact.shape.clone())),
            None => Err(Error::invalid(format!("nothing is known of output \"{}\"", graph.value(*v).name))),
        })
        .collect::<Result<_>>()?;
    Ok(super::Plan {
        steps: lowering.steps,
        offsets: memory.offsets,
        arena_len: memory.len,
        heap_slots: lowering.heap_slots,
        outputs,
    })
}

/// Why a kernel for numbers does not run on levels; plans never ask it to.
fn no_levels() -> Error {
    Error::invalid("a kernel for numbers was planned on levels")
}

/// The rows and channels as which a value of ONNX shape `shape` is seen in `layout`.
pub(crate) fn rows_of(layout: Layout, shape: &[usize]) -> (usize, usize) {
    let physical = layout.physical(shape);
    let channels = physical.last().copied().unwrap_or(1);
    (physical[..physical.len().saturating_sub(1)].iter().product(), channels)
}

impl<'a> Lowering<'a> {
    /// Steps for one node: its kernel where there is one, its reference otherwise.
    fn node(&mut self, node: &Node) -> Result<()> {
        match family(node, &self.facts()) {
            Some((family, _)) => family.lower(self, node),
            None => fallback::lower(self, node),
        }
    }

    /// What is known of all values.
    pub(crate) fn facts(&self) -> Facts<'a> {
        self.known
    }
    /// The type and shape of a value.
    pub(crate) fn fact(&self, v: ValueId) -> Option<&'a Fact> {
        self.known.facts[v.0 as usize].as_ref()
    }
    /// The shape of a value, which must be known.
    pub(crate) fn shape(&self, v: ValueId) -> Result<&'a [usize]> {
        let shape = self.known.facts[v.0 as usize].as_ref().and_then(|f| f.shape());
        shape.ok_or_else(|| {
            Error::invalid(format!("the shape of \"{}\" is not known", self.graph.value(v).name))
        })
    }
    /// Whether kernels can work on a value.
    pub(crate) fn in_arena(&self, v: ValueId) -> bool {
        self.fact(v).is_some_and(is_kept)
    }
    /// The layout a value is kept in.
    pub(crate) fn layout(&self, v: ValueId) -> Layout {
        self.layouts[v.0 as usize]
    }
    /// What a value is kept as.
    pub(crate) fn element(&self, v: ValueId) -> ElementType {
        self.elements[v.0 as usize]
    }
    /// The content of a value, where it is a constant.
    pub(crate) fn constant(&self, v: ValueId) -> Option<&'a Tensor> {
        self.graph.constant(v)
    }

    /// A step's description, from its node.
    pub(crate) fn info(&self, node: &Node, algorithm: &str, reason: &str) -> StepInfo {
        let given: Vec<Option<Fact>> =
            node.inputs.iter().map(|i| i.and_then(|i| self.fact(i).cloned())).collect();
        let made: Vec<Fact> = node.outputs.iter().flatten().filter_map(|o| self.fact(*o).cloned()).collect();
        StepInfo {
            node: node.name.clone(),
            operator: node.op.name().to_string(),
            algorithm: algorithm.to_string(),
            reason: match self.followers.get(&self.node_index) {
                Some(f) => format!("{reason}; does the {} behind it", f.names(&self.graph.nodes)),
                None => reason.to_string(),
            },
            candidates: Vec::new(),
            shape: made.first().and_then(|f| f.shape.clone()).unwrap_or_default(),
            macs: if made.iter().all(|f| f.shape.is_some()) { node.op.macs(&given, &made) } else { 0 },
        }
    }

    /// Adds a step that reads and writes these operands.
    pub(crate) fn push(
        &mut self,
        info: StepInfo,
        reads: &[&Operand],
        writes: &[&BufferView],
        kernel: impl Fn(&mut Environment<'_>) -> Result<()> + Send + Sync + 'static,
    ) {
        let step = self.steps.len();
        let read = reads.iter().filter_map(|o| match o {
            Operand::Buffer(view) => Some(view.buffer),
            _ => None,
        });
        for buffer in read.chain(writes.iter().map(|v| v.buffer)) {
            let life = &mut self.lives[buffer];
            life.first = life.first.min(step);
            life.last = life.last.max(step);
        }
        let kernel: Box<dyn Kernel> = Box::new(kernel);
        self.steps.push(Step { info, kernel });
    }
}
