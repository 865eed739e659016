//! QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear: numbers as small integers on an evenly spaced scale.
//!
//! `real = scale * (integer - zero point)`: Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference" (2018). Pairs of the first two around an operator (QDQ) are how ONNX says that the
//! operator may be computed in integers.

use super::scales::{ScaleLayout, quantize, round_to};
use crate::attributes::Attributes;
use crate::error::{Context, Result};
use crate::formats::{Overflow, Rounding};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::room;
use crate::ops::nn::checks::float_input;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Which elements share a scale; the attributes that quantising and its inverse have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granularity {
    /// The axis that scales vary along, where there is more than one.
    pub axis: i64,
    /// Elements along the axis that share a scale; 0 where scales are not blocked.
    pub block_size: usize,
}

impl Default for Granularity {
    fn default() -> Granularity {
        Granularity { axis: 1, block_size: 0 }
    }
}

impl Granularity {
    fn from_attributes(attributes: &Attributes) -> Result<Granularity> {
        let block_size = attributes.int("block_size", 0)?;
        Ok(Granularity {
            axis: attributes.int("axis", 1)?,
            block_size: match usize::try_from(block_size) {
                Ok(size) => size,
                Err(_) => invalid!("attribute \"block_size\" is {block_size}, which must not be negative"),
            },
        })
    }
    /// Checks inputs 1 (scale) and 2 (zero point) against input 0, as far as their shapes are known.
    fn check(&self, inputs: &[Option<Fact>]) -> Result<()> {
        check_scales(inputs, 1)?;
        let shape = |i: usize| optional_fact(inputs, i).and_then(|f| f.shape());
        if let (Some(x), Some(scale)) = (shape(0), shape(1)) {
            ScaleLayout::resolve(x, scale, self.axis, self.block_size)?;
        }
        let single = |s: &[usize]| matches!(s, [] | [1]);
        match (shape(1), shape(2)) {
            (Some(scale), Some(zero)) if scale != zero && !(single(scale) && single(zero)) => {
                invalid!("the zero point is of shape {zero:?}, the scale of shape {scale:?}")
            }
            _ => Ok(()),
        }
    }
    fn written(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if self.axis != 1 {
            attributes = attributes.with("axis", self.axis);
        }
        if self.block_size != 0 {
            attributes = attributes.with("block_size", i64::try_from(self.block_size).unwrap_or(i64::MAX));
        }
        attributes
    }
}

/// Refuses scales that mean nothing, where input `index` is known: each must be finite and above 0.
pub(super) fn check_scales(inputs: &[Option<Fact>], index: usize) -> Result<()> {
    let Some(scales) = optional_fact(inputs, index).and_then(|f| f.value.as_ref()) else { return Ok(()) };
    let mut numbers = scales.to_f64s().into_iter();
    match numbers.by_ref().enumerate().find(|(_, scale)| !scale.is_finite() || *scale <= 0.0) {
        None => Ok(()),
        Some((at, scale)) => {
            invalid!("input {index}: scale {at} is {scale}, where a finite number above 0 is expected")
        }
    }
}

/// The type that attribute `name` names; `None` where left out or 0.
fn read_type(attributes: &Attributes, name: &str) -> Result<Option<DType>> {
    match attributes.int(name, 0)? {
        0 => Ok(None),
        code => DType::from_onnx_code(code).map(Some).context(|| format!("attribute \"{name}\"")),
    }
}

/// Whether numbers are quantised to this type: 16-bit integers, and everything shorter but truth values and scales.
fn is_quantized(dtype: DType) -> bool {
    let short = dtype.is_integer() && dtype.bits() <= 16;
    short || (dtype.narrow_float().is_some() && dtype != DType::F8E8M0)
}

fn write_type(attributes: Attributes, name: &str, dtype: Option<DType>) -> Attributes {
    match dtype {
        Some(dtype) => attributes.with(name, dtype.onnx_code()),
        None => attributes,
    }
}

/// `y = saturate(round(x / scale) + zero point)`, ties to even. Inputs: x, scale, zero point (optional, whose type is
/// the output's). To floats of 8 bits and less, nothing is rounded but the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizeLinear {
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// The output's type where there is no zero point to say it; `u8` where neither does.
    pub output_dtype: Option<DType>,
    /// The float type in which `x / scale` is rounded; the scale's where left out.
    pub precision: Option<DType>,
    /// What becomes of what is too large for a float type; integers always saturate.
    pub overflow: Overflow,
}

impl Default for QuantizeLinear {
    fn default() -> QuantizeLinear {
        let granularity = Granularity::default();
        QuantizeLinear { granularity, output_dtype: None, precision: None, overflow: Overflow::Saturate }
    }
}

