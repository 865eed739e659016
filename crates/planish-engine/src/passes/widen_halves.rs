//! Networks in `f16`, as PyTorch writes them behind `.half()`, are computed in `f32`, because kernels are for that.
//!
//! All of the graph at once: its values and constants of `f16` become `f32`, which holds each of them exactly, with a
//! conversion where the graph takes and gives `f16`. What lies between two operators is then no longer rounded to `f16`, nor
//! does it become infinite beyond 65504: it is nearer to what the network means, and within what other engines, which round
//! elsewhere, differ by. Where a session keeps values as `f16` (`--precision f16`), nothing is left of the conversions.
//!
//! Only of a plan's own copy of the graph, so that it is written as it was read. Where an operator says by itself that its
//! result is `f16`, the types do not come out right, and the graph stays as it is: it runs by reference.

use super::Pass;
use super::known_contents::input_facts;
use super::rewrite::{has_nested_graph, set_constant};
use planish_graph::infer::infer;
use planish_graph::ops::math::cast::Cast;
use planish_graph::{DType, Fact, Graph, Node, OperatorExt, Result, Tensor, Value, ValueId};
use std::collections::HashMap;
use std::sync::Arc;

/// Makes `f32` of all `f16` between the inputs and outputs of a graph of known types.
pub struct WidenHalves;

impl Pass for WidenHalves {
    fn name(&self) -> &'static str {
        "widen-halves"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let Some(inputs) = input_facts(graph) else { return Ok(0) };
        let facts = infer(graph, &inputs)?;
        let is_half = |v: ValueId| dtype(&facts, v) == Some(DType::F16);
        let halves = (0..graph.values.len()).filter(|&i| is_half(ValueId(i as u32))).count();
        // A graph that already has nothing but conversions of its inputs and outputs is done.
        let computes =
            |node: &&Node| node.inputs.iter().flatten().any(|&v| is_half(v)) && !is_border(graph, node);
        let given = graph.outputs.iter().any(|&v| is_half(v) && graph.constant(v).is_some());
        let nested = graph.nodes.iter().any(|node| has_nested_graph(node.op.as_ref()));
        if halves == 0 || given || nested || graph.nodes.iter().find(computes).is_none() {
            return Ok(0);
        }
        let mut wide = graph.clone();
        widen(&mut wide, &is_half)?;
        // What was `f16` is `f32` now, but for inputs and outputs, and nothing else has changed its type.
        let Ok(now) = infer(&wide, &inputs) else { return Ok(0) };
        let kept = |v: ValueId| graph.inputs.contains(&v) || graph.outputs.contains(&v);
        let right = (0..graph.values.len()).map(|i| ValueId(i as u32)).all(|v| match dtype(&facts, v) {
            Some(DType::F16) if !kept(v) => dtype(&now, v).is_none_or(|d| d == DType::F32),
            before => dtype(&now, v) == before,
        });
        if !right || wide.validate().is_err() {
            return Ok(0);
        }
        *graph = wide;
        Ok(halves)
    }
}

fn dtype(facts: &[Option<Fact>], v: ValueId) -> Option<DType> {
    facts[v.0 as usize].as_ref().map(|fact| fact.dtype)
}

/// Whether a node only converts an input of the graph from `f16`.
fn is_border(graph: &Graph, node: &Node) -> bool {
    node.op.is_op::<Cast>() && node.input(0).is_some_and(|x| graph.inputs.contains(&x))
}

