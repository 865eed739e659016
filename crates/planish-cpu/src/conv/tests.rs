//! Every algorithm on every instruction set of this machine against the reference.

use proptest::prelude::*;

use super::reference::{Reference, convolve};
use super::*;
use crate::element::Element;
use crate::epilogue::exact::ACTIVATIONS;
use crate::epilogue::{Activation, Epilogue};
use crate::rates::{Rate, Rates};
use crate::view::{Rows, RowsMut};
use crate::{for_element, for_float};

/// Numbers between -1 and 1 that look random, the same for the same seed.
pub(super) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(next).collect()
}

fn activation() -> impl Strategy<Value = Activation> {
    let smooth: Vec<_> = ACTIVATIONS.into_iter().filter(|activation| !activation.jumps()).collect();
    prop::sample::select(smooth)
}

/// Draws groups and channels: dense, depthwise, narrow groups, channel multipliers, wide groups.
fn channels() -> impl Strategy<Value = (usize, usize, usize)> {
    prop_oneof![
        (1usize..40, 1usize..70).prop_map(|(i, o)| (1, i, o)),
        (1usize..70).prop_map(|c| (c, c, c)),
        (2usize..9, 1usize..9, 1usize..9).prop_map(|(g, i, o)| (g, g * i, g * o)),
        (1usize..6, 1usize..4).prop_map(|(blocks, wide)| (4 * blocks, 16 * blocks, 4 * blocks * wide)),
        (2usize..4, 16usize..40, 16usize..40).prop_map(|(g, i, o)| (g, g * i, g * o)),
        // Groups that fill panels of every instruction set, some of them together.
        (1usize..4, 0u32..5, 1usize..7).prop_map(|(blocks, doublings, i)| {
            let (o, g) = (4 << doublings, blocks * (8 >> doublings).max(1));
            (g, g * i, g * o)
        }),
    ]
}

pub(super) fn problem() -> impl Strategy<Value = ConvProblem> {
    let axis = || (1usize..12, 1usize..5, 1usize..4, 1usize..3, 0usize..3, 0usize..3);
    let thin = prop_oneof![4 => Just((1usize, 1usize, 1usize, 1usize, 0usize, 0usize)), 1 => axis()];
    let pointwise = prop_oneof![3 => Just(false), 1 => Just(true)];
    let element = prop_oneof![Just(ElementType::F32), Just(ElementType::Bf16), Just(ElementType::F16)];
    (0usize..4, channels(), thin, axis(), axis(), pointwise, element).prop_filter_map(
        "the kernel must fit",
        |(batch, (groups, in_channels, out_channels), d, h, w, pointwise, element)| {
            let axes = [d, h, w];
            let mut problem = ConvProblem {
                batch,
                in_channels,
                out_channels,
                groups,
                in_size: axes.map(|a| a.0),
                kernel: axes.map(|a| a.1),
                stride: axes.map(|a| a.2),
                dilation: axes.map(|a| a.3),
                pads_begin: axes.map(|a| a.4),
                pads_end: axes.map(|a| a.5),
                element,
                bits: None,
            };
            if pointwise {
                (problem.kernel, problem.stride) = ([1; 3], [1; 3]);
                (problem.pads_begin, problem.pads_end) = ([0; 3], [0; 3]);
            }
            (problem.validate().is_ok() && problem.macs() < 3_000_000).then_some(problem)
        },
    )
}

/// How a test case runs besides its problem.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    seed: u64,
    input_gap: usize,
    output_gap: usize,
    bias: bool,
    residual: bool,
    activation: Activation,
    /// Whether there are slopes, scale and shift.
    channelwise: [bool; 3],
}

pub(super) fn setting() -> impl Strategy<Value = Setting> {
    let channelwise = prop_oneof![Just([false; 3]), any::<[bool; 3]>()];
    (any::<u64>(), 0usize..3, 0usize..3, any::<bool>(), any::<bool>(), activation(), channelwise).prop_map(
        |(seed, input_gap, output_gap, bias, residual, activation, channelwise)| Setting {
            seed,
            input_gap,
            output_gap,
            bias,
            residual,
            activation,
            channelwise,
        },
    )
}

