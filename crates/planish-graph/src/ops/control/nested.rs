//! Running and inferring nested graphs, within bounds.
//!
//! A model may loop for ever, and loops may stand inside loops. Every nested graph that is run or inferred on behalf
//! of one node of the outermost graph is therefore paid for from one allowance, [`NESTED_WORK`], that of that node.

use crate::attributes::SubGraph;
use crate::error::{Error, Result};
use crate::infer::{self, Fact};
use crate::invalid;
use crate::reference;
use crate::tensor::Tensor;
use std::cell::Cell;

/// How many nodes and values of nested graphs one node of the outermost graph may touch before it is stopped, each
/// counted as often as it is touched. Far above what loops in networks for images need, and seconds of work.
pub const NESTED_WORK: u64 = 4_000_000;

thread_local! {
    /// What is left of the allowance of the node of the outermost graph that is at work, if one is.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs `work` with an allowance: the one that is being used already, or a fresh one.
pub(super) fn bounded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Restore(Option<u64>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if self.0.is_none() {
                LEFT.set(None);
            }
        }
    }
    let before = LEFT.get();
    let _restore = Restore(before);
    LEFT.set(before.or(Some(NESTED_WORK)));
    work()
}

/// Pays for touching `body` once.
fn pay(body: &SubGraph) -> Result<()> {
    let price = 1 + body.graph.nodes.len() as u64 + body.graph.values.len() as u64;
    match LEFT.get().unwrap_or(NESTED_WORK).checked_sub(price) {
        Some(left) => {
            LEFT.set(Some(left));
            Ok(())
        }
        None => Err(Error::limit(format!(
            "nested graphs took more than {NESTED_WORK} steps; a loop may never end"
        ))),
    }
}

/// Checks that `body` has at least `formal` formal inputs and `outputs` outputs; `name` is its attribute's.
pub(super) fn check(body: &SubGraph, formal: usize, outputs: usize, name: &str) -> Result<()> {
    if body.formal_inputs < formal || body.graph.inputs.len() < body.formal_inputs {
        invalid!("attribute \"{name}\" is a graph of {} inputs", body.formal_inputs);
    }
    if body.graph.outputs.len() < outputs {
        invalid!(
            "attribute \"{name}\" is a graph of {} outputs, at least {outputs} are needed",
            body.graph.outputs.len()
        );
    }
    Ok(())
}

/// How many values of the enclosing graph `body` reads.
pub(super) fn captured(body: &SubGraph) -> usize {
    body.graph.inputs.len().saturating_sub(body.formal_inputs)
}

/// The outputs of `body`; must be called inside [`bounded`].
pub(super) fn run(body: &SubGraph, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    pay(body)?;
    reference::run(&body.graph, inputs)
}

/// What is known of the outputs of `body`; must be called inside [`bounded`].
pub(super) fn infer(body: &SubGraph, inputs: &[Fact]) -> Result<Vec<Fact>> {
    pay(body)?;
    let facts = infer::infer(&body.graph, inputs)?;
    let outputs = body.graph.outputs.iter();
    outputs
        .map(|id| match facts.get(id.0 as usize) {
            Some(Some(fact)) => Ok(fact.clone()),
            _ => invalid!("nothing makes output {} of the nested graph", id.0),
        })
        .collect()
}

/// The inputs from `first` on, all of which must be given.
pub(super) fn given<T: Clone>(inputs: &[Option<T>], first: usize) -> Result<Vec<T>> {
    let rest = inputs.get(first..).unwrap_or_default().iter().enumerate();
    rest.map(|(i, input)| match input {
        Some(input) => Ok(input.clone()),
        None => invalid!("input {} is required and was left out", first + i),
    })
    .collect()
}

/// [`given`] for an evaluation.
pub(super) fn given_tensors(inputs: &[Option<&Tensor>], first: usize) -> Result<Vec<Tensor>> {
    Ok(given(inputs, first)?.into_iter().cloned().collect())
}

/// The one truth value of a condition, where it is known.
pub(super) fn condition(fact: &Fact, name: &str) -> Result<Option<bool>> {
    if fact.dtype != crate::tensor::DType::Bool || fact.shape().is_some_and(|s| s.iter().any(|&n| n != 1)) {
        invalid!("{name} is {} {:?}, one truth value is expected", fact.dtype, fact.shape());
    }
    match &fact.value {
        None => Ok(None),
        Some(tensor) => Ok(tensor.as_bools()?.first().map(|&b| b != 0)),
    }
}

/// [`condition`] of a tensor.
pub(super) fn decided(tensor: &Tensor, name: &str) -> Result<bool> {
    Ok(condition(&Fact::constant(tensor), name)?.unwrap_or(false))
}

/// What is known of a value that is either `a` or `b`; an error where they differ in type.
pub(super) fn join(a: Fact, b: &Fact) -> Result<Fact> {
    if a.dtype != b.dtype {
        invalid!("a value is {} on one way and {} on another", a.dtype, b.dtype);
    }
    Ok(Fact {
        dtype: a.dtype,
        shape: a.shape.filter(|s| b.shape() == Some(s)),
        value: a.value.filter(|v| b.value.as_ref() == Some(v)),
    })
}

/// Whether equal inputs give equal outputs in all of `body`.
pub(super) fn is_pure(body: &SubGraph) -> bool {
    body.graph.nodes.iter().all(|node| node.op.is_pure())
}
