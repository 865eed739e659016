//! Conversions against the definition, on every instruction set of this machine.

use super::*;
use crate::elementwise::{Binary, Unary, binary, convert, unary};
use crate::epilogue::Activation;
use crate::pooling::{PoolAxis, PoolProblem, Pooling, pool};
use crate::strided::Strided;
use crate::testing::random;
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};
use proptest::prelude::*;

/// Converts a slice to another element, whole vectors and a last one that is partial.
struct Convert<'a, A, B>(&'a [A], &'a mut [B]);

impl<A: Element, B: Element> SimdOp for Convert<'_, A, B> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (from, to) in self.0.chunks(S::LANES).zip(self.1.chunks_mut(S::LANES)) {
            let (p, q, n) = (from.as_ptr(), to.as_mut_ptr(), from.len());
            // SAFETY: both chunks hold `n` numbers, a vector where `n` is one.
            unsafe {
                if n == S::LANES {
                    B::store(s, q, A::load(s, p))
                } else {
                    B::store_partial(s, q, n, A::load_partial(s, p, n))
                }
            }
        }
    }
}

/// Runs on plain AVX-512 as well, where [`Element::dispatch`] would take the instructions for `bf16`.
fn on_all<A: Element, B: Element>(from: &[A], check: impl Fn(&str, bool, &[B])) {
    for isa in Isa::available() {
        let mut to = vec![B::default(); from.len()];
        dispatch(isa, Convert(from, &mut to));
        check(&format!("{isa}"), false, &to);
        dispatch_bf16(isa, Convert(from, &mut to));
        check(&format!("{isa} with bf16"), isa.has_bf16(), &to);
    }
}

/// To nearest, ties to even, by the definition: the nearer of the two neighbours among all `bf16`.
fn nearest(x: f32) -> bf16 {
    let cut = x.to_bits() & 0xffff_0000;
    let (below, above) = (f64::from(f32::from_bits(cut)), cut.wrapping_add(0x1_0000));
    // One step beyond the largest number rounding goes as if the exponent could grow.
    let above_value = match f32::from_bits(above) {
        y if y.is_infinite() => 2f64.powi(128).copysign(f64::from(x)),
        y => f64::from(y),
    };
    let (down, up) = ((f64::from(x) - below).abs(), (above_value - f64::from(x)).abs());
    let up_wins = up < down || up == down && (cut >> 16) & 1 == 1;
    bf16::from_bits(((if up_wins { above } else { cut }) >> 16) as u16)
}

fn check_rounding(x: &[f32]) {
    on_all::<f32, bf16>(x, |isa, flushes, made| {
        for (&x, &y) in x.iter().zip(made) {
            if x.is_nan() {
                assert!(y.is_nan() && y.to_bits() & 0x40 != 0, "{isa}: {:#x} → {y:?}", x.to_bits());
                continue;
            }
            let want =
                if flushes && x.is_subnormal() { bf16::from_f32(0f32.copysign(x)) } else { nearest(x) };
            assert_eq!(y.to_bits(), want.to_bits(), "{isa}: {x:e}");
        }
    });
}

#[test]
fn every_pattern_widens_exactly_and_comes_back() {
    let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    on_all::<bf16, f32>(&all, |isa, _, made| {
        for (x, y) in all.iter().zip(made) {
            assert_eq!(y.to_bits(), u32::from(x.to_bits()) << 16, "{isa}: {x:?}");
        }
    });
    let wide: Vec<f32> = all.iter().map(|x| f32::from_bits(u32::from(x.to_bits()) << 16)).collect();
    check_rounding(&wide);
    // Between each pattern and the next: exactly half way, and one bit less and more.
    for low in [0x7fffu32, 0x8000, 0x8001, 1, 0xffff] {
        check_rounding(&wide.iter().map(|x| f32::from_bits(x.to_bits() | low)).collect::<Vec<_>>());
    }
}

/// To nearest, ties to even, by the definition: the nearer of the two neighbours among all `f16`.
fn nearest_half(x: f32) -> f16 {
    const INFINITY: u16 = 0x7c00;
    // One step beyond the largest number rounding goes as if the exponent could grow.
    let value = |bits: u16| if bits == INFINITY { 65536.0 } else { f16::from_bits(bits).to_f64() };
    let magnitude = f64::from(x).abs();
    // Patterns from zero to infinity are in the order of their values.
    let (mut below, mut above) = (0, INFINITY + 1);
    while above - below > 1 {
        let middle = (below + above) / 2;
        if value(middle) <= magnitude { below = middle } else { above = middle }
    }
    if below < INFINITY {
        let (down, up) = (magnitude - value(below), value(below + 1) - magnitude);
        below += u16::from(up < down || up == down && below & 1 == 1);
    }
    f16::from_bits(below | if x.is_sign_negative() { 0x8000 } else { 0 })
}

