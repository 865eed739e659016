//! The neutral form in which operators read and write their attributes.
//!
//! Names and meanings are ONNX's of the newest opset planish knows; the ONNX crate only moves these to and from
//! protobuf. Reading is strict: an attribute of the wrong type is an error that names it.

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// The value of one attribute.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// A whole number; truth values are 0 and 1.
    Int(i64),
    /// A number.
    Float(f32),
    /// A text.
    String(String),
    /// Whole numbers.
    Ints(Vec<i64>),
    /// Numbers.
    Floats(Vec<f32>),
    /// Texts.
    Strings(Vec<String>),
    /// A constant.
    Tensor(Tensor),
    /// A nested graph (`If`, `Loop`), see [`SubGraph`].
    Graph(SubGraph),
}

/// A nested graph. Its inputs are first the formal ones that the operator binds (`Loop`: iteration, condition, carried
/// values), then one for each value captured from the enclosing graph, in the order in which the node lists those
/// captured values among its own inputs.
#[derive(Clone, Debug)]
pub struct SubGraph {
    /// The graph, complete in itself.
    pub graph: Graph,
    /// How many of its inputs are formal; the rest are captured.
    pub formal_inputs: usize,
}

impl SubGraph {
    /// How many values of the enclosing graph it reads.
    pub fn captured(&self) -> usize {
        self.graph.inputs.len() - self.formal_inputs
    }
}

/// The attributes of one node by name.
#[derive(Clone, Debug, Default)]
pub struct Attributes(pub BTreeMap<String, Attribute>);

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $t:ty, $what:literal) => {
        $(#[$doc])*
        pub fn $name(&self, name: &str) -> Result<Option<$t>> {
            match self.0.get(name) {
                None => Ok(None),
                Some(Attribute::$variant(v)) => Ok(Some(v.clone())),
                Some(_) => Err(Error::invalid(format!(concat!("attribute \"{}\" is not ", $what), name))),
            }
        }
    };
}

impl Attributes {
    /// No attributes.
    pub fn new() -> Attributes {
        Attributes::default()
    }
    /// With one more attribute (for building and writing).
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Attribute>) -> Attributes {
        self.0.insert(name.to_string(), value.into());
        self
    }
    getter!(/// A whole number, where present.
        opt_int, Int, i64, "an integer");
    getter!(/// A number, where present.
        opt_float, Float, f32, "a float");
    getter!(/// A text, where present.
        opt_string, String, String, "a string");
    getter!(/// Whole numbers, where present.
        opt_ints, Ints, Vec<i64>, "a list of integers");
    getter!(/// Numbers, where present.
        opt_floats, Floats, Vec<f32>, "a list of floats");
    getter!(/// Texts, where present.
        opt_strings, Strings, Vec<String>, "a list of strings");
    getter!(/// A constant, where present.
        opt_tensor, Tensor, Tensor, "a tensor");
    getter!(/// A nested graph, where present.
        opt_graph, Graph, SubGraph, "a graph");
    /// A whole number, or `default`.
    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.opt_int(name)?.unwrap_or(default))
    }
    /// A truth value, or `default`.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.opt_int(name)?.map_or(default, |v| v != 0))
    }
    /// A number, or `default`.
    pub fn float(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.opt_float(name)?.unwrap_or(default))
    }
    /// A text, or `default`.
    pub fn string(&self, name: &str, default: &str) -> Result<String> {
        Ok(self.opt_string(name)?.unwrap_or_else(|| default.to_string()))
    }
    /// The attribute must be there: unwraps what one of the `opt_` getters found.
    pub fn require<T>(name: &str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| Error::invalid(format!("attribute \"{name}\" is missing")))
    }
}

macro_rules! from {
    ($($t:ty => $variant:ident),*) => {
        $(impl From<$t> for Attribute {
            fn from(v: $t) -> Attribute {
                Attribute::$variant(v)
            }
        })*
    };
}
from!(i64 => Int, f32 => Float, String => String, Vec<i64> => Ints, Vec<f32> => Floats, Vec<String> => Strings, Tensor => Tensor, SubGraph => Graph);

impl From<bool> for Attribute {
    fn from(v: bool) -> Attribute {
        Attribute::Int(v as i64)
    }
}

impl From<&str> for Attribute {
    fn from(v: &str) -> Attribute {
        Attribute::String(v.to_string())
    }
}
