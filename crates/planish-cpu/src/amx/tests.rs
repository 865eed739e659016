//! Single instructions, as the assembler encodes them, against plain loops: on the machine's tile unit, or on the
//! emulated one. What only the emulation has (encodings taken apart, shapes refused) is tested by itself.

use std::arch::asm;

use super::decode::{Memory, Operation, decode};
use super::instructions::{Shapes, Tiles};
use super::unit::{Factors, Refused, Unit};
use super::*;

/// Whether there is a unit to test; says why not.
fn ready() -> bool {
    emulate().inspect_err(|reason| eprintln!("skipped: {reason}")).is_ok()
}

/// Words that look random.
fn words(seed: u32, count: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..count).map(next).collect()
}

/// A configured unit whose sums (tile 0) are `rows` × `columns`, with tiles 1 and 2 for operands of this depth.
///
/// # Safety
/// As for [`Tiles::configure`].
unsafe fn configure(rows: usize, depth: usize, columns: usize) -> Tiles {
    let operands = [(rows, columns), (rows, depth), (depth, columns)];
    let shapes = std::array::from_fn(|tile| operands.get(tile).copied().unwrap_or((rows, depth)));
    // SAFETY: promised by the caller.
    unsafe { Tiles::configure(&Shapes::new(shapes)) }
}

/// Shapes of products: full ones, single rows, words and columns, and odd ones.
const SHAPES: [(usize, usize, usize); 6] =
    [(16, 16, 16), (1, 16, 16), (16, 1, 16), (16, 16, 1), (13, 5, 11), (1, 1, 1)];

/// Multiplies dense operands by one instruction, which `multiply` runs on tiles 0 (sums), 1 and 2.
fn product(
    (rows, depth, columns): (usize, usize, usize),
    [sums, left, right]: [&[u32]; 3],
    multiply: impl Fn(&Tiles),
) -> Vec<u32> {
    let mut out = sums.to_vec();
    // SAFETY: the callers checked that the unit is there; the slices hold as many words as the shapes.
    unsafe {
        let unit = configure(rows, depth, columns);
        unit.load::<0>(sums.as_ptr(), 4 * columns);
        unit.load::<1>(left.as_ptr(), 4 * depth);
        unit.load::<2>(right.as_ptr(), 4 * columns);
        multiply(&unit);
        unit.store::<0>(out.as_mut_ptr(), 4 * columns);
    }
    out
}

#[test]
fn pairs_of_bf16_are_added_up_as_documented() {
    if !ready() {
        return;
    }
    let flush = |x: f32| if x.is_subnormal() { 0.0_f32.copysign(x) } else { x };
    let halves = |word: u32| [word << 16, word & 0xffff_0000].map(|bits| flush(f32::from_bits(bits)));
    // Magnitudes around one, of which sums round; all bit patterns, where infinities, NaN and denormals are.
    for (mask, exponent) in [(0x81ff_81ff_u32, 0x3e00_3e00_u32), (!0, 0)] {
        for (seed, (rows, depth, columns)) in (1..).step_by(3).zip(SHAPES) {
            let draw = |seed, count| {
                words(seed, count).iter().map(|word| word & mask | exponent).collect::<Vec<_>>()
            };
            let (left, right) = (draw(seed, rows * depth), draw(seed + 1, depth * columns));
            let sums = draw(seed + 2, rows * columns);
            // SAFETY: `product` configured the tiles for it.
            let multiply = |unit: &Tiles| unsafe { unit.multiply::<0, 1, 2>(TileProduct::Bf16) };
            let out = product((rows, depth, columns), [&sums, &left, &right], multiply);
            for (i, &got) in out.iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let mut parts = [0.0_f32; 2];
                for k in 0..depth {
                    let (l, r) = (halves(left[row * depth + k]), halves(right[k * columns + column]));
                    for (part, (l, r)) in parts.iter_mut().zip(l.into_iter().zip(r)) {
                        *part = flush(l.mul_add(r, *part));
                    }
                }
                let want = flush(flush(f32::from_bits(sums[i])) + flush(parts[0] + parts[1]));
                let got = f32::from_bits(got);
                let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                assert!(same, "{rows}×{depth}×{columns}: ({row}, {column}): {got:e} instead of {want:e}");
            }
        }
    }
}