fn check_half_rounding(x: &[f32]) {
    let check = || {
        on_all::<f32, f16>(x, |isa, _, made| {
            for (&x, &y) in x.iter().zip(made) {
                if x.is_nan() {
                    assert!(y.is_nan() && y.to_bits() & 0x200 != 0, "{isa}: {:#x} → {y:?}", x.to_bits());
                } else {
                    assert_eq!(y.to_bits(), nearest_half(x).to_bits(), "{isa}: {x:e}");
                }
            }
        });
    };
    check();
    // All `f32` that this flushes are far below the smallest `f16`, and no `f16` is flushed.
    let _flushing = crate::denormals::FlushDenormals::new();
    check();
}

#[test]
fn every_half_widens_exactly_and_comes_back() {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let wide: Vec<f32> = all.iter().map(|x| x.to_f32()).collect();
    for _flushing in [None, Some(crate::denormals::FlushDenormals::new())] {
        on_all::<f16, f32>(&all, |isa, _, made| {
            for ((x, &y), wide) in all.iter().zip(made).zip(&wide) {
                assert!(x.is_nan() && y.is_nan() || x.to_f64() == f64::from(y), "{isa}: {x:?} → {y}");
                assert_eq!(y.is_sign_negative(), wide.is_sign_negative(), "{isa}: {x:?}");
            }
        });
    }
    check_half_rounding(&wide);
    // Half way from each number to the next, and a bit of an `f32` less and more.
    let ways = all.iter().filter(|x| x.is_finite()).map(|x| {
        let next = f16::from_bits(x.to_bits() + 1);
        let next = if next.is_finite() { next.to_f32() } else { 65536f32.copysign(x.to_f32()) };
        (x.to_f32() + next) / 2.0
    });
    check_half_rounding(&ways.flat_map(|way| [way, way.next_down(), way.next_up()]).collect::<Vec<_>>());
    // From where on there is nothing but infinity.
    check_half_rounding(&[65504.0, 65519.996, 65520.0, 1e5, f32::MAX, f32::INFINITY, -65520.0, -f32::MAX]);
}

proptest! {
    #[test]
    fn any_number_rounds_to_its_nearest(bits in prop::collection::vec(any::<u32>(), 1..70)) {
        let numbers: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        check_rounding(&numbers);
        check_half_rounding(&numbers);
        // Most patterns are beyond the range of `f16`.
        check_half_rounding(&numbers.iter().map(|x| (x.abs().ln() * 100.0).copysign(*x)).collect::<Vec<_>>());
    }
}

/// Adds the products of pairs to sums.
struct Dot<'a> {
    left: &'a [bf16],
    right: &'a [bf16],
    sums: &'a mut [f32],
}

impl SimdOp for Dot<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for i in (0..self.sums.len()).step_by(S::LANES) {
            // SAFETY: the caller gives whole vectors of sums and twice as many factors.
            unsafe {
                let (a, b) = (self.left[2 * i..].as_ptr().cast(), self.right[2 * i..].as_ptr().cast());
                let sum = s.load(self.sums[i..].as_ptr());
                s.store(self.sums[i..].as_mut_ptr(), bf16::multiply_add(s, s.load(a), s.load(b), sum));
            }
        }
    }
}

#[test]
fn pairs_are_multiplied_and_added() {
    let round = |seed| random(seed, 128, -1.0, 1.0).into_iter().map(bf16::from_f32).collect::<Vec<_>>();
    let (left, right, start) = (round(1), round(2), random(3, 64, -1.0, 1.0));
    let check = |isa: &str, sums: &[f32]| {
        for (i, &sum) in sums.iter().enumerate() {
            let product = |j: usize| f64::from(left[j].to_f32()) * f64::from(right[j].to_f32());
            let want = f64::from(start[i]) + product(2 * i) + product(2 * i + 1);
            // Each of at most three roundings loses half a unit of numbers below 4.
            assert!((f64::from(sum) - want).abs() < 3.0 * 2.4e-7, "{isa}: lane {i}: {sum} for {want}");
        }
    };
    for isa in Isa::available() {
        let mut sums = start.clone();
        dispatch(isa, Dot { left: &left, right: &right, sums: &mut sums });
        check(isa.name(), &sums);
        let mut sums = start.clone();
        dispatch_bf16(isa, Dot { left: &left, right: &right, sums: &mut sums });
        check(&format!("{isa} with bf16"), &sums);
    }
}

