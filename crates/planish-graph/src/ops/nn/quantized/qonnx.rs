//! The quantisers of QONNX: Quant, BipolarQuant and Trunc, whose results are floats that few bits could hold.
//!
//! QDQ pairs can say integers of 8 bits and less, with bounds that the type sets. QONNX (Pappalardo et al., "QONNX:
//! Representing Arbitrary-Precision Quantized Neural Networks", arXiv 2206.07527) says any number of bits, binary weights
//! among them, in one node that quantises and dequantises; Brevitas, hls4ml and FINN exchange networks in it. Domain
//! `qonnx.custom_op.general`; Brevitas once wrote `onnx.brevitas`.
//!
//! Everything is computed in `f32`, each step rounded, as their own evaluation does: what lies on a tie there must here.

use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Tensor, index};
use std::sync::Arc;

/// The domain that these operators are written in.
pub const DOMAIN: &str = "qonnx.custom_op.general";

/// What Brevitas called that domain.
pub const BREVITAS_DOMAIN: &str = "onnx.brevitas";

/// More bits than this are not read: `f32` cannot tell their numbers apart long before.
const MOST_BITS: f64 = 64.0;

/// How numbers become integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundingMode {
    /// To nearest, ties to even ("ROUND", "HALF_EVEN").
    Round,
    /// Up.
    Ceil,
    /// Down.
    Floor,
    /// Away from zero.
    Up,
    /// Toward zero ("DOWN", "ROUND_TO_ZERO").
    Down,
    /// To nearest, ties away from zero.
    HalfUp,
    /// To nearest, ties toward zero.
    HalfDown,
}

impl RoundingMode {
    fn read(attributes: &Attributes, usual: &str) -> Result<RoundingMode> {
        let name = attributes.string("rounding_mode", usual)?.to_uppercase();
        Ok(match name.as_str() {
            "ROUND" | "HALF_EVEN" => RoundingMode::Round,
            "CEIL" => RoundingMode::Ceil,
            "FLOOR" => RoundingMode::Floor,
            "UP" => RoundingMode::Up,
            "DOWN" | "ROUND_TO_ZERO" => RoundingMode::Down,
            "HALF_UP" => RoundingMode::HalfUp,
            "HALF_DOWN" => RoundingMode::HalfDown,
            _ => invalid!(
                "attribute \"rounding_mode\" is \"{name}\", where ROUND, CEIL, FLOOR, UP, DOWN, HALF_UP or HALF_DOWN \
                 is expected"
            ),
        })
    }
    fn name(self) -> &'static str {
        match self {
            RoundingMode::Round => "ROUND",
            RoundingMode::Ceil => "CEIL",
            RoundingMode::Floor => "FLOOR",
            RoundingMode::Up => "UP",
            RoundingMode::Down => "DOWN",
            RoundingMode::HalfUp => "HALF_UP",
            RoundingMode::HalfDown => "HALF_DOWN",
        }
    }
    /// `x` as an integer.
    pub fn round(self, x: f32) -> f32 {
        match self {
            RoundingMode::Round => x.round_ties_even(),
            RoundingMode::Ceil => x.ceil(),
            RoundingMode::Floor => x.floor(),
            RoundingMode::Up => x.abs().ceil().copysign(x),
            RoundingMode::Down => x.trunc(),
            RoundingMode::HalfUp => (x.abs() + 0.5).floor().copysign(x),
            RoundingMode::HalfDown => (x.abs() - 0.5).ceil().copysign(x),
        }
    }
}

/// Which integers a number of bits stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Whether half of them are negative.
    pub signed: bool,
    /// Whether one is given up: the lowest where signed, so that the range is symmetric, else the highest.
    pub narrow: bool,
}

impl Range {
    fn read(attributes: &Attributes) -> Result<Range> {
        Ok(Range { signed: attributes.flag("signed", true)?, narrow: attributes.flag("narrow", false)? })
    }
    fn write(self, attributes: Attributes) -> Attributes {
        attributes.with("signed", self.signed).with("narrow", self.narrow)
    }
    /// The lowest and highest integer of `bits` bits.
    pub fn bounds(self, bits: f64) -> (f32, f32) {
        let given_up = f64::from(u8::from(self.narrow));
        let (low, high) = if self.signed {
            let half = (bits - 1.0).exp2();
            (given_up - half, half - 1.0)
        } else {
            (0.0, bits.exp2() - 1.0 - given_up)
        };
        (low as f32, high as f32)
    }
}

/// The number of bits that input `at` holds.
fn bit_width(tensor: &Tensor, at: usize) -> Result<f64> {
    match tensor.to_f64s()[..] {
        [bits] if (1.0..=MOST_BITS).contains(&bits) && bits.fract() == 0.0 => Ok(bits),
        [bits] => {
            invalid!("input {at} says {bits} bits, where a whole number from 1 to {MOST_BITS} is expected")
        }
        _ => invalid!("input {at} is of shape {:?}, where one number of bits is expected", tensor.shape()),
    }
}

