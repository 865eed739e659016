//! The vector type of machines without a hand-written one: arrays that the compiler may vectorise.
//!
//! It is also the path that shows what every other path should compute, up to the rounding of
//! [`Simd::mul_add`]: a fused multiply-add without the instruction would be a function call, so this one rounds
//! twice.

use half::{bf16, f16};

use super::{Simd, SimdOp};
use crate::isa::Isa;

const LANES: usize = 8;

/// Plain Rust over arrays of eight numbers.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

/// Eight numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct F32x8([f32; LANES]);

#[inline(always)]
fn map(a: F32x8, f: impl Fn(f32) -> f32) -> F32x8 {
    F32x8(a.0.map(f))
}

#[inline(always)]
fn zip(a: F32x8, b: F32x8, f: impl Fn(f32, f32) -> f32) -> F32x8 {
    let mut out = a;
    for i in 0..LANES {
        out.0[i] = f(a.0[i], b.0[i]);
    }
    out
}

#[inline(always)]
fn compare(a: F32x8, b: F32x8, f: impl Fn(f32, f32) -> bool) -> [bool; LANES] {
    std::array::from_fn(|i| f(a.0[i], b.0[i]))
}

/// The number whose upper half a `bf16` is.
#[inline(always)]
fn widen(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// As [`bf16::from_f32`], in a form that the compiler can vectorise.
#[inline(always)]
fn narrow(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let bits = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
    bf16::from_bits((bits >> 16) as u16)
}

/// The nearest `u8`, ties to even; that of NaN is 0.
#[inline(always)]
fn nearest_byte(x: f32) -> u8 {
    let limited = if x > 0.0 { x.min(255.0) } else { 0.0 };
    // Beside a number of this size the unit in the last place is one.
    (limited + 12_582_912.0).to_bits() as u8
}

impl Simd for Portable {
    const ISA: Isa = Isa::Portable;
    const LANES: usize = LANES;
    type F32 = F32x8;
    type Mask = [bool; LANES];
    type Index = [u32; LANES];

    #[inline(never)]
    fn call<O: SimdOp>(self, op: O) -> O::Output {
        op.eval(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F32x8 {
        F32x8([x; LANES])
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> F32x8 {
        // SAFETY: the caller promises LANES readable numbers; the read is unaligned.
        F32x8(unsafe { p.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: F32x8) {
        // SAFETY: the caller promises LANES writable numbers; the write is unaligned.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(v.0) }
    }

    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> F32x8 {
        let mut out = [0.0; LANES];
        let bytes = size_of::<f32>() * n.min(LANES);
        // SAFETY: the caller promises min(n, LANES) readable numbers, of any alignment, and the array holds as many.
        unsafe { std::ptr::copy_nonoverlapping(p.cast::<u8>(), out.as_mut_ptr().cast(), bytes) };
        F32x8(out)
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: F32x8) {
        let bytes = size_of::<f32>() * n.min(LANES);
        // SAFETY: the caller promises min(n, LANES) writable numbers, of any alignment, and the array holds as many.
        unsafe { std::ptr::copy_nonoverlapping(v.0.as_ptr().cast::<u8>(), p.cast(), bytes) };
    }

    #[inline(always)]
    fn splat_bits(self, bits: u32) -> F32x8 {
        F32x8([f32::from_bits(bits); LANES])
    }

    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> F32x8 {
        // SAFETY: the caller promises LANES readable numbers.
        F32x8(unsafe { p.cast::<[u8; LANES]>().read() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn load_u8_partial(self, p: *const u8, n: usize) -> F32x8 {
        let mut out = [0; LANES];
        // SAFETY: the caller promises min(n, LANES) readable numbers, and the array holds as many.
        unsafe { std::ptr::copy_nonoverlapping(p, out.as_mut_ptr(), n.min(LANES)) };
        F32x8(out.map(f32::from))
    }

    #[inline(always)]
    unsafe fn store_u8(self, p: *mut u8, v: F32x8) {
        // SAFETY: the caller promises LANES writable numbers.
        unsafe { p.cast::<[u8; LANES]>().write(v.0.map(nearest_byte)) };
    }

    #[inline(always)]
    unsafe fn store_u8_partial(self, p: *mut u8, n: usize, v: F32x8) {
        let out = v.0.map(nearest_byte);
        // SAFETY: the caller promises min(n, LANES) writable numbers, and the array holds as many.
        unsafe { std::ptr::copy_nonoverlapping(out.as_ptr(), p, n.min(LANES)) };
    }

    #[inline(always)]
    unsafe fn store_low_bytes(self, p: *mut u8, bits: F32x8) {
        // SAFETY: the caller promises LANES writable bytes.
        unsafe { p.cast::<[u8; LANES]>().write(bits.0.map(|bits| bits.to_bits() as u8)) };
    }

    #[inline(always)]
    unsafe fn store_low_bytes_partial(self, p: *mut u8, n: usize, bits: F32x8) {
        let out = bits.0.map(|bits| bits.to_bits() as u8);
        // SAFETY: the caller promises min(n, LANES) writable bytes, and the array holds as many.
        unsafe { std::ptr::copy_nonoverlapping(out.as_ptr(), p, n.min(LANES)) };
    }

    #[inline(always)]
    unsafe fn store_bytes_of_two(self, p: *mut u8, first: F32x8, second: F32x8) {
        // SAFETY: the caller promises twice LANES writable bytes.
        unsafe {
            self.store_low_bytes(p, first);
            self.store_low_bytes(p.add(LANES), second);
        }
    }

    #[inline(always)]
    fn dot_u8(self, a: F32x8, b: F32x8, sum: F32x8) -> F32x8 {
        F32x8(std::array::from_fn(|i| {
            let (a, b) = (a.0[i].to_bits().to_le_bytes(), b.0[i].to_bits().to_le_bytes());
            let products = a.iter().zip(b).map(|(&a, b)| i32::from(a) * i32::from(b as i8));
            f32::from_bits((sum.0[i].to_bits() as i32).wrapping_add(products.sum()) as u32)
        }))
    }

    #[inline(always)]
    fn interleave_bytes(self, a: F32x8, b: F32x8) -> [F32x8; 2] {
        interleave(a, b, 1)
    }

    #[inline(always)]
    fn interleave_byte_pairs(self, a: F32x8, b: F32x8) -> [F32x8; 2] {
        interleave(a, b, 2)
    }

    #[inline(always)]
    fn groups_in_order(self, vectors: [F32x8; 4]) -> [F32x8; 4] {
        let group = |i: usize| &vectors[i % 4].0[i / 4 * 4..][..4];
        std::array::from_fn(|v| F32x8(std::array::from_fn(|i| group(2 * v + i / 4)[i % 4])))
    }

    #[inline(always)]
    fn max_u8(self, a: F32x8, b: F32x8) -> F32x8 {
        zip(a, b, |a, b| {
            let (a, b) = (a.to_bits().to_le_bytes(), b.to_bits().to_le_bytes());
            f32::from_bits(u32::from_le_bytes(std::array::from_fn(|i| a[i].max(b[i]))))
        })
    }

    #[inline(always)]
    fn add_i32(self, a: F32x8, b: F32x8) -> F32x8 {
        zip(a, b, |a, b| f32::from_bits(a.to_bits().wrapping_add(b.to_bits())))
    }

    #[inline(always)]
    fn mul_i32(self, a: F32x8, b: F32x8) -> F32x8 {
        zip(a, b, |a, b| f32::from_bits(a.to_bits().wrapping_mul(b.to_bits())))
    }

    #[inline(always)]
    fn nibbles<const SHIFT: u32>(self, bits: F32x8) -> F32x8 {
        F32x8(bits.0.map(|x| ((x.to_bits() << (28 - SHIFT)) as i32 >> 28) as f32))
    }

    #[inline(always)]
    fn i32_to_f32(self, bits: F32x8) -> F32x8 {
        map(bits, |bits| bits.to_bits() as i32 as f32)
    }

    #[inline(always)]
    fn f32_to_i32(self, v: F32x8) -> F32x8 {
        map(v, |v| f32::from_bits(v.round_ties_even() as i32 as u32))
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> F32x8 {
        // SAFETY: the caller promises LANES readable numbers; the read is unaligned.
        F32x8(unsafe { p.cast::<[bf16; LANES]>().read_unaligned() }.map(widen))
    }

    #[inline(always)]
    unsafe fn load_bf16_partial(self, p: *const bf16, n: usize) -> F32x8 {
        let mut out = [bf16::ZERO; LANES];
        // SAFETY: the caller promises min(n, LANES) readable numbers, and the array holds as many.
        unsafe { std::ptr::copy_nonoverlapping(p, out.as_mut_ptr(), n.min(LANES)) };
        F32x8(out.map(widen))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: F32x8) {
        // SAFETY: the caller promises LANES writable numbers; the write is unaligned.
        unsafe { p.cast::<[bf16; LANES]>().write_unaligned(v.0.map(narrow)) }
    }

    #[inline(always)]
    unsafe fn store_bf16_partial(self, p: *mut bf16, n: usize, v: F32x8) {
        // SAFETY: the caller promises min(n, LANES) writable numbers, and the array holds as many.
        unsafe { std::ptr::copy_nonoverlapping(v.0.map(narrow).as_ptr(), p, n.min(LANES)) };
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> F32x8 {
        // SAFETY: the caller promises LANES readable numbers; the read is unaligned.
        F32x8(unsafe { p.cast::<[f16; LANES]>().read_unaligned() }.map(f16::to_f32))
    }

    #[inline(always)]
    unsafe fn load_f16_partial(self, p: *const f16, n: usize) -> F32x8 {
        let mut out = [f16::ZERO; LANES];
        // SAFETY: the caller promises min(n, LANES) readable numbers, and the array holds as many.
        unsafe { std::ptr::copy_nonoverlapping(p, out.as_mut_ptr(), n.min(LANES)) };
        F32x8(out.map(f16::to_f32))
    }

    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: F32x8) {
        // SAFETY: the caller promises LANES writable numbers; the write is unaligned.
        unsafe { p.cast::<[f16; LANES]>().write_unaligned(v.0.map(f16::from_f32)) }
    }

    #[inline(always)]
    unsafe fn store_f16_partial(self, p: *mut f16, n: usize, v: F32x8) {
        // SAFETY: the caller promises min(n, LANES) writable numbers, and the array holds as many.
        unsafe { std::ptr::copy_nonoverlapping(v.0.map(f16::from_f32).as_ptr(), p, n.min(LANES)) };
    }

    #[inline(always)]
    fn dot_bf16(self, a: F32x8, b: F32x8, sum: F32x8) -> F32x8 {
        let first = |v| map(v, |x| f32::from_bits(x.to_bits() << 16));
        let second = |v| map(v, |x| f32::from_bits(x.to_bits() & 0xffff_0000));
        self.mul_add(second(a), second(b), self.mul_add(first(a), first(b), sum))
    }

    #[inline(always)]
    fn add(self, a: F32x8, b: F32x8) -> F32x8 {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: F32x8, b: F32x8) -> F32x8 {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: F32x8, b: F32x8) -> F32x8 {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: F32x8, b: F32x8) -> F32x8 {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, a: F32x8, b: F32x8, c: F32x8) -> F32x8 {
        zip(zip(a, b, |a, b| a * b), c, |product, c| product + c)
    }

    #[inline(always)]
    fn min(self, a: F32x8, b: F32x8) -> F32x8 {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, a: F32x8, b: F32x8) -> F32x8 {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: F32x8) -> F32x8 {
        map(a, f32::abs)
    }

    #[inline(always)]
    fn neg(self, a: F32x8) -> F32x8 {
        map(a, |a| -a)
    }

    #[inline(always)]
    fn sqrt(self, a: F32x8) -> F32x8 {
        map(a, f32::sqrt)
    }

    #[inline(always)]
    fn floor(self, a: F32x8) -> F32x8 {
        map(a, f32::floor)
    }

    #[inline(always)]
    fn round(self, a: F32x8) -> F32x8 {
        map(a, f32::round_ties_even)
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: F32x8, sign: F32x8) -> F32x8 {
        zip(magnitude, sign, f32::copysign)
    }

    #[inline(always)]
    fn lt(self, a: F32x8, b: F32x8) -> [bool; LANES] {
        compare(a, b, |a, b| a < b)
    }

    #[inline(always)]
    fn le(self, a: F32x8, b: F32x8) -> [bool; LANES] {
        compare(a, b, |a, b| a <= b)
    }

    #[inline(always)]
    fn eq(self, a: F32x8, b: F32x8) -> [bool; LANES] {
        compare(a, b, |a, b| a == b)
    }

    #[inline(always)]
    fn select(self, mask: [bool; LANES], a: F32x8, b: F32x8) -> F32x8 {
        F32x8(std::array::from_fn(|i| if mask[i] { a.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    fn any(self, mask: [bool; LANES]) -> bool {
        mask.into_iter().any(|lane| lane)
    }

    #[inline(always)]
    fn scale(self, x: F32x8, n: F32x8) -> F32x8 {
        let power = |n: f32| f32::from_bits(((n as i32 + 127) << 23) as u32);
        zip(x, n, |x, n| {
            let half = (n * 0.5).floor();
            x * power(half) * power(n - half)
        })
    }

    #[inline(always)]
    fn add_exponent(self, x: F32x8, shifted: F32x8) -> F32x8 {
        zip(x, shifted, |x, shifted| f32::from_bits(x.to_bits().wrapping_add(shifted.to_bits() << 23)))
    }

    #[inline(always)]
    fn split(self, x: F32x8) -> (F32x8, F32x8) {
        let mantissa = map(x, |x| f32::from_bits(x.to_bits() & 0x007f_ffff | 0x3f80_0000));
        let exponent = map(x, |x| ((x.to_bits() >> 23) as i32 - 127) as f32);
        (mantissa, exponent)
    }

    #[inline(always)]
    fn reduce_add(self, v: F32x8) -> f32 {
        let v = v.0;
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }

    #[inline(always)]
    fn reduce_max(self, v: F32x8) -> f32 {
        v.0.into_iter().fold(f32::NEG_INFINITY, |best, x| if x > best { x } else { best })
    }

    #[inline(always)]
    unsafe fn load_index(self, p: *const u32) -> [u32; LANES] {
        // SAFETY: the caller promises LANES readable numbers; the read is unaligned.
        unsafe { p.cast::<[u32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    fn swizzle(self, v: F32x8, index: [u32; LANES]) -> F32x8 {
        F32x8(std::array::from_fn(|i| v.0[index[i] as usize % LANES]))
    }
}

/// Runs of `run` bytes of `a` and `b` in turns, within each 16 bytes: of their lower halves, and of their upper ones.
fn interleave(a: F32x8, b: F32x8, run: usize) -> [F32x8; 2] {
    let byte = |v: &F32x8, i: usize| v.0[i / 4].to_bits().to_le_bytes()[i % 4];
    [0, 8].map(|half| {
        F32x8(std::array::from_fn(|lane| {
            f32::from_bits(u32::from_le_bytes(std::array::from_fn(|i| {
                let at = lane * 4 + i;
                let (piece, inside) = (at % 16 / run, at % run);
                let from = at / 16 * 16 + half + piece / 2 * run + inside;
                byte(if piece % 2 == 0 { &a } else { &b }, from)
            })))
        }))
    })
}
