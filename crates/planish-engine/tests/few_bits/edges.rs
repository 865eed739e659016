//! What lies at the edges of few bits: layers that have them on one side only, values that are read twice, and graphs that
//! are no networks.

use crate::net::Net;
use crate::qonnx::{Kept, count, counts, equal};
use planish_engine::run::session::random_input;
use planish_engine::{Session, SessionOptions};
use planish_graph::ops::math::binary::BinaryFunction;
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::movement::concat::Concat;
use planish_graph::ops::movement::flatten::Flatten;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::conv_transpose::ConvTranspose;
use planish_graph::ops::nn::pool::{MaxPool, PoolWindow};
use planish_graph::ops::nn::quantized::quantize::DequantizeLinear;
use planish_graph::{DType, Tensor, ValueId};

impl Net {
    /// The error of running the network that makes `y` of numbers.
    fn refused(mut self, y: ValueId, shape: &[usize]) -> String {
        self.0.outputs.push(y);
        let x = random_input(DType::F32, shape, 11).unwrap();
        let session = Session::new(self.0, &SessionOptions::default());
        session.and_then(|session| session.run(&[x])).unwrap_err().to_string()
    }
    /// Weights of eight bits, most of them larger than few bits hold, in units of a 128th.
    fn wide_weights(&mut self, shape: &[usize]) -> ValueId {
        let integers = self.integers(DType::I8, shape, -100, 201);
        let scale = self.constant(Tensor::scalar(1.0f32 / 128.0));
        self.add(DequantizeLinear::default(), &[integers, scale])
    }
}

#[test]
fn thresholds_of_wide_weights_are_half_units_too() {
    for activation in [Kept::Signs, Kept::Unsigned(2)] {
        for convolves in [true, false] {
            let shape: &[usize] = if convolves { &[2, 3, 9, 7] } else { &[70, 12] };
            let mut net = Net::new(shape);
            let x = net.activation(net.1, activation, 0.5);
            let w = net.wide_weights(if convolves { &[10, 3, 1, 1] } else { &[12, 10] });
            let y = if convolves { net.add(Conv::default(), &[x, w]) } else { net.add(MatMul, &[x, w]) };
            let y = net.normalised(y, 10, 0.5 / 128.0, true);
            let y = net.activation(y, Kept::Signs, 0.7);
            for (isa, ran) in net.check(y, shape, equal) {
                let left = ran.iter().any(|s| s.starts_with("BatchNorm"));
                assert!(!left && count(&ran, "") == 1, "{isa} {ran:?}");
            }
        }
    }
}

#[test]
fn levels_that_are_read_twice_are_all_known() {
    // Those below are quantised to fewer levels, and both are put together.
    let shape = [1, 8, 6, 7];
    let mut net = Net::new(&shape);
    let many = net.activation(net.1, Kept::Unsigned(4), 0.5);
    let few = net.activation(many, Kept::Unsigned(1), 0.5);
    let x = net.add(Concat { axis: 1 }, &[few, many]);
    let w = net.weights(&[12, 16, 3, 3], Kept::Signed(2));
    let y = net.add(Conv { pads: vec![1; 4], ..Conv::default() }, &[x, w]);
    let y = net.activation(y, Kept::Unsigned(4), 1.0);
    counts(net, y, &shape, 1, equal);
}

#[test]
fn ties_before_pools_fall_as_without_them() {
    // The normalisation stands three operators before the sign, which decides about ties of its numbers.
    let shape = [2, 16, 9, 7];
    let mut net = Net::new(&shape);
    let x = net.activation(net.1, Kept::Signs, 0.5);
    let w = net.weights(&[10, 16, 1, 1], Kept::Signed(2));
    let y = net.add(Conv::default(), &[x, w]);
    let y = net.normalised(y, 10, 0.25, true);
    let window = PoolWindow { kernel_shape: vec![2; 2], strides: vec![2; 2], ..PoolWindow::default() };
    let y = net.add(MaxPool { window, column_major: false }, &[y]);
    let y = net.add(Flatten { axis: 1 }, &[y]);
    let y = net.activation(y, Kept::Signs, 0.7);
    let ran = counts(net, y, &shape, 1, equal);
    // Behind the layer no sign is left to be chosen.
    let layer = ran.iter().position(|s| s.ends_with("by bits")).unwrap();
    assert!(!ran[layer..].iter().any(|s| s.contains("Normal") || s.contains("Bipolar")), "{ran:?}");
}

#[test]
fn groups_of_transposed_convolutions_that_do_not_fit_are_refused() {
    for (group, weights) in [(4, [2, 1, 3]), (2, [5, 1, 3]), (1 << 40, [1, 1, 3]), (0, [2, 1, 3])] {
        let shape = [1, weights[0], 6];
        let mut net = Net::new(&shape);
        let w = net.numbers(&weights, 5);
        let conv = Conv { group, ..Conv::default() };
        let op = ConvTranspose { conv, output_padding: Vec::new(), output_shape: None };
        let y = net.add(op, &[net.1, w]);
        let factor = net.constant(Tensor::scalar(0.5f32));
        let y = net.binary(BinaryFunction::Mul, y, factor);
        let error = net.refused(y, &shape);
        assert!(error.contains("ConvTranspose") && error.contains("group"), "{error}");
    }
}

#[test]
fn limits_of_another_type_are_refused_before_signs_too() {
    let shape = [1, 4, 5, 3];
    let mut net = Net::new(&shape);
    let x = net.activation(net.1, Kept::Signs, 0.5);
    let w = net.weights(&[6, 4, 1, 1], Kept::Signs);
    let y = net.add(Conv::default(), &[x, w]);
    let ends = [-1i64, 1].map(|end| net.constant(Tensor::scalar(end)));
    let y = net.add(Clip, &[y, ends[0], ends[1]]);
    let y = net.activation(y, Kept::Signs, 0.7);
    let error = net.refused(y, &shape);
    assert!(error.contains("Clip") && error.contains("i64"), "{error}");
}