impl QuantizeLinear {
    pub(in crate::ops::nn) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(QuantizeLinear {
            granularity: Granularity::from_attributes(&node.attributes)?,
            output_dtype: read_type(&node.attributes, "output_dtype")?,
            precision: read_type(&node.attributes, "precision")?,
            overflow: match node.attributes.flag("saturate", true)? {
                true => Overflow::Saturate,
                false => Overflow::AsSpecified,
            },
        }))
    }
    /// The output's type for a zero point of type `zero`.
    pub fn target(&self, zero: Option<DType>) -> Result<DType> {
        let target = match (zero, self.output_dtype) {
            (Some(zero), Some(said)) if zero != said => {
                invalid!("attribute \"output_dtype\" is {said}, where the zero point is of type {zero}")
            }
            (zero, said) => zero.or(said).unwrap_or(DType::U8),
        };
        if !is_quantized(target) {
            invalid!("attribute \"output_dtype\": cannot quantise to type {target}");
        }
        Ok(target)
    }
}

impl Operator for QuantizeLinear {
    fn name(&self) -> &'static str {
        "QuantizeLinear"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = required_fact(inputs, 0)?;
        for (index, fact) in [(0, x), (1, required_fact(inputs, 1)?)] {
            let scale = index == 1 && fact.dtype == DType::F8E8M0;
            if !fact.dtype.is_wide_float() && fact.dtype != DType::I32 && !scale {
                invalid!("input {index} is of type {}, where a float type or i32 is expected", fact.dtype);
            }
        }
        if let Some(other) = self.precision.filter(|p| !p.is_wide_float()) {
            invalid!("attribute \"precision\" is {other}, where a float type is expected");
        }
        let target = self.target(optional_fact(inputs, 2).map(|f| f.dtype))?;
        self.granularity.check(inputs)?;
        Ok(vec![Fact { dtype: target, shape: x.shape.clone(), value: None }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, scale, zero) = (required(inputs, 0)?, required(inputs, 1)?, optional(inputs, 2));
        let target = self.target(zero.map(|z| z.dtype()))?;
        let Granularity { axis, block_size } = self.granularity;
        let layout = ScaleLayout::resolve(x.shape(), scale.shape(), axis, block_size)?;
        // A power of two has no precision to speak of.
        let usual = if scale.dtype() == DType::F8E8M0 { x.dtype() } else { scale.dtype() };
        let precision = self.precision.unwrap_or(usual);
        let round = |value| round_to(precision, value);
        let scales = scale.to_f64s();
        if target.narrow_float().is_some() {
            let zeros = zero.map(|z| z.to_f64s());
            let mut values = x.to_f64s();
            for (flat, v) in values.iter_mut().enumerate() {
                let at = layout.index(flat);
                *v = round(round(*v) / round(scales[at])) + zeros.as_ref().map_or(0.0, |z| z[at]);
            }
            let rounding = Rounding::TiesEven;
            return Ok(vec![Tensor::narrowed(target, x.shape(), &values, rounding, self.overflow)?]);
        }
        let zeros = zero.map(|z| z.to_i64s()).transpose()?;
        let mut values: Vec<i128> = room(x.shape())?;
        values.extend(x.to_f64s().into_iter().enumerate().map(|(flat, v)| {
            let at = layout.index(flat);
            let zero = zeros.as_ref().map_or(0, |z| i128::from(z[at]));
            quantize(round(round(v) / round(scales[at])), zero, target)
        }));
        Ok(vec![Tensor::from_ints(target, x.shape(), &values)?])
    }
    fn attributes(&self) -> Attributes {
        let attributes = write_type(self.granularity.written(), "output_dtype", self.output_dtype);
        let attributes = write_type(attributes, "precision", self.precision);
        if self.overflow == Overflow::Saturate { attributes } else { attributes.with("saturate", 0) }
    }
}

/// `y = (x - zero point) * scale`. Inputs: x, scale, zero point (optional, of x's type).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DequantizeLinear {
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// The output's float type; the scale's where left out.
    pub output_dtype: Option<DType>,
}

impl DequantizeLinear {
    pub(in crate::ops::nn) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(DequantizeLinear {
            granularity: Granularity::from_attributes(&node.attributes)?,
            output_dtype: read_type(&node.attributes, "output_dtype")?,
        }))
    }
    /// The output's type for a scale of type `scale`; a power of two says nothing of it.
    fn target(&self, scale: DType) -> DType {
        self.output_dtype.unwrap_or(if scale == DType::F8E8M0 { DType::F32 } else { scale })
    }
}

