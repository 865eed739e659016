//! Models as an exporter would write them, message by message.

use crate::wire::Message;

/// `ModelProto` of `graph` in opset 21 with `functions`.
pub(crate) fn model(graph: Message, functions: Vec<Message>) -> Vec<u8> {
    model_of_opset(21, graph, functions)
}

/// `ModelProto` of `graph` in any opset.
pub(crate) fn model_of_opset(version: i64, graph: Message, functions: Vec<Message>) -> Vec<u8> {
    let mut model = Message::new();
    model.int(1, 10);
    model.message(7, graph);
    model.message(8, opset("", version));
    model.message(8, opset("local", 1));
    functions.into_iter().for_each(|f| model.message(25, f));
    model.to_bytes()
}

pub(crate) fn opset(domain: &str, version: i64) -> Message {
    let mut message = Message::new();
    message.text(1, domain);
    message.int(2, version);
    message
}

/// `NodeProto` without a name.
pub(crate) fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let mut message = Message::new();
    inputs.iter().for_each(|i| message.bytes(1, i.as_bytes()));
    outputs.iter().for_each(|o| message.bytes(2, o.as_bytes()));
    let (domain, op_type) = op_type.split_once("::").unwrap_or(("", op_type));
    message.text(4, op_type);
    message.text(7, domain);
    message
}

/// `node` with one more attribute: its name, the field of its content, its type, and the content.
pub(crate) fn with_graph(mut node: Message, name: &str, graph: Message) -> Message {
    let mut attribute = Message::new();
    attribute.text(1, name);
    attribute.message(6, graph);
    attribute.int(20, 5);
    node.message(5, attribute);
    node
}

pub(crate) fn with_float(mut node: Message, name: &str, value: f32) -> Message {
    let mut attribute = Message::new();
    attribute.text(1, name);
    attribute.float(2, value);
    attribute.int(20, 1);
    node.message(5, attribute);
    node
}

pub(crate) fn with_int(mut node: Message, name: &str, value: i64) -> Message {
    let mut attribute = Message::new();
    attribute.text(1, name);
    attribute.int(3, value);
    attribute.int(20, 2);
    node.message(5, attribute);
    node
}

pub(crate) fn with_reference(mut node: Message, name: &str, reference: &str) -> Message {
    let mut attribute = Message::new();
    attribute.text(1, name);
    attribute.int(20, 1);
    attribute.text(21, reference);
    node.message(5, attribute);
    node
}

/// `ValueInfoProto` of a tensor of f32, one extent a dimension.
pub(crate) fn value(name: &str, dims: &[i64]) -> Message {
    typed(name, 1, dims)
}

pub(crate) fn typed(name: &str, data_type: i64, dims: &[i64]) -> Message {
    let mut shape = Message::new();
    for &d in dims {
        let mut dim = Message::new();
        if d >= 0 {
            dim.int(1, d);
        } else {
            dim.text(2, "batch");
        }
        shape.message(1, dim);
    }
    let mut tensor = Message::new();
    tensor.int(1, data_type);
    tensor.message(2, shape);
    let mut kind = Message::new();
    kind.message(1, tensor);
    let mut message = Message::new();
    message.text(1, name);
    message.message(2, kind);
    message
}

/// `GraphProto` of nodes, inputs and outputs.
pub(crate) fn graph(nodes: Vec<Message>, inputs: Vec<Message>, outputs: Vec<Message>) -> Message {
    let mut message = Message::new();
    nodes.into_iter().for_each(|n| message.message(1, n));
    message.text(2, "main");
    inputs.into_iter().for_each(|i| message.message(11, i));
    outputs.into_iter().for_each(|o| message.message(12, o));
    message
}

/// `TensorProto` of that name and content.
pub(crate) fn constant(name: &str, tensor: &planish_graph::Tensor) -> Message {
    let mut message = Message::new();
    tensor.shape().iter().for_each(|&d| message.int(1, d as i64));
    message.int(2, tensor.dtype().onnx_code());
    message.text(8, name);
    message.bytes(9, &tensor.packed());
    message
}

/// `graph` with one more constant.
pub(crate) fn with_initializer(mut graph: Message, tensor: Message) -> Message {
    graph.message(5, tensor);
    graph
}

/// `FunctionProto` of domain "local".
pub(crate) fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: Vec<Message>) -> Message {
    let mut message = Message::new();
    message.text(1, name);
    inputs.iter().for_each(|i| message.text(4, i));
    outputs.iter().for_each(|o| message.text(5, o));
    nodes.into_iter().for_each(|n| message.message(7, n));
    message.message(9, opset("", 21));
    message.message(9, opset("local", 1));
    message.text(10, "local");
    message
}
