//! Vectors of eight numbers: AVX2 with FMA.
//!
//! Every body is an intrinsic whose instruction set the existence of the token proves; see the module above for
//! why everything is inlined.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Simd, SimdOp};
use crate::isa::Isa;

/// A proof that this machine has AVX2, FMA and F16C, and where `VNNI`, that it has AVX-VNNI as well.
#[derive(Clone, Copy, Debug)]
pub struct Avx2<const VNNI: bool>(());

/// `MASKS[8 - n ..]` are eight lanes of which the first `n` are set.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
fn mask_of(n: usize) -> __m256i {
    // SAFETY: eight numbers are readable from any start up to 8; AVX as the callers' token proves.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n.min(8)).cast()) }
}

/// Eight `bf16` as `f32`: the upper halves of their bits.
#[inline(always)]
fn widen(halves: __m128i) -> __m256 {
    // SAFETY: only called with a token, which proves the instructions.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves))) }
}

/// The upper halves, rounded by what is cut off: a half and more of the last place carries into it, a half exactly only
/// where the last place is odd.
#[inline(always)]
fn narrow(v: __m256) -> __m128i {
    // SAFETY: as above.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        // A NaN could carry into infinity; its quiet bit is set instead.
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let halves = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
        // Packing works within each half of the register; the two are brought together.
        let packed = _mm256_packus_epi32(halves, halves);
        _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b10_00>(packed))
    }
}

/// The nearest `u8`, in the lower half.
#[inline(always)]
fn to_bytes(v: __m256) -> __m128i {
    // SAFETY: as above. A NaN becomes the second operand of the maximum.
    unsafe {
        let limited = _mm256_min_ps(_mm256_max_ps(v, _mm256_setzero_ps()), _mm256_set1_ps(255.0));
        low_bytes(_mm256_cvtps_epi32(limited))
    }
}

/// The lowest byte of every lane, in the lower half.
#[inline(always)]
fn low_bytes(bits: __m256i) -> __m128i {
    // SAFETY: as above.
    unsafe {
        let bytes = _mm256_and_si256(bits, _mm256_set1_epi32(0xff));
        let (low, high) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
        let words = _mm_packs_epi32(low, high);
        _mm_packus_epi16(words, words)
    }
}

