//! Cast, CastLike and BitCast: elements as another type.

use crate::attributes::Attributes;
use crate::error::{Context, Result};
use crate::formats::{Overflow, Rounding};
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Numbers, Tensor};
use std::sync::Arc;

/// The elements of `x` as `dtype`: floats round to nearest even, floats become integers by truncation, integers wrap, and
/// everything but zero is true. Floats outside an integer type's range, on which ONNX is silent, become its nearest value
/// and NaN becomes 0, on every machine; of integers of less than 8 bits the low bits are kept, as ONNX's own cases have it.
/// Floats too narrow to compute in saturate, and scales (`f8e8m0`) round away from zero: [`Narrowing`] says otherwise.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    match (x.to_numbers(), dtype.integer_range()) {
        (Numbers::Float(v), None) => Tensor::from_f64s(dtype, x.shape(), &v),
        (Numbers::Float(v), Some(_)) if dtype == DType::Bool => {
            let truths: Vec<bool> = v.into_iter().map(|f| f != 0.0).collect();
            Tensor::from_bools(x.shape(), &truths)
        }
        (Numbers::Float(v), Some((low, high))) => {
            let (low, high) = if dtype.bits() < 8 { (i128::MIN, i128::MAX) } else { (low, high) };
            let ints: Vec<i128> = v.into_iter().map(|f| (f as i128).clamp(low, high)).collect();
            Tensor::from_ints(dtype, x.shape(), &ints)
        }
        // Straight to f32, as rounding by way of f64 would round twice.
        (Numbers::Int(v), None) if dtype == DType::F32 => {
            let floats: Vec<f32> = v.into_iter().map(|i| i as f32).collect();
            Tensor::new(x.shape(), &floats)
        }
        (Numbers::Int(v), None) => {
            let floats: Vec<f64> = v.into_iter().map(|i| i as f64).collect();
            Tensor::from_f64s(dtype, x.shape(), &floats)
        }
        (Numbers::Int(v), Some(_)) => Tensor::from_ints(dtype, x.shape(), &v),
    }
}

/// How numbers become floats that are too narrow to compute in; without meaning for other types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrowing {
    /// Whether what is too large becomes the largest number, instead of infinity or NaN.
    pub saturate: bool,
    /// How scales are rounded.
    pub scales: ScaleRounding,
}

/// How numbers become powers of two (`f8e8m0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // away from zero, toward zero, to nearest with ties up
pub enum ScaleRounding {
    Up,
    Down,
    Nearest,
}

impl Default for Narrowing {
    fn default() -> Narrowing {
        Narrowing { saturate: true, scales: ScaleRounding::Up }
    }
}

impl Narrowing {
    fn read(attributes: &Attributes) -> Result<Narrowing> {
        Ok(Narrowing {
            saturate: attributes.flag("saturate", true)?,
            scales: match attributes.string("round_mode", "up")?.as_str() {
                "up" => ScaleRounding::Up,
                "down" => ScaleRounding::Down,
                "nearest" => ScaleRounding::Nearest,
                other => {
                    invalid!("attribute \"round_mode\" is \"{other}\", where up, down or nearest is expected")
                }
            },
        })
    }
    fn write(self, attributes: Attributes) -> Attributes {
        let attributes = if self.saturate { attributes } else { attributes.with("saturate", 0) };
        match self.scales {
            ScaleRounding::Up => attributes,
            ScaleRounding::Down => attributes.with("round_mode", "down"),
            ScaleRounding::Nearest => attributes.with("round_mode", "nearest"),
        }
    }
    /// [`cast`] by these rules.
    fn cast(self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        if dtype.narrow_float().is_none() || x.dtype() == dtype {
            return cast(x, dtype);
        }
        let rounding = match self.scales {
            _ if dtype != DType::F8E8M0 => Rounding::TiesEven,
            ScaleRounding::Up => Rounding::AwayFromZero,
            ScaleRounding::Down => Rounding::TowardZero,
            ScaleRounding::Nearest => Rounding::TiesAway,
        };
        let overflow = if self.saturate { Overflow::Saturate } else { Overflow::AsSpecified };
        Tensor::narrowed(dtype, x.shape(), &x.to_f64s(), rounding, overflow)
    }
}

/// The type that attribute `to` names.
fn target(node: &NodeReader) -> Result<DType> {
    let code = Attributes::require("to", node.attributes.opt_int("to")?)?;
    DType::from_onnx_code(code).context(|| "attribute \"to\"")
}

