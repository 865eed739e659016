//! Networks that are quantised while they run, weights of four bits, and activations of four bits: all of it runs in kernels,
//! and gives what the reference gives.

use crate::net::Net;
use planish_engine::run::session::random_input;
use planish_engine::{Session, SessionOptions};
use planish_graph::ops::math::binary::BinaryFunction;
use planish_graph::ops::math::cast::Cast;
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::quantized::conv_integer::ConvInteger;
use planish_graph::ops::nn::quantized::matmul_integer::MatMulInteger;
use planish_graph::ops::nn::quantized::quantize::{
    DequantizeLinear, DynamicQuantizeLinear, Granularity, QuantizeLinear,
};
use planish_graph::{DType, Node, Operator, Tensor, Value, ValueId};
use std::sync::Arc;

impl Net {
    /// Levels of `x` by its own range, their scale and zero point.
    fn own_levels(&mut self, x: ValueId) -> [ValueId; 3] {
        let made = [0, 1, 2].map(|i| {
            let name = format!("levels {} {i}", self.0.values.len());
            self.0.add_value(Value { name, ..Value::default() })
        });
        self.0.nodes.push(Node {
            name: format!("levels {}", self.0.nodes.len()),
            op: Arc::new(DynamicQuantizeLinear),
            inputs: vec![Some(x)],
            outputs: made.map(Some).to_vec(),
        });
        made
    }
    /// Quantises `x`, multiplies it with weights `w` of zero points `zero`, and makes numbers of the sums.
    fn dynamic(
        &mut self,
        op: impl Operator,
        x: ValueId,
        w: ValueId,
        zero: ValueId,
        bias: &[usize],
    ) -> ValueId {
        let [levels, scale, own_zero] = self.own_levels(x);
        let sums = self.add(op, &[levels, w, own_zero, zero]);
        let sums = self.add(Cast::new(DType::F32), &[sums]);
        let own = self.constant(Tensor::scalar(0.013f32));
        let both = self.binary(BinaryFunction::Mul, scale, own);
        let y = self.binary(BinaryFunction::Mul, sums, both);
        let bias = self.numbers(bias, 5);
        self.binary(BinaryFunction::Add, y, bias)
    }
}

/// Sums are exact; scaling them and adding the bias is rounded twice or three times.
fn exact_sums(w: f64, g: f64) -> bool {
    (w - g).abs() <= 4.0 * f64::from(f32::EPSILON) * w.abs().max(4.0)
}

#[test]
fn dynamically_quantised_convolutions() {
    // Dense, of few channels, depthwise, grouped; signed and unsigned weights.
    for (dtype, low, zero) in [(DType::I8, -128, 0), (DType::I8, -100, 3), (DType::U8, 0, 121)] {
        for (from, to, group, kernel) in [(16, 24, 1, 3), (3, 8, 1, 5), (12, 12, 12, 3), (10, 6, 2, 1)] {
            let shape = [2, from, 7, 6];
            let mut net = Net::new(&shape);
            let x = net.1;
            let w = net.integers(dtype, &[to, from / group, kernel, kernel], low, 200);
            let zero = net.constant(Tensor::from_ints(dtype, &[], &[zero]).unwrap());
            let conv = Conv { pads: vec![kernel / 2; 4], group, ..Conv::default() };
            let y = net.dynamic(ConvInteger { conv }, x, w, zero, &[1, to, 1, 1]);
            let y = net.add(Unary { function: UnaryFunction::Relu }, &[y]);
            for (isa, ran) in net.check(y, &shape, exact_sums) {
                assert!(ran.iter().any(|s| s.starts_with("ScaledSums")), "{isa} {ran:?}");
            }
        }
    }
}

#[test]
fn dynamically_quantised_products() {
    for (dtype, low, zero) in [(DType::I8, -128, 0), (DType::U8, 0, 121)] {
        for (shape, columns) in [(vec![1, 300], 20), (vec![2, 3, 70], 5)] {
            let depth = shape[shape.len() - 1];
            let mut net = Net::new(&shape);
            let x = net.1;
            let w = net.integers(dtype, &[depth, columns], low, 256);
            let zero = net.constant(Tensor::from_ints(dtype, &[], &[zero]).unwrap());
            let y = net.dynamic(MatMulInteger, x, w, zero, &[columns]);
            net.check(y, &shape, exact_sums);
        }
    }
}

#[test]
fn zeros_and_one_sided_numbers_have_a_range() {
    for factor in [0.0f32, -1.0, 1.0] {
        let shape = [2, 9];
        let mut net = Net::new(&shape);
        let x = net.1;
        let x = net.add(Unary { function: UnaryFunction::Abs }, &[x]);
        let factor = net.constant(Tensor::scalar(factor));
        let x = net.binary(BinaryFunction::Mul, x, factor);
        let w = net.integers(DType::I8, &[9, 4], -100, 200);
        let zero = net.constant(Tensor::scalar(0i8));
        let y = net.dynamic(MatMulInteger, x, w, zero, &[4]);
        net.check(y, &shape, exact_sums);
    }
}

/// Weights of four bits in blocks along the depth, as numbers.
fn blocks(net: &mut Net, dtype: DType, shape: [usize; 2], axis: usize, block: usize) -> ValueId {
    let low = if dtype == DType::I4 { -8 } else { 0 };
    let levels = net.integers(dtype, &shape, low, 16);
    let mut scales = shape;
    scales[axis] = shape[axis].div_ceil(block);
    let numbers = random_input(DType::F32, &scales, 9).unwrap().to_f32s();
    let numbers: Vec<f32> = numbers.into_iter().map(|x| x.abs() * 0.1 + 0.01).collect();
    let scale = net.constant(Tensor::new(&scales, &numbers).unwrap());
    let zero = net.integers(dtype, &scales, low + 3, 8);
    let granularity = Granularity { axis: axis as i64, block_size: block };
    net.add(DequantizeLinear { granularity, output_dtype: None }, &[levels, scale, zero])
}

