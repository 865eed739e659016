//! The messages of ONNX, decoded: what `onnx.proto` declares, as far as planish uses it.
//!
//! Everything borrows from the bytes of the file, so a model's weights are copied once, from the file's bytes to their
//! tensors. Lists of numbers stay encoded until someone wants them. Fields that are not listed here are skipped.

use crate::wire::{Allowance, Field, Reader};
use planish_graph::error::Context;
use planish_graph::{Error, Result, invalid};
use std::borrow::Cow;

/// How deep graphs may be nested in attributes of nodes of graphs.
const MOST_NESTED_GRAPHS: usize = 16;

/// What decoding carries along: the items left, and how deep graphs are nested.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder<'c> {
    allowance: &'c Allowance,
    depth: usize,
}

impl<'c> Decoder<'c> {
    pub(crate) fn new(allowance: &'c Allowance) -> Decoder<'c> {
        Decoder { allowance, depth: 0 }
    }
    fn push<T>(&self, list: &mut Vec<T>, item: T) -> Result<()> {
        self.allowance.take(1)?;
        list.push(item);
        Ok(())
    }
}

/// A key and a text, as in `metadata_props` and `external_data`.
pub(crate) type Entry<'a> = (&'a str, &'a str);

/// `ModelProto`.
#[derive(Debug, Default)]
pub(crate) struct ModelProto<'a> {
    pub ir_version: i64,
    pub opsets: Vec<(&'a str, i64)>,
    pub doc: &'a str,
    pub graph: Option<GraphProto<'a>>,
    pub metadata: Vec<Entry<'a>>,
    pub functions: Vec<FunctionProto<'a>>,
}

/// `GraphProto`.
#[derive(Debug, Default)]
pub(crate) struct GraphProto<'a> {
    pub name: &'a str,
    pub doc: &'a str,
    pub nodes: Vec<NodeProto<'a>>,
    pub initializers: Vec<TensorProto<'a>>,
    pub sparse_initializers: usize,
    pub inputs: Vec<ValueInfoProto<'a>>,
    pub outputs: Vec<ValueInfoProto<'a>>,
    pub value_info: Vec<ValueInfoProto<'a>>,
}

/// `FunctionProto`.
#[derive(Debug, Default)]
pub(crate) struct FunctionProto<'a> {
    pub name: &'a str,
    pub domain: &'a str,
    pub overload: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub defaults: Vec<AttributeProto<'a>>,
    pub nodes: Vec<NodeProto<'a>>,
    pub opsets: Vec<(&'a str, i64)>,
    pub value_info: Vec<ValueInfoProto<'a>>,
}

/// `NodeProto`.
#[derive(Debug, Default)]
pub(crate) struct NodeProto<'a> {
    pub name: &'a str,
    pub op_type: &'a str,
    pub domain: &'a str,
    pub overload: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub attributes: Vec<AttributeProto<'a>>,
}

/// `AttributeProto`: its declared type, and every content it brings.
#[derive(Debug, Default)]
pub(crate) struct AttributeProto<'a> {
    pub name: &'a str,
    pub reference: &'a str,
    pub kind: i32,
    pub float: Option<f32>,
    pub int: Option<i64>,
    pub text: Option<&'a [u8]>,
    pub tensor: Option<Box<TensorProto<'a>>>,
    pub graph: Option<Box<GraphProto<'a>>>,
    pub floats: Cow<'a, [u8]>,
    pub ints: Cow<'a, [u8]>,
    pub texts: Vec<&'a [u8]>,
}

/// `TensorProto`.
#[derive(Debug, Default)]
pub(crate) struct TensorProto<'a> {
    pub name: &'a str,
    pub dims: Cow<'a, [u8]>,
    pub data_type: i32,
    pub raw: Option<&'a [u8]>,
    pub floats: Cow<'a, [u8]>,
    pub doubles: Cow<'a, [u8]>,
    pub int32s: Cow<'a, [u8]>,
    pub int64s: Cow<'a, [u8]>,
    pub uint64s: Cow<'a, [u8]>,
    pub external: Vec<Entry<'a>>,
    pub location: i32,
    pub segmented: bool,
}

/// `ValueInfoProto`.
#[derive(Debug, Default)]
pub(crate) struct ValueInfoProto<'a> {
    pub name: &'a str,
    pub kind: TypeProto<'a>,
}

