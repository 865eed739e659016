//! Vectors of `f32`, written against once and compiled for each instruction set.
//!
//! A value of a type that implements [`Simd`] is a proof that the machine has the instructions: it can only be
//! made where they were detected. Code generic over `S: Simd` must be `#[inline(always)]` all the way from
//! [`SimdOp::eval`] down, because the instructions are only switched on in the function that [`dispatch`] wraps
//! around it; what is not inlined there would be compiled for the baseline machine and call every intrinsic.

pub mod math;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

/// Does `$body` for each row `$i` of a tile of `$rows` rows (a constant, at most 16), written out.
///
/// Sums stay in registers only where every index into them is a constant. The compiler writes out loops of few and
/// short rounds by itself, but not fourteen rounds of an epilogue; four it does.
macro_rules! each_row {
    ($i:ident of $rows:ident $body:block) => {
        const { assert!($rows <= 16) };
        each_row!(@blocks [0 4 8 12] $i $rows $body)
    };
    (@blocks [$first:literal $($rest:literal)*] $i:ident $rows:ident $body:block) => {
        #[allow(clippy::needless_range_loop, clippy::reversed_empty_ranges)]
        for $i in $first..if $rows < $first + 4 { $rows } else { $first + 4 } $body
        each_row!(@blocks [$($rest)*] $i $rows $body)
    };
    (@blocks [] $i:ident $rows:ident $body:block) => {};
}
pub(crate) use each_row;

use crate::element::ElementType;
use crate::isa::Isa;
use half::{bf16, f16};