/// What is known of `x` behind a cast to `dtype`.
fn cast_fact(inputs: &[Option<Fact>], dtype: DType) -> Result<Vec<Fact>> {
    let x = required_fact(inputs, 0)?;
    Ok(vec![Fact { dtype, shape: x.shape.clone(), value: None }])
}

/// The elements as type `to`, converted by [`cast`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cast {
    /// The type of the output.
    pub to: DType,
    /// How floats are narrowed.
    pub narrowing: Narrowing,
}

impl Cast {
    /// The cast to `to` as ONNX has it unless told otherwise.
    pub fn new(to: DType) -> Cast {
        Cast { to, narrowing: Narrowing::default() }
    }
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Cast { to: target(node)?, narrowing: Narrowing::read(&node.attributes)? }))
    }
}

impl Operator for Cast {
    fn name(&self) -> &'static str {
        "Cast"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        cast_fact(inputs, self.to)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![self.narrowing.cast(required(inputs, 0)?, self.to)?])
    }
    fn attributes(&self) -> Attributes {
        self.narrowing.write(Attributes::new().with("to", self.to.onnx_code()))
    }
}

/// The elements as the type of input 1, whose content does not matter, converted by [`cast`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CastLike {
    /// How floats are narrowed.
    pub narrowing: Narrowing,
}

impl CastLike {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(CastLike { narrowing: Narrowing::read(&node.attributes)? }))
    }
}

impl Operator for CastLike {
    fn name(&self) -> &'static str {
        "CastLike"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        cast_fact(inputs, required_fact(inputs, 1)?.dtype)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![self.narrowing.cast(required(inputs, 0)?, required(inputs, 1)?.dtype())?])
    }
    fn attributes(&self) -> Attributes {
        self.narrowing.write(Attributes::new())
    }
}

/// The bits of the elements taken as a type of the same size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BitCast {
    /// The type of the output.
    pub to: DType,
}

impl BitCast {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(BitCast { to: target(node)? }))
    }
}

