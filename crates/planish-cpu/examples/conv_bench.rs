//! Times every algorithm on layers of well-known networks, on one thread.
//!
//! `cargo run --release -p planish-cpu --example conv_bench [part of a layer name] [threads] [cold]`. For each
//! layer it prints every algorithm that accepts it, cheapest estimate first: the least of many times, the share
//! of the multiply-add rate measured on this machine, and the estimate relative to the time. A `*` marks the
//! fastest. With `cold`, weights are taken from memory rather than from a cache, as in a network larger than
//! the cache.

use std::hint::black_box;
use std::time::Instant;

use planish_cpu::conv::{ConvProblem, algorithms};
use planish_cpu::epilogue::Activation;
use planish_cpu::isa::Isa;
use planish_cpu::simd::{Simd, SimdOp, dispatch};
use planish_cpu::threads::ThreadPool;
use planish_cpu::view::{Rows, RowsMut};

/// Nothing but independent multiply-adds, this many of each.
struct Peak(usize);

impl SimdOp for Peak {
    type Output = (f32, usize);

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> (f32, usize) {
        let mut sums = [s.splat(1.0); 12];
        let x = s.splat(0.5);
        let y = s.splat(black_box(0.25));
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, x, y);
            }
        }
        let total = sums.into_iter().fold(s.zero(), |a, b| s.add(a, b));
        (s.reduce_add(total), self.0 * 12 * S::LANES * 2)
    }
}

/// The least time of many calls, in seconds.
fn least_time(mut call: impl FnMut()) -> f64 {
    call();
    let mut best = f64::INFINITY;
    let start = Instant::now();
    let mut calls = 0;
    while calls < 5 || start.elapsed().as_secs_f64() < 0.2 {
        let one = Instant::now();
        call();
        best = best.min(one.elapsed().as_secs_f64());
        calls += 1;
    }
    best
}