/// What is known of the output: x itself, to whose shape the `others` must broadcast. `bits` are numbers of bits.
fn infer(inputs: &[Option<Fact>], others: &[usize], bits: &[usize]) -> Result<Vec<Fact>> {
    let x = required_fact(inputs, 0)?;
    for &at in [0].iter().chain(others) {
        let fact = required_fact(inputs, at)?;
        if fact.dtype != DType::F32 {
            invalid!("input {at} is of type {}, where f32 is expected", fact.dtype);
        }
        if let (Some(shape), Some(other)) = (x.shape(), fact.shape())
            && index::broadcast(&[shape, other])? != shape
        {
            invalid!("input {at} of shape {other:?} does not broadcast to {shape:?}");
        }
    }
    for &at in bits {
        let fact = required_fact(inputs, at)?;
        if fact.dtype == DType::Bool {
            invalid!("input {at} is of type bool, where a number is expected");
        }
        if let Some(value) = &fact.value {
            bit_width(value, at)?;
        }
    }
    Ok(vec![Fact { dtype: DType::F32, shape: x.shape.clone(), value: None }])
}

/// `function` of each element of x and those of the `N` others that broadcast to it.
fn map<const N: usize>(
    x: &Tensor,
    others: [&Tensor; N],
    function: impl Fn(f32, [f32; N]) -> f32,
) -> Result<Vec<Tensor>> {
    let strides = others.map(|o| index::broadcast_strides(o.shape(), x.shape()));
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, other) in slices.iter_mut().zip(others) {
        *slice = other.as_slice()?;
    }
    let mut out = x.clone();
    let values = out.as_mut_slice::<f32>()?;
    index::for_each::<N>(x.shape(), std::array::from_fn(|i| strides[i].as_slice()), |flat, offsets| {
        values[flat] = function(values[flat], std::array::from_fn(|i| slices[i][offsets[i]]));
    });
    Ok(vec![out])
}

/// `(round(clamp(x / scale + zero point)) - zero point) * scale`. Inputs: x, scale, zero point, number of bits. One bit
/// with a sign is -1 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quant {
    /// Which integers there are.
    pub range: Range,
    /// How they are rounded to.
    pub rounding: RoundingMode,
    /// Whether it is spelled IntQuant, its newer name.
    pub spelled_int: bool,
}

impl Quant {
    pub(in crate::ops::nn) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Quant {
            range: Range::read(&node.attributes)?,
            rounding: RoundingMode::read(&node.attributes, "ROUND")?,
            spelled_int: node.op_type == "IntQuant",
        }))
    }
    /// The number of bits that the tensor of input 3 says.
    pub fn bits(tensor: &Tensor) -> Result<f64> {
        bit_width(tensor, 3)
    }
    /// Whether so many bits are -1 and 1, and no 0.
    pub fn is_bipolar(&self, bits: f64) -> bool {
        bits == 1.0 && self.range.signed
    }
    /// The integer that `x / scale + zero point` becomes; NaN stays what it is.
    pub fn integer(&self, level: f32, bits: f64) -> f32 {
        if self.is_bipolar(bits) {
            return sign(level);
        }
        let (low, high) = self.range.bounds(bits);
        self.rounding.round(bounded(level, low, high))
    }
}

impl Operator for Quant {
    fn name(&self) -> &'static str {
        if self.spelled_int { "IntQuant" } else { "Quant" }
    }
    fn domain(&self) -> &'static str {
        DOMAIN
    }
    fn arity(&self) -> Arity {
        Arity::exact(4)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        infer(inputs, &[1, 2], &[3])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let bits = Quant::bits(required(inputs, 3)?)?;
        map(required(inputs, 0)?, [required(inputs, 1)?, required(inputs, 2)?], |x, [scale, zero]| {
            let integer = self.integer(x / scale + zero, bits);
            (integer - zero) * scale
        })
    }
    fn attributes(&self) -> Attributes {
        self.range.write(Attributes::new().with("rounding_mode", self.rounding.name()))
    }
}

/// 1 where `x` is at least 0, else -1.
fn sign(x: f32) -> f32 {
    if x >= 0.0 { 1.0 } else { -1.0 }
}

/// `x` between two bounds; NaN stays what it is.
fn bounded(x: f32, low: f32, high: f32) -> f32 {
    match x {
        x if x > high => high,
        x if x < low => low,
        x => x,
    }
}

/// `scale` where x is at least 0, else `-scale`. Inputs: x, scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BipolarQuant;

impl BipolarQuant {
    pub(in crate::ops::nn) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(BipolarQuant))
    }
}