impl Operator for BitCast {
    fn name(&self) -> &'static str {
        "BitCast"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let from = required_fact(inputs, 0)?.dtype;
        // One truth value takes a byte here and in ONNX, so it may be exchanged with 8-bit integers.
        if from.bits() != self.to.bits() {
            invalid!("attribute \"to\" is {}, which has not the size of the input's type {from}", self.to);
        }
        cast_fact(inputs, self.to)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        Ok(vec![Tensor::from_bytes(self.to, x.shape(), x.bytes())?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("to", self.to.onnx_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{eval, floats, read, refusal};

    #[test]
    fn floats_to_integers() {
        let x = floats(&[6], &[-1.9, 1.9, 300., -300., f32::INFINITY, f32::NAN]);
        let got = |to| eval(&Cast::new(to), &[&x]).to_i64s().unwrap();
        assert_eq!(got(DType::I8), [-1, 1, 127, -128, 127, 0]);
        assert_eq!(got(DType::U8), [0, 1, 255, 0, 255, 0]);
        assert_eq!(got(DType::I64), [-1, 1, 300, -300, i64::MAX, 0]);
        assert_eq!(
            eval(&Cast::new(DType::Bool), &[&floats(&[3], &[0.5, -0.0, f32::NAN])]).as_bools().unwrap(),
            [1, 0, 1]
        );
    }

    #[test]
    fn integers_to_anything() {
        let x = Tensor::new(&[2], &[200i16, -1]).unwrap();
        assert_eq!(eval(&Cast::new(DType::I8), &[&x]).to_i64s().unwrap(), [-56, -1]);
        assert_eq!(eval(&Cast::new(DType::U32), &[&x]).to_i64s().unwrap(), [200, 0xFFFF_FFFF]);
        assert_eq!(eval(&Cast::new(DType::Bool), &[&x]).as_bools().unwrap(), [1, 1]);
        assert_eq!(eval(&Cast::new(DType::BF16), &[&x]).to_f32s(), [200., -1.]);
        let tie = (1i64 << 60) + (1 << 36) + 1;
        let once = eval(&Cast::new(DType::F32), &[&Tensor::scalar(tie)]);
        assert_eq!(once, Tensor::scalar(tie as f32));
    }

    #[test]
    fn floats_to_floats_round_once() {
        let x = Tensor::new(&[3], &[1.0f64 + 1e-9, 1e300, 65520.0]).unwrap();
        assert_eq!(eval(&Cast::new(DType::F32), &[&x]).to_f32s()[..2], [1.0, f32::INFINITY]);
        assert_eq!(eval(&Cast::new(DType::F16), &[&x]).to_f32s()[2], f32::INFINITY);
        let half = eval(&CastLike::default(), &[&x, &Tensor::zeros(DType::F16, &[0]).unwrap()]);
        assert_eq!((half.dtype(), half.shape()), (DType::F16, &[3][..]));
    }

    #[test]
    fn every_pair_of_types() {
        for from in DType::ALL {
            let x = Tensor::zeros(from, &[1, 0, 2]).unwrap();
            let one = cast(&Tensor::scalar(1i8), from).unwrap();
            for to in DType::ALL {
                assert_eq!(eval(&Cast::new(to), &[&x]).shape(), [1, 0, 2]);
                assert_eq!(eval(&Cast::new(to), &[&one]).to_f64s(), [1.0], "{from} to {to}");
            }
        }
    }

    #[test]
    fn narrow_floats_saturate_unless_told_otherwise() {
        let x = floats(&[4], &[500., -500., f32::INFINITY, 0.3]);
        let cast = |to, saturate| {
            let narrowing = Narrowing { saturate, ..Narrowing::default() };
            eval(&Cast { to, narrowing }, &[&x]).to_f32s()
        };
        assert_eq!(cast(DType::F8E4M3FN, true), [448., -448., 448., 0.3125]);
        assert!(cast(DType::F8E4M3FN, false)[..3].iter().all(|v| v.is_nan()));
        assert_eq!(cast(DType::F8E5M2, false), [512., -512., f32::INFINITY, 0.3125]);
        let scale = |scales| {
            let narrowing = Narrowing { scales, ..Narrowing::default() };
            eval(&Cast { to: DType::F8E8M0, narrowing }, &[&floats(&[2], &[5., 6.])]).to_f32s()
        };
        assert_eq!(scale(ScaleRounding::Up), [8., 8.]);
        assert_eq!(scale(ScaleRounding::Down), [4., 4.]);
        assert_eq!(scale(ScaleRounding::Nearest), [4., 8.]);
        let written =
            Cast { to: DType::F8E5M2, narrowing: Narrowing { saturate: false, scales: ScaleRounding::Down } };
        let back = read("Cast", 24, written.attributes()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{written:?}"));
    }

    #[test]
    fn four_bits_wrap_and_round() {
        let x = Tensor::new(&[3], &[9i32, -9, 3]).unwrap();
        assert_eq!(eval(&Cast::new(DType::I4), &[&x]).to_i64s().unwrap(), [-7, 7, 3]);
        assert_eq!(eval(&Cast::new(DType::U4), &[&x]).to_i64s().unwrap(), [9, 7, 3]);
        assert_eq!(
            eval(&Cast::new(DType::I4), &[&floats(&[3], &[-100., 2.9, 100.])]).to_i64s().unwrap(),
            [-4, 2, 4]
        );
        let bits = eval(&BitCast { to: DType::U4 }, &[&eval(&Cast::new(DType::I4), &[&x])]);
        assert_eq!(bits.to_i64s().unwrap(), [9, 7, 3]);
        assert!(refusal(&BitCast { to: DType::U8 }, &[Fact::constant(&bits)]).contains("\"to\""));
    }

    #[test]
    fn bits_keep_their_pattern() {
        let x = floats(&[2], &[1.0, -0.0]);
        assert_eq!(eval(&BitCast { to: DType::I32 }, &[&x]).to_i64s().unwrap(), [0x3F80_0000, -1 << 31]);
        assert!(refusal(&BitCast { to: DType::I64 }, &[Fact::constant(&x)]).contains("\"to\""));
    }

    #[test]
    fn reads_types_by_number() {
        let to = |code: i64| read("Cast", 13, Attributes::new().with("to", code));
        assert_eq!(
            format!("{:?}", to(16).unwrap()),
            "Cast { to: BF16, narrowing: Narrowing { saturate: true, scales: Up } }"
        );
        let error = to(8).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert!(error.to_string().contains("attribute \"to\""));
        assert!(read("Cast", 13, Attributes::new()).is_err());
    }
}
