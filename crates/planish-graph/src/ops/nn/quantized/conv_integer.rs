//! ConvInteger and QLinearConv: convolutions of small integers.
//!
//! Both sum `(x - zero point of x) * (w - zero point of w)` exactly. ConvInteger hands out the 32-bit sums; QLinearConv
//! adds an integer bias and brings them to the scale of its output (Jacob et al., 2018). The second is what older
//! quantised models hold; newer ones say the same with QuantizeLinear and DequantizeLinear around Conv.

use super::quantize::check_scales;
use super::scales::requantize;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::room;
use crate::ops::nn::checks::{expect_shape, same_type};
use crate::ops::nn::conv::{Conv, add_per_channel, convolve, shaped};
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Inputs: x, w, zero point of x (optional, one), zero point of w (optional, one or one an output channel).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConvInteger {
    /// The attributes.
    pub conv: Conv,
}

/// Inputs: x, its scale and zero point, w, its scale and zero point (one or one an output channel), scale and zero point
/// of the output, bias (optional, `i32`, in the scale `x scale * w scale`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QLinearConv {
    /// The attributes.
    pub conv: Conv,
}

/// The type of input `index`, which must be an 8-bit integer.
pub(super) fn byte_type(inputs: &[Option<Fact>], index: usize) -> Result<DType> {
    let dtype = required_fact(inputs, index)?.dtype;
    if !matches!(dtype, DType::I8 | DType::U8) {
        invalid!("input {index} is of type {dtype}, where i8 or u8 is expected");
    }
    Ok(dtype)
}

/// Input `index`, where given and its shape known, must hold one element.
fn expect_one(inputs: &[Option<Fact>], index: usize) -> Result<()> {
    match optional_fact(inputs, index).and_then(|f| f.shape()) {
        None | Some([] | [1]) => Ok(()),
        Some(shape) => invalid!("input {index} is of shape {shape:?}, where one number is expected"),
    }
}

/// Input `index`, where given and its shape known, must hold one element or one for each of `channels`.
fn expect_one_or(inputs: &[Option<Fact>], index: usize, channels: Option<usize>) -> Result<()> {
    match channels {
        Some(count) if expect_one(inputs, index).is_err() => expect_shape(inputs, index, &[count]),
        _ => Ok(()),
    }
}

/// The exact sums of `conv` over the integers `x` and `w` less their zero points, and their shape.
fn sums(
    conv: &Conv,
    [x, w]: [&Tensor; 2],
    [x_zero, w_zero]: [Option<&Tensor>; 2],
) -> Result<(Vec<i64>, Vec<usize>)> {
    let problem = conv.resolve(x.shape(), w.shape())?;
    let [mut x, mut w] = [x.to_i64s()?, w.to_i64s()?];
    if let Some([zero]) = x_zero.map(|z| z.to_i64s()).transpose()?.as_deref() {
        x.iter_mut().for_each(|v| *v -= zero);
    }
    if let Some(zeros) = w_zero.map(|z| z.to_i64s()).transpose()?.filter(|z| !z.is_empty()) {
        let each = (w.len() / problem.out_channels.max(1)).max(1);
        for (channel, kernel) in w.chunks_mut(each).enumerate() {
            let zero = zeros[channel % zeros.len()];
            kernel.iter_mut().for_each(|v| *v -= zero);
        }
    }
    Ok((convolve(&problem, &x, &w)?, problem.output_shape()))
}

impl ConvInteger {
    pub(in crate::ops::nn) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(ConvInteger { conv: Conv::from_attributes(&node.attributes)? }))
    }
}

impl Operator for ConvInteger {
    fn name(&self) -> &'static str {
        "ConvInteger"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 4)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        for index in [0, 1] {
            let dtype = byte_type(inputs, index)?;
            same_type(inputs, index + 2, dtype)?;
        }
        let shape = self.conv.infer_shape(inputs, 1, None)?;
        expect_one(inputs, 2)?;
        expect_one_or(inputs, 3, shape.as_ref().map(|s| s[1]))?;
        Ok(vec![shaped(DType::I32, shape)])
    }
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        self.conv.count(inputs, 1)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let given = [required(inputs, 0)?, required(inputs, 1)?];
        let (sums, shape) = sums(&self.conv, given, [optional(inputs, 2), optional(inputs, 3)])?;
        let mut wide: Vec<i128> = room(&shape)?;
        wide.extend(sums.into_iter().map(i128::from));
        Ok(vec![Tensor::from_ints(DType::I32, &shape, &wide)?])
    }
    fn attributes(&self) -> Attributes {
        self.conv.written()
    }
}

impl QLinearConv {
    pub(in crate::ops::nn) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(QLinearConv { conv: Conv::from_attributes(&node.attributes)? }))
    }
}

