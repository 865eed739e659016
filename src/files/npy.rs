//! NumPy's `.npy` files: the form in which tensors enter and leave planish.
//!
//! Read: format versions 1 to 3, little and big endian, C and Fortran order, every element type of [`DType`]. Written:
//! version 1, little endian, C order. NumPy has no bfloat16; what its extension packages write for it is two raw bytes
//! (`V2`), so that is how planish reads and writes it. Types of 8 bits and less that it lacks are written as `i1`, `u1` or
//! `f4`, which hold the same numbers. Pickled objects are never read.

mod header;

use header::Header;
use planish_graph::error::Context;
use planish_graph::limits::element_count;
use planish_graph::ops::math::cast::cast;
use planish_graph::{DType, Error, Result, Tensor};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

/// Reads the tensor in the file at `path`.
pub fn read(path: &Path) -> Result<Tensor> {
    let file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let length = file.metadata().map_err(|e| Error::io(path, &e))?.len();
    read_from(&mut BufReader::new(file), length).context(|| path.display().to_string())
}

/// Reads a tensor from `reader`, which holds `length` bytes in all. Nothing is allocated that `length` does not cover.
pub fn read_from(reader: &mut dyn Read, length: u64) -> Result<Tensor> {
    let header = Header::read(reader)?;
    let content = (element_count(&header.shape)?)
        .checked_mul(header.dtype.size())
        .ok_or_else(|| Error::limit(format!("shape {:?} is too large", header.shape)))?;
    let present = length.saturating_sub(header.bytes);
    if present != content as u64 {
        return Err(Error::invalid(format!(
            "shape {:?} of type {} takes {content} bytes, but the file holds {present}",
            header.shape, header.dtype
        )));
    }
    let stored: Vec<usize> = if header.fortran_order {
        header.shape.iter().rev().copied().collect()
    } else {
        header.shape.clone()
    };
    let mut tensor = Tensor::zeros(header.dtype, &stored)?;
    let bytes = tensor.bytes_mut();
    reader
        .read_exact(bytes)
        .map_err(|e| Error::invalid(format!("the file ends early or is damaged: {e}")))?;
    if header.big_endian != cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(header.dtype.size()).for_each(<[u8]>::reverse);
    }
    if header.dtype == DType::Bool {
        bytes.iter_mut().for_each(|b| *b = (*b != 0) as u8);
    }
    if header.fortran_order && header.shape.len() > 1 && !tensor.is_empty() {
        reverse_axes(&tensor, &header.shape)
    } else {
        tensor.reshaped(&header.shape)
    }
}

/// Writes `tensor` as a `.npy` file at `path`.
pub fn write(path: &Path, tensor: &Tensor) -> Result<()> {
    planish_files::replace(path, |w| write_to(w, tensor)).map_err(|e| Error::io(path, &e))
}

/// Writes `tensor` in the `.npy` format to `writer`.
pub fn write_to(writer: &mut dyn Write, tensor: &Tensor) -> std::io::Result<()> {
    let wide = known_to_numpy(tensor).map_err(|e| std::io::Error::other(e.to_string()))?;
    let tensor = wide.as_ref().unwrap_or(tensor);
    writer.write_all(&header::encode(tensor.dtype(), tensor.shape()))?;
    writer.write_all(tensor.bytes())
}

/// The elements in the next type that NumPy has, where it does not have theirs: the same numbers in `i8`, `u8` or `f32`.
fn known_to_numpy(tensor: &Tensor) -> Result<Option<Tensor>> {
    let dtype = tensor.dtype();
    Ok(if dtype.narrow_float().is_some() {
        Some(cast(tensor, DType::F32)?)
    } else if dtype.bits() < 8 {
        Some(cast(tensor, if dtype.is_signed_integer() { DType::I8 } else { DType::U8 })?)
    } else {
        None
    })
}

