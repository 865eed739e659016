//! What the instructions of the tile unit compute: their operations in the Intel SDM, volume 2, in plain loops.
//!
//! Runs in the handler of a signal: it allocates nothing, locks nothing and panics nowhere.

use super::{TILE_ROWS, TILE_WORDS};

/// How many tiles palette 1 has.
const TILES: usize = 8;

/// The bytes of a row at most.
const ROW_BYTES: usize = 4 * TILE_WORDS;

/// The bytes of a configuration in memory.
pub(super) const CONFIGURATION: usize = 64;

/// The processor would not do this; it is an invalid opcode or a protection fault there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// One row of a tile. What is beyond its configured length is zero.
type Row = [u32; TILE_WORDS];

/// The shape of a tile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shape {
    rows: usize,
    words: usize,
}

/// What a product multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Factors {
    /// Pairs of `bf16`.
    Bf16,
    /// Four bytes, each side signed or not.
    Bytes { left_signed: bool, right_signed: bool },
}

/// The state of the unit of a thread.
#[derive(Debug)]
pub(super) struct Unit {
    /// 0 where nothing is configured, else 1.
    palette: u8,
    shapes: [Shape; TILES],
    /// The bytes of a row as configured: a number that is no multiple of 4 can be configured, but not used.
    row_bytes: [u16; TILES],
    tiles: [[Row; TILE_ROWS]; TILES],
}

impl Unit {
    /// The unit as a thread finds it.
    pub(super) const fn new() -> Unit {
        Unit {
            palette: 0,
            shapes: [Shape { rows: 0, words: 0 }; TILES],
            row_bytes: [0; TILES],
            tiles: [[[0; TILE_WORDS]; TILE_ROWS]; TILES],
        }
    }

    /// `TILERELEASE`
    pub(super) fn release(&mut self) {
        *self = Unit::new();
    }

    /// `LDTILECFG`. A start row, which only an interrupted load leaves, is refused.
    pub(super) fn configure(&mut self, bytes: &[u8; CONFIGURATION]) -> Result<(), Refused> {
        let palette = bytes[0];
        if palette == 0 {
            self.release();
            return Ok(());
        }
        let (reserved, unused_bytes, unused_rows) = (&bytes[1..16], &bytes[32..48], &bytes[56..64]);
        if palette != 1
            || [reserved, unused_bytes, unused_rows].iter().any(|part| part.iter().any(|&b| b != 0))
        {
            return Err(Refused);
        }
        let mut shapes = [Shape::default(); TILES];
        let mut row_bytes = [0; TILES];
        for tile in 0..TILES {
            let length = u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]);
            let rows = usize::from(bytes[48 + tile]);
            if usize::from(length) > ROW_BYTES || rows > TILE_ROWS || (rows == 0) != (length == 0) {
                return Err(Refused);
            }
            row_bytes[tile] = length;
            shapes[tile] = Shape { rows, words: usize::from(length) / 4 };
        }
        *self = Unit { palette, shapes, row_bytes, ..Unit::new() };
        Ok(())
    }

    /// `STTILECFG`
    pub(super) fn configuration(&self) -> [u8; CONFIGURATION] {
        let mut bytes = [0; CONFIGURATION];
        if self.palette != 0 {
            bytes[0] = self.palette;
            for tile in 0..TILES {
                [bytes[16 + 2 * tile], bytes[17 + 2 * tile]] = self.row_bytes[tile].to_le_bytes();
                bytes[48 + tile] = self.shapes[tile].rows as u8;
            }
        }
        bytes
    }

    /// The shape of a tile that can be used.
    fn shape(&self, tile: usize) -> Result<Shape, Refused> {
        match self.shapes.get(tile) {
            Some(shape) if shape.rows > 0 && self.row_bytes[tile].is_multiple_of(4) => Ok(*shape),
            _ => Err(Refused),
        }
    }

    /// `TILEZERO`
    pub(super) fn zero(&mut self, tile: usize) -> Result<(), Refused> {
        self.shape(tile)?;
        self.tiles[tile] = [[0; TILE_WORDS]; TILE_ROWS];
        Ok(())
    }

    /// `TILELOADD` and `TILELOADDT1`: rows `step` bytes apart, which may be negative.
    ///
    /// # Safety
    /// The rows of the tile are readable.
    pub(super) unsafe fn load(&mut self, tile: usize, address: u64, step: u64) -> Result<(), Refused> {
        let shape = self.shape(tile)?;
        let rows = &mut self.tiles[tile];
        *rows = [[0; TILE_WORDS]; TILE_ROWS];
        for (i, row) in rows.iter_mut().enumerate().take(shape.rows) {
            let from = address.wrapping_add(step.wrapping_mul(i as u64)) as *const u8;
            // SAFETY: promised by the caller; a row holds that many words.
            unsafe { std::ptr::copy_nonoverlapping(from, row.as_mut_ptr().cast(), 4 * shape.words) };
        }
        Ok(())
    }

    /// `TILESTORED`
    ///
    /// # Safety
    /// The rows of the tile are writable.
    pub(super) unsafe fn store(&self, tile: usize, address: u64, step: u64) -> Result<(), Refused> {
        let shape = self.shape(tile)?;
        for (i, row) in self.tiles[tile].iter().enumerate().take(shape.rows) {
            let to = address.wrapping_add(step.wrapping_mul(i as u64)) as *mut u8;
            // SAFETY: promised by the caller; a row holds that many words.
            unsafe { std::ptr::copy_nonoverlapping(row.as_ptr().cast(), to, 4 * shape.words) };
        }
        Ok(())
    }

    /// `TDPBF16PS`, `TDPBSSD`, `TDPBSUD`, `TDPBUSD` and `TDPBUUD`.
    pub(super) fn multiply(
        &mut self,
        factors: Factors,
        sums: usize,
        left: usize,
        right: usize,
    ) -> Result<(), Refused> {
        if sums == left || sums == right || left == right {
            return Err(Refused);
        }
        let (m, k, n) = (self.shape(sums)?, self.shape(left)?, self.shape(right)?);
        if (m.rows, m.words, k.words) != (k.rows, n.words, n.rows) {
            return Err(Refused);
        }
        let (height, depth, width) = (m.rows, k.words, m.words);
        let (lefts, rights) = (self.tiles[left], self.tiles[right]);
        let mut result = [[0; TILE_WORDS]; TILE_ROWS];
        for ((out, sums), left) in result.iter_mut().zip(&self.tiles[sums]).zip(&lefts).take(height) {
            *out = *sums;
            match factors {
                Factors::Bf16 => add_pairs(&mut out[..width], &left[..depth], &rights),
                Factors::Bytes { left_signed, right_signed } => {
                    for (&left, right) in left[..depth].iter().zip(&rights) {
                        for (sum, &right) in out[..width].iter_mut().zip(right) {
                            *sum = sum.wrapping_add(dot_bytes(left, left_signed, right, right_signed));
                        }
                    }
                }
            }
        }
        self.tiles[sums] = result;
        Ok(())
    }
}

