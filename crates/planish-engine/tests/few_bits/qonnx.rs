//! Binarised, ternary and other networks of few bits as QONNX writes them: every layer between quantisers counts bits, and
//! what is quantised at the end are the levels of the reference.

use crate::net::Net;
use planish_cpu::isa::Isa;
use planish_graph::ops::math::binary::BinaryFunction;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::movement::flatten::Flatten;
use planish_graph::ops::movement::transpose::Transpose;
use planish_graph::ops::nn::batch_normalization::BatchNormalization;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::global_pool::{GlobalPool, GlobalPoolKind};
use planish_graph::ops::nn::pool::{MaxPool, PoolWindow};
use planish_graph::ops::nn::quantized::qonnx::{BipolarQuant, Quant, Range, RoundingMode};
use planish_graph::{DType, Tensor, ValueId};

/// What a weight or an activation is kept as.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    Signs,
    /// So many bits, signed and narrow.
    Signed(u8),
    Unsigned(u8),
}

impl Net {
    /// `x` quantised with a scale, or one for each index of the first axis.
    pub fn kept(&mut self, x: ValueId, kept: Kept, scale: ValueId) -> ValueId {
        let (signed, bits) = match kept {
            Kept::Signs => return self.add(BipolarQuant, &[x, scale]),
            Kept::Signed(bits) => (true, bits),
            Kept::Unsigned(bits) => (false, bits),
        };
        let range = Range { signed, narrow: signed };
        let (zero, bits) = (Tensor::scalar(0f32), Tensor::scalar(f32::from(bits)));
        let (zero, bits) = (self.constant(zero), self.constant(bits));
        let op = Quant { range, rounding: RoundingMode::Round, spelled_int: false };
        self.add(op, &[x, scale, zero, bits])
    }
    pub fn activation(&mut self, x: ValueId, kept: Kept, scale: f32) -> ValueId {
        let scale = self.constant(Tensor::scalar(scale));
        self.kept(x, kept, scale)
    }
    /// Quantised weights with a scale for each output channel, which are the first axis.
    pub fn weights(&mut self, shape: &[usize], kept: Kept) -> ValueId {
        let numbers = self.numbers(shape, shape.iter().product::<usize>() as u64);
        let most = match kept {
            Kept::Signs => 1.0,
            Kept::Signed(bits) => f32::from(1u8 << (bits - 1)) - 1.0,
            Kept::Unsigned(bits) => f32::from(1u8 << bits) - 1.0,
        };
        // Random numbers reach 1 or a few.
        let scales: Vec<f32> = (0..shape[0]).map(|c| (0.5 + (c % 3) as f32 / 4.0) / most).collect();
        let mut broad = vec![1; shape.len()];
        broad[0] = shape[0];
        let scale = self.constant(Tensor::new(&broad, &scales).unwrap());
        self.kept(numbers, kept, scale)
    }
    /// A normalisation with factors of both signs and one that is 0. Its means are whole sums, so that there are ties, which
    /// only signs behind it decide exactly, or lie between them.
    pub fn normalised(&mut self, x: ValueId, channels: usize, unit: f32, ties: bool) -> ValueId {
        let between = if ties { 0.0 } else { 0.37 };
        let of = |function: &dyn Fn(usize) -> f32| -> Tensor {
            let values: Vec<f32> = (0..channels).map(function).collect();
            Tensor::new(&[channels], &values).unwrap()
        };
        let parts = [
            of(&|c| [0.8, -0.6, 1.1, 0.0, -1.3][c % 5] / unit),
            of(&|c| [0.0, 0.0, 0.3, -0.4, 0.2][c % 5]),
            of(&|c| ([3.0, -4.0, 1.7, 0.0, -0.9][c % 5] + between) * unit),
            of(&|c| 9.0 + c as f32),
        ];
        let mut inputs = vec![x];
        inputs.extend(parts.map(|part| self.constant(part)));
        self.add(BatchNormalization::default(), &inputs)
    }
}

pub fn equal(w: f64, g: f64) -> bool {
    w == g
}