#[test]
fn bytes_of_every_signedness_are_multiplied_exactly() {
    if !ready() {
        return;
    }
    macro_rules! instruction {
        ($name:literal) => {
            (
                $name,
                (|unit: &Tiles| {
                    let _configured = unit;
                    // SAFETY: `product` configured the tiles for it.
                    unsafe {
                        asm!(concat!($name, " tmm0, tmm1, tmm2"), options(nomem, nostack, preserves_flags))
                    };
                }) as fn(&Tiles),
            )
        };
    }
    // SAFETY: as above.
    let own =
        ("tdpbusd", (|unit: &Tiles| unsafe { unit.multiply::<0, 1, 2>(TileProduct::U8I8) }) as fn(&Tiles));
    let instructions = [
        instruction!("tdpbssd"),
        instruction!("tdpbsud"),
        instruction!("tdpbusd"),
        instruction!("tdpbuud"),
        own,
    ];
    for (name, multiply) in instructions {
        let number =
            |byte: u8, signed: u8| if signed == b's' { i64::from(byte as i8) } else { i64::from(byte) };
        let [left_signed, right_signed] = [name.as_bytes()[4], name.as_bytes()[5]];
        for (seed, (rows, depth, columns)) in (1..).step_by(3).zip(SHAPES) {
            let (left, right) = (words(seed, rows * depth), words(seed + 1, depth * columns));
            let sums = words(seed + 2, rows * columns);
            let out = product((rows, depth, columns), [&sums, &left, &right], multiply);
            for (i, &got) in out.iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let mut want = i64::from(sums[i] as i32);
                for k in 0..depth {
                    let (l, r) =
                        (left[row * depth + k].to_le_bytes(), right[k * columns + column].to_le_bytes());
                    let products =
                        l.iter().zip(r).map(|(&l, r)| number(l, left_signed) * number(r, right_signed));
                    want += products.sum::<i64>();
                }
                assert_eq!(got, want as u32, "{name}: {rows}×{depth}×{columns}: ({row}, {column})");
            }
        }
    }
}

#[test]
fn every_kind_of_address_is_found() {
    if !ready() {
        return;
    }
    let (rows, columns) = (16, 16);
    let data = words(5, 4096);
    macro_rules! address {
        ($load:literal, $tile:literal, $text:literal, $base:tt, $index:tt, $scale:literal, $displacement:literal) => {{
            let mut out = vec![0u32; 4096];
            let step = 96 / $scale;
            // What the displacement adds is taken off before.
            let displacement: isize = $displacement;
            let from = data.as_ptr().cast::<u8>().wrapping_offset(-displacement);
            let to = out.as_mut_ptr().cast::<u8>().wrapping_offset(-displacement);
            // SAFETY: the unit is there; 16 rows of 16 words, 96 bytes apart, are inside of what the addresses point to.
            unsafe {
                let unit = configure(rows, columns, columns);
                asm!(concat!($load, " ", $tile, ", [", $text, "]"), in($base) from, in($index) step,
                    options(readonly, nostack));
                asm!(concat!("tilestored [", $text, "], ", $tile), in($base) to, in($index) step, options(nostack));
                drop(unit);
            }
            for (i, &word) in out.iter().enumerate() {
                let inside = i % 24 < columns && i / 24 < rows;
                assert_eq!(word, if inside { data[i] } else { 0 }, "{}: word {i}", $text);
            }
        }};
    }
    address!("tileloadd", "tmm0", "rax + rcx", "rax", "rcx", 1, 0);
    address!("tileloadd", "tmm7", "rdx + rsi*2", "rdx", "rsi", 2, 0);
    address!("tileloaddt1", "tmm1", "rdi + r8*4 + 64", "rdi", "r8", 4, 64);
    address!("tileloadd", "tmm2", "r9 + r10*8 - 128", "r9", "r10", 8, -128);
    address!("tileloaddt1", "tmm3", "r11 + r12 + 4096", "r11", "r12", 1, 4096);
    address!("tileloadd", "tmm4", "r12 + r13*2 - 70000", "r12", "r13", 2, -70000);
    address!("tileloadd", "tmm5", "r13 + r14*4", "r13", "r14", 4, 0);
    address!("tileloadd", "tmm6", "r14 + r15 + 127", "r14", "r15", 1, 127);
    address!("tileloadd", "tmm0", "r15 + rdi*8", "r15", "rdi", 8, 0);
    address!("tileloadd", "tmm0", "r8 + rax*8", "r8", "rax", 8, 0);
    address!("tileloadd", "tmm0", "rcx + rdx*8 + 8", "rcx", "rdx", 8, 8);
    address!("tileloadd", "tmm0", "rsi + r9*8 + 8", "rsi", "r9", 8, 8);
    address!("tileloadd", "tmm0", "r10 + r11*8 + 8", "r10", "r11", 8, 8);
}

