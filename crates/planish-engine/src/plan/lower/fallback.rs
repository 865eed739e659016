//! Nodes for which there is no kernel run their reference evaluation: slow, and right for every type and shape.

use super::{Lowering, Operand};
use crate::plan::layout::Layout;
use crate::run::environment::Environment;
use planish_graph::{Node, Result, Tensor};

/// Where an output of a reference evaluation goes.
enum Sink {
    Buffer(super::BufferView, Layout),
    Heap(usize),
    Nobody,
}

/// A step that evaluates `node` by its reference.
pub(super) fn lower(l: &mut Lowering<'_>, node: &Node) -> Result<()> {
    let mut sources: Vec<Option<(Operand, Option<Vec<usize>>)>> = Vec::with_capacity(node.inputs.len());
    for input in &node.inputs {
        sources.push(match input {
            Some(v) => Some((l.operand(*v, Layout::Plain)?, l.fact(*v).and_then(|f| f.shape.clone()))),
            None => None,
        });
    }
    let mut sinks = Vec::with_capacity(node.outputs.len());
    for output in &node.outputs {
        sinks.push(match output {
            Some(v) if l.in_arena(*v) => Sink::Buffer(l.output(*v)?, l.layout(*v)),
            Some(v) => Sink::Heap(l.heap_output(*v)),
            None => Sink::Nobody,
        });
    }
    let reads: Vec<Operand> = sources.iter().flatten().map(|(o, _)| o.clone()).collect();
    let writes: Vec<super::BufferView> = sinks
        .iter()
        .filter_map(|s| match s {
            Sink::Buffer(view, _) => Some(*view),
            _ => None,
        })
        .collect();
    let info = l.info(node, "reference", "no kernel for this operator, type or shape");
    let owned = node.clone();
    let kernel = move |env: &mut Environment<'_>| {
        let mut tensors: Vec<Option<Tensor>> = Vec::with_capacity(sources.len());
        for source in &sources {
            tensors.push(match source {
                Some((operand, shape)) => Some(env.tensor(operand, shape.as_deref())?),
                None => None,
            });
        }
        let given: Vec<Option<&Tensor>> = tensors.iter().map(|t| t.as_ref()).collect();
        let made = planish_graph::reference::eval_node(&owned, &given)?;
        for (sink, tensor) in sinks.iter().zip(made) {
            match sink {
                Sink::Buffer(view, layout) => env.store(view, *layout, &tensor)?,
                Sink::Heap(slot) => env.heap[*slot] = Some(tensor),
                Sink::Nobody => {}
            }
        }
        Ok(())
    };
    l.push(info, &reads.iter().collect::<Vec<_>>(), &writes.iter().collect::<Vec<_>>(), kernel);
    Ok(())
}
