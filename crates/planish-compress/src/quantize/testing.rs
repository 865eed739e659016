//! Small networks for the tests of quantisation.

use super::observe::testing::normal;
use super::prepare::Network;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::movement::concat::Concat;
use planish_graph::ops::movement::flatten::Flatten;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::global_pool::{GlobalPool, GlobalPoolKind};
use planish_graph::{DType, Dim, Graph, Tensor, ValueId};

/// Weights of the normal distribution.
pub fn normal_weights(count: usize, seed: u64) -> Vec<f32> {
    normal(count, seed)
}

/// Adds a convolution of `kernel`² that keeps the size of the picture, and a bias.
pub fn conv(g: &mut Graph, name: &str, x: ValueId, shape: [usize; 3], group: usize, seed: u64) -> ValueId {
    let [inputs, outputs, kernel] = shape;
    let fan = (inputs / group * kernel * kernel) as f32;
    let weights: Vec<f32> = normal(outputs * inputs / group * kernel * kernel, seed)
        .iter()
        .map(|w| w * (2.0 / fan).sqrt())
        .collect();
    let w = Tensor::new(&[outputs, inputs / group, kernel, kernel], &weights).unwrap();
    let w = g.add_constant(&format!("{name}.w"), w);
    let bias: Vec<f32> = normal(outputs, seed + 1).iter().map(|b| 0.1 * b).collect();
    let b = g.add_constant(&format!("{name}.b"), Tensor::new(&[outputs], &bias).unwrap());
    g.add_node(name, Conv { pads: vec![kernel / 2; 4], group, ..Conv::default() }, &[x, w, b])
}

/// Adds max(x, 0).
pub fn relu(g: &mut Graph, name: &str, x: ValueId) -> ValueId {
    g.add_node(name, Unary { function: UnaryFunction::Relu }, &[x])
}

/// A graph with an input `[N, channels, 8, 8]`.
pub fn open_graph(channels: usize) -> (Graph, ValueId) {
    let mut g = Graph::new("test");
    let dims = [Dim::Symbol("N".into()), Dim::Fixed(channels), Dim::Fixed(8), Dim::Fixed(8)];
    let x = g.add_input("x", DType::F32, &dims);
    (g, x)
}

/// One 3×3 convolution with these weights and no bias.
pub fn network_of(inputs: usize, outputs: usize, weights: Vec<f32>) -> Network {
    let (mut g, x) = open_graph(inputs);
    let w = g.add_constant("w", Tensor::new(&[outputs, inputs, 3, 3], &weights).unwrap());
    let y = g.add_node("conv", Conv::default(), &[x, w]);
    g.outputs.push(y);
    Network::of(&g).unwrap()
}

/// A small classifier with everything that quantisation treats apart: a residual addition, a depthwise triple, a
/// concatenation, pooling, and a matrix product at the end.
pub fn classifier() -> Graph {
    let (mut g, x) = open_graph(3);
    let a = conv(&mut g, "stem", x, [3, 8, 3], 1, 10);
    let a = relu(&mut g, "stem.relu", a);
    let b = conv(&mut g, "expand", a, [8, 16, 1], 1, 20);
    let b = relu(&mut g, "expand.relu", b);
    let b = conv(&mut g, "depth", b, [16, 16, 3], 16, 30);
    let b = relu(&mut g, "depth.relu", b);
    let b = conv(&mut g, "project", b, [16, 8, 1], 1, 40);
    let sum = g.add_node("sum", Binary { function: BinaryFunction::Add }, &[a, b]);
    let sum = relu(&mut g, "sum.relu", sum);
    let left = conv(&mut g, "left", sum, [8, 4, 1], 1, 50);
    let left = relu(&mut g, "left.relu", left);
    let right = conv(&mut g, "right", sum, [8, 4, 3], 1, 60);
    let right = relu(&mut g, "right.relu", right);
    let joined = g.add_node("joined", Concat { axis: 1 }, &[left, right]);
    let pooled = g.add_node("pooled", GlobalPool { kind: GlobalPoolKind::Average }, &[joined]);
    let flat = g.add_node("flat", Flatten { axis: 1 }, &[pooled]);
    let w = Tensor::new(&[10, 8], &normal(80, 70)).unwrap();
    let w = g.add_constant("fc.w", w);
    let b = g.add_constant("fc.b", Tensor::new(&[10], &normal(10, 71)).unwrap());
    let gemm = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let y = g.add_node("fc", gemm, &[flat, w, b]);
    g.outputs.push(y);
    g
}

/// Pictures of noise for [`classifier`], in batches.
pub fn batches(count: usize, batch: usize, seed: u64) -> Vec<Tensor> {
    (0..count)
        .map(|i| Tensor::new(&[batch, 3, 8, 8], &normal(batch * 3 * 64, seed + i as u64)).unwrap())
        .collect()
}
