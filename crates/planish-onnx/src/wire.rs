//! The protobuf wire format, read and written by hand: a model is hostile until shown otherwise, and the format is small.
//!
//! Reading borrows from the input and allocates nothing by what a length field claims: every length is checked against
//! the bytes that are there. What a file may make planish allocate for small messages (two bytes of file can ask for a
//! whole node) is counted by an [`Allowance`]. Writing collects a message as pieces, so that the bytes of tensors are
//! never copied on their way into a file.

use planish_graph::{Error, Result, Tensor, invalid};
use std::borrow::Cow;
use std::cell::Cell;
use std::io::Write;

/// How many more items (nodes, names, attributes, tensors …) a file may make planish hold.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: Cell<usize>,
    most: usize,
}

impl Allowance {
    /// An allowance of `most` items.
    pub(crate) fn new(most: usize) -> Allowance {
        Allowance { left: Cell::new(most), most }
    }
    /// Takes `count` items, or says that the cap would be passed.
    pub(crate) fn take(&self, count: usize) -> Result<()> {
        match self.left.get().checked_sub(count) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(Error::limit(format!(
                "the model has more than {} nodes, names, attributes and tensors; raise max_items if it is trusted",
                self.most
            ))),
        }
    }
}

/// The content of one field as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    /// A number of variable length.
    Varint(u64),
    /// Eight bytes, little-endian.
    Fixed64(&'a [u8]),
    /// A text, a message, bytes or a packed list.
    Bytes(&'a [u8]),
    /// Four bytes, little-endian.
    Fixed32(&'a [u8]),
}

impl<'a> Field<'a> {
    /// An integer; 32-bit ones are sign-extended on the wire, so one reading serves all.
    pub(crate) fn int(self) -> Result<i64> {
        match self {
            Field::Varint(v) => Ok(v as i64),
            _ => invalid!("a number was expected"),
        }
    }
    /// A 32-bit integer (an enumeration, a data type).
    pub(crate) fn int32(self) -> Result<i32> {
        Ok(self.int()? as i32)
    }
    /// A 32-bit float.
    pub(crate) fn float(self) -> Result<f32> {
        match self {
            Field::Fixed32(b) => Ok(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            _ => invalid!("a float was expected"),
        }
    }
    /// Bytes or a nested message.
    pub(crate) fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Field::Bytes(b) => Ok(b),
            _ => invalid!("bytes were expected"),
        }
    }
    /// A text.
    pub(crate) fn text(self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::invalid("a text is not UTF-8"))
    }
    /// Adds this field to a list of varints, packed or not. The list stays encoded: see [`varints`].
    pub(crate) fn append_varints(self, list: &mut Cow<'a, [u8]>) -> Result<()> {
        match self {
            Field::Varint(v) => put_varint(list.to_mut(), v),
            Field::Bytes(b) if list.is_empty() => *list = Cow::Borrowed(b),
            Field::Bytes(b) => list.to_mut().extend_from_slice(b),
            _ => invalid!("a list of integers was expected"),
        }
        Ok(())
    }
    /// Adds this field to a list of fixed-width numbers, packed or not. The list stays little-endian bytes.
    pub(crate) fn append_fixed(self, list: &mut Cow<'a, [u8]>) -> Result<()> {
        match self {
            Field::Bytes(b) if list.is_empty() => *list = Cow::Borrowed(b),
            Field::Bytes(b) | Field::Fixed32(b) | Field::Fixed64(b) => list.to_mut().extend_from_slice(b),
            Field::Varint(_) => invalid!("a list of floats was expected"),
        }
        Ok(())
    }
}