/// The vector instructions of one instruction set. See the module for how to use it.
///
/// Comparisons are false where an operand is NaN. Every method is one or a few instructions.
pub trait Simd: Copy + Send + Sync + 'static {
    /// The instruction set this is.
    const ISA: Isa;
    /// How many numbers a vector holds: 8 or 16.
    const LANES: usize;
    /// A vector of [`Simd::LANES`] numbers.
    type F32: Copy;
    /// One truth value per lane.
    type Mask: Copy;
    /// A choice of a source lane for every lane, see [`Simd::swizzle`].
    type Index: Copy;

    /// Runs `op` in a function of its own with the instructions switched on. Loops that need all registers are
    /// kept apart this way, and long bodies that many loops share are compiled once.
    fn call<O: SimdOp>(self, op: O) -> O::Output;

    /// The same number in every lane.
    fn splat(self, x: f32) -> Self::F32;

    /// Zero in every lane.
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }

    /// Reads a vector; the address needs no alignment, not even that of a number.
    ///
    /// # Safety
    /// `LANES` numbers must be readable at `p`.
    unsafe fn load(self, p: *const f32) -> Self::F32;

    /// Writes a vector; the address needs no alignment, not even that of a number.
    ///
    /// # Safety
    /// `LANES` numbers must be writable at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::F32);

    /// Reads `n` numbers into the first lanes (all of them where `n >= LANES`); the others become zero.
    ///
    /// # Safety
    /// `min(n, LANES)` numbers must be readable at `p`; nothing behind them is touched.
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::F32;

    /// Writes the first `n` lanes (all of them where `n >= LANES`).
    ///
    /// # Safety
    /// `min(n, LANES)` numbers must be writable at `p`; nothing behind them is touched.
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: Self::F32);

    /// The same 32 bits in every lane, whatever they mean.
    fn splat_bits(self, bits: u32) -> Self::F32;

    /// Reads a vector of `bf16` as `f32`; the address needs no more alignment than its element.
    ///
    /// # Safety
    /// `LANES` numbers must be readable at `p`.
    unsafe fn load_bf16(self, p: *const bf16) -> Self::F32;

    /// [`Simd::load_partial`] of `bf16`.
    ///
    /// # Safety
    /// `min(n, LANES)` numbers must be readable at `p`; nothing behind them is touched.
    unsafe fn load_bf16_partial(self, p: *const bf16, n: usize) -> Self::F32;

    /// Rounds to `bf16` and writes, as [`bf16::from_f32`] does: to nearest, ties to even, NaN to a quiet NaN. With the
    /// instruction for it, numbers below the smallest normal one become zeros of their sign.
    ///
    /// # Safety
    /// `LANES` numbers must be writable at `p`.
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::F32);

    /// [`Simd::store_bf16`] of the first `n` lanes (all of them where `n >= LANES`).
    ///
    /// # Safety
    /// `min(n, LANES)` numbers must be writable at `p`; nothing behind them is touched.
    unsafe fn store_bf16_partial(self, p: *mut bf16, n: usize, v: Self::F32);

    /// Writes the lanes of `first` and then those of `second`, whose bits are an `i32` from 0 to 255 each, as bytes.
    ///
    /// # Safety
    /// `2 * LANES` bytes must be writable at `p`.
    unsafe fn store_bytes_of_two(self, p: *mut u8, first: Self::F32, second: Self::F32);

    /// Reads a vector of `f16` as `f32`, which holds each of them exactly.
    ///
    /// # Safety
    /// `LANES` numbers must be readable at `p`.
    unsafe fn load_f16(self, p: *const f16) -> Self::F32;

    /// [`Simd::load_partial`] of `f16`.
    ///
    /// # Safety
    /// `min(n, LANES)` numbers must be readable at `p`; nothing behind them is touched.
    unsafe fn load_f16_partial(self, p: *const f16, n: usize) -> Self::F32;

    /// Rounds to `f16` and writes, as [`half::f16::from_f32`] does: to nearest, ties to even, from 65520 on to infinity,
    /// NaN to a quiet NaN. Numbers below the smallest normal one are kept whatever the processor does to those of `f32`.
    ///
    /// # Safety
    /// `LANES` numbers must be writable at `p`.
    unsafe fn store_f16(self, p: *mut f16, v: Self::F32);

    /// [`Simd::store_f16`] of the first `n` lanes (all of them where `n >= LANES`).
    ///
    /// # Safety
    /// `min(n, LANES)` numbers must be writable at `p`; nothing behind them is touched.
    unsafe fn store_f16_partial(self, p: *mut f16, n: usize, v: Self::F32);

    /// `sum + a0 b0 + a1 b1`, where the 32 bits of each lane of `a` and `b` are two `bf16`, the first in the lower half.
    ///
    /// How often it is rounded, and whether numbers below the smallest normal one count, is the machine's choice.
    fn dot_bf16(self, a: Self::F32, b: Self::F32, sum: Self::F32) -> Self::F32;

    /// Reads a vector of `u8` as `f32`.
    ///
    /// # Safety
    /// `LANES` numbers must be readable at `p`.
    unsafe fn load_u8(self, p: *const u8) -> Self::F32;

    /// [`Simd::load_partial`] of `u8`.
    ///
    /// # Safety
    /// `min(n, LANES)` numbers must be readable at `p`; nothing behind them is touched.
    unsafe fn load_u8_partial(self, p: *const u8, n: usize) -> Self::F32;

    /// Rounds to the nearest integer, ties to even, limits to 0 to 255 and writes; NaN becomes 0.
    ///
    /// # Safety
    /// `LANES` numbers must be writable at `p`.
    unsafe fn store_u8(self, p: *mut u8, v: Self::F32);

    /// [`Simd::store_u8`] of the first `n` lanes (all of them where `n >= LANES`).
    ///
    /// # Safety
    /// `min(n, LANES)` numbers must be writable at `p`; nothing behind them is touched.
    unsafe fn store_u8_partial(self, p: *mut u8, n: usize, v: Self::F32);

    /// Writes the lowest byte of every lane.
    ///
    /// # Safety
    /// `LANES` bytes must be writable at `p`.
    unsafe fn store_low_bytes(self, p: *mut u8, bits: Self::F32);

    /// [`Simd::store_low_bytes`] of the first `n` lanes (all of them where `n >= LANES`).
    ///
    /// # Safety
    /// `min(n, LANES)` bytes must be writable at `p`; nothing behind them is touched.
    unsafe fn store_low_bytes_partial(self, p: *mut u8, n: usize, bits: Self::F32);

    /// `sum + a0 b0 + a1 b1 + a2 b2 + a3 b3`, where the 32 bits of each lane of `a` are four `u8`, of `b` four `i8`, the
    /// first in the lowest bits, and of `sum` and the result an `i32`, which wraps around.
    fn dot_u8(self, a: Self::F32, b: Self::F32, sum: Self::F32) -> Self::F32;

    /// Bytes of `a` and `b` in turns, within each 16 bytes of a vector: of their lower halves, and of their upper ones.
    fn interleave_bytes(self, a: Self::F32, b: Self::F32) -> [Self::F32; 2];

    /// As [`Simd::interleave_bytes`], pairs of bytes.
    fn interleave_byte_pairs(self, a: Self::F32, b: Self::F32) -> [Self::F32; 2];

    /// Takes apart four vectors in which groups of four lanes take turns: the first groups of the first to the fourth
    /// vector come first in the result, then their second groups, and so on.
    fn groups_in_order(self, vectors: [Self::F32; 4]) -> [Self::F32; 4];

    /// The larger one of each two bytes, which are `u8`.
    fn max_u8(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// The sum of lanes whose bits are `i32`, which wraps around.
    fn add_i32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The product of lanes whose bits are `i32`, which wraps around.
    fn mul_i32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The numbers -8 to 7 that the four bits from `SHIFT` on (0, 4 .. 28) of each lane's 32 hold in two's complement.
    fn nibbles<const SHIFT: u32>(self, bits: Self::F32) -> Self::F32;
    /// The nearest number to lanes whose bits are `i32`, ties to even.
    fn i32_to_f32(self, bits: Self::F32) -> Self::F32;
    /// The bits of the nearest `i32`, ties to even; unspecified where there is none.
    fn f32_to_i32(self, v: Self::F32) -> Self::F32;

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `1 / a` to a relative error of 1.2e-7 where both are normal; faster than [`Simd::div`] where the machine has an
    /// estimate to start from.
    #[inline(always)]
    fn reciprocal(self, a: Self::F32) -> Self::F32 {
        self.div(self.splat(1.0), a)
    }
    /// `a * b + c`, rounded once where the machine can (AVX2, AVX-512), twice on the portable path.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `if a < b { a } else { b }`: **the second operand where either is NaN**, so `min(limit, x)` keeps a NaN
    /// of `x`.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a > b { a } else { b }`: **the second operand where either is NaN**, so `max(zero, x)` is a ReLU
    /// that keeps NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|a|`
    fn abs(self, a: Self::F32) -> Self::F32;
    /// `-a`
    fn neg(self, a: Self::F32) -> Self::F32;
    /// The square root, correctly rounded.
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// The largest integer not above.
    fn floor(self, a: Self::F32) -> Self::F32;
    /// The nearest integer, ties to even.
    fn round(self, a: Self::F32) -> Self::F32;
    /// `|magnitude|` with the sign of `sign`.
    fn copy_sign(self, magnitude: Self::F32, sign: Self::F32) -> Self::F32;

    /// `a < b`
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a <= b`
    fn le(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a == b`
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a` where the mask is true, `b` elsewhere.
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Whether any lane is true.
    fn any(self, mask: Self::Mask) -> bool;

    /// `x * 2^n` for lanes `n` that hold integers in `-252 ..= 252`, rounded once also where the result is
    /// subnormal, given that `x * 2^(n/2)` is not.
    fn scale(self, x: Self::F32, n: Self::F32) -> Self::F32;

    /// `x * 2^k` for lanes of `shifted` that hold `1.5 * 2^23 + k` with a whole `k`, given that `x` and the result are
    /// normal: the low bits of `shifted` are those of `k`, and are added to the exponent. Unspecified for NaN.
    fn add_exponent(self, x: Self::F32, shifted: Self::F32) -> Self::F32;

    /// `2^(k/32)` for lanes of `shifted` that hold `1.5 * 2^18 + k/32` with a whole `k` (and so `k` in their low bits),
    /// given that the result is normal; to half a unit in the last place. Unspecified for NaN. `None` where the machine
    /// has no permutation that looks up 32 numbers, and a longer polynomial is faster.
    #[inline(always)]
    fn exp2_of_steps(self, _shifted: Self::F32) -> Option<Self::F32> {
        None
    }

    /// Takes a positive normal number apart: `(m, e)` with `x = m * 2^e`, `1 <= m < 2`.
    fn split(self, x: Self::F32) -> (Self::F32, Self::F32);

    /// The sum of all lanes, added pairwise (halves onto each other).
    fn reduce_add(self, v: Self::F32) -> f32;
    /// The largest lane; unspecified where one is NaN.
    fn reduce_max(self, v: Self::F32) -> f32;

    /// Reads a choice of lanes for [`Simd::swizzle`]: lane `i` takes lane `p[i]`.
    ///
    /// # Safety
    /// `LANES` numbers below `LANES` must be readable at `p`.
    unsafe fn load_index(self, p: *const u32) -> Self::Index;
    /// Permutes the lanes.
    fn swizzle(self, v: Self::F32, index: Self::Index) -> Self::F32;
}

/// Work to be compiled for every instruction set: a struct of the arguments and a body generic over [`Simd`].
pub trait SimdOp {
    /// What the work returns.
    type Output;
    /// The body. Implementations are `#[inline(always)]`.
    fn eval<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `op` compiled for `isa`, or for the portable path where this machine lacks it.
#[inline]
pub fn dispatch<O: SimdOp>(isa: Isa, op: O) -> O::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => {
            if let Some(simd) = Avx512::<false, false>::new() {
                return simd.call(op);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            if let Some(simd) = Avx2::<false>::new() {
                return simd.call(op);
            }
        }
        _ => {}
    }
    Portable.call(op)
}

