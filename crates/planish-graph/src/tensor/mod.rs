//! Dense tensors: a shape, an element type, and shared bytes in row-major order.
//!
//! Cloning is cheap (the bytes are shared), so constants travel freely between graphs and plans. Typed access goes
//! through [`Tensor::as_slice`]; operators that compute on numbers of any type use [`Numbers`]; operators that only
//! move elements use the raw bytes and the element size. Elements of less than 8 bits take a byte in memory.

mod buffer;
mod dtype;
pub mod index;
mod numbers;
mod packed;

pub use dtype::{DType, Element};
pub use numbers::Numbers;

use crate::error::{Error, Result};
use crate::limits::element_count;
use buffer::Buffer;
use std::fmt;
use std::sync::Arc;

/// A dense, row-major tensor. `Bool` elements are bytes that are 0 or 1.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Arc<Buffer>,
}

impl Tensor {
    /// Zeros of `dtype` and `shape`; an error where the shape overflows or the memory budget has no room.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let bytes = element_count(shape)? * dtype.size();
        Ok(Tensor { dtype, shape: shape.to_vec(), data: Arc::new(Buffer::zeroed(bytes)?) })
    }
    /// A tensor of `shape` with a copy of `values` (row-major); an error where their number does not fit.
    pub fn new<T: Element>(shape: &[usize], values: &[T]) -> Result<Tensor> {
        Tensor::from_bytes(T::DTYPE, shape, bytemuck::cast_slice(values))
    }
    /// A tensor of `shape` with a copy of `bytes` in native byte order. `Bool` bytes other than 0 become 1, and of
    /// elements of less than 8 bits only those bits are taken.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
        let wanted = element_count(shape)? * dtype.size();
        if bytes.len() != wanted {
            return Err(Error::invalid(format!(
                "a tensor of type {dtype} and shape {shape:?} takes {wanted} bytes, but {} were given",
                bytes.len()
            )));
        }
        let data = Arc::new(Buffer::copied(bytes)?);
        let mut tensor = Tensor { dtype, shape: shape.to_vec(), data };
        if dtype == DType::Bool {
            tensor.bytes_mut().iter_mut().for_each(|b| *b = (*b != 0) as u8);
        } else if dtype.bits() < 8 {
            tensor.bytes_mut().iter_mut().for_each(|b| *b = dtype.unpacked(*b));
        }
        Ok(tensor)
    }
    /// A tensor of `shape` from truth values.
    pub fn from_bools(shape: &[usize], values: &[bool]) -> Result<Tensor> {
        let bytes: Vec<u8> = values.iter().map(|&b| b as u8).collect();
        Tensor::from_bytes(DType::Bool, shape, &bytes)
    }
    /// A rank-0 tensor.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor::new(&[], &[value]).expect("one element always fits")
    }
    /// A rank-1 tensor of `i64`, the type of shapes and axes.
    pub fn from_i64s(values: &[i64]) -> Result<Tensor> {
        Tensor::new(&[values.len()], values)
    }
    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// The extents, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.bytes().len() / self.dtype.size()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The elements' bytes, native byte order.
    pub fn bytes(&self) -> &[u8] {
        self.data.bytes()
    }
    /// The elements' bytes for writing; copies them first where they are shared.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        Arc::make_mut(&mut self.data).bytes_mut()
    }
    /// The elements as `T`; an error where the type differs.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        self.expect_dtype(T::DTYPE)?;
        Ok(bytemuck::cast_slice(self.bytes()))
    }
    /// The elements as `T` for writing; an error where the type differs.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        self.expect_dtype(T::DTYPE)?;
        Ok(bytemuck::cast_slice_mut(self.bytes_mut()))
    }
    /// The truth values of a `Bool` tensor as bytes 0 and 1; an error for another type.
    pub fn as_bools(&self) -> Result<&[u8]> {
        self.expect_dtype(DType::Bool)?;
        Ok(self.bytes())
    }
    /// The elements as `i64` (from any integer or `Bool` type): axes, shapes, counts.
    pub fn to_i64s(&self) -> Result<Vec<i64>> {
        match self.to_numbers() {
            Numbers::Int(v) => v
                .into_iter()
                .map(|x| i64::try_from(x).map_err(|_| Error::invalid(format!("{x} does not fit in i64"))))
                .collect(),
            Numbers::Float(_) => {
                Err(Error::invalid(format!("expected integers, found a tensor of type {}", self.dtype)))
            }
        }
    }
    /// The elements as `f32`, rounded to nearest.
    pub fn to_f32s(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => bytemuck::cast_slice(self.bytes()).to_vec(),
            // The weights of a quantised network are millions.
            DType::I8 | DType::I4 | DType::I2 => self.bytes().iter().map(|&x| f32::from(x as i8)).collect(),
            DType::U8 | DType::U4 | DType::U2 => self.bytes().iter().map(|&x| f32::from(x)).collect(),
            _ => self.to_numbers().into_floats().into_iter().map(|x| x as f32).collect(),
        }
    }
    /// The same elements under another shape; an error where the counts differ.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Tensor> {
        if element_count(shape)? != self.len() {
            return Err(Error::invalid(format!(
                "{} elements of shape {:?} do not fit shape {shape:?}",
                self.len(),
                self.shape
            )));
        }
        Ok(Tensor { dtype: self.dtype, shape: shape.to_vec(), data: self.data.clone() })
    }
    fn expect_dtype(&self, dtype: DType) -> Result<()> {
        if self.dtype == dtype {
            return Ok(());
        }
        Err(Error::invalid(format!("expected a tensor of type {dtype}, found {}", self.dtype)))
    }
}

impl PartialEq for Tensor {
    /// The same type, shape and bytes (so NaN equals itself and 0.0 differs from -0.0).
    fn eq(&self, other: &Tensor) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && (Arc::ptr_eq(&self.data, &other.data) || self.bytes() == other.bytes())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        if self.len() <= 16 {
            match self.to_numbers() {
                Numbers::Float(v) => write!(f, " {v:?}"),
                Numbers::Int(v) => write!(f, " {v:?}"),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Budget, with_budget};

    #[test]
    fn holds_what_it_was_given() {
        let t = Tensor::new(&[2, 3], &[1f32, 2., 3., 4., 5., 6.]).unwrap();
        assert_eq!((t.rank(), t.len(), t.dtype()), (2, 6, DType::F32));
        assert_eq!(t.as_slice::<f32>().unwrap()[4], 5.0);
        assert!(t.as_slice::<i32>().is_err());
        assert!(Tensor::new(&[2, 2], &[1f32]).is_err());
        assert_eq!(t.bytes().as_ptr() as usize % 64, 0);
        assert_eq!(t.reshaped(&[3, 2]).unwrap().shape(), [3, 2]);
    }

    #[test]
    fn writes_do_not_reach_shared_copies() {
        let mut a = Tensor::scalar(1i64);
        let b = a.clone();
        a.as_mut_slice::<i64>().unwrap()[0] = 2;
        assert_eq!((a.to_i64s().unwrap(), b.to_i64s().unwrap()), (vec![2], vec![1]));
    }

    #[test]
    fn obeys_the_budget() {
        let budget = Budget::new(1000);
        with_budget(&budget, || {
            assert!(Tensor::zeros(DType::F32, &[100]).is_ok());
            assert!(Tensor::zeros(DType::F32, &[300]).is_err());
            assert!(Tensor::zeros(DType::F32, &[1 << 40, 1 << 40]).is_err());
        });
    }
}
