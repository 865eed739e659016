//! Activations kept as `bf16` or `f16`: the answers stay within what its rounding explains, values are converted no more often than
//! they have to be, and nothing happens that was not asked for.
//!
//! Where the machine has no instructions for them, sessions compute in `f32`, and these tests say little.

use planish_cpu::element::ElementType;
use planish_cpu::isa::Isa;
use planish_engine::plan::choose::ChooserOptions;
use planish_engine::run::session::random_input;
use planish_engine::{CancelToken, Profile, Session, SessionOptions};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::softmax::{Softmax, SoftmaxFunction};
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::movement::concat::Concat;
use planish_graph::ops::movement::flatten::Flatten;
use planish_graph::ops::movement::split::Split;
use planish_graph::ops::nn::channel_shuffle::ChannelShuffle;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::global_pool::{GlobalPool, GlobalPoolKind};
use planish_graph::ops::nn::pool::{MaxPool, PoolWindow};
use planish_graph::{DType, Dim, Graph, Node, Operator, Tensor, Value, ValueId, reference};
use std::sync::Arc;

/// A network in the making.
struct Net {
    graph: Graph,
    /// What the next value is called.
    count: usize,
}

impl Net {
    fn new(shape: &[usize]) -> (Net, ValueId) {
        let mut graph = Graph::new("test");
        let dims: Vec<Dim> = shape.iter().map(|&d| Dim::Fixed(d)).collect();
        let x = graph.add_input("x", DType::F32, &dims);
        (Net { graph, count: 0 }, x)
    }
    fn constant(&mut self, shape: &[usize], scale: f64) -> ValueId {
        self.count += 1;
        let noise = random_input(DType::F32, shape, self.count as u64).unwrap().to_f64s();
        let values: Vec<f32> = noise.iter().map(|x| (x * scale) as f32).collect();
        self.graph.add_constant(&format!("constant {}", self.count), Tensor::new(shape, &values).unwrap())
    }
    fn add(&mut self, op: impl Operator, inputs: &[ValueId]) -> ValueId {
        self.count += 1;
        self.graph.add_node(&format!("value {}", self.count), op, inputs)
    }
    /// A convolution that keeps the size, with weights that keep the magnitude.
    fn conv(&mut self, x: ValueId, channels: [usize; 2], kernel: usize, group: usize) -> ValueId {
        let depth = channels[0] / group * kernel * kernel;
        let weights =
            self.constant(&[channels[1], channels[0] / group, kernel, kernel], 1.0 / (depth as f64).sqrt());
        let bias = self.constant(&[channels[1]], 0.1);
        let pads = vec![kernel / 2; 4];
        self.add(Conv { pads, group, ..Conv::default() }, &[x, weights, bias])
    }
    fn relu(&mut self, x: ValueId) -> ValueId {
        self.add(Unary { function: UnaryFunction::Relu }, &[x])
    }
}

/// A stem, a dense block, a residual block with squeeze-and-excite, a shuffle of split channels, a classifier: 9 layers deep.
fn classifier() -> Graph {
    let (mut net, x) = Net::new(&[2, 3, 19, 17]);
    let stem = net.conv(x, [3, 24], 3, 1);
    let stem = net.relu(stem);
    let window = PoolWindow {
        kernel_shape: vec![3, 3],
        strides: vec![2, 2],
        pads: vec![1; 4],
        ..PoolWindow::default()
    };
    let a = net.add(MaxPool { window, column_major: false }, &[stem]);
    let b = net.conv(a, [24, 17], 3, 1);
    let b = net.add(Unary { function: UnaryFunction::HardSwish }, &[b]);
    let joined = net.add(Concat { axis: 1 }, &[a, b]);
    let c = net.conv(joined, [41, 24], 1, 1);
    let d = net.conv(c, [24, 24], 5, 24);
    let d = net.relu(d);
    let squeezed = net.add(GlobalPool { kind: GlobalPoolKind::Average }, &[d]);
    let squeezed = net.conv(squeezed, [24, 24], 1, 1);
    let gates = net.add(Unary { function: UnaryFunction::Sigmoid }, &[squeezed]);
    let d = net.add(Binary { function: BinaryFunction::Mul }, &[d, gates]);
    let sum = net.add(Binary { function: BinaryFunction::Add }, &[d, a]);
    let shuffled = net.add(ChannelShuffle { groups: 3 }, &[sum]);
    let e = net.conv(shuffled, [24, 32], 3, 8);
    let e = net.relu(e);
    let pooled = net.add(GlobalPool { kind: GlobalPoolKind::Average }, &[e]);
    let flat = net.add(Flatten { axis: 1 }, &[pooled]);
    let (weights, bias) = (net.constant(&[32, 10], 0.5), net.constant(&[10], 0.1));
    let scores = net.add(Gemm::default(), &[flat, weights, bias]);
    let y = net.add(Softmax { function: SoftmaxFunction::Softmax, axis: 1, flatten: false }, &[scores]);
    // A spatial value that is read on, too.
    net.graph.outputs = vec![y, sum];
    net.graph
}

