//! Bits on every instruction set, against sums of products by their definition.

use super::*;
use crate::conv::{SumLevels, reference};
use crate::epilogue::{Activation, Levels};
use crate::testing::random;
use proptest::prelude::*;

/// Kernels of all kinds, few and many channels, with and without a whole number of words.
fn problem() -> impl Strategy<Value = ConvProblem> {
    let axis = || (1usize..14, 1usize..5, 1usize..3, 1usize..3, 0usize..4, 0usize..4);
    let thin = prop_oneof![5 => Just((1, 1, 1, 1, 0, 0)), 1 => axis()];
    let groups = prop_oneof![4 => Just(1usize), 1 => 2usize..4];
    let channels = prop_oneof![2 => 8usize..80, 1 => prop::sample::select(vec![64usize, 128, 192, 193])];
    let outputs = prop_oneof![2 => 1usize..20, 1 => 20usize..70];
    let input = prop_oneof![1 => Just(InputBits::Signs), 1 => (1u8..5).prop_map(InputBits::Unsigned)];
    let weights = prop_oneof![1 => Just(WeightBits::Signs), 1 => (1u8..4).prop_map(WeightBits::Magnitude)];
    (0usize..3, groups, channels, outputs, thin, axis(), axis(), input, weights).prop_filter_map(
        "the kernel must fit",
        |(batch, groups, channels, outputs, d, h, w, input, weights)| {
            let axes = [d, h, w];
            let problem = ConvProblem {
                batch,
                in_channels: groups * channels,
                out_channels: groups * outputs,
                groups,
                in_size: axes.map(|a| a.0),
                kernel: axes.map(|a| a.1),
                stride: axes.map(|a| a.2),
                dilation: axes.map(|a| a.3),
                pads_begin: axes.map(|a| a.4),
                pads_end: axes.map(|a| a.5),
                element: ElementType::U8,
                bits: Some(FewBits { input, weights }),
            };
            (few_bits(&problem).is_ok() && problem.macs() < 4_000_000).then_some(problem)
        },
    )
}

/// What a problem computes on.
struct Numbers {
    levels: Vec<u8>,
    zero: u8,
    weights: Vec<f32>,
    bias: Vec<i32>,
    scales: Vec<f32>,
    shift: Option<Vec<f32>>,
}

impl Numbers {
    fn new(problem: &ConvProblem, zero: u8, seed: u64) -> Numbers {
        let few = problem.bits.unwrap();
        let whole = |seed, len, low: f32, high: f32| random(seed, len, low, high).into_iter().map(f32::floor);
        let inputs = problem.in_rows() * problem.in_channels;
        let (levels, zero) = match few.input {
            InputBits::Signs => (whole(seed, inputs, 0.0, 2.0).map(|x| 2 * x as u8).collect(), 1),
            InputBits::Unsigned(bits) => {
                (whole(seed, inputs, 0.0, f32::from(1u8 << bits)).map(|x| x as u8).collect(), zero)
            }
        };
        let weights = whole(seed + 1, problem.weights_len(), 0.0, 1e6).map(|x| match few.weights {
            WeightBits::Signs => x % 2.0 * 2.0 - 1.0,
            WeightBits::Magnitude(bits) => x % f32::from((2u8 << bits) - 1) - f32::from((1u8 << bits) - 1),
        });
        let outs = problem.out_channels;
        Numbers {
            levels,
            zero,
            weights: weights.collect(),
            bias: whole(seed + 2, outs, -900.0, 900.0).map(|x| x as i32).collect(),
            scales: random(seed + 3, outs, -0.1, 0.1),
            shift: (seed % 2 == 1).then(|| random(seed + 4, outs, -1.0, 1.0)),
        }
    }

