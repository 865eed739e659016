//! Turns the nodes of a specialised graph into steps: one family of operators a file.
//!
//! A lowering says what layout its operators wish for, and writes steps through [`Lowering`], which finds where operands
//! are, converts layouts on demand (once a value and layout), and hands out places for outputs.

mod conv;
mod elementwise;
mod fallback;
mod matmul;
mod movement;
mod normalize;
mod pad;
mod pool;
mod reduce;
mod resize;
mod shuffle;

use super::layout;
pub(crate) use super::layout::{Layout, Wish};
use super::placement::{self, Placement};
use super::{BufferView, Kernel, Operand, Step, StepInfo, memory};
use crate::run::environment::Environment;
use planish_graph::error::Context;
use planish_graph::{DType, Error, Fact, Graph, Node, Result, Tensor, ValueId};
use std::collections::HashMap;

/// What the plan is made for.
pub(crate) struct Target<'a> {
    pub(crate) isa: planish_cpu::isa::Isa,
    pub(crate) pool: &'a planish_cpu::threads::ThreadPool,
    pub(crate) chooser: &'a super::choose::Chooser,
}

/// A plan in the making.
pub(crate) struct Lowering<'a> {
    pub(crate) graph: &'a Graph,
    facts: &'a [Option<Fact>],
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

/// A family of operators that has kernels.
pub(crate) trait Family: Sync {
    /// What the family's kernel for `node` wishes of layouts; `None` where it has none for this operator, type or shape.
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish>;
    /// The steps of a node for which [`Self::wish`] answered.
    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()>;
    /// Whether the node's outputs are views of its input's memory, given that its values are in `layouts`.
    fn is_alias(&self, _node: &Node, _facts: &Facts<'_>, _layouts: &[Layout]) -> bool {
        false
    }
}

/// Every family, asked in this order.
static FAMILIES: &[&dyn Family] = &[
    &conv::Convolutions,
    &conv::TransposedConvolutions,
    &elementwise::Elementwise,
    &movement::Movement,
    &pool::Pools,
    &matmul::MatrixProducts,
    &reduce::Reductions,
    &normalize::Normalizations,
    &resize::Resizes,
    &shuffle::Shuffles,
    &pad::Pads,
];

fn family(node: &Node, facts: &Facts<'_>) -> Option<(&'static dyn Family, Wish)> {
    // Kernels need not think of tensors without elements: there is nothing to be fast about.
    let is_empty = |v: &ValueId| facts.shape(*v).is_some_and(|s| s.contains(&0));
    if node.inputs.iter().chain(&node.outputs).flatten().any(is_empty) {
        return None;
    }
    FAMILIES.iter().find_map(|f| f.wish(node, facts).map(|w| (*f, w)))
}

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

