//! `TensorProto` to and from [`Tensor`]: all the encodings that ONNX allows, of all the element types planish has.

use crate::external::ExternalFiles;
use crate::proto::TensorProto;
use crate::wire::{Message, varints};
use planish_graph::limits::element_count;
use planish_graph::{DType, Error, Result, Tensor, invalid, unsupported};
use std::borrow::Cow;

/// ONNX's name of each data type that planish does not have.
const OTHER_DATA_TYPES: [(i32, &str); 3] = [(8, "string"), (14, "complex64"), (15, "complex128")];

/// The element type of ONNX's number `data_type`, or an error that names it.
pub(crate) fn dtype(data_type: i32) -> Result<DType> {
    match DType::from_onnx_code(i64::from(data_type)) {
        Ok(dtype) => Ok(dtype),
        Err(_) => match other_type_name(data_type) {
            Some(name) => unsupported!("element type {name} is not supported"),
            None => invalid!("data type {data_type} is not one of ONNX"),
        },
    }
}

/// The name of a data type that ONNX has and planish does not.
pub(crate) fn other_type_name(data_type: i32) -> Option<&'static str> {
    OTHER_DATA_TYPES.iter().find(|(number, _)| *number == data_type).map(|(_, name)| *name)
}

/// The tensor that `proto` describes.
pub(crate) fn tensor(proto: &TensorProto<'_>, external: &mut ExternalFiles) -> Result<Tensor> {
    let dtype = dtype(proto.data_type)?;
    if proto.segmented {
        unsupported!("tensors in segments are not supported");
    }
    let shape = varints(&proto.dims)?
        .into_iter()
        .map(|d| usize::try_from(d).map_err(|_| Error::invalid(format!("extent {d} is negative"))))
        .collect::<Result<Vec<usize>>>()?;
    match proto.location {
        0 => {}
        1 => return external.tensor(&proto.external, dtype, &shape),
        other => invalid!("data location {other} is neither the model nor a file beside it"),
    }
    if let Some(raw) = proto.raw {
        return Tensor::from_packed(dtype, &shape, raw);
    }
    match dtype {
        DType::F32 => Tensor::from_bytes(dtype, &shape, &proto.floats),
        DType::F64 => Tensor::from_bytes(dtype, &shape, &proto.doubles),
        DType::I64 => from_varints(dtype, &shape, &proto.int64s, |v| v.to_le_bytes()),
        DType::U64 => from_varints(dtype, &shape, &proto.uint64s, |v| v.to_le_bytes()),
        DType::U32 => from_varints(dtype, &shape, &proto.uint64s, |v| (v as u32).to_le_bytes()),
        DType::I32 => from_varints(dtype, &shape, &proto.int32s, |v| (v as i32).to_le_bytes()),
        DType::F16 | DType::BF16 | DType::I16 | DType::U16 => {
            from_varints(dtype, &shape, &proto.int32s, |v| (v as u16).to_le_bytes())
        }
        DType::I8 | DType::U8 => from_varints(dtype, &shape, &proto.int32s, |v| [v as u8]),
        DType::Bool => from_varints(dtype, &shape, &proto.int32s, |v| [(v != 0) as u8]),
        narrow => {
            let bytes: Vec<u8> = varints(&proto.int32s)?.into_iter().map(|v| v as u8).collect();
            // A number of the list is an element; of types that divide a byte it is a byte of several.
            let packed = 8 % narrow.bits() == 0;
            if packed {
                Tensor::from_packed(dtype, &shape, &bytes)
            } else {
                Tensor::from_bytes(dtype, &shape, &bytes)
            }
        }
    }
}

/// A tensor from an encoded list of integers, each cut to the element's width by `narrow`.
fn from_varints<const N: usize>(
    dtype: DType,
    shape: &[usize],
    encoded: &[u8],
    narrow: impl Fn(i64) -> [u8; N],
) -> Result<Tensor> {
    let values = varints(encoded)?;
    if element_count(shape)? != values.len() {
        invalid!("shape {shape:?} does not take {} elements", values.len());
    }
    let mut tensor = Tensor::zeros(dtype, shape)?;
    for (target, value) in tensor.bytes_mut().chunks_exact_mut(N).zip(values) {
        target.copy_from_slice(&narrow(value));
    }
    Ok(tensor)
}

