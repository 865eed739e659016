//! The encodings of the instructions of the tile unit (Intel SDM, volume 2): a VEX prefix of three bytes, an opcode, a ModRM
//! byte, and for memory a SIB byte and a displacement.

use super::unit::Factors;

/// The longest an instruction can be.
pub(super) const LONGEST: usize = 15;

/// Where an operand in memory is, in terms of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// The number of a register; none stands for zero.
    pub base: Option<u8>,
    /// The same.
    pub index: Option<u8>,
    /// What the index is shifted left by.
    pub scale: u8,
    pub displacement: i32,
    /// Whether the address of the next instruction is added.
    pub from_next: bool,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Configure(Memory),
    StoreConfiguration(Memory),
    Release,
    Zero(u8),
    /// The index is the step from row to row.
    Load(u8, Memory),
    Store(u8, Memory),
    Multiply {
        factors: Factors,
        sums: u8,
        left: u8,
        right: u8,
    },
}

/// The instruction at the start of these bytes and its length; `None` for all others than those of the unit.
pub(super) fn decode(bytes: &[u8]) -> Option<(Operation, usize)> {
    let &[0xc4, map, prefix, opcode, modrm, ref rest @ ..] = bytes else { return None };
    // Map 2 (0F 38), W = 0, vectors of 128 bits.
    if map & 0x1f != 2 || prefix & 0x84 != 0 {
        return None;
    }
    // The extensions of register numbers are kept inverted.
    let [extend_reg, extend_index, extend_base] = [0x80, 0x40, 0x20].map(|bit| u8::from(map & bit == 0) << 3);
    let vvvv = !(prefix >> 3) & 15;
    let (mode, reg, rm) = (modrm >> 6, modrm >> 3 & 7 | extend_reg, modrm & 7);
    // There are eight tiles; a register number is a tile's or an extension of the opcode.
    if reg > 7 {
        return None;
    }
    let registers = mode == 3;
    let memory = || memory(mode, rm, extend_index, extend_base, rest);
    let simple = |operation| Some((operation, 5));
    // 0: none, 1: 66, 2: F3, 3: F2.
    match (opcode, prefix & 3) {
        (0x49, 0) if registers => (modrm == 0xc0 && vvvv == 0).then_some((Operation::Release, 5)),
        (0x49, 3) if registers && rm == 0 && vvvv == 0 => simple(Operation::Zero(reg)),
        (0x49, which @ (0 | 1)) if !registers && reg == 0 && vvvv == 0 => {
            let (memory, length) = memory()?;
            let operation =
                if which == 0 { Operation::Configure(memory) } else { Operation::StoreConfiguration(memory) };
            Some((operation, 5 + length))
        }
        // Rows need a SIB byte, which says how far apart they are.
        (0x4b, which @ 1..=3) if !registers && rm == 4 && vvvv == 0 => {
            let (memory, length) = memory()?;
            let operation =
                if which == 2 { Operation::Store(reg, memory) } else { Operation::Load(reg, memory) };
            Some((operation, 5 + length))
        }
        (0x5c | 0x5e, which) if registers && extend_base == 0 && vvvv < 8 => {
            let factors = match (opcode, which) {
                (0x5c, 2) => Factors::Bf16,
                (0x5c, _) => return None,
                _ => Factors::Bytes { left_signed: which >= 2, right_signed: which % 2 == 1 },
            };
            simple(Operation::Multiply { factors, sums: reg, left: rm, right: vvvv })
        }
        _ => None,
    }
}

/// An operand in memory, and the length of what describes it behind the ModRM byte.
fn memory(mode: u8, rm: u8, extend_index: u8, extend_base: u8, rest: &[u8]) -> Option<(Memory, usize)> {
    let (mut base, mut index, mut scale, mut from_next) = (Some(rm | extend_base), None, 0, false);
    let (mut length, mut long) = (0, mode == 2);
    if rm == 4 {
        let &sib = rest.first()?;
        length = 1;
        scale = sib >> 6;
        // Without an extension, number 4 is no index.
        index = Some(sib >> 3 & 7 | extend_index).filter(|&index| index != 4);
        base = Some(sib & 7 | extend_base);
        if sib & 7 == 5 && mode == 0 {
            (base, long) = (None, true);
        }
    } else if rm == 5 && mode == 0 {
        (base, long, from_next) = (None, true, true);
    }
    let displacement = if long {
        let bytes = rest.get(length..length + 4)?;
        length += 4;
        i32::from_le_bytes(bytes.try_into().ok()?)
    } else if mode == 1 {
        let &byte = rest.get(length)?;
        length += 1;
        i32::from(byte as i8)
    } else {
        0
    };
    Some((Memory { base, index, scale, displacement, from_next }, length))
}