fn session(graph: &Graph, precision: ElementType, threads: usize) -> Session {
    let options = SessionOptions { precision, threads, ..SessionOptions::default() };
    Session::new(graph.clone(), &options).unwrap()
}

/// The norm of the difference over that of what was wanted.
fn relative(want: &Tensor, got: &Tensor) -> f64 {
    assert_eq!((want.dtype(), want.shape()), (got.dtype(), got.shape()));
    let (want, got) = (want.to_f64s(), got.to_f64s());
    let square: f64 = want.iter().zip(&got).map(|(w, g)| (w - g) * (w - g)).sum();
    (square / want.iter().map(|w| w * w).sum::<f64>()).sqrt()
}

#[test]
fn networks_err_no_more_than_roundings_explain() {
    let graph = classifier();
    let inputs = [random_input(DType::F32, &[2, 3, 19, 17], 3).unwrap()];
    let want = reference::run(&graph, &inputs).unwrap();
    // Each of 9 layers rounds its weights and its result, by at most 2^-8 (or 2^-11), evenly spread: 2^-8 / √3 each. They
    // add up like steps of a random walk; √18 of them are 1 %, and three times that is far below any mistake.
    for (precision, bound) in [(ElementType::Bf16, 0.03), (ElementType::F16, 0.03 / 8.0)] {
        for (threads, isa) in [(1, None), (3, None), (2, Some(Isa::Avx2))] {
            if isa.is_some_and(|isa| !isa.is_available()) {
                continue;
            }
            let options = SessionOptions { precision, threads, isa, ..SessionOptions::default() };
            let session = Session::new(graph.clone(), &options).unwrap();
            let got = session.run(&inputs).unwrap();
            for (want, got) in want.iter().zip(&got) {
                let error = relative(want, got);
                assert!(error < bound, "{precision}: {error}");
                let rounds = session.precision() == precision;
                assert_eq!(error > 1e-5, rounds, "{precision}: {error}");
            }
        }
    }
}

/// [`classifier`] as PyTorch writes it behind `.half()`: inputs, weights and outputs are `f16`.
fn in_halves() -> Graph {
    let mut graph = classifier();
    let half = |tensor: &Tensor| Tensor::from_f64s(DType::F16, tensor.shape(), &tensor.to_f64s()).unwrap();
    for value in &mut graph.values {
        if value.dtype == Some(DType::F32) {
            value.dtype = Some(DType::F16);
        }
        if let Some(tensor) = value.constant.as_mut().filter(|t| t.dtype() == DType::F32) {
            *tensor = half(tensor);
        }
    }
    graph
}

