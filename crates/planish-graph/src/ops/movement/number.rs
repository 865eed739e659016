//! Single elements as numbers, for the few operators of this family that look at what they move.

use crate::formats::float::FloatFormat;
use crate::formats::{NumberFormat, Overflow, Rounding};
use crate::tensor::DType;
use half::{bf16, f16};
use std::cmp::Ordering;

/// One element, widened exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    /// Of a float type.
    Float(f64),
    /// Of an integer type, or a truth value.
    Int(i128),
}

impl Number {
    /// The element of type `dtype` that `bytes` holds.
    pub(super) fn read(dtype: DType, bytes: &[u8]) -> Number {
        use bytemuck::pod_read_unaligned as read;
        match dtype {
            DType::F64 => Number::Float(read(bytes)),
            DType::F32 => Number::Float(read::<f32>(bytes).into()),
            DType::F16 => Number::Float(read::<f16>(bytes).into()),
            DType::BF16 => Number::Float(read::<bf16>(bytes).into()),
            DType::I8 | DType::I4 | DType::I2 => Number::Int(read::<i8>(bytes).into()),
            DType::U8 | DType::U4 | DType::U2 | DType::Bool => Number::Int(read::<u8>(bytes).into()),
            DType::I16 => Number::Int(read::<i16>(bytes).into()),
            DType::U16 => Number::Int(read::<u16>(bytes).into()),
            DType::I32 => Number::Int(read::<i32>(bytes).into()),
            DType::U32 => Number::Int(read::<u32>(bytes).into()),
            DType::I64 => Number::Int(read::<i64>(bytes).into()),
            DType::U64 => Number::Int(read::<u64>(bytes).into()),
            narrow => {
                Number::Float(narrow.narrow_float().map_or(f64::NAN, |f| f.decode(read::<u8>(bytes).into())))
            }
        }
    }

    /// Writes this as an element of type `dtype`: floats rounded to nearest (those too narrow to compute in saturate),
    /// integers wrapped, truth values as 0 or 1.
    pub(super) fn write(self, dtype: DType, bytes: &mut [u8]) {
        let float = match self {
            Number::Float(x) => x,
            Number::Int(x) => x as f64,
        };
        let int = match self {
            Number::Float(x) => x as i128,
            Number::Int(x) => x,
        };
        match dtype {
            DType::F64 => bytes.copy_from_slice(&float.to_ne_bytes()),
            DType::F32 => bytes.copy_from_slice(&(float as f32).to_ne_bytes()),
            DType::F16 => bytes.copy_from_slice(&f16::from_f64(float).to_ne_bytes()),
            DType::BF16 => bytes.copy_from_slice(&bf16::from_f64(float).to_ne_bytes()),
            DType::I8 | DType::U8 => bytes.copy_from_slice(&(int as u8).to_ne_bytes()),
            DType::I16 | DType::U16 => bytes.copy_from_slice(&(int as u16).to_ne_bytes()),
            DType::I32 | DType::U32 => bytes.copy_from_slice(&(int as u32).to_ne_bytes()),
            DType::I64 | DType::U64 => bytes.copy_from_slice(&(int as u64).to_ne_bytes()),
            DType::Bool => bytes[0] = (int != 0) as u8,
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => bytes[0] = dtype.unpacked(int as u8),
            narrow => {
                let encode = |f: &FloatFormat| f.encode(float, &mut Rounding::TiesEven, Overflow::Saturate);
                bytes[0] = narrow.narrow_float().map_or(0, encode) as u8;
            }
        }
    }

    /// Whether this is 0 (either of the floats' zeros).
    pub(super) fn is_zero(self) -> bool {
        match self {
            Number::Float(x) => x == 0.0,
            Number::Int(x) => x == 0,
        }
    }

    /// The whole part as an index or count, where it is one that `i64` holds.
    pub(super) fn whole(self) -> Option<i64> {
        match self {
            Number::Float(x) if x.is_finite() && x.abs() < 2f64.powi(63) => Some(x as i64),
            Number::Float(_) => None,
            Number::Int(x) => i64::try_from(x).ok(),
        }
    }

    /// A total order on the elements of one type: the zeros are equal, NaNs are equal and come last.
    pub(super) fn order(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a.cmp(&b),
            (Number::Float(a), Number::Float(b)) => {
                a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            }
            (Number::Int(_), Number::Float(_)) => Ordering::Less,
            (Number::Float(_), Number::Int(_)) => Ordering::Greater,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn every_type_reads_back_what_was_written() {
        for dtype in DType::ALL {
            let mut bytes = vec![0u8; dtype.size()];
            let zero = i128::from(dtype == DType::F8E8M0) * 2; // a scale is never 0
            for n in [zero, 1] {
                Number::Int(n).write(dtype, &mut bytes);
                let wanted = if dtype.is_float() { Number::Float(n as f64) } else { Number::Int(n) };
                assert_eq!(Number::read(dtype, &bytes), wanted, "{dtype}");
            }
        }
        let mut byte = [0u8];
        Number::Int(-129).write(DType::I8, &mut byte);
        assert_eq!(Tensor::from_bytes(DType::I8, &[1], &byte).unwrap().to_i64s().unwrap(), [127]);
    }

    #[test]
    fn orders_totally() {
        let (nan, zero) = (Number::Float(f64::NAN), Number::Float(-0.0));
        assert_eq!(nan.order(nan), Ordering::Equal);
        assert_eq!(nan.order(Number::Float(f64::INFINITY)), Ordering::Greater);
        assert_eq!(Number::Float(1.0).order(nan), Ordering::Less);
        assert_eq!(zero.order(Number::Float(0.0)), Ordering::Equal);
        assert_eq!((nan.whole(), Number::Float(-1.5).whole()), (None, Some(-1)));
    }
}
