//! Every vector operation and function against the standard library, on every instruction set of this machine.

use super::*;

/// Applies a vector function to a slice in place, the tail through partial loads and stores.
struct Apply<'a> {
    function: Function,
    data: &'a mut [f32],
}

#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    ExpM1,
    Ln,
    Softplus,
    Sigmoid,
    Tanh,
    Erf,
    Gelu,
    Silu,
    Mish,
}

impl SimdOp for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for chunk in self.data.chunks_mut(S::LANES) {
            // SAFETY: the chunk holds `chunk.len()` numbers.
            let x = unsafe { s.load_partial(chunk.as_ptr(), chunk.len()) };
            let y = match self.function {
                Function::Exp => math::exp(s, x),
                Function::ExpM1 => math::exp_m1(s, x),
                Function::Ln => math::ln(s, x),
                Function::Softplus => math::softplus(s, x),
                Function::Sigmoid => math::sigmoid(s, x),
                Function::Tanh => math::tanh(s, x),
                Function::Erf => math::erf(s, x),
                Function::Gelu => math::gelu(s, x),
                Function::Silu => math::silu(s, x),
                Function::Mish => math::mish(s, x),
            };
            // SAFETY: the chunk holds `chunk.len()` numbers.
            unsafe { s.store_partial(chunk.as_mut_ptr(), chunk.len(), y) };
        }
    }
}

/// The error function in double precision: its Maclaurin series, and beyond 3 the continued fraction of its
/// complement.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    let value = if a < 3.0 {
        let mut term = a;
        let mut sum = a;
        for n in 1..100 {
            term *= -a * a / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut fraction = a;
        for k in (1..60).rev() {
            fraction = a + k as f64 / 2.0 / fraction;
        }
        1.0 - (-a * a).exp() / fraction / std::f64::consts::PI.sqrt()
    };
    value.copysign(x)
}

fn exact(function: Function, x: f64) -> f64 {
    match function {
        Function::Exp => x.exp(),
        Function::ExpM1 => x.exp_m1(),
        Function::Ln => x.ln(),
        Function::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p() + if x.is_nan() { x } else { 0.0 },
        Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Function::Tanh => x.tanh(),
        Function::Erf => erf(x),
        Function::Gelu if x == f64::NEG_INFINITY => 0.0,
        Function::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Function::Silu if x == f64::NEG_INFINITY => 0.0,
        Function::Silu => x / (1.0 + (-x).exp()),
        Function::Mish if x == f64::NEG_INFINITY => 0.0,
        Function::Mish => x * x.exp().ln_1p().tanh().min(1.0),
    }
}

/// Numbers of every magnitude and sign, the special ones, and many from where activations live.
fn arguments() -> Vec<f32> {
    let mut x: Vec<f32> = (0..u32::MAX).step_by(8191).map(f32::from_bits).collect();
    x.extend((-400_000..400_000).map(|i| i as f32 * 2.5e-4));
    x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-45, 1.0, -1.0]);
    x
}

fn worst_relative_error(isa: Isa, function: Function, floor: f64) -> (f64, f32) {
    let x = arguments();
    let mut y = x.clone();
    dispatch(isa, Apply { function, data: &mut y });
    let mut worst = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(&y) {
        let want = exact(function, f64::from(x));
        let rounded = want as f32;
        if want.is_nan() {
            assert!(y.is_nan(), "{isa} {function:?}({x}) = {y}, want NaN");
        } else if rounded.is_infinite() && y.is_infinite() {
            assert_eq!(y, rounded, "{isa} {function:?}({x})");
        } else if y != rounded {
            let error = (f64::from(y) - want).abs() / want.abs().max(floor).max(f64::from(f32::MIN_POSITIVE));
            assert!(!error.is_nan(), "{isa} {function:?}({x}) = {y}, want {want}");
            if error > worst.0 {
                worst = (error, x);
            }
        }
    }
    worst
}

