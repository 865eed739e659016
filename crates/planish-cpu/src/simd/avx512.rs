//! Vectors of sixteen numbers: AVX-512.
//!
//! Every body is an intrinsic whose instruction set the existence of the token proves; see the module above for
//! why everything is inlined.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Simd, SimdOp};
use crate::isa::Isa;

/// A proof that this machine has AVX-512 F, BW, DQ and VL, and where `BF16` or `VNNI`, that it has AVX512-BF16 or
/// AVX512-VNNI as well.
#[derive(Clone, Copy, Debug)]
pub struct Avx512<const BF16: bool, const VNNI: bool>(());

#[inline(always)]
fn mask_of(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

/// Sixteen `bf16` as `f32`: the upper halves of their bits.
#[inline(always)]
fn widen(halves: __m256i) -> __m512 {
    // SAFETY: only called with a token, which proves the instructions.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves))) }
}

/// The upper halves, rounded by what is cut off: a half and more of the last place carries into it, a half exactly only
/// where the last place is odd.
#[inline(always)]
fn narrow(v: __m512) -> __m256i {
    // SAFETY: as above.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        // A NaN could carry into infinity; its quiet bit is set instead.
        let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(nan, rounded, quiet)))
    }
}

/// The nearest `u8`.
#[inline(always)]
fn to_bytes(v: __m512) -> __m128i {
    // SAFETY: as above. A NaN becomes the second operand of the maximum.
    unsafe {
        let limited = _mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), _mm512_set1_ps(255.0));
        _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(limited))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn narrow_bf16(v: __m512) -> __m256i {
    // SAFETY: both are 256 bits without meaning of their own.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v)) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn dot(a: __m512, b: __m512, sum: __m512) -> __m512 {
    // SAFETY: both are 512 bits without meaning of their own.
    unsafe {
        let (a, b) = (std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b));
        _mm512_dpbf16_ps(sum, a, b)
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn dot_bytes(a: __m512, b: __m512, sum: __m512) -> __m512 {
    let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
    _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(sum), a, b))
}

impl<const BF16: bool, const VNNI: bool> Avx512<BF16, VNNI> {
    /// The token, where the machine has the instructions.
    #[inline]
    pub fn new() -> Option<Self> {
        let there = Isa::Avx512.is_available()
            && (!BF16 || Isa::Avx512.has_bf16())
            && (!VNNI || Isa::Avx512.has_vnni());
        there.then_some(Avx512(()))
    }
}

/// A table in whole cache lines.
#[repr(align(64))]
struct Steps([u32; 32]);

/// The bits of `2^(i/32)` less `i << 18`: adding `k << 18` for a `k` whose low five bits are `i` leaves the bits of
/// `2^(k/32)`, because what is above those five is then an exponent.
#[rustfmt::skip]
static EXP2_OF_STEPS: Steps = Steps([
    0x3f80_0000, 0x3f7e_cd87, 0x3f7d_aac3, 0x3f7c_980f, 0x3f7b_95c2, 0x3f7a_a43a, 0x3f79_c3d3, 0x3f78_f4f0,
    0x3f78_37f0, 0x3f77_8d3a, 0x3f76_f532, 0x3f76_7043, 0x3f75_fed7, 0x3f75_a15b, 0x3f75_583f, 0x3f75_23f6,
    0x3f75_04f3, 0x3f74_fbaf, 0x3f75_08a4, 0x3f75_2c4d, 0x3f75_672a, 0x3f75_b9be, 0x3f76_248c, 0x3f76_a81e,
    0x3f77_44fd, 0x3f77_fbb8, 0x3f78_ccdf, 0x3f79_b907, 0x3f7a_c0c7, 0x3f7b_e4ba, 0x3f7d_257d, 0x3f7e_83b3,
]);

impl<const BF16: bool, const VNNI: bool> Simd for Avx512<BF16, VNNI> {
    const ISA: Isa = Isa::Avx512;
    const LANES: usize = 16;
    type F32 = __m512;
    type Mask = __mmask16;
    type Index = __m512i;

    #[inline]
    fn call<O: SimdOp>(self, op: O) -> O::Output {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        fn enabled<O: SimdOp>(simd: Avx512<false, false>, op: O) -> O::Output {
            op.eval(simd)
        }
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        fn enabled_bf16<O: SimdOp>(simd: Avx512<true, false>, op: O) -> O::Output {
            op.eval(simd)
        }
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn enabled_vnni<O: SimdOp>(simd: Avx512<false, true>, op: O) -> O::Output {
            op.eval(simd)
        }
        // SAFETY: the token proves that the features were detected.
        unsafe {
            match (BF16, VNNI) {
                (true, _) => enabled_bf16(Avx512(()), op),
                (_, true) => enabled_vnni(Avx512(()), op),
                _ => enabled(Avx512(()), op),
            }
        }
    }