/// Spreads dense rows to a stride, the gaps filled with a mark.
fn spread(dense: &[f32], channels: usize, stride: usize) -> Vec<f32> {
    dense.chunks(channels).flat_map(|row| row.iter().copied().chain(vec![7.5; stride - channels])).collect()
}

/// Rounds numbers to those of an element.
fn rounded(element: ElementType, mut numbers: Vec<f32>) -> Vec<f32> {
    for_element!(element, T => numbers.iter_mut().for_each(|x| *x = T::from_f32(*x).to_f32()));
    numbers
}

/// Numbers as elements, of which they are already.
fn elements<T: Element>(numbers: &[f32]) -> Vec<T> {
    numbers.iter().map(|&x| T::from_f32(x)).collect()
}

/// A case with its data, whatever computes it.
pub(super) struct Case {
    setting: Setting,
    channels: usize,
    rows: usize,
    input: Vec<f32>,
    bias: Option<Vec<f32>>,
    residual: Option<Vec<f32>>,
    /// Slopes, scale and shift.
    channelwise: [Option<Vec<f32>>; 3],
    reference: Reference,
    /// Products in a sum.
    depth: usize,
    /// What may be added to the bound of the error of a plain sum.
    pub(super) allowance: f64,
}

impl Case {
    /// Runs `compute` and checks every element and that the gaps are untouched; returns the whole output.
    fn check<T: Element>(
        &self,
        what: &str,
        compute: impl FnOnce(Epilogue<'_, T>, RowsMut<'_, T>),
    ) -> Result<Vec<f32>, TestCaseError> {
        let stride = self.channels + self.setting.output_gap;
        let mut out = vec![T::from_f32(7.5); self.rows * stride];
        let residual: Option<Vec<T>> = self.residual.as_ref().map(|r| elements(r));
        let residual = residual.as_ref().map(|r| Rows::dense(r, self.rows, self.channels).unwrap());
        let [slopes, scale, shift] = self.channelwise.each_ref().map(|numbers| numbers.as_deref());
        let activation = self.setting.activation;
        let epilogue = Epilogue { residual, slopes, activation, scale, shift, ..Epilogue::default() };
        compute(epilogue, RowsMut::new(&mut out, self.rows, self.channels, stride).unwrap());
        let out: Vec<f32> = out.into_iter().map(T::to_f32).collect();
        for (i, &got) in out.iter().enumerate() {
            let (row, channel) = (i / stride, i % stride);
            if channel >= self.channels {
                prop_assert_eq!(got, 7.5, "{} wrote between rows", what);
                continue;
            }
            let at = row * self.channels + channel;
            let extra = self.residual.as_ref().map_or(0.0, |r| f64::from(r[at]));
            let of_channel = |numbers: Option<&[f32]>, otherwise: f32| {
                f64::from(numbers.map_or(otherwise, |numbers| numbers[channel]))
            };
            let sum = self.reference.sums[at] + extra;
            let sum = if sum < 0.0 { sum * of_channel(slopes, 1.0) } else { sum };
            let shift = of_channel(shift, 0.0);
            let want = self.setting.activation.exact(sum) * of_channel(scale, 1.0) + shift;
            let magnitude = self.reference.magnitudes[at] + extra.abs() + shift.abs() + want.abs();
            // Higham's bound for the sum, with room for the activation (slope at most 1.8, 5e-7 of its own).
            let bound = (self.depth as f64 + 8.0) * magnitude * 2.0 * f64::from(f32::EPSILON) / 2.0 + 1e-6;
            let bound = bound + self.allowance * 2.0;
            // Keeping the result as `f32` is part of that.
            let kept = if T::TYPE == ElementType::F32 { 0.0 } else { f64::from(T::TYPE.rounding()) };
            let bound = bound + (want.abs() + bound) * kept;
            let error = (f64::from(got) - want).abs();
            prop_assert!(
                error <= bound,
                "{what}: row {row} channel {channel}: {got} != {want} (bound {bound:e})"
            );
        }
        Ok(out)
    }
}

