//! Every function against the standard library in double precision.

use proptest::prelude::*;

use super::*;
use crate::epilogue::Activation;
use crate::epilogue::exact::{ACTIVATIONS, erf};
use crate::isa::Isa;
use crate::strided::{Strided, StridedMut};
use crate::testing::{Input, Tolerance, check, random};
use crate::threads::ThreadPool;
use crate::view::RowsMut;

fn exact(function: Unary, x: f64) -> f64 {
    use Unary::*;
    let f = f64::from;
    match function {
        Activation(activation) => activation.exact(x),
        Abs => x.abs(),
        Neg => -x,
        Sign => {
            if x == 0.0 {
                0.0
            } else {
                x.signum()
            }
        }
        Floor => x.floor(),
        Ceil => x.ceil(),
        Round => x.round_ties_even(),
        Sqrt => x.sqrt(),
        Square => x * x,
        Reciprocal => 1.0 / x,
        Exp => x.exp(),
        Log => x.ln(),
        Erf => erf(x),
        Affine { scale, shift } => x * f(scale) + f(shift),
    }
}

const FUNCTIONS: [Unary; 14] = [
    Unary::Abs,
    Unary::Neg,
    Unary::Sign,
    Unary::Floor,
    Unary::Ceil,
    Unary::Round,
    Unary::Sqrt,
    Unary::Square,
    Unary::Reciprocal,
    Unary::Exp,
    Unary::Log,
    Unary::Erf,
    Unary::Affine { scale: 1.5, shift: -0.25 },
    Unary::Activation(Activation::None),
];

/// Two units in the last place of the result, and of 1 where a sum cancels.
const CLOSE: Tolerance = Tolerance { absolute: 3e-7, relative: 6e-7 };

#[test]
fn every_function_of_one_number() {
    let (rows, channels) = (7, 37);
    for function in FUNCTIONS.into_iter().chain(ACTIVATIONS.map(Unary::Activation)) {
        let input = Input::new(3, rows, channels, 2, -4.5, 4.5);
        check(
            (rows, channels, 5),
            CLOSE,
            |r, c| exact(function, input.at(r, c)),
            |isa, pool, out| {
                unary(isa, pool, function, input.rows(), out);
            },
        );
    }
}

#[test]
fn nan_stays_nan() {
    let data = [f32::NAN; 19];
    for function in FUNCTIONS.into_iter().chain(ACTIVATIONS.map(Unary::Activation)) {
        for isa in Isa::available() {
            let mut copy = data;
            unary_in_place(isa, &ThreadPool::new(1), function, RowsMut::dense(&mut copy, 1, 19).unwrap());
            assert!(copy.iter().all(|x| x.is_nan()), "{isa} {function:?}");
        }
    }
}

#[test]
fn long_rows_are_shared_among_threads() {
    for (rows, channels, gap) in [(1, 100_001, 0), (40_000, 3, 1), (0, 8, 0), (300, 256, 0)] {
        let input = Input::new(5, rows, channels, gap, -4.0, 4.0);
        let relu = Unary::Activation(Activation::Relu);
        check(
            (rows, channels, gap),
            Tolerance::EXACT,
            |r, c| input.at(r, c).max(0.0),
            |isa, pool, out| {
                unary(isa, pool, relu, input.rows(), out);
            },
        );
    }
}

fn exact_binary(function: Binary, a: f64, b: f64) -> f64 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::Power => a.powf(b),
        Binary::PRelu => {
            if a < 0.0 {
                a * b
            } else {
                a
            }
        }
        Binary::SquaredDifference => (a - b) * (a - b),
    }
}

const BINARIES: [Binary; 9] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Min,
    Binary::Max,
    Binary::Power,
    Binary::PRelu,
    Binary::SquaredDifference,
];

/// The index in a dense tensor of `shape` that index `at` of the broadcast shape reads.
fn broadcast_index(shape: &[usize], at: &[usize]) -> usize {
    let at = &at[at.len() - shape.len()..];
    shape.iter().zip(at).fold(0, |index, (&size, &i)| index * size + if size == 1 { 0 } else { i })
}