/// `TensorProto` fields that every encoding shares: extents, type and name.
pub(crate) fn header(name: &str, tensor: &Tensor) -> Message {
    let mut message = Message::new();
    for &d in tensor.shape() {
        message.int(1, d as i64);
    }
    message.int(2, tensor.dtype().onnx_code());
    message.text(8, name);
    message
}

/// A `TensorProto` that holds its bytes.
pub(crate) fn message(name: &str, tensor: &Tensor) -> Message {
    let mut message = header(name, tensor);
    match tensor.packed() {
        Cow::Borrowed(_) => message.tensor_bytes(9, tensor),
        Cow::Owned(bytes) => message.bytes(9, &bytes),
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Decoder;
    use crate::wire::Allowance;

    fn read(message: &Message) -> Result<Tensor> {
        let bytes = message.to_bytes();
        let allowance = Allowance::new(100);
        let proto = TensorProto::decode(&bytes, Decoder::new(&allowance))?;
        tensor(&proto, &mut ExternalFiles::new(None, 0))
    }

    fn proto(dtype: DType, shape: &[i64]) -> Message {
        let mut message = Message::new();
        shape.iter().for_each(|&d| message.int(1, d));
        message.int(2, dtype.onnx_code());
        message
    }

    #[test]
    fn raw_bytes_round_trip_in_every_type() {
        for dtype in DType::ALL {
            let bytes: Vec<u8> = (0..5 * dtype.size() as u8).map(|b| b % 2).collect();
            let tensor = Tensor::from_bytes(dtype, &[5], &bytes).unwrap();
            assert_eq!(read(&message("t", &tensor)).unwrap(), tensor, "{dtype}");
        }
    }

    #[test]
    fn typed_lists_are_read() {
        for (dtype, field, value, expected) in [
            (DType::F16, 5, 0x3c00, vec![0x00u8, 0x3c]),
            (DType::BF16, 5, 0x3f80, vec![0x80, 0x3f]),
            (DType::I8, 5, -2, vec![0xfe]),
            (DType::U16, 5, 65535, vec![0xff, 0xff]),
            (DType::Bool, 5, 7, vec![1]),
            (DType::I32, 5, -1, vec![0xff; 4]),
            (DType::I64, 7, -1, vec![0xff; 8]),
            (DType::U32, 11, 5, vec![5, 0, 0, 0]),
            (DType::U64, 11, -1, vec![0xff; 8]),
            (DType::F8E5M2, 5, 0xfc, vec![0xfc]),
            (DType::I4, 5, 0x0f, vec![0xff]),
            (DType::U2, 5, 0xfe, vec![0x02]),
            (DType::F6E3M2, 5, 0x3f, vec![0x3f]),
        ] {
            let mut message = proto(dtype, &[1]);
            message.int(field, value);
            assert_eq!(read(&message).unwrap().bytes(), expected, "{dtype}");
        }
        let mut message = proto(DType::F32, &[2]);
        message.float(4, 1.0);
        message.float(4, 2.0);
        assert_eq!(read(&message).unwrap(), Tensor::new(&[2], &[1f32, 2.0]).unwrap());
        let mut message = proto(DType::F64, &[]);
        message.bytes(10, &0.5f64.to_le_bytes());
        assert_eq!(read(&message).unwrap(), Tensor::scalar(0.5f64));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        for shape in [&[-1i64][..], &[2], &[i64::MAX, i64::MAX]] {
            let mut message = proto(DType::F32, shape);
            message.bytes(9, &[0; 4]);
            assert!(read(&message).is_err(), "{shape:?}");
        }
        let mut string = Message::new();
        string.int(2, 8);
        assert!(read(&string).unwrap_err().to_string().contains("string"));
        let mut unknown = Message::new();
        unknown.int(2, 99);
        assert!(read(&unknown).is_err());
        let mut segment = proto(DType::F32, &[0]);
        segment.bytes(3, &[]);
        assert!(read(&segment).is_err());
        let mut external = proto(DType::F32, &[0]);
        external.int(14, 1);
        assert!(read(&external).is_err());
    }
}
