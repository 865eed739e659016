//! `AttributeProto` to and from [`Attribute`].

use crate::external::ExternalFiles;
use crate::proto::{AttributeProto, GraphProto};
use crate::tensor;
use crate::wire::{Message, floats, varints};
use planish_graph::{Attribute, DType, Error, Result, invalid, unsupported};

/// `AttributeProto.AttributeType`, as numbers.
pub(crate) mod kind {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const INT: i32 = 2;
    pub(crate) const STRING: i32 = 3;
    pub(crate) const TENSOR: i32 = 4;
    pub(crate) const GRAPH: i32 = 5;
    pub(crate) const FLOATS: i32 = 6;
    pub(crate) const INTS: i32 = 7;
    pub(crate) const STRINGS: i32 = 8;
}

/// An attribute's content; a nested graph is left to the caller.
#[derive(Debug)]
pub(crate) enum Content<'a, 'p> {
    /// Anything but a graph.
    Plain(Attribute),
    /// A graph.
    Graph(&'p GraphProto<'a>),
}

/// The content of `proto`. Files without a declared type (the oldest) say it by the content they bring.
pub(crate) fn content<'a, 'p>(
    proto: &'p AttributeProto<'a>,
    external: &mut ExternalFiles,
) -> Result<Content<'a, 'p>> {
    let kind = if proto.kind == 0 { guess(proto) } else { proto.kind };
    Ok(Content::Plain(match kind {
        kind::FLOAT => Attribute::Float(proto.float.unwrap_or_default()),
        kind::INT => Attribute::Int(proto.int.unwrap_or_default()),
        kind::STRING => Attribute::String(text(proto.text.unwrap_or_default())?),
        kind::FLOATS => Attribute::Floats(floats(&proto.floats)?),
        kind::INTS => Attribute::Ints(varints(&proto.ints)?),
        kind::STRINGS => Attribute::Strings(proto.texts.iter().map(|t| text(t)).collect::<Result<_>>()?),
        kind::TENSOR => match &proto.tensor {
            Some(inner) => Attribute::Tensor(tensor::tensor(inner, external)?),
            None => invalid!("the attribute says it is a tensor and brings none"),
        },
        kind::GRAPH => match &proto.graph {
            Some(graph) => return Ok(Content::Graph(graph)),
            None => invalid!("the attribute says it is a graph and brings none"),
        },
        9 | 10 => unsupported!("lists of tensors or graphs as an attribute are not supported"),
        11 | 12 => unsupported!("sparse tensors are not supported"),
        13 | 14 => unsupported!("types as an attribute are not supported"),
        other => invalid!("attribute type {other} is not one of ONNX"),
    }))
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::invalid("the text is not UTF-8"))
}

fn guess(proto: &AttributeProto<'_>) -> i32 {
    if proto.float.is_some() {
        kind::FLOAT
    } else if proto.int.is_some() {
        kind::INT
    } else if proto.text.is_some() {
        kind::STRING
    } else if proto.tensor.is_some() {
        kind::TENSOR
    } else if proto.graph.is_some() {
        kind::GRAPH
    } else if !proto.floats.is_empty() {
        kind::FLOATS
    } else if !proto.texts.is_empty() {
        kind::STRINGS
    } else {
        kind::INTS
    }
}

/// The element type that an attribute of this name and content names or brings, if any.
pub(crate) fn named_type(name: &str, attribute: &Attribute) -> Option<DType> {
    match attribute {
        Attribute::Int(code) if names_a_type(name) => DType::from_onnx_code(*code).ok(),
        Attribute::Tensor(tensor) => Some(tensor.dtype()),
        _ => None,
    }
}

/// Whether attributes of this name hold ONNX's number of an element type.
pub(crate) fn names_a_type(name: &str) -> bool {
    matches!(name, "to" | "dtype" | "output_dtype")
}

/// `AttributeProto` of an attribute; `graph` is the message of a nested one.
pub(crate) fn message(name: &str, attribute: &Attribute, graph: Option<Message>) -> Message {
    let mut message = Message::new();
    message.text(1, name);
    let kind = match attribute {
        Attribute::Int(value) => {
            message.int(3, *value);
            kind::INT
        }
        Attribute::Float(value) => {
            message.float(2, *value);
            kind::FLOAT
        }
        Attribute::String(value) => {
            message.bytes(4, value.as_bytes());
            kind::STRING
        }
        Attribute::Ints(values) => {
            values.iter().for_each(|v| message.int(8, *v));
            kind::INTS
        }
        Attribute::Floats(values) => {
            values.iter().for_each(|v| message.float(7, *v));
            kind::FLOATS
        }
        Attribute::Strings(values) => {
            values.iter().for_each(|v| message.bytes(9, v.as_bytes()));
            kind::STRINGS
        }
        Attribute::Tensor(value) => {
            message.message(5, tensor::message("", value));
            kind::TENSOR
        }
        Attribute::Graph(_) => {
            message.message(6, graph.unwrap_or_default());
            kind::GRAPH
        }
    };
    message.int(20, i64::from(kind));
    message
}
