//! All passes together on random small graphs: outputs must stay what they were, for fixed and for open input shapes.

use super::testing::{binary, check_same, histogram, list, numbers, scalar, unary, weights};
use super::{optimise, specialise};
use planish_graph::ops::math::binary::BinaryFunction::{Add, Div, Mul, Sub};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::unary::UnaryFunction::{HardSwish, Relu, Sigmoid, Tanh};
use planish_graph::ops::movement::concat::Concat;
use planish_graph::ops::movement::gather::Gather;
use planish_graph::ops::movement::identity::Identity;
use planish_graph::ops::movement::pad::{Pad, PadMode};
use planish_graph::ops::movement::reshape::Reshape;
use planish_graph::ops::movement::shape::Shape;
use planish_graph::ops::movement::slice::Slice;
use planish_graph::ops::movement::squeeze::Unsqueeze;
use planish_graph::ops::movement::transpose::Transpose;
use planish_graph::ops::nn::batch_normalization::BatchNormalization;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::pool::{AveragePool, MaxPool, PoolWindow};
use planish_graph::{DType, Dim, Graph, Tensor, ValueId};

/// Draws of a small generator.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

const CHANNELS: usize = 4;

/// One more layer behind `x`, `[N, 4, 6, 6]`, of the same shape; `other` is an earlier value of that shape.
fn layer(g: &mut Graph, dice: &mut Dice, name: &str, x: ValueId, other: ValueId) -> ValueId {
    let part = |what: &str| format!("{name}.{what}");
    match dice.below(20) {
        0..=3 => {
            let group = [1, 2, 4][dice.below(3)];
            let w = weights(g, &part("w"), &[CHANNELS, CHANNELS / group, 3, 3]);
            let b = weights(g, &part("b"), &[CHANNELS]);
            let conv = Conv { pads: vec![1; 4], group, ..Conv::default() };
            let y = g.add_node(&part("conv"), conv, &[x, w, b]);
            // Keeps numbers small, so that errors are not blown up from layer to layer.
            let shrink = scalar(g, &part("shrink"), 0.1);
            binary(g, name, Mul, y, shrink)
        }
        4 => {
            let pads = list(g, &part("pads"), &[0, 0, 1, 1, 0, 0, 1, 1]);
            let padded = g.add_node(&part("pad"), Pad { mode: PadMode::Constant }, &[x, pads]);
            let window = PoolWindow { kernel_shape: vec![3, 3], ..PoolWindow::default() };
            match dice.below(2) {
                0 => g.add_node(name, AveragePool { window, count_include_pad: false }, &[padded]),
                _ => g.add_node(name, MaxPool { window, column_major: false }, &[padded]),
            }
        }
        5 | 6 => {
            let mut inputs = vec![x];
            for what in ["scale", "shift", "mean"] {
                inputs.push(weights(g, &part(what), &[CHANNELS]));
            }
            inputs.push(
                g.add_constant(&part("variance"), Tensor::new(&[CHANNELS], &[4f32; CHANNELS]).unwrap()),
            );
            g.add_node(name, BatchNormalization::default(), &inputs)
        }
        7 | 8 => unary(g, name, [Relu, Sigmoid, Tanh, HardSwish][dice.below(4)], x),
        9 => {
            let gate = unary(g, &part("gate"), Sigmoid, x);
            binary(g, name, Mul, x, gate)
        }
        10 => {
            let three = scalar(g, &part("three"), 3.0);
            let [low, high] = [("low", 0.0), ("high", 6.0)].map(|(what, v)| scalar(g, &part(what), v));
            let shifted = binary(g, &part("shifted"), Add, x, three);
            let gate = g.add_node(&part("clip"), Clip, &[shifted, low, high]);
            let six = scalar(g, &part("six"), 6.0);
            let product = binary(g, &part("product"), Mul, x, gate);
            binary(g, name, Div, product, six)
        }
        11 | 12 => binary(g, name, [Add, Sub][dice.below(2)], x, other),
        13 => {
            let c = weights(g, &part("c"), &[CHANNELS, 1, 1]);
            binary(g, name, [Add, Sub, Mul][dice.below(3)], x, c)
        }
        14 => g.add_node(name, Identity, &[x]),
        15 => {
            let split = list(g, &part("split"), &[0, 2, 2, 6, 6]);
            let back = list(g, &part("back"), &[-1, CHANNELS as i64, 6, 6]);
            let parts = g.add_node(&part("parts"), Reshape { allow_zero: false }, &[x, split]);
            let swapped =
                g.add_node(&part("swapped"), Transpose { perm: Some(vec![0, 2, 1, 3, 4]) }, &[parts]);
            g.add_node(name, Reshape { allow_zero: false }, &[swapped, back])
        }
        16 => {
            let turned = g.add_node(&part("turned"), Transpose { perm: Some(vec![0, 2, 3, 1]) }, &[x]);
            let bent = unary(g, &part("bent"), Relu, turned);
            g.add_node(name, Transpose { perm: Some(vec![0, 3, 1, 2]) }, &[bent])
        }
        17 => {
            let [begin, middle, end, axis] = [("begin", 0), ("middle", 2), ("end", i64::MAX), ("axis", 1)]
                .map(|(what, v)| list(g, &part(what), &[v]));
            let first = g.add_node(&part("first"), Slice, &[x, begin, middle, axis]);
            let second = g.add_node(&part("second"), Slice, &[x, middle, end, axis]);
            g.add_node(name, Concat { axis: 1 }, &[first, second])
        }
        _ => {
            let shape = g.add_node(&part("shape"), Shape { start: 0, end: None }, &[x]);
            let index = g.add_constant(&part("index"), Tensor::scalar(0i64));
            let batch = g.add_node(&part("batch"), Gather { axis: 0 }, &[shape, index]);
            let axis = list(g, &part("axis"), &[0]);
            let batch = g.add_node(&part("batch1"), Unsqueeze, &[batch, axis]);
            let rest = list(g, &part("rest"), &[-1]);
            let target = g.add_node(&part("target"), Concat { axis: 0 }, &[batch, rest]);
            let flat = g.add_node(&part("flat"), Reshape { allow_zero: false }, &[x, target]);
            let back = list(g, &part("back"), &[-1, CHANNELS as i64, 6, 6]);
            g.add_node(name, Reshape { allow_zero: false }, &[flat, back])
        }
    }
}

