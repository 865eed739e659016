//! The parts against plain sums in double precision, and the whole on problems larger than those of `conv/tests.rs`.

use proptest::prelude::*;

use super::forward::{Forward, Patch};
use super::scratch::scratch_len;
use super::transform::{Complex, MAX_SIZE, Roots, roots, transform};
use super::*;
use crate::conv::reference::convolve;
use crate::epilogue::Epilogue;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::testing::random;
use crate::view::{Rows, RowsMut};

const ALL: [Fft; 4] = [EIGHT, SIXTEEN, THIRTY_TWO, SIXTY_FOUR];

/// Transforms the `A * B` complex vectors in `x`: a vector of real, then one of imaginary parts for each.
struct Line<'a, const A: usize, const B: usize> {
    x: &'a mut [f32],
    roots: &'a Roots,
    inverse: bool,
}

impl<const A: usize, const B: usize> SimdOp for Line<'_, A, B> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let from = self.x.to_vec();
        let swap = |z: Complex<S::F32>| if self.inverse { z.swapped() } else { z };
        let load = |n: usize| {
            let p = from[n * 2 * S::LANES..][..2 * S::LANES].as_ptr();
            // SAFETY: the slice holds two vectors.
            swap(unsafe { Complex { re: s.load(p), im: s.load(p.add(S::LANES)) } })
        };
        transform::<S, A, B>(s, self.roots, load, |k, z| {
            let z = swap(z);
            let p = self.x[k * 2 * S::LANES..][..2 * S::LANES].as_mut_ptr();
            // SAFETY: the slice holds two vectors.
            unsafe {
                s.store(p, z.re);
                s.store(p.add(S::LANES), z.im);
            }
        });
    }
}

fn transform_line(isa: Isa, size: usize, x: &mut [f32], inverse: bool) {
    let roots = &roots(size);
    match size {
        8 => dispatch(isa, Line::<8, 1> { x, roots, inverse }),
        16 => dispatch(isa, Line::<4, 4> { x, roots, inverse }),
        32 => dispatch(isa, Line::<4, 8> { x, roots, inverse }),
        _ => dispatch(isa, Line::<8, 8> { x, roots, inverse }),
    }
}

/// `Σ x[n] e^(-2πi n k / size)` of `x` given as `[n][re, im]`.
fn plain_transform(x: &[[f64; 2]], k: usize) -> [f64; 2] {
    let mut sum = [0.0; 2];
    for (n, [re, im]) in x.iter().enumerate() {
        let (sin, cos) = (std::f64::consts::TAU * (n * k % x.len()) as f64 / x.len() as f64).sin_cos();
        sum[0] += re * cos + im * sin;
        sum[1] += im * cos - re * sin;
    }
    sum
}

#[test]
fn lines_transform_like_the_definition_and_back() {
    for isa in Isa::available() {
        for Fft { size, .. } in ALL {
            let lanes = isa.lanes();
            let start = random(size as u64, size * 2 * lanes, -1.0, 1.0);
            let mut x = start.clone();
            transform_line(isa, size, &mut x, false);
            for lane in 0..lanes {
                let part = |n: usize, part: usize| f64::from(start[(n * 2 + part) * lanes + lane]);
                let line: Vec<[f64; 2]> = (0..size).map(|n| [part(n, 0), part(n, 1)]).collect();
                let norm = line.iter().flatten().map(|x| x * x).sum::<f64>().sqrt();
                // Each of the log2 stages adds a few roundings, relative to the norm that all of them keep up to √n.
                let bound = 2.0 * f64::from(f32::EPSILON) * f64::from(size.ilog2()) * norm;
                for k in 0..size {
                    let want = plain_transform(&line, k);
                    for (i, want) in want.into_iter().enumerate() {
                        let error = (f64::from(x[(k * 2 + i) * lanes + lane]) - want).abs();
                        assert!(
                            error <= bound,
                            "{isa} {size} lane {lane} frequency {k}: {error:e} > {bound:e}"
                        );
                    }
                }
            }
            transform_line(isa, size, &mut x, true);
            for (x, start) in x.iter().zip(&start) {
                assert!((x / size as f32 - start).abs() <= 1e-6, "{isa} {size}: {x} {start}");
            }
        }
    }
}

