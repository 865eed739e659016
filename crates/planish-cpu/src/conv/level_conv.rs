//! Convolutions (and matrix products) of levels whose result is numbers.
//!
//! Two kinds of layers are: the last of a quantised network, behind which nothing is quantised any more, and all of a
//! network that was quantised dynamically, whose activations are quantised anew in every run, by their own smallest and
//! largest number (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
//! Inference", CVPR 2018; ONNX's DynamicQuantizeLinear and ConvInteger). So the input's zero point and the scales are told
//! with each run. What the zero point adds to a sum is its product with the sum of the weights; padding is made of the zero
//! point, so that this holds at the borders as well.
//!
//! Layers of a few products a sum, depthwise ones above all, gain nothing by instructions that multiply four bytes at a
//! time. Where `f32` kernels are estimated faster, they compute the sums, exactly: levels less their zero point are whole
//! numbers, whose sums of up to [`MOST_EXACT`] products stay below 2²⁴.

use super::dense::{self, DenseCall, DenseWeights, Lowering};
use super::im2col::Im2col;
use super::indirect::Indirect;
use super::pointwise::Pointwise;
use super::problem::{check_shape, check_workspace};
use super::weights::check_channels;
use super::{ConvAlgorithm, ConvCall, ConvProblem, PreparedConv, SumLevels, Weights, algorithms};
use crate::element::ElementType;
use crate::elementwise::{Unary, unary_in_place};
use crate::epilogue::{Activation, Epilogue};
use crate::integer::{Grid, Grids, dequantize};
use crate::isa::Isa;
use crate::matmul::SumScales;
use crate::rates::{Rate, Rates, Work};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};
use std::sync::Arc;

/// The most products of differences of levels whose sum is sure to be exact in `f32`.
const MOST_EXACT: usize = (1 << 24) / (255 * 255);

/// What computes the sums.
#[derive(Clone, Copy)]
enum Route {
    Pointwise,
    Indirect,
    Im2col,
    /// An algorithm on `f32` that adds up the products as they are.
    Numbers(&'static dyn ConvAlgorithm),
}

impl Route {
    /// The cheapest for a problem on levels, and its estimated milliseconds.
    fn find(problem: &ConvProblem, isa: Isa, rates: &Rates, threads: usize) -> Result<(Route, f64), String> {
        problem.validate()?;
        let bytes: [(Route, &dyn ConvAlgorithm); 3] =
            [(Route::Pointwise, &Pointwise), (Route::Indirect, &Indirect), (Route::Im2col, &Im2col)];
        let numbers = on_numbers(problem);
        let exact = problem.taps() * problem.group_in() <= MOST_EXACT;
        let plain =
            algorithms().iter().filter(|a| exact && a.adds_plainly() && a.accepts(&numbers, isa).is_ok());
        // The input is written as numbers first.
        let copied = (problem.in_rows() * problem.in_channels * size_of::<f32>()) as f64;
        let copied = Work::of(&[(Rate::PaddedByte, copied)]).shared(threads as f64);
        let candidates = bytes
            .iter()
            .filter(|(_, a)| a.accepts(problem, isa).is_ok())
            .map(|(route, a)| (*route, a.work(problem, isa, threads)))
            .chain(plain.map(|a| {
                let mut work = a.work(&numbers, isa, threads);
                work += copied;
                (Route::Numbers(*a), work)
            }));
        candidates
            .map(|(route, work)| (route, rates.milliseconds(&work)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .ok_or_else(|| "no algorithm makes numbers of levels for this convolution".to_owned())
    }
}

/// The problem on numbers.
fn on_numbers(problem: &ConvProblem) -> ConvProblem {
    ConvProblem { element: ElementType::F32, ..problem.clone() }
}

enum Prepared {
    Bytes { weights: DenseWeights<u8>, route: Route },
    Numbers(Box<dyn PreparedConv>),
}

/// A convolution from levels to numbers with its weights packed, for one problem.
pub struct LevelConv {
    problem: ConvProblem,
    /// Of each output channel, of the weights.
    sums: Vec<i32>,
    prepared: Prepared,
}

/// The tensors of a run, and what its levels mean.
pub struct LevelCall<'a> {
    /// A row of `in_channels` levels for each pixel.
    pub input: Rows<'a, u8>,
    /// The level of the input that stands for zero, which padding is made of.
    pub zero: u8,
    /// Added to the sums of integers, for each output channel; sums wrap around.
    pub units: Option<&'a [i32]>,
    /// What one unit of the sum is, for each output channel.
    pub scales: &'a [f32],
    /// Added to the scaled sums, for each output channel.
    pub bias: Option<&'a [f32]>,
    /// What follows, of every activation.
    pub activation: Activation,
    /// A row of `out_channels` for each output pixel.
    pub output: RowsMut<'a, f32>,
    /// At least [`LevelConv::workspace_len`] numbers of any value.
    pub workspace: &'a mut [f32],
}

impl LevelConv {
    /// Packs weights, O×(I/groups)×D×H×W: whole numbers, the levels of the weights less their zero points. An error where
    /// they are no levels, or the problem is none on levels that make sense.
    pub fn new(
        problem: &ConvProblem,
        isa: Isa,
        rates: &Rates,
        threads: usize,
        values: &[f32],
    ) -> Result<LevelConv, String> {
        let ones = vec![1.0; problem.out_channels];
        let levels = SumLevels { input_zero: 0, bias: None, scales: &ones, shift: None };
        let weights = Weights { values, bias: None, levels: Some(levels) };
        weights.check(problem)?;
        let (route, _) = Route::find(problem, isa, rates, threads)?;
        let piece = match route {
            Route::Pointwise => Pointwise.piece_len(problem),
            Route::Indirect => Indirect.piece_len(problem),
            Route::Im2col => Im2col.piece_len(problem),
            Route::Numbers(_) => 0,
        };
        let prepared = match route {
            Route::Numbers(algorithm) => {
                Prepared::Numbers(algorithm.prepare(&on_numbers(problem), isa, Weights::new(values, None))?)
            }
            _ => Prepared::Bytes { weights: dense::pack(problem, isa, piece, weights), route },
        };
        Ok(LevelConv { problem: problem.clone(), sums: problem.channel_sums(values), prepared })
    }

