//! Vectors of words of 32 bits whose bits are counted: the instructions of the bit kernels.
//!
//! A lane belongs to an output channel and takes 32 input channels a word, so that sums stay where they are and nothing is
//! added across a vector. Beside [`Simd`], because AVX-512 counts bits with instructions (VPOPCNTDQ) that the other kernels
//! need not be compiled for; what follows the sums is the [`Simd`] of the same machine.

use crate::isa::Isa;
use crate::simd::{Portable, Simd};

/// A proof that the machine has the instructions, as [`Simd`] is one.
pub(super) trait Words: Copy {
    /// What computes on the sums; of as many lanes, or twice as many.
    type Simd: Simd;
    /// A word for each lane.
    type V: Copy;
    /// The most rows of a tile, as registers allow.
    const ROWS: usize;
    /// How many [`Words::count`]s may be added up before they are [widened](Words::widen).
    const RUN: usize;

    /// The vectors beside it.
    fn simd(self) -> Self::Simd;
    /// Runs `op` in a function of its own with the instructions switched on.
    fn call<O: WordsOp>(self, op: O) -> O::Output;

    /// The same word in every lane.
    fn splat(self, word: u32) -> Self::V;
    /// Reads a vector.
    ///
    /// # Safety
    /// A word for each lane must be readable at `p`.
    unsafe fn load(self, p: *const u32) -> Self::V;
    /// Writes a vector.
    ///
    /// # Safety
    /// A word for each lane must be writable at `p`.
    unsafe fn store(self, p: *mut u32, v: Self::V);

    /// `a ^ b`
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a ^ b ^ c`
    fn xor3(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Bits of `before` where they differ from those of `after`, of `word` elsewhere.
    fn carry(self, before: Self::V, after: Self::V, word: Self::V) -> Self::V;
    /// `mask & (a ^ b)`
    fn masked_xor(self, mask: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// How many bits are set, in parts of a lane.
    fn count(self, v: Self::V) -> Self::V;
    /// The sum of counts.
    fn add_counts(self, a: Self::V, b: Self::V) -> Self::V;
    /// The sum of the parts of each lane.
    fn widen(self, counts: Self::V) -> Self::V;
    /// The sum of lanes.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// The difference of lanes.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;

    /// Of 64 bytes, the bit of this number (0 to 7); that of the first byte is the lowest of the result.
    ///
    /// # Safety
    /// 64 bytes must be readable at `p`.
    unsafe fn bits(self, p: *const u8, bit: usize) -> u64;
}

/// Work on words: a struct of the arguments and a body generic over [`Words`].
pub(super) trait WordsOp {
    /// What the work returns.
    type Output;
    /// The body. Implementations are `#[inline(always)]`.
    fn eval<W: Words>(self, words: W) -> Self::Output;
}

/// The instruction set that the bit kernels use where `isa` is asked for.
pub(super) fn serving(isa: Isa) -> Isa {
    match isa.vectors() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if x86::Avx512Words::new().is_none() => Isa::Avx2,
        isa => isa,
    }
}

/// Runs `op` compiled for `isa`, or for the portable path where this machine lacks it.
pub(super) fn dispatch<O: WordsOp>(isa: Isa, op: O) -> O::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => {
            if let Some(words) = x86::Avx512Words::new() {
                return words.call(op);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            if let Some(words) = x86::Avx2Words::new() {
                return words.call(op);
            }
        }
        _ => {}
    }
    PortableWords.call(op)
}

const LANES: usize = Portable::LANES;

/// Plain Rust.
#[derive(Clone, Copy)]
struct PortableWords;

#[inline(always)]
fn zip(a: [u32; LANES], b: [u32; LANES], f: impl Fn(u32, u32) -> u32) -> [u32; LANES] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

impl Words for PortableWords {
    type Simd = Portable;
    type V = [u32; LANES];
    const ROWS: usize = 2;
    const RUN: usize = usize::MAX;