/// What a setting has for each channel.
fn channelwise(setting: Setting, channels: usize) -> [Option<Vec<f32>>; 3] {
    std::array::from_fn(|i| setting.channelwise[i].then(|| numbers(channels, setting.seed ^ (4 + i as u64))))
}

pub(super) fn case(problem: &ConvProblem, setting: Setting) -> (Case, Vec<f32>) {
    let draw = |len: usize, seed: u64| rounded(problem.element, numbers(len, seed));
    let dense = draw(problem.in_rows() * problem.in_channels, setting.seed);
    let weights = draw(problem.weights_len(), setting.seed ^ 1);
    let bias = setting.bias.then(|| numbers(problem.out_channels, setting.seed ^ 2));
    let residual =
        setting.residual.then(|| draw(problem.out_rows() * problem.out_channels, setting.seed ^ 3));
    let reference = convolve(problem, &dense, &weights, bias.as_deref()).unwrap();
    let case = Case {
        setting,
        channels: problem.out_channels,
        rows: problem.out_rows(),
        input: spread(&dense, problem.in_channels, problem.in_channels + setting.input_gap),
        bias,
        residual,
        channelwise: channelwise(setting, problem.out_channels),
        reference,
        depth: problem.taps() * problem.group_in(),
        allowance: 0.0,
    };
    (case, weights)
}

/// How far an element of a sum over these problems' random numbers may be off where it is computed from more than
/// its own products: 20 times the expected error of numbers of the usual size, `√depth / 3`.
pub(super) fn allowance(algorithm: &dyn ConvAlgorithm, problem: &ConvProblem) -> f64 {
    let error = algorithm.error(problem);
    if algorithm.adds_plainly() {
        return 0.0;
    }
    20.0 * f64::from(error) * ((problem.taps() * problem.group_in()) as f64).sqrt() / 3.0
}