/// Runs a kernel on rows of short numbers, and on the same numbers as `f32`; the one must give what the other gives,
/// rounded. That the other is right is what the tests of each kernel say.
fn check_kernel<T: Element>(
    [rows, channels, gap, out_rows]: [usize; 4],
    short: impl Fn(Isa, &ThreadPool, Rows<'_, T>, RowsMut<'_, T>),
    long: impl Fn(Isa, &ThreadPool, Rows<'_>, RowsMut<'_>),
) {
    let stride = channels + gap;
    let input: Vec<T> = random(5, rows * stride, -3.0, 3.0).into_iter().map(T::from_f32).collect();
    let wide: Vec<f32> = input.iter().map(|x| x.to_f32()).collect();
    for isa in Isa::available() {
        let (mut made, mut want) =
            (vec![T::from_f32(1.0); out_rows * stride], vec![1.0f32; out_rows * stride]);
        short(
            isa,
            &ThreadPool::new(3),
            Rows::new(&input, rows, channels, stride).unwrap(),
            RowsMut::new(&mut made, out_rows, channels, stride).unwrap(),
        );
        long(
            isa,
            &ThreadPool::new(1),
            Rows::new(&wide, rows, channels, stride).unwrap(),
            RowsMut::new(&mut want, out_rows, channels, stride).unwrap(),
        );
        for (i, (made, want)) in made.iter().zip(&want).enumerate() {
            assert_eq!(*made, T::from_f32(*want), "{isa}: row {}, channel {}", i / stride, i % stride);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn pooling_rounds_what_it_gives_for_f32(
        size in 1usize..9, kernel in 1usize..4, stride in 1usize..3, channels in 1usize..90, gap in 0usize..3,
        kind in prop::sample::select(&[Pooling::Max, Pooling::Average { count_include_pad: true }, Pooling::L2][..]),
    ) {
        let output = (size + 2 - kernel) / stride + 1;
        let axis =
            PoolAxis { input: size, output, kernel, stride, dilation: 1, pad_begin: 1, pad_end: 1 };
        let problem = PoolProblem::plane(1, axis, axis);
        fn check<T: Element>(shape: [usize; 4], kind: Pooling, problem: &PoolProblem) {
            check_kernel::<T>(
                shape,
                |isa, threads, from, to| pool(isa, threads, kind, problem, from, to),
                |isa, threads, from, to| pool(isa, threads, kind, problem, from, to),
            );
        }
        let shape = [size * size, channels, gap, output * output];
        check::<bf16>(shape, kind, &problem);
        check::<f16>(shape, kind, &problem);
    }

    #[test]
    fn functions_round_what_they_give_for_f32(rows in 1usize..30, channels in 1usize..90, gap in 0usize..3) {
        check_functions::<bf16>(rows, channels, gap);
        check_functions::<f16>(rows, channels, gap);
    }

    #[test]
    fn conversions_leave_gaps_alone(rows in 1usize..30, channels in 1usize..90, gap in 0usize..3) {
        check_conversions::<bf16>(rows, channels, gap);
        check_conversions::<f16>(rows, channels, gap);
    }
}

fn check_functions<T: Element>(rows: usize, channels: usize, gap: usize) {
    for function in
        [Unary::Activation(Activation::HardSwish), Unary::Activation(Activation::Silu), Unary::Abs]
    {
        check_kernel::<T>(
            [rows, channels, gap, rows],
            |isa, threads, from, to| unary(isa, threads, function, from, to),
            |isa, threads, from, to| unary(isa, threads, function, from, to),
        );
    }
    // The first row, and the first channel, repeated to all of them.
    for (function, activation, shape) in [
        (Binary::Add, Activation::Relu, [rows, channels]),
        (Binary::Mul, Activation::None, [1, channels]),
        (Binary::Sub, Activation::Clip { min: -1.0, max: 2.0 }, [rows, 1]),
    ] {
        fn run<T: Element>(
            (isa, threads): (Isa, &ThreadPool),
            (function, activation, shape): (Binary, Activation, [usize; 2]),
            from: Rows<'_, T>,
            to: RowsMut<'_, T>,
        ) {
            let other = Strided::from(from).window(0, 0, shape[0], 1).window(1, 0, shape[1], 1);
            binary(isa, threads, function, activation, from.into(), other, to.into());
        }
        let what = (function, activation, shape);
        check_kernel::<T>(
            [rows, channels, gap, rows],
            |isa, threads, from, to| run((isa, threads), what, from, to),
            |isa, threads, from, to| run((isa, threads), what, from, to),
        );
    }
}

fn check_conversions<T: Element>(rows: usize, channels: usize, gap: usize) {
    check_kernel::<T>(
        [rows, channels, gap, rows],
        |isa, threads, from, to| {
            let mut wide = vec![0.0; rows * channels];
            convert(isa, threads, from, RowsMut::dense(&mut wide, rows, channels).unwrap());
            convert(isa, threads, Rows::dense(&wide, rows, channels).unwrap(), to);
        },
        |isa, threads, from, to| unary(isa, threads, Unary::Activation(Activation::None), from, to),
    );
}

/// [`Simd::dot_u8`] and the other operations on integers, of whole vectors.
struct Integers<'a> {
    left: &'a [u32],
    right: &'a [u32],
    out: &'a mut [[u32; 4]],
}

impl SimdOp for Integers<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let parts = self.left.chunks_exact(S::LANES).zip(self.right.chunks_exact(S::LANES));
        for ((left, right), out) in parts.zip(self.out.chunks_exact_mut(S::LANES)) {
            let mut lanes = [0f32; 16];
            // SAFETY: both chunks hold a vector of words, and so does `lanes`.
            unsafe {
                let (a, b) = (s.load(left.as_ptr().cast()), s.load(right.as_ptr().cast()));
                let whole = s.i32_to_f32(b);
                let results = [
                    s.dot_u8(a, b, b),
                    s.add_i32(a, b),
                    s.mul_i32(a, b),
                    s.f32_to_i32(s.mul(whole, s.splat(0.5))),
                ];
                for (i, result) in results.into_iter().enumerate() {
                    s.store(lanes.as_mut_ptr(), result);
                    out.iter_mut().zip(lanes).for_each(|(out, lane)| out[i] = lane.to_bits());
                }
            }
        }
    }
}

