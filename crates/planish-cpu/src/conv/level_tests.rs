//! Convolutions on levels, on every instruction set, against integers and the definition of their epilogue: to the last
//! bit, except behind curved activations.

use proptest::prelude::*;

use super::tests::problem;
use super::*;
use crate::amx;
use crate::epilogue::exact::ACTIVATIONS;
use crate::epilogue::{Activation, Epilogue, Levels};
use crate::view::{Rows, RowsMut};

/// Whole numbers from `low` to `high` that look random, the same for the same seed.
fn integers(len: usize, seed: u64, low: i32, high: i32) -> Vec<i32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        low + ((state >> 33) % (high - low + 1) as u64) as i32
    };
    (0..len).map(next).collect()
}

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    integers(len, seed, 0, 255).into_iter().map(|x| x as u8).collect()
}

/// What a case has besides its problem.
#[derive(Clone, Debug)]
struct Setting {
    seed: u64,
    input_gap: usize,
    output_gap: usize,
    input_zero: u8,
    /// The weights' own zero point, as far from theirs as levels of a byte can be.
    weight_zero: i32,
    bias: bool,
    shift: bool,
    residual: bool,
    inner: bool,
    activation: Activation,
    zero: u8,
}

fn setting() -> impl Strategy<Value = Setting> {
    let limits = [
        Activation::None,
        Activation::Relu,
        Activation::Clip { min: 0.0, max: 90.5 },
        Activation::Clip { min: -20.0, max: 30.0 },
    ];
    let activation = prop_oneof![
        4 => prop::sample::select(limits.to_vec()),
        1 => prop::sample::select(ACTIVATIONS.into_iter().filter(|a| !a.jumps()).collect::<Vec<_>>()),
    ];
    let gaps = (0usize..3, 0usize..3);
    let zeros = (any::<u8>(), prop_oneof![2 => Just(0), 1 => -128i32..128], any::<u8>());
    let parts = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (any::<u64>(), gaps, zeros, parts, activation).prop_map(|(seed, gaps, zeros, parts, activation)| {
        Setting {
            seed,
            input_gap: gaps.0,
            output_gap: gaps.1,
            input_zero: zeros.0,
            weight_zero: zeros.1,
            zero: zeros.2,
            bias: parts.0,
            residual: parts.1,
            inner: parts.2,
            shift: parts.3,
            activation,
        }
    })
}

/// Every instruction set with kernels on levels, that of the tile unit on its emulation where the machine has none.
fn isas() -> Vec<Isa> {
    let mut isas = Isa::available_for(ElementType::U8);
    if amx::emulate().is_ok() && !isas.contains(&Isa::Amx) {
        isas.push(Isa::Amx);
    }
    isas
}

/// The sums of a problem by their definition.
fn sums(problem: &ConvProblem, input: &[u8], zero: u8, weights: &[f32], bias: Option<&[i32]>) -> Vec<i32> {
    let shape = ConvProblem { element: ElementType::F32, ..problem.clone() };
    let input: Vec<f32> = input.iter().map(|&x| f32::from(x) - f32::from(zero)).collect();
    // Doubles hold these integers exactly.
    let found = reference::convolve(&shape, &input, weights, None).unwrap().sums;
    let of = |channel: usize| bias.map_or(0, |bias| bias[channel]);
    found
        .iter()
        .enumerate()
        .map(|(i, &sum)| (sum as i32).wrapping_add(of(i % problem.out_channels)))
        .collect()
}

/// The level of a sum, and how far a kernel may be from it.
fn level(sum: f32, residual: Option<u8>, setting: &Setting, levels: &Levels) -> (f32, f32) {
    let mut x = sum;
    if let Some([low, high, step]) = levels.inner {
        x = x.max(low).min(high).round_ties_even() * step;
    }
    if let Some(residual) = residual {
        x += (f32::from(residual) - levels.residual_zero) * levels.residual_step;
    }
    let (y, off) = match setting.activation.limits() {
        Some((low, high)) => (x.max(low).min(high), 0.0),
        None => (setting.activation.exact(f64::from(x)) as f32, 1.0),
    };
    ((y.round_ties_even() + levels.zero).clamp(0.0, 255.0), off)
}