/// The elements of `stored` (at least one), whose axes are those of `shape` in reverse, in the order of `shape`.
fn reverse_axes(stored: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let mut result = Tensor::zeros(stored.dtype(), shape)?;
    let size = stored.dtype().size();
    let (source, target) = (stored.bytes(), result.bytes_mut());
    // In the file, the first axis varies fastest.
    let mut steps = Vec::with_capacity(shape.len());
    let mut step = size;
    for &extent in shape {
        steps.push(step);
        step *= extent;
    }
    let mut index = vec![0usize; shape.len()];
    let mut offset = 0;
    for element in target.chunks_exact_mut(size) {
        element.copy_from_slice(&source[offset..offset + size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            offset += steps[axis];
            if index[axis] < shape[axis] {
                break;
            }
            offset -= steps[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::scratch::Scratch;
    use planish_graph::ErrorKind;

    fn encode(tensor: &Tensor) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_to(&mut bytes, tensor).unwrap();
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Tensor> {
        read_from(&mut &bytes[..], bytes.len() as u64)
    }

    /// A file of version `major` with the given dictionary and content.
    fn file(major: u8, dictionary: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([major, 0]);
        if major == 1 {
            bytes.extend((dictionary.len() as u16).to_le_bytes());
        } else {
            bytes.extend((dictionary.len() as u32).to_le_bytes());
        }
        bytes.extend(dictionary.as_bytes());
        bytes.extend(content);
        bytes
    }

    #[test]
    fn every_type_and_rank_returns() {
        let scratch = Scratch::new();
        for dtype in DType::ALL {
            for shape in [&[][..], &[0], &[3], &[2, 3], &[2, 0, 4], &[1, 2, 3, 4]] {
                let mut tensor = Tensor::zeros(dtype, shape).unwrap();
                for (i, byte) in tensor.bytes_mut().iter_mut().enumerate() {
                    *byte = if dtype == DType::Bool { (i % 2) as u8 } else { i as u8 };
                }
                let path = scratch.path("t.npy");
                write(&path, &tensor).unwrap();
                let wanted = known_to_numpy(&tensor).unwrap().unwrap_or(tensor.clone());
                assert_eq!(read(&path).unwrap(), wanted, "{dtype} {shape:?}");
                assert_eq!(std::fs::metadata(&path).unwrap().len() as usize % 64, wanted.bytes().len() % 64);
            }
        }
    }

    #[test]
    fn reads_versions_orders_and_byte_orders() {
        let values = [1i16, 2, 3, 4, 5, 6];
        let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
        let wanted = Tensor::new(&[2, 3], &values).unwrap();
        let columns = Tensor::new(&[2, 3], &[1i16, 3, 5, 2, 4, 6]).unwrap();
        for version in 1..=3 {
            let c = |order: char| {
                format!("{{'descr': '{order}i2', 'fortran_order': False, 'shape': (2, 3), }}  \n")
            };
            assert_eq!(decode(&file(version, &c('<'), &little)).unwrap(), wanted);
            assert_eq!(decode(&file(version, &c('>'), &big)).unwrap(), wanted);
            let f = "{\"shape\":(2,3),'fortran_order':True,'descr':'<i2'}";
            assert_eq!(decode(&file(version, f, &little)).unwrap(), columns);
        }
        let line = decode(&file(1, "{'descr':'|b1','fortran_order':True,'shape':(2,)}", &[0, 7])).unwrap();
        assert_eq!(line, Tensor::from_bools(&[2], &[false, true]).unwrap());
    }

    #[test]
    fn refuses_what_does_not_hold_together() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}";
        assert!(decode(&file(1, good, &[0; 8])).is_ok());
        assert!(decode(&file(1, good, &[0; 7])).is_err());
        assert!(decode(&file(1, good, &[0; 9])).is_err());
        assert!(decode(&file(4, good, &[0; 8])).is_err());
        for bad in [
            "",
            "{",
            "{}",
            "{'descr': '<f4'}",
            "nonsense",
            "{'descr': '<f4', 'fortran_order': 1, 'shape': (2,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 'x'}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} trailing",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296,4294967296,4294967296)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}",
        ] {
            assert!(decode(&file(1, bad, &[0; 8])).is_err(), "{bad}");
        }
        for unsupported in ["|O", "<c8", "<U5", "|S3", "<M8[ns]", "<f16"] {
            let dictionary = format!("{{'descr': '{unsupported}', 'fortran_order': False, 'shape': (2,)}}");
            let error = decode(&file(1, &dictionary, &[0; 8])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{unsupported}");
        }
        let huge = file(2, good, &[]);
        let mut lying = huge[..8].to_vec();
        lying.extend(u32::MAX.to_le_bytes());
        assert!(decode(&lying).is_err());
    }

    proptest::proptest! {
        #[test]
        fn damaged_files_never_panic(cut in 0usize..200, at in 0usize..200, byte: u8) {
            let mut bytes = encode(&Tensor::new(&[3, 5], &[1.5f32; 15]).unwrap());
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
            let _ = decode(&bytes);
        }
    }
}
