//! A graph as the messages of ONNX.
//!
//! Names are kept. Inside a nested graph, what stands for a value of the graph around it takes that value's name again,
//! and a name that the graphs around use for something else is changed, since ONNX sees all of them at once.

use crate::attribute;
use crate::lower;
use crate::opset;
use crate::tensor;
use crate::wire::Message;
use crate::write::WriteOptions;
use planish_graph::attributes::SubGraph;
use planish_graph::error::Context;
use planish_graph::infer::infer;
use planish_graph::ops::WRITTEN_OPSET;
use planish_graph::{Attribute, DType, Dim, Fact, Graph, Node, Result, Tensor, Value, ValueId, invalid};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;

/// The version of ONNX's file format that belongs to the opset that is written.
const IR_VERSION: i64 = 10;

/// Tensors from this size on start on a page of the weights file, so that readers may map them.
const PAGED: usize = 1 << 20;

/// `ModelProto` of `graph`. Large constants go to `weights`, where given.
pub(crate) fn model(
    graph: &Graph,
    options: &WriteOptions,
    weights: Option<&mut WeightsFile>,
) -> Result<Message> {
    graph.validate()?;
    let mut exporter = Exporter {
        weights,
        portable: options.portable,
        names: Names::default(),
        opset: WRITTEN_OPSET,
        ir_version: IR_VERSION,
        domains: BTreeMap::new(),
    };
    let body = exporter.graph(graph, &BTreeMap::new(), 0)?;
    let mut message = Message::new();
    message.int(1, exporter.ir_version);
    message.text(2, "planish");
    message.text(3, env!("CARGO_PKG_VERSION"));
    message.text(6, &graph.doc);
    message.message(7, body);
    message.message(8, import("", exporter.opset));
    for (domain, version) in exporter.domains {
        message.message(8, import(domain, version));
    }
    for (key, value) in &graph.metadata {
        message.message(14, entry(key, value));
    }
    Ok(message)
}

fn import(domain: &str, version: i64) -> Message {
    let mut message = Message::new();
    message.text(1, domain);
    message.int(2, version);
    message
}

fn entry(key: &str, value: &str) -> Message {
    let mut message = Message::new();
    message.text(1, key);
    message.text(2, value);
    message
}

/// The file beside the model that takes its weights.
#[derive(Debug)]
pub(crate) struct WeightsFile {
    name: String,
    smallest: usize,
    pieces: Vec<(u64, Tensor)>,
    length: u64,
}

impl WeightsFile {
    /// An empty one, for tensors of at least `smallest` bytes.
    pub(crate) fn new(name: &str, smallest: usize) -> WeightsFile {
        WeightsFile { name: name.to_string(), smallest, pieces: Vec::new(), length: 0 }
    }
    /// Its name, beside the model.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
    /// `TensorProto` that refers to a place in this file.
    fn add(&mut self, name: &str, tensor: &Tensor) -> Message {
        let bytes = tensor.packed().len();
        let offset = self.length.next_multiple_of(if bytes >= PAGED { 4096 } else { 64 });
        self.pieces.push((offset, tensor.clone()));
        self.length = offset + bytes as u64;
        let mut message = tensor::header(name, tensor);
        message.message(13, entry("location", &self.name));
        message.message(13, entry("offset", &offset.to_string()));
        message.message(13, entry("length", &bytes.to_string()));
        message.int(14, 1);
        message
    }
    /// Writes its content.
    pub(crate) fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut position = 0u64;
        for (offset, tensor) in &self.pieces {
            out.write_all(&vec![0; (offset - position) as usize])?;
            let bytes = tensor.packed();
            out.write_all(&bytes)?;
            position = offset + bytes.len() as u64;
        }
        Ok(())
    }
}

/// Names in use by the graphs that are being written, from the outermost in.
#[derive(Debug, Default)]
struct Names {
    taken: HashSet<String>,
    constants: HashMap<String, Tensor>,
}

impl Names {
    /// `wish`, or `wish` with a number, taken from now on.
    fn take(&mut self, wish: &str) -> String {
        let mut name = wish.to_string();
        let mut number = 0;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = format!("{wish}_{number}");
        }
        name
    }
}

