//! What a model asks for, without reading it into a graph: for reports about models that planish does not run.

use crate::attribute::names_a_type;
use crate::opset::{standard_domain, versions};
use crate::proto::{Decoder, GraphProto, ModelProto, NodeProto, TypeProto};
use crate::read::ReadOptions;
use crate::tensor;
use crate::wire::Allowance;
use planish_graph::Result;
use std::collections::{BTreeMap, BTreeSet};

/// What a model asks for, nested graphs and functions included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// The version of ONNX's file format.
    pub ir_version: i64,
    /// The opset version of each domain, the standard one being "".
    pub opsets: BTreeMap<String, i64>,
    /// How many nodes there are of each operator, by domain and type; calls of the model's own functions are not
    /// counted, the nodes of those functions are.
    pub operators: BTreeMap<(String, String), usize>,
    /// The element types and kinds of values that appear: "f32", "string", "sequence" …
    pub types: BTreeSet<String>,
    /// How many inputs must be given, by the caller or with the model.
    pub inputs: usize,
}

/// What the ONNX model `bytes` asks for.
pub fn survey(bytes: &[u8], options: &ReadOptions) -> Result<Survey> {
    let allowance = Allowance::new(options.max_items);
    let model = ModelProto::decode(bytes, Decoder::new(&allowance))?;
    let mut survey = Survey {
        ir_version: model.ir_version,
        opsets: versions(&model.opsets).into_iter().collect(),
        inputs: model.graph.as_ref().map_or(0, |g| g.inputs.len()),
        ..Survey::default()
    };
    if let Some(graph) = &model.graph {
        survey.graph(graph);
    }
    for function in &model.functions {
        survey.nodes(&function.nodes);
    }
    for function in &model.functions {
        let key = (standard_domain(function.domain).to_string(), function.name.to_string());
        survey.operators.remove(&key);
    }
    Ok(survey)
}

impl Survey {
    fn graph(&mut self, graph: &GraphProto<'_>) {
        for info in graph.inputs.iter().chain(&graph.outputs).chain(&graph.value_info) {
            match &info.kind {
                TypeProto::Tensor(data_type, _) => self.data_type(*data_type),
                TypeProto::Other(what) => {
                    self.types.insert(what.to_string());
                }
                TypeProto::Missing => {}
            }
        }
        for initializer in &graph.initializers {
            self.data_type(initializer.data_type);
        }
        if graph.sparse_initializers > 0 {
            self.types.insert("sparse tensor".to_string());
        }
        self.nodes(&graph.nodes);
    }

    fn nodes(&mut self, nodes: &[NodeProto<'_>]) {
        for node in nodes {
            let key = (standard_domain(node.domain).to_string(), node.op_type.to_string());
            *self.operators.entry(key).or_default() += 1;
            for attribute in &node.attributes {
                if let Some(tensor) = &attribute.tensor {
                    self.data_type(tensor.data_type);
                }
                if let Some(graph) = &attribute.graph {
                    self.graph(graph);
                }
                if let (true, Some(data_type)) = (names_a_type(attribute.name), attribute.int) {
                    self.data_type(data_type as i32);
                }
                if matches!(attribute.name, "value_string" | "value_strings") {
                    self.types.insert("string".to_string());
                }
                if attribute.name == "sparse_value" {
                    self.types.insert("sparse tensor".to_string());
                }
            }
        }
    }

    fn data_type(&mut self, data_type: i32) {
        let name = match tensor::dtype(data_type) {
            Ok(dtype) => dtype.name(),
            Err(_) => match tensor::other_type_name(data_type) {
                Some(name) => name,
                None => return,
            },
        };
        self.types.insert(name.to_string());
    }
}
