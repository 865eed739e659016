//! A graph for concrete input shapes: what a plan is made of.
//!
//! The input shapes are written into the graph and all passes run again; everything that was computed from shapes becomes
//! constant, residual additions are known not to broadcast, branches that depend on shapes are decided.

use super::dead_code::DeadCode;
use super::dequantise_constants::DequantiseConstants;
use super::known_contents::KnownContents;
use super::known_contents::input_facts;
use super::quantised::absorb::AbsorbLast;
use super::quantised::dynamic::AbsorbScales;
use super::quantised::short_weights::AbsorbShortWeights;
use super::rewrite::fixed_dims;
use super::widen_halves::WidenHalves;
use super::{Pass, PassReport, passes, run_pass, run_passes};
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

/// `graph` for inputs of these shapes (one for each input, in order), with all passes run.
pub fn specialise(graph: &Graph, input_shapes: &[Vec<usize>]) -> Result<Specialised> {
    let mut specialised = resolve(graph, input_shapes, passes())?;
    if let Some(report) = run_pass(&WidenHalves, &mut specialised.graph)? {
        specialised = specialised.and_then(report, input_shapes)?;
    }
    let late: [&dyn Pass; 3] = [&AbsorbLast, &AbsorbScales, &AbsorbShortWeights];
    for pass in late {
        specialised.reports.extend(run_pass(pass, &mut specialised.graph)?);
    }
    // What no integer kernel took is computed in numbers: nothing is left to be said by the integers.
    if let Some(report) = run_pass(&DequantiseConstants, &mut specialised.graph)? {
        return specialised.and_then(report, input_shapes);
    }
    // The passes that ran one by one may have changed what is known.
    let inputs =
        input_facts(&specialised.graph).ok_or_else(|| Error::invalid("an input has no element type"))?;
    specialised.facts = infer(&specialised.graph, &inputs)?;
    Ok(specialised)
}

impl Specialised {
    /// All passes once more, behind one that ran by itself.
    fn and_then(self, report: PassReport, input_shapes: &[Vec<usize>]) -> Result<Specialised> {
        let done = resolve(&self.graph, input_shapes, passes())?;
        let reports = self.reports.into_iter().chain([report]).chain(done.reports).collect();
        Ok(Specialised { reports, ..done })
    }
}

/// [`specialise`] without simplifying anything: only what follows from the shapes alone becomes constant, because plans
/// need to know it. What the passes gain is measured against this.
pub fn as_it_stands(graph: &Graph, input_shapes: &[Vec<usize>]) -> Result<Specialised> {
    resolve(graph, input_shapes, &[&KnownContents, &DeadCode])
}

fn resolve(graph: &Graph, input_shapes: &[Vec<usize>], passes: &[&dyn Pass]) -> Result<Specialised> {
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
    let reports = run_passes(&mut graph, passes)?;
    let inputs = input_facts(&graph).ok_or_else(|| Error::invalid("an input has no element type"))?;
    let facts = infer(&graph, &inputs)?;
    Ok(Specialised { graph, facts, reports })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_same, histogram, input, list};
    use planish_graph::ops::movement::concat::Concat;
    use planish_graph::ops::movement::gather::Gather;
    use planish_graph::ops::movement::reshape::Reshape;
    use planish_graph::ops::movement::shape::Shape;
    use planish_graph::{DType, Dim};

    #[test]
    fn no_shape_arithmetic_remains() {
        let (mut g, x) = input(&[]);
        g.value_mut(x).shape = Some(vec![Dim::Symbol("n".into()), Dim::Unknown, Dim::Fixed(4)]);
        let shape = g.add_node("shape", Shape { start: 0, end: None }, &[x]);
        let picked = list(&mut g, "picked", &[1, 0]);
        let swapped = g.add_node("swapped", Gather { axis: 0 }, &[shape, picked]);
        let rest = list(&mut g, "rest", &[-1]);
        let target = g.add_node("target", Concat { axis: 0 }, &[swapped, rest]);
        let y = g.add_node("y", Reshape { allow_zero: false }, &[x, target]);
        g.outputs.push(y);
        let made = specialise(&g, &[vec![2, 3, 4]]).unwrap();
        assert_eq!(histogram(&made.graph), [("Reshape", 1)].into());
        let fact = made.facts[made.graph.outputs[0].0 as usize].clone();
        assert_eq!(fact, Some(Fact::new(DType::F32, &[3, 2, 4])));
        g.value_mut(x).shape = Some(fixed_dims(&[2, 3, 4]));
        check_same(&g, &made.graph);
        assert!(specialise(&g, &[vec![2, 3, 5]]).is_err());
        assert!(specialise(&g, &[]).is_err());
    }
}