#[test]
fn loads_and_shapes_leave_zeros_behind() {
    if !ready() {
        return;
    }
    let data = words(9, 256);
    // SAFETY: the unit is there; the slices hold what the shapes say.
    unsafe {
        let unit = configure(16, 16, 16);
        unit.load::<0>(data.as_ptr(), 64);
        unit.zero::<0>();
        let mut out = vec![1u32; 256];
        unit.store::<0>(out.as_mut_ptr(), 64);
        assert_eq!(out, [0; 256]);
        unit.load::<0>(data.as_ptr(), 0);
        unit.store::<0>(out.as_mut_ptr(), 64);
        assert!(out.chunks(16).all(|row| row == &data[..16]));
        let mut bytes = [0xffu8; 64];
        asm!("sttilecfg [{}]", in(reg) &raw mut bytes, options(nostack));
        assert_eq!((bytes[0], &bytes[16..18], bytes[48]), (1, &[64, 0][..], 16));
        // Configuring makes all tiles zero.
        drop(unit);
        let unit = configure(3, 16, 2);
        let mut out = vec![1u32; 6];
        unit.store::<0>(out.as_mut_ptr(), 8);
        assert_eq!(out, [0; 6]);
        drop(unit);
        asm!("sttilecfg [{}]", in(reg) &raw mut bytes, options(nostack));
        assert_eq!(bytes, [0; 64]);
    }
}

#[test]
fn every_thread_has_its_own_tiles() {
    if !ready() {
        return;
    }
    let meet = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let meet = &meet;
            scope.spawn(move || {
                let data = words(thread + 1, 256);
                let mut out = vec![0; 256];
                // SAFETY: the unit is there; the slices hold what the shapes say.
                unsafe {
                    let unit = configure(16, 16, 16);
                    unit.load::<3>(data.as_ptr(), 64);
                    meet.wait();
                    unit.store::<3>(out.as_mut_ptr(), 64);
                }
                assert_eq!(out, data);
            });
        }
    });
}

#[test]
fn other_invalid_instructions_end_the_process_as_before() {
    use std::os::unix::process::ExitStatusExt;
    const CHILD: &str = "PLANISH_TEST_INVALID_INSTRUCTION";
    if std::env::var_os(CHILD).is_some() {
        assert!(ready());
        // SAFETY: does not return.
        unsafe { asm!("ud2", options(noreturn)) };
    }
    if !ready() {
        return;
    }
    let name = "amx::tests::other_invalid_instructions_end_the_process_as_before";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let status = child.args(["--exact", name]).env(CHILD, "1").output().unwrap().status;
    assert_eq!(status.signal(), Some(libc::SIGILL));
}