/// Runs an algorithm on a case with these numbers of threads, which must not make a difference.
pub(super) fn run_case(
    algorithm: &dyn ConvAlgorithm,
    isa: Isa,
    problem: &ConvProblem,
    case: &Case,
    weights: &[f32],
    threads: &[usize],
) -> Result<(), TestCaseError> {
    let what = format!("{} on {isa}", algorithm.name());
    let prepared = algorithm.prepare(problem, isa, Weights::new(weights, case.bias.as_deref())).unwrap();
    let mut results = Vec::new();
    for &threads in threads {
        let pool = ThreadPool::new(threads);
        let mut workspace = vec![f32::NAN; prepared.workspace_len(problem, threads)];
        let (rows, channels) = (problem.in_rows(), problem.in_channels);
        let out = for_float!(problem.element, T => {
            let input: Vec<T> = elements(&case.input);
            let input = Rows::new(&input, rows, channels, channels + case.setting.input_gap).unwrap();
            case.check::<T>(&what, |epilogue, output| {
                let workspace = &mut workspace;
                prepared.run(problem, &pool, ConvCall { input, epilogue, output, workspace }).unwrap();
            })?
        }, else unreachable!("levels have tests of their own"));
        results.push(out.into_iter().map(f32::to_bits).collect::<Vec<_>>());
    }
    for result in &results {
        prop_assert_eq!(result, &results[0], "{} depends on the threads", what);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn algorithms_agree_with_the_reference(problem in problem(), setting in setting()) {
        let (mut case, weights) = case(&problem, setting);
        for isa in Isa::available_for(problem.element) {
            for algorithm in algorithms() {
                if algorithm.accepts(&problem, isa).is_ok() {
                    prop_assert!(Rates::defaults(isa).milliseconds(&algorithm.work(&problem, isa, 2)) > 0.0);
                    case.allowance = allowance(*algorithm, &problem);
                    run_case(*algorithm, isa, &problem, &case, &weights, &[1, 3])?;
                }
            }
        }
    }

    /// Fewer and smaller ones, because every instruction of the unit may be emulated.
    #[test]
    fn algorithms_agree_with_the_reference_on_the_tile_unit(problem in problem(), setting in setting()) {
        if let Err(reason) = crate::amx::emulate() {
            eprintln!("skipped: {reason}");
            return Ok(());
        }
        let problem = ConvProblem { element: ElementType::Bf16, ..problem };
        prop_assume!(problem.macs() < 400_000);
        let (mut case, weights) = case(&problem, setting);
        for algorithm in algorithms() {
            if algorithm.accepts(&problem, Isa::Amx).is_ok() {
                let work = algorithm.work(&problem, Isa::Amx, 2);
                prop_assert!(Rates::defaults(Isa::Amx).milliseconds(&work) > 0.0);
                if work.count(Rate::TileProduct) > 0.0 {
                    case.allowance = allowance(*algorithm, &problem);
                    run_case(*algorithm, Isa::Amx, &problem, &case, &weights, &[1, 3])?;
                }
            }
        }
    }

    #[test]
    fn transposed_agrees_with_scattering(
        problem in problem(),
        setting in setting(),
        padding in [0usize..2, 0usize..2, 0usize..2],
    ) {
        let shape = ConvProblem { element: ElementType::F32, ..problem };
        let problem = TransposedProblem { shape, output_padding: padding };
        prop_assume!(problem.validate().is_ok() && problem.macs() < 3_000_000);
        let (case, weights) = transposed_case(&problem, setting);
        for isa in Isa::available() {
            let prepared = PreparedTransposed::new(&problem, isa, &weights, case.bias.as_deref()).unwrap();
            let shape = &problem.shape;
            let stride = shape.in_channels + setting.input_gap;
            let input = Rows::new(&case.input, shape.in_rows(), shape.in_channels, stride).unwrap();
            let pool = ThreadPool::new(2);
            case.check::<f32>(&format!("transposed on {isa}"), |epilogue, out| {
                prepared.run(&problem, &pool, input, epilogue, out).unwrap();
            })?;
        }
    }
}

/// A case of a transposed convolution, computed by its definition: every input adds to the outputs it touches.
fn transposed_case(problem: &TransposedProblem, setting: Setting) -> (Case, Vec<f32>) {
    let shape = &problem.shape;
    let out = problem.out_size().unwrap();
    let dense = numbers(shape.in_rows() * shape.in_channels, setting.seed);
    let weights = numbers(shape.weights_len(), setting.seed ^ 1);
    let rows = problem.out_rows();
    let bias = setting.bias.then(|| numbers(shape.out_channels, setting.seed ^ 2));
    let residual = setting.residual.then(|| numbers(rows * shape.out_channels, setting.seed ^ 3));
    let start: Vec<f64> = match &bias {
        Some(bias) => (0..rows).flat_map(|_| bias.iter().map(|&b| f64::from(b))).collect(),
        None => vec![0.0; rows * shape.out_channels],
    };
    let mut reference = Reference { magnitudes: start.iter().map(|b| b.abs()).collect(), sums: start };
    let (group_in, group_out, size, kernel) =
        (shape.group_in(), shape.group_out(), shape.in_size, shape.kernel);
    for row in 0..shape.in_rows() {
        let at = [row / size[2] / size[1] % size[0], row / size[2] % size[1], row % size[2]];
        let image = row / (size[0] * size[1] * size[2]);
        for tap in 0..shape.taps() {
            let k = [tap / kernel[2] / kernel[1], tap / kernel[2] % kernel[1], tap % kernel[2]];
            let place = |axis: usize| {
                let full = at[axis] * shape.stride[axis] + k[axis] * shape.dilation[axis];
                full.checked_sub(shape.pads_begin[axis]).filter(|&o| o < out[axis])
            };
            let (Some(z), Some(y), Some(x)) = (place(0), place(1), place(2)) else { continue };
            let out_row = ((image * out[0] + z) * out[1] + y) * out[2] + x;
            for c in 0..shape.in_channels {
                for n in 0..group_out {
                    let o = c / group_in * group_out + n;
                    let product = f64::from(dense[row * shape.in_channels + c])
                        * f64::from(weights[(c * group_out + n) * shape.taps() + tap]);
                    reference.sums[out_row * shape.out_channels + o] += product;
                    reference.magnitudes[out_row * shape.out_channels + o] += product.abs();
                }
            }
        }
    }
    let case = Case {
        setting,
        channels: shape.out_channels,
        rows,
        input: spread(&dense, shape.in_channels, shape.in_channels + setting.input_gap),
        bias,
        residual,
        channelwise: channelwise(setting, shape.out_channels),
        reference,
        depth: shape.taps() * group_in,
        allowance: 0.0,
    };
    (case, weights)
}

#[test]
fn prepared_weights_serve_other_sizes_but_not_other_shapes() {
    let problem = ConvProblem::new_2d(1, 5, 7, [6, 6], [3, 3]);
    let weights = numbers(problem.weights_len(), 1);
    let prepared =
        indirect::Indirect.prepare(&problem, Isa::current(), Weights::new(&weights, None)).unwrap();
    let larger = ConvProblem { batch: 2, in_size: [1, 9, 8], ..problem.clone() };
    let other = ConvProblem { in_channels: 6, ..problem.clone() };
    let shorter = ConvProblem { element: ElementType::Bf16, ..problem };
    let pool = ThreadPool::new(1);
    let run = |problem: &ConvProblem| {
        let input = numbers(problem.in_rows() * problem.in_channels, 2);
        let mut output = vec![0.0; problem.out_rows() * problem.out_channels];
        let call = ConvCall {
            input: Rows::dense(&input, problem.in_rows(), problem.in_channels).unwrap(),
            epilogue: Epilogue::default(),
            output: RowsMut::dense(&mut output, problem.out_rows(), problem.out_channels).unwrap(),
            workspace: &mut [],
        };
        prepared.run(problem, &pool, call)
    };
    assert!(run(&larger).is_ok());
    assert!(run(&other).is_err());
    assert!(run(&shorter).is_err());
}

#[test]
fn plain_products_on_the_tile_unit_beat_winograds_of_vectors() {
    if let Err(reason) = crate::amx::emulate() {
        eprintln!("skipped: {reason}");
        return;
    }
    let rates = Rates::defaults(Isa::Amx);
    for (channels, size) in [(64, 56), (128, 28), (256, 14), (512, 7)] {
        let problem = ConvProblem::new_2d(1, channels, channels, [size, size], [3, 3]);
        let problem =
            ConvProblem { element: ElementType::Bf16, pads_begin: [0, 1, 1], pads_end: [0, 1, 1], ..problem };
        let able = algorithms().iter().filter(|a| a.accepts(&problem, Isa::Amx).is_ok());
        let exact = able.filter(|a| a.error(&problem) < 2e-6);
        let time = |a: &&&dyn ConvAlgorithm| rates.milliseconds(&a.work(&problem, Isa::Amx, 1));
        let best = exact.min_by(|a, b| time(a).total_cmp(&time(b))).unwrap();
        assert!(best.work(&problem, Isa::Amx, 1).count(Rate::TileProduct) > 0.0, "{size}: {}", best.name());
        // 1 TFLOP/s is eight times what vectors do in `f32`.
        let floor = problem.macs() as f64 * 2.0 / 3e12 * 1e3;
        assert!(time(&best) > floor && time(&best) < 6.0 * floor, "{size}: {} ms", time(&best));
    }
}

#[test]
fn wrong_lengths_are_errors() {
    let problem = ConvProblem::new_2d(1, 4, 4, [6, 6], [3, 3]);
    for algorithm in algorithms() {
        let isa = Isa::current();
        if algorithm.accepts(&problem, isa).is_ok() {
            assert!(algorithm.prepare(&problem, isa, Weights::new(&[0.0; 5], None)).is_err());
            let wrong = Weights::new(&[0.0; 144], Some(&[0.0; 3]));
            assert!(algorithm.prepare(&problem, isa, wrong).is_err());
        }
    }
}
