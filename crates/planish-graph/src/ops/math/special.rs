//! Functions that the standard library does not have: the error function, and maxima that keep NaN.

use std::f64::consts::PI;

/// Beyond this the continued fraction of `erfc` converges fast; below, the series of `erf` loses little.
const SERIES_END: f64 = 1.0;

/// The error function, `2/√π ∫₀ˣ exp(-t²) dt`, to about 1e-15.
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    let y = if a < SERIES_END { erf_series(a) } else { 1.0 - erfc_fraction(a) };
    y.copysign(x)
}

/// The complement `1 - erf(x)`, keeping its relative accuracy where it is small.
pub fn erfc(x: f64) -> f64 {
    if x < SERIES_END { 1.0 - erf(x) } else { erfc_fraction(x) }
}

/// `erf` for small positive `x`: `2/√π exp(-x²) Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!`, all of whose terms are positive.
fn erf_series(x: f64) -> f64 {
    let square = x * x;
    let (mut term, mut sum) = (x, x);
    let mut odd = 1.0;
    while term > sum * (f64::EPSILON / 4.0) {
        odd += 2.0;
        term *= 2.0 * square / odd;
        sum += term;
    }
    2.0 / PI.sqrt() * (-square).exp() * sum
}

/// `erfc` for large positive `x`: `exp(-x²)/√π · 1/(x + ½/(x + 1/(x + 3⁄2/(x + …))))`, from the inside out.
fn erfc_fraction(x: f64) -> f64 {
    if x > 30.0 {
        return 0.0;
    }
    let depth = 12 + (240.0 / (x * x)) as u32;
    let tail = (1..=depth).rev().fold(x, |tail, n| x + 0.5 * n as f64 / tail);
    (-x * x).exp() / (PI.sqrt() * tail)
}

/// The larger, NaN where either is NaN (NumPy's `maximum`; `f64::max` drops NaN).
pub fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The smaller, NaN where either is NaN.
pub fn minimum(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_accurate() {
        let known = [
            (1e-10, 1.1283791670955126e-10, 0.999999999887162),
            (0.1, 0.1124629160182849, 0.8875370839817152),
            (0.5, 0.5204998778130465, 0.4795001221869535),
            (1.0, 0.8427007929497149, 0.15729920705028513),
            (1.5, 0.9661051464753108, 0.033894853524689274),
            (1.9, 0.9927904292352575, 0.0072095707647425325),
            (1.99999, 0.9953220583449658, 0.004677941655034253),
            (2.0, 0.9953222650189527, 0.004677734981047265),
            (2.1, 0.997020533343667, 0.002979466656332984),
            (2.5, 0.999593047982555, 0.0004069520174449589),
            (3.0, 0.9999779095030014, 2.2090496998585438e-05),
            (4.0, 0.9999999845827421, 1.541725790028002e-08),
            (5.0, 0.9999999999984626, 1.5374597944280351e-12),
            (6.0, 1.0, 2.1519736712498916e-17),
        ];
        for (x, y, complement) in known {
            assert!((erf(x) - y).abs() <= 1e-15 * y, "erf({x}) = {}", erf(x));
            assert!((erf(-x) + y).abs() <= 1e-15 * y, "erf(-{x})");
            assert!((erfc(x) - complement).abs() <= 2e-15 * complement, "erfc({x}) = {}", erfc(x));
        }
    }

    #[test]
    fn erf_at_the_ends() {
        assert_eq!((erf(0.0), erf(f64::INFINITY), erf(f64::NEG_INFINITY)), (0.0, 1.0, -1.0));
        assert!(erf(-0.0).is_sign_negative() && erf(f64::NAN).is_nan() && erfc(f64::NAN).is_nan());
        assert_eq!((erf(1e-300), erfc(-40.0), erfc(40.0)), (1.1283791670955126e-300, 2.0, 0.0));
    }

    #[test]
    fn extremes_keep_nan() {
        assert!(maximum(f64::NAN, 1.0).is_nan() && maximum(1.0, f64::NAN).is_nan());
        assert!(minimum(f64::NAN, 1.0).is_nan() && minimum(1.0, f64::NAN).is_nan());
        assert_eq!((maximum(1.0, 2.0), minimum(1.0, 2.0)), (2.0, 1.0));
    }
}