    #[inline(always)]
    fn splat_bits(self, bits: u32) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(bits as i32)) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> __m512 {
        // SAFETY: the caller promises 16 readable numbers; the token proves the instructions.
        widen(unsafe { _mm256_loadu_si256(p.cast()) })
    }

    #[inline(always)]
    unsafe fn load_bf16_partial(self, p: *const bf16, n: usize) -> __m512 {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        widen(unsafe { _mm256_maskz_loadu_epi16(mask_of(n), p.cast()) })
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: __m512) {
        // SAFETY: the caller promises 16 writable numbers; the token proves the instructions.
        unsafe {
            let halves = if BF16 { narrow_bf16(v) } else { narrow(v) };
            _mm256_storeu_si256(p.cast(), halves);
        }
    }

    #[inline(always)]
    unsafe fn store_bf16_partial(self, p: *mut bf16, n: usize, v: __m512) {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        unsafe {
            let halves = if BF16 { narrow_bf16(v) } else { narrow(v) };
            _mm256_mask_storeu_epi16(p.cast(), mask_of(n), halves);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> __m512 {
        // SAFETY: the caller promises 16 readable numbers; the token proves the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load_f16_partial(self, p: *const f16, n: usize) -> __m512 {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask_of(n), p.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: __m512) {
        // SAFETY: the caller promises 16 writable numbers; the token proves the instructions.
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    unsafe fn store_f16_partial(self, p: *mut f16, n: usize, v: __m512) {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        unsafe {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm256_mask_storeu_epi16(p.cast(), mask_of(n), halves);
        }
    }

    #[inline(always)]
    fn dot_bf16(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe {
            if BF16 {
                return dot(a, b, sum);
            }
            let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            let first = |v| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(v)));
            let second = |v| _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), upper));
            _mm512_fmadd_ps(second(a), second(b), _mm512_fmadd_ps(first(a), first(b), sum))
        }
    }

    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> __m512 {
        // SAFETY: the caller promises 16 readable numbers; the token proves the instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_u8_partial(self, p: *const u8, n: usize) -> __m512 {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask_of(n), p.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_u8(self, p: *mut u8, v: __m512) {
        // SAFETY: the caller promises 16 writable numbers; the token proves the instructions.
        unsafe { _mm_storeu_si128(p.cast(), to_bytes(v)) }
    }

    #[inline(always)]
    unsafe fn store_u8_partial(self, p: *mut u8, n: usize, v: __m512) {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        unsafe { _mm_mask_storeu_epi8(p.cast(), mask_of(n), to_bytes(v)) }
    }

    #[inline(always)]
    unsafe fn store_low_bytes(self, p: *mut u8, bits: __m512) {
        // SAFETY: the caller promises 16 writable bytes; the token proves the instructions.
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(bits))) }
    }

    #[inline(always)]
    unsafe fn store_low_bytes_partial(self, p: *mut u8, n: usize, bits: __m512) {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_castps_si512(bits));
            _mm_mask_storeu_epi8(p.cast(), mask_of(n), bytes);
        }
    }

    /// Packed within quarters of the register and put in order after it: a Zen 4 writes single bytes of a vector to
    /// memory (`vpmovdb`) three times as slowly.
    #[inline(always)]
    unsafe fn store_bytes_of_two(self, p: *mut u8, first: __m512, second: __m512) {
        // SAFETY: the caller promises 32 writable bytes; the token proves the instructions.
        unsafe {
            let words = _mm512_packus_epi32(_mm512_castps_si512(first), _mm512_castps_si512(second));
            let bytes = _mm512_packus_epi16(words, words);
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 4, 8, 12, 1, 5, 9, 13);
            let ordered = _mm512_permutexvar_epi32(order, bytes);
            _mm256_storeu_si256(p.cast(), _mm512_castsi512_si256(ordered));
        }
    }

    #[inline(always)]
    fn dot_u8(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe {
            if VNNI {
                return dot_bytes(a, b, sum);
            }
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            let even = _mm512_madd_epi16(
                _mm512_and_si512(a, _mm512_set1_epi16(0xff)),
                _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b)),
            );
            let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(a), _mm512_srai_epi16::<8>(b));
            let sum = _mm512_add_epi32(_mm512_castps_si512(sum), even);
            _mm512_castsi512_ps(_mm512_add_epi32(sum, odd))
        }
    }

    #[inline(always)]
    fn interleave_bytes(self, a: __m512, b: __m512) -> [__m512; 2] {
        // SAFETY: the token proves the instructions.
        unsafe {
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            [_mm512_castsi512_ps(low), _mm512_castsi512_ps(high)]
        }
    }

    #[inline(always)]
    fn interleave_byte_pairs(self, a: __m512, b: __m512) -> [__m512; 2] {
        // SAFETY: the token proves the instructions.
        unsafe {
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            let (low, high) = (_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
            [_mm512_castsi512_ps(low), _mm512_castsi512_ps(high)]
        }
    }

    #[inline(always)]
    fn groups_in_order(self, [a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
        // SAFETY: the token proves the instructions.
        unsafe {
            // Halves of two vectors each: groups 0 and 1, 2 and 3.
            let (ab01, ab23) = (_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
            let (cd01, cd23) = (_mm512_shuffle_f32x4::<0x44>(c, d), _mm512_shuffle_f32x4::<0xee>(c, d));
            [
                _mm512_shuffle_f32x4::<0x88>(ab01, cd01),
                _mm512_shuffle_f32x4::<0xdd>(ab01, cd01),
                _mm512_shuffle_f32x4::<0x88>(ab23, cd23),
                _mm512_shuffle_f32x4::<0xdd>(ab23, cd23),
            ]
        }
    }

    #[inline(always)]
    fn max_u8(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_castsi512_ps(_mm512_max_epu8(_mm512_castps_si512(a), _mm512_castps_si512(b))) }
    }

    #[inline(always)]
    fn add_i32(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))) }
    }

    #[inline(always)]
    fn mul_i32(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_castsi512_ps(_mm512_mullo_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))) }
    }

    #[inline(always)]
    fn nibbles<const SHIFT: u32>(self, bits: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe {
            // The permutation looks at the lowest four bits of each lane and at no others.
            let all = _mm512_setr_ps(
                0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0,
            );
            _mm512_permutexvar_ps(_mm512_srli_epi32::<SHIFT>(_mm512_castps_si512(bits)), all)
        }
    }

    #[inline(always)]
    fn i32_to_f32(self, bits: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_castps_si512(bits)) }
    }

    #[inline(always)]
    fn f32_to_i32(self, v: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_castsi512_ps(_mm512_cvtps_epi32(v)) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller promises 16 readable numbers; the token proves the instructions.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller promises 16 writable numbers; the token proves the instructions.
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        unsafe { _mm512_maskz_loadu_ps(mask_of(n), p) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: __m512) {
        // SAFETY: masked lanes are not accessed, the others the caller promises; the token proves the
        // instructions.
        unsafe { _mm512_mask_storeu_ps(p, mask_of(n), v) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_div_ps(a, b) }
    }

    /// One step of Newton's brings the 14 bits of the estimate to 28.
    #[inline(always)]
    fn reciprocal(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let estimate = _mm512_rcp14_ps(a);
            let error = _mm512_fnmadd_ps(a, estimate, _mm512_set1_ps(1.0));
            _mm512_fmadd_ps(error, estimate, estimate)
        }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_abs_ps(a) }
    }

    #[inline(always)]
    fn neg(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_xor_ps(_mm512_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    fn floor(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: __m512, sign: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_and_ps(bit, sign), _mm512_andnot_ps(bit, magnitude))
        }
    }

    #[inline(always)]
    fn lt(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn le(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b) }
    }

    #[inline(always)]
    fn eq(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mask_blend_ps(mask, b, a) }
    }

    #[inline(always)]
    fn any(self, mask: __mmask16) -> bool {
        mask != 0
    }

    #[inline(always)]
    fn scale(self, x: __m512, n: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_scalef_ps(x, n) }
    }

    #[inline(always)]
    fn add_exponent(self, x: __m512, shifted: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), exponent))
        }
    }

    #[inline(always)]
    fn exp2_of_steps(self, shifted: __m512) -> Option<__m512> {
        // SAFETY: the token proves the instructions, and the table is two vectors long.
        unsafe {
            let steps = _mm512_castps_si512(shifted);
            let table = EXP2_OF_STEPS.0.as_ptr().cast();
            let (low, high) = (_mm512_load_epi32(table), _mm512_load_epi32(table.add(16)));
            let mantissa = _mm512_permutex2var_epi32(low, steps, high);
            let sum = _mm512_add_epi32(mantissa, _mm512_slli_epi32::<18>(steps));
            Some(_mm512_castsi512_ps(sum))
        }
    }

    #[inline(always)]
    fn split(self, x: __m512) -> (__m512, __m512) {
        // SAFETY: the token proves the instructions.
        unsafe { (_mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_SRC>(x), _mm512_getexp_ps(x)) }
    }

    #[inline(always)]
    fn reduce_add(self, v: __m512) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    fn reduce_max(self, v: __m512) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_reduce_max_ps(v) }
    }

    #[inline(always)]
    unsafe fn load_index(self, p: *const u32) -> __m512i {
        // SAFETY: the caller promises 16 readable numbers; the token proves the instructions.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    fn swizzle(self, v: __m512, index: __m512i) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_permutexvar_ps(index, v) }
    }
}
