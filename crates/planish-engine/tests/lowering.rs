//! That operators run by their kernels, in every layout they may meet, and that the kernels answer as the reference does.
//!
//! A lowering family that loses an operator is no error anywhere: the operator would run by its reference, only slowly.
//! So these tests look at the steps of the plan as well as at the numbers.

use planish_engine::run::session::random_input;
use planish_engine::{CancelToken, Profile, Session, SessionOptions};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::math::reduce::{Reduce, ReduceFunction};
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::movement::concat::Concat;
use planish_graph::ops::movement::gather::Gather;
use planish_graph::ops::movement::reshape::Reshape;
use planish_graph::ops::nn::batch_normalization::BatchNormalization;
use planish_graph::ops::nn::conv_transpose::ConvTranspose;
use planish_graph::ops::nn::group_normalization::{GroupNormalization, InstanceNormalization};
use planish_graph::ops::nn::layer_normalization::{LayerNormalization, RowRule};
use planish_graph::ops::nn::pool::{AveragePool, PoolWindow};
use planish_graph::ops::nn::response_normalization::Lrn;
use planish_graph::{DType, Dim, Graph, Operator, Tensor, ValueId, reference};

fn graph(shape: &[usize]) -> (Graph, ValueId) {
    let mut graph = Graph::new("test");
    let dims: Vec<Dim> = shape.iter().map(|&d| Dim::Fixed(d)).collect();
    let x = graph.add_input("x", DType::F32, &dims);
    (graph, x)
}

/// Adds a constant of positive numbers around one.
fn positive(graph: &mut Graph, shape: &[usize]) -> ValueId {
    let name = format!("constant {}", graph.values.len());
    let noise = random_input(DType::F32, shape, graph.values.len() as u64).unwrap();
    let values: Vec<f32> = noise.to_f32s().iter().map(|x| 0.5 + x * x).collect();
    graph.add_constant(&name, Tensor::new(shape, &values).unwrap())
}

fn relu(graph: &mut Graph, x: ValueId) -> ValueId {
    let name = format!("relu {}", graph.values.len());
    graph.add_node(&name, Unary { function: UnaryFunction::Relu }, &[x])
}

/// Runs `graph` by a session and by its reference, which must agree, and gives the steps: operator and algorithm.
fn steps(graph: &Graph) -> Vec<(String, String)> {
    let given: Vec<Tensor> = graph
        .inputs
        .iter()
        .map(|&id| {
            let extent = |d: &Dim| if let Dim::Fixed(n) = d { *n } else { 2 };
            let shape: Vec<usize> = graph.value(id).shape.iter().flatten().map(extent).collect();
            random_input(DType::F32, &shape, 5).unwrap()
        })
        .collect();
    let want = reference::run(graph, &given).unwrap();
    let mut steps = Vec::new();
    for threads in [1, 3] {
        let options = SessionOptions { threads, ..SessionOptions::default() };
        let session = Session::new(graph.clone(), &options).unwrap();
        let mut profile = Profile::default();
        let got = session.run_with(&given, &CancelToken::new(), Some(&mut profile)).unwrap();
        for (want, got) in want.iter().zip(&got) {
            assert_eq!(want.shape(), got.shape());
            // Sums of at most a few hundred products of numbers near one.
            for (w, g) in want.to_f64s().into_iter().zip(got.to_f64s()) {
                assert!(w == g || (w - g).abs() <= 2e-5 * (1.0 + w.abs()), "{w} became {g}\n{graph}");
            }
        }
        steps = profile.steps.into_iter().map(|s| (s.operator, s.algorithm)).collect();
    }
    steps
}

/// Runs one operator behind activations that keep a network's usual layout, with `constants` of these shapes.
fn check(shape: &[usize], op: impl Operator + Clone, constants: &[&[usize]], algorithm: &str) {
    let name = op.name();
    for channels_last in [false, true] {
        let (mut graph, x) = graph(shape);
        let before = match channels_last {
            // LRN of one channel changes numbers little, and works channels-last.
            true if shape.len() >= 3 => {
                graph.add_node("before", Lrn { alpha: 0.1, beta: 0.5, bias: 1.0, size: 1 }, &[x])
            }
            _ => graph.add_node("before", Unary { function: UnaryFunction::Sigmoid }, &[x]),
        };
        let mut inputs = vec![before];
        inputs.extend(constants.iter().map(|s| positive(&mut graph, s)));
        let made = graph.add_node("op", op.clone(), &inputs);
        // The operator must not write over what is read behind it.
        let later = graph.add_node("later", Unary { function: UnaryFunction::Tanh }, &[before]);
        graph.outputs = vec![made, later];
        let steps = steps(&graph);
        let found = steps.iter().rfind(|(operator, _)| operator == name).expect("the operator makes a step");
        assert_eq!(found.1, algorithm, "{name} of {shape:?}");
    }
}