/// How many steps of convolutions and matrix products ran so.
pub fn count(ran: &[String], how: &str) -> usize {
    let layer = |s: &&String| ["Conv", "Gemm", "MatMul"].iter().any(|name| s.starts_with(name));
    ran.iter().filter(layer).filter(|s| s.ends_with(how)).count()
}

/// Checks that all layers on levels count bits wherever they are told to, and returns what ran last.
pub fn counts(
    net: Net,
    y: ValueId,
    shape: &[usize],
    layers: usize,
    within: impl Fn(f64, f64) -> bool,
) -> Vec<String> {
    let all = net.check_by(y, shape, Some("bits"), within);
    for (isa, ran) in &all {
        assert_eq!(count(ran, "u8 by bits"), layers, "{isa} {ran:?}");
    }
    all.into_iter().next_back().unwrap().1
}

#[test]
fn signs_behind_normalisations_are_thresholds() {
    // Channels, kernel, stride, pads, groups.
    let shapes = [
        (1, 16, 24, [3, 3], [1, 1], [1, 1, 1, 1], 1),
        (3, 70, 9, [3, 2], [2, 2], [0, 1, 2, 1], 1),
        (1, 32, 6, [1, 1], [1, 1], [0, 0, 0, 0], 2),
        (2, 24, 42, [5, 3], [2, 1], [2, 2, 0, 1], 3),
    ];
    for (batch, from, to, kernel, strides, pads, group) in shapes {
        for activation in [Kept::Signs, Kept::Unsigned(2)] {
            for weight in [Kept::Signs, Kept::Signed(2)] {
                let shape = [batch, from, 9, 7];
                let mut net = Net::new(&shape);
                let x = net.activation(net.1, activation, 0.5);
                let w = net.weights(&[to, from / group, kernel[0], kernel[1]], weight);
                let conv = Conv { pads: pads.to_vec(), strides: strides.to_vec(), group, ..Conv::default() };
                let y = net.add(conv, &[x, w]);
                let y = net.normalised(y, to, 0.25, true);
                let y = net.activation(y, Kept::Signs, 0.7);
                let ran = counts(net, y, &shape, 1, equal);
                // Behind the layer only what it answers is put as the caller wants it.
                let layer = ran.iter().position(|s| s.ends_with("by bits")).unwrap();
                let ends = ["layout change", "DequantizeLinear", "output"];
                let last = |s: &String| ends.iter().any(|end| s.starts_with(end));
                assert!(ran[layer + 1..].iter().all(last), "{ran:?}");
            }
        }
    }
}

#[test]
fn binarised_networks_with_shortcuts() {
    for batch in [1, 3] {
        let shape = [batch, 3, 13, 10];
        let mut net = Net::new(&shape);
        let w = net.numbers(&[16, 3, 3, 3], 3);
        let first = Conv { pads: vec![1; 4], ..Conv::default() };
        let mut y = net.add(first.clone(), &[net.1, w]);
        y = net.normalised(y, 16, 1.0, false);
        for (from, to, stride) in [(16, 16, 1), (16, 32, 2), (32, 32, 1)] {
            let signs = net.activation(y, Kept::Signs, 1.0);
            let w = net.weights(&[to, from, 3, 3], Kept::Signs);
            let conv = Conv { strides: vec![stride; 2], ..first.clone() };
            let made = net.add(conv, &[signs, w]);
            let made = net.normalised(made, to, 1.0, false);
            if stride == 1 {
                y = net.binary(BinaryFunction::Add, made, y);
                continue;
            }
            // The shortcut of a smaller map is a layer of its own.
            let w = net.weights(&[to, from, 1, 1], Kept::Signs);
            let short = net.add(Conv { strides: vec![stride; 2], ..Conv::default() }, &[signs, w]);
            let short = net.normalised(short, to, 1.0, false);
            y = net.binary(BinaryFunction::Add, made, short);
        }
        y = net.add(GlobalPool { kind: GlobalPoolKind::Average }, &[y]);
        let near = |w: f64, g: f64| (w - g).abs() <= 1e-5 * w.abs().max(1.0);
        let ran = counts(net, y, &shape, 4, near);
        // The shortcuts are added where the bits are counted.
        assert!(!ran.iter().any(|s| s.starts_with("Add") || s.contains("Normal")), "{ran:?}");
        assert_eq!(count(&ran, ""), 5, "{ran:?}");
    }
}