/// The forward transform of a dense tile.
fn transform_tile(isa: Isa, size: usize, patch: &Patch, out: &mut [f32]) {
    let mut scratch = vec![f32::NAN; scratch_len(size, isa.lanes())];
    let (roots, scratch, next) = (&roots(size), scratch.as_mut_ptr(), patch.start);
    let (out, out_step) = (out.as_mut_ptr(), 2 * isa.lanes());
    match size {
        8 => dispatch(isa, Forward::<8, 1> { patch, next, roots, scratch, out, out_step }),
        16 => dispatch(isa, Forward::<4, 4> { patch, next, roots, scratch, out, out_step }),
        32 => dispatch(isa, Forward::<4, 8> { patch, next, roots, scratch, out, out_step }),
        _ => dispatch(isa, Forward::<8, 8> { patch, next, roots, scratch, out, out_step }),
    }
}

#[test]
fn tiles_transform_like_the_definition() {
    for isa in Isa::available() {
        for (Fft { size, .. }, inside) in [
            (EIGHT, 0..8),
            (EIGHT, 3..6),
            (SIXTEEN, 0..16),
            (SIXTEEN, 1..4),
            (THIRTY_TWO, 0..31),
            (SIXTY_FOUR, 5..64),
        ] {
            let (lanes, channels) = (isa.lanes(), 3);
            let tile = random(7, size * size * channels, -1.0, 1.0);
            for lines in [inside.clone(), 0..size] {
                let patch = Patch {
                    start: tile.as_ptr(),
                    line_step: size * channels,
                    pixel_step: channels,
                    lines: lines.clone(),
                    pixels: inside.clone(),
                    lanes: channels,
                };
                let mut out = vec![f32::NAN; spectrum::frequencies(size) * 2 * lanes];
                transform_tile(isa, size, &patch, &mut out);
                for channel in 0..channels {
                    let pixel = |y: usize, x: usize| {
                        let there = lines.contains(&y) && inside.contains(&x);
                        let at = (y * size + x) * channels + channel;
                        [if there { f64::from(tile[at]) } else { 0.0 }, 0.0]
                    };
                    let half: Vec<Vec<[f64; 2]>> = (0..size)
                        .map(|y| {
                            let line: Vec<_> = (0..size).map(|x| pixel(y, x)).collect();
                            (0..=size / 2).map(|u| plain_transform(&line, u)).collect()
                        })
                        .collect();
                    for (f, (v, u, scale)) in spectrum::table(size).enumerate() {
                        let column: Vec<_> = half.iter().map(|line| line[u]).collect();
                        let want = plain_transform(&column, v).map(|x| x / scale);
                        for (i, want) in want.into_iter().enumerate() {
                            let got = f64::from(out[(f * 2 + i) * lanes + channel]);
                            let bound = 1e-6 * size as f64;
                            assert!(
                                (got - want).abs() < bound,
                                "{isa} {size} {inside:?} {v} {u}: {got} {want}"
                            );
                        }
                    }
                }
                assert!(
                    out.chunks(lanes).all(|v| v[channels..].iter().all(|&x| x == 0.0)),
                    "lanes that do not exist"
                );
            }
        }
    }
}

#[test]
fn every_frequency_is_kept_once() {
    for Fft { size, .. } in ALL {
        let kept: Vec<_> = spectrum::table(size).map(|(v, u, _)| (v, u)).collect();
        assert_eq!(kept.len(), spectrum::frequencies(size));
        for v in 0..size {
            for u in 0..size {
                let mirror = ((size - v) % size, (size - u) % size);
                let times = kept.iter().filter(|&&k| k == (v, u) || k == mirror).count();
                assert_eq!(times, 1, "{size}: {v} {u}");
            }
        }
        for u in 1..size / 2 {
            assert_eq!(kept[spectrum::column(size, u)], (0, u));
        }
        assert_eq!(kept[spectrum::middle_column(size)], (0, size / 2));
    }
}

#[test]
fn what_it_cannot_do_is_refused() {
    let good = ConvProblem::new_2d(1, 4, 4, [20, 20], [5, 5]);
    let isa = Isa::current();
    assert!(SIXTEEN.accepts(&good, isa).is_ok());
    assert!(SIXTEEN.accepts(&ConvProblem { batch: 0, ..good.clone() }, isa).is_ok());
    let bad = [
        ConvProblem { stride: [1, 2, 1], ..good.clone() },
        ConvProblem { dilation: [1, 1, 2], ..good.clone() },
        ConvProblem { kernel: [1, 1, 1], ..good.clone() },
        ConvProblem { kernel: [1, 17, 17], ..good.clone() },
        ConvProblem { kernel: [1, 21, 5], ..good.clone() },
        ConvProblem { kernel: [2, 5, 5], in_size: [2, 20, 20], ..good.clone() },
        ConvProblem { in_size: [1, 8, 8], ..good.clone() },
        ConvProblem { in_channels: 1024, out_channels: 1024, ..good.clone() },
    ];
    for problem in bad {
        assert!(SIXTEEN.accepts(&problem, isa).is_err(), "{problem:?}");
    }
}