impl Operator for QLinearConv {
    fn name(&self) -> &'static str {
        "QLinearConv"
    }
    fn arity(&self) -> Arity {
        Arity::range(8, 9)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        for (values, zero) in [(0, 2), (3, 5)] {
            let dtype = byte_type(inputs, values)?;
            same_type(inputs, zero, dtype)?;
        }
        let target = byte_type(inputs, 7)?;
        for scale in [1, 4, 6] {
            same_type(inputs, scale, DType::F32)?;
            check_scales(inputs, scale)?;
        }
        same_type(inputs, 8, DType::I32)?;
        let shape = self.conv.infer_shape(inputs, 3, Some(8))?;
        for single in [1, 2, 6, 7] {
            expect_one(inputs, single)?;
        }
        for each in [4, 5] {
            expect_one_or(inputs, each, shape.as_ref().map(|s| s[1]))?;
        }
        Ok(vec![shaped(target, shape)])
    }
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        self.conv.count(inputs, 3)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let given = [required(inputs, 0)?, required(inputs, 3)?];
        let (mut sums, shape) = sums(&self.conv, given, [optional(inputs, 2), optional(inputs, 5)])?;
        if let Some(bias) = optional(inputs, 8) {
            add_per_channel(&mut sums, &bias.to_i64s()?, &shape[2..]);
        }
        let y_zero = required(inputs, 7)?;
        let (x_scale, w_scales) = (required(inputs, 1)?.to_f32s(), required(inputs, 4)?.to_f32s());
        let (y_scale, zero) = (required(inputs, 6)?.to_f32s(), y_zero.to_i64s()?);
        let (&[x_scale], &[y_scale], &[zero]) = (&x_scale[..], &y_scale[..], &zero[..]) else {
            invalid!("the scale of x, the scale of y and the zero point of y must hold one number each")
        };
        let multipliers: Vec<f32> = w_scales.iter().map(|w| x_scale * w / y_scale).collect();
        let plane = crate::ops::nn::checks::product(&shape[2..]).max(1);
        let mut values: Vec<i128> = room(&shape)?;
        for (index, sums) in sums.chunks_exact(plane).enumerate() {
            let multiplier = multipliers[index % shape[1] % multipliers.len()];
            let zero = i128::from(zero);
            values.extend(sums.iter().map(|&sum| requantize(sum, multiplier, zero, y_zero.dtype())));
        }
        Ok(vec![Tensor::from_ints(y_zero.dtype(), &shape, &values)?])
    }
    fn attributes(&self) -> Attributes {
        self.conv.written()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_less_the_zero_points() {
        let x = Tensor::new(&[1, 1, 3, 3], &[2u8, 3, 4, 5, 6, 7, 8, 9, 10]).unwrap();
        let w = Tensor::new(&[1, 1, 2, 2], &[1u8; 4]).unwrap();
        let zero = Tensor::scalar(1u8);
        let op = ConvInteger::default();
        let y = op.eval(&[Some(&x), Some(&w), Some(&zero)], 1).unwrap().remove(0);
        assert_eq!(y.as_slice::<i32>().unwrap(), [12, 16, 24, 28]);
        let padded = ConvInteger { conv: Conv { pads: vec![1, 1, 0, 0], ..Conv::default() } };
        let y = padded.eval(&[Some(&x), Some(&w), Some(&zero)], 1).unwrap().remove(0);
        assert_eq!(y.as_slice::<i32>().unwrap(), [1, 3, 5, 5, 12, 16, 11, 24, 28]);
    }

    #[test]
    fn brings_sums_to_the_scale_of_the_output() {
        let x = Tensor::new(&[1, 1, 2], &[10u8, 20]).unwrap();
        let w = Tensor::new(&[2, 1, 1], &[3i8, -4]).unwrap();
        let (xs, xz) = (Tensor::scalar(0.5f32), Tensor::scalar(10u8));
        let (ws, wz) = (Tensor::new(&[2], &[1f32, 0.5]).unwrap(), Tensor::new(&[2], &[0i8, 1]).unwrap());
        let (ys, yz) = (Tensor::scalar(2f32), Tensor::scalar(3i8));
        let bias = Tensor::new(&[2], &[4i32, 0]).unwrap();
        let given = [&x, &xs, &xz, &w, &ws, &wz, &ys, &yz, &bias].map(Some);
        let op = QLinearConv::default();
        let y = op.eval(&given, 1).unwrap().remove(0);
        // Sums 4, 34 | 0, -50 times 0.25 and 0.125, plus 3.
        assert_eq!(y.as_slice::<i8>().unwrap(), [4, 11, 3, -3]);
        let facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(op.infer(&facts, 1).unwrap(), [Fact::new(DType::I8, &[1, 2, 2])]);
        assert_eq!(op.macs(&facts, &[]), 4);
        let mut wrong = facts.to_vec();
        wrong[4] = Some(Fact::new(DType::F32, &[3]));
        assert!(op.infer(&wrong, 1).is_err());
    }
}