#[test]
fn bytes_add_shortcuts_too() {
    let shape = [2, 16, 6, 5];
    let mut net = Net::new(&shape);
    let signs = net.activation(net.1, Kept::Signs, 1.0);
    let w = net.weights(&[16, 16, 3, 3], Kept::Signed(3));
    let y = net.add(Conv { pads: vec![1; 4], ..Conv::default() }, &[signs, w]);
    let y = net.normalised(y, 16, 1.0, false);
    let y = net.binary(BinaryFunction::Add, y, net.1);
    let y = net.add(Unary { function: UnaryFunction::Relu }, &[y]);
    let near = |w: f64, g: f64| (w - g).abs() <= 1e-5 * w.abs().max(1.0);
    for (isa, ran) in net.check_by(y, &shape, Some("indirect"), near) {
        assert_eq!((count(&ran, "by bits"), count(&ran, "u8 by elementwise")), (0, 1), "{isa} {ran:?}");
    }
}

#[test]
fn ternary_networks() {
    let shape = [1, 3, 12, 12];
    let mut net = Net::new(&shape);
    let w = net.weights(&[24, 3, 3, 3], Kept::Signed(8));
    let mut y = net.add(Conv::default(), &[net.1, w]);
    for (activation, from, to) in [
        (Kept::Unsigned(4), 24, 16),
        (Kept::Signs, 16, 20),
        (Kept::Signed(2), 20, 12),
        (Kept::Unsigned(2), 12, 8),
    ] {
        y = net.normalised(y, from, 0.4, false);
        let x = net.activation(y, activation, 0.3);
        let w = net.weights(&[to, from, 3, 3], Kept::Signed(2));
        y = net.add(Conv { pads: vec![0, 1, 1, 0], ..Conv::default() }, &[x, w]);
    }
    y = net.normalised(y, 8, 1.0, false);
    y = net.activation(y, Kept::Unsigned(3), 0.2);
    counts(net, y, &shape, 4, equal);
}

#[test]
fn activations_and_weights_of_every_few_bits() {
    for activation in [Kept::Signs, Kept::Unsigned(1), Kept::Signed(2), Kept::Signed(3), Kept::Unsigned(4)] {
        for weight in [Kept::Signs, Kept::Signed(2), Kept::Signed(3), Kept::Signed(5), Kept::Unsigned(2)] {
            let shape = [1, 20, 6, 7];
            let mut net = Net::new(&shape);
            let mut y = net.1;
            for (from, to) in [(20, 12), (12, 16)] {
                let x = net.activation(y, activation, 0.4);
                let w = net.weights(&[to, from, 3, 3], weight);
                y = net.add(Conv { pads: vec![1; 4], ..Conv::default() }, &[x, w]);
                y = net.normalised(y, to, 0.6, false);
                y = net.add(Unary { function: UnaryFunction::Relu }, &[y]);
            }
            y = net.activation(y, Kept::Unsigned(3), 0.25);
            let ran = counts(net, y, &shape, 2, equal);
            assert!(!ran.iter().any(|s| s.contains("Normal") || s.contains("Relu")), "{ran:?}");
        }
    }
}

#[test]
fn residual_levels_and_pools() {
    // Both branches are quantised before they are added, and the sum once more.
    let shape = [2, 16, 8, 8];
    let mut net = Net::new(&shape);
    let mut y = net.activation(net.1, Kept::Unsigned(2), 0.5);
    for _ in 0..2 {
        let w = net.weights(&[16, 16, 3, 3], Kept::Signed(2));
        let made = net.add(Conv { pads: vec![1; 4], ..Conv::default() }, &[y, w]);
        let made = net.normalised(made, 16, 1.5, false);
        let made = net.activation(made, Kept::Signed(3), 0.5);
        let sum = net.binary(BinaryFunction::Add, made, y);
        let sum = net.add(Unary { function: UnaryFunction::Relu }, &[sum]);
        y = net.activation(sum, Kept::Unsigned(2), 0.5);
    }
    let window = PoolWindow { kernel_shape: vec![2; 2], strides: vec![2; 2], ..PoolWindow::default() };
    let w = net.weights(&[8, 16, 3, 3], Kept::Signs);
    y = net.add(Conv::default(), &[y, w]);
    y = net.normalised(y, 8, 1.0, false);
    y = net.add(MaxPool { window, column_major: false }, &[y]);
    y = net.activation(y, Kept::Signs, 1.0);
    let ran = counts(net, y, &shape, 3, equal);
    assert!(ran.iter().any(|s| s.starts_with("MaxPool")), "{ran:?}");
}