fn check_binary(
    function: Binary,
    activation: Activation,
    shape: &[usize],
    a_shape: &[usize],
    b_shape: &[usize],
    gap: usize,
) {
    let low = if function == Binary::Power { 0.1 } else { -2.0 };
    let a = random(1, a_shape.iter().product(), low, 2.0);
    let b = random(2, b_shape.iter().product(), -2.0, 2.0);
    let (channels, rows) = (shape[shape.len() - 1], shape[..shape.len() - 1].iter().product());
    let expected = |row: usize, channel: usize| {
        let mut at = vec![channel; shape.len()];
        let mut rest = row;
        for axis in (0..shape.len() - 1).rev() {
            at[axis] = rest % shape[axis];
            rest /= shape[axis];
        }
        let (x, y) = (a[broadcast_index(a_shape, &at)], b[broadcast_index(b_shape, &at)]);
        activation.exact(exact_binary(function, f64::from(x), f64::from(y)))
    };
    check((rows, channels, gap), Tolerance::both(6e-7), expected, |isa, pool, out| {
        let mut strides: Vec<isize> = crate::strided::dense_strides(&shape[..shape.len() - 1])
            .iter()
            .map(|s| s * out.row_stride() as isize)
            .collect();
        strides.push(1);
        let (a, b) = (Strided::dense(&a, a_shape).unwrap(), Strided::dense(&b, b_shape).unwrap());
        // SAFETY: the elements are those of `out`.
        let output = unsafe { StridedMut::from_raw(out.ptr(), shape, &strides) };
        binary(isa, pool, function, activation, a, b, output);
    });
}

#[test]
fn every_function_of_two_numbers_and_every_activation_behind_one() {
    for function in BINARIES {
        check_binary(function, Activation::None, &[2, 5, 19], &[2, 5, 19], &[19], 0);
    }
    for activation in ACTIVATIONS {
        check_binary(Binary::Add, activation, &[2, 3, 5, 21], &[2, 3, 5, 21], &[2, 3, 5, 21], 1);
        check_binary(Binary::Mul, activation, &[2, 3, 5, 21], &[2, 3, 5, 21], &[2, 1, 1, 21], 0);
    }
}

#[test]
fn nan_of_either_operand_stays_nan() {
    let (with, without) = ([f32::NAN; 5], [1.0; 5]);
    for function in BINARIES.into_iter().filter(|&function| function != Binary::Power) {
        for isa in Isa::available() {
            for (a, b) in [(&with, &without), (&without, &with)] {
                if function == Binary::PRelu && a == &without {
                    continue;
                }
                let mut out = [0.0; 5];
                let [a, b] = [a, b].map(|data| Strided::dense(data, &[5]).unwrap());
                let view = StridedMut::dense(&mut out, &[5]).unwrap();
                binary(isa, &ThreadPool::new(1), function, Activation::Relu, a, b, view);
                assert!(out.iter().all(|x| x.is_nan()), "{isa} {function:?}");
            }
        }
    }
}

#[test]
fn in_place_and_transposed_operands() {
    let (a, b) = (random(1, 12, -1.0, 1.0), random(2, 12, -1.0, 1.0));
    for isa in Isa::available() {
        let mut out = a.clone();
        let view = StridedMut::dense(&mut out, &[3, 4]).unwrap();
        // SAFETY: the very elements of the output, with its strides, which `binary` allows.
        let same = unsafe { Strided::from_raw(view.ptr(), &[3, 4], &[4, 1]) };
        let other = Strided::dense(&b, &[4, 3]).unwrap().permute(&[1, 0]);
        binary(isa, &ThreadPool::new(1), Binary::Sub, Activation::None, same, other, view);
        for i in 0..12 {
            assert_eq!(out[i], a[i] - b[i % 4 * 3 + i / 4], "{isa}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn broadcasting_follows_numpy(
        sizes in prop::collection::vec((1usize..6, any::<bool>(), any::<bool>()), 1..5),
        channels in 1usize..70, a_channel: bool, b_channel: bool, dropped in 0usize..3, gap in 0usize..2,
        function in prop::sample::select(&BINARIES[..6]),
    ) {
        let mut shape: Vec<usize> = sizes.iter().map(|&(size, ..)| size).collect();
        let mut a: Vec<usize> = sizes.iter().map(|&(size, a, _)| if a { size } else { 1 }).collect();
        let mut b: Vec<usize> = sizes.iter().map(|&(size, _, b)| if b { size } else { 1 }).collect();
        shape.push(channels);
        a.push(if a_channel { channels } else { 1 });
        b.push(if b_channel { channels } else { 1 });
        let b = &b[dropped.min(b.len() - 1)..];
        if function == Binary::Div {
            // Small divisors make the tolerance meaningless; the loop is that of the other functions.
            return Ok(());
        }
        check_binary(function, Activation::None, &shape, &a, b, gap);
    }
}
