//! Elementary functions of whole vectors.
//!
//! Activations need `exp` and its relatives by the million, and the standard library offers them one number at
//! a time. The polynomials are Cephes' single-precision minimax ones (S. L. Moshier, *Methods and Programs for
//! Mathematical Functions*, 1989), with N. Juffa's for `erf`; the argument reductions follow Cody and Waite
//! (1980). Errors below are the largest found against `f64` over about a million arguments spread over all bit
//! patterns, on every instruction set (`simd/tests.rs`). NaN gives NaN everywhere.

use super::Simd;

/// `ln 2` in two parts; the first has few enough bits that its product with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Evaluates a polynomial, the highest coefficient first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F32, coefficients: [f32; N]) -> S::F32 {
    let mut sum = s.splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = s.mul_add(sum, x, s.splat(coefficient));
    }
    sum
}

/// `(n, e^r - 1)` with `x = n ln 2 + r`, `n` whole and `|r| <= ln 2 / 2`.
#[inline(always)]
fn reduced_exp_m1<S: Simd>(s: S, x: S::F32) -> (S::F32, S::F32) {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN_2_HIGH), x);
    let r = s.mul_add(n, s.splat(-LN_2_LOW), r);
    let p =
        polynomial(s, r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    (n, s.mul_add(p, s.mul(r, r), r))
}

/// `e^x` to a relative error of 1.8e-7 (one unit in the last place where the result is subnormal); infinity
/// above 88.73, zero below -104.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let x = s.max(s.splat(-104.0), s.min(s.splat(89.0), x));
    let (n, m) = reduced_exp_m1(s, x);
    s.scale(s.add(m, s.splat(1.0)), n)
}

/// `e^x - 1` to a relative error of 3e-7, also around zero.
#[inline(always)]
pub fn exp_m1<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let x = s.max(s.splat(-104.0), s.min(s.splat(89.0), x));
    let (n, m) = reduced_exp_m1(s, x);
    let half = s.scale(s.splat(0.5), n);
    let sum = s.mul_add(half, m, s.sub(half, s.splat(0.5)));
    s.add(sum, sum)
}

/// The natural logarithm to a relative error of 2e-7 (1e-7 absolute next to 1); minus infinity of zero, NaN of
/// negative numbers.
#[inline(always)]
pub fn ln<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let one = s.splat(1.0);
    let tiny = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let normal = s.select(tiny, s.mul(x, s.splat(8_388_608.0)), x);
    let (m, e) = s.split(normal);
    let e = s.sub(e, s.select(tiny, s.splat(23.0), s.zero()));
    let upper = s.lt(s.splat(std::f32::consts::SQRT_2), m);
    let m = s.select(upper, s.mul(m, s.splat(0.5)), m);
    let e = s.select(upper, s.add(e, one), e);
    let f = s.sub(m, one);
    let square = s.mul(f, f);
    let p = polynomial(
        s,
        f,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let tail = s.mul(s.mul(p, f), square);
    let tail = s.mul_add(e, s.splat(LN_2_LOW), tail);
    let tail = s.mul_add(square, s.splat(-0.5), tail);
    let finite = s.mul_add(e, s.splat(LN_2_HIGH), s.add(f, tail));
    let infinite = s.eq(x, s.splat(f32::INFINITY));
    let result = s.select(infinite, x, finite);
    let result = s.select(s.eq(x, s.zero()), s.splat(f32::NEG_INFINITY), result);
    let valid = s.le(s.zero(), x);
    s.select(valid, result, s.splat(f32::NAN))
}

/// `ln(1 + x)` for `0 <= x` to a relative error of 3e-7, also around zero.
#[inline(always)]
fn ln_1p_positive<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let one = s.splat(1.0);
    let sum = s.add(x, one);
    let lost = s.sub(x, s.sub(sum, one));
    s.add(ln(s, sum), s.div(lost, sum))
}

/// `ln(1 + e^x)` to a relative error of 4e-7 where the result is normal.
#[inline(always)]
pub fn softplus<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let tail = ln_1p_positive(s, exp(s, s.neg(s.abs(x))));
    s.add(s.max(s.zero(), x), tail)
}

