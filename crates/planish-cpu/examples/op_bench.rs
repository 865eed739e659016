//! How close the kernels that are no convolutions come to the speed at which this machine copies memory.
//!
//! `cargo run --release -p planish-cpu --example op_bench [threads] [images] [filter]`
//!
//! Each line: the median time, the bytes a kernel has to read and write once by the time it took, and that as a part of what a
//! plain copy of one activation reaches on as many threads.

use std::time::Instant;

use planish_cpu::copy::{
    DepthOrder, channel_shuffle, copy, depth_to_space, to_channels_first, to_channels_last,
};
use planish_cpu::elementwise::{Binary, Unary, binary, unary};
use planish_cpu::epilogue::Activation;
use planish_cpu::gather::{PadMode, gather};
use planish_cpu::isa::Isa;
use planish_cpu::normalize::{group_normalize, layer_normalize, local_response_normalize, scale_shift};
use planish_cpu::pooling::{PoolAxis, PoolProblem, Pooling, pool};
use planish_cpu::reduce::{Reduction, reduce};
use planish_cpu::resize::{AxisTaps, resize};
use planish_cpu::softmax::{Softmax, softmax_channels, softmax_rows};
use planish_cpu::strided::{Strided, StridedMut};
use planish_cpu::threads::ThreadPool;
use planish_cpu::view::{Rows, RowsMut};

const SIDE: usize = 56;
const CHANNELS: usize = 128;
const SAMPLES: usize = 41;

/// Runs kernels and prints a line for each.
struct Bench {
    threads: ThreadPool,
    filter: String,
    /// Gigabytes per second of a plain copy.
    copy: f64,
}

