//! Small graphs built from choices: operators of the table on values that fit them, most of the time.

use crate::operands::{self, Wanted};
use crate::source::{Source, noise};
use planish_graph::infer::infer_node;
use planish_graph::ops::{NodeReader, OperatorEntry, read_operator, table};
use planish_graph::{Attributes, DType, Dim, Fact, Graph, Node, Tensor, Value, ValueId};
use std::collections::{BTreeMap, HashSet};

/// A graph and the shapes of its inputs.
#[derive(Clone, Debug)]
pub struct Model {
    /// The graph; valid by construction.
    pub graph: Graph,
    /// A shape for each input.
    pub shapes: Vec<Vec<usize>>,
}

/// The operators that have kernels, which get half of the nodes.
const FAVOURITES: &[&str] = &[
    "Conv",
    "ConvAdd",
    "ConvTranspose",
    "MaxPool",
    "AveragePool",
    "LpPool",
    "GlobalAveragePool",
    "Concat",
    "Slice",
    "Split",
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Expand",
    "Resize",
    "Pad",
    "Gemm",
    "MatMul",
    "Softmax",
    "LogSoftmax",
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceL2",
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "Add",
    "Mul",
    "Sub",
    "Div",
    "Clip",
    "PRelu",
    "Relu",
    "Sigmoid",
    "Pow",
    "Max",
    "DepthToSpace",
    "SpaceToDepth",
    "ChannelShuffle",
    "Identity",
    "LRN",
    "Concat",
    "Conv",
    "Conv",
    "Split",
    "Slice",
    "Add",
    "HardSigmoid",
    "Gelu",
    "LeakyRelu",
    "Sqrt",
    "Where",
    "Gather",
    "Tile",
];

/// A graph in the making.
pub(crate) struct Builder {
    pub(crate) graph: Graph,
    facts: Vec<Fact>,
    shapes: Vec<Vec<usize>>,
}

/// The most elements a value of a generated graph may have.
const MOST_ELEMENTS: usize = 1 << 14;

/// The graph that the choices of `source` build.
pub fn generate(source: &mut Source<'_>) -> Model {
    let mut builder = Builder { graph: Graph::new("fuzz"), facts: Vec::new(), shapes: Vec::new() };
    for _ in 0..1 + source.below(3) {
        let dtype = if source.once_in(8) { source.pick(&DType::ALL) } else { DType::F32 };
        let rank = source.pick(&[4, 4, 3, 5, 4, 2, 1, 0, 6, 4]);
        let shape: Vec<usize> =
            (0..rank).map(|_| source.pick(&[1, 2, 3, 4, 5, 6, 8, 16, 17, 2, 3, 4, 7, 0])).collect();
        builder.input(source, dtype, &shape);
    }
    for n in 0..1 + source.below(12) {
        if source.is_empty() {
            break;
        }
        builder.node(source, n);
    }
    builder.finish(source)
}

impl Builder {
    /// What is known of a value.
    pub(crate) fn fact(&self, v: ValueId) -> &Fact {
        &self.facts[v.0 as usize]
    }

    /// Adds an input, whose extents are now and then symbols.
    fn input(&mut self, source: &mut Source<'_>, dtype: DType, shape: &[usize]) -> Option<ValueId> {
        let shape = if small(shape) { shape } else { &[2, 3] };
        let name = format!("x{}", self.graph.values.len());
        let symbol = source.once_in(4);
        let dims: Vec<Dim> = shape
            .iter()
            .enumerate()
            .map(|(i, &d)| if symbol && i != 1 { Dim::Symbol(format!("{name}_{i}")) } else { Dim::Fixed(d) })
            .collect();
        let id = self.graph.add_input(&name, dtype, &dims);
        self.facts.push(Fact::new(dtype, shape));
        self.shapes.push(shape.to_vec());
        Some(id)
    }

