//! How the tests of this family run an operator: as [`crate::reference`] does, checking on the way that what the shape
//! rule said of the outputs is what came out, and that it stands any input being known in part or not at all.

use crate::error::Result;
use crate::graph::{Node, ValueId};
use crate::infer::Fact;
use crate::ops::Operator;
use crate::tensor::Tensor;
use std::sync::Arc;

/// The outputs of a node of `op` with `outputs` outputs.
pub(crate) fn run_many(
    op: impl Operator + Clone,
    inputs: &[Option<&Tensor>],
    outputs: usize,
) -> Result<Vec<Tensor>> {
    let known: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Fact::constant)).collect();
    let blank = |unknown: usize, shape: bool| -> Vec<Option<Fact>> {
        let hide = |f: &Fact| if shape { Fact { value: None, ..f.clone() } } else { Fact::unknown(f.dtype) };
        let facts = known.iter().enumerate();
        facts.map(|(i, f)| f.as_ref().map(|f| if i == unknown { hide(f) } else { f.clone() })).collect()
    };
    let said = op.infer(&known, outputs);
    let mut partial = Vec::new();
    for i in 0..inputs.len() {
        partial.push(op.infer(&blank(i, true), outputs));
        partial.push(op.infer(&blank(i, false), outputs));
    }
    let node = Node {
        name: "test".into(),
        inputs: (0..).zip(inputs).map(|(i, t)| t.map(|_| ValueId(i))).collect(),
        outputs: (0..outputs as u32).map(|i| Some(ValueId(100 + i))).collect(),
        op: Arc::new(op),
    };
    let made = crate::reference::eval_node(&node, inputs)?;
    for facts in partial.into_iter().chain([said]) {
        let facts = facts.expect("knowing less of the inputs does not make them wrong");
        assert_eq!(facts.len(), made.len());
        for (fact, tensor) in facts.iter().zip(&made) {
            assert_eq!(fact.dtype, tensor.dtype());
            assert!(fact.shape().is_none_or(|s| s == tensor.shape()), "{fact:?} was said of {tensor:?}");
            assert!(fact.value.as_ref().is_none_or(|v| v == tensor));
        }
    }
    Ok(made)
}

/// The only output of a node of `op`.
pub(crate) fn run(op: impl Operator + Clone, inputs: &[&Tensor]) -> Result<Tensor> {
    let inputs: Vec<Option<&Tensor>> = inputs.iter().map(|&t| Some(t)).collect();
    Ok(run_many(op, &inputs, 1)?.remove(0))
}

/// A list of `i64`.
pub(crate) fn ints(values: &[i64]) -> Tensor {
    Tensor::from_i64s(values).unwrap()
}

/// `f32` numbers counting up from 0 in `shape`.
pub(crate) fn counting(shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
    Tensor::new(shape, &values).unwrap()
}

/// A node of a file, for the tests of readers.
pub(crate) fn node(
    op_type: &str,
    opset: i64,
    inputs: usize,
    attributes: crate::attributes::Attributes,
) -> crate::ops::NodeReader {
    crate::ops::NodeReader {
        op_type: op_type.into(),
        domain: String::new(),
        opset,
        attributes,
        input_count: inputs,
        output_count: 1,
        constant_inputs: Default::default(),
        added_inputs: Default::default(),
        keep_inputs: None,
        moved_inputs: Default::default(),
    }
}