#[test]
fn outputs_stay_what_they_were() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut g = Graph::new("random");
        let batch = if seed % 2 == 0 { Dim::Fixed(2) } else { Dim::Symbol("batch".into()) };
        let shape = [batch, Dim::Fixed(CHANNELS), Dim::Fixed(6), Dim::Fixed(6)];
        let mut values = vec![g.add_input("x", DType::F32, &shape)];
        for i in 0..2 + dice.below(12) {
            let x = values[values.len() - 1 - dice.below(values.len().min(2))];
            let other = values[dice.below(values.len())];
            values.push(layer(&mut g, &mut dice, &format!("v{i}"), x, other));
        }
        g.outputs.push(values[values.len() - 1]);
        if dice.below(3) == 0 {
            g.outputs.push(values[1 + dice.below(values.len() - 2)]);
        }
        let mut optimised = g.clone();
        optimise(&mut optimised).unwrap();
        check_same(&g, &optimised);
        let made = specialise(&optimised, &[numbers(&[2, CHANNELS, 6, 6], 0).shape().to_vec()]).unwrap();
        check_same(&g, &made.graph);
        assert!(!histogram(&made.graph).contains_key("Shape"), "{}", made.graph);
        assert!(optimise(&mut made.graph.clone()).unwrap().is_empty(), "not at rest:\n{}", made.graph);
    }
}
