//! Products against sums in double precision, on every instruction set of this machine.

use proptest::prelude::*;

use super::*;
use crate::amx as unit;
use crate::element::{bf16, f16};
use crate::epilogue::Activation;

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1021) as f32 / 510.0 - 1.0).collect()
}

/// Checks `out` (dense M×N) against the sums of `a` (rows) and `b` (element `(k, n)` by a function).
fn check(
    what: &str,
    a: Rows<'_>,
    b: impl Fn(usize, usize) -> f32,
    columns: usize,
    start: &[f32],
    out: &[f32],
) {
    for row in 0..a.rows() {
        for column in 0..columns {
            let at = row * columns + column;
            let mut sum = f64::from(start[at]);
            let mut magnitude = sum.abs();
            for (k, &x) in a.row(row).iter().enumerate() {
                let product = f64::from(x) * f64::from(b(k, column));
                sum += product;
                magnitude += product.abs();
            }
            // Any order of summation keeps to this (Higham 2002, §3.1).
            let bound = (a.channels() + 3) as f64 * magnitude * f64::from(f32::EPSILON) / 2.0 + 1e-7;
            let error = (f64::from(out[at]) - sum).abs();
            assert!(error <= bound, "{what}: ({row}, {column}): {} != {sum}", out[at]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn products_agree_with_plain_sums(
        rows in prop_oneof![3 => 0usize..70, 1 => Just(1usize)],
        depth in prop_oneof![0usize..70, Just(1024), Just(513)],
        columns in prop_oneof![2 => 1usize..90, 1 => 90usize..600],
        gap in 0usize..3,
        transposed in any::<bool>(),
        with_bias in any::<bool>(),
        with_residual in any::<bool>(),
    ) {
        let a_data = numbers(rows * (depth + gap), 1);
        let a = Rows::new(&a_data, rows, depth, depth + gap).unwrap();
        let b = numbers(depth * columns, 2);
        let short = |numbers: &[f32]| numbers.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
        let long = |numbers: &[bf16]| numbers.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
        let (row_step, column_step) = if transposed { (1, depth) } else { (columns, 1) };
        let bias = with_bias.then(|| numbers(columns, 3));
        let residual = with_residual.then(|| numbers(rows * columns, 4));
        let start: Vec<f32> = (0..rows * columns)
            .map(|i| bias.as_ref().map_or(0.0, |b| b[i % columns]) + residual.as_ref().map_or(0.0, |r| r[i]))
            .collect();
        for isa in Isa::available() {
            let packed = PackedMatrix::from_strided(isa, &b, depth, columns, row_step, column_step).unwrap();
            let mut results = Vec::new();
            for threads in [1, 3] {
                let mut out = vec![f32::NAN; rows * columns];
                let residual = residual.as_ref().map(|r| Rows::dense(r, rows, columns).unwrap());
                let epilogue = Epilogue { residual, ..Epilogue::default() };
                let view = RowsMut::dense(&mut out, rows, columns).unwrap();
                matmul(&ThreadPool::new(threads), a, &packed, bias.as_deref(), epilogue, view).unwrap();
                check(isa.name(), a, |k, n| b[k * row_step + n * column_step], columns, &start, &out);
                results.push(out.into_iter().map(f32::to_bits).collect::<Vec<_>>());
            }
            prop_assert_eq!(&results[0], &results[1]);
            let mut out = vec![f32::NAN; rows * columns];
            let (short_a, long_b) = (short(&a_data), long(&short(&b)));
            let long_a = long(&short_a);
            let packed =
                PackedMatrix::<bf16>::from_strided(isa, &long_b, depth, columns, row_step, column_step).unwrap();
            let residual = residual.as_ref().map(|r| Rows::dense(r, rows, columns).unwrap());
            let epilogue = Epilogue { residual, ..Epilogue::default() };
            let view = RowsMut::dense(&mut out, rows, columns).unwrap();
            let left = Rows::new(&short_a, rows, depth, depth + gap).unwrap();
            matmul(&ThreadPool::new(1), left, &packed, bias.as_deref(), epilogue, view).unwrap();
            let exact_a = Rows::new(&long_a, rows, depth, depth + gap).unwrap();
            let b_at = |k: usize, n: usize| long_b[k * row_step + n * column_step];
            check(&format!("bf16 on {isa}"), exact_a, b_at, columns, &start, &out);
            // Rows of `f16` are widened on their way; the weights are `f32`.
            let halves: Vec<f16> = a_data.iter().map(|&x| f16::from_f32(x)).collect();
            let exact: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
            let packed = PackedMatrix::<f32>::from_strided(isa, &b, depth, columns, row_step, column_step).unwrap();
            let mut results = Vec::new();
            for threads in [1, 3] {
                let mut out = vec![f32::NAN; rows * columns];
                let epilogue = Epilogue { residual, ..Epilogue::default() };
                let view = RowsMut::dense(&mut out, rows, columns).unwrap();
                let left = Rows::new(&halves, rows, depth, depth + gap).unwrap();
                matmul(&ThreadPool::new(threads), left, &packed, bias.as_deref(), epilogue, view).unwrap();
                let exact = Rows::new(&exact, rows, depth, depth + gap).unwrap();
                let b_at = |k: usize, n: usize| b[k * row_step + n * column_step];
                check(&format!("f16 on {isa}"), exact, b_at, columns, &start, &out);
                results.push(out);
            }
            prop_assert_eq!(&results[0], &results[1]);
            let mut out = vec![f32::NAN; rows * columns];
            let view = RowsMut::dense(&mut out, rows, columns).unwrap();
            matmul_dynamic(isa, &ThreadPool::new(2), a, &b, columns, row_step, column_step, view).unwrap();
            check("dynamic", a, |k, n| b[k * row_step + n * column_step], columns, &vec![0.0; rows * columns], &out);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn products_on_the_tile_unit_agree_with_plain_sums(
        rows in prop_oneof![4 => 0usize..70, 1 => 100usize..130],
        depth in prop_oneof![4 => 0usize..80, 1 => Just(513usize)],
        columns in 1usize..90,
        gap in 0usize..3,
        with_bias in any::<bool>(),
        with_residual in any::<bool>(),
    ) {
        if let Err(reason) = unit::emulate() {
            eprintln!("skipped: {reason}");
            return Ok(());
        }
        let round = |numbers: Vec<f32>| numbers.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
        let mut a_data = round(numbers(rows * (depth + gap), 1));
        // What lies between rows is nobody's to multiply, not even by zero.
        for row in a_data.chunks_mut((depth + gap).max(1)) {
            row.iter_mut().skip(depth).for_each(|x| *x = bf16::NAN);
        }
        let long: Vec<f32> = a_data.iter().map(|x| x.to_f32()).collect();
        let exact = Rows::new(&long, rows, depth, depth + gap).unwrap();
        let b: Vec<f32> = round(numbers(depth * columns, 2)).into_iter().map(bf16::to_f32).collect();
        let bias = with_bias.then(|| numbers(columns, 3));
        let residual = with_residual.then(|| numbers(rows * columns, 4));
        let start: Vec<f32> = (0..rows * columns)
            .map(|i| bias.as_ref().map_or(0.0, |b| b[i % columns]) + residual.as_ref().map_or(0.0, |r| r[i]))
            .collect();
        let packed = PackedMatrix::<bf16>::from_strided(Isa::Amx, &b, depth, columns, columns, 1).unwrap();
        let mut results = Vec::new();
        for threads in [1, 3] {
            let mut out = vec![f32::NAN; rows * columns];
            let residual = residual.as_ref().map(|r| Rows::dense(r, rows, columns).unwrap());
            let epilogue = Epilogue { residual, ..Epilogue::default() };
            let view = RowsMut::dense(&mut out, rows, columns).unwrap();
            let left = Rows::new(&a_data, rows, depth, depth + gap).unwrap();
            matmul(&ThreadPool::new(threads), left, &packed, bias.as_deref(), epilogue, view).unwrap();
            check("on tiles", exact, |k, n| b[k * columns + n], columns, &start, &out);
            results.push(out.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        }
        prop_assert_eq!(&results[0], &results[1]);
    }
}

#[test]
fn an_infinite_weight_stays_in_its_column_on_the_tile_unit() {
    if let Err(reason) = unit::emulate() {
        eprintln!("skipped: {reason}");
        return;
    }
    // 17 words: the last step is filled up with zeros, which no weight of another step may meet.
    let (rows, depth, columns) = (3, 34, 2);
    let a = vec![bf16::ONE; rows * depth];
    let mut b = vec![1.0; depth * columns];
    b[6] = f32::INFINITY;
    let packed = PackedMatrix::<bf16>::from_strided(Isa::Amx, &b, depth, columns, columns, 1).unwrap();
    let mut out = vec![0.0_f32; rows * columns];
    let (left, view) =
        (Rows::dense(&a, rows, depth).unwrap(), RowsMut::dense(&mut out, rows, columns).unwrap());
    matmul(&ThreadPool::new(1), left, &packed, None, Epilogue::<f32>::default(), view).unwrap();
    assert_eq!(out, [f32::INFINITY, 34.0].repeat(rows));
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let isa = Isa::current();
    assert!(PackedMatrix::<f32>::from_strided(isa, &[0.0; 11], 3, 4, 4, 1).is_err());
    assert!(PackedMatrix::<f32>::from_strided(isa, &[0.0; 11], 3, 4, usize::MAX, 1).is_err());
    let b = PackedMatrix::from_strided(isa, &[0.0; 12], 3, 4, 4, 1).unwrap();
    let a = [0.0; 16];
    let pool = ThreadPool::new(1);
    let run = |depth: usize, rows: usize, columns: usize, bias: Option<&[f32]>| {
        let mut out = [0.0; 64];
        let a = Rows::dense(&a, 2, depth).unwrap();
        let view = RowsMut::dense(&mut out, rows, columns).unwrap();
        matmul(&pool, a, &b, bias, Epilogue::default(), view)
    };
    assert!(run(3, 2, 4, None).is_ok());
    assert!(run(4, 2, 4, None).is_err());
    assert!(run(3, 3, 4, None).is_err());
    assert!(run(3, 2, 3, None).is_err());
    assert!(run(3, 2, 4, Some(&[0.0; 3])).is_err());
}

#[test]
fn nan_and_infinity_pass_through() {
    let a = [f32::NAN, 1.0, f32::INFINITY, 1.0];
    for isa in Isa::available() {
        let b = PackedMatrix::from_strided(isa, &[1.0, 1.0], 2, 1, 1, 1).unwrap();
        let mut out = [0.0; 2];
        let (rows, view) = (Rows::dense(&a, 2, 2).unwrap(), RowsMut::dense(&mut out, 2, 1).unwrap());
        let epilogue = Epilogue { activation: Activation::Relu, ..Epilogue::default() };
        matmul(&ThreadPool::new(1), rows, &b, None, epilogue, view).unwrap();
        assert!(out[0].is_nan() && out[1] == f32::INFINITY, "{isa}: {out:?}");
    }
}

#[test]
fn a_single_row_has_the_bits_of_one_among_others() {
    let (depth, columns) = (77, 333);
    let (a, b) = (numbers(2 * depth, 1), numbers(depth * columns, 2));
    let bias = numbers(columns, 3);
    for isa in Isa::available() {
        let packed = PackedMatrix::from_strided(isa, &b, depth, columns, columns, 1).unwrap();
        let multiply = |rows: usize, threads: usize| {
            let mut out = vec![f32::NAN; rows * columns];
            let view = RowsMut::dense(&mut out, rows, columns).unwrap();
            let a = Rows::dense(&a, rows, depth).unwrap();
            let epilogue = Epilogue { activation: Activation::Silu, ..Epilogue::default() };
            matmul(&ThreadPool::new(threads), a, &packed, Some(&bias), epilogue, view).unwrap();
            out
        };
        let both = multiply(2, 1);
        for threads in [1, 2, 5] {
            assert_eq!(multiply(1, threads), both[..columns], "{isa} on {threads} threads");
        }
    }
}
