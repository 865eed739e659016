//! Element types of tensors.

use crate::error::{Error, Result};
use crate::formats::float::{self, FloatFormat};
use half::{bf16, f16};
use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // each name says it all
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    Bool,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    F6E2M3,
    F6E3M2,
    F4E2M1,
    I4,
    U4,
    I2,
    U2,
}

/// What is constant about an element type.
struct Definition {
    dtype: DType,
    name: &'static str,
    /// ONNX's number of it.
    code: i64,
    /// Bits of an element in files.
    bits: usize,
    sort: Sort,
}

/// What the bits of an element mean.
enum Sort {
    /// One of the floats that operators compute in.
    WideFloat,
    /// A float that is only kept, converted and moved.
    NarrowFloat(&'static FloatFormat),
    /// An integer from the first to the second number.
    Integer(i128, i128),
    /// A truth value.
    Truth,
}

/// Every element type, in the order of [`DType`]'s variants.
const DEFINITIONS: [Definition; 25] = {
    use DType::*;
    use Sort::*;
    const fn line(dtype: DType, name: &'static str, code: i64, bits: usize, sort: Sort) -> Definition {
        Definition { dtype, name, code, bits, sort }
    }
    [
        line(F64, "f64", 11, 64, WideFloat),
        line(F32, "f32", 1, 32, WideFloat),
        line(F16, "f16", 10, 16, WideFloat),
        line(BF16, "bf16", 16, 16, WideFloat),
        line(I8, "i8", 3, 8, Integer(i8::MIN as i128, i8::MAX as i128)),
        line(U8, "u8", 2, 8, Integer(0, u8::MAX as i128)),
        line(I16, "i16", 5, 16, Integer(i16::MIN as i128, i16::MAX as i128)),
        line(U16, "u16", 4, 16, Integer(0, u16::MAX as i128)),
        line(I32, "i32", 6, 32, Integer(i32::MIN as i128, i32::MAX as i128)),
        line(U32, "u32", 12, 32, Integer(0, u32::MAX as i128)),
        line(I64, "i64", 7, 64, Integer(i64::MIN as i128, i64::MAX as i128)),
        line(U64, "u64", 13, 64, Integer(0, u64::MAX as i128)),
        line(Bool, "bool", 9, 8, Truth),
        line(F8E4M3FN, "f8e4m3fn", 17, 8, NarrowFloat(&float::FP8_E4M3FN)),
        line(F8E4M3FNUZ, "f8e4m3fnuz", 18, 8, NarrowFloat(&float::FP8_E4M3FNUZ)),
        line(F8E5M2, "f8e5m2", 19, 8, NarrowFloat(&float::FP8_E5M2)),
        line(F8E5M2FNUZ, "f8e5m2fnuz", 20, 8, NarrowFloat(&float::FP8_E5M2FNUZ)),
        line(F8E8M0, "f8e8m0", 24, 8, NarrowFloat(&float::FP8_E8M0)),
        line(F6E2M3, "f6e2m3", 27, 6, NarrowFloat(&float::FP6_E2M3)),
        line(F6E3M2, "f6e3m2", 28, 6, NarrowFloat(&float::FP6_E3M2)),
        line(F4E2M1, "f4e2m1", 23, 4, NarrowFloat(&float::FP4_E2M1)),
        line(I4, "i4", 22, 4, Integer(-8, 7)),
        line(U4, "u4", 21, 4, Integer(0, 15)),
        line(I2, "i2", 26, 2, Integer(-2, 1)),
        line(U2, "u2", 25, 2, Integer(0, 3)),
    ]
};

impl DType {
    /// Every element type.
    pub const ALL: [DType; 25] = {
        let mut all = [DType::F64; 25];
        let mut index = 0;
        while index < all.len() {
            all[index] = DEFINITIONS[index].dtype;
            index += 1;
        }
        all
    };

    fn definition(self) -> &'static Definition {
        &DEFINITIONS[self as usize]
    }
    /// Bytes of one element in memory, where types of less than 8 bits take a byte.
    pub fn size(self) -> usize {
        self.definition().bits.div_ceil(8)
    }
    /// Bits of one element in files, where several of less than 8 bits share bytes.
    pub fn bits(self) -> usize {
        self.definition().bits
    }
    /// Whether elements are floating-point numbers, of any width.
    pub fn is_float(self) -> bool {
        matches!(self.definition().sort, Sort::WideFloat | Sort::NarrowFloat(_))
    }
    /// Whether elements are of the floats that operators compute in: `f64`, `f32`, `f16`, `bf16`. The narrower ones are
    /// only kept, converted and moved.
    pub fn is_wide_float(self) -> bool {
        matches!(self.definition().sort, Sort::WideFloat)
    }
    /// The number format of a float that is too narrow to be computed in.
    pub fn narrow_float(self) -> Option<&'static FloatFormat> {
        match self.definition().sort {
            Sort::NarrowFloat(format) => Some(format),
            _ => None,
        }
    }
    /// Whether elements are integers (`Bool` is not).
    pub fn is_integer(self) -> bool {
        matches!(self.definition().sort, Sort::Integer(..))
    }
    /// Whether elements are integers with a sign.
    pub fn is_signed_integer(self) -> bool {
        matches!(self.definition().sort, Sort::Integer(low, _) if low < 0)
    }
    /// The smallest and largest value of an integer type (0 and 1 for `Bool`), `None` for floats.
    pub fn integer_range(self) -> Option<(i128, i128)> {
        match self.definition().sort {
            Sort::Integer(low, high) => Some((low, high)),
            Sort::Truth => Some((0, 1)),
            _ => None,
        }
    }
    /// The number by which ONNX names this type (`TensorProto.DataType`, the attribute `to` of Cast).
    pub fn onnx_code(self) -> i64 {
        self.definition().code
    }
    /// The type that ONNX names by `code`; an error where planish has none.
    pub fn from_onnx_code(code: i64) -> Result<DType> {
        DType::ALL
            .into_iter()
            .find(|d| d.onnx_code() == code)
            .ok_or_else(|| Error::unsupported(format!("tensors of ONNX data type {code} are not supported")))
    }
    /// The short name: `f32`, `i64`, `bool`, `f8e4m3fn` …
    pub fn name(self) -> &'static str {
        self.definition().name
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A Rust type that can be a tensor's element. `Bool` is stored as one byte, 0 or 1, and read as [`DType::Bool`]'s
/// bytes through `u8` views only where a function says so.
pub trait Element: bytemuck::Pod + PartialOrd + fmt::Debug + Send + Sync {
    /// The tensor type of this Rust type.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($t:ty => $d:ident),*) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}
elements!(f64 => F64, f32 => F32, f16 => F16, bf16 => BF16, i8 => I8, u8 => U8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64, u64 => U64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::NumberFormat;

    #[test]
    fn definitions_stand_where_their_variants_do() {
        for (index, dtype) in DType::ALL.into_iter().enumerate() {
            assert_eq!(dtype as usize, index, "{dtype}");
            assert_eq!(DType::from_onnx_code(dtype.onnx_code()).unwrap(), dtype);
            if let Some(format) = dtype.narrow_float() {
                assert_eq!(format.facts().bits as usize, dtype.bits());
            }
            if let Some((low, high)) = dtype.integer_range().filter(|_| dtype.is_integer()) {
                assert_eq!(high - low + 1, 1 << dtype.bits(), "{dtype}");
            }
        }
        assert!(DType::from_onnx_code(8).is_err());
    }
}