/// Depthwise problems of as many channels as fill vectors of bytes, and a few more.
fn depthwise() -> impl Strategy<Value = ConvProblem> {
    let height = (1usize..9, 1usize..5, 1usize..4, 1usize..3, 0usize..3, 0usize..3);
    let width =
        (1usize..14, prop::sample::select(vec![3usize, 5]), 1usize..3, Just(1usize), 0usize..4, 0usize..4);
    (0usize..3, 1usize..50, height, width).prop_filter_map("the kernel must fit", |(batch, quarter, h, w)| {
        let axes = [(1, 1, 1, 1, 0, 0), h, w];
        let channels = 4 * quarter;
        let problem = ConvProblem {
            batch,
            in_channels: channels,
            out_channels: channels,
            groups: channels,
            in_size: axes.map(|a| a.0),
            kernel: axes.map(|a| a.1),
            stride: axes.map(|a| a.2),
            dilation: axes.map(|a| a.3),
            pads_begin: axes.map(|a| a.4),
            pads_end: axes.map(|a| a.5),
            element: ElementType::U8,
            bits: None,
        };
        problem.validate().is_ok().then_some(problem)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn levels_are_exact(problem in problem(), setting in setting()) {
        check(problem, setting)?;
    }

    #[test]
    fn many_channels_by_themselves_are_exact(problem in depthwise(), setting in setting()) {
        check(problem, setting)?;
    }
}

/// Compares every algorithm that accepts a problem with the definition.
fn check(problem: ConvProblem, setting: Setting) -> Result<(), TestCaseError> {
    let problem = ConvProblem { element: ElementType::U8, ..problem };
    let Setting { seed, input_gap, output_gap, input_zero, .. } = setting;
    let (rows, channels, out_rows, outs) =
        (problem.in_rows(), problem.in_channels, problem.out_rows(), problem.out_channels);
    let input = bytes(rows * channels, seed);
    let weights: Vec<f32> = integers(problem.weights_len(), seed ^ 1, -128, 127)
        .into_iter()
        .map(|w| (w - setting.weight_zero) as f32)
        .collect();
    let bias = setting.bias.then(|| integers(outs, seed ^ 2, -20_000_000, 20_000_000));
    let residual = setting.residual.then(|| bytes(out_rows * outs, seed ^ 3));
    let scales: Vec<f32> = integers(outs, seed ^ 4, 1, 1000).iter().map(|&s| s as f32 * 3e-5).collect();
    let levels = Levels {
        inner: setting.inner.then_some([-f32::from(setting.zero), 255.0 - f32::from(setting.zero), 0.7]),
        residual_step: 0.37,
        residual_zero: 11.0,
        zero: f32::from(setting.zero),
    };
    let exact = sums(&problem, &input, input_zero, &weights, bias.as_deref());
    let spread: Vec<u8> =
        input.chunks(channels).flat_map(|row| row.iter().copied().chain(vec![77; input_gap])).collect();
    let shift = setting
        .shift
        .then(|| integers(outs, seed ^ 5, -400, 400).iter().map(|&s| s as f32 * 0.13).collect::<Vec<_>>());
    let sum_levels =
        SumLevels { input_zero, bias: bias.as_deref(), scales: &scales, shift: shift.as_deref() };
    let given = Weights { values: &weights, bias: None, levels: Some(sum_levels) };
    for isa in isas() {
        for algorithm in algorithms() {
            if algorithm.accepts(&problem, isa).is_err() {
                continue;
            }
            let prepared = algorithm.prepare(&problem, isa, given).unwrap();
            for threads in [1, 3] {
                let pool = ThreadPool::new(threads);
                let mut workspace = vec![f32::NAN; prepared.workspace_len(&problem, threads)];
                let mut out = vec![99u8; out_rows * (outs + output_gap)];
                let call = ConvCall {
                    input: Rows::new(&spread, rows, channels, channels + input_gap).unwrap(),
                    epilogue: Epilogue {
                        residual: residual.as_ref().map(|r| Rows::dense(r, out_rows, outs).unwrap()),
                        activation: setting.activation,
                        levels,
                        ..Epilogue::default()
                    },
                    output: RowsMut::new(&mut out, out_rows, outs, outs + output_gap).unwrap(),
                    workspace: &mut workspace,
                };
                prepared.run(&problem, &pool, call).unwrap();
                for (i, &got) in out.iter().enumerate() {
                    let (row, channel) = (i / (outs + output_gap), i % (outs + output_gap));
                    if channel >= outs {
                        prop_assert_eq!(got, 99, "{} wrote between rows", algorithm.name());
                        continue;
                    }
                    let at = row * outs + channel;
                    let scaled = exact[at] as f32 * scales[channel];
                    let sum = shift.as_ref().map_or(scaled, |shift| scaled + shift[channel]);
                    let (want, off) = level(sum, residual.as_ref().map(|r| r[at]), &setting, &levels);
                    let far = (f32::from(got) - want).abs();
                    prop_assert!(
                        far <= off,
                        "{} on {isa}: row {row} channel {channel}: {got} != {want}",
                        algorithm.name()
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn levels_need_to_be_said() {
    let problem = ConvProblem { element: ElementType::U8, ..ConvProblem::new_2d(1, 4, 4, [6, 6], [3, 3]) };
    let weights = vec![1.0; problem.weights_len()];
    let prepare = |values: &[f32], levels| {
        indirect::Indirect
            .prepare(&problem, Isa::current(), Weights { values, bias: None, levels })
            .map(|_| ())
    };
    let good = SumLevels { input_zero: 3, bias: None, scales: &[0.5; 4], shift: None };
    assert_eq!(prepare(&weights, Some(good)), Ok(()));
    assert!(prepare(&weights, None).is_err());
    assert!(prepare(&weights, Some(SumLevels { scales: &[0.5; 3], ..good })).is_err());
    assert!(prepare(&weights, Some(SumLevels { bias: Some(&[1]), ..good })).is_err());
    assert!(prepare(&weights, Some(SumLevels { shift: Some(&[1.0]), ..good })).is_err());
    for bad in [0.5, 256.0, f32::NAN] {
        let mut weights = weights.clone();
        weights[7] = bad;
        assert!(prepare(&weights, Some(good)).is_err(), "{bad}");
    }
    let too_long = ConvProblem { in_channels: 8192, ..problem };
    assert!(too_long.validate().unwrap_err().contains("overflow"));
}
