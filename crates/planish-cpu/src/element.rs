//! How numbers are kept in memory, apart from how they are computed with.
//!
//! Sums, activations and everything else is computed in `f32`. What lies between two layers may be kept shorter: half
//! of the bytes is half of the traffic, which is what bounds a depthwise layer, and machines multiply pairs of short
//! numbers in the time of one long one. A kernel is therefore generic over the [`Element`] it reads and writes, and
//! converts in its loads and stores.
//!
//! `bf16` is the upper half of an `f32`: its range, with 8 bits of precision instead of 24. `f16` is IEEE 754's half: 11
//! bits of precision, and numbers up to 65504; what is larger becomes infinity, as the standard says and as other engines
//! do, so that nobody takes a cut-off number for a result. Processors multiply `bf16`, and convert `f16` as they load and
//! store (F16C, on every one with AVX2): products of `f16` are products of the same numbers as `f32`. A `u8` is a level of
//! a quantised tensor: which number it stands for, the tensor's scale and zero point say
//! ([`Levels`](crate::epilogue::Levels)).

use std::fmt;

pub use half::{bf16, f16};

use crate::amx::TileProduct;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp, dispatch, dispatch_bf16, dispatch_bytes};

/// What is kept in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementType {
    /// Four bytes.
    #[default]
    F32,
    /// Two bytes: the upper half of an `f32`, rounded to nearest, ties to even.
    Bf16,
    /// Two bytes: IEEE 754's half precision, rounded to nearest, ties to even, to infinity from 65520 on.
    F16,
    /// A byte: a level of a quantised tensor.
    U8,
}

impl ElementType {
    /// The name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ElementType::F32 => "f32",
            ElementType::Bf16 => "bf16",
            ElementType::F16 => "f16",
            ElementType::U8 => "u8",
        }
    }

    /// The size in memory.
    pub const fn bytes(self) -> usize {
        match self {
            ElementType::F32 => 4,
            ElementType::Bf16 | ElementType::F16 => 2,
            ElementType::U8 => 1,
        }
    }

    /// How many of them lie in 32 bits, which is what matrix products take at a time.
    pub const fn per_word(self) -> usize {
        4 / self.bytes()
    }

    /// What products multiply it as: itself, but for `f16`, of which no instruction here multiplies any.
    pub const fn factor(self) -> ElementType {
        match self {
            ElementType::F16 => ElementType::F32,
            other => other,
        }
    }

    /// The largest relative error of keeping a normal number: half a unit in its last place. Levels are whole numbers and
    /// kept exactly; what they err by is the quantisation's business.
    pub fn rounding(self) -> f32 {
        match self {
            ElementType::F32 => f32::EPSILON / 2.0,
            ElementType::Bf16 => 1.0 / 256.0,
            ElementType::F16 => 1.0 / 2048.0,
            ElementType::U8 => 0.0,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A number that kernels read and write; they compute in `f32`.
///
/// # Safety
/// Every pattern of `size_of::<Self>()` bytes is a value, the alignment is at most that of `f32`, and `TYPE` is a
/// different one for each type, with its size; `Factor` is the element of `TYPE.factor()`.
pub unsafe trait Element: Copy + Default + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// Which one this is.
    const TYPE: ElementType;
    /// Whether it is a level of a quantised tensor, and sums of its products are integers.
    const INTEGER: bool = matches!(Self::TYPE, ElementType::U8);
    /// Whether products multiply it as a longer number.
    const WIDENED: bool = Self::TYPE.bytes() != Self::TYPE.factor().bytes();
    /// What products multiply it as: the element of [`ElementType::factor`].
    type Factor: Factor;

    /// The nearest one.
    fn from_f32(x: f32) -> Self;
    /// The same number.
    fn to_f32(self) -> f32;

    /// Reads a vector.
    ///
    /// # Safety
    /// `LANES` numbers must be readable at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::F32;
    /// Reads `n` numbers into the first lanes (all of them where `n >= LANES`); the others become zero.
    ///
    /// # Safety
    /// `min(n, LANES)` numbers must be readable at `p`; nothing behind them is touched.
    unsafe fn load_partial<S: Simd>(s: S, p: *const Self, n: usize) -> S::F32;
    /// Rounds and writes a vector.
    ///
    /// # Safety
    /// `LANES` numbers must be writable at `p`.
    unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::F32);
    /// Rounds and writes the first `n` lanes (all of them where `n >= LANES`).
    ///
    /// # Safety
    /// `min(n, LANES)` numbers must be writable at `p`; nothing behind them is touched.
    unsafe fn store_partial<S: Simd>(s: S, p: *mut Self, n: usize, v: S::F32);

    /// Runs work on these elements with the best instructions of `isa` for them.
    fn dispatch<O: SimdOp>(isa: Isa, op: O) -> O::Output;
}