#[test]
fn layer_normalisation_runs_by_its_kernel() {
    let op = |axis| LayerNormalization { rule: RowRule { axis, epsilon: 1e-5, stash_type: DType::F32 } };
    check(&[2, 7, 5, 13], op(-1), &[&[13], &[13]], "layer");
    check(&[2, 7, 5, 13], op(-1), &[&[13]], "layer");
    check(&[3, 5, 3, 7], op(2), &[&[3, 7], &[1, 1, 3, 1]], "layer");
    check(&[3, 5, 3, 7], op(1), &[&[5, 3, 7], &[7]], "layer");
    check(&[2, 3], op(0), &[&[2, 3], &[1]], "layer");
    check(&[1, 3, 17], op(1), &[&[1], &[]], "layer");
    // A scale that differs from row to row.
    check(&[2, 3, 5], op(2), &[&[3, 5]], "reference");
}

#[test]
fn group_and_instance_normalisation_run_by_their_kernel() {
    let group = |num_groups| GroupNormalization { num_groups, epsilon: 1e-3 };
    check(&[2, 12, 5, 3], group(4), &[&[12], &[12]], "group");
    check(&[2, 12, 5, 3], group(1), &[&[12], &[12]], "group");
    check(&[1, 35, 7], group(7), &[&[35], &[35]], "group");
    // One scale for each group, as opset 18 had it.
    check(&[3, 6, 2, 3, 2], group(3), &[&[3], &[3]], "group");
    let instance = InstanceNormalization { epsilon: 1e-3 };
    check(&[3, 5, 7, 2], instance, &[&[5], &[5]], "group");
    check(&[2, 37, 9], instance, &[&[37], &[37]], "group");
}

#[test]
fn local_response_normalisation_runs_by_its_kernel() {
    for (channels, size) in [(7, 5), (7, 4), (3, 5), (33, 2), (1, 1)] {
        let op = Lrn { alpha: 0.2, beta: 0.75, bias: 1.5, size };
        check(&[2, channels, 3, 5], op, &[], "local response");
    }
    // More zeros than channels.
    check(&[2, 3, 4], Lrn { alpha: 0.2, beta: 0.75, bias: 1.5, size: 7 }, &[], "reference");
}

/// Shape of the data, axis, shape of the indices, indices, and the kernel that is expected.
type GatherCase = (&'static [usize], i64, &'static [usize], &'static [i64], &'static str);

#[test]
fn gathering_by_constant_indices_runs_by_its_kernel() {
    let cases: [GatherCase; 6] = [
        (&[7, 5], 1, &[], &[-2], "strided copy"),
        (&[2, 7, 5, 3], 0, &[], &[1], "strided copy"),
        (&[2, 7, 5, 3], -2, &[3], &[1, 2, 3], "strided copy"),
        (&[2, 7, 5, 3], 1, &[2, 2], &[6, 0, -7, 3], "index tables"),
        (&[2, 7, 5], 2, &[4], &[4, 4, 0, 1], "index tables"),
        (&[9], 0, &[1, 2], &[8, 0], "index tables"),
    ];
    for (shape, axis, picked, indices, algorithm) in cases {
        for channels_last in [false, true] {
            let (mut graph, mut x) = graph(shape);
            if channels_last && shape.len() >= 3 {
                x = graph.add_node("before", Lrn { alpha: 0.1, beta: 0.5, bias: 1.0, size: 1 }, &[x]);
            }
            let indices = graph.add_constant("indices", Tensor::new(picked, indices).unwrap());
            let y = graph.add_node("y", Gather { axis }, &[x, indices]);
            graph.outputs.push(y);
            let steps = steps(&graph);
            assert!(steps.contains(&("Gather".to_string(), algorithm.to_string())), "{steps:?}");
        }
    }
}

#[test]
fn windows_of_nothing_but_padding_have_the_mean_of_the_reference() {
    for count_include_pad in [false, true] {
        for (kernel, stride, dilation, pads) in [(2, 1, 4, [2, 2]), (2, 1, 4, [3, 1]), (3, 1, 2, [3, 2])] {
            let window = PoolWindow {
                kernel_shape: vec![kernel; 2],
                strides: vec![stride; 2],
                dilations: vec![dilation; 2],
                pads: vec![pads[0], pads[1], pads[1], pads[0]],
                ..PoolWindow::default()
            };
            // Only gaps between the cells of a window can be larger than the input.
            check(&[2, 5, 2, 2], AveragePool { window, count_include_pad }, &[], "pooling");
        }
    }
}