struct Exporter<'w> {
    weights: Option<&'w mut WeightsFile>,
    portable: bool,
    names: Names,
    opset: i64,
    ir_version: i64,
    /// Domains other than the standard one, with the versions that their operators need.
    domains: BTreeMap<&'static str, i64>,
}

impl Exporter<'_> {
    /// `GraphProto` of `graph`, whose values in `captured` stand for values of those names around it.
    fn graph(
        &mut self,
        graph: &Graph,
        captured: &BTreeMap<ValueId, String>,
        depth: usize,
    ) -> Result<Message> {
        let lowered = if self.portable { lower::to_standard(graph)? } else { None };
        let graph = lowered.as_ref().unwrap_or(graph);
        let mut own = Vec::new();
        let mut known = Vec::new();
        let names: Vec<String> = (0..graph.values.len())
            .map(|index| {
                let id = ValueId(index as u32);
                if let Some(name) = captured.get(&id) {
                    return name.clone();
                }
                let value = graph.value(id);
                if let Some(tensor) = &value.constant
                    && self.names.constants.get(&value.name) == Some(tensor)
                {
                    known.push(id);
                    return value.name.clone();
                }
                let name = self.names.take(&value.name);
                own.push(name.clone());
                if let Some(tensor) = &value.constant {
                    self.names.constants.insert(name.clone(), tensor.clone());
                }
                name
            })
            .collect();
        let known: HashSet<ValueId> = known.into_iter().collect();
        graph.values.iter().filter_map(|value| value.dtype).for_each(|dtype| self.note_type(dtype));
        let mut message = Message::new();
        for node in &graph.nodes {
            let written = self.node(node, &names, depth).context(|| node.place())?;
            message.message(1, written);
        }
        message.text(2, if graph.name.is_empty() { "graph" } else { &graph.name });
        for (id, value) in ids(graph) {
            if let (Some(tensor), false) = (&value.constant, known.contains(&id)) {
                message.message(5, self.initializer(&names[id.0 as usize], tensor));
            }
        }
        if depth > 0 {
            message.text(10, &graph.doc);
        }
        for id in graph.inputs.iter().filter(|id| !captured.contains_key(id)) {
            message.message(11, value_info(graph.value(*id), &names[id.0 as usize]));
        }
        let output_types = if depth == 0 { output_types(graph)? } else { vec![None; graph.outputs.len()] };
        for (id, dtype) in graph.outputs.iter().zip(output_types) {
            let value = graph.value(*id);
            let typed =
                Value { dtype: value.dtype.or(dtype), shape: value.shape.clone(), ..Value::default() };
            message.message(12, value_info(&typed, &names[id.0 as usize]));
        }
        let listed: HashSet<ValueId> = graph.inputs.iter().chain(&graph.outputs).copied().collect();
        for (id, value) in ids(graph) {
            if value.constant.is_none() && value.dtype.is_some() && !listed.contains(&id) {
                message.message(13, value_info(value, &names[id.0 as usize]));
            }
        }
        for name in own {
            self.names.taken.remove(&name);
            self.names.constants.remove(&name);
        }
        Ok(message)
    }

    /// Takes the versions that have elements of this type.
    fn note_type(&mut self, dtype: DType) {
        let (opset, ir_version) = opset::of_type(dtype);
        self.opset = self.opset.max(opset);
        self.ir_version = self.ir_version.max(ir_version);
    }

    fn initializer(&mut self, name: &str, tensor: &Tensor) -> Message {
        match &mut self.weights {
            Some(file) if tensor.bytes().len() >= file.smallest => file.add(name, tensor),
            _ => tensor::message(name, tensor),
        }
    }

    fn node(&mut self, node: &Node, names: &[String], depth: usize) -> Result<Message> {
        let attributes = node.op.attributes();
        let captured: usize = attributes.0.values().filter_map(nested).map(SubGraph::captured).sum();
        let Some(own_inputs) = node.inputs.len().checked_sub(captured) else {
            invalid!("lists fewer inputs than its graphs capture");
        };
        let (own, outer) = node.inputs.split_at(own_inputs);
        let name = |id: &Option<ValueId>| id.map_or("", |id| names[id.0 as usize].as_str());
        let mut message = Message::new();
        let given = own.iter().rposition(|i| i.is_some()).map_or(0, |last| last + 1);
        own[..given].iter().for_each(|i| message.bytes(1, name(i).as_bytes()));
        node.outputs.iter().for_each(|o| message.bytes(2, name(o).as_bytes()));
        message.text(3, &node.name);
        message.text(4, node.op.name());
        let mut outer = outer.iter().map(name);
        let mut graphs: BTreeMap<&str, Message> = BTreeMap::new();
        for (key, inner) in in_capture_order(&attributes.0) {
            let formal = inner.graph.inputs.iter().skip(inner.formal_inputs);
            let bound = formal.zip(outer.by_ref().take(inner.captured()));
            let bound = bound.map(|(id, name)| (*id, name.to_string())).collect();
            graphs.insert(key, self.graph(&inner.graph, &bound, depth + 1)?);
        }
        for (key, value) in &attributes.0 {
            if let Some(dtype) = attribute::named_type(key, value) {
                self.note_type(dtype);
            }
            message.message(5, attribute::message(key, value, graphs.remove(key.as_str())));
        }
        if node.op.domain().is_empty() {
            self.opset = self.opset.max(opset::needed(node.op.name(), &attributes));
        } else {
            let domain = node.op.domain();
            let version = self.domains.entry(domain).or_insert(1);
            *version = (*version).max(opset::needed_of(domain, node.op.name(), &attributes));
            message.text(7, domain);
        }
        Ok(message)
    }
}