impl Operator for DequantizeLinear {
    fn name(&self) -> &'static str {
        "DequantizeLinear"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let (x, scale) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        if !is_quantized(x.dtype) && x.dtype != DType::I32 {
            invalid!(
                "input 0 is of type {}, where i32, or an integer or a float of less bits is expected",
                x.dtype
            );
        }
        if !scale.dtype.is_wide_float() && scale.dtype != DType::F8E8M0 {
            invalid!("input 1 is of type {}, where a float type is expected", scale.dtype);
        }
        crate::ops::nn::checks::same_type(inputs, 2, x.dtype)?;
        let dtype = self.target(scale.dtype);
        if !dtype.is_wide_float() {
            invalid!("attribute \"output_dtype\" is {dtype}, where a float type is expected");
        }
        self.granularity.check(inputs)?;
        Ok(vec![Fact { dtype, shape: x.shape.clone(), value: None }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, scale, zero) = (required(inputs, 0)?, required(inputs, 1)?, optional(inputs, 2));
        let Granularity { axis, block_size } = self.granularity;
        let layout = ScaleLayout::resolve(x.shape(), scale.shape(), axis, block_size)?;
        let scales = scale.to_f64s();
        let zeros = zero.map(|z| z.to_f64s());
        let mut values = x.to_f64s();
        for (flat, v) in values.iter_mut().enumerate() {
            let at = layout.index(flat);
            *v = (*v - zeros.as_ref().map_or(0.0, |z| z[at])) * scales[at];
        }
        let dtype = self.target(scale.dtype());
        Ok(vec![Tensor::from_f64s(dtype, x.shape(), &values)?])
    }
    fn attributes(&self) -> Attributes {
        write_type(self.granularity.written(), "output_dtype", self.output_dtype)
    }
}

/// Quantises to `u8` over the range that the tensor itself has (0 included). Outputs: integers, scale, zero point. A
/// tensor of zeros gets scale 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DynamicQuantizeLinear;

impl DynamicQuantizeLinear {
    pub(in crate::ops::nn) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(DynamicQuantizeLinear))
    }
}