impl Bench {
    fn run(&self, name: &str, numbers_moved: usize, kernel: impl Fn()) -> f64 {
        if !name.contains(&self.filter) && self.copy > 0.0 {
            return 0.0;
        }
        let _scope = self.threads.activate();
        kernel();
        let mut times: Vec<f64> = (0..SAMPLES)
            .map(|_| {
                let start = Instant::now();
                kernel();
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (median, best) = (times[SAMPLES / 2], times[0]);
        let rate = |time: f64| numbers_moved as f64 * 4e-9 / time;
        let part = if self.copy > 0.0 { rate(best) / self.copy } else { 1.0 };
        println!(
            "{name:36} {:8.1} us median {:8.1} us best {:6.1} GB/s at best {:4.0} % of a copy",
            median * 1e6,
            best * 1e6,
            rate(best),
            part * 100.0
        );
        rate(best)
    }
}

/// An output that the kernels under measurement write again and again.
struct Out(Vec<f32>);

impl Out {
    fn rows(&self, rows: usize, channels: usize) -> RowsMut<'_> {
        assert!(rows * channels <= self.0.len());
        // SAFETY: inside the vector, which only one kernel at a time writes and nothing else reads.
        unsafe { RowsMut::from_raw(self.0.as_ptr().cast_mut(), rows, channels, channels) }
    }

    fn strided(&self, shape: &[usize]) -> StridedMut<'_> {
        let strides = planish_cpu::strided::dense_strides(shape);
        assert!(shape.iter().product::<usize>() <= self.0.len());
        // SAFETY: as above.
        unsafe { StridedMut::from_raw(self.0.as_ptr().cast_mut(), shape, &strides) }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (threads, images) = (number(2), number(1));
    let filter = arguments.next().unwrap_or_default();
    let isa = Isa::current();
    let rows = images * SIDE * SIDE;
    let n = rows * CHANNELS;
    println!("{isa}, {threads} threads, {images} x {SIDE} x {SIDE} x {CHANNELS}, {:.1} MB", n as f64 * 4e-6);
    let data: Vec<f32> = (0..n).map(|i| (i % 1000) as f32 * 0.004 - 2.0).collect();
    let other = data.clone();
    let out = Out(vec![0.0; 4 * n]);
    let vector = vec![0.5; CHANNELS];
    let mut bench = Bench { threads: ThreadPool::new(threads), filter, copy: 0.0 };
    let input = Rows::dense(&data, rows, CHANNELS).expect("made to measure");
    let view = |shape: &[usize]| Strided::dense(&data, shape).expect("made to measure");
    bench.copy = bench.run("copy", 2 * n, || copy(isa, &bench.threads, view(&[n]), out.strided(&[n])));
    let threads = &bench.threads;

    let activations = [
        ("relu", Unary::Activation(Activation::Relu)),
        ("hardswish", Unary::Activation(Activation::HardSwish)),
        ("sigmoid", Unary::Activation(Activation::Sigmoid)),
        ("silu", Unary::Activation(Activation::Silu)),
        ("mish", Unary::Activation(Activation::Mish)),
        ("gelu", Unary::Activation(Activation::Gelu)),
        ("tanh", Unary::Activation(Activation::Tanh)),
        ("exp", Unary::Exp),
        ("log", Unary::Log),
        ("sqrt", Unary::Sqrt),
    ];
    for (name, function) in activations {
        bench.run(&format!("unary {name}"), 2 * n, || {
            unary(isa, threads, function, input, out.rows(rows, CHANNELS))
        });
    }

    let shape = [images, SIDE * SIDE, CHANNELS];
    let operands: [(&str, &[usize], usize); 5] = [
        ("same shape", &[images, SIDE * SIDE, CHANNELS], 3 * n),
        ("scalar", &[1], 2 * n),
        ("per channel", &[CHANNELS], 2 * n),
        ("per image and channel", &[images, 1, CHANNELS], 2 * n),
        ("per pixel", &[images, SIDE * SIDE, 1], 2 * n),
    ];
    for (name, b_shape, moved) in operands {
        let b = Strided::dense(&other[..b_shape.iter().product()], b_shape).expect("made to measure");
        bench.run(&format!("binary mul, {name}"), moved, || {
            binary(isa, threads, Binary::Mul, Activation::None, view(&shape), b, out.strided(&shape));
        });
    }
    for (name, activation) in [("relu", Activation::Relu), ("silu", Activation::Silu)] {
        let b = Strided::dense(&other, &shape).expect("made to measure");
        bench.run(&format!("binary add and {name}"), 3 * n, || {
            binary(isa, threads, Binary::Add, activation, view(&shape), b, out.strided(&shape));
        });
    }

    let axis = |kernel: usize, stride: usize, pad: usize| PoolAxis {
        input: SIDE,
        output: (SIDE + 2 * pad - kernel) / stride + 1,
        kernel,
        stride,
        dilation: 1,
        pad_begin: pad,
        pad_end: pad,
    };
    for (name, kind, axis) in [
        ("max 3x3 /2", Pooling::Max, axis(3, 2, 1)),
        ("max 2x2 /2", Pooling::Max, axis(2, 2, 0)),
        ("max 5x5 /1", Pooling::Max, axis(5, 1, 2)),
        ("average 3x3 /1", Pooling::Average { count_include_pad: false }, axis(3, 1, 1)),
    ] {
        let problem = PoolProblem::plane(images, axis, axis);
        let out_rows = images * axis.output * axis.output;
        bench.run(&format!("pool {name}"), n + out_rows * CHANNELS, || {
            pool(isa, threads, kind, &problem, input, out.rows(out_rows, CHANNELS));
        });
    }

    bench.run("reduce mean over pixels", n, || {
        reduce(isa, threads, Reduction::Mean, view(&shape), out.rows(images, CHANNELS));
    });
    bench.run("reduce sum over channels", n, || {
        reduce(isa, threads, Reduction::Sum, view(&[rows, CHANNELS, 1]), out.rows(rows, 1));
    });
    bench.run("reduce max over pixels", n, || {
        reduce(isa, threads, Reduction::Max, view(&shape), out.rows(images, CHANNELS));
    });
    bench.run("softmax over channels", 2 * n, || {
        softmax_channels(isa, threads, Softmax::Probability, input, out.rows(rows, CHANNELS));
    });
    bench.run("softmax over rows", 2 * n, || {
        softmax_rows(isa, threads, Softmax::Probability, SIDE, input, out.rows(rows, CHANNELS));
    });
    bench.run("scale and shift, relu", 2 * n, || {
        scale_shift(isa, threads, &vector, &vector, Activation::Relu, input, out.rows(rows, CHANNELS));
    });
    bench.run("instance normalisation", 4 * n, || {
        let numbers = (&vector[..], &vector[..]);
        let out = out.rows(rows, CHANNELS);
        group_normalize(isa, threads, (images, CHANNELS), 1e-5, numbers, Activation::None, input, out);
    });
    bench.run("layer normalisation", 2 * n, || {
        let numbers = (&vector[..], Some(&vector[..]));
        layer_normalize(isa, threads, 1e-5, numbers, input, out.rows(rows, CHANNELS));
    });
    bench.run("local response normalisation", 2 * n, || {
        local_response_normalize(isa, threads, 5, (1e-4, 0.75, 1.0), input, out.rows(rows, CHANNELS));
    });

    let twice = |length: usize| {
        let at = |x: usize| ((x as f32 + 0.5) / 2.0 - 0.5).max(0.0);
        let indices =
            (0..2 * length).flat_map(|x| [at(x) as usize, (at(x) as usize + 1).min(length - 1)]).collect();
        let weights = (0..2 * length).flat_map(|x| [1.0 - at(x).fract(), at(x).fract()]).collect();
        AxisTaps::new(length, 2, indices, weights).expect("taps inside the input")
    };
    let taps = twice(SIDE);
    bench.run("resize bilinear x2", 5 * n, || {
        resize(isa, threads, images, (&taps, &taps), input, out.rows(4 * rows, CHANNELS));
    });
    let pixel_shape = [images, SIDE, SIDE, CHANNELS];
    let same = |length: usize| PadMode::Constant.table(length, 0, 0);
    let nearest = || (0..2 * SIDE).map(|x| Some(x / 2)).collect::<Vec<_>>();
    let tables = [same(images), nearest(), nearest(), same(CHANNELS)];
    bench.run("resize nearest x2", 5 * n, || {
        let output = out.strided(&[images, 2 * SIDE, 2 * SIDE, CHANNELS]);
        gather(threads, &tables, 0.0, view(&pixel_shape), output);
    });
    let padded = || PadMode::Constant.table(SIDE, 1, 1);
    let tables = [same(images), padded(), padded(), same(CHANNELS)];
    bench.run("pad by one pixel", 2 * n, || {
        gather(
            threads,
            &tables,
            0.0,
            view(&pixel_shape),
            out.strided(&[images, SIDE + 2, SIDE + 2, CHANNELS]),
        );
    });

    for channels in [3, 17, CHANNELS, 1024] {
        let pixels = n / images / channels;
        let rows = images * pixels;
        let input = Rows::dense(&data[..rows * channels], rows, channels).expect("made to measure");
        bench.run(&format!("to channels last, {channels} channels"), 2 * rows * channels, || {
            to_channels_last(isa, threads, images, &data[..rows * channels], out.rows(rows, channels));
        });
        bench.run(&format!("to channels first, {channels} channels"), 2 * rows * channels, || {
            // SAFETY: inside the vector, which only this kernel uses meanwhile.
            let first = unsafe { std::slice::from_raw_parts_mut(out.0.as_ptr().cast_mut(), rows * channels) };
            to_channels_first(isa, threads, images, input, first);
        });
    }
    bench.run("channel window (concat)", 2 * n, || {
        // SAFETY: inside the vector, which only this kernel uses meanwhile.
        let window = unsafe { RowsMut::from_raw(out.0.as_ptr().cast_mut(), rows, CHANNELS, 2 * CHANNELS) };
        copy(isa, threads, input.into(), window.into());
    });
    bench.run("channel shuffle, 4 groups", 2 * n, || {
        channel_shuffle(isa, threads, 4, input, out.rows(rows, CHANNELS));
    });
    for (name, order) in
        [("block first", DepthOrder::BlockFirst), ("channel first", DepthOrder::ChannelFirst)]
    {
        bench.run(&format!("depth to space, {name}"), 2 * n, || {
            let output = out.rows(4 * rows, CHANNELS / 4);
            depth_to_space(isa, threads, [images, SIDE, SIDE], (2, order), input, output);
        });
    }
}