#[test]
fn products_that_leave_the_range_of_floats_on_the_way_come_back() {
    let (mut graph, x) = graph(&[2, 3]);
    let factors = [1e30f32, 1e20, 1e25, -1e25, 1e-30, 1e-20, 1e-25, 1e-24];
    let factors = graph.add_constant("factors", Tensor::new(&[1, 8, 1, 1], &factors).unwrap());
    let shape = graph.add_constant("shape", Tensor::from_i64s(&[1, 1, 2, 3]).unwrap());
    let x = graph.add_node("reshaped", Reshape { allow_zero: false }, &[x, shape]);
    let all = graph.add_node("all", Binary { function: BinaryFunction::Mul }, &[x, factors]);
    let axes = graph.add_constant("axes", Tensor::from_i64s(&[1]).unwrap());
    let op = Reduce { function: ReduceFunction::Prod, keepdims: true, noop_with_empty_axes: false };
    let y = graph.add_node("y", op, &[all, axes]);
    graph.outputs.push(y);
    let steps = steps(&graph);
    assert!(steps.contains(&("ReduceProd".to_string(), "reduction".to_string())), "{steps:?}");
}

/// How many steps there are of an operator.
fn count(steps: &[(String, String)], operator: &str) -> usize {
    steps.iter().filter(|(o, _)| o == operator).count()
}

#[test]
fn activations_are_done_by_the_kernel_before_them() {
    let (mut graph, x) = graph(&[2, 5, 3, 7]);
    let batch: Vec<ValueId> = std::iter::once(x).chain((0..4).map(|_| positive(&mut graph, &[5]))).collect();
    let y = graph.add_node("batch", BatchNormalization::default(), &batch);
    let y = relu(&mut graph, y);
    let scale = [positive(&mut graph, &[5]), positive(&mut graph, &[5])];
    let op = GroupNormalization { num_groups: 5, epsilon: 1e-5 };
    let y = graph.add_node("group", op, &[y, scale[0], scale[1]]);
    let y = relu(&mut graph, y);
    let weights = positive(&mut graph, &[5, 4, 2, 2]);
    let up = graph.add_node("up", ConvTranspose::default(), &[y, weights]);
    let up = graph.add_node("tanh", Unary { function: UnaryFunction::Tanh }, &[up]);
    // Written into the concatenation, by another name than the node's own.
    let joined = graph.add_node("joined", Concat { axis: 1 }, &[up, up]);
    let twice = graph.add_node("twice", Binary { function: BinaryFunction::Mul }, &[joined, joined]);
    let last = relu(&mut graph, twice);
    graph.outputs.push(last);
    let steps = steps(&graph);
    assert_eq!(count(&steps, "Relu") + count(&steps, "Tanh"), 0, "{steps:?}");
}

#[test]
fn activations_are_done_by_matrix_products() {
    let (mut graph, x) = graph(&[3, 7]);
    let (weights, bias) = (positive(&mut graph, &[5, 7]), positive(&mut graph, &[5]));
    let gemm = Gemm { alpha: 0.5, beta: -2.0, trans_a: false, trans_b: true };
    let y = graph.add_node("gemm", gemm, &[x, weights, bias]);
    let y = relu(&mut graph, y);
    let matrix = positive(&mut graph, &[5, 9]);
    let y = graph.add_node("matmul", MatMul, &[y, matrix]);
    let y = graph.add_node("sigmoid", Unary { function: UnaryFunction::Sigmoid }, &[y]);
    graph.outputs.push(y);
    let steps = steps(&graph);
    assert_eq!(count(&steps, "Relu") + count(&steps, "Sigmoid"), 0, "{steps:?}");
}

#[test]
fn activations_stay_where_their_input_is_read_by_others() {
    let (mut graph, x) = graph(&[2, 5, 3]);
    let sum = graph.add_node("sum", Binary { function: BinaryFunction::Add }, &[x, x]);
    let y = relu(&mut graph, sum);
    let z = graph.add_node("z", Binary { function: BinaryFunction::Mul }, &[y, y]);
    let bent = relu(&mut graph, z);
    graph.outputs = vec![sum, bent, z];
    let steps = steps(&graph);
    assert_eq!(count(&steps, "Relu"), 2, "{steps:?}");
}