impl Operator for DynamicQuantizeLinear {
    fn name(&self) -> &'static str {
        "DynamicQuantizeLinear"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1).outputs(1, 3)
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        if dtype != DType::F32 {
            invalid!("input 0 is of type {dtype}, where f32 is expected");
        }
        let integers = Fact { dtype: DType::U8, shape: required_fact(inputs, 0)?.shape.clone(), value: None };
        let mut facts = vec![integers, Fact::new(DType::F32, &[]), Fact::new(DType::U8, &[])];
        facts.truncate(outputs.max(1));
        Ok(facts)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let values = x.as_slice::<f32>()?;
        let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
        let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
        let zero = quantize(f64::from((-low / scale).clamp(0.0, 255.0)), 0, DType::U8);
        let integers: Vec<i128> =
            values.iter().map(|v| quantize(f64::from(v / scale), zero, DType::U8)).collect();
        let mut made = vec![
            Tensor::from_ints(DType::U8, x.shape(), &integers)?,
            Tensor::scalar(scale),
            Tensor::from_ints(DType::U8, &[], &[zero])?,
        ];
        made.truncate(outputs.max(1));
        Ok(made)
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantises_and_back() {
        let x = Tensor::new(&[6], &[0f32, 2., 3., 1000., -254., -1000.]).unwrap();
        let (scale, zero) = (Tensor::scalar(2f32), Tensor::scalar(128u8));
        let op = QuantizeLinear::default();
        let given = [Some(&x), Some(&scale), Some(&zero)];
        let y = op.eval(&given, 1).unwrap().remove(0);
        assert_eq!(y.as_slice::<u8>().unwrap(), [128, 129, 130, 255, 1, 0]);
        assert_eq!(op.infer(&given.map(|t| t.map(Fact::constant)), 1).unwrap(), [Fact::new(DType::U8, &[6])]);
        let back = DequantizeLinear::default().eval(&[Some(&y), Some(&scale), Some(&zero)], 1).unwrap();
        assert_eq!(back[0].to_f64s(), [0., 2., 4., 254., -254., -256.]);
    }

    #[test]
    fn divides_in_the_precision_of_the_scale() {
        // 0.75 / 0.3 is above 2.5 exactly and 2.5 in f32, so that it goes to the even 2.
        let (x, scale) = (Tensor::scalar(0.75f32), Tensor::scalar(0.3f32));
        let op = QuantizeLinear { output_dtype: Some(DType::I8), ..QuantizeLinear::default() };
        assert_eq!(op.eval(&[Some(&x), Some(&scale)], 1).unwrap()[0], Tensor::scalar(2i8));
    }

    #[test]
    fn quantises_to_fewer_bits() {
        let x = Tensor::new(&[2, 3], &[-30f32, 0.7, 3., 4.4, 1e9, -2.]).unwrap();
        let scale = Tensor::new(&[2, 2], &[2f32, 1., 0.5, 4.]).unwrap();
        let granularity = Granularity { axis: 1, block_size: 2 };
        for (dtype, wanted) in [
            (DType::I4, [-8., 0., 3., 7., 7., 0.]),
            (DType::U2, [0., 0., 3., 3., 3., 0.]),
            (DType::F8E4M3FN, [-15., 0.34375, 3., 9., 448., -0.5]),
            (DType::F4E2M1, [-6., 0.5, 3., 6., 6., -0.5]),
        ] {
            let op = QuantizeLinear { granularity, output_dtype: Some(dtype), ..QuantizeLinear::default() };
            let y = op.eval(&[Some(&x), Some(&scale)], 1).unwrap().remove(0);
            assert_eq!((y.dtype(), y.to_f64s()), (dtype, wanted.to_vec()));
            let back = DequantizeLinear { granularity, ..DequantizeLinear::default() };
            let facts = [&y, &scale].map(|t| Some(Fact::constant(t)));
            assert_eq!(back.infer(&facts, 1).unwrap()[0].dtype, DType::F32);
            let scales = [2., 2., 1., 0.5, 0.5, 4.];
            let products: Vec<f64> = wanted.iter().zip(scales).map(|(v, s)| v * s).collect();
            assert_eq!(back.eval(&[Some(&y), Some(&scale)], 1).unwrap()[0].to_f64s(), products);
        }
        let op = QuantizeLinear {
            output_dtype: Some(DType::F8E5M2),
            overflow: Overflow::AsSpecified,
            ..QuantizeLinear::default()
        };
        let power = Tensor::from_f64s(DType::F8E8M0, &[], &[0.5]).unwrap();
        assert_eq!(op.eval(&[Some(&x), Some(&power)], 1).unwrap()[0].to_f64s()[4], f64::INFINITY);
        let y = Tensor::from_ints(DType::I4, &[1], &[-3]).unwrap();
        let back = DequantizeLinear::default().eval(&[Some(&y), Some(&power)], 1).unwrap();
        assert_eq!((back[0].dtype(), back[0].to_f64s()), (DType::F32, vec![-1.5]));
    }

    #[test]
    fn refuses_wrong_types_and_shapes() {
        let fact = |d, s: &[usize]| Some(Fact::new(d, s));
        let op = QuantizeLinear { output_dtype: Some(DType::I64), ..QuantizeLinear::default() };
        let message = op.infer(&[fact(DType::F32, &[2]), fact(DType::F32, &[])], 1).unwrap_err().to_string();
        assert!(message.contains("output_dtype"), "{message}");
        let back = DequantizeLinear::default();
        assert!(back.infer(&[fact(DType::F32, &[2]), fact(DType::F32, &[])], 1).is_err());
        assert!(back.infer(&[fact(DType::I8, &[2, 3]), fact(DType::F32, &[2])], 1).is_err());
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let scale = Tensor::new(&[3], &[1.0, scale, 1.0]).unwrap();
            let given = [fact(DType::I8, &[2, 3]), Some(Fact::constant(&scale))];
            let message = back.infer(&given, 1).unwrap_err().to_string();
            assert!(message.contains("scale 1"), "{message}");
        }
        let zero = [fact(DType::I8, &[2, 3]), fact(DType::F32, &[3]), fact(DType::I8, &[2])];
        assert!(back.infer(&zero, 1).is_err());
        assert!(DynamicQuantizeLinear.infer(&[fact(DType::F16, &[2])], 1).is_err());
    }

    #[test]
    fn measures_its_own_range() {
        let x = Tensor::new(&[6], &[0f32, 2., -3., -2.5, 1.34, 0.5]).unwrap();
        let made = DynamicQuantizeLinear.eval(&[Some(&x)], 3).unwrap();
        assert_eq!(made[0].as_slice::<u8>().unwrap(), [153, 255, 0, 26, 221, 179]);
        assert_eq!((made[1].to_f32s(), made[2].to_i64s().unwrap()), (vec![5.0 / 255.0], vec![153]));
        let none = Tensor::zeros(DType::F32, &[0]).unwrap();
        assert_eq!(DynamicQuantizeLinear.eval(&[Some(&none)], 3).unwrap()[1], Tensor::scalar(1f32));
    }
}