#[target_feature(enable = "avx2,avxvnni")]
#[inline]
fn dot_bytes(a: __m256, b: __m256, sum: __m256) -> __m256 {
    let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
    _mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(_mm256_castps_si256(sum), a, b))
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// The token, where the machine has the instructions.
    #[inline]
    pub fn new() -> Option<Self> {
        (Isa::Avx2.is_available() && (!VNNI || Isa::Avx2.has_vnni())).then_some(Avx2(()))
    }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const ISA: Isa = Isa::Avx2;
    const LANES: usize = 8;
    type F32 = __m256;
    type Mask = __m256;
    type Index = __m256i;

    #[inline]
    fn call<O: SimdOp>(self, op: O) -> O::Output {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enabled<O: SimdOp>(simd: Avx2<false>, op: O) -> O::Output {
            op.eval(simd)
        }
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn enabled_vnni<O: SimdOp>(simd: Avx2<true>, op: O) -> O::Output {
            op.eval(simd)
        }
        // SAFETY: the token proves that the features were detected.
        unsafe { if VNNI { enabled_vnni(Avx2(()), op) } else { enabled(Avx2(()), op) } }
    }

    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> __m256 {
        // SAFETY: the caller promises 8 readable numbers; the token proves the instructions.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_u8_partial(self, p: *const u8, n: usize) -> __m256 {
        let mut bytes = [0u8; 8];
        // SAFETY: the caller promises min(n, 8) readable numbers, and the array holds as many.
        unsafe {
            std::ptr::copy_nonoverlapping(p, bytes.as_mut_ptr(), n.min(8));
            self.load_u8(bytes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_u8(self, p: *mut u8, v: __m256) {
        // SAFETY: the caller promises 8 writable numbers; the token proves the instructions.
        unsafe { _mm_storel_epi64(p.cast(), to_bytes(v)) }
    }

    #[inline(always)]
    unsafe fn store_u8_partial(self, p: *mut u8, n: usize, v: __m256) {
        let mut bytes = [0u8; 8];
        // SAFETY: the caller promises min(n, 8) writable numbers, and the array holds as many.
        unsafe {
            self.store_u8(bytes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, n.min(8));
        }
    }

    #[inline(always)]
    unsafe fn store_low_bytes(self, p: *mut u8, bits: __m256) {
        // SAFETY: the caller promises 8 writable bytes; the token proves the instructions.
        unsafe { _mm_storel_epi64(p.cast(), low_bytes(_mm256_castps_si256(bits))) }
    }

    #[inline(always)]
    unsafe fn store_low_bytes_partial(self, p: *mut u8, n: usize, bits: __m256) {
        let mut bytes = [0u8; 8];
        // SAFETY: the caller promises min(n, 8) writable bytes, and the array holds as many.
        unsafe {
            self.store_low_bytes(bytes.as_mut_ptr(), bits);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, n.min(8));
        }
    }

    #[inline(always)]
    unsafe fn store_bytes_of_two(self, p: *mut u8, first: __m256, second: __m256) {
        // SAFETY: the caller promises 16 writable bytes; the token proves the instructions.
        unsafe {
            let words = _mm256_packus_epi32(_mm256_castps_si256(first), _mm256_castps_si256(second));
            // Each half of the register holds four bytes of the first, then four of the second.
            let bytes = _mm256_packus_epi16(words, words);
            let ordered = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(ordered));
        }
    }

    /// Without the instruction, pairs of 16 bits: the even bytes and the odd ones, so that nothing saturates.
    #[inline(always)]
    fn dot_u8(self, a: __m256, b: __m256, sum: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe {
            if VNNI {
                return dot_bytes(a, b, sum);
            }
            let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
            let even = _mm256_madd_epi16(
                _mm256_and_si256(a, _mm256_set1_epi16(0xff)),
                _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b)),
            );
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
            let sum = _mm256_add_epi32(_mm256_castps_si256(sum), even);
            _mm256_castsi256_ps(_mm256_add_epi32(sum, odd))
        }
    }

    #[inline(always)]
    fn interleave_bytes(self, a: __m256, b: __m256) -> [__m256; 2] {
        // SAFETY: the token proves the instructions.
        unsafe {
            let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
            let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        }
    }

    #[inline(always)]
    fn interleave_byte_pairs(self, a: __m256, b: __m256) -> [__m256; 2] {
        // SAFETY: the token proves the instructions.
        unsafe {
            let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
            let (low, high) = (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        }
    }

    #[inline(always)]
    fn groups_in_order(self, [a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                _mm256_permute2f128_ps::<0x20>(a, b),
                _mm256_permute2f128_ps::<0x20>(c, d),
                _mm256_permute2f128_ps::<0x31>(a, b),
                _mm256_permute2f128_ps::<0x31>(c, d),
            ]
        }
    }

    #[inline(always)]
    fn max_u8(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_castsi256_ps(_mm256_max_epu8(_mm256_castps_si256(a), _mm256_castps_si256(b))) }
    }

    #[inline(always)]
    fn add_i32(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b))) }
    }

    #[inline(always)]
    fn mul_i32(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_castsi256_ps(_mm256_mullo_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b))) }
    }

    #[inline(always)]
    fn nibbles<const SHIFT: u32>(self, bits: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe {
            // To the top, and down again with the sign.
            let top = _mm256_sllv_epi32(_mm256_castps_si256(bits), _mm256_set1_epi32(28 - SHIFT as i32));
            _mm256_cvtepi32_ps(_mm256_srai_epi32::<28>(top))
        }
    }

    #[inline(always)]
    fn i32_to_f32(self, bits: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_cvtepi32_ps(_mm256_castps_si256(bits)) }
    }

    #[inline(always)]
    fn f32_to_i32(self, v: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_castsi256_ps(_mm256_cvtps_epi32(v)) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: the caller promises 8 readable numbers; the token proves the instructions.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: the caller promises 8 writable numbers; the token proves the instructions.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> __m256 {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        unsafe { _mm256_maskload_ps(p, mask_of(n)) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: __m256) {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        unsafe { _mm256_maskstore_ps(p, mask_of(n), v) }
    }

    #[inline(always)]
    fn splat_bits(self, bits: u32) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_castsi256_ps(_mm256_set1_epi32(bits as i32)) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> __m256 {
        // SAFETY: the caller promises 8 readable numbers; the token proves the instructions.
        widen(unsafe { _mm_loadu_si128(p.cast()) })
    }

    #[inline(always)]
    unsafe fn load_bf16_partial(self, p: *const bf16, n: usize) -> __m256 {
        let mut halves = [0u16; 8];
        // SAFETY: the caller promises min(n, 8) readable numbers, and the array holds as many; the token proves the
        // instructions.
        unsafe {
            std::ptr::copy_nonoverlapping(p.cast(), halves.as_mut_ptr(), n.min(8));
            widen(_mm_loadu_si128(halves.as_ptr().cast()))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: __m256) {
        // SAFETY: the caller promises 8 writable numbers; the token proves the instructions.
        unsafe { _mm_storeu_si128(p.cast(), narrow(v)) }
    }

    #[inline(always)]
    unsafe fn store_bf16_partial(self, p: *mut bf16, n: usize, v: __m256) {
        let mut halves = [0u16; 8];
        // SAFETY: the caller promises min(n, 8) writable numbers, and the array holds as many; the token proves the
        // instructions.
        unsafe {
            _mm_storeu_si128(halves.as_mut_ptr().cast(), narrow(v));
            std::ptr::copy_nonoverlapping(halves.as_ptr(), p.cast(), n.min(8));
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> __m256 {
        // SAFETY: the caller promises 8 readable numbers; the token proves the instructions.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load_f16_partial(self, p: *const f16, n: usize) -> __m256 {
        let mut halves = [f16::ZERO; 8];
        // SAFETY: the caller promises min(n, 8) readable numbers, and the array holds as many.
        unsafe {
            std::ptr::copy_nonoverlapping(p, halves.as_mut_ptr(), n.min(8));
            self.load_f16(halves.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: __m256) {
        // SAFETY: the caller promises 8 writable numbers; the token proves the instructions.
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    unsafe fn store_f16_partial(self, p: *mut f16, n: usize, v: __m256) {
        let mut halves = [f16::ZERO; 8];
        // SAFETY: the caller promises min(n, 8) writable numbers, and the array holds as many.
        unsafe {
            self.store_f16(halves.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(halves.as_ptr(), p, n.min(8));
        }
    }

    #[inline(always)]
    fn dot_bf16(self, a: __m256, b: __m256, sum: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let first = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(v)));
            let second = |v| _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(v), upper));
            _mm256_fmadd_ps(second(a), second(b), _mm256_fmadd_ps(first(a), first(b), sum))
        }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn neg(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_xor_ps(_mm256_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_sqrt_ps(a) }
    }

    #[inline(always)]
    fn floor(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_floor_ps(a) }
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: __m256, sign: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_and_ps(bit, sign), _mm256_andnot_ps(bit, magnitude))
        }
    }

    #[inline(always)]
    fn lt(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn le(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_cmp_ps::<_CMP_LE_OQ>(a, b) }
    }

    #[inline(always)]
    fn eq(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_blendv_ps(b, a, mask) }
    }

    #[inline(always)]
    fn any(self, mask: __m256) -> bool {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_movemask_ps(mask) != 0 }
    }

    #[inline(always)]
    fn scale(self, x: __m256, n: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let half = _mm256_floor_ps(_mm256_mul_ps(n, _mm256_set1_ps(0.5)));
            let bias = _mm256_set1_epi32(127);
            let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(half), bias));
            let rest = _mm256_cvtps_epi32(_mm256_sub_ps(n, half));
            let second = _mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias));
            _mm256_mul_ps(_mm256_mul_ps(x, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second))
        }
    }

    #[inline(always)]
    fn add_exponent(self, x: __m256, shifted: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), exponent))
        }
    }

    #[inline(always)]
    fn split(self, x: __m256) -> (__m256, __m256) {
        // SAFETY: the token proves the instructions.
        unsafe {
            let bits = _mm256_castps_si256(x);
            let fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff));
            let mantissa = _mm256_or_si256(fraction, _mm256_set1_epi32(0x3f80_0000));
            let exponent = _mm256_sub_epi32(_mm256_srli_epi32::<23>(bits), _mm256_set1_epi32(127));
            (_mm256_castsi256_ps(mantissa), _mm256_cvtepi32_ps(exponent))
        }
    }

    #[inline(always)]
    fn reduce_add(self, v: __m256) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    fn reduce_max(self, v: __m256) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn load_index(self, p: *const u32) -> __m256i {
        // SAFETY: the caller promises 8 readable numbers; the token proves the instructions.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    fn swizzle(self, v: __m256, index: __m256i) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_permutevar8x32_ps(v, index) }
    }
}