/// Walks the fields of one message.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The fields of the message that `bytes` holds.
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }
    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        match usize::try_from(count).ok().and_then(|n| self.rest.split_at_checked(n)) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => invalid!("a field claims {count} bytes where {} are left", self.rest.len()),
        }
    }
    fn field(&mut self) -> Result<(u32, Field<'a>)> {
        let key = take_varint(&mut self.rest)?;
        let number = key >> 3;
        if number == 0 || number >= 1 << 29 {
            invalid!("field number {number} is not a protobuf field number");
        }
        let field = match key & 7 {
            0 => Field::Varint(take_varint(&mut self.rest)?),
            1 => Field::Fixed64(self.take(8)?),
            2 => {
                let length = take_varint(&mut self.rest)?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(self.take(4)?),
            other => invalid!("wire type {other} of field {number} is not one that ONNX uses"),
        };
        Ok((number as u32, field))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Takes one varint off the front of `bytes`; at most ten bytes, and nothing above 64 bits.
fn take_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for index in 0..10 {
        let Some((&byte, rest)) = bytes.split_first() else {
            invalid!("the file ends in the middle of a number");
        };
        *bytes = rest;
        if index == 9 && byte > 1 {
            invalid!("a number has more than 64 bits");
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    invalid!("a number has more than 64 bits")
}

/// The numbers of an encoded list of varints.
pub(crate) fn varints(mut encoded: &[u8]) -> Result<Vec<i64>> {
    let mut values = Vec::with_capacity(encoded.len().min(1 << 16));
    while !encoded.is_empty() {
        values.push(take_varint(&mut encoded)? as i64);
    }
    Ok(values)
}

/// The numbers of an encoded list of 32-bit floats.
pub(crate) fn floats(encoded: &[u8]) -> Result<Vec<f32>> {
    if !encoded.len().is_multiple_of(4) {
        invalid!("a list of floats has {} bytes, which is no multiple of 4", encoded.len());
    }
    Ok(encoded.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A message being written: bytes, and between them tensors whose bytes are only read when the file is written.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pieces: Vec<(Vec<u8>, Tensor)>,
    tail: Vec<u8>,
    length: usize,
}

impl Message {
    /// A message without fields.
    pub(crate) fn new() -> Message {
        Message::default()
    }
    /// Its encoded length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }
    fn key(&mut self, number: u32, wire_type: u32) {
        self.varint(u64::from(number << 3 | wire_type));
    }
    fn varint(&mut self, value: u64) {
        let before = self.tail.len();
        put_varint(&mut self.tail, value);
        self.length += self.tail.len() - before;
    }
    fn raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.length += bytes.len();
    }
    /// An integer, also where it is 0.
    pub(crate) fn int(&mut self, number: u32, value: i64) {
        self.key(number, 0);
        self.varint(value as u64);
    }
    /// A 32-bit float.
    pub(crate) fn float(&mut self, number: u32, value: f32) {
        self.key(number, 5);
        self.raw(&value.to_le_bytes());
    }
    /// Bytes or a text.
    pub(crate) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.key(number, 2);
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }
    /// A text that is left out where it is empty.
    pub(crate) fn text(&mut self, number: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(number, text.as_bytes());
        }
    }
    /// The bytes of a tensor, not copied.
    pub(crate) fn tensor_bytes(&mut self, number: u32, tensor: &Tensor) {
        self.key(number, 2);
        self.varint(tensor.bytes().len() as u64);
        self.length += tensor.bytes().len();
        self.pieces.push((std::mem::take(&mut self.tail), tensor.clone()));
    }
    /// A nested message.
    pub(crate) fn message(&mut self, number: u32, inner: Message) {
        self.key(number, 2);
        self.varint(inner.length as u64);
        self.length += inner.length;
        for (bytes, tensor) in inner.pieces {
            self.tail.extend_from_slice(&bytes);
            self.pieces.push((std::mem::take(&mut self.tail), tensor));
        }
        self.tail.extend_from_slice(&inner.tail);
    }
    /// Writes the encoded message.
    pub(crate) fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        for (bytes, tensor) in &self.pieces {
            out.write_all(bytes)?;
            out.write_all(tensor.bytes())?;
        }
        out.write_all(&self.tail)
    }
    /// The encoded message as one piece.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.length);
        for (bytes, tensor) in &self.pieces {
            out.extend_from_slice(bytes);
            out.extend_from_slice(tensor.bytes());
        }
        out.extend_from_slice(&self.tail);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<u32>> {
        Reader::new(bytes).map(|f| f.map(|(n, _)| n)).collect()
    }

    #[test]
    fn messages_round_trip() {
        let mut inner = Message::new();
        inner.text(1, "name");
        inner.tensor_bytes(9, &Tensor::new(&[2], &[1u8, 2]).unwrap());
        inner.int(2, -1);
        let mut outer = Message::new();
        outer.float(3, 0.5);
        outer.message(7, inner);
        outer.int(8, 300);
        let bytes = outer.to_bytes();
        assert_eq!(bytes.len(), outer.len());
        let mut streamed = Vec::new();
        outer.write_to(&mut streamed).unwrap();
        assert_eq!(streamed, bytes);
        let read: Vec<(u32, Field)> = Reader::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(read[0].1.float().unwrap(), 0.5);
        assert_eq!(read[2].1.int().unwrap(), 300);
        let inner: Vec<(u32, Field)> = Reader::new(read[1].1.bytes().unwrap()).map(Result::unwrap).collect();
        assert_eq!(inner[0].1.text().unwrap(), "name");
        assert_eq!(inner[1].1.bytes().unwrap(), [1, 2]);
        assert_eq!(inner[2].1.int().unwrap(), -1);
    }

    #[test]
    fn refuses_what_is_cut_or_overlong() {
        assert!(fields(&[0x08]).is_err(), "no value");
        assert!(fields(&[0x08, 0x80]).is_err(), "a varint that does not end");
        assert!(fields(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).is_err());
        assert_eq!(fields(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).unwrap(), [1]);
        assert!(fields(&[0x0a, 0x05, 1, 2]).is_err(), "a length beyond the end");
        assert!(fields(&[0x0d, 1, 2, 3]).is_err(), "three bytes of four");
        assert!(fields(&[0x00, 0x00]).is_err(), "field 0");
        assert!(fields(&[0x0b]).is_err(), "a group");
        assert!(fields(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
    }

    #[test]
    fn lists_may_be_packed_or_not() {
        let mut list = Cow::Borrowed(&[][..]);
        Field::Varint(300).append_varints(&mut list).unwrap();
        Field::Bytes(&[1, 2]).append_varints(&mut list).unwrap();
        Field::Varint(-1i64 as u64).append_varints(&mut list).unwrap();
        assert_eq!(varints(&list).unwrap(), [300, 1, 2, -1]);
        let mut list = Cow::Borrowed(&[][..]);
        let (one, two) = (1f32.to_le_bytes(), 2f32.to_le_bytes());
        Field::Bytes(&one).append_fixed(&mut list).unwrap();
        Field::Fixed32(&two).append_fixed(&mut list).unwrap();
        assert_eq!(floats(&list).unwrap(), [1.0, 2.0]);
        assert!(floats(&[1, 2, 3]).is_err());
        assert!(varints(&[0x80]).is_err());
    }

    #[test]
    fn the_allowance_ends() {
        let allowance = Allowance::new(3);
        assert!(allowance.take(2).is_ok());
        assert!(allowance.take(2).is_err());
        assert!(allowance.take(1).is_ok());
    }
}