/// The methods of an [`Element`] that read and write: those of [`Simd`] of these names.
macro_rules! moved_by {
    ($load:ident, $load_partial:ident, $store:ident, $store_partial:ident) => {
        #[inline(always)]
        unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::F32 {
            // SAFETY: promised by the caller.
            unsafe { s.$load(p) }
        }

        #[inline(always)]
        unsafe fn load_partial<S: Simd>(s: S, p: *const Self, n: usize) -> S::F32 {
            // SAFETY: promised by the caller.
            unsafe { s.$load_partial(p, n) }
        }

        #[inline(always)]
        unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::F32) {
            // SAFETY: promised by the caller.
            unsafe { s.$store(p, v) }
        }

        #[inline(always)]
        unsafe fn store_partial<S: Simd>(s: S, p: *mut Self, n: usize, v: S::F32) {
            // SAFETY: promised by the caller.
            unsafe { s.$store_partial(p, n, v) }
        }
    };
}

// SAFETY: trivially so.
unsafe impl Element for f32 {
    const TYPE: ElementType = ElementType::F32;
    type Factor = f32;

    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    moved_by!(load, load_partial, store, store_partial);

    #[inline]
    fn dispatch<O: SimdOp>(isa: Isa, op: O) -> O::Output {
        dispatch(isa, op)
    }
}

// SAFETY: a `bf16` is transparent over `u16`.
unsafe impl Element for bf16 {
    const TYPE: ElementType = ElementType::Bf16;
    type Factor = bf16;

    #[inline(always)]
    fn from_f32(x: f32) -> bf16 {
        bf16::from_f32(x)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }

    moved_by!(load_bf16, load_bf16_partial, store_bf16, store_bf16_partial);

    #[inline]
    fn dispatch<O: SimdOp>(isa: Isa, op: O) -> O::Output {
        dispatch_bf16(isa, op)
    }
}

// SAFETY: an `f16` is transparent over `u16`.
unsafe impl Element for f16 {
    const TYPE: ElementType = ElementType::F16;
    type Factor = f32;

    #[inline(always)]
    fn from_f32(x: f32) -> f16 {
        f16::from_f32(x)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }

    moved_by!(load_f16, load_f16_partial, store_f16, store_f16_partial);

    #[inline]
    fn dispatch<O: SimdOp>(isa: Isa, op: O) -> O::Output {
        dispatch(isa, op)
    }
}

// SAFETY: every byte is one.
unsafe impl Element for u8 {
    const TYPE: ElementType = ElementType::U8;
    type Factor = u8;

    /// The nearest, ties to even; that of NaN is 0.
    #[inline(always)]
    fn from_f32(x: f32) -> u8 {
        x.round_ties_even() as u8
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }

    moved_by!(load_u8, load_u8_partial, store_u8, store_u8_partial);

    #[inline]
    fn dispatch<O: SimdOp>(isa: Isa, op: O) -> O::Output {
        dispatch(isa.serving(ElementType::U8), op)
    }
}

/// An [`Element`] that matrix products multiply: 32 bits of a row of the left operand meet 32 bits of each column of
/// the right one, and their products are added to 32-bit sums.
///
/// One `f32`, two `bf16`, or four `u8` on the left and four `i8` on the right, whose sums are `i32` kept as the bits of
/// `f32`. What a lane of 32 bits means is the factor's business alone: the driver, the packing and the tiles only move
/// them.
///
/// # Safety
/// As [`Element`]; [`ElementType::per_word`] of them are one word.
pub unsafe trait Factor: Element<Factor = Self> {
    /// How many lie in a word.
    const PER_WORD: usize = Self::TYPE.per_word();
    /// The instruction of the tile unit that multiplies it, where there is one.
    const TILES: Option<TileProduct> = None;

