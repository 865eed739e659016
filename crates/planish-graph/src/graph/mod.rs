//! The graph: values (edges), nodes (operators applied), constants, inputs and outputs.
//!
//! Values and nodes live in two lists and name each other by index, so a graph is cheap to copy and to rewrite. Nodes
//! stand in an order in which every value is made before it is used; [`Graph::sort`] restores that order after a
//! rewrite and [`Graph::validate`] checks it, with everything else that the engine relies on.

mod edit;
#[cfg(test)]
mod tests;
mod text;
mod validate;

use crate::error::{Error, Result};
use crate::ops::Operator;
use crate::tensor::{DType, Tensor};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Names a value of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Names a node of one graph, by its place in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// One extent of a value's declared shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known.
    Fixed(usize),
    /// Named ("batch"): equal names are equal extents, resolved when a plan is made.
    Symbol(String),
    /// Not stated.
    Unknown,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Symbol(s) => f.write_str(s),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// An edge of the graph.
#[derive(Clone, Debug, Default)]
pub struct Value {
    /// Unique within the graph.
    pub name: String,
    /// The declared element type, if any. Always there for graph inputs.
    pub dtype: Option<DType>,
    /// The declared shape, if any.
    pub shape: Option<Vec<Dim>>,
    /// Its content, where it is a constant.
    pub constant: Option<Tensor>,
}

/// An operator applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// For people: errors, profiles, Netron. Not necessarily unique.
    pub name: String,
    /// What is computed.
    pub op: Arc<dyn Operator>,
    /// What it reads; `None` where an optional input is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// What it makes; `None` where an optional output is not wanted.
    pub outputs: Vec<Option<ValueId>>,
}

impl Node {
    /// "node \"name\" (Operator)", for errors.
    pub fn place(&self) -> String {
        format!("node \"{}\" ({})", self.name, self.op.name())
    }
    /// The first output.
    pub fn output(&self) -> Option<ValueId> {
        self.outputs.first().copied().flatten()
    }
    /// The input at `index`, where given.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }
}

/// What is computed. See the module.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// For people.
    pub name: String,
    /// For people.
    pub doc: String,
    /// Every edge; index with [`ValueId`] through [`Graph::value`].
    pub values: Vec<Value>,
    /// Every operator application, makers before users.
    pub nodes: Vec<Node>,
    /// Values that the caller gives.
    pub inputs: Vec<ValueId>,
    /// Values that the caller gets.
    pub outputs: Vec<ValueId>,
    /// Key–value pairs that travel with the model (ONNX `metadata_props`).
    pub metadata: BTreeMap<String, String>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Graph {
        Graph { name: name.to_string(), ..Graph::default() }
    }
    /// The value that `id` names. Panics on an id of another graph.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }
    /// The value that `id` names, for changing it.
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.0 as usize]
    }
    /// The content of `id`, where it is a constant.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.value(id).constant.as_ref()
    }
    /// Adds a value. An empty or taken name is replaced by a fresh one only by [`Graph::fresh_name`]'s callers; here the
    /// caller answers for uniqueness, and [`Graph::validate`] checks it.
    pub fn add_value(&mut self, value: Value) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.values.push(value);
        id
    }
    /// Adds an input of a type and shape.
    pub fn add_input(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> ValueId {
        let id = self.add_value(Value {
            name: name.to_string(),
            dtype: Some(dtype),
            shape: Some(shape.to_vec()),
            constant: None,
        });
        self.inputs.push(id);
        id
    }
    /// Adds a constant.
    pub fn add_constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.add_value(Value {
            name: name.to_string(),
            dtype: Some(tensor.dtype()),
            shape: Some(tensor.shape().iter().map(|&d| Dim::Fixed(d)).collect()),
            constant: Some(tensor),
        })
    }
    /// Adds a node with one output of the node's name and returns that output.
    pub fn add_node(&mut self, name: &str, op: impl Operator, inputs: &[ValueId]) -> ValueId {
        let output = self.add_value(Value { name: name.to_string(), ..Value::default() });
        self.nodes.push(Node {
            name: name.to_string(),
            op: Arc::new(op),
            inputs: inputs.iter().map(|&i| Some(i)).collect(),
            outputs: vec![Some(output)],
        });
        output
    }
    /// The value of that name.
    pub fn find_value(&self, name: &str) -> Option<ValueId> {
        self.values.iter().position(|v| v.name == name).map(|i| ValueId(i as u32))
    }
    /// The input of that name, or an error that lists the inputs there are.
    pub fn find_input(&self, name: &str) -> Result<ValueId> {
        let found = self.inputs.iter().copied().find(|&i| self.value(i).name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.inputs.iter().map(|&i| self.value(i).name.as_str()).collect();
            Error::invalid(format!("no input is named \"{name}\"; the inputs are {names:?}"))
        })
    }
    /// For each value, the node that makes it and which of its outputs it is.
    pub fn producers(&self) -> Vec<Option<(NodeId, usize)>> {
        let mut makers = vec![None; self.values.len()];
        for (n, node) in self.nodes.iter().enumerate() {
            for (o, output) in node.outputs.iter().enumerate() {
                if let Some(v) = output {
                    makers[v.0 as usize] = Some((NodeId(n as u32), o));
                }
            }
        }
        makers
    }
    /// For each value, the nodes that read it, once for each time, in order.
    pub fn consumers(&self) -> Vec<Vec<NodeId>> {
        let mut users = vec![Vec::new(); self.values.len()];
        for (n, node) in self.nodes.iter().enumerate() {
            for v in node.inputs.iter().flatten() {
                users[v.0 as usize].push(NodeId(n as u32));
            }
        }
        users
    }
    /// Bytes of all constants, each counted once.
    pub fn constant_bytes(&self) -> usize {
        self.values.iter().filter_map(|v| v.constant.as_ref()).map(|t| t.bytes().len()).sum()
    }
}