/// The sum of the products of four bytes.
fn dot_bytes(left: u32, left_signed: bool, right: u32, right_signed: bool) -> u32 {
    let number = |byte: u8, signed: bool| if signed { i32::from(byte as i8) } else { i32::from(byte) };
    let pairs = left.to_le_bytes().into_iter().zip(right.to_le_bytes());
    pairs.map(|(l, r)| number(l, left_signed) * number(r, right_signed)).sum::<i32>() as u32
}

/// A number with what is below the smallest normal one made zero, of its sign.
fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(x) } else { x }
}

/// A `bf16` in the lower half of a word.
fn bf16(word: u32) -> f32 {
    flush(f32::from_bits(word << 16))
}

/// One row of `TDPBF16PS`: the products of first and of second numbers are added up by themselves, the two sums to each
/// other, and that to what was there. Each step is rounded once, to nearest, ties to even, and flushed.
fn add_pairs(sums: &mut [u32], left: &[u32], right: &[Row; TILE_ROWS]) {
    // The sum of an `f32` and a product of two `bf16`, which has 16 bits, rounded to the 53 bits of an `f64` and then to
    // the 24 of an `f32`, is what rounding it once would give (Figueroa, *When is double rounding innocuous?*, 1995).
    let step =
        |sum: &mut f32, l: f32, r: f32| *sum = flush((f64::from(*sum) + f64::from(l) * f64::from(r)) as f32);
    let mut parts = [[0.0_f32; TILE_WORDS]; 2];
    for (&left, right) in left.iter().zip(right) {
        let [first, second] = &mut parts;
        for ((first, second), &right) in first.iter_mut().zip(second).zip(right) {
            step(first, bf16(left), bf16(right));
            step(second, bf16(left >> 16), bf16(right >> 16));
        }
    }
    let [first, second] = parts;
    for ((sum, first), second) in sums.iter_mut().zip(first).zip(second) {
        *sum = flush(flush(f32::from_bits(*sum)) + flush(first + second)).to_bits();
    }
}
