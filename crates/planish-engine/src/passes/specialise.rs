//! A graph for concrete input shapes: what a plan is made of.
//!
//! The input shapes are written into the graph and all passes run again; everything that was computed from shapes becomes
//! constant, residual additions are known not to broadcast, branches that depend on shapes are decided.

use super::known_contents::input_facts;
use super::rewrite::fixed_dims;
use super::{PassReport, optimise};
use planish_graph::infer::{check_shape, infer};
use planish_graph::{Error, Fact, Graph, Result};

/// A graph whose input shapes are fixed, and what is known of its values.
#[derive(Clone, Debug)]
pub struct Specialised {
    /// The graph; its inputs declare the concrete shapes.
    pub graph: Graph,
    /// What is known of each value, by [`planish_graph::ValueId`] of that graph.
    pub facts: Vec<Option<Fact>>,
    /// What the passes did.
    pub reports: Vec<PassReport>,
}

/// `graph` for inputs of these shapes (one for each input, in order).
pub fn specialise(graph: &Graph, input_shapes: &[Vec<usize>]) -> Result<Specialised> {
    graph.validate()?;
    if input_shapes.len() != graph.inputs.len() {
        return Err(Error::invalid(format!(
            "{} input shapes were given, the graph has {} inputs",
            input_shapes.len(),
            graph.inputs.len()
        )));
    }
    let mut graph = graph.clone();
    for (id, shape) in graph.inputs.clone().into_iter().zip(input_shapes) {
        check_shape(&graph, id, shape)?;
        graph.value_mut(id).shape = Some(fixed_dims(shape));
    }
    let reports = optimise(&mut graph)?;
    let inputs = input_facts(&graph).ok_or_else(|| Error::invalid("an input has no element type"))?;
    let facts = infer(&graph, &inputs)?;
    Ok(Specialised { graph, facts, reports })
}
