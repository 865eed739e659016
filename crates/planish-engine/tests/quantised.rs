//! Quantised networks: every layer between two conversions is computed on levels, the bytes are the same on every
//! instruction set and number of threads, and the answer is the reference's but for what is next to a tie.

use planish_cpu::isa::Isa;
use planish_engine::run::session::random_input;
use planish_engine::{CancelToken, Profile, Session, SessionOptions};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::movement::concat::Concat;
use planish_graph::ops::movement::flatten::Flatten;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::global_pool::{GlobalPool, GlobalPoolKind};
use planish_graph::ops::nn::pool::{AveragePool, MaxPool, PoolWindow};
use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, Granularity, QuantizeLinear};
use planish_graph::{DType, Dim, Graph, Operator, Tensor, ValueId, reference};

/// A quantised network in the making.
struct Net {
    graph: Graph,
    /// What the next value is called.
    count: usize,
    /// Whether activations are `i8`.
    signed: bool,
}

impl Net {
    fn add(&mut self, op: impl Operator, inputs: &[ValueId]) -> ValueId {
        self.count += 1;
        self.graph.add_node(&format!("value {}", self.count), op, inputs)
    }
    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.count += 1;
        self.graph.add_constant(&format!("constant {}", self.count), tensor)
    }
    /// Quantised and back.
    fn pair(&mut self, x: ValueId, scale: f32, zero: u8) -> ValueId {
        let scale = self.constant(Tensor::scalar(scale));
        let zero = match self.signed {
            true => Tensor::scalar((i16::from(zero) - 128) as i8),
            false => Tensor::scalar(zero),
        };
        let zero = self.constant(zero);
        let levels = self.add(QuantizeLinear::default(), &[x, scale, zero]);
        self.add(DequantizeLinear::default(), &[levels, scale, zero])
    }
    /// Weights with a scale for each output channel, `i8`, or `u8` with one scale and zero point.
    fn weights(&mut self, shape: &[usize], each: bool) -> ValueId {
        self.count += 1;
        let noise = random_input(DType::F32, shape, self.count as u64).unwrap().to_f64s();
        let depth: usize = shape[1..].iter().product();
        let step = 0.02 / (depth as f32).sqrt();
        let axis = Granularity { axis: 0, block_size: 0 };
        let op = DequantizeLinear { granularity: axis, output_dtype: None };
        if each {
            let levels: Vec<i8> = noise.iter().map(|x| (x * 50.0) as i8).collect();
            let levels = self.constant(Tensor::new(shape, &levels).unwrap());
            let scales: Vec<f32> = (0..shape[0]).map(|c| step * (1.0 + c as f32 / 9.0)).collect();
            let scales = self.constant(Tensor::new(&[shape[0]], &scales).unwrap());
            return self.add(op, &[levels, scales]);
        }
        let levels: Vec<u8> = noise.iter().map(|x| (x * 50.0 + 121.0) as u8).collect();
        let levels = self.constant(Tensor::new(shape, &levels).unwrap());
        let (scale, zero) = (self.constant(Tensor::scalar(step)), self.constant(Tensor::scalar(121u8)));
        self.add(op, &[levels, scale, zero])
    }
    /// A convolution that keeps the size.
    fn conv(
        &mut self,
        x: ValueId,
        [from, to]: [usize; 2],
        kernel: usize,
        group: usize,
        each: bool,
    ) -> ValueId {
        let w = self.weights(&[to, from / group, kernel, kernel], each);
        let bias: Vec<f32> = (0..to).map(|c| c as f32 / to as f32 - 0.4).collect();
        let bias = self.constant(Tensor::new(&[to], &bias).unwrap());
        self.add(Conv { pads: vec![kernel / 2; 4], group, ..Conv::default() }, &[x, w, bias])
    }
    fn unary(&mut self, function: UnaryFunction, x: ValueId) -> ValueId {
        self.add(Unary { function }, &[x])
    }
}

/// A little of everything, on pictures of 3×9×11.
fn network(signed: bool) -> Graph {
    let mut net = Net { graph: Graph::new("test"), count: 0, signed };
    let x = net.graph.add_input("x", DType::F32, &[2, 3, 9, 11].map(Dim::Fixed));
    let x = net.pair(x, 0.03, 120);
    let stem = net.conv(x, [3, 16], 3, 1, true);
    let stem = net.unary(UnaryFunction::Relu, stem);
    let stem = net.pair(stem, 0.02, 0);
    let deep = net.conv(stem, [16, 16], 3, 16, false);
    let deep = net.unary(UnaryFunction::HardSwish, deep);
    let deep = net.pair(deep, 0.015, 20);
    let wide = net.conv(deep, [16, 16], 1, 1, false);
    let wide = net.pair(wide, 0.03, 128);
    let sum = net.add(Binary { function: BinaryFunction::Add }, &[stem, wide]);
    let sum = net.unary(UnaryFunction::Relu, sum);
    let sum = net.pair(sum, 0.04, 0);
    let grouped = net.conv(sum, [16, 32], 3, 4, true);
    let grouped = net.pair(grouped, 0.02, 100);
    let joined = net.add(Concat { axis: 1 }, &[sum, grouped]);
    let joined = net.pair(joined, 0.03, 90);
    let window = || PoolWindow { kernel_shape: vec![2, 2], strides: vec![2, 2], ..PoolWindow::default() };
    let pooled = net.add(MaxPool { window: window(), column_major: false }, &[joined]);
    let pooled = net.pair(pooled, 0.03, 90);
    let mean = net.add(AveragePool { window: window(), count_include_pad: false }, &[pooled]);
    let mean = net.pair(mean, 0.025, 80);
    let gate = net.unary(UnaryFunction::Sigmoid, mean);
    let gate = net.pair(gate, 1.0 / 256.0, 0);
    let gated = net.add(Binary { function: BinaryFunction::Mul }, &[mean, gate]);
    let gated = net.pair(gated, 0.02, 70);
    let global = net.add(GlobalPool { kind: GlobalPoolKind::Average }, &[gated]);
    let global = net.pair(global, 0.01, 70);
    let flat = net.add(Flatten { axis: 1 }, &[global]);
    let w = net.weights(&[10, 48], true);
    let gemm = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let y = net.add(gemm, &[flat, w]);
    let y = net.pair(y, STEP, 128);
    net.graph.outputs.push(y);
    net.graph
}