#[test]
fn networks_in_halves_run_by_kernels() {
    let graph = in_halves();
    let inputs = [random_input(DType::F16, &[2, 3, 19, 17], 3).unwrap()];
    // The reference rounds behind every operator, 30 of them, as we do not: √30 roundings of 2^-11 / √3, and three times
    // that.
    let want = reference::run(&graph, &inputs).unwrap();
    for precision in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
        let session = session(&graph, precision, 2);
        let mut profile = Profile::default();
        let got = session.run_with(&inputs, &CancelToken::new(), Some(&mut profile)).unwrap();
        let bound = if session.precision() == ElementType::Bf16 { 0.03 } else { 0.005 };
        for (want, got) in want.iter().zip(&got) {
            assert_eq!(got.dtype(), DType::F16);
            assert!(relative(want, got) < bound, "{precision}: {}", relative(want, got));
        }
        assert!(!profile.steps.iter().any(|s| s.algorithm == "reference"), "{profile:?}");
        let conversions: Vec<&str> = profile
            .steps
            .iter()
            .filter(|s| s.operator == "conversion")
            .map(|s| s.algorithm.as_str())
            .collect();
        if session.precision() == ElementType::F16 {
            // Softmax computes in `f32`.
            assert_eq!(conversions, ["to f16"], "{precision}");
        }
    }
}

#[test]
fn what_is_too_large_for_halves_becomes_infinite() {
    let (mut net, x) = Net::new(&[1, 1, 2, 2]);
    let scale = net.graph.add_constant("scale", Tensor::new(&[2, 1, 1, 1], &[1.0f32, 3e4]).unwrap());
    let scaled = net.add(Conv::default(), &[x, scale]);
    let y = net.relu(scaled);
    net.graph.outputs = vec![y];
    let inputs = [Tensor::new(&[1, 1, 2, 2], &[1.0f32, 2.0, 3.0, -3.0]).unwrap()];
    let session = session(&net.graph, ElementType::F16, 1);
    let got = session.run(&inputs).unwrap().remove(0).to_f32s();
    let large = if session.precision() == ElementType::F16 { f32::INFINITY } else { 9e4 };
    assert_eq!(got, [1.0, 2.0, 3.0, 0.0, 3e4, 6e4, large, 0.0]);
}

/// Weights that are read once are kept as `f16`, but for those that have none near them.
#[test]
fn a_few_rows_meet_matrices_of_halves() {
    for (rows, largest) in [(1, 1.0f32), (3, 1.0), (5, 1.0), (1, 1e5)] {
        let (mut net, x) = Net::new(&[rows, 70]);
        let mut weights = random_input(DType::F32, &[90, 70], 4).unwrap().to_f32s();
        weights[7] = largest;
        let weights = net.graph.add_constant("weights", Tensor::new(&[90, 70], &weights).unwrap());
        let bias = net.constant(&[90], 0.1);
        let hidden =
            net.add(Gemm { alpha: 0.5, beta: 1.0, trans_a: false, trans_b: true }, &[x, weights, bias]);
        let hidden = net.relu(hidden);
        let last = net.constant(&[90, 11], 0.1);
        let y = net.add(planish_graph::ops::math::matmul::MatMul, &[hidden, last]);
        net.graph.outputs = vec![y];
        let inputs = [random_input(DType::F32, &[rows, 70], 3).unwrap()];
        let want = reference::run(&net.graph, &inputs).unwrap();
        let session = session(&net.graph, ElementType::F16, 2);
        let error = relative(&want[0], &session.run(&inputs).unwrap()[0]);
        // Two layers, see above; their inputs are rounded as well.
        let rounds = session.precision() == ElementType::F16;
        assert!(error < 0.002 && (error > 1e-5) == rounds, "{rows} {largest}: {error}");
    }
}

