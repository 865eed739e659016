//! Elements of any type as wide numbers, so that a reference is written once for floats and once for integers.
//!
//! Floats widen to `f64` and round once on the way back; integers and truth values widen to `i128`, which holds every
//! sum and product that an operator may form, and wrap on the way back as machine integers do.

use super::{DType, Tensor};
use crate::error::{Error, Result};
use crate::formats::{NumberFormat, Overflow, Rounding};
use half::{bf16, f16};

/// The elements of a tensor, widened.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// From a float tensor, exactly.
    Float(Vec<f64>),
    /// From an integer or `Bool` tensor, exactly.
    Int(Vec<i128>),
}

impl Numbers {
    /// The elements as `f64`; integers are converted (rounding beyond 2^53).
    pub fn into_floats(self) -> Vec<f64> {
        match self {
            Numbers::Float(v) => v,
            Numbers::Int(v) => v.into_iter().map(|x| x as f64).collect(),
        }
    }
}

impl Tensor {
    /// The elements, widened.
    pub fn to_numbers(&self) -> Numbers {
        macro_rules! float {
            ($t:ty, $f:expr) => {
                Numbers::Float(bytemuck::cast_slice::<u8, $t>(self.bytes()).iter().map($f).collect())
            };
        }
        macro_rules! int {
            ($t:ty) => {
                Numbers::Int(
                    bytemuck::cast_slice::<u8, $t>(self.bytes()).iter().map(|&x| x as i128).collect(),
                )
            };
        }
        match self.dtype() {
            DType::F64 => float!(f64, |&x| x),
            DType::F32 => float!(f32, |&x| x as f64),
            DType::F16 => float!(f16, |x| x.to_f64()),
            DType::BF16 => float!(bf16, |x| x.to_f64()),
            DType::I8 | DType::I4 | DType::I2 => int!(i8),
            DType::U8 | DType::U4 | DType::U2 | DType::Bool => int!(u8),
            DType::I16 => int!(i16),
            DType::U16 => int!(u16),
            DType::I32 => int!(i32),
            DType::U32 => int!(u32),
            DType::I64 => int!(i64),
            DType::U64 => int!(u64),
            narrow => {
                let format = narrow.narrow_float();
                let number = |&code: &u8| format.map_or(f64::NAN, |f| f.decode(code.into()));
                Numbers::Float(self.bytes().iter().map(number).collect())
            }
        }
    }

    /// The elements as `f64`, whatever their type.
    pub fn to_f64s(&self) -> Vec<f64> {
        self.to_numbers().into_floats()
    }

    /// A float tensor from `f64` values, each rounded to nearest even; an error where `dtype` is no float type or the
    /// number of values does not fit `shape`. Floats too narrow to compute in saturate, and `f8e8m0` rounds away from
    /// zero, as ONNX does unless told otherwise ([`Tensor::narrowed`]).
    pub fn from_f64s(dtype: DType, shape: &[usize], values: &[f64]) -> Result<Tensor> {
        match dtype {
            DType::F64 => Tensor::new(shape, values),
            DType::F32 => fill::<f32, _>(dtype, shape, values, |x| x as f32),
            DType::F16 => fill::<f16, _>(dtype, shape, values, |x| f16::from_f32(to_odd(x))),
            DType::BF16 => fill::<bf16, _>(dtype, shape, values, |x| bf16::from_f32(to_odd(x))),
            DType::F8E8M0 => {
                Tensor::narrowed(dtype, shape, values, Rounding::AwayFromZero, Overflow::Saturate)
            }
            _ => Tensor::narrowed(dtype, shape, values, Rounding::TiesEven, Overflow::Saturate),
        }
    }

    /// A tensor of a float type too narrow to compute in; errors as [`Tensor::from_f64s`].
    pub fn narrowed(
        dtype: DType,
        shape: &[usize],
        values: &[f64],
        mut rounding: Rounding<'_>,
        overflow: Overflow,
    ) -> Result<Tensor> {
        let Some(format) = dtype.narrow_float() else {
            return Err(Error::invalid(format!("cannot make a tensor of type {dtype} from floats")));
        };
        fill::<u8, _>(dtype, shape, values, |x| format.encode(x, &mut rounding, overflow) as u8)
    }

    /// An integer or `Bool` tensor from wide integers, wrapped to the type's width (`Bool`: not equal to zero).
    pub fn from_ints(dtype: DType, shape: &[usize], values: &[i128]) -> Result<Tensor> {
        match dtype {
            DType::I8 => fill::<i8, _>(dtype, shape, values, |x| x as i8),
            DType::U8 => fill::<u8, _>(dtype, shape, values, |x| x as u8),
            DType::I16 => fill::<i16, _>(dtype, shape, values, |x| x as i16),
            DType::U16 => fill::<u16, _>(dtype, shape, values, |x| x as u16),
            DType::I32 => fill::<i32, _>(dtype, shape, values, |x| x as i32),
            DType::U32 => fill::<u32, _>(dtype, shape, values, |x| x as u32),
            DType::I64 => fill::<i64, _>(dtype, shape, values, |x| x as i64),
            DType::U64 => fill::<u64, _>(dtype, shape, values, |x| x as u64),
            DType::Bool => fill::<u8, _>(dtype, shape, values, |x| (x != 0) as u8),
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
                fill::<u8, _>(dtype, shape, values, |x| dtype.unpacked(x as u8))
            }
            _ => Err(Error::invalid(format!("cannot make a tensor of type {dtype} from integers"))),
        }
    }

    /// A tensor of `dtype` from widened elements of the same sort (float from float, integer from integer).
    pub fn from_numbers(dtype: DType, shape: &[usize], numbers: &Numbers) -> Result<Tensor> {
        match numbers {
            Numbers::Float(v) => Tensor::from_f64s(dtype, shape, v),
            Numbers::Int(v) => Tensor::from_ints(dtype, shape, v),
        }
    }
}