/// `TypeProto`.
#[derive(Debug, Default)]
pub(crate) enum TypeProto<'a> {
    /// Nothing is stated.
    #[default]
    Missing,
    /// A tensor of this data type and, where stated, shape.
    Tensor(i32, Option<Vec<DimProto<'a>>>),
    /// Something else: "sequence", "map", "optional", "sparse tensor", "opaque".
    Other(&'static str),
}

/// `TensorShapeProto.Dimension`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DimProto<'a> {
    Value(i64),
    Symbol(&'a str),
    Unknown,
}

/// Calls `visit` for every field of a message.
fn each<'a>(bytes: &'a [u8], mut visit: impl FnMut(u32, Field<'a>) -> Result<()>) -> Result<()> {
    for field in Reader::new(bytes) {
        let (number, field) = field?;
        visit(number, field)?;
    }
    Ok(())
}

fn entry(bytes: &[u8]) -> Result<Entry<'_>> {
    let mut entry = ("", "");
    each(bytes, |number, field| {
        match number {
            1 => entry.0 = field.text()?,
            2 => entry.1 = field.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(entry)
}

fn opset(bytes: &[u8]) -> Result<(&str, i64)> {
    let mut opset = ("", 0);
    each(bytes, |number, field| {
        match number {
            1 => opset.0 = field.text()?,
            2 => opset.1 = field.int()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(opset)
}

impl<'a> ModelProto<'a> {
    /// The model in `bytes`.
    pub(crate) fn decode(bytes: &'a [u8], decoder: Decoder<'_>) -> Result<ModelProto<'a>> {
        let mut model = ModelProto::default();
        each(bytes, |number, field| {
            match number {
                1 => model.ir_version = field.int()?,
                6 => model.doc = field.text()?,
                7 if model.graph.is_some() => invalid!("the model has two graphs"),
                7 => model.graph = Some(GraphProto::decode(field.bytes()?, decoder)?),
                8 => decoder.push(&mut model.opsets, opset(field.bytes()?)?)?,
                14 => decoder.push(&mut model.metadata, entry(field.bytes()?)?)?,
                25 => {
                    let function = FunctionProto::decode(field.bytes()?, decoder)?;
                    decoder.push(&mut model.functions, function)?;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(model)
    }
}

impl<'a> GraphProto<'a> {
    fn decode(bytes: &'a [u8], decoder: Decoder<'_>) -> Result<GraphProto<'a>> {
        if decoder.depth >= MOST_NESTED_GRAPHS {
            return Err(Error::limit(format!("graphs are nested deeper than {MOST_NESTED_GRAPHS}")));
        }
        let decoder = Decoder { depth: decoder.depth + 1, ..decoder };
        let mut graph = GraphProto::default();
        each(bytes, |number, field| {
            match number {
                1 => {
                    let node = NodeProto::decode(field.bytes()?, decoder)
                        .context(|| format!("node {}", graph.nodes.len()))?;
                    decoder.push(&mut graph.nodes, node)?;
                }
                2 => graph.name = field.text()?,
                5 => {
                    let tensor = TensorProto::decode(field.bytes()?, decoder)
                        .context(|| format!("initializer {}", graph.initializers.len()))?;
                    decoder.push(&mut graph.initializers, tensor)?;
                }
                10 => graph.doc = field.text()?,
                11 => {
                    decoder.push(&mut graph.inputs, ValueInfoProto::decode(field.bytes()?, decoder)?)?;
                }
                12 => {
                    decoder.push(&mut graph.outputs, ValueInfoProto::decode(field.bytes()?, decoder)?)?;
                }
                13 => {
                    decoder.push(&mut graph.value_info, ValueInfoProto::decode(field.bytes()?, decoder)?)?;
                }
                15 => graph.sparse_initializers += 1,
                _ => {}
            }
            Ok(())
        })?;
        Ok(graph)
    }
}

impl<'a> FunctionProto<'a> {
    fn decode(bytes: &'a [u8], decoder: Decoder<'_>) -> Result<FunctionProto<'a>> {
        let mut function = FunctionProto::default();
        each(bytes, |number, field| {
            match number {
                1 => function.name = field.text()?,
                4 => decoder.push(&mut function.inputs, field.text()?)?,
                5 => decoder.push(&mut function.outputs, field.text()?)?,
                7 => decoder.push(&mut function.nodes, NodeProto::decode(field.bytes()?, decoder)?)?,
                9 => decoder.push(&mut function.opsets, opset(field.bytes()?)?)?,
                10 => function.domain = field.text()?,
                11 => {
                    let attribute = AttributeProto::decode(field.bytes()?, decoder)?;
                    decoder.push(&mut function.defaults, attribute)?;
                }
                12 => {
                    let info = ValueInfoProto::decode(field.bytes()?, decoder)?;
                    decoder.push(&mut function.value_info, info)?;
                }
                13 => function.overload = field.text()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(function)
    }
}

impl<'a> NodeProto<'a> {
    fn decode(bytes: &'a [u8], decoder: Decoder<'_>) -> Result<NodeProto<'a>> {
        let mut node = NodeProto::default();
        each(bytes, |number, field| {
            match number {
                1 => decoder.push(&mut node.inputs, field.text()?)?,
                2 => decoder.push(&mut node.outputs, field.text()?)?,
                3 => node.name = field.text()?,
                4 => node.op_type = field.text()?,
                5 => {
                    let attribute = AttributeProto::decode(field.bytes()?, decoder)
                        .context(|| format!("attribute {}", node.attributes.len()))?;
                    decoder.push(&mut node.attributes, attribute)?;
                }
                7 => node.domain = field.text()?,
                8 => node.overload = field.text()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(node)
    }
}

impl<'a> AttributeProto<'a> {
    fn decode(bytes: &'a [u8], decoder: Decoder<'_>) -> Result<AttributeProto<'a>> {
        let mut attribute = AttributeProto::default();
        each(bytes, |number, field| {
            match number {
                1 => attribute.name = field.text()?,
                2 => attribute.float = Some(field.float()?),
                3 => attribute.int = Some(field.int()?),
                4 => attribute.text = Some(field.bytes()?),
                5 => {
                    attribute.tensor = Some(Box::new(TensorProto::decode(field.bytes()?, decoder)?));
                }
                6 => attribute.graph = Some(Box::new(GraphProto::decode(field.bytes()?, decoder)?)),
                7 => field.append_fixed(&mut attribute.floats)?,
                8 => field.append_varints(&mut attribute.ints)?,
                9 => decoder.push(&mut attribute.texts, field.bytes()?)?,
                20 => attribute.kind = field.int32()?,
                21 => attribute.reference = field.text()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(attribute)
    }
}

impl<'a> TensorProto<'a> {
    /// The tensor in `bytes`.
    pub(crate) fn decode(bytes: &'a [u8], decoder: Decoder<'_>) -> Result<TensorProto<'a>> {
        let mut tensor = TensorProto::default();
        each(bytes, |number, field| {
            match number {
                1 => field.append_varints(&mut tensor.dims)?,
                2 => tensor.data_type = field.int32()?,
                3 => tensor.segmented = true,
                4 => field.append_fixed(&mut tensor.floats)?,
                5 => field.append_varints(&mut tensor.int32s)?,
                7 => field.append_varints(&mut tensor.int64s)?,
                8 => tensor.name = field.text()?,
                9 => tensor.raw = Some(field.bytes()?),
                10 => field.append_fixed(&mut tensor.doubles)?,
                11 => field.append_varints(&mut tensor.uint64s)?,
                13 => decoder.push(&mut tensor.external, entry(field.bytes()?)?)?,
                14 => tensor.location = field.int32()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(tensor)
    }
}

impl<'a> ValueInfoProto<'a> {
    fn decode(bytes: &'a [u8], decoder: Decoder<'_>) -> Result<ValueInfoProto<'a>> {
        let mut info = ValueInfoProto::default();
        each(bytes, |number, field| {
            match number {
                1 => info.name = field.text()?,
                2 => info.kind = TypeProto::decode(field.bytes()?, decoder)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(info)
    }
}

impl<'a> TypeProto<'a> {
    fn decode(bytes: &'a [u8], decoder: Decoder<'_>) -> Result<TypeProto<'a>> {
        let mut kind = TypeProto::Missing;
        each(bytes, |number, field| {
            match number {
                1 => kind = TypeProto::tensor(field.bytes()?, decoder)?,
                4 => kind = TypeProto::Other("sequence"),
                5 => kind = TypeProto::Other("map"),
                7 => kind = TypeProto::Other("opaque"),
                8 => kind = TypeProto::Other("sparse tensor"),
                9 => kind = TypeProto::Other("optional"),
                _ => {}
            }
            Ok(())
        })?;
        Ok(kind)
    }
    fn tensor(bytes: &'a [u8], decoder: Decoder<'_>) -> Result<TypeProto<'a>> {
        let mut data_type = 0;
        let mut shape = None;
        each(bytes, |number, field| {
            match number {
                1 => data_type = field.int32()?,
                2 => {
                    let mut dims = Vec::new();
                    each(field.bytes()?, |number, field| match number {
                        1 => decoder.push(&mut dims, DimProto::decode(field.bytes()?)?),
                        _ => Ok(()),
                    })?;
                    shape = Some(dims);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(TypeProto::Tensor(data_type, shape))
    }
}

impl<'a> DimProto<'a> {
    fn decode(bytes: &'a [u8]) -> Result<DimProto<'a>> {
        let mut dim = DimProto::Unknown;
        each(bytes, |number, field| {
            match number {
                1 => dim = DimProto::Value(field.int()?),
                2 => dim = DimProto::Symbol(field.text()?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(dim)
    }
}
