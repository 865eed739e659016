//! The head of a `.npy` file: magic bytes, a version, and a Python dictionary with three known keys.
//!
//! Only that dictionary is parsed, not Python: strings, `True`/`False`, and a tuple of numbers.

use planish_graph::{DType, Error, Result, invalid, unsupported};
use std::io::Read;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The longest dictionary that is read; NumPy's own limit is 10,000 characters.
const MAX_DICTIONARY: u32 = 1 << 16;
/// NumPy's own limit on the number of axes.
const MAX_RANK: usize = 64;

/// What the head of a file says.
pub(super) struct Header {
    pub(super) dtype: DType,
    pub(super) big_endian: bool,
    pub(super) fortran_order: bool,
    pub(super) shape: Vec<usize>,
    /// The length of the head itself.
    pub(super) bytes: u64,
}

impl Header {
    pub(super) fn read(reader: &mut dyn Read) -> Result<Header> {
        let mut start = [0u8; 8];
        fill(reader, &mut start)?;
        if &start[..6] != MAGIC {
            invalid!("not a .npy file: it does not begin with \\x93NUMPY");
        }
        let (length, width) = match start[6] {
            1 => {
                let mut bytes = [0u8; 2];
                fill(reader, &mut bytes)?;
                (u32::from(u16::from_le_bytes(bytes)), 2)
            }
            2 | 3 => {
                let mut bytes = [0u8; 4];
                fill(reader, &mut bytes)?;
                (u32::from_le_bytes(bytes), 4)
            }
            version => unsupported!("version {version} of the .npy format; versions 1 to 3 are read"),
        };
        if length > MAX_DICTIONARY {
            return Err(Error::limit(format!(
                "a header of {length} bytes; at most {MAX_DICTIONARY} are read"
            )));
        }
        let mut dictionary = vec![0u8; length as usize];
        fill(reader, &mut dictionary)?;
        let Ok(text) = std::str::from_utf8(&dictionary) else { invalid!("the header is not text") };
        let mut header = parse(text)?;
        header.bytes = 8 + width + u64::from(length);
        Ok(header)
    }
}

fn fill(reader: &mut dyn Read, bytes: &mut [u8]) -> Result<()> {
    reader.read_exact(bytes).map_err(|e| Error::invalid(format!("the .npy header is cut short: {e}")))
}

fn parse(text: &str) -> Result<Header> {
    let mut parser = Parser { rest: text };
    let (mut descr, mut order, mut shape) = (None, None, None);
    parser.expect('{')?;
    while !parser.take('}') {
        let key = parser.string()?;
        parser.expect(':')?;
        match key {
            "descr" => descr = Some(parser.string()?),
            "fortran_order" => order = Some(parser.truth()?),
            "shape" => shape = Some(parser.tuple()?),
            _ => invalid!("the header has an unknown key {key:?}"),
        }
        if !parser.take(',') {
            parser.expect('}')?;
            break;
        }
    }
    if !parser.rest.trim().is_empty() {
        invalid!("the header goes on after its dictionary");
    }
    let (Some(descr), Some(fortran_order), Some(shape)) = (descr, order, shape) else {
        invalid!("the header lacks descr, fortran_order or shape");
    };
    let (dtype, big_endian) = element_type(descr)?;
    Ok(Header { dtype, big_endian, fortran_order, shape, bytes: 0 })
}

/// Takes pieces off the front of a text; white space before each is skipped.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn take(&mut self, mark: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
    fn expect(&mut self, mark: char) -> Result<()> {
        if !self.take(mark) {
            invalid!("the header is malformed: expected {mark:?} before {:?}", self.shown());
        }
        Ok(())
    }
    fn string(&mut self) -> Result<&'a str> {
        let quote = if self.take('\'') {
            '\''
        } else if self.take('"') {
            '"'
        } else if self.rest.starts_with('[') {
            unsupported!("records (structured arrays); only plain arrays are read");
        } else {
            invalid!("the header is malformed: expected a string before {:?}", self.shown());
        };
        let Some((string, rest)) = self.rest.split_once(quote) else {
            invalid!("the header has a string without an end");
        };
        self.rest = rest;
        Ok(string)
    }
    fn truth(&mut self) -> Result<bool> {
        self.rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        invalid!("the header is malformed: expected True or False before {:?}", self.shown());
    }
    fn tuple(&mut self) -> Result<Vec<usize>> {
        let mut numbers = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            if numbers.len() == MAX_RANK {
                return Err(Error::limit(format!("more than {MAX_RANK} axes")));
            }
            numbers.push(self.number()?);
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(numbers)
    }
    fn number(&mut self) -> Result<usize> {
        self.rest = self.rest.trim_start();
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.rest.split_at(digits);
        let Ok(number) = number.parse() else {
            invalid!("the shape has something that is not an extent before {:?}", self.shown());
        };
        // Python 2 wrote long integers with a suffix.
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        Ok(number)
    }
    fn shown(&self) -> String {
        self.rest.chars().take(20).collect()
    }
}

/// The element type that NumPy calls `descr`, and whether its bytes are big endian.
fn element_type(descr: &str) -> Result<(DType, bool)> {
    let (order, kind) = match descr.chars().next() {
        Some(order @ ('<' | '>' | '|' | '=')) => (order, &descr[1..]),
        _ => ('=', descr),
    };
    let big_endian = order == '>' || (order == '=' && cfg!(target_endian = "big"));
    let dtype = match kind {
        "f8" => DType::F64,
        "f4" => DType::F32,
        "f2" => DType::F16,
        "V2" | "bfloat16" => DType::BF16,
        "i1" => DType::I8,
        "u1" => DType::U8,
        "i2" => DType::I16,
        "u2" => DType::U16,
        "i4" => DType::I32,
        "u4" => DType::U32,
        "i8" => DType::I64,
        "u8" => DType::U64,
        "b1" | "?" => DType::Bool,
        "O" => unsupported!("pickled Python objects; save a plain array of numbers"),
        _ => unsupported!("elements of NumPy type {descr:?}; save numbers of up to 64 bits or truth values"),
    };
    Ok((dtype, big_endian))
}

/// The head of a file that holds `dtype` elements of `shape`, padded so that they begin at a multiple of 64 bytes.
pub(super) fn encode(dtype: DType, shape: &[usize]) -> Vec<u8> {
    let kind = match dtype {
        DType::F64 => "f8",
        DType::F32 => "f4",
        DType::F16 => "f2",
        DType::BF16 => "V2",
        DType::I8 => "i1",
        DType::U8 => "u1",
        DType::I16 => "i2",
        DType::U16 => "u2",
        DType::I32 => "i4",
        DType::U32 => "u4",
        DType::I64 => "i8",
        DType::U64 => "u8",
        DType::Bool => "b1",
        // The writer widens what is shorter, without a change of its numbers.
        other if other.is_float() => "f4",
        other if other.is_signed_integer() => "i1",
        _ => "u1",
    };
    let order = match dtype.size() {
        1 => '|',
        _ if cfg!(target_endian = "big") => '>',
        _ => '<',
    };
    let mut extents: String = shape.iter().map(|d| format!("{d}, ")).collect();
    if shape.len() > 1 {
        extents.truncate(extents.len() - 2);
    }
    let mut text =
        format!("{{'descr': '{order}{kind}', 'fortran_order': False, 'shape': ({}), }}", extents.trim_end());
    // Version 1 holds 65,535 bytes of text: a shape of rank 64 takes a fiftieth of that.
    let padding = 63 - (10 + text.len()) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.into_bytes());
    bytes
}