fn ids(graph: &Graph) -> impl Iterator<Item = (ValueId, &Value)> {
    graph.values.iter().enumerate().map(|(i, value)| (ValueId(i as u32), value))
}

fn nested(attribute: &Attribute) -> Option<&SubGraph> {
    match attribute {
        Attribute::Graph(inner) => Some(inner),
        _ => None,
    }
}

/// The nested graphs among `attributes`, in the order in which nodes list what they capture.
fn in_capture_order(attributes: &BTreeMap<String, Attribute>) -> Vec<(&str, &SubGraph)> {
    let mut graphs: Vec<(&str, &SubGraph)> =
        attributes.iter().filter_map(|(key, value)| Some((key.as_str(), nested(value)?))).collect();
    graphs.sort_by_key(|(name, _)| crate::import::capture_order(name));
    graphs
}

/// `ValueInfoProto` of a value, as far as its type is declared.
fn value_info(value: &Value, name: &str) -> Message {
    let mut message = Message::new();
    message.text(1, name);
    let Some(dtype) = value.dtype else {
        return message;
    };
    let mut tensor = Message::new();
    tensor.int(1, dtype.onnx_code());
    if let Some(dims) = &value.shape {
        let mut shape = Message::new();
        for dim in dims {
            let mut extent = Message::new();
            match dim {
                Dim::Fixed(n) => extent.int(1, *n as i64),
                Dim::Symbol(s) => extent.text(2, s),
                Dim::Unknown => {}
            }
            shape.message(1, extent);
        }
        tensor.message(2, shape);
    }
    let mut kind = Message::new();
    kind.message(1, tensor);
    message.message(2, kind);
    message
}

/// The element types of the outputs, which ONNX wants stated, where the graph does not state them.
fn output_types(graph: &Graph) -> Result<Vec<Option<DType>>> {
    if graph.outputs.iter().all(|id| graph.value(*id).dtype.is_some()) {
        return Ok(vec![None; graph.outputs.len()]);
    }
    let inputs: Vec<Fact> = graph
        .inputs
        .iter()
        .filter_map(|id| {
            let value = graph.value(*id);
            let fixed = value.shape.as_ref().and_then(|dims| {
                dims.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None }).collect()
            });
            Some(Fact { dtype: value.dtype?, shape: fixed, value: None })
        })
        .collect();
    let facts = infer(graph, &inputs).context(|| "the types of the outputs")?;
    Ok(graph.outputs.iter().map(|id| facts[id.0 as usize].as_ref().map(|f| f.dtype)).collect())
}
