//! Tensors as files hold them: elements of less than 8 bits share bytes, the first in the lowest bits.
//!
//! In memory such elements take a byte each, so that everything that moves or compares elements needs no second form;
//! signed integers fill theirs with copies of their sign, and unused bits are 0.

use super::{DType, Tensor};
use crate::error::{Error, Result};
use crate::limits::element_count;
use std::borrow::Cow;

impl DType {
    /// Bytes that a tensor of this type and of `shape` takes in a file; an error where they cannot be addressed.
    pub fn packed_len(self, shape: &[usize]) -> Result<usize> {
        // An element count leaves room for a factor of 16.
        let count = element_count(shape)?;
        Ok(if self.bits() < 8 { (count * self.bits()).div_ceil(8) } else { count * self.size() })
    }
    /// One byte of memory for an element's bits in a file; bits beyond the type's do not count.
    pub(crate) fn unpacked(self, bits: u8) -> u8 {
        let unused = 8 - self.bits().min(8);
        if self.is_signed_integer() {
            ((bits << unused) as i8 >> unused) as u8
        } else {
            bits << unused >> unused
        }
    }
}

impl Tensor {
    /// A tensor of `shape` from `bytes` of a file, little end first; an error where their number does not fit. `Bool`
    /// bytes other than 0 become 1.
    pub fn from_packed(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
        if dtype.bits() >= 8 {
            return Tensor::from_bytes(dtype, shape, bytes);
        }
        let wanted = dtype.packed_len(shape)?;
        if bytes.len() != wanted {
            return Err(Error::invalid(format!(
                "a tensor of type {dtype} and shape {shape:?} takes {wanted} bytes, but {} were given",
                bytes.len()
            )));
        }
        let mut tensor = Tensor::zeros(dtype, shape)?;
        for (index, target) in tensor.bytes_mut().iter_mut().enumerate() {
            let (byte, shift) = (index * dtype.bits() / 8, index * dtype.bits() % 8);
            let next = bytes.get(byte + 1).copied().unwrap_or(0);
            *target = dtype.unpacked((u16::from_le_bytes([bytes[byte], next]) >> shift) as u8);
        }
        Ok(tensor)
    }
    /// The bytes of [`Tensor::from_packed`].
    pub fn packed(&self) -> Cow<'_, [u8]> {
        let bits = self.dtype.bits();
        if bits >= 8 {
            return Cow::Borrowed(self.bytes());
        }
        let mut bytes = vec![0u8; (self.len() * bits).div_ceil(8)];
        for (index, &element) in self.bytes().iter().enumerate() {
            let (byte, shift) = (index * bits / 8, index * bits % 8);
            let [low, high] = ((u16::from(element) & ((1 << bits) - 1)) << shift).to_le_bytes();
            bytes[byte] |= low;
            if high != 0 {
                bytes[byte + 1] |= high;
            }
        }
        Cow::Owned(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_share_bytes() {
        let of = |dtype, bytes: &[u8], count: usize| Tensor::from_packed(dtype, &[count], bytes).unwrap();
        assert_eq!(of(DType::I4, &[0x8f, 0x07], 3).to_i64s().unwrap(), [-1, -8, 7]);
        assert_eq!(of(DType::U4, &[0x8f, 0x07], 3).to_i64s().unwrap(), [15, 8, 7]);
        assert_eq!(of(DType::I2, &[0b11_10_01_00, 0b10], 5).to_i64s().unwrap(), [0, 1, -2, -1, -2]);
        assert_eq!(of(DType::F4E2M1, &[0xf7], 2).to_f64s(), [6.0, -6.0]);
        // Four of 6 bits in three bytes, as one number of 24 bits.
        assert_eq!(of(DType::F6E2M3, &[0x08, 0xf0, 0x83], 4).bytes(), [0x08, 0x00, 0x3f, 0x20]);
        assert!(Tensor::from_packed(DType::I4, &[3], &[0]).is_err());
        assert!(Tensor::from_packed(DType::I4, &[3], &[0; 3]).is_err());
        assert!(DType::I2.packed_len(&[usize::MAX]).is_err());
    }

    #[test]
    fn packing_is_undone() {
        for dtype in DType::ALL {
            for count in 0..10 {
                let bytes: Vec<u8> =
                    (0..count * dtype.size()).map(|i| dtype.unpacked((i * 37) as u8)).collect();
                let tensor = Tensor::from_bytes(dtype, &[count], &bytes).unwrap();
                let packed = tensor.packed();
                assert_eq!(packed.len(), dtype.packed_len(&[count]).unwrap());
                assert_eq!(Tensor::from_packed(dtype, &[count], &packed).unwrap(), tensor, "{dtype}");
            }
        }
    }
}