/// `name, size, input channels, output channels, kernel, stride, groups`; padding keeps the size.
type Layer = (&'static str, usize, usize, usize, usize, usize, usize);

const LAYERS: &[Layer] = &[
    ("resnet50 first", 224, 3, 64, 7, 2, 1),
    ("small first 7x7", 112, 3, 64, 7, 2, 1),
    ("small first 3x3", 56, 3, 64, 3, 1, 1),
    ("resnet50 3x3 a", 56, 64, 64, 3, 1, 1),
    ("resnet50 3x3 b", 28, 128, 128, 3, 1, 1),
    ("resnet50 3x3 c", 14, 256, 256, 3, 1, 1),
    ("resnet50 3x3 d", 7, 512, 512, 3, 1, 1),
    ("resnet50 3x3 s2", 56, 128, 128, 3, 2, 1),
    ("resnet50 1x1 a", 56, 64, 256, 1, 1, 1),
    ("resnet50 1x1 b", 28, 512, 128, 1, 1, 1),
    ("resnet50 1x1 c", 14, 1024, 256, 1, 1, 1),
    ("resnet50 1x1 d", 7, 512, 2048, 1, 1, 1),
    ("resnet50 1x1 e", 7, 2048, 512, 1, 1, 1),
    ("resnet50 1x1 s2", 28, 512, 1024, 1, 2, 1),
    ("vgg16 first", 224, 3, 64, 3, 1, 1),
    ("vgg16 second", 224, 64, 64, 3, 1, 1),
    ("vgg16 512 28", 28, 512, 512, 3, 1, 1),
    ("vgg16 512 14", 14, 512, 512, 3, 1, 1),
    ("mobilenet_v2 first", 224, 3, 32, 3, 2, 1),
    ("mobilenet_v2 dw 112", 112, 32, 32, 3, 1, 32),
    ("mobilenet_v2 1x1 112", 112, 32, 16, 1, 1, 1),
    ("mobilenet_v2 expand", 112, 16, 96, 1, 1, 1),
    ("mobilenet_v2 dw s2", 112, 96, 96, 3, 2, 96),
    ("mobilenet_v2 1x1 56", 56, 144, 24, 1, 1, 1),
    ("mobilenet_v2 dw 56", 56, 144, 144, 3, 1, 144),
    ("mobilenet_v2 dw 28", 28, 192, 192, 3, 1, 192),
    ("mobilenet_v2 dw 14", 14, 384, 384, 3, 1, 384),
    ("mobilenet_v1 dw 14", 14, 512, 512, 3, 1, 512),
    ("mobilenet_v2 dw 7", 7, 960, 960, 3, 1, 960),
    ("mobilenet_v2 last", 7, 320, 1280, 1, 1, 1),
    ("efficientnet dw5", 28, 240, 240, 5, 1, 240),
    ("efficientnet dw5 s2", 56, 144, 144, 5, 2, 144),
    ("resnext50 g4", 56, 128, 128, 3, 1, 32),
    ("resnext50 g8", 28, 256, 256, 3, 1, 32),
    ("resnext50 g16", 14, 512, 512, 3, 1, 32),
    ("resnext50 g32", 7, 1024, 1024, 3, 1, 32),
    ("squeezenet squeeze", 55, 128, 16, 1, 1, 1),
    ("squeezenet expand 3x3", 55, 16, 64, 3, 1, 1),
    ("densenet 3x3 56", 56, 128, 32, 3, 1, 1),
    ("densenet 3x3 7", 7, 128, 32, 3, 1, 1),
    ("resnet20 16", 32, 16, 16, 3, 1, 1),
    ("fully connected", 1, 2048, 1000, 1, 1, 1),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let wanted = arguments.next().unwrap_or_default();
    let threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let cold = arguments.next().is_some();
    let isa = Isa::current();
    let pool = ThreadPool::new(threads);
    let mut flops = 0;
    let seconds = least_time(|| flops = black_box(dispatch(isa, Peak(100_000))).1);
    let peak = flops as f64 / seconds;
    // One multiply-add of a vector of 16 a cycle, or two of 8.
    let cycles = peak / 32.0;
    println!("{isa}: {:.1} GFLOP/s of multiply-adds on a core, {threads} threads", peak / 1e9);
    for &(name, size, inputs, outputs, kernel, stride, groups) in LAYERS {
        if !name.contains(&wanted) {
            continue;
        }
        let mut problem = ConvProblem::new_2d(1, inputs, outputs, [size; 2], [kernel; 2]);
        problem.groups = groups;
        problem.stride = [1, stride, stride];
        problem.pads_begin = [0, kernel / 2, kernel / 2];
        problem.pads_end = problem.pads_begin;
        let fill = |len: usize| (0..len).map(|i| (i * 7 % 13) as f32 * 0.1 - 0.6).collect::<Vec<_>>();
        // Tensors start at a cache line, as those of the engine do.
        let input = fill(problem.in_rows() * inputs + 16);
        let input = &input[input.as_ptr().align_offset(64)..][..problem.in_rows() * inputs];
        let weights = fill(problem.weights_len());
        let mut output = vec![0.0; problem.out_rows() * outputs + 16];
        let start = output.as_ptr().align_offset(64);
        let output = &mut output[start..][..problem.out_rows() * outputs];
        let mut results = Vec::new();
        for algorithm in algorithms() {
            if algorithm.accepts(&problem, isa).is_err() {
                continue;
            }
            let cost = algorithm.cost(&problem, isa, threads) / cycles;
            let prepared = match algorithm.prepare(&problem, isa, &weights, Some(&weights[..outputs])) {
                Ok(prepared) => prepared,
                Err(error) => {
                    println!("{name}: {}: {error}", algorithm.name());
                    continue;
                }
            };
            let mut workspace = vec![0.0; prepared.workspace_len(&problem, threads)];
            let mut copies = vec![prepared];
            while cold && copies.len() * copies[0].bytes() < 96 << 20 && copies.len() < 200 {
                copies.extend(algorithm.prepare(&problem, isa, &weights, None));
            }
            let mut turn = 0;
            let seconds = least_time(|| {
                turn += 1;
                let prepared = &copies[turn % copies.len()];
                let input = Rows::dense(input, problem.in_rows(), inputs);
                let output = RowsMut::dense(output, problem.out_rows(), outputs);
                let (Ok(input), Ok(output)) = (input, output) else { return };
                let result =
                    prepared.run(&problem, &pool, input, None, Activation::Relu, output, &mut workspace);
                black_box(result.is_ok());
            });
            results.push((cost, seconds, algorithm.name()));
        }
        results.sort_by(|a, b| a.0.total_cmp(&b.0));
        let best = results.iter().map(|r| r.1).fold(f64::INFINITY, f64::min);
        for (cost, seconds, algorithm) in results {
            let rate = 2.0 * problem.macs() as f64 / seconds;
            println!(
                "{name:22} {algorithm:12} {:9.1} µs {:6.1} GFLOP/s {:5.1} %  estimate {:4.2}{}",
                seconds * 1e6,
                rate / 1e9,
                100.0 * rate / peak / threads as f64,
                cost / seconds,
                if seconds == best { " *" } else { "" }
            );
        }
    }
}