    /// The estimated milliseconds of a run; an error where nothing computes the problem.
    pub fn milliseconds(
        problem: &ConvProblem,
        isa: Isa,
        rates: &Rates,
        threads: usize,
    ) -> Result<f64, String> {
        Route::find(problem, isa, rates, threads).map(|(_, milliseconds)| milliseconds)
    }

    /// The name of the algorithm, for reports.
    pub fn algorithm(&self) -> &'static str {
        match &self.prepared {
            Prepared::Bytes { route: Route::Pointwise, .. } => Pointwise.name(),
            Prepared::Bytes { route: Route::Indirect, .. } => Indirect.name(),
            Prepared::Bytes { .. } => Im2col.name(),
            Prepared::Numbers(conv) => conv.algorithm().name(),
        }
    }

    /// Whether the sums are those of bytes, four at a time, and not of numbers.
    pub fn multiplies_bytes(&self) -> bool {
        matches!(self.prepared, Prepared::Bytes { .. })
    }

    /// The bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        match &self.prepared {
            Prepared::Bytes { weights, .. } => weights.groups.iter().map(|matrix| matrix.bytes()).sum(),
            Prepared::Numbers(conv) => conv.bytes(),
        }
    }

    /// The `f32` of workspace a run needs.
    pub fn workspace_len(&self, threads: usize) -> usize {
        let problem = &self.problem;
        match &self.prepared {
            Prepared::Bytes { route: Route::Pointwise, .. } => {
                Pointwise.workspace_len::<u8>(problem, threads)
            }
            Prepared::Bytes { route: Route::Indirect, .. } => Indirect.workspace_len::<u8>(problem, threads),
            Prepared::Bytes { .. } => Im2col.workspace_len::<u8>(problem, threads),
            Prepared::Numbers(conv) => {
                let numbers = on_numbers(problem);
                numbers.in_rows() * numbers.in_channels + conv.workspace_len(&numbers, threads)
            }
        }
    }

    /// `activation((sum of (x - zero) w + units) * scale + bias)`. An error, with nothing written, where
    /// shapes do not fit.
    pub fn run(&self, isa: Isa, pool: &ThreadPool, call: LevelCall<'_>) -> Result<(), String> {
        let (problem, channels) = (&self.problem, self.problem.out_channels);
        check_shape(
            "input",
            call.input.rows(),
            call.input.channels(),
            problem.in_rows(),
            problem.in_channels,
        )?;
        let rows = problem.out_rows();
        check_shape("output", call.output.rows(), call.output.channels(), rows, channels)?;
        check_channels("scales", Some(call.scales), channels)?;
        check_channels("biases", call.bias, channels)?;
        check_channels("biases", call.units, channels)?;
        check_workspace(call.workspace.len(), self.workspace_len(pool.threads()))?;
        if rows == 0 {
            return Ok(());
        }
        match &self.prepared {
            Prepared::Bytes { weights, route } => {
                self.run_on_bytes(pool, weights, *route, call);
                Ok(())
            }
            Prepared::Numbers(conv) => self.run_on_numbers(isa, pool, &**conv, call),
        }
    }

    /// [`Self::run`] behind its checks, by products of bytes.
    fn run_on_bytes(&self, pool: &ThreadPool, weights: &DenseWeights<u8>, route: Route, call: LevelCall<'_>) {
        let LevelCall { input, zero, units, scales, bias, activation, output, workspace } = call;
        let starts = self.sums.iter().enumerate().map(|(channel, sum)| {
            let own = units.map_or(0, |units| units[channel]);
            f32::from_bits(own.wrapping_sub(sum.wrapping_mul(i32::from(zero))) as u32)
        });
        let offsets = weights.scales.as_ref().and_then(|scales| scales.offsets.clone());
        let weights = DenseWeights {
            groups: Arc::clone(&weights.groups),
            bias: Some(starts.collect()),
            scales: Some(SumScales { scales: scales.to_vec(), shift: None, offsets }),
            zeros: vec![zero; weights.zeros.len()],
        };
        let residual = bias.map(|row| Rows::repeated(row, output.rows()));
        let epilogue = Epilogue { residual, activation, ..Epilogue::default() };
        let (problem, weights) = (&self.problem, &weights);
        let call = DenseCall { problem, weights, pool, input, epilogue, output, workspace };
        match route {
            Route::Pointwise => Pointwise.lower(call),
            Route::Indirect => Indirect.lower(call),
            _ => Im2col.lower(call),
        }
    }

    /// [`Self::run`] behind its checks, by a kernel for numbers.
    fn run_on_numbers(
        &self,
        isa: Isa,
        pool: &ThreadPool,
        conv: &dyn PreparedConv,
        call: LevelCall<'_>,
    ) -> Result<(), String> {
        let LevelCall { input, zero, units, scales, bias, activation, mut output, workspace } = call;
        let (numbers, rest) = workspace.split_at_mut(input.rows() * input.channels());
        let mut numbers =
            RowsMut::dense(numbers, input.rows(), input.channels()).map_err(|error| error.to_string())?;
        let grid = Grid { scale: 1.0, zero: f32::from(zero) };
        dequantize(isa, pool, Grids::One(grid), input, numbers.reborrow());
        let shifts: Option<Vec<f32>> = (units.is_some() || bias.is_some()).then(|| {
            let unit = |channel: usize| units.map_or(0.0, |units| units[channel] as f32) * scales[channel];
            (0..scales.len()).map(|c| unit(c) + bias.map_or(0.0, |bias| bias[c])).collect()
        });
        let epilogue = Epilogue { scale: Some(scales), shift: shifts.as_deref(), ..Epilogue::default() };
        let call =
            ConvCall { input: numbers.as_rows(), epilogue, output: output.reborrow(), workspace: rest };
        conv.run(&on_numbers(&self.problem), pool, call)?;
        // Scales come after the activation in those kernels.
        if activation != Activation::None {
            unary_in_place(isa, pool, Unary::Activation(activation), output);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use proptest::prelude::*;

    /// A problem, the levels of its input and its weights, and what they mean.
    struct Case {
        problem: ConvProblem,
        input: Vec<u8>,
        values: Vec<f32>,
        zero: u8,
        units: Vec<i32>,
        scales: Vec<f32>,
        bias: Vec<f32>,
    }

    impl Case {
        fn new(problem: ConvProblem, zero: u8, wide: bool, seed: u64) -> Case {
            let problem = ConvProblem { element: ElementType::U8, ..problem };
            let levels = random(seed, problem.in_rows() * problem.in_channels, 0.0, 256.0);
            // Unsigned weights with a zero point of their own need an offset to fit a byte.
            let (low, high) = if wide { (-40.0, 216.0) } else { (-128.0, 128.0) };
            let values = random(seed + 1, problem.weights_len(), low, high);
            let units = random(seed + 3, problem.out_channels, -9e3, 9e3);
            Case {
                input: levels.into_iter().map(|x| x as u8).collect(),
                values: values.into_iter().map(f32::floor).collect(),
                zero,
                units: units.into_iter().map(|x| x as i32).collect(),
                scales: random(seed + 2, problem.out_channels, 0.001, 0.1),
                bias: random(seed + 4, problem.out_channels, -50.0, 50.0),
                problem,
            }
        }

        /// The exact sums with their units, row by row.
        fn sums(&self) -> Vec<i64> {
            let problem = &self.problem;
            let (size, out) = (problem.in_size, problem.out_size().unwrap());
            let (group_in, group_out, taps) = (problem.group_in(), problem.group_out(), problem.taps());
            let mut sums = Vec::new();
            for row in 0..problem.out_rows() {
                let at = [row / out[2] / out[1] % out[0], row / out[2] % out[1], row % out[2]];
                let image = row / out.iter().product::<usize>();
                for channel in 0..problem.out_channels {
                    let mut sum = i64::from(self.units[channel]);
                    for tap in 0..taps {
                        let [_, height, width] = problem.kernel;
                        let k = [tap / width / height, tap / width % height, tap % width];
                        let place: Option<Vec<usize>> = (0..3)
                            .map(|d| {
                                let x = (at[d] * problem.stride[d] + k[d] * problem.dilation[d])
                                    .checked_sub(problem.pads_begin[d])?;
                                (x < size[d]).then_some(x)
                            })
                            .collect();
                        let Some(place) = place else { continue };
                        let pixel = ((image * size[0] + place[0]) * size[1] + place[1]) * size[2] + place[2];
                        for i in 0..group_in {
                            let from = pixel * problem.in_channels + channel / group_out * group_in + i;
                            let x = i64::from(self.input[from]) - i64::from(self.zero);
                            sum += x * self.values[(channel * group_in + i) * taps + tap] as i64;
                        }
                    }
                    sums.push(sum);
                }
            }
            sums
        }

        fn run(&self, isa: Isa, threads: usize, units: bool, bias: bool, activation: Activation) -> Vec<f32> {
            let problem = &self.problem;
            let (rates, pool) = (Rates::defaults(isa), ThreadPool::new(threads));
            let conv = LevelConv::new(problem, isa, &rates, threads, &self.values).unwrap();
            let mut output = vec![7.0; problem.out_rows() * problem.out_channels];
            let mut workspace = vec![f32::NAN; conv.workspace_len(threads)];
            let call = LevelCall {
                input: Rows::dense(&self.input, problem.in_rows(), problem.in_channels).unwrap(),
                zero: self.zero,
                units: units.then_some(&self.units),
                scales: &self.scales,
                bias: bias.then_some(&self.bias),
                activation,
                output: RowsMut::dense(&mut output, problem.out_rows(), problem.out_channels).unwrap(),
                workspace: &mut workspace,
            };
            conv.run(isa, &pool, call).unwrap();
            output
        }

        /// Compares with the exact sums, on every instruction set and two numbers of threads.
        fn check(&self, bias: bool) {
            let sums = self.sums();
            for isa in Isa::available() {
                for threads in [1, 3] {
                    let got = self.run(isa, threads, true, bias, Activation::Relu);
                    for (i, (&got, &sum)) in got.iter().zip(&sums).enumerate() {
                        let channel = i % self.problem.out_channels;
                        let scale = f64::from(self.scales[channel]);
                        let added = if bias { f64::from(self.bias[channel]) } else { 0.0 };
                        let wanted = (sum as f64 * scale + added).max(0.0);
                        // The sum, its product with the scale and that with the bias are each rounded; so are the units'.
                        let own = f64::from(self.units[channel]).abs() * scale;
                        let most = sum.abs() as f64 * scale + own + 2.0 * added.abs();
                        let error = 4.0 * f64::from(f32::EPSILON) * most;
                        assert!((f64::from(got) - wanted).abs() <= error, "{isa}: {got} for {wanted} at {i}");
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn products_of_rows(
            rows in 0usize..9, depth in 1usize..400, columns in 1usize..70, zero: u8, wide: bool, bias: bool, seed: u32,
        ) {
            let problem = ConvProblem::new_2d(1, depth, columns, [1, rows.max(1)], [1, 1]);
            let problem = ConvProblem { batch: usize::from(rows > 0), ..problem };
            Case::new(problem, zero, wide, u64::from(seed)).check(bias);
        }

        #[test]
        fn convolutions(
            batch in 0usize..3, groups in 1usize..5, group_in in 1usize..9, group_out in 1usize..9,
            size in prop::array::uniform2(1usize..9), kernel in prop::array::uniform2(1usize..4),
            stride in prop::array::uniform2(1usize..3), dilation in prop::array::uniform2(1usize..3),
            pads in prop::array::uniform4(0usize..3), zero: u8, wide: bool, bias: bool, seed: u32,
        ) {
            let mut problem =
                ConvProblem::new_2d(batch, groups * group_in, groups * group_out, size, kernel);
            problem.groups = groups;
            problem.stride = [1, stride[0], stride[1]];
            problem.dilation = [1, dilation[0], dilation[1]];
            problem.pads_begin = [0, pads[0], pads[1]];
            problem.pads_end = [0, pads[2], pads[3]];
            prop_assume!(problem.validate().is_ok());
            Case::new(problem, zero, wide, u64::from(seed)).check(bias);
        }
    }

    #[test]
    fn long_sums_are_of_bytes_and_depthwise_ones_of_numbers() {
        let mut deep = ConvProblem::new_2d(1, 37, 24, [6, 5], [3, 3]);
        deep.pads_begin = [0, 1, 1];
        deep.pads_end = [0, 1, 1];
        let case = Case::new(deep, 119, false, 5);
        let rates = Rates::defaults(Isa::Portable);
        let bytes = LevelConv::new(&case.problem, Isa::Portable, &rates, 1, &case.values).unwrap();
        assert!(bytes.multiplies_bytes() && bytes.bytes() >= case.values.len(), "{}", bytes.algorithm());
        let estimate = |batch: usize| {
            let problem = ConvProblem { batch, ..case.problem.clone() };
            LevelConv::milliseconds(&problem, Isa::Portable, &rates, 1).unwrap()
        };
        assert!(estimate(1) > 0.0 && estimate(8) > 4.0 * estimate(1), "{} {}", estimate(1), estimate(8));
        case.check(true);
        let mut depthwise = ConvProblem::new_2d(2, 19, 19, [7, 5], [3, 3]);
        depthwise.groups = 19;
        depthwise.pads_begin = [0, 1, 1];
        let case = Case::new(depthwise, 200, false, 6);
        let numbers = LevelConv::new(&case.problem, Isa::Portable, &rates, 1, &case.values).unwrap();
        assert!(!numbers.multiplies_bytes());
        case.check(true);
    }

    /// Filtering by Winograd errs less than plain sums do from eight channels on, but it errs.
    #[test]
    fn sums_are_exact_whatever_computes_them() {
        for channels in [1, 3, 8, 16, 28] {
            let mut problem = ConvProblem::new_2d(1, channels, 16, [13, 14], [3, 3]);
            problem.pads_begin = [0, 1, 1];
            let case = Case { scales: vec![1.0; 16], ..Case::new(problem, 131, false, 7) };
            let sums = Case { units: vec![0; 16], ..Case::new(case.problem.clone(), 131, false, 7) }.sums();
            for isa in Isa::available() {
                let got = case.run(isa, 1, false, false, Activation::None);
                assert!(got.iter().zip(&sums).all(|(&got, &sum)| got == sum as f32), "{channels} on {isa}");
            }
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let case = Case::new(ConvProblem::new_2d(1, 3, 2, [1, 2], [1, 1]), 0, false, 1);
        let rates = Rates::defaults(Isa::Portable);
        let conv = LevelConv::new(&case.problem, Isa::Portable, &rates, 1, &case.values).unwrap();
        let (a, mut out, mut workspace) = ([0u8; 8], [0.0f32; 4], vec![0.0; conv.workspace_len(1)]);
        let mut run = |channels: usize, scales: &[f32]| {
            let call = LevelCall {
                input: Rows::dense(&a, 2, channels).unwrap(),
                zero: 0,
                units: None,
                scales,
                bias: None,
                activation: Activation::None,
                output: RowsMut::dense(&mut out, 2, 2).unwrap(),
                workspace: &mut workspace,
            };
            conv.run(Isa::Portable, &ThreadPool::new(1), call)
        };
        assert!(run(4, &[1.0; 2]).is_err() && run(3, &[1.0; 3]).is_err());
        assert_eq!(run(3, &[1.0; 2]), Ok(()));
        assert!(LevelConv::new(&case.problem, Isa::Portable, &rates, 1, &[0.5; 6]).is_err());
    }
}
