//! One-dimensional complex transforms, each lane its own.
//!
//! A length is at most the product of two factors that transform in registers (Cooley and Tukey, *An Algorithm for the
//! Machine Calculation of Complex Fourier Series*, 1965). With `n = B a + b` and `k = a' + A b'`, the sum over `a` is
//! a transform of length A for each `b`, then each element is turned by `e^(-2πi a' b / AB)`, and the sum over `b` is a
//! transform of length B for each `a'`. The second stage delivers in natural order, so nothing is permuted.

use std::mem::MaybeUninit;

use crate::simd::Simd;

/// The longest transform.
pub(super) const MAX_SIZE: usize = 64;

/// The cosine and the sine of `2π m / n` for the exponents `m` below the length `n` of a transform.
pub(super) type Roots = [[f32; 2]; MAX_SIZE];

/// The roots for transforms of this length, which is at most [`MAX_SIZE`].
pub(super) fn roots(size: usize) -> Roots {
    let mut roots = [[0.0; 2]; MAX_SIZE];
    for (m, root) in roots[..size].iter_mut().enumerate() {
        let (sin, cos) = (std::f64::consts::TAU * m as f64 / size as f64).sin_cos();
        *root = [cos as f32, sin as f32];
    }
    roots
}

/// A vector of complex numbers.
#[derive(Clone, Copy)]
pub(super) struct Complex<V> {
    pub re: V,
    pub im: V,
}

impl<V: Copy> Complex<V> {
    /// Real and imaginary parts exchanged. A transform between two exchanges is the inverse, times the length.
    #[inline(always)]
    pub(super) fn swapped(self) -> Self {
        Self { re: self.im, im: self.re }
    }
}

#[inline(always)]
fn add<S: Simd>(s: S, a: Complex<S::F32>, b: Complex<S::F32>) -> Complex<S::F32> {
    Complex { re: s.add(a.re, b.re), im: s.add(a.im, b.im) }
}

#[inline(always)]
fn sub<S: Simd>(s: S, a: Complex<S::F32>, b: Complex<S::F32>) -> Complex<S::F32> {
    Complex { re: s.sub(a.re, b.re), im: s.sub(a.im, b.im) }
}

/// `x` times `cos - i sin`.
#[inline(always)]
fn turn<S: Simd>(s: S, x: Complex<S::F32>, [cos, sin]: [f32; 2]) -> Complex<S::F32> {
    let (cos, sin) = (s.splat(cos), s.splat(sin));
    Complex { re: s.mul_add(x.im, sin, s.mul(x.re, cos)), im: s.mul_add(x.re, s.neg(sin), s.mul(x.im, cos)) }
}

/// The transform of four numbers.
#[inline(always)]
fn dft4<S: Simd>(s: S, x: [Complex<S::F32>; 4]) -> [Complex<S::F32>; 4] {
    let (a, b) = (add(s, x[0], x[2]), sub(s, x[0], x[2]));
    let (c, d) = (add(s, x[1], x[3]), sub(s, x[1], x[3]));
    [
        add(s, a, c),
        Complex { re: s.add(b.re, d.im), im: s.sub(b.im, d.re) },
        sub(s, a, c),
        Complex { re: s.sub(b.re, d.im), im: s.add(b.im, d.re) },
    ]
}

/// The transform of 1, 4 or 8 numbers, in place.
#[inline(always)]
fn dft<S: Simd, const N: usize>(s: S, x: &mut [Complex<S::F32>; N]) {
    match N {
        4 => {
            [x[0], x[1], x[2], x[3]] = dft4(s, [x[0], x[1], x[2], x[3]]);
        }
        8 => {
            let even = dft4(s, [x[0], x[2], x[4], x[6]]);
            let odd = dft4(s, [x[1], x[3], x[5], x[7]]);
            let half = s.splat(std::f32::consts::FRAC_1_SQRT_2);
            let minus_half = s.neg(half);
            // The odd ones are turned by multiples of an eighth: 1, (1 - i) / √2, -i, (-1 - i) / √2.
            x[0] = add(s, even[0], odd[0]);
            x[4] = sub(s, even[0], odd[0]);
            let (e, o) = (even[1], odd[1]);
            let turned = Complex { re: s.add(o.re, o.im), im: s.sub(o.im, o.re) };
            x[1] = Complex { re: s.mul_add(turned.re, half, e.re), im: s.mul_add(turned.im, half, e.im) };
            x[5] = Complex {
                re: s.mul_add(turned.re, minus_half, e.re),
                im: s.mul_add(turned.im, minus_half, e.im),
            };
            let (e, o) = (even[2], odd[2]);
            x[2] = Complex { re: s.add(e.re, o.im), im: s.sub(e.im, o.re) };
            x[6] = Complex { re: s.sub(e.re, o.im), im: s.add(e.im, o.re) };
            let (e, o) = (even[3], odd[3]);
            let turned = Complex { re: s.sub(o.im, o.re), im: s.add(o.re, o.im) };
            x[3] =
                Complex { re: s.mul_add(turned.re, half, e.re), im: s.mul_add(turned.im, minus_half, e.im) };
            x[7] =
                Complex { re: s.mul_add(turned.re, minus_half, e.re), im: s.mul_add(turned.im, half, e.im) };
        }
        _ => debug_assert!(N == 1, "a transform of {N} numbers"),
    }
}

/// The transform `X[k] = Σ x[n] e^(-2πi n k / AB)` of the `A * B` numbers that `load` delivers; `store` gets each `k`
/// once. A and B are 1, 4 or 8, and `roots` those of `A * B`.
#[inline(always)]
pub(super) fn transform<S: Simd, const A: usize, const B: usize>(
    s: S,
    roots: &Roots,
    load: impl Fn(usize) -> Complex<S::F32>,
    mut store: impl FnMut(usize, Complex<S::F32>),
) {
    let zero = Complex { re: s.zero(), im: s.zero() };
    let mut middle = [[MaybeUninit::uninit(); B]; A];
    for b in 0..B {
        let mut x = [zero; A];
        for (a, x) in x.iter_mut().enumerate() {
            *x = load(B * a + b);
        }
        dft(s, &mut x);
        middle[0][b].write(x[0]);
        for a in 1..A {
            let x = if b == 0 { x[a] } else { turn(s, x[a], roots[a * b]) };
            middle[a][b].write(x);
        }
    }
    for (a, middle) in middle.iter().enumerate() {
        let mut x = [zero; B];
        for (x, middle) in x.iter_mut().zip(middle) {
            // SAFETY: the first stage wrote every element.
            *x = unsafe { middle.assume_init() };
        }
        dft(s, &mut x);
        for (b, &x) in x.iter().enumerate() {
            store(a + A * b, x);
        }
    }
}