impl Operator for BipolarQuant {
    fn name(&self) -> &'static str {
        "BipolarQuant"
    }
    fn domain(&self) -> &'static str {
        DOMAIN
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        infer(inputs, &[1], &[])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        map(required(inputs, 0)?, [required(inputs, 1)?], |x, [scale]| sign(x) * scale)
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

/// Drops low bits of what was quantised. Inputs: x, scale, zero point, its number of bits, then in version 1 the number of
/// bits to keep, in version 2 the scale and the number of bits of the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trunc {
    /// How what is dropped is rounded.
    pub rounding: RoundingMode,
    /// The integers of the result; `None` in version 1, which does not bound them.
    pub range: Option<Range>,
}

impl Trunc {
    pub(in crate::ops::nn) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        // Files are not always careful about the domain's version; the number of inputs tells.
        let range = (node.input_count > 5).then(|| Range::read(&node.attributes)).transpose()?;
        Ok(Arc::new(Trunc { rounding: RoundingMode::read(&node.attributes, "FLOOR")?, range }))
    }
}

impl Operator for Trunc {
    fn name(&self) -> &'static str {
        "Trunc"
    }
    fn domain(&self) -> &'static str {
        DOMAIN
    }
    fn arity(&self) -> Arity {
        Arity::exact(if self.range.is_some() { 6 } else { 5 })
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        match self.range {
            Some(_) => infer(inputs, &[1, 2, 4], &[3, 5]),
            None => infer(inputs, &[1, 2], &[3, 4]),
        }
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let [x, scale, zero, bits] = [0, 1, 2, 3].map(|at| required(inputs, at));
        let (x, scale, zero, bits) = (x?, scale?, zero?, bit_width(bits?, 3)?);
        let level = |x: f32, scale: f32, zero: f32| (x / scale + zero).round_ties_even();
        let Some(range) = self.range else {
            let dropped = (bits - bit_width(required(inputs, 4)?, 4)?).exp2() as f32;
            return map(x, [scale, zero], |x, [scale, zero]| {
                (self.rounding.round(level(x, scale, zero) / dropped) - zero) * scale
            });
        };
        let (low, high) = range.bounds(bit_width(required(inputs, 5)?, 5)?);
        map(x, [scale, zero, required(inputs, 4)?], |x, [scale, zero, result]| {
            let dropped = (result / scale).log2().round_ties_even().exp2();
            let kept = self.rounding.round(bounded(level(x, scale, zero) / dropped, low, high));
            (kept - zero / dropped) * result
        })
    }
    fn attributes(&self) -> Attributes {
        let attributes = Attributes::new().with("rounding_mode", self.rounding.name());
        match self.range {
            Some(range) => range.write(attributes),
            None => attributes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::new(shape, values).unwrap()
    }

    fn run(op: &dyn Operator, inputs: &[&Tensor]) -> Vec<f32> {
        let facts: Vec<Option<Fact>> = inputs.iter().map(|t| Some(Fact::constant(t))).collect();
        assert_eq!(op.infer(&facts, 1).unwrap()[0].shape(), Some(inputs[0].shape()));
        let inputs: Vec<Option<&Tensor>> = inputs.iter().copied().map(Some).collect();
        op.eval(&inputs, 1).unwrap()[0].to_f32s()
    }

    fn quant(signed: bool, narrow: bool, rounding: RoundingMode) -> Quant {
        Quant { range: Range { signed, narrow }, rounding, spelled_int: false }
    }

    #[test]
    fn rounds_as_the_table_of_qonnx_says() {
        use RoundingMode::*;
        let x = floats(&[10], &[5.5, 2.5, 1.6, 1.1, 1.0, -1.0, -1.1, -1.6, -2.5, -5.5]);
        let (one, zero, bits) = (Tensor::scalar(1f32), Tensor::scalar(0f32), Tensor::scalar(8f32));
        for (mode, wanted) in [
            (Round, [6., 2., 2., 1., 1., -1., -1., -2., -2., -6.]),
            (Ceil, [6., 3., 2., 2., 1., -1., -1., -1., -2., -5.]),
            (Floor, [5., 2., 1., 1., 1., -1., -2., -2., -3., -6.]),
            (Up, [6., 3., 2., 2., 1., -1., -2., -2., -3., -6.]),
            (Down, [5., 2., 1., 1., 1., -1., -1., -1., -2., -5.]),
            (HalfUp, [6., 3., 2., 1., 1., -1., -1., -2., -3., -6.]),
            (HalfDown, [5., 2., 2., 1., 1., -1., -1., -2., -2., -5.]),
        ] {
            assert_eq!(run(&quant(true, false, mode), &[&x, &one, &zero, &bits]), wanted, "{mode:?}");
            let written = quant(true, false, mode).attributes();
            assert_eq!(RoundingMode::read(&written, "ROUND").unwrap(), mode);
        }
    }

    #[test]
    fn bounds_follow_bits_sign_and_narrowness() {
        let x = floats(&[2], &[1e9, -1e9]);
        let (half, zero) = (Tensor::scalar(0.5f32), Tensor::scalar(0f32));
        for (signed, narrow, bits, wanted) in [
            (true, false, 8, [63.5, -64.]),
            (true, true, 8, [63.5, -63.5]),
            (false, false, 4, [7.5, 0.]),
            (false, true, 4, [7., 0.]),
            (true, true, 2, [0.5, -0.5]),
            (true, false, 1, [0.5, -0.5]),
            (false, false, 1, [0.5, 0.]),
        ] {
            let bits = Tensor::scalar(bits);
            let got = run(&quant(signed, narrow, RoundingMode::Round), &[&x, &half, &zero, &bits]);
            assert_eq!(got, wanted, "{signed} {narrow} {bits:?}");
        }
    }

    #[test]
    fn scales_and_zero_points_broadcast() {
        let x = floats(&[2, 2], &[0.3, -0.3, 30., -30.]);
        let (scale, zero) = (floats(&[2, 1], &[0.25, 10.]), floats(&[1, 2], &[0., 3.]));
        let got = run(&quant(false, false, RoundingMode::Round), &[&x, &scale, &zero, &Tensor::scalar(3i64)]);
        assert_eq!(got, [0.25, -0.25, 30., -30.]);
        assert_eq!(run(&BipolarQuant, &[&x, &scale]), [0.25, -0.25, 10., -10.]);
        assert_eq!(run(&BipolarQuant, &[&floats(&[2], &[0., -0.]), &Tensor::scalar(2f32)]), [2., 2.]);
        let empty = floats(&[0, 2], &[]);
        assert!(run(&BipolarQuant, &[&empty, &Tensor::scalar(1f32)]).is_empty());
    }

    #[test]
    fn truncates_in_both_versions() {
        let x = floats(&[4], &[0.5, 12.0, -3.5, 100.0]);
        let (half, zero) = (Tensor::scalar(0.5f32), Tensor::scalar(0f32));
        let (from, to) = (Tensor::scalar(8f32), Tensor::scalar(4f32));
        let first = Trunc { rounding: RoundingMode::Floor, range: None };
        // Integers 1, 24, -7 and 200, of which the lowest four bits go.
        assert_eq!(run(&first, &[&x, &half, &zero, &from, &to]), [0., 0.5, -0.5, 6.]);
        let range = Some(Range { signed: true, narrow: false });
        let second = Trunc { rounding: RoundingMode::Floor, range };
        let result = Tensor::scalar(8f32);
        assert_eq!(run(&second, &[&x, &half, &zero, &from, &result, &to]), [0., 8., -8., 56.]);
    }

    #[test]
    fn refuses_what_says_no_bits_or_does_not_fit() {
        let op = quant(true, false, RoundingMode::Round);
        let one = Tensor::scalar(1f32);
        let refusal = |x: Fact, scale: &Tensor, bits: &Tensor| {
            let facts = [x, Fact::constant(scale), Fact::constant(&one), Fact::constant(bits)].map(Some);
            op.infer(&facts, 1).unwrap_err().to_string()
        };
        let x = || Fact::new(DType::F32, &[2, 3]);
        for bits in [0.0f32, -1.0, 3.5, 65.0, f32::NAN, f32::INFINITY] {
            assert!(refusal(x(), &one, &Tensor::scalar(bits)).contains("bits"), "{bits}");
        }
        assert!(refusal(x(), &one, &floats(&[2], &[8., 8.])).contains("bits"));
        assert!(refusal(x(), &floats(&[2], &[1., 1.]), &one).contains("broadcast"));
        assert!(refusal(x(), &floats(&[2, 2, 3], &[1.; 12]), &one).contains("broadcast"));
        assert!(refusal(Fact::new(DType::I8, &[2, 3]), &one, &one).contains("f32"));
        let error = RoundingMode::read(&Attributes::new().with("rounding_mode", "sideways"), "ROUND");
        assert!(error.unwrap_err().to_string().contains("SIDEWAYS"));
    }

    #[test]
    fn odd_scales_give_what_the_formula_says() {
        let x = floats(&[3], &[1., -1., 0.]);
        let zero = Tensor::scalar(0f32);
        let of = |scale: f32| {
            run(
                &quant(true, false, RoundingMode::Round),
                &[&x, &Tensor::scalar(scale), &zero, &Tensor::scalar(4f32)],
            )
        };
        assert_eq!(of(-0.5), [1., -1., 0.]);
        let none = of(0.0);
        assert!(none[0] == 0.0 && none[1] == 0.0 && none[2].is_nan());
        assert!(of(f32::NAN).iter().all(|v| v.is_nan()));
    }
}
