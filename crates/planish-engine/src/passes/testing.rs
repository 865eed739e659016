//! What the tests of all passes share: small graphs, and the check that a pass keeps their meaning.

use super::known_contents::KnownContents;
use super::{Pass, run_pass};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::nn::quantized::fused::Grid;
use planish_graph::{DType, Dim, Graph, Tensor, ValueId, reference};
use std::collections::BTreeMap;

/// A graph with one `f32` input "x" of a fixed shape.
pub fn input(shape: &[usize]) -> (Graph, ValueId) {
    let mut graph = Graph::new("test");
    let dims: Vec<Dim> = shape.iter().map(|&d| Dim::Fixed(d)).collect();
    let x = graph.add_input("x", DType::F32, &dims);
    (graph, x)
}

/// Numbers between -2 and 2 that look random and are always the same for a `seed`.
pub fn numbers(shape: &[usize], seed: u32) -> Tensor {
    let count: usize = shape.iter().product();
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 22) as f32 - 2.0
        })
        .collect();
    Tensor::new(shape, &values).unwrap()
}

/// Adds a constant of numbers that look random.
pub fn weights(graph: &mut Graph, name: &str, shape: &[usize]) -> ValueId {
    graph.add_constant(name, numbers(shape, graph.values.len() as u32))
}

/// Adds a constant of one number.
pub fn scalar(graph: &mut Graph, name: &str, value: f32) -> ValueId {
    graph.add_constant(name, Tensor::scalar(value))
}

/// Adds a list of whole numbers.
pub fn list(graph: &mut Graph, name: &str, values: &[i64]) -> ValueId {
    graph.add_constant(name, Tensor::from_i64s(values).unwrap())
}

/// Adds a function of one value.
pub fn unary(graph: &mut Graph, name: &str, function: UnaryFunction, x: ValueId) -> ValueId {
    graph.add_node(name, Unary { function }, &[x])
}

/// Adds a function of two values.
pub fn binary(graph: &mut Graph, name: &str, function: BinaryFunction, a: ValueId, b: ValueId) -> ValueId {
    graph.add_node(name, Binary { function }, &[a, b])
}

/// Adds a conversion to the levels of a grid or from them, with its constants.
pub fn convert(graph: &mut Graph, name: &str, to_levels: bool, x: ValueId, grid: &Grid) -> ValueId {
    let [scale, zero] = grid.tensors().unwrap();
    let scale = graph.add_constant(&format!("{name}.s"), scale);
    let zero = graph.add_constant(&format!("{name}.z"), zero);
    match to_levels {
        true => graph.add_node(name, grid.quantize(), &[x, scale, zero]),
        false => graph.add_node(name, grid.dequantize(), &[x, scale, zero]),
    }
}

/// Inputs for `graph`; open extents become 2.
pub fn inputs(graph: &Graph) -> Vec<Tensor> {
    let extent = |d: &Dim| if let Dim::Fixed(n) = d { *n } else { 2 };
    let tensor = |(i, &id): (usize, &ValueId)| {
        let value = graph.value(id);
        let shape: Vec<usize> = value.shape.iter().flatten().map(extent).collect();
        match value.dtype.unwrap() {
            DType::F32 => numbers(&shape, i as u32),
            dtype => Tensor::zeros(dtype, &shape).unwrap(),
        }
    };
    graph.inputs.iter().enumerate().map(tensor).collect()
}

/// How many nodes there are of each operator.
pub fn histogram(graph: &Graph) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for node in &graph.nodes {
        *counts.entry(node.op.name()).or_default() += 1;
    }
    counts
}

/// [`check`] on a graph whose types and shapes are inferred first, as they are in a round.
pub fn check_inferred(pass: &dyn Pass, mut graph: Graph, remaining: &[(&'static str, usize)]) -> Graph {
    KnownContents.run(&mut graph).unwrap();
    check(pass, graph, remaining)
}

/// Runs `pass` (twice: the second time it must find nothing), checks that outputs stay as they were within 1e-5 and keep
/// their names, and that exactly these operators remain.
pub fn check(pass: &dyn Pass, graph: Graph, remaining: &[(&'static str, usize)]) -> Graph {
    graph.validate().unwrap();
    let mut after = graph.clone();
    run_pass(pass, &mut after).unwrap();
    assert_eq!(pass.run(&mut after).unwrap(), 0, "{} does not come to rest:\n{after}", pass.name());
    after.validate().unwrap();
    assert_eq!(histogram(&after), remaining.iter().copied().collect(), "{after}");
    check_same(&graph, &after);
    after
}

/// Checks that two graphs have the same interface and give the same outputs.
pub fn check_same(before: &Graph, after: &Graph) {
    let names = |g: &Graph, ids: &[ValueId]| ids.iter().map(|&i| g.value(i).name.clone()).collect::<Vec<_>>();
    assert_eq!(names(before, &before.inputs), names(after, &after.inputs));
    assert_eq!(names(before, &before.outputs), names(after, &after.outputs));
    let given = inputs(before);
    let wanted = reference::run(before, &given).unwrap();
    let found = reference::run(after, &given).unwrap();
    for (wanted, found) in wanted.iter().zip(&found) {
        assert_eq!((wanted.dtype(), wanted.shape()), (found.dtype(), found.shape()));
        for (w, f) in wanted.to_f64s().into_iter().zip(found.to_f64s()) {
            assert!(w == f || (w - f).abs() <= 1e-5 * w.abs().max(1.0), "{w} became {f}\n{after}");
        }
    }
}