/// `x` as the `f32` next to it whose last bit is set, where `x` itself is none: rounded again to half of the bits that is
/// what `x` rounded at once would be, while a nearest `f32` may fall on a tie that `x` is not.
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    if near as f64 == x || x.is_nan() {
        return near;
    }
    let outside = (near as f64).abs() > x.abs();
    f32::from_bits((near.to_bits() - outside as u32) | 1)
}

/// A tensor whose elements are `convert`ed from `values` (`Bool` is stored through `u8`).
fn fill<T, V>(dtype: DType, shape: &[usize], values: &[V], mut convert: impl FnMut(V) -> T) -> Result<Tensor>
where
    T: bytemuck::Pod,
    V: Copy,
{
    let mut tensor = Tensor::zeros(dtype, shape)?;
    if tensor.len() != values.len() {
        return Err(Error::invalid(format!("{} values do not fill shape {shape:?}", values.len())));
    }
    let target: &mut [T] = bytemuck::cast_slice_mut(tensor.bytes_mut());
    for (t, &v) in target.iter_mut().zip(values) {
        *t = convert(v);
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_round_trips() {
        for dtype in DType::ALL {
            let zero = if dtype == DType::F8E8M0 { 2.0 } else { 0.0 }; // a scale, which is never 0
            let numbers =
                if dtype.is_float() { Numbers::Float(vec![zero, 1.0]) } else { Numbers::Int(vec![0, 1]) };
            let tensor = Tensor::from_numbers(dtype, &[2], &numbers).unwrap();
            assert_eq!(tensor.to_numbers(), numbers, "{dtype}");
        }
    }

    #[test]
    fn narrow_floats_are_rounded_once() {
        let above = 1.0 + 2f64.powi(-30);
        for (dtype, half_step) in [(DType::F16, 2f64.powi(-11)), (DType::BF16, 2f64.powi(-8))] {
            for sign in [1.0, -1.0] {
                let tie = 1.0 + half_step;
                let values = [tie * above, tie, tie / above, 1e300, 1e-300, 0.0].map(|v| sign * v);
                let got = Tensor::from_f64s(dtype, &[6], &values).unwrap().to_f64s();
                let expected = [1.0 + 2.0 * half_step, 1.0, 1.0, f64::INFINITY, 0.0, 0.0].map(|v| sign * v);
                assert_eq!(got, expected, "{dtype}");
            }
            let nan = Tensor::from_f64s(dtype, &[1], &[f64::NAN]).unwrap();
            assert!(nan.to_f64s()[0].is_nan());
        }
    }

    #[test]
    fn narrower_floats_saturate() {
        let values = [1000.0, -1e9, 0.1, f64::INFINITY];
        let got = |dtype| Tensor::from_f64s(dtype, &[4], &values).unwrap().to_f64s();
        assert_eq!(got(DType::F8E4M3FN), [448.0, -448.0, 0.1015625, 448.0]);
        assert_eq!(got(DType::F4E2M1), [6.0, -6.0, 0.0, 6.0]);
        let up = Tensor::from_f64s(DType::F8E8M0, &[2], &[2.1, 0.0]).unwrap().to_f64s();
        assert_eq!(up, [4.0, 2f64.powi(-127)]);
        let overflow = Overflow::AsSpecified;
        let specified = Tensor::narrowed(DType::F8E5M2, &[4], &values, Rounding::TiesEven, overflow).unwrap();
        assert_eq!(specified.to_f64s()[3], f64::INFINITY);
        assert!(Tensor::narrowed(DType::F32, &[4], &values, Rounding::TiesEven, overflow).is_err());
    }

    #[test]
    fn integers_wrap() {
        let t = Tensor::from_ints(DType::I8, &[3], &[127, 128, -129]).unwrap();
        assert_eq!(t.to_i64s().unwrap(), [127, -128, 127]);
        let t = Tensor::from_ints(DType::I4, &[4], &[7, 8, -9, -1]).unwrap();
        assert_eq!(t.to_i64s().unwrap(), [7, -8, 7, -1]);
        assert_eq!(Tensor::from_ints(DType::U2, &[2], &[3, -1]).unwrap().to_i64s().unwrap(), [3, 3]);
        assert!(Tensor::from_ints(DType::F32, &[0], &[]).is_err());
    }
}