    /// Adds a constant.
    pub(crate) fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.facts.push(Fact::constant(&tensor));
        let name = format!("c{}", self.graph.values.len());
        self.graph.add_constant(&name, tensor)
    }

    /// A constant of noise, or now and then an input: what serves as weights.
    pub(crate) fn weights(
        &mut self,
        source: &mut Source<'_>,
        dtype: DType,
        shape: &[usize],
    ) -> Option<ValueId> {
        if !small(shape) {
            return None;
        }
        if source.once_in(12) {
            return self.input(source, dtype, shape);
        }
        let tensor = noise(dtype, shape, source.byte() as u64)?;
        Some(self.constant(tensor))
    }

    /// A list of whole numbers, constant.
    pub(crate) fn list(&mut self, values: &[i64]) -> Option<ValueId> {
        Some(self.constant(Tensor::from_i64s(values).ok()?))
    }

    /// Some value, rather a late one; of that type and shape where there is one.
    pub(crate) fn some(&self, source: &mut Source<'_>, like: impl Fn(&Fact) -> bool) -> ValueId {
        let fits: Vec<u32> =
            (0..self.facts.len() as u32).rev().filter(|&v| like(&self.facts[v as usize])).collect();
        match fits.is_empty() {
            true => ValueId(source.below(self.facts.len()) as u32),
            false => ValueId(fits[source.pick(&[0, 0, 1, 2, 3, 5, 8]) % fits.len()]),
        }
    }

    /// Adds a node where its operator takes what it was given.
    fn node(&mut self, source: &mut Source<'_>, n: usize) {
        let name = if source.once_in(3) { None } else { Some(source.pick(FAVOURITES)) };
        let entry = match name {
            Some(name) => table().iter().find(|e| e.name == name).copied(),
            None => table().get(source.byte() as usize % table().len()).copied(),
        };
        let Some(entry) = entry else { return };
        let before = (self.graph.clone(), self.facts.len(), self.shapes.len());
        if self.try_node(source, entry, n).is_none() {
            self.graph = before.0;
            self.facts.truncate(before.1);
            self.shapes.truncate(before.2);
        }
    }

    fn try_node(&mut self, source: &mut Source<'_>, entry: &OperatorEntry, n: usize) -> Option<()> {
        let Wanted { attributes, inputs, outputs } = operands::choose(self, source, entry.name)?;
        let mut reader = NodeReader {
            op_type: entry.name.to_string(),
            domain: entry.domain.to_string(),
            opset: if source.once_in(8) { source.pick(&[7, 9, 11, 13, 18]) } else { 21 },
            attributes,
            input_count: inputs.len(),
            output_count: outputs,
            constant_inputs: BTreeMap::new(),
            added_inputs: BTreeMap::new(),
            keep_inputs: None,
            moved_inputs: BTreeMap::new(),
        };
        for (i, v) in inputs.iter().enumerate() {
            if let Some(tensor) = v.and_then(|v| self.graph.constant(v)) {
                reader.constant_inputs.insert(i, tensor.clone());
            }
        }
        let op = read_operator(&mut reader).ok()?;
        let mut given = inputs.clone();
        given.truncate(reader.keep_inputs.unwrap_or(inputs.len()));
        for (to, from) in reader.moved_inputs {
            given.resize(given.len().max(to + 1), None);
            given[to] = *inputs.get(from)?;
        }
        for (to, tensor) in reader.added_inputs {
            given.resize(given.len().max(to + 1), None);
            given[to] = Some(self.constant(tensor));
        }
        let wanted = outputs.clamp(op.arity().min_outputs, op.arity().max_outputs.max(1));
        let mut node = Node { name: format!("n{n}"), op, inputs: given, outputs: vec![None; wanted] };
        node.op.arity().check(&node.inputs, &node.outputs).ok()?;
        let facts: Vec<Option<Fact>> = node.inputs.iter().map(|i| i.map(|i| self.fact(i).clone())).collect();
        let found = infer_node(&node, &facts).ok()?;
        if !found.iter().all(|f| f.shape().is_none_or(small)) {
            return None;
        }
        for (output, fact) in node.outputs.iter_mut().zip(found) {
            let name = format!("v{}", self.graph.values.len());
            *output = Some(self.graph.add_value(Value { name, ..Value::default() }));
            // What is known of the content is for the engine to find.
            self.facts.push(Fact { value: None, ..fact });
        }
        self.graph.nodes.push(node);
        Some(())
    }

    /// What nobody reads becomes an output, and now and then what somebody reads.
    fn finish(mut self, source: &mut Source<'_>) -> Model {
        let read: HashSet<ValueId> =
            self.graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied()).collect();
        let made: Vec<ValueId> =
            self.graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        self.graph.outputs = made.iter().copied().filter(|v| !read.contains(v)).collect();
        for _ in 0..source.pick(&[0, 0, 0, 1, 2]) {
            let extra = ValueId(source.below(self.graph.values.len()) as u32);
            if !self.graph.outputs.contains(&extra) {
                self.graph.outputs.push(extra);
            }
        }
        Model { graph: self.graph, shapes: self.shapes }
    }
}

/// Whether a shape has few enough elements to compute with.
pub(crate) fn small(shape: &[usize]) -> bool {
    planish_graph::limits::element_count(shape).is_ok_and(|n| n <= MOST_ELEMENTS)
}

/// No attributes and these inputs.
pub(crate) fn plain(inputs: &[ValueId]) -> Wanted {
    Wanted { attributes: Attributes::new(), inputs: inputs.iter().map(|&i| Some(i)).collect(), outputs: 1 }
}