#[test]
fn encodings_are_taken_apart() {
    let memory =
        |base, index, scale, displacement| Memory { base, index, scale, displacement, from_next: false };
    let cases: [(&[u8], Operation); 8] = [
        (&[0xc4, 0xe2, 0x78, 0x49, 0xc0], Operation::Release),
        (&[0xc4, 0xe2, 0x7b, 0x49, 0xf8], Operation::Zero(7)),
        (&[0xc4, 0xe2, 0x78, 0x49, 0x44, 0x24, 0x40], Operation::Configure(memory(Some(4), None, 0, 64))),
        (&[0xc4, 0xe2, 0x79, 0x49, 0x45, 0x00], Operation::StoreConfiguration(memory(Some(5), None, 0, 0))),
        // r13 + r12 * 8, without and with a base.
        (&[0xc4, 0x82, 0x7b, 0x4b, 0x54, 0xe5, 0x00], Operation::Load(2, memory(Some(13), Some(12), 3, 0))),
        (
            &[0xc4, 0xa2, 0x7a, 0x4b, 0x0c, 0xe5, 1, 0, 0, 0],
            Operation::Store(1, memory(None, Some(12), 3, 1)),
        ),
        (&[0xc4, 0xe2, 0x79, 0x4b, 0x04, 0x23], Operation::Load(0, memory(Some(3), None, 0, 0))),
        (
            &[0xc4, 0xe2, 0x42, 0x5c, 0xce],
            Operation::Multiply { factors: Factors::Bf16, sums: 1, left: 6, right: 7 },
        ),
    ];
    for (bytes, operation) in cases {
        assert_eq!(decode(bytes), Some((operation, bytes.len())), "{bytes:x?}");
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), None, "{bytes:x?} cut to {len}");
        }
    }
    let relative = Memory { base: None, index: None, scale: 0, displacement: -8, from_next: true };
    let bytes = [0xc4, 0xe2, 0x78, 0x49, 0x05, 0xf8, 0xff, 0xff, 0xff];
    assert_eq!(decode(&bytes), Some((Operation::Configure(relative), 9)));
    // W = 1, L = 1, tile 8 as the left and as the right operand, rows without a SIB byte, another opcode.
    for bytes in [
        [0xc4, 0xe2, 0xf8, 0x49, 0xc0],
        [0xc4, 0xe2, 0x7c, 0x49, 0xc0],
        [0xc4, 0xc2, 0x42, 0x5c, 0xce],
        [0xc4, 0xe2, 0x3a, 0x5c, 0xce],
        [0xc4, 0xe2, 0x7b, 0x4b, 0x00],
        [0xc4, 0xe2, 0x7b, 0x4a, 0x00],
    ] {
        assert_eq!(decode(&bytes), None, "{bytes:x?}");
    }
}

#[test]
fn shapes_that_the_unit_refuses_are_refused() {
    let mut unit = Unit::new();
    let configuration = |changes: &[(usize, u8)]| {
        let mut bytes = [0; 64];
        // Tile 0: 2 × 3 words, tile 1: 2 × 4, tile 2: 4 × 3, tile 3: one row of 6 bytes.
        for &(at, byte) in [(0, 1), (16, 12), (48, 2), (18, 16), (49, 2), (20, 12), (50, 4), (22, 6), (51, 1)]
            .iter()
            .chain(changes)
        {
            bytes[at] = byte;
        }
        bytes
    };
    for wrong in [(0, 2), (1, 1), (15, 1), (16, 65), (17, 1), (33, 1), (48, 17), (48, 0), (16, 0), (56, 1)] {
        assert_eq!(unit.configure(&configuration(&[wrong])), Err(Refused), "{wrong:?}");
    }
    assert_eq!(unit.zero(0), Err(Refused));
    let good = configuration(&[]);
    unit.configure(&good).unwrap();
    assert_eq!(unit.configuration(), good);
    assert_eq!(unit.multiply(Factors::Bf16, 0, 1, 2), Ok(()));
    for [sums, left, right] in
        [[0, 1, 1], [0, 0, 2], [2, 1, 2], [0, 2, 1], [1, 0, 2], [0, 1, 3], [0, 1, 4], [0, 1, 8]]
    {
        assert_eq!(unit.multiply(Factors::Bf16, sums, left, right), Err(Refused), "{sums} {left} {right}");
    }
    assert_eq!([unit.zero(3), unit.zero(4), unit.zero(8)], [Err(Refused); 3]);
    unit.configure(&[0; 64]).unwrap();
    assert_eq!((unit.zero(0), unit.configuration()), (Err(Refused), [0; 64]));
}
