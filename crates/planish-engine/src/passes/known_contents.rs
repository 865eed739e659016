//! Known contents: where the shapes of all inputs are fixed, types and shapes of all values are inferred and written to
//! the graph, and values whose content follows from shapes and constants alone become constants.
//!
//! This is where shape arithmetic ends: `Shape → Gather → Concat → Reshape` becomes a reshape to a constant shape. With
//! symbolic inputs the pass does nothing. The rules of [`super::fold_constants`] hold here too: what is known only
//! through dequantised constants stays computed.

use super::Pass;
use super::fold_constants::may_fold;
use super::rewrite::{Rewriter, fixed_dims, fixed_shape};
use planish_graph::infer::infer;
use planish_graph::{Fact, Graph, Result, ValueId};

/// Writes what inference finds into the graph.
pub struct KnownContents;

impl Pass for KnownContents {
    fn name(&self) -> &'static str {
        "known-contents"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let Some(inputs) = input_facts(graph) else { return Ok(0) };
        // A graph that does not infer will not run either, and then says why. Nothing is known of it here.
        let Ok(facts) = infer(graph, &inputs) else { return Ok(0) };
        declare(graph, &facts);
        let foldable = foldable(graph, &facts);
        let mut rewriter = Rewriter::new(graph);
        for (i, fact) in facts.into_iter().enumerate() {
            let id = ValueId(i as u32);
            if let Some(tensor) = fact.and_then(|f| f.value)
                && foldable[i]
                && rewriter.maker(id).is_some()
            {
                rewriter.make_constant(id, tensor);
            }
        }
        rewriter.finish()
    }
}

/// What is known of the inputs, where all their shapes are fixed.
pub(super) fn input_facts(graph: &Graph) -> Option<Vec<Fact>> {
    let fact = |&id: &ValueId| {
        let value = graph.value(id);
        Some(Fact::new(value.dtype?, &fixed_shape(value.shape.as_deref()?)?))
    };
    graph.inputs.iter().map(fact).collect()
}

/// Declares the inferred types and shapes.
fn declare(graph: &mut Graph, facts: &[Option<Fact>]) {
    for (value, fact) in graph.values.iter_mut().zip(facts) {
        if let Some(fact) = fact {
            value.dtype = Some(fact.dtype);
            if let Some(shape) = fact.shape() {
                value.shape = Some(fixed_dims(shape));
            }
        }
    }
}

/// By value: whether its content, where known, comes from nothing that may not be folded.
fn foldable(graph: &Graph, facts: &[Option<Fact>]) -> Vec<bool> {
    let mut foldable = vec![true; graph.values.len()];
    for node in &graph.nodes {
        let known = |id: &ValueId| facts[id.0 as usize].as_ref().is_some_and(|f| f.value.is_some());
        if !node.outputs.iter().flatten().any(known) {
            continue;
        }
        let only_shape = matches!(node.op.name(), "Shape" | "Size");
        let clean = only_shape || node.inputs.iter().flatten().all(|id| foldable[id.0 as usize]);
        if !clean || !may_fold(&*node.op) {
            for output in node.outputs.iter().flatten() {
                foldable[output.0 as usize] = false;
            }
        }
    }
    foldable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check, input, list};
    use planish_graph::ops::movement::concat::Concat;
    use planish_graph::ops::movement::reshape::Reshape;
    use planish_graph::ops::movement::shape::Shape;
    use planish_graph::{DType, Dim};

    /// Flattens "x" to what its shape computes to.
    fn flattening(first: Dim) -> Graph {
        let (mut g, x) = input(&[2, 3, 4]);
        g.value_mut(x).shape = Some(vec![first, Dim::Fixed(3), Dim::Fixed(4)]);
        let batch = g.add_node("batch", Shape { start: 0, end: Some(1) }, &[x]);
        let rest = list(&mut g, "rest", &[-1]);
        let target = g.add_node("target", Concat { axis: 0 }, &[batch, rest]);
        let y = g.add_node("y", Reshape { allow_zero: false }, &[x, target]);
        g.outputs.push(y);
        g
    }

    #[test]
    fn shape_arithmetic_becomes_constant() {
        let g = check(&KnownContents, flattening(Dim::Fixed(2)), &[("Reshape", 1)]);
        let y = g.value(g.outputs[0]);
        assert_eq!((y.dtype, fixed_shape(y.shape.as_ref().unwrap())), (Some(DType::F32), Some(vec![2, 12])));
    }

    #[test]
    fn open_shapes_stay() {
        let g = flattening(Dim::Symbol("batch".into()));
        check(&KnownContents, g, &[("Shape", 1), ("Concat", 1), ("Reshape", 1)]);
    }
}