    /// The word at `p` in every lane.
    ///
    /// # Safety
    /// A word must be readable at `p`, which is aligned to an element only.
    unsafe fn splat_word<S: Simd>(s: S, p: *const Self) -> S::F32;

    /// `sum` and the products of two words, in every lane.
    fn multiply_add<S: Simd>(s: S, left: S::F32, right: S::F32, sum: S::F32) -> S::F32;

    /// Two sums added.
    #[inline(always)]
    fn add<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
        s.add(a, b)
    }

    /// What stands on the right for this number.
    #[inline]
    fn right(x: f32) -> Self {
        Self::from_f32(x)
    }

    /// Runs products with the best instructions of `isa` for them.
    #[inline]
    fn dispatch_products<O: SimdOp>(isa: Isa, op: O) -> O::Output {
        Self::dispatch(isa, op)
    }
}

// SAFETY: one number is a word.
unsafe impl Factor for f32 {
    #[inline(always)]
    unsafe fn splat_word<S: Simd>(s: S, p: *const f32) -> S::F32 {
        // SAFETY: promised by the caller.
        s.splat(unsafe { *p })
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, left: S::F32, right: S::F32, sum: S::F32) -> S::F32 {
        s.mul_add(left, right, sum)
    }
}

// SAFETY: two numbers are a word.
unsafe impl Factor for bf16 {
    const TILES: Option<TileProduct> = Some(TileProduct::Bf16);

    #[inline(always)]
    unsafe fn splat_word<S: Simd>(s: S, p: *const bf16) -> S::F32 {
        // SAFETY: promised by the caller.
        s.splat_bits(unsafe { p.cast::<u32>().read_unaligned() })
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, left: S::F32, right: S::F32, sum: S::F32) -> S::F32 {
        s.dot_bf16(left, right, sum)
    }
}

// SAFETY: four numbers are a word.
unsafe impl Factor for u8 {
    const TILES: Option<TileProduct> = Some(TileProduct::U8I8);

    #[inline(always)]
    unsafe fn splat_word<S: Simd>(s: S, p: *const u8) -> S::F32 {
        // SAFETY: promised by the caller.
        s.splat_bits(unsafe { p.cast::<u32>().read_unaligned() })
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, left: S::F32, right: S::F32, sum: S::F32) -> S::F32 {
        s.dot_u8(left, right, sum)
    }

    #[inline(always)]
    fn add<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
        s.add_i32(a, b)
    }

    #[inline]
    fn right(x: f32) -> u8 {
        x as i8 as u8
    }

    #[inline]
    fn dispatch_products<O: SimdOp>(isa: Isa, op: O) -> O::Output {
        dispatch_bytes(isa, op)
    }
}

/// Evaluates an expression in which `$T` is the [`Element`] of a type that is known at run time only.
#[macro_export]
macro_rules! for_element {
    ($element:expr, $T:ident => $body:expr) => {
        match $element {
            $crate::element::ElementType::F32 => {
                type $T = f32;
                $body
            }
            $crate::element::ElementType::Bf16 => {
                type $T = $crate::element::bf16;
                $body
            }
            $crate::element::ElementType::F16 => {
                type $T = $crate::element::f16;
                $body
            }
            $crate::element::ElementType::U8 => {
                type $T = u8;
                $body
            }
        }
    };
}

/// [`for_element!`] for kernels that have no use for levels: those get the other expression.
#[macro_export]
macro_rules! for_float {
    ($element:expr, $T:ident => $body:expr, else $other:expr) => {
        match $element {
            $crate::element::ElementType::F32 => {
                type $T = f32;
                $body
            }
            $crate::element::ElementType::Bf16 => {
                type $T = $crate::element::bf16;
                $body
            }
            $crate::element::ElementType::F16 => {
                type $T = $crate::element::f16;
                $body
            }
            $crate::element::ElementType::U8 => $other,
        }
    };
}

#[cfg(test)]
mod tests;