/// Retypes the values, and puts conversions at the ends.
fn widen(graph: &mut Graph, is_half: &dyn Fn(ValueId) -> bool) -> Result<()> {
    let (inputs, outputs) = (graph.inputs.clone(), graph.outputs.clone());
    for i in 0..graph.values.len() {
        let value = graph.value_mut(ValueId(i as u32));
        if let Some(tensor) = value.constant.as_ref().filter(|t| t.dtype() == DType::F16) {
            let tensor = Tensor::new(tensor.shape(), &tensor.to_f32s())?;
            set_constant(value, tensor);
        } else if is_half(ValueId(i as u32)) && !inputs.contains(&ValueId(i as u32)) {
            value.dtype = Some(DType::F32);
        }
    }
    for node in &mut graph.nodes {
        if let Some(cast) = node.op.as_op::<Cast>().filter(|cast| cast.to == DType::F16) {
            node.op = Arc::new(Cast { to: DType::F32, ..*cast });
        }
    }
    // What inner nodes read and write in place of the graph's inputs and outputs.
    let mut inner: HashMap<ValueId, ValueId> = HashMap::new();
    let mut ends = Vec::new();
    for v in inputs.iter().chain(&outputs).copied().filter(|&v| is_half(v)) {
        let is_input = inputs.contains(&v);
        if inner.contains_key(&v) || (!is_input && graph.constant(v).is_some()) {
            continue;
        }
        let Value { name, shape, .. } = graph.value(v).clone();
        let name = format!("{name} as f32");
        let wide =
            graph.add_value(Value { name: name.clone(), dtype: Some(DType::F32), shape, constant: None });
        let (to, from, made) = if is_input { (DType::F32, v, wide) } else { (DType::F16, wide, v) };
        graph.value_mut(v).dtype = Some(DType::F16);
        let (inputs, outputs) = (vec![Some(from)], vec![Some(made)]);
        ends.push(Node { name, op: Arc::new(Cast::new(to)), inputs, outputs });
        inner.insert(v, wide);
    }
    for node in &mut graph.nodes {
        for v in node.inputs.iter_mut().chain(&mut node.outputs).flatten() {
            *v = inner.get(v).copied().unwrap_or(*v);
        }
    }
    graph.nodes.extend(ends);
    graph.sort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{histogram, numbers, unary};
    use planish_graph::ops::math::binary::{Binary, BinaryFunction};
    use planish_graph::ops::math::unary::UnaryFunction::{Exp, Relu};
    use planish_graph::{Dim, reference};

    fn half(shape: &[usize], seed: u32) -> Tensor {
        Tensor::from_f64s(DType::F16, shape, &numbers(shape, seed).to_f64s()).unwrap()
    }

    #[test]
    fn all_is_computed_in_f32_between_conversions() {
        let mut graph = Graph::new("test");
        let x = graph.add_input("x", DType::F16, &[Dim::Fixed(3)]);
        let w = graph.add_constant("w", half(&[3], 7));
        let sum = graph.add_node("sum", Binary { function: BinaryFunction::Add }, &[x, w]);
        let single = graph.add_node("single", Cast::new(DType::F32), &[sum]);
        let power = unary(&mut graph, "power", Exp, single);
        let back = graph.add_node("back", Cast::new(DType::F16), &[power]);
        let y = unary(&mut graph, "y", Relu, back);
        // An output that is read on, and one of another type.
        graph.outputs = vec![sum, y, power];
        let inputs = [half(&[3], 1)];
        let want = reference::run(&graph, &inputs).unwrap();
        assert!(WidenHalves.run(&mut graph).unwrap() > 0);
        graph.validate().unwrap();
        let got = reference::run(&graph, &inputs).unwrap();
        for (want, got) in want.iter().zip(&got) {
            assert_eq!(want.dtype(), got.dtype());
            for (want, got) in want.to_f64s().into_iter().zip(got.to_f64s()) {
                // What is not rounded any more: the sum, which moves its exponential as much, and that itself.
                let bound = want.abs() * (1.0 / 2048.0 * 6.0 + 1.0 / 1024.0) + 1e-6;
                assert!((want - got).abs() <= bound, "{got} for {want}");
            }
        }
        let values = graph.values.iter().filter(|v| v.dtype == Some(DType::F16)).count();
        assert_eq!(values, 3, "one input, two outputs");
        assert_eq!(histogram(&graph)["Cast"], 5);
        assert_eq!(WidenHalves.run(&mut graph).unwrap(), 0);
    }

    #[test]
    fn where_types_do_not_come_out_nothing_changes() {
        use planish_graph::ops::math::cast::BitCast;
        let mut graph = Graph::new("test");
        let x = graph.add_input("x", DType::F16, &[Dim::Fixed(3)]);
        let y = unary(&mut graph, "y", Relu, x);
        let bits = graph.add_node("bits", BitCast { to: DType::I16 }, &[y]);
        graph.outputs = vec![bits];
        let before = format!("{graph:?}");
        assert_eq!(WidenHalves.run(&mut graph).unwrap(), 0);
        assert_eq!(format!("{graph:?}"), before);
    }
}