#[test]
fn functions_keep_their_stated_errors() {
    let bounds = [
        (Function::Exp, 1.8e-7, 0.0),
        (Function::ExpM1, 3e-7, 0.0),
        (Function::Ln, 2e-7, 0.5),
        (Function::Softplus, 4e-7, 0.0),
        (Function::Sigmoid, 3.5e-7, 0.5),
        (Function::Sigmoid, 6e-6, 1e-31),
        (Function::Tanh, 3e-7, 0.0),
        (Function::Erf, 3e-7, 0.0),
        (Function::Gelu, 2e-7, 1.0),
        (Function::Silu, 4.5e-7, 0.5),
        (Function::Silu, 6e-6, 1e-29),
        (Function::Mish, 5e-7, 1e-36),
    ];
    for isa in Isa::available() {
        for (function, bound, floor) in bounds {
            let (error, x) = worst_relative_error(isa, function, floor);
            println!("{isa} {function:?}: {error:.3e} at {x}");
            assert!(error <= bound, "{isa} {function:?}({x}) is off by {error:e}, bound {bound:e}");
        }
    }
}

/// Checks the plain operations of one instruction set lane by lane.
struct CheckLanes;

impl SimdOp for CheckLanes {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let numbers = [1.5, -2.5, 0.0, -0.0, 3.5, f32::NAN, f32::INFINITY, -7.25, 1e-40, 9.0, 0.5, 2.5];
        let a: Vec<f32> = (0..S::LANES).map(|i| numbers[i % numbers.len()]).collect();
        let b: Vec<f32> = (0..S::LANES).map(|i| numbers[(i * 5 + 3) % numbers.len()]).collect();
        let load = |v: &[f32]| {
            assert!(v.len() >= S::LANES);
            // SAFETY: the slice holds a whole vector.
            unsafe { s.load(v.as_ptr()) }
        };
        let lanes = |v: S::F32| {
            let mut out = vec![0.0; S::LANES];
            // SAFETY: the vector has room for all lanes.
            unsafe { s.store(out.as_mut_ptr(), v) };
            out
        };
        let same = |name: &str, got: S::F32, want: &dyn Fn(usize) -> f32| {
            for (i, got) in lanes(got).into_iter().enumerate() {
                let want = want(i);
                let equal = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(equal, "{} {name} lane {i}: {got} != {want}", S::ISA);
            }
        };
        let (va, vb) = (load(&a), load(&b));
        same("add", s.add(va, vb), &|i| a[i] + b[i]);
        same("sub", s.sub(va, vb), &|i| a[i] - b[i]);
        same("mul", s.mul(va, vb), &|i| a[i] * b[i]);
        same("div", s.div(va, vb), &|i| a[i] / b[i]);
        let normal = |v: f32| v.is_normal();
        let finite = load(&a.iter().map(|&x| if normal(x) { x } else { 3.0 }).collect::<Vec<_>>());
        for (got, want) in lanes(s.reciprocal(finite)).into_iter().zip(lanes(finite)) {
            assert!((f64::from(got) * f64::from(want) - 1.0).abs() < 1.2e-7, "{} 1 / {want} = {got}", S::ISA);
        }
        same("add_exponent", s.add_exponent(finite, s.splat(12_582_912.0 - 5.0)), &|i| {
            lanes(finite)[i] / 32.0
        });
        for k in -126 * 32..128 * 32 {
            if let Some(power) = s.exp2_of_steps(s.splat(393_216.0 + k as f32 / 32.0)) {
                same("exp2_of_steps", power, &|_| (f64::from(k) / 32.0).exp2() as f32);
            }
        }
        same("mul_add", s.mul_add(va, vb, s.splat(0.25)), &|i| a[i] * b[i] + 0.25);
        same("min", s.min(va, vb), &|i| if a[i] < b[i] { a[i] } else { b[i] });
        same("max", s.max(va, vb), &|i| if a[i] > b[i] { a[i] } else { b[i] });
        same("abs", s.abs(va), &|i| a[i].abs());
        same("neg", s.neg(va), &|i| -a[i]);
        same("sqrt", s.sqrt(s.abs(va)), &|i| a[i].abs().sqrt());
        same("floor", s.floor(va), &|i| a[i].floor());
        same("round", s.round(va), &|i| a[i].round_ties_even());
        same("copy_sign", s.copy_sign(va, vb), &|i| a[i].copysign(b[i]));
        let (one, two) = (s.splat(1.0), s.splat(2.0));
        same("lt", s.select(s.lt(va, vb), one, two), &|i| if a[i] < b[i] { 1.0 } else { 2.0 });
        same("le", s.select(s.le(va, vb), one, two), &|i| if a[i] <= b[i] { 1.0 } else { 2.0 });
        same("eq", s.select(s.eq(va, vb), one, two), &|i| if a[i] == b[i] { 1.0 } else { 2.0 });
        assert!(s.any(s.eq(va, va)) && !s.any(s.lt(va, va)));
        let ramp: Vec<f32> = (0..S::LANES).map(|i| 1.0 + i as f32).collect();
        let vr = load(&ramp);
        let total = (S::LANES * (S::LANES + 1) / 2) as f32;
        assert_eq!(s.reduce_add(vr), total);
        assert_eq!(s.reduce_max(s.neg(vr)), -1.0);
        let choice: Vec<u32> = (0..S::LANES as u32).map(|i| i / 4 + 3).collect();
        // SAFETY: the choice has a number below LANES for each lane.
        let index = unsafe { s.load_index(choice.as_ptr()) };
        same("swizzle", s.swizzle(vr, index), &|i| ramp[i / 4 + 3]);
        let bytes: Vec<u32> = (0..2 * S::LANES as u32).map(|i| i * 37 % 256).collect();
        let numbers: Vec<f32> = bytes.iter().map(|&byte| f32::from_bits(byte)).collect();
        let mut out = vec![0u8; 2 * S::LANES];
        // SAFETY: there are bytes for two vectors.
        unsafe {
            s.store_bytes_of_two(out.as_mut_ptr(), load(&numbers), load(&numbers[S::LANES..]));
        }
        assert!(out.iter().zip(&bytes).all(|(&got, &want)| u32::from(got) == want), "{} {out:?}", S::ISA);
        let word = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9);
        let words = |first: usize| (0..S::LANES).map(|i| f32::from_bits(word(first + i))).collect::<Vec<_>>();
        let larger = |i: usize| {
            let (a, b) = (word(i).to_le_bytes(), word(S::LANES + i).to_le_bytes());
            f32::from_bits(u32::from_le_bytes([0, 1, 2, 3].map(|byte: usize| a[byte].max(b[byte]))))
        };
        same("max_u8", s.max_u8(load(&words(0)), load(&words(S::LANES))), &larger);
        let bytes_of =
            |v: S::F32| lanes(v).into_iter().flat_map(|x| x.to_bits().to_le_bytes()).collect::<Vec<_>>();
        let (wa, wb) = (load(&words(0)), load(&words(S::LANES)));
        let (ba, bb) = (bytes_of(wa), bytes_of(wb));
        for (run, halves) in [(1, s.interleave_bytes(wa, wb)), (2, s.interleave_byte_pairs(wa, wb))] {
            for (half, got) in halves.into_iter().enumerate() {
                let mut want = Vec::new();
                for (a, b) in ba.chunks(16).zip(bb.chunks(16)) {
                    for at in (half * 8..half * 8 + 8).step_by(run) {
                        want.extend_from_slice(&a[at..at + run]);
                        want.extend_from_slice(&b[at..at + run]);
                    }
                }
                assert_eq!(bytes_of(got), want, "{} runs of {run}", S::ISA);
            }
        }
        let four =
            [0, 1, 2, 3].map(|i| (0..S::LANES).map(|lane| (i * 100 + lane) as f32).collect::<Vec<_>>());
        let want: Vec<f32> = (0..S::LANES / 4)
            .flat_map(|g| four.each_ref().map(|v| v[g * 4..][..4].to_vec()))
            .flatten()
            .collect();
        let got: Vec<f32> =
            s.groups_in_order(four.each_ref().map(|v| load(v))).into_iter().flat_map(lanes).collect();
        assert_eq!(got, want, "{} groups", S::ISA);
        let (m, e) = s.split(vr);
        same("split", s.scale(m, e), &|i| ramp[i]);
        same("scale", s.scale(vr, s.splat(-140.0)), &|i| (f64::from(ramp[i]) * 2f64.powi(-140)) as f32);
        for n in 0..=S::LANES + 1 {
            let kept = n.min(S::LANES);
            // SAFETY: the first `kept` numbers exist, no others are touched.
            let part = unsafe { s.load_partial(ramp[..kept].as_ptr(), n) };
            same("load_partial", part, &|i| if i < n { ramp[i] } else { 0.0 });
            let mut out = vec![-1.0; S::LANES];
            // SAFETY: as above.
            unsafe { s.store_partial(out[..kept].as_mut_ptr(), n, vr) };
            for (i, x) in out.into_iter().enumerate() {
                assert_eq!(x, if i < n { ramp[i] } else { -1.0 });
            }
        }
    }
}

#[test]
fn operations_match_plain_rust_lane_by_lane() {
    for isa in Isa::available() {
        dispatch(isa, CheckLanes);
    }
}