#[test]
fn dense_layers() {
    let shape = [3, 2, 4, 5];
    let mut net = Net::new(&shape);
    let mut y = net.add(Flatten { axis: 1 }, &[net.1]);
    for (activation, weight, from, to) in [
        (Kept::Signs, Kept::Signs, 40, 33),
        (Kept::Signed(2), Kept::Signed(2), 33, 20),
        (Kept::Unsigned(2), Kept::Signed(3), 20, 10),
    ] {
        let x = net.activation(y, activation, 0.5);
        let w = net.weights(&[to, from], weight);
        let w = net.add(Transpose { perm: Some(vec![1, 0]) }, &[w]);
        y = net.add(MatMul, &[x, w]);
        y = net.normalised(y, to, 0.25, false);
    }
    y = net.activation(y, Kept::Unsigned(4), 0.25);
    counts(net, y, &shape, 3, equal);
}

#[test]
fn weights_that_are_ternary_without_saying_so() {
    let shape = [1, 16, 7, 7];
    let mut net = Net::new(&shape);
    let x = net.activation(net.1, Kept::Signs, 1.0);
    let signs = net.integers(DType::I8, &[12, 16, 3, 3], -1, 3);
    let factors: Vec<f32> = (0..12).map(|c| 0.1 + c as f32 / 7.0).collect();
    let signs = net.0.constant(signs).unwrap().to_f32s();
    let numbers: Vec<f32> = signs.iter().enumerate().map(|(i, s)| s * factors[i / (16 * 9)]).collect();
    let w = net.constant(Tensor::new(&[12, 16, 3, 3], &numbers).unwrap());
    let y = net.add(Conv { pads: vec![1; 4], ..Conv::default() }, &[x, w]);
    let y = net.activation(y, Kept::Signs, 1.0);
    counts(net, y, &shape, 1, equal);
}

#[test]
fn an_empty_batch_has_an_empty_answer() {
    let shape = [0, 16, 9, 7];
    let mut net = Net::new(&shape);
    let x = net.activation(net.1, Kept::Signs, 1.0);
    let w = net.weights(&[12, 16, 3, 3], Kept::Signs);
    let y = net.add(Conv::default(), &[x, w]);
    let y = net.normalised(y, 12, 1.0, true);
    let y = net.activation(y, Kept::Signs, 1.0);
    net.check_by(y, &shape, Some("bits"), equal);
}

#[test]
fn bits_are_counted_where_that_is_cheapest() {
    // Wide layers of signs, to levels and to numbers.
    let shape = [1, 128, 8, 8];
    let mut net = Net::new(&shape);
    let mut y = net.1;
    for _ in 0..2 {
        let x = net.activation(y, Kept::Signs, 1.0);
        let w = net.weights(&[128, 128, 3, 3], Kept::Signs);
        y = net.add(Conv { pads: vec![1; 4], ..Conv::default() }, &[x, w]);
        y = net.normalised(y, 128, 8.0, false);
    }
    let near = |w: f64, g: f64| (w - g).abs() <= 1e-5 * w.abs().max(1.0);
    for (isa, ran) in net.check_by(y, &shape, None, near) {
        // A unit that multiplies bytes by tiles may be faster.
        let tiles = isa.name().contains("amx");
        assert!(tiles || count(&ran, "u8 by bits") == 2, "{isa} {ran:?}");
        assert_eq!(count(&ran, ""), 2, "{isa} {ran:?}");
    }
    assert!(Isa::available().into_iter().any(|isa| !isa.name().contains("amx")));
}