/// `1 + e^-x` for `-88 <= x <= 88`, to a relative error of `3e-7 + 7e-8 |x|`: activations are computed by the million, and
/// where the argument is large the result is next to nothing beside what it is added to.
///
/// With `x log2 e = k/32 + r`, `|r| <= 1/64`, `2^(k/32)` is looked up and `2^r` the minimax polynomial of degree 2 (error
/// 5.3e-8), its value at zero exact. Without such a table, `k` is whole and the polynomial, for `|r| <= 1/2`, of degree
/// 5. Measured in the first cache, SiLU takes 10.5 cycles a vector of 16 with the table and 12.8 with the long polynomial.
#[inline(always)]
fn one_and_exp_of_negative<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let (one, ln_2) = (s.splat(1.0), std::f32::consts::LN_2);
    // Adding 1.5 * 2^18 rounds to a multiple of 1/32, and 1.5 * 2^23 to a whole number; either leaves it in the low bits.
    let reduced = |shift: f32| {
        let (log2_e, shift) = (s.splat(-std::f32::consts::LOG2_E), s.splat(shift));
        let shifted = s.mul_add(x, log2_e, shift);
        (shifted, s.mul_add(x, log2_e, s.sub(shift, shifted)))
    };
    let (shifted, r) = reduced(393_216.0);
    if let Some(power) = s.exp2_of_steps(shifted) {
        return s.mul_add(power, polynomial(s, r, [0.240_226_5, 0.693_157_3, 1.0]), one);
    }
    let (shifted, r) = reduced(12_582_912.0);
    let p = polynomial(s, r, [1.330_060_5e-3, 9.669_691e-3, 5.550_558_5e-2, 2.402_228_3e-1, ln_2, 1.0]);
    s.add(s.add_exponent(p, shifted), one)
}

/// `1 / (1 + e^-x)` to a relative error of `3e-7 + 7e-8 |x|` where the result is above 1e-31; at most 1e-38 below.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let y = s.reciprocal(one_and_exp_of_negative(s, s.max(s.splat(-88.0), s.min(s.splat(88.0), x))));
    s.select(s.eq(x, x), y, x)
}

/// The hyperbolic tangent to a relative error of 3e-7.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let one = s.splat(1.0);
    let magnitude = s.abs(x);
    let e = exp(s, s.mul(magnitude, s.splat(-2.0)));
    let far = s.copy_sign(s.div(s.sub(one, e), s.add(one, e)), x);
    let z = s.mul(x, x);
    let p = polynomial(s, z, [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let near = s.mul_add(s.mul(p, z), x, x);
    s.select(s.lt(magnitude, s.splat(0.625)), near, far)
}

/// The error function to a relative error of 3e-7.
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let z = s.mul(x, x);
    let p = polynomial(
        s,
        z,
        [-5.967_617e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1],
    );
    let near = s.mul_add(p, x, x);
    // Beyond 4 the result rounds to one.
    let t = s.min(s.splat(4.0), s.abs(x));
    let q = polynomial(
        s,
        t,
        [
            -1.728_534_7e-5,
            3.831_971_3e-4,
            -3.883_964_4e-3,
            2.425_462_2e-2,
            -1.067_778_8e-1,
            -6.348_467e-1,
            -1.287_175_1e-1,
        ],
    );
    let exponent = s.sub(s.mul(q, t), t);
    let far = s.copy_sign(s.sub(s.splat(1.0), exp(s, exponent)), x);
    s.select(s.lt(s.abs(x), s.splat(0.927_734_4)), near, far)
}

/// The Gaussian error linear unit `x (1 + erf(x / sqrt 2)) / 2` (Hendrycks and Gimpel, arXiv 1606.08415); the
/// absolute error is at most 2e-7 of `max(1, |x|)`.
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let half = s.mul(x, s.splat(0.5));
    // Minus infinity times zero would be NaN; the limit is zero.
    let half = s.max(s.splat(-64.0), half);
    let e = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    s.mul(half, s.add(e, s.splat(1.0)))
}

/// `x / (1 + e^-x)` (also called swish; Elfwing et al., arXiv 1702.03118) to a relative error of `4e-7 + 7e-8 |x|` where
/// the result is above 1e-29; at most 1e-36 below, also at minus infinity.
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let x = s.max(s.splat(-88.0), x);
    s.mul(x, s.reciprocal(one_and_exp_of_negative(s, s.min(s.splat(88.0), x))))
}

/// `x tanh(ln(1 + e^x))` (Misra, arXiv 1908.08681) to a relative error of 5e-7, with its limit 0 at minus
/// infinity.
#[inline(always)]
pub fn mish<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let x = s.max(s.splat(-1e4), x);
    // tanh(ln(1 + e)) = e (e + 2) / (e (e + 2) + 2), which is 1 long before x reaches 20.
    let e = exp(s, s.min(s.splat(20.0), x));
    let n = s.mul(e, s.add(e, s.splat(2.0)));
    s.mul(x, s.div(n, s.add(n, s.splat(2.0))))
}
