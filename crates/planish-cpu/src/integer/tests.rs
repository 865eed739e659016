//! Every kernel on levels against plain loops that round in the same places, byte for byte, on every instruction set.

use proptest::prelude::*;

use super::*;
use crate::isa::Isa;
use crate::pooling::{PoolAxis, PoolProblem, Pooling, pool};
use crate::resize::{AxisTaps, resize};
use crate::strided::{Strided, StridedMut};
use crate::testing::{Input, random};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// `len` levels, the same for the same seed.
fn levels(seed: u64, len: usize) -> Vec<u8> {
    random(seed, len, 0.0, 256.0).into_iter().map(|x| x as u8).collect()
}

/// Runs `kernel` on every instruction set with one thread and three; what it writes must be `wanted`, and what lies between
/// the rows must stay.
fn check(
    (rows, channels, gap): (usize, usize, usize),
    wanted: &[u8],
    kernel: impl Fn(Isa, &ThreadPool, RowsMut<'_, u8>),
) {
    let stride = channels + gap;
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut out = vec![77u8; rows * stride];
            let view = RowsMut::new(&mut out, rows, channels, stride).unwrap();
            kernel(isa, &ThreadPool::new(threads), view);
            for (row, line) in out.chunks(stride.max(1)).enumerate() {
                let found = (&line[..channels], line[channels..].iter().all(|&x| x == 77));
                assert_eq!(found, (&wanted[row * channels..][..channels], true), "{isa}, row {row}");
            }
        }
    }
}

/// ONNX's definition.
fn quantized(x: f32, grid: Grid) -> u8 {
    let quotient = f64::from((x / grid.scale).round_ties_even());
    let quotient = if quotient.is_nan() { 0.0 } else { quotient };
    (quotient + f64::from(grid.zero)).clamp(0.0, 255.0) as u8
}

