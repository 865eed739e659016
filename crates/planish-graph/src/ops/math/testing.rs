//! What the tests of this family share: evaluation that also checks the shape and type rule, and refusals.

use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{NodeReader, Operator, read_operator};
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A node of a file with two inputs, for readers.
pub(super) fn node(name: &str, opset: i64, attributes: Attributes) -> NodeReader {
    NodeReader {
        op_type: name.to_string(),
        domain: String::new(),
        opset,
        attributes,
        input_count: 2,
        output_count: 1,
        constant_inputs: BTreeMap::new(),
        added_inputs: BTreeMap::new(),
        keep_inputs: None,
        moved_inputs: BTreeMap::new(),
    }
}

/// The operator of such a node.
pub(super) fn read(name: &str, opset: i64, attributes: Attributes) -> Result<Arc<dyn Operator>> {
    read_operator(&mut node(name, opset, attributes))
}

/// All outputs, after checking that the rule foretold their types and shapes with and without knowing the contents.
pub(super) fn eval_all(op: &dyn Operator, inputs: &[Option<&Tensor>], outputs: usize) -> Vec<Tensor> {
    let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Fact::constant)).collect();
    let shaped: Vec<Option<Fact>> =
        inputs.iter().map(|t| t.map(|t| Fact::new(t.dtype(), t.shape()))).collect();
    let unknown: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(|t| Fact::unknown(t.dtype()))).collect();
    let made = op.eval(inputs, outputs).unwrap();
    let exact = op.infer(&facts, outputs).unwrap();
    for (tensor, fact) in made.iter().zip(&exact) {
        assert_eq!((tensor.dtype(), Some(tensor.shape())), (fact.dtype, fact.shape()), "{op:?}");
    }
    for vague in [shaped, unknown] {
        let found = op.infer(&vague, outputs).unwrap();
        assert_eq!(found.len(), made.len(), "{op:?}");
        for (tensor, fact) in made.iter().zip(&found) {
            assert_eq!(tensor.dtype(), fact.dtype, "{op:?}");
            assert!(fact.shape().is_none_or(|s| s == tensor.shape()), "{op:?}");
        }
    }
    made
}

/// The one output for inputs that are all given.
pub(super) fn eval(op: &dyn Operator, inputs: &[&Tensor]) -> Tensor {
    let given: Vec<Option<&Tensor>> = inputs.iter().map(|t| Some(*t)).collect();
    eval_all(op, &given, 1).remove(0)
}

/// What the rule says against these inputs.
pub(super) fn refusal(op: &dyn Operator, inputs: &[Fact]) -> String {
    let given: Vec<Option<Fact>> = inputs.iter().cloned().map(Some).collect();
    op.infer(&given, 1).expect_err("should be refused").to_string()
}

/// An `f32` tensor.
pub(super) fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape, values).unwrap()
}

/// An `f32` tensor that counts 0, 1, 2 …
pub(super) fn counting(shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
    floats(shape, &values)
}