#[test]
fn weights_of_four_bits() {
    // With many rows they become numbers.
    for (rows, short) in [(1, true), (3, true), (300, false)] {
        for dtype in [DType::I4, DType::U4] {
            for (trans_b, block) in [(Some(true), 32), (Some(false), 16), (None, 32)] {
                let shape = [rows, 100];
                let mut net = Net::new(&shape);
                let x = net.1;
                let (of, axis) = if trans_b == Some(true) { ([37, 100], 1) } else { ([100, 37], 0) };
                let w = blocks(&mut net, dtype, of, axis, block);
                let y = match trans_b {
                    Some(trans_b) => {
                        let bias = net.numbers(&[37], 3);
                        let gemm = Gemm { alpha: 1.0, beta: 0.5, trans_a: false, trans_b };
                        net.add(gemm, &[x, w, bias])
                    }
                    None => net.add(MatMul, &[x, w]),
                };
                let y = net.add(Unary { function: UnaryFunction::Relu }, &[y]);
                // A hundred products of numbers up to about 4 and 4.
                let near = |w: f64, g: f64| (w - g).abs() <= 104.0 * f64::from(f32::EPSILON) * 400.0;
                for (isa, ran) in net.check(y, &shape, near) {
                    let found = ran.iter().any(|s| s.starts_with("ShortWeights"));
                    assert!(found || !short, "{isa} {ran:?}");
                }
            }
        }
    }
}

#[test]
fn activations_of_few_bits_stay_in_integers() {
    for (dtype, zero) in
        [(DType::U4, 0), (DType::U4, 5), (DType::I4, -8), (DType::I4, -2), (DType::U2, 0), (DType::I2, -1)]
    {
        let shape = [1, 8, 9, 7];
        let mut net = Net::new(&shape);
        let mut x = net.1;
        for (from, to) in [(8, 12), (12, 16), (16, 8)] {
            let scale = net.constant(Tensor::scalar(0.3f32));
            let zero = net.constant(Tensor::from_ints(dtype, &[], &[zero]).unwrap());
            let levels = net.add(QuantizeLinear::default(), &[x, scale, zero]);
            x = net.add(DequantizeLinear::default(), &[levels, scale, zero]);
            let low = if dtype.bits() == 4 { -8 } else { -2 };
            let kind = if dtype.bits() == 4 { DType::I4 } else { DType::I2 };
            let w = net.integers(kind, &[to, from, 3, 3], low, -2 * low);
            let own = net.constant(Tensor::scalar(0.05f32 / (from as f32).sqrt()));
            let w = net.add(DequantizeLinear::default(), &[w, own]);
            x = net.add(Conv { pads: vec![1; 4], ..Conv::default() }, &[x, w]);
            x = net.add(Unary { function: UnaryFunction::Relu }, &[x]);
        }
        for (isa, ran) in net.check(x, &shape, |w, g| (w - g).abs() <= 0.02 * w.abs().max(1.0)) {
            let integer = ran.iter().filter(|s| s.starts_with("Conv") && s.contains(" u8 ")).count();
            assert_eq!(integer, 3, "{isa} {dtype} {ran:?}");
        }
    }
}

#[test]
fn what_means_nothing_is_refused_by_name() {
    // A scale of a block that is zero, negative or not a number.
    for scale in [0.0, -0.5, f32::NAN] {
        let mut net = Net::new(&[1, 32]);
        let x = net.1;
        let levels = net.integers(DType::I4, &[32, 4], -8, 16);
        let scales = net.constant(Tensor::new(&[1, 4], &[1.0f32, scale, 1.0, 1.0]).unwrap());
        let granularity = Granularity { axis: 0, block_size: 32 };
        let w = net.add(DequantizeLinear { granularity, output_dtype: None }, &[levels, scales]);
        let y = net.add(MatMul, &[x, w]);
        net.0.outputs.push(y);
        let x = random_input(DType::F32, &[1, 32], 3).unwrap();
        let session = Session::new(net.0, &SessionOptions::default());
        let error = session.and_then(|s| s.run(std::slice::from_ref(&x))).unwrap_err().to_string();
        assert!(error.contains("DequantizeLinear") && error.contains("scale 1 is"), "{error}");
    }
    // Blocks that do not fit their scales.
    let mut net = Net::new(&[1, 33]);
    let x = net.1;
    let levels = net.integers(DType::I4, &[33, 4], -8, 16);
    let scales = net.constant(Tensor::new(&[1, 4], &[1.0f32; 4]).unwrap());
    let granularity = Granularity { axis: 0, block_size: 32 };
    let w = net.add(DequantizeLinear { granularity, output_dtype: None }, &[levels, scales]);
    let y = net.add(MatMul, &[x, w]);
    net.0.outputs.push(y);
    let x = random_input(DType::F32, &[1, 33], 3).unwrap();
    let session = Session::new(net.0, &SessionOptions::default());
    let error = session.and_then(|s| s.run(std::slice::from_ref(&x))).unwrap_err().to_string();
    assert!(error.contains("DequantizeLinear") && error.contains("block_size"), "{error}");
}
