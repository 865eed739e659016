//! The transforms along one axis, as straight-line arithmetic on vectors of channels.
//!
//! A pair of points ±a shares everything but a sign: a polynomial is the sum of its even and its odd part,
//! and the two points see their sum and their difference. That takes 24 operations for 8 points instead of
//! the 64 of a matrix. A multiplication by ±1 is left out. All loops have constant bounds and are unrolled.

use super::points::{POINTS, POWERS, PRODUCTS};
use crate::simd::Simd;

/// `c x + y`
#[inline(always)]
fn scaled_add<S: Simd>(s: S, c: f32, x: S::F32, y: S::F32) -> S::F32 {
    if c == 1.0 {
        s.add(y, x)
    } else if c == -1.0 {
        s.sub(y, x)
    } else {
        s.mul_add(s.splat(c), x, y)
    }
}

/// `Σ c_j d[first + 2 j]` up to `j = degree`, whose coefficient is one.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(
    s: S,
    d: &[S::F32; N],
    first: usize,
    degree: usize,
    coefficients: &[f32; 4],
) -> S::F32 {
    let mut sum = d[first + 2 * degree];
    for j in (0..degree).rev() {
        sum = scaled_add(s, coefficients[j], d[first + 2 * j], sum);
    }
    sum
}

/// The input at `N` points: `Bᵀ d` in the words of Lavin and Gray. One point is no transform.
#[inline(always)]
pub(super) fn input<S: Simd, const N: usize>(s: S, d: &[S::F32; N]) -> [S::F32; N] {
    let mut v = *d;
    if N == 1 {
        return v;
    }
    let pairs = (N / 2).saturating_sub(1);
    let all = &PRODUCTS[pairs][pairs];
    v[0] = polynomial(s, d, 0, pairs, all);
    v[N - 1] = polynomial(s, d, 1, pairs, all);
    for pair in 0..pairs {
        let others = &PRODUCTS[pairs][pair];
        let even = polynomial(s, d, 2, pairs - 1, others);
        let odd = polynomial(s, d, 1, pairs - 1, others);
        v[1 + 2 * pair] = scaled_add(s, POINTS[pairs][pair], odd, even);
        v[2 + 2 * pair] = scaled_add(s, -POINTS[pairs][pair], odd, even);
    }
    v
}

/// `M` outputs from products at `N` points: `Aᵀ v` in the words of Lavin and Gray. One point is no transform.
// An iterator over the pairs is not unrolled, which takes up to 40 % more time.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
pub(super) fn output<S: Simd, const N: usize, const M: usize>(s: S, v: &[S::F32; N]) -> [S::F32; M] {
    let mut y = [v[0]; M];
    if N == 1 {
        return y;
    }
    let pairs = (N / 2).saturating_sub(1);
    let mut even = [v[0]; 3];
    let mut odd = [v[0]; 3];
    for pair in 0..pairs {
        even[pair] = s.add(v[1 + 2 * pair], v[2 + 2 * pair]);
        odd[pair] = s.sub(v[1 + 2 * pair], v[2 + 2 * pair]);
    }
    for i in 0..M {
        let parts = if i % 2 == 0 { &even } else { &odd };
        let powers = |pair: usize| POWERS[pairs][pair][i];
        // The first and the last output count the points 0 and infinity, too.
        let mut sum = if i == 0 {
            scaled_add(s, powers(0), parts[0], v[0])
        } else if i + 1 == M {
            scaled_add(s, powers(0), parts[0], v[N - 1])
        } else if powers(0) == 1.0 {
            parts[0]
        } else {
            s.mul(s.splat(powers(0)), parts[0])
        };
        for pair in 1..pairs {
            sum = scaled_add(s, powers(pair), parts[pair], sum);
        }
        y[i] = sum;
    }
    y
}