/// What the operator of `node` wishes of layouts.
pub(crate) fn wish(node: &Node, facts: &Facts<'_>) -> Wish {
    family(node, facts).map_or(Wish::Plain, |(_, wish)| wish)
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
    let known = Facts { graph, facts };
    let layouts = layout::assign(&known);
    let placements = placement::assign(&known, &layouts);
    let mut last_reader = vec![0; graph.values.len()];
    for (n, node) in graph.nodes.iter().enumerate() {
        for v in node.inputs.iter().flatten() {
            last_reader[v.0 as usize] = n;
        }
    }
    for v in &graph.outputs {
        last_reader[v.0 as usize] = usize::MAX;
    }
    let mut lowering = Lowering {
        graph,
        facts,
        target,
        layouts,
        placements,
        roots: HashMap::new(),
        found: HashMap::new(),
        lives: Vec::new(),
        names: Vec::new(),
        last_reader,
        node_index: 0,
        steps: Vec::new(),
        heap_slots: 0,
    };
    lowering.place_inputs()?;
    for (n, node) in graph.nodes.iter().enumerate() {
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

/// The rows and channels as which a value of ONNX shape `shape` is seen in `layout`.
pub(crate) fn rows_of(layout: Layout, shape: &[usize]) -> (usize, usize) {
    let physical = layout.physical(shape);
    let channels = physical.last().copied().unwrap_or(1);
    (physical[..physical.len().saturating_sub(1)].iter().product(), channels)
}

/// Whether a value of that shape has the same bytes in both layouts.
fn layouts_agree(shape: &[usize]) -> bool {
    shape.len() < 3 || shape[1] == 1 || shape[2..].iter().product::<usize>() == 1
}

impl<'a> Lowering<'a> {
    fn place_inputs(&mut self) -> Result<()> {
        for (index, &v) in self.graph.inputs.iter().enumerate() {
            let operand = if self.in_arena(v) {
                let (rows, channels) = rows_of(Layout::Plain, self.shape(v)?);
                Operand::Input { index, rows, channels }
            } else {
                Operand::Input { index, rows: 0, channels: 0 }
            };
            self.found.insert((v, Layout::Plain), operand);
        }
        Ok(())
    }

    /// Steps for one node: its kernel where there is one, its reference otherwise.
    fn node(&mut self, node: &Node) -> Result<()> {
        match family(node, &self.facts()) {
            Some((family, _)) => family.lower(self, node),
            None => fallback::lower(self, node),
        }
    }

    /// What is known of all values.
    pub(crate) fn facts(&self) -> Facts<'a> {
        Facts { graph: self.graph, facts: self.facts }
    }
    /// The type and shape of a value.
    pub(crate) fn fact(&self, v: ValueId) -> Option<&'a Fact> {
        self.facts[v.0 as usize].as_ref()
    }
    /// The shape of a value, which must be known.
    pub(crate) fn shape(&self, v: ValueId) -> Result<&'a [usize]> {
        let shape = self.facts[v.0 as usize].as_ref().and_then(|f| f.shape());
        shape.ok_or_else(|| {
            Error::invalid(format!("the shape of \"{}\" is not known", self.graph.value(v).name))
        })
    }
    /// Whether kernels can work on a value: `f32`, of known shape.
    pub(crate) fn in_arena(&self, v: ValueId) -> bool {
        self.fact(v).is_some_and(|f| f.dtype == DType::F32 && f.shape.is_some())
    }
    /// The layout a value is kept in.
    pub(crate) fn layout(&self, v: ValueId) -> Layout {
        self.layouts[v.0 as usize]
    }
    /// The content of a value, where it is a constant.
    pub(crate) fn constant(&self, v: ValueId) -> Option<&'a Tensor> {
        self.graph.constant(v)
    }

    /// Where a value is, in `layout`; converts it there first where needed.
    pub(crate) fn operand(&mut self, v: ValueId, layout: Layout) -> Result<Operand> {
        if let Some(operand) = self.found.get(&(v, layout)) {
            return Ok(operand.clone());
        }
        let operand = self.converted(v, layout)?;
        self.found.insert((v, layout), operand.clone());
        Ok(operand)
    }

    fn converted(&mut self, v: ValueId, layout: Layout) -> Result<Operand> {
        if let Some(tensor) = self.constant(v) {
            if tensor.dtype() != DType::F32 {
                return Ok(Operand::Constant { tensor: tensor.clone(), rows: 0, channels: 0 });
            }
            let (rows, channels) = rows_of(layout, tensor.shape());
            let tensor = match layout {
                Layout::Plain => tensor.clone(),
                Layout::ChannelsLast => channels_last(tensor)?,
            };
            return Ok(Operand::Constant { tensor, rows, channels });
        }
        let other = match layout {
            Layout::Plain => Layout::ChannelsLast,
            Layout::ChannelsLast => Layout::Plain,
        };
        let name = &self.graph.value(v).name;
        let Some(source) = self.found.get(&(v, other)).cloned() else {
            return Err(Error::invalid(format!("\"{name}\" is read before it is made")));
        };
        let shape = self.shape(v)?;
        let (rows, channels) = rows_of(layout, shape);
        if layouts_agree(shape) && source.is_dense() {
            if let Operand::Buffer(view) = &source {
                self.names[view.buffer] += 1;
            }
            return Ok(source.reshaped(rows, channels));
        }
        let view = self.new_buffer(rows, channels);
        let (images, depth) = (shape[0], shape[1]);
        let pixels: usize = shape[2..].iter().product();
        // Seen plainly, the rows are whole planes of pixels.
        let (from, to) = match layout {
            Layout::ChannelsLast => (source.reshaped(images * depth, pixels), view),
            Layout::Plain => (source.clone(), view.reshaped(images * depth, pixels)),
        };
        let kernel = move |env: &mut Environment<'_>| {
            // In memory order, `images` blocks of `depth` times `pixels` are transposed.
            let (input, output) = match layout {
                Layout::ChannelsLast => (
                    env.strided(&from, &[images, depth, pixels])?.permute(&[0, 2, 1]),
                    env.strided_mut(&to, &[images, pixels, depth]),
                ),
                Layout::Plain => (
                    env.strided(&from, &[images, pixels, depth])?.permute(&[0, 2, 1]),
                    env.strided_mut(&to, &[images, depth, pixels]),
                ),
            };
            planish_cpu::copy::copy(env.isa, env.pool, input, output);
            Ok(())
        };
        let info = StepInfo {
            node: name.clone(),
            operator: "layout change".into(),
            algorithm: if layout == Layout::Plain { "channels first" } else { "channels last" }.into(),
            reason: "the next step wants the other layout".into(),
            shape: shape.to_vec(),
            macs: 0,
        };
        self.push(info, &[&source], &[&view], kernel);
        Ok(Operand::Buffer(view))
    }

    /// A fresh dense buffer.
    fn new_buffer(&mut self, rows: usize, channels: usize) -> BufferView {
        let buffer = self.lives.len();
        self.lives.push(memory::Life { len: rows.saturating_mul(channels), first: usize::MAX, last: 0 });
        self.names.push(1);
        BufferView { buffer, start: 0, rows, channels, row_stride: channels }
    }

    /// A step that copies an operand to a view of the same `physical` extents.
    pub(crate) fn copy(&mut self, from: &Operand, to: &BufferView, physical: &[usize]) {
        let info = StepInfo {
            operator: "layout change".into(),
            algorithm: "strided copy".into(),
            reason: "the next step wants rows without gaps, or this one cannot leave them".into(),
            shape: physical.to_vec(),
            ..StepInfo::default()
        };
        let (source, target, extents) = (from.clone(), *to, physical.to_vec());
        self.push(info, &[from], &[to], move |env| {
            let (input, output) = (env.strided(&source, &extents)?, env.strided_mut(&target, &extents));
            planish_cpu::copy::copy(env.isa, env.pool, input, output);
            Ok(())
        });
    }

    /// A copy of an operand whose rows follow each other without gaps.
    pub(crate) fn dense_copy(&mut self, from: &Operand, physical: &[usize]) -> Result<Operand> {
        let channels = physical.last().copied().unwrap_or(1);
        let rows = physical[..physical.len().saturating_sub(1)].iter().product();
        let view = self.new_buffer(rows, channels);
        self.copy(from, &view, physical);
        Ok(Operand::Buffer(view))
    }

    /// Scratch memory of `len` elements for the step pushed next.
    pub(crate) fn scratch(&mut self, len: usize) -> BufferView {
        self.new_buffer(1, len)
    }

    /// A place for output `v` in its layout: inside the concatenation that reads it, or of its own.
    pub(crate) fn output(&mut self, v: ValueId) -> Result<BufferView> {
        let layout = self.layout(v);
        let (rows, channels) = rows_of(layout, self.shape(v)?);
        let view = match self.placements.get(&v).copied() {
            Some(place) => {
                let (_, stride) = rows_of(Layout::ChannelsLast, self.shape(place.root)?);
                let buffer = self.root_buffer(place.root)?;
                self.names[buffer] += 1;
                BufferView { buffer, start: place.channel, rows, channels, row_stride: stride }
            }
            None if self.roots.contains_key(&v) => {
                let buffer = self.root_buffer(v)?;
                BufferView { buffer, start: 0, rows, channels, row_stride: channels }
            }
            None => self.new_buffer(rows, channels),
        };
        self.found.insert((v, layout), Operand::Buffer(view));
        Ok(view)
    }

    fn root_buffer(&mut self, root: ValueId) -> Result<usize> {
        if let Some(&buffer) = self.roots.get(&root) {
            return Ok(buffer);
        }
        let (rows, channels) = rows_of(Layout::ChannelsLast, self.shape(root)?);
        let buffer = self.new_buffer(rows, channels).buffer;
        self.names[buffer] += 1;
        self.roots.insert(root, buffer);
        Ok(buffer)
    }

    /// A place for output `v` of an elementwise step: over `input`, where that is read for the last time here and has the
    /// same rows, otherwise [`Self::output`].
    pub(crate) fn output_over(&mut self, v: ValueId, input: ValueId) -> Result<BufferView> {
        let layout = self.layout(v);
        let placed = self.placements.contains_key(&v) || self.roots.contains_key(&v);
        let last_use = self.last_reader[input.0 as usize] == self.node_index;
        let (rows, channels) = rows_of(layout, self.shape(v)?);
        if let (false, true, Some(Operand::Buffer(view))) =
            (placed, last_use, self.found.get(&(input, layout)))
        {
            let view = *view;
            if self.names[view.buffer] == 1
                && (view.rows, view.channels) == (rows, channels)
                && view.is_dense()
            {
                self.found.insert((v, layout), Operand::Buffer(view));
                return Ok(view);
            }
        }
        self.output(v)
    }

    /// Makes `v` another name of an operand's memory.
    pub(crate) fn alias(&mut self, v: ValueId, layout: Layout, operand: Operand) {
        if let Operand::Buffer(view) = &operand {
            self.names[view.buffer] += 1;
        }
        self.layouts[v.0 as usize] = layout;
        self.found.insert((v, layout), operand);
    }

    /// A slot for an output whose type or shape is not for the arena.
    fn heap_output(&mut self, v: ValueId) -> usize {
        let slot = self.heap_slots;
        self.heap_slots += 1;
        self.found.insert((v, Layout::Plain), Operand::Heap(slot));
        slot
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
            reason: reason.to_string(),
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

    fn graph_output(&mut self, index: usize, v: ValueId) -> Result<()> {
        let layout = self.layout(v);
        let operand = self.operand(v, layout)?;
        let shape = self.fact(v).and_then(|f| f.shape.clone());
        let info = StepInfo {
            node: self.graph.value(v).name.clone(),
            operator: "output".into(),
            algorithm: "copy".into(),
            reason: "results are handed over as ONNX has them".into(),
            shape: shape.clone().unwrap_or_default(),
            macs: 0,
        };
        let from = operand.clone();
        self.push(info, &[&operand], &[], move |env| {
            let tensor = match (layout, &shape) {
                (Layout::ChannelsLast, Some(shape)) => {
                    let rows = env.rows(&from)?;
                    let mut tensor = Tensor::zeros(DType::F32, shape)?;
                    let target = tensor.as_mut_slice::<f32>()?;
                    planish_cpu::copy::to_channels_first(env.isa, env.pool, shape[0], rows, target);
                    tensor
                }
                _ => env.tensor(&from, shape.as_deref())?,
            };
            env.outputs[index] = Some(tensor);
            Ok(())
        });
        Ok(())
    }
}

/// A constant with its channels last.
fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    let shape = tensor.shape();
    let (images, channels) = (shape[0], shape[1]);
    let pixels: usize = shape[2..].iter().product();
    let source = tensor.as_slice::<f32>()?;
    let mut out = Tensor::zeros(DType::F32, &Layout::ChannelsLast.physical(shape))?;
    let target = out.as_mut_slice::<f32>()?;
    for n in 0..images {
        for c in 0..channels {
            for p in 0..pixels {
                target[(n * pixels + p) * channels + c] = source[(n * channels + c) * pixels + p];
            }
        }
    }
    Ok(out)
}
