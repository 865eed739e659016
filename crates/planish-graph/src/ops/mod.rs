//! What operators are, and the table of all of them.
//!
//! One operator, or one tight family, is one file: its attributes, its shape and type rule, its multiply-accumulate
//! count, its reference evaluation (plain loops: the meaning, and the oracle of every fast kernel), and how it reads
//! itself from and writes itself to ONNX's attributes. Adding an operator is adding that file and its line in [`table`].

pub mod control;
pub mod math;
pub mod movement;
pub mod nn;
pub mod read;
mod table;

pub use read::{NodeReader, read_operator};
pub use table::{OperatorEntry, table};

use crate::attributes::Attributes;
use crate::error::Result;
use crate::graph::ValueId;
use crate::infer::Fact;
use crate::invalid;
use crate::tensor::Tensor;
use std::any::Any;
use std::fmt::Debug;

/// How many inputs and outputs an operator takes, as ONNX counts them (missing optional inputs in the middle are
/// counted, and are `None`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity {
    /// Fewest inputs; these must all be given.
    pub min_inputs: usize,
    /// Most inputs; `usize::MAX` where the list is open.
    pub max_inputs: usize,
    /// Fewest outputs in the list.
    pub min_outputs: usize,
    /// Most outputs.
    pub max_outputs: usize,
}

impl Arity {
    /// `inputs` required inputs and one output.
    pub const fn exact(inputs: usize) -> Arity {
        Arity { min_inputs: inputs, max_inputs: inputs, min_outputs: 1, max_outputs: 1 }
    }
    /// From `min` to `max` inputs and one output.
    pub const fn range(min: usize, max: usize) -> Arity {
        Arity { min_inputs: min, max_inputs: max, min_outputs: 1, max_outputs: 1 }
    }
    /// The same with up to `max` outputs.
    #[must_use]
    pub const fn outputs(self, min: usize, max: usize) -> Arity {
        Arity { min_outputs: min, max_outputs: max, ..self }
    }
    /// Whether a node's lists fit; an error says how they do not.
    pub fn check(&self, inputs: &[Option<ValueId>], outputs: &[Option<ValueId>]) -> Result<()> {
        let given = inputs.len();
        if given < self.min_inputs || given > self.max_inputs {
            let most =
                if self.max_inputs == usize::MAX { "more".to_string() } else { self.max_inputs.to_string() };
            invalid!("has {given} inputs, where {} to {most} are expected", self.min_inputs);
        }
        if let Some(missing) = inputs[..self.min_inputs].iter().position(|i| i.is_none()) {
            invalid!("input {missing} is required and was left out");
        }
        let made = outputs.len();
        if made < self.min_outputs || made > self.max_outputs {
            invalid!("has {made} outputs, where {} to {} are expected", self.min_outputs, self.max_outputs);
        }
        Ok(())
    }
}

/// A node's kind. Implementations are plain data (the attributes), comparable by their written attributes.
pub trait Operator: Any + Debug + Send + Sync {
    /// The ONNX operator type ("Conv"); operators of our own fusions use names of domain [`Operator::domain`].
    fn name(&self) -> &'static str;

    /// The ONNX domain; empty for the standard operators, `"planish"` for ours, else whose operator it is.
    fn domain(&self) -> &'static str {
        ""
    }

    /// How many inputs and outputs a node of this operator has.
    fn arity(&self) -> Arity;

    /// The shape and type rule: what is known of the outputs from what is known of the inputs. `outputs` is the length
    /// of the node's output list. Must refuse what the operator does not allow, never panic, and never allocate by the
    /// size of a tensor. Where an input's shape is unknown the outputs' may be too ([`Fact::unknown`]).
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>>;

    /// Multiply-accumulate operations for concrete shapes: convolutions, matrix products. 1 MAC = 2 FLOP. Elementwise
    /// work counts nothing, as is the habit of the field.
    fn macs(&self, _inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        0
    }

    /// The meaning: plain loops over the inputs, accumulating in `f64` or exact integers. Inputs obey [`Self::infer`]
    /// (the caller has run it on these very tensors). `outputs` is the length of the node's output list.
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>>;

    /// The attributes as ONNX of the opset that planish writes ([`WRITTEN_OPSET`]) spells them.
    fn attributes(&self) -> Attributes;

    /// Whether equal inputs give equal outputs, so that nodes may be folded or merged. Random operators say no.
    fn is_pure(&self) -> bool {
        true
    }
}

/// The ONNX opset in whose terms operators describe themselves, and that planish writes.
pub const WRITTEN_OPSET: i64 = 21;

/// Conveniences on any operator.
pub trait OperatorExt {
    /// This operator as a concrete type, where it is one: `node.op.as_op::<Conv>()`.
    fn as_op<T: Operator>(&self) -> Option<&T>;
    /// Whether this operator is a `T`.
    fn is_op<T: Operator>(&self) -> bool {
        self.as_op::<T>().is_some()
    }
}

impl OperatorExt for dyn Operator {
    fn as_op<T: Operator>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref::<T>()
    }
}

/// Input `index` for an evaluation, which [`Arity`] has made sure of.
pub(crate) fn required<'a>(inputs: &[Option<&'a Tensor>], index: usize) -> Result<&'a Tensor> {
    match optional(inputs, index) {
        Some(tensor) => Ok(tensor),
        None => invalid!("input {index} is required and was left out"),
    }
}

/// Input `index` for an evaluation, where given.
pub(crate) fn optional<'a>(inputs: &[Option<&'a Tensor>], index: usize) -> Option<&'a Tensor> {
    inputs.get(index).copied().flatten()
}

/// What is known of input `index`, which [`Arity`] has made sure of.
pub(crate) fn required_fact(inputs: &[Option<Fact>], index: usize) -> Result<&Fact> {
    match optional_fact(inputs, index) {
        Some(fact) => Ok(fact),
        None => invalid!("input {index} is required and was left out"),
    }
}

/// What is known of input `index`, where given.
pub(crate) fn optional_fact(inputs: &[Option<Fact>], index: usize) -> Option<&Fact> {
    inputs.get(index).and_then(|f| f.as_ref())
}