fn grid(scale: f32, zero: u8) -> Grid {
    Grid { scale, zero: f32::from(zero) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn numbers_become_levels_and_back(
        rows in 0usize..5, channels in 1usize..70, gap in 0usize..3, each: bool, seed: u64,
        scale in 1e-3f32..2.0, zero: u8,
    ) {
        let mut x = random(seed, rows * channels, -150.0, 150.0);
        // Ties, overflow and what is no number.
        for (i, special) in [0.5 * scale, 2.5 * scale, 1e30, f32::NAN, f32::NEG_INFINITY, -0.0].into_iter().enumerate() {
            if let Some(x) = x.get_mut(i * 7) { *x = special; }
        }
        let grids: Vec<Grid> = (0..channels)
            .map(|c| if each { grid(scale * (1.0 + c as f32 / 7.0), zero.wrapping_add(c as u8)) } else { grid(scale, zero) })
            .collect();
        let chosen = if each { Grids::Each(&grids) } else { Grids::One(grids[0]) };
        let wanted: Vec<u8> = x.iter().enumerate().map(|(i, &x)| quantized(x, grids[i % channels])).collect();
        check((rows, channels, gap), &wanted, |isa, pool, out| {
            quantize(isa, pool, chosen, Rows::dense(&x, rows, channels).unwrap(), out);
        });
        for isa in Isa::available() {
            let mut back = vec![0.0f32; rows * channels];
            let view = RowsMut::dense(&mut back, rows, channels).unwrap();
            dequantize(isa, &ThreadPool::new(2), chosen, Rows::dense(&wanted, rows, channels).unwrap(), view);
            for (i, (&level, &x)) in wanted.iter().zip(&back).enumerate() {
                let g = grids[i % channels];
                prop_assert_eq!(x, (f32::from(level) - g.zero) * g.scale);
            }
        }
    }

    #[test]
    fn numbers_become_signs(rows in 0usize..5, channels in 1usize..70, gap in 0usize..3, seed: u64) {
        let mut x = random(seed, rows * channels, -2.0, 2.0);
        let least = f32::MIN_POSITIVE;
        let specials = [0.0, -0.0, least, -least, f32::NAN, -f32::NAN, f32::NEG_INFINITY];
        for (x, special) in x.iter_mut().step_by(3).zip(specials) {
            *x = special;
        }
        let wanted: Vec<u8> = x.iter().map(|&x| if x >= 0.0 { 2 } else { 0 }).collect();
        check((rows, channels, gap), &wanted, |isa, pool, out| {
            signs(isa, pool, Rows::dense(&x, rows, channels).unwrap(), out);
        });
    }

    #[test]
    fn sums_and_products(
        rows in 0usize..5, channels in 1usize..70, gap in 0usize..3, product: bool, bounded: bool, repeat in 0usize..3,
        seed: u64, scales in prop::array::uniform3(0.01f32..1.0), zeros: [u8; 3],
    ) {
        let [a, b, y] = [0, 1, 2].map(|i| grid(scales[i], zeros[i]));
        let limits = if bounded { [0.0, 20.0 * y.scale] } else { [f32::NEG_INFINITY, f32::INFINITY] };
        let function = LevelBinary::new(product, [a, b], y, limits);
        let shape_b = [[rows, channels], [1, channels], [1, 1]][repeat];
        let (x, z) = (levels(seed, rows * channels), levels(!seed, shape_b[0] * shape_b[1]));
        let at = |r: usize, c: usize| z[(r % shape_b[0].max(1)) * shape_b[1] + c % shape_b[1]];
        let wanted: Vec<u8> = (0..rows * channels)
            .map(|i| function.of(x[i], at(i / channels, i % channels)))
            .collect();
        for (i, &found) in wanted.iter().enumerate() {
            let real = |level: u8, g: Grid| (f64::from(level) - f64::from(g.zero)) * f64::from(g.scale);
            let (p, q) = (real(x[i], a), real(at(i / channels, i % channels), b));
            let exact = if product { p * q } else { p + q };
            let exact = exact.clamp(f64::from(limits[0]), f64::from(limits[1])) / f64::from(y.scale);
            let exact = (exact + f64::from(y.zero)).clamp(0.0, 255.0);
            // A rounding error may decide a tie.
            let error = 4.0 * f64::from(f32::EPSILON) * (p.abs() + q.abs() + (p * q).abs()) / f64::from(y.scale);
            prop_assert!((exact - f64::from(found)).abs() <= 0.5 + error, "{exact} became {found}");
        }
        check((rows, channels, gap), &wanted, |isa, pool, out| {
            let (x, z) = (Strided::dense(&x, &[rows, channels]).unwrap(), Strided::dense(&z, &shape_b).unwrap());
            level_binary(isa, pool, function, x, z, StridedMut::from(out));
        });
    }

    #[test]
    fn windows_of_levels(
        images in 0usize..3, size in 1usize..9, kernel in 1usize..4, stride in 1usize..3, pad in 0usize..2,
        channels in 1usize..70, gap in 0usize..3, include: bool, largest: bool, zeros: [u8; 2], ratio in 0.1f32..3.0,
        seed: u64,
    ) {
        let pad = pad.min(kernel - 1);
        prop_assume!(size + 2 * pad >= kernel);
        let out = (size + 2 * pad - kernel) / stride + 1;
        let along = PoolAxis { input: size, output: out, kernel, stride, dilation: 1, pad_begin: pad, pad_end: pad };
        let problem = PoolProblem::plane(images, along, along);
        let x = levels(seed, images * size * size * channels);
        let [from, to] = zeros.map(f32::from);
        let mean = Pooling::LevelMean { count_include_pad: include, ratio, from, to };
        let kind = if largest { Pooling::Max } else { mean };
        let mut wanted = Vec::new();
        for i in 0..images * out * out * channels {
            let (channel, pixel) = (i % channels, i / channels);
            let (image, oy, ox) = (pixel / out / out, pixel / out % out, pixel % out);
            let cells = |o: usize| (0..kernel).filter_map(move |k| (o * stride + k).checked_sub(pad)).filter(|&y| y < size);
            let mut seen: Vec<u8> = Vec::new();
            for y in cells(oy) {
                seen.extend(cells(ox).map(|x_at| x[((image * size + y) * size + x_at) * channels + channel]));
            }
            let sum: f32 = seen.iter().map(|&l| f32::from(l) - from).sum();
            let count = if include { kernel * kernel } else { seen.len() };
            let average = ((sum * (ratio / count as f32)).round_ties_even() + to) as u8;
            wanted.push(if largest { seen.into_iter().max().unwrap() } else { average });
        }
        check((images * out * out, channels, gap), &wanted, |isa, threads, output| {
            pool(isa, threads, kind, &problem, Rows::dense(&x, images * size * size, channels).unwrap(), output);
        });
    }

    #[test]
    fn images_of_levels(
        images in 0usize..3, input in 1usize..9, output in 1usize..12, channels in 1usize..70, gap in 0usize..3, seed: u64,
    ) {
        let at = |x: usize| ((x as f32 + 0.5) * input as f32 / output as f32 - 0.5).clamp(0.0, input as f32 - 1.0);
        let (mut indices, mut weights) = (Vec::new(), Vec::new());
        for x in 0..output {
            let low = at(x) as usize;
            indices.extend([low, (low + 1).min(input - 1)]);
            weights.extend([1.0 - at(x).fract(), at(x).fract()]);
        }
        let taps = AxisTaps::new(input, 2, indices.clone(), weights.clone()).unwrap();
        let x = levels(seed, images * input * input * channels);
        let mut wanted = Vec::new();
        for i in 0..images * output * output * channels {
            let (channel, pixel) = (i % channels, i / channels);
            let (image, oy, ox) = (pixel / output / output, pixel / output % output, pixel % output);
            let mut sum = 0.0f32;
            for a in 2 * oy..2 * oy + 2 {
                let level = |b: usize| x[((image * input + indices[a]) * input + indices[b]) * channels + channel];
                let line = (2 * ox..2 * ox + 2).fold(0.0f32, |line, b| line + f32::from(level(b)) * weights[b]);
                sum += line * weights[a];
            }
            wanted.push(sum.round_ties_even() as u8);
        }
        check((images * output * output, channels, gap), &wanted, |isa, threads, out| {
            let rows = Rows::dense(&x, images * input * input, channels).unwrap();
            resize(isa, threads, images, (&taps, &taps), rows, out);
        });
    }

    #[test]
    fn own_ranges(rows in 0usize..5, channels in 1usize..200, gap in 0usize..3, shift in -1.5f32..1.5, seed: u64) {
        let x = Input::new(seed, rows, channels, gap, -1.0 + shift, 1.0 + shift);
        let all = (0..rows * channels).map(|i| x.at(i / channels, i % channels) as f32);
        let (low, high) = all.fold((0f32, 0f32), |(low, high), x| (low.min(x), high.max(x)));
        let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
        let wanted = Grid { scale, zero: (-low / scale).clamp(0.0, 255.0).round_ties_even() };
        for isa in Isa::available() {
            for threads in [1, 3] {
                prop_assert_eq!(own_grid(isa, &ThreadPool::new(threads), x.rows()), wanted, "{}", isa);
            }
        }
    }

    #[test]
    fn tables_are_looked_up(rows in 0usize..5, channels in 1usize..200, gap in 0usize..3, seed: u64) {
        let table: LevelTable = levels(seed, 256).try_into().unwrap();
        let x = levels(!seed, rows * channels);
        let wanted: Vec<u8> = x.iter().map(|&x| table[usize::from(x)]).collect();
        check((rows, channels, gap), &wanted, |isa, pool, out| {
            look_up(isa, pool, &table, Rows::dense(&x, rows, channels).unwrap(), out);
        });
    }
}