/// [`dispatch`] for work on `bf16`: with the instructions for it, or on the portable path; see [`Isa::serving`].
///
/// Apart from [`dispatch`], so that work which never sees a `bf16` is not compiled once more.
#[inline]
pub fn dispatch_bf16<O: SimdOp>(isa: Isa, op: O) -> O::Output {
    #[cfg(target_arch = "x86_64")]
    if isa.vectors() == Isa::Avx512
        && let Some(simd) = Avx512::<true, false>::new()
    {
        return simd.call(op);
    }
    debug_assert!(isa.serving(ElementType::Bf16) == Isa::Portable);
    Portable.call(op)
}

/// [`dispatch`] for products of bytes: with the instructions for them (AVX512-VNNI, AVX-VNNI) where the machine has them;
/// see [`Isa::serving`].
#[inline]
pub fn dispatch_bytes<O: SimdOp>(isa: Isa, op: O) -> O::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => {
            if let Some(simd) = Avx512::<false, true>::new() {
                return simd.call(op);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            if let Some(simd) = Avx2::<true>::new() {
                return simd.call(op);
            }
            if let Some(simd) = Avx2::<false>::new() {
                return simd.call(op);
            }
        }
        _ => {}
    }
    debug_assert!(isa == Isa::Portable);
    Portable.call(op)
}

/// Asks for the cache line at an address, which need not be readable: it is a hint.
#[inline(always)]
pub fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and it never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

#[cfg(test)]
mod tests;
