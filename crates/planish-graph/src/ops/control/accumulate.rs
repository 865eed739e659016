//! Collecting one tensor from each iteration of a loop into one tensor with a leading axis more.

use super::nested;
use crate::attributes::SubGraph;
use crate::error::{Error, Result};
use crate::graph::Dim;
use crate::infer::Fact;
use crate::invalid;
use crate::tensor::{DType, Tensor};

/// The rows so far. Their bytes lie in a tensor that grows by doubling, so that they are charged to the budget.
pub(super) struct Rows {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Tensor,
    used: usize,
    count: usize,
}

impl Rows {
    /// Starts with the first row.
    pub(super) fn new(first: &Tensor) -> Result<Rows> {
        let bytes = Tensor::zeros(DType::U8, &[first.bytes().len()])?;
        let mut rows = Rows { dtype: first.dtype(), shape: first.shape().to_vec(), bytes, used: 0, count: 0 };
        rows.push(first)?;
        Ok(rows)
    }

    /// Adds a row; an error where it differs from the others in type or shape.
    pub(super) fn push(&mut self, row: &Tensor) -> Result<()> {
        if row.dtype() != self.dtype || row.shape() != self.shape {
            invalid!(
                "the iterations made {} {:?} and {} {:?}, which cannot be stacked",
                self.dtype,
                self.shape,
                row.dtype(),
                row.shape()
            );
        }
        let size = row.bytes().len();
        if self.bytes.len() - self.used < size {
            let grown = self.bytes.len().checked_mul(2).ok_or_else(|| Error::limit("too many iterations"))?;
            let mut larger = Tensor::zeros(DType::U8, &[grown])?;
            larger.bytes_mut()[..self.used].copy_from_slice(&self.bytes.bytes()[..self.used]);
            self.bytes = larger;
        }
        self.bytes.bytes_mut()[self.used..][..size].copy_from_slice(row.bytes());
        self.used += size;
        self.count += 1;
        Ok(())
    }

    /// All rows as one tensor.
    pub(super) fn finish(self) -> Result<Tensor> {
        let shape = [&[self.count], &self.shape[..]].concat();
        Tensor::from_bytes(self.dtype, &shape, &self.bytes.bytes()[..self.used])
    }
}

/// Adds row `i` of `made` to `rows[i]`, starting those that have none yet.
pub(super) fn push_all(rows: &mut [Option<Rows>], made: &[Tensor]) -> Result<()> {
    for (rows, row) in rows.iter_mut().zip(made) {
        match rows {
            Some(rows) => rows.push(row)?,
            None => *rows = Some(Rows::new(row)?),
        }
    }
    Ok(())
}

/// What output `index` of `body` gives when there was no iteration: no rows, of the shape that `fact` or else the graph
/// states for one, where extents that are not stated are 0.
pub(super) fn no_rows(body: &SubGraph, index: usize, fact: &Fact) -> Result<Tensor> {
    let declared = body.graph.outputs.get(index).and_then(|&id| body.graph.value(id).shape.as_ref());
    let row: Vec<usize> = match (fact.shape(), declared) {
        (Some(shape), _) => shape.to_vec(),
        (None, Some(dims)) => dims.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { 0 }).collect(),
        (None, None) => Vec::new(),
    };
    Tensor::zeros(fact.dtype, &[&[0], &row[..]].concat())
}

/// The facts of `state` after any number of runs of `body`, and what is known of all outputs of `body` in any
/// iteration. `inputs` makes the inputs of `body` from the state; outputs from `first` on are the next state.
///
/// What the body changes in shape becomes unknown, which may make more unknown; after two rounds of that, every
/// shape is taken to be unknown.
pub(super) fn settle(
    body: &SubGraph,
    mut state: Vec<Fact>,
    first: usize,
    inputs: impl Fn(&[Fact]) -> Vec<Fact>,
) -> Result<(Vec<Fact>, Vec<Fact>)> {
    for fact in &mut state {
        fact.value = None;
    }
    let mut rounds = 0;
    loop {
        let made = nested::infer(body, &inputs(&state))?;
        let mut settled = true;
        for (before, after) in state.iter_mut().zip(made.get(first..).unwrap_or_default()) {
            let joined = nested::join(before.clone(), after)?;
            settled &= joined == *before;
            *before = joined;
        }
        if settled {
            return Ok((state, made));
        }
        rounds += 1;
        if rounds == 2 {
            state.iter_mut().for_each(|fact| fact.shape = None);
        }
    }
}