const STEP: f32 = 0.005;

#[test]
fn a_network_stays_in_integers() {
    for signed in [false, true] {
        let graph = network(signed);
        let x = random_input(DType::F32, &[2, 3, 9, 11], 7).unwrap();
        let want = reference::run(&graph, std::slice::from_ref(&x)).unwrap().remove(0).to_f32s();
        let mut first: Option<Tensor> = None;
        for isa in Isa::available() {
            for threads in [1, 2] {
                let options = SessionOptions { isa: Some(isa), threads, ..SessionOptions::default() };
                let session = Session::new(graph.clone(), &options).unwrap();
                let mut profile = Profile::default();
                let made = session
                    .run_with(std::slice::from_ref(&x), &CancelToken::new(), Some(&mut profile))
                    .unwrap();
                let steps: Vec<String> =
                    profile.steps.iter().map(|s| format!("{} by {}", s.operator, s.algorithm)).collect();
                assert!(!steps.iter().any(|s| s.ends_with("by reference")), "{steps:?}");
                let conversions = steps.iter().filter(|s| s.contains("quantise")).count();
                assert_eq!(conversions, 2, "{steps:?}");
                let integer = steps.iter().filter(|s| s.starts_with("Conv") && s.contains(" u8 ")).count();
                assert_eq!(integer, 4, "{steps:?}");
                for (i, (w, g)) in want.iter().zip(made[0].to_f32s()).enumerate() {
                    assert!((w - g).abs() <= 2.01 * STEP, "{isa}: {g} instead of {w} at {i}");
                }
                let same = first.as_ref().is_none_or(|first| first.bytes() == made[0].bytes());
                assert!(same, "{isa} on {threads} threads gives other bytes");
                first.get_or_insert(made.into_iter().next().unwrap());
            }
        }
    }
}

#[test]
fn levels_may_be_what_the_caller_gives_and_gets() {
    for signed in [false, true] {
        let mut net = Net { graph: Graph::new("test"), count: 0, signed };
        let dtype = if signed { DType::I8 } else { DType::U8 };
        let x = net.graph.add_input("x", dtype, &[1, 8, 5, 4].map(Dim::Fixed));
        let scale = net.constant(Tensor::scalar(0.02f32));
        let f = net.add(DequantizeLinear::default(), &[x, scale]);
        let y = net.conv(f, [8, 12], 3, 1, true);
        let zero = Tensor::from_ints(dtype, &[], &[3]).unwrap();
        let zero = net.constant(zero);
        let y = net.add(QuantizeLinear::default(), &[y, scale, zero]);
        net.graph.outputs.push(y);
        let x = random_input(dtype, &[1, 8, 5, 4], 3).unwrap();
        let want = reference::run(&net.graph, std::slice::from_ref(&x)).unwrap().remove(0);
        for isa in Isa::available() {
            let options = SessionOptions { isa: Some(isa), threads: 1, ..SessionOptions::default() };
            let session = Session::new(net.graph.clone(), &options).unwrap();
            let made = session.run(std::slice::from_ref(&x)).unwrap().remove(0);
            assert_eq!((made.dtype(), made.shape()), (dtype, want.shape()));
            let far =
                want.to_f64s().iter().zip(made.to_f64s()).filter(|(w, g)| (**w - g).abs() > 1.0).count();
            assert_eq!(far, 0, "{isa}");
        }
    }
}

#[test]
fn scales_that_mean_nothing_are_refused_by_name() {
    for scale in [0.0, -0.5, f32::NAN] {
        let mut net = Net { graph: Graph::new("test"), count: 0, signed: false };
        let x = net.graph.add_input("x", DType::F32, &[2, 3].map(Dim::Fixed));
        let y = net.pair(x, scale, 5);
        net.graph.outputs.push(y);
        let x = random_input(DType::F32, &[2, 3], 3).unwrap();
        let session = Session::new(net.graph, &SessionOptions::default());
        let error = session.and_then(|s| s.run(std::slice::from_ref(&x))).unwrap_err().to_string();
        assert!(error.contains("value 3") && error.contains("scale"), "{error}");
    }
}
