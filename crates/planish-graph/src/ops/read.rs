//! Reading an operator from ONNX: what a file's node says, in the terms of the newest opset.
//!
//! Older opsets spell some things otherwise, most often as an attribute where there is an input today (`axes` of
//! Squeeze, `min` of Clip). An operator's reader turns the old spelling into the new one, adding constant inputs through
//! [`NodeReader::set_constant_input`], so that the rest of planish knows one spelling only.

use super::Operator;
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One node of a file, for the reader of its operator.
#[derive(Debug)]
pub struct NodeReader {
    /// The operator type, "Conv".
    pub op_type: String,
    /// The domain, empty for the standard operators (`ai.onnx` is read as empty).
    pub domain: String,
    /// The file's opset version for that domain.
    pub opset: i64,
    /// The node's attributes.
    pub attributes: Attributes,
    /// How many inputs the node lists, missing ones counted.
    pub input_count: usize,
    /// How many outputs the node lists.
    pub output_count: usize,
    /// Which inputs are constants, and what they hold (for readers that must look, e.g. `Upsample`'s scales).
    pub constant_inputs: BTreeMap<usize, Tensor>,
    /// Constant inputs that the reader adds or replaces: index and content.
    pub added_inputs: BTreeMap<usize, Tensor>,
    /// Inputs that the new spelling does not have: the node's list is cut to this length before
    /// [`Self::added_inputs`] are put in.
    pub keep_inputs: Option<usize>,
    /// Inputs that stand elsewhere in the new spelling: their new index and their old one. They are put in after the
    /// list was cut and before [`Self::added_inputs`].
    pub moved_inputs: BTreeMap<usize, usize>,
}

impl NodeReader {
    /// Gives the node a constant input (the new spelling of an old attribute).
    pub fn set_constant_input(&mut self, index: usize, tensor: Tensor) {
        self.added_inputs.insert(index, tensor);
    }
    /// Whether the file's opset is older than `version`.
    pub fn before(&self, version: i64) -> bool {
        self.opset < version
    }
}

/// The operator of a file's node, or an [`crate::ErrorKind::Unsupported`] error where planish does not have it.
pub fn read_operator(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
    let found = super::table().iter().find(|e| e.name == node.op_type && e.domain == node.domain);
    match found {
        Some(entry) => (entry.read)(node),
        None if node.domain.is_empty() => {
            Err(Error::unsupported(format!("operator {} is not supported", node.op_type)))
        }
        None => {
            Err(Error::unsupported(format!("operator {}::{} is not supported", node.domain, node.op_type)))
        }
    }
}