fn problem() -> impl Strategy<Value = ConvProblem> {
    let channels = prop_oneof![
        (1usize..20, 1usize..40).prop_map(|(i, o)| (1, i, o)),
        (1usize..40).prop_map(|c| (c, c, c)),
        (2usize..4, 1usize..18, 1usize..18).prop_map(|(g, i, o)| (g, g * i, g * o)),
    ];
    let axis = || (1usize..50, prop_oneof![3 => 1usize..10, 1 => 10usize..36], 0usize..18, 0usize..18);
    (0usize..3, channels, axis(), axis()).prop_filter_map("no size accepts it", |(batch, c, h, w)| {
        let mut problem = ConvProblem::new_2d(batch, c.1, c.2, [h.0, w.0], [h.1, w.1]);
        problem.groups = c.0;
        problem.pads_begin = [0, h.2, w.2];
        problem.pads_end = [0, h.3, w.3];
        let accepted = ALL.iter().any(|fft| fft.accepts(&problem, Isa::Portable).is_ok());
        (accepted && problem.macs() < 20_000_000).then_some(problem)
    })
}

/// The largest error that any output may have. An error of the transforms is spread over a whole tile: it is relative
/// not to the products of one output but to the norms of the tile and the kernels, and grows with the stages of the
/// transforms, log2 of the tile's numbers.
fn bound(fft: Fft, problem: &ConvProblem) -> f64 {
    let inputs = (problem.group_in() as f64).sqrt();
    let kernel = (problem.taps() as f64).sqrt();
    // Numbers are uniform in -1..1, so a third of their squares is the mean.
    let typical = inputs * kernel / 3.0;
    let stages = 2.0 * f64::from(fft.size.ilog2());
    f64::from(f32::EPSILON) * (typical * (stages + 2.0 * inputs) * 2.0 + 4.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn agrees_with_the_reference(problem in problem(), seed in any::<u64>(), gap in 0usize..3) {
        let (rows, outputs) = (problem.out_rows(), problem.out_channels);
        let input = random(seed, problem.in_rows() * problem.in_channels, -1.0, 1.0);
        let weights = random(seed ^ 1, problem.weights_len(), -1.0, 1.0);
        let bias = random(seed ^ 2, outputs, -1.0, 1.0);
        let residual = random(seed ^ 3, rows * outputs, -1.0, 1.0);
        let want = convolve(&problem, &input, &weights, Some(&bias)).unwrap().sums;
        for isa in Isa::available() {
            for fft in ALL {
                if fft.accepts(&problem, isa).is_err() {
                    continue;
                }
                let bound = bound(fft, &problem);
                let prepared = fft.prepare(&problem, isa, Weights::new(&weights, Some(&bias))).unwrap();
                let mut first: Option<Vec<f32>> = None;
                for threads in [1, 2, 5] {
                    let pool = ThreadPool::new(threads);
                    let mut workspace = vec![f32::NAN; prepared.workspace_len(&problem, threads)];
                    let stride = outputs + gap;
                    let mut out = vec![7.5; rows * stride];
                    let shortcut = Some(Rows::dense(&residual, rows, outputs).unwrap());
                    let call = ConvCall {
                        input: Rows::dense(&input, problem.in_rows(), problem.in_channels).unwrap(),
                        epilogue: Epilogue { residual: shortcut, ..Epilogue::default() },
                        output: RowsMut::new(&mut out, rows, outputs, stride).unwrap(),
                        workspace: &mut workspace,
                    };
                    prepared.run(&problem, &pool, call).unwrap();
                    for (i, &got) in out.iter().enumerate() {
                        let (row, channel) = (i / stride, i % stride);
                        if channel >= outputs {
                            prop_assert_eq!(got, 7.5, "{} wrote between rows", fft.name);
                            continue;
                        }
                        let at = row * outputs + channel;
                        let error = (f64::from(got) - want[at] - f64::from(residual[at])).abs();
                        prop_assert!(error <= bound, "{} on {isa}, row {row}, channel {channel}: {error:e} > {bound:e}", fft.name);
                    }
                    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    if let Some(first) = &first {
                        prop_assert_eq!(bits(first), bits(&out), "{} depends on the threads", fft.name);
                    }
                    first = first.or(Some(out));
                }
            }
        }
    }
}

#[test]
fn roots_are_those_of_unity() {
    for Fft { size, .. } in ALL {
        assert!(size <= MAX_SIZE);
        assert_eq!(roots(size)[0], [1.0, 0.0]);
        assert!((roots(size)[size / 4][1] - 1.0).abs() < 1e-7);
    }
}