#[test]
fn integers_are_exact() {
    let words = |seed: u64| -> Vec<u32> {
        let all = random(seed, 64 * 16 * 4, 0.0, 256.0);
        let extremes = [0x8080_8080, 0xffff_ffff, 0x7f7f_7f7f, 0, 0xff00_80ff];
        let drawn =
            all.chunks(4).map(|b| u32::from_le_bytes([b[0] as u8, b[1] as u8, b[2] as u8, b[3] as u8]));
        drawn
            .enumerate()
            .map(|(i, w)| if i % 7 == 0 { extremes[i / 7 * seed as usize % 5] } else { w })
            .collect()
    };
    let (left, right) = (words(1), words(2));
    for isa in Isa::available() {
        for best in [false, true] {
            let mut out = vec![[0; 4]; left.len()];
            let op = Integers { left: &left, right: &right, out: &mut out };
            if best {
                dispatch_bytes(isa.serving(ElementType::U8), op)
            } else {
                dispatch(isa, op)
            }
            for (i, out) in out.iter().enumerate() {
                let (a, b) = (left[i], right[i]);
                let pairs = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
                let dot: i32 = pairs.map(|(a, b)| i32::from(a) * i32::from(b as i8)).sum();
                let half = (f64::from(b as i32 as f32) * 0.5).round_ties_even() as i32 as u32;
                let want = [b.wrapping_add(dot as u32), a.wrapping_add(b), a.wrapping_mul(b), half];
                assert_eq!(*out, want, "{isa} {best}: {a:x} {b:x}");
            }
        }
    }
}

#[test]
fn levels_are_rounded_to_even_and_limited() {
    let mut numbers: Vec<f32> = (-40..1100).map(|i| i as f32 * 0.25).collect();
    numbers.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e20, -1e20, 0.499_999_97, -0.0]);
    let wanted: Vec<u8> = numbers.iter().map(|x| x.round_ties_even() as u8).collect();
    for isa in Isa::available() {
        let mut levels = vec![0u8; numbers.len()];
        dispatch(isa, Convert(&numbers, &mut levels));
        assert_eq!(levels, wanted, "{isa}");
        let mut back = vec![0f32; levels.len()];
        dispatch(isa, Convert(&levels, &mut back));
        assert!(back.iter().zip(&wanted).all(|(x, &level)| *x == f32::from(level)), "{isa}");
    }
}