    fn weights(&self) -> Weights<'_> {
        let levels = SumLevels {
            input_zero: self.zero,
            bias: Some(&self.bias),
            scales: &self.scales,
            shift: self.shift.as_deref(),
        };
        Weights { values: &self.weights, bias: None, levels: Some(levels) }
    }

    /// The sums by their definition; doubles hold these integers exactly.
    fn sums(&self, problem: &ConvProblem) -> Vec<i32> {
        let shape = ConvProblem { element: ElementType::F32, bits: None, ..problem.clone() };
        let input: Vec<f32> = self.levels.iter().map(|&x| f32::from(x) - f32::from(self.zero)).collect();
        let found = reference::convolve(&shape, &input, &self.weights, None).unwrap().sums;
        let bias = |i: usize| self.bias[i % problem.out_channels];
        found.iter().enumerate().map(|(i, &sum)| sum as i32 + bias(i)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn sums_are_exact(problem in problem(), zero in 0u8..4, gap in 0usize..3, seed in 0u64..1 << 40) {
        let numbers = Numbers::new(&problem, zero, seed);
        let (rows, channels) = (problem.in_rows(), problem.in_channels);
        let (out_rows, outs) = (problem.out_rows(), problem.out_channels);
        let sums = numbers.sums(&problem);
        let wanted: Vec<f32> = sums
            .iter()
            .enumerate()
            .map(|(i, &sum)| {
                let scaled = sum as f32 * numbers.scales[i % outs];
                numbers.shift.as_ref().map_or(scaled, |shift| scaled + shift[i % outs])
            })
            .collect();
        let spread: Vec<u8> =
            numbers.levels.chunks(channels).flat_map(|row| row.iter().copied().chain(vec![255; gap])).collect();
        for isa in Isa::available() {
            let conv = BitConv::new(&problem, isa, numbers.weights()).unwrap();
            for threads in [1, 3] {
                let pool = ThreadPool::new(threads);
                let mut workspace = vec![f32::NAN; conv.workspace_len(&problem)];
                let input = || Rows::new(&spread, rows, channels, channels + gap).unwrap();
                let mut out = vec![7f32; out_rows * (outs + gap)];
                let to = RowsMut::new(&mut out, out_rows, outs, outs + gap).unwrap();
                conv.numbers(&problem, &pool, input(), Epilogue::default(), to, &mut workspace).unwrap();
                for (i, &got) in out.iter().enumerate() {
                    let (row, channel) = (i / (outs + gap), i % (outs + gap));
                    let want = if channel < outs { wanted[row * outs + channel] } else { 7.0 };
                    prop_assert_eq!(got, want, "{} row {} channel {}", isa, row, channel);
                }
                let levels = Levels { zero: 3.0, ..Levels::default() };
                let activation = Activation::Clip { min: -3.0, max: 12.0 };
                let epilogue = Epilogue { activation, levels, ..Epilogue::default() };
                let mut out = vec![0u8; out_rows * outs];
                let to = RowsMut::dense(&mut out, out_rows, outs).unwrap();
                conv.run(&problem, &pool, input(), epilogue, to, &mut workspace).unwrap();
                for (got, want) in out.iter().zip(&wanted) {
                    prop_assert_eq!(f32::from(*got), want.clamp(-3.0, 12.0).round_ties_even() + 3.0);
                }
            }
        }
    }
}

#[test]
fn counts_of_long_sums_do_not_overflow() {
    // More words than a byte's count of the lookup could hold, all of them different.
    for weights in [WeightBits::Signs, WeightBits::Magnitude(1)] {
        let plain = ConvProblem::new_2d(1, 4096 + 70, 3, [3, 3], [3, 3]);
        let bits = Some(FewBits { input: InputBits::Signs, weights });
        let problem = ConvProblem { element: ElementType::U8, bits, ..plain };
        let mut numbers = Numbers::new(&problem, 1, 5);
        numbers.levels.fill(2);
        numbers.weights.fill(-1.0);
        numbers.scales.fill(1.0);
        numbers.shift = None;
        for isa in Isa::available() {
            let conv = BitConv::new(&problem, isa, numbers.weights()).unwrap();
            let (mut out, mut workspace) = ([0f32; 3], vec![0.0; conv.workspace_len(&problem)]);
            let input = Rows::dense(&numbers.levels, 9, problem.in_channels).unwrap();
            let to = RowsMut::dense(&mut out, 1, 3).unwrap();
            conv.run(&problem, &ThreadPool::new(1), input, Epilogue::default(), to, &mut workspace).unwrap();
            let wanted: Vec<f32> = numbers.sums(&problem).iter().map(|&sum| sum as f32).collect();
            assert_eq!(out[..], wanted, "{isa} {weights}");
        }
    }
}

#[test]
fn what_is_not_few_is_refused() {
    let plain = ConvProblem::new_2d(1, 64, 8, [5, 5], [3, 3]);
    let few = FewBits { input: InputBits::Signs, weights: WeightBits::Signs };
    let problem = ConvProblem { element: ElementType::U8, bits: Some(few), ..plain.clone() };
    let mut numbers = Numbers::new(&problem, 1, 1);
    let accepts = |problem: &ConvProblem| Bits.accepts(problem, Isa::Portable);
    assert_eq!(accepts(&problem), Ok(()));
    assert!(accepts(&plain).unwrap_err().contains("f32"));
    let bits = Some(FewBits { input: InputBits::Unsigned(5), ..few });
    assert!(accepts(&ConvProblem { bits, ..problem.clone() }).unwrap_err().contains("5 bits"));
    assert!(accepts(&ConvProblem { bits: None, ..problem.clone() }).unwrap_err().contains("few bits"));
    let depthwise = ConvProblem { groups: 64, out_channels: 64, ..problem.clone() };
    assert!(accepts(&depthwise).unwrap_err().contains("in each group"));
    let refusal = |numbers: &Numbers| BitConv::new(&problem, Isa::Portable, numbers.weights()).err().unwrap();
    numbers.shift = Some(vec![1.0]);
    assert!(refusal(&numbers).contains("shifts"));
    numbers.shift = None;
    numbers.weights[3] = 0.0;
    assert!(refusal(&numbers).contains("a weight of 0 among signs"));
    numbers.weights[3] = 1.0;
    numbers.zero = 0;
    assert!(refusal(&numbers).contains("level 1"));
}

#[test]
fn weights_of_other_bits_are_not_taken() {
    let few = FewBits { input: InputBits::Unsigned(1), weights: WeightBits::Signs };
    let problem = ConvProblem {
        element: ElementType::U8,
        bits: Some(few),
        ..ConvProblem::new_2d(1, 16, 4, [2, 2], [1, 1])
    };
    let numbers = Numbers::new(&problem, 0, 9);
    let conv = BitConv::new(&problem, Isa::Portable, numbers.weights()).unwrap();
    let other = ConvProblem { bits: Some(FewBits { input: InputBits::Signs, ..few }), ..problem };
    let mut out = [0f32; 16];
    let input = Rows::dense(&numbers.levels, 4, 16).unwrap();
    let to = RowsMut::dense(&mut out, 4, 4).unwrap();
    let error = conv.run(&other, &ThreadPool::new(1), input, Epilogue::default(), to, &mut [0.0; 64]);
    assert!(error.unwrap_err().contains("cannot serve"));
}