#[test]
fn networks_on_the_tile_unit_err_no_more_on_any_number_of_threads() {
    if let Err(reason) = planish_cpu::amx::emulate() {
        eprintln!("skipped: {reason}");
        return;
    }
    let graph = classifier();
    let inputs = [random_input(DType::F32, &[2, 3, 19, 17], 3).unwrap()];
    let want = reference::run(&graph, &inputs).unwrap();
    // The planner's choice, which may differ with the threads, and one algorithm for all layers, which may not.
    for only in [None, Some("im2col".to_string())] {
        let answers = [1, 2].map(|threads| {
            let options = SessionOptions {
                precision: ElementType::Bf16,
                isa: Some(Isa::Amx),
                threads,
                chooser: ChooserOptions { only: only.clone(), ..ChooserOptions::default() },
                ..SessionOptions::default()
            };
            let session = Session::new(graph.clone(), &options).unwrap();
            assert_eq!(session.precision(), ElementType::Bf16);
            session.run(&inputs).unwrap()
        });
        for got in &answers {
            for (want, got) in want.iter().zip(got) {
                let error = relative(want, got);
                assert!(error < 0.03 && error > 1e-5, "{error}");
            }
        }
        assert!(only.is_none() || answers[0] == answers[1]);
    }
}

#[test]
fn values_are_converted_once_at_each_border() {
    let graph = classifier();
    for precision in [ElementType::Bf16, ElementType::F16] {
        let session = session(&graph, precision, 1);
        if session.precision() != ElementType::F32 {
            check_conversions(&session);
        }
    }
}

fn check_conversions(session: &Session) {
    let mut profile = Profile::default();
    let input = random_input(DType::F32, &[2, 3, 19, 17], 3).unwrap();
    session.run_with(&[input], &CancelToken::new(), Some(&mut profile)).unwrap();
    let of = |operator: &str| {
        let steps = profile.steps.iter().filter(|s| s.operator == operator);
        steps.map(|s| s.algorithm.as_str()).collect::<Vec<_>>()
    };
    // The input, and the value that is given out; the product writes what softmax reads.
    let to_short = format!("to {}", session.precision());
    assert_eq!(of("conversion"), [to_short.as_str(), "to f32"]);
    // The input is turned. The concatenation is written in place but for what the pooling wrote, which is read elsewhere.
    assert_eq!(of("layout change"), ["channels last"]);
    assert!(!profile.steps.iter().any(|s| s.algorithm == "reference"), "{profile:?}");
}

#[test]
fn split_channels_are_views_of_odd_starts() {
    let (mut net, x) = Net::new(&[1, 4, 9, 11]);
    let whole = net.conv(x, [4, 23], 3, 1);
    let sizes = net.graph.add_constant("sizes", Tensor::from_i64s(&[7, 16]).unwrap());
    let parts = ["left", "right"]
        .map(|name| net.graph.add_value(Value { name: name.to_string(), ..Value::default() }));
    net.graph.nodes.push(Node {
        name: "split".to_string(),
        op: Arc::new(Split { axis: 1, num_outputs: None }),
        inputs: vec![Some(whole), Some(sizes)],
        outputs: parts.map(Some).to_vec(),
    });
    let left = net.conv(parts[0], [7, 8], 3, 1);
    let right = net.conv(parts[1], [16, 8], 1, 1);
    let sum = net.add(Binary { function: BinaryFunction::Add }, &[left, right]);
    net.graph.outputs = vec![sum];
    let inputs = [random_input(DType::F32, &[1, 4, 9, 11], 3).unwrap()];
    let want = reference::run(&net.graph, &inputs).unwrap();
    let got = session(&net.graph, ElementType::Bf16, 2).run(&inputs).unwrap();
    // Two layers: see above.
    assert!(relative(&want[0], &got[0]) < 0.015);
}

#[test]
fn machines_without_the_instructions_compute_in_f32() {
    let graph = classifier();
    let inputs = [random_input(DType::F32, &[2, 3, 19, 17], 3).unwrap()];
    let run = |precision| {
        let options =
            SessionOptions { precision, isa: Some(Isa::Portable), threads: 1, ..SessionOptions::default() };
        let session = Session::new(graph.clone(), &options).unwrap();
        assert_eq!(session.precision(), ElementType::F32);
        session.run(&inputs).unwrap().iter().map(|t| t.bytes().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(run(ElementType::F32), run(ElementType::Bf16));
    assert_eq!(run(ElementType::F32), run(ElementType::F16));
}