    #[inline(always)]
    fn simd(self) -> Portable {
        Portable
    }
    #[inline(never)]
    fn call<O: WordsOp>(self, op: O) -> O::Output {
        op.eval(self)
    }
    #[inline(always)]
    fn splat(self, word: u32) -> Self::V {
        [word; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const u32) -> Self::V {
        // SAFETY: promised by the caller; the read is unaligned.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u32, v: Self::V) {
        // SAFETY: promised by the caller; the write is unaligned.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    fn xor(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a ^ b)
    }
    #[inline(always)]
    fn xor3(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.xor(self.xor(a, b), c)
    }
    #[inline(always)]
    fn carry(self, before: Self::V, after: Self::V, word: Self::V) -> Self::V {
        self.xor(self.masked_xor(self.xor(before, after), before, word), word)
    }
    #[inline(always)]
    fn masked_xor(self, mask: Self::V, a: Self::V, b: Self::V) -> Self::V {
        zip(mask, self.xor(a, b), |mask, x| mask & x)
    }
    #[inline(always)]
    fn count(self, v: Self::V) -> Self::V {
        v.map(u32::count_ones)
    }
    #[inline(always)]
    fn add_counts(self, a: Self::V, b: Self::V) -> Self::V {
        self.add(a, b)
    }
    #[inline(always)]
    fn widen(self, counts: Self::V) -> Self::V {
        counts
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, u32::wrapping_add)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, u32::wrapping_sub)
    }
    #[inline(always)]
    unsafe fn bits(self, p: *const u8, bit: usize) -> u64 {
        // SAFETY: promised by the caller.
        let bytes = unsafe { p.cast::<[u8; 64]>().read_unaligned() };
        bytes.iter().rev().fold(0, |bits, byte| bits << 1 | u64::from(byte >> bit & 1))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Words, WordsOp};
    use crate::simd::{Avx2, Avx512};
    use std::arch::x86_64::*;

    /// AVX2: bits are counted by looking up each half of a byte (Muła, Kurz, Lemire, "Faster Population Counts Using AVX2
    /// Instructions", 2018).
    #[derive(Clone, Copy)]
    pub(super) struct Avx2Words(Avx2<false>);

    impl Avx2Words {
        /// The token, where the machine has the instructions.
        pub(super) fn new() -> Option<Self> {
            Avx2::new().map(Avx2Words)
        }
    }

    impl Words for Avx2Words {
        type Simd = Avx2<false>;
        type V = __m256i;
        const ROWS: usize = 4;
        /// Counts are bytes of at most 8.
        const RUN: usize = 31;

        #[inline(always)]
        fn simd(self) -> Avx2<false> {
            self.0
        }
        #[inline]
        fn call<O: WordsOp>(self, op: O) -> O::Output {
            #[inline(never)]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn enabled<O: WordsOp>(words: Avx2Words, op: O) -> O::Output {
                op.eval(words)
            }
            // SAFETY: the token proves that the features were detected.
            unsafe { enabled(self, op) }
        }
        #[inline(always)]
        fn splat(self, word: u32) -> __m256i {
            // SAFETY: the token proves the instructions; so below.
            unsafe { _mm256_set1_epi32(word as i32) }
        }
        #[inline(always)]
        unsafe fn load(self, p: *const u32) -> __m256i {
            // SAFETY: promised by the caller; the load is unaligned.
            unsafe { _mm256_loadu_si256(p.cast()) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut u32, v: __m256i) {
            // SAFETY: promised by the caller; the store is unaligned.
            unsafe { _mm256_storeu_si256(p.cast(), v) }
        }
        #[inline(always)]
        fn xor(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_xor_si256(a, b) }
        }
        #[inline(always)]
        fn xor3(self, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
            self.xor(self.xor(a, b), c)
        }
        #[inline(always)]
        fn carry(self, before: __m256i, after: __m256i, word: __m256i) -> __m256i {
            self.xor(self.masked_xor(self.xor(before, after), before, word), word)
        }
        #[inline(always)]
        fn masked_xor(self, mask: __m256i, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_and_si256(mask, _mm256_xor_si256(a, b)) }
        }
        /// Of each byte.
        #[inline(always)]
        fn count(self, v: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let low = _mm256_set1_epi8(15);
                let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(
                    0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                ));
                let lower = _mm256_shuffle_epi8(table, _mm256_and_si256(v, low));
                let upper = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(v), low));
                _mm256_add_epi8(lower, upper)
            }
        }
        #[inline(always)]
        fn add_counts(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_add_epi8(a, b) }
        }
        #[inline(always)]
        fn widen(self, counts: __m256i) -> __m256i {
            // SAFETY: as above. Bytes up to 248 are unsigned here, and their pairs fit 16 bits.
            unsafe {
                let pairs = _mm256_maddubs_epi16(counts, _mm256_set1_epi8(1));
                _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
            }
        }
        #[inline(always)]
        fn add(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_add_epi32(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_sub_epi32(a, b) }
        }
        #[inline(always)]
        unsafe fn bits(self, p: *const u8, bit: usize) -> u64 {
            // SAFETY: promised by the caller. Bits that are moved into the next byte are lower than its highest.
            unsafe {
                let up = _mm_cvtsi32_si128(7 - bit as i32);
                let half = |p: *const u8| {
                    let bytes = _mm256_loadu_si256(p.cast());
                    u64::from(_mm256_movemask_epi8(_mm256_sll_epi16(bytes, up)) as u32)
                };
                half(p) | half(p.add(32)) << 32
            }
        }
    }

    /// AVX-512 with VPOPCNTDQ, on vectors of 256 bits: a Zen 4, whose units are that wide, starts four of those a cycle in
    /// any order, but wastes up to half of its cycles on counts of 512 bits, depending on what stands between them.
    #[derive(Clone, Copy)]
    pub(super) struct Avx512Words(Avx512<false, false>);

    impl Avx512Words {
        /// The token, where the machine has the instructions.
        pub(super) fn new() -> Option<Self> {
            Avx512::new().filter(|_| is_x86_feature_detected!("avx512vpopcntdq")).map(Avx512Words)
        }
    }

    /// `f(a, b, c)` of each bit, the table of which is `TABLE`.
    #[inline(always)]
    fn ternary<const TABLE: i32>(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        // SAFETY: only called with the token below, which proves the instructions.
        unsafe { _mm256_ternarylogic_epi32::<TABLE>(a, b, c) }
    }

    impl Words for Avx512Words {
        type Simd = Avx512<false, false>;
        type V = __m256i;
        const ROWS: usize = 8;
        const RUN: usize = usize::MAX;

        #[inline(always)]
        fn simd(self) -> Avx512<false, false> {
            self.0
        }
        #[inline]
        fn call<O: WordsOp>(self, op: O) -> O::Output {
            #[inline(never)]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")]
            fn enabled<O: WordsOp>(words: Avx512Words, op: O) -> O::Output {
                op.eval(words)
            }
            // SAFETY: the token proves that the features were detected.
            unsafe { enabled(self, op) }
        }
        #[inline(always)]
        fn splat(self, word: u32) -> __m256i {
            // SAFETY: the token proves the instructions; so below.
            unsafe { _mm256_set1_epi32(word as i32) }
        }
        #[inline(always)]
        unsafe fn load(self, p: *const u32) -> __m256i {
            // SAFETY: promised by the caller; the load is unaligned.
            unsafe { _mm256_loadu_si256(p.cast()) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut u32, v: __m256i) {
            // SAFETY: promised by the caller; the store is unaligned.
            unsafe { _mm256_storeu_si256(p.cast(), v) }
        }
        #[inline(always)]
        fn xor(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_xor_si256(a, b) }
        }
        #[inline(always)]
        fn xor3(self, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
            ternary::<0x96>(a, b, c)
        }
        #[inline(always)]
        fn carry(self, before: __m256i, after: __m256i, word: __m256i) -> __m256i {
            ternary::<0xb2>(before, after, word)
        }
        #[inline(always)]
        fn masked_xor(self, mask: __m256i, a: __m256i, b: __m256i) -> __m256i {
            ternary::<0x60>(mask, a, b)
        }
        #[inline(always)]
        fn count(self, v: __m256i) -> __m256i {
            #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
            #[inline]
            fn count(v: __m256i) -> __m256i {
                _mm256_popcnt_epi32(v)
            }
            // SAFETY: the token proves it.
            unsafe { count(v) }
        }
        #[inline(always)]
        fn add_counts(self, a: __m256i, b: __m256i) -> __m256i {
            self.add(a, b)
        }
        #[inline(always)]
        fn widen(self, counts: __m256i) -> __m256i {
            counts
        }
        #[inline(always)]
        fn add(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_add_epi32(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_sub_epi32(a, b) }
        }
        #[inline(always)]
        unsafe fn bits(self, p: *const u8, bit: usize) -> u64 {
            // SAFETY: promised by the caller.
            unsafe { _mm512_test_epi8_mask(_mm512_loadu_si512(p.cast()), _mm512_set1_epi8(1 << bit)) }
        }
    }
}
