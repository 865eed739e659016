//! Conv: every output is the sum of a window of the input, in every channel of its group, times learnt weights.
//!
//! The layer that gives convolutional networks their name (LeCun et al., "Gradient-based learning applied to document
//! recognition", 1998). `group` splits the channels into independent convolutions (AlexNet, 2012; as many groups as
//! channels is the depthwise convolution of MobileNet, 2017), `dilations` spreads the taps (Yu and Koltun, 2016).
//! Strictly, it is a correlation: the kernel is not mirrored.

use super::checks::{expect_shape, float_input, product, same_type, split_shape};
use super::window::{AutoPad, Window, WindowRule, read_extents, read_pads, write_extents, write_window};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::{element_count, room};
use crate::ops::{Arity, NodeReader, Operator, optional, required, required_fact};
use crate::tensor::{DType, Tensor};
use std::ops::{AddAssign, Mul};
use std::sync::Arc;

/// Convolution over one to three spatial axes. Inputs: X `[N, C, …]`, W `[M, C / group, …]`, bias `[M]` (optional).
/// Empty lists stand for the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Taps along each spatial axis; read off the weights where left out.
    pub kernel_shape: Option<Vec<usize>>,
    /// The distance of windows along each spatial axis.
    pub strides: Vec<usize>,
    /// Padding at the beginning of each spatial axis, then at the end of each.
    pub pads: Vec<usize>,
    /// The distance of taps along each spatial axis.
    pub dilations: Vec<usize>,
    /// Into how many independent convolutions the channels are split.
    pub group: usize,
    /// Whether `pads` counts.
    pub auto_pad: AutoPad,
}

impl Default for Conv {
    fn default() -> Conv {
        Conv {
            kernel_shape: None,
            strides: Vec::new(),
            pads: Vec::new(),
            dilations: Vec::new(),
            group: 1,
            auto_pad: AutoPad::NotSet,
        }
    }
}

/// A convolution of given shapes: everything that a kernel must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvProblem {
    /// Images.
    pub batch: usize,
    /// Channels of the input, all groups together.
    pub in_channels: usize,
    /// Channels of the output, all groups together.
    pub out_channels: usize,
    /// Independent convolutions.
    pub group: usize,
    /// The spatial axes.
    pub window: Window,
}

impl ConvProblem {
    /// The output's shape.
    pub fn output_shape(&self) -> Vec<usize> {
        let mut shape = vec![self.batch, self.out_channels];
        shape.extend_from_slice(&self.window.output);
        shape
    }
    /// Multiply-accumulate operations, padding included.
    pub fn macs(&self) -> u64 {
        let each = self.window.kernel.iter().fold((self.in_channels / self.group) as u64, mul);
        self.output_shape().iter().fold(each, mul)
    }
}

fn mul(a: u64, b: &usize) -> u64 {
    a.saturating_mul(*b as u64)
}

impl Conv {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Conv::from_attributes(&node.attributes)?))
    }
    /// Reads the attributes of ONNX, which are the same for every kind of convolution.
    pub(super) fn from_attributes(attributes: &Attributes) -> Result<Conv> {
        let group = attributes.int("group", 1)?;
        let auto_pad = AutoPad::read(attributes)?;
        Ok(Conv {
            kernel_shape: read_extents(attributes, "kernel_shape")?.filter(|k| !k.is_empty()),
            strides: read_extents(attributes, "strides")?.unwrap_or_default(),
            pads: read_pads(attributes, auto_pad)?,
            dilations: read_extents(attributes, "dilations")?.unwrap_or_default(),
            group: match usize::try_from(group) {
                Ok(group) if group > 0 => group,
                _ => invalid!("attribute \"group\" is {group}, where a positive number is expected"),
            },
            auto_pad,
        })
    }
    /// Its attributes as a rule for windows.
    pub fn rule(&self) -> WindowRule<'_> {
        WindowRule {
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: self.auto_pad,
            ceil_mode: false,
        }
    }
    /// The convolution of an input and weights of these shapes; an error where they do not fit.
    pub fn resolve(&self, input: &[usize], weights: &[usize]) -> Result<ConvProblem> {
        let (batch, in_channels, spatial) = split_shape(input, 1)?;
        if weights.len() != input.len() {
            invalid!("the weights are of shape {weights:?}, the input of shape {input:?}: the ranks differ");
        }
        let (out_channels, channels, kernel) = (weights[0], weights[1], &weights[2..]);
        check_kernel_shape(self.kernel_shape.as_deref(), kernel)?;
        let group = self.group;
        if group == 0 {
            invalid!("attribute \"group\" is 0, where a positive number is expected");
        }
        if channels.checked_mul(group) != Some(in_channels) || !out_channels.is_multiple_of(group) {
            invalid!(
                "attribute \"group\": {group} groups do not fit {in_channels} input channels and weights of shape {weights:?}"
            );
        }
        let window = self.rule().resolve(spatial, kernel)?;
        Ok(ConvProblem { batch, in_channels, out_channels, group, window })
    }
    /// The output's shape where both shapes are known; checks that the bias fits.
    pub(super) fn infer_shape(
        &self,
        inputs: &[Option<Fact>],
        weights: usize,
        bias: Option<usize>,
    ) -> Result<Option<Vec<usize>>> {
        let (x, w) = (required_fact(inputs, 0)?, required_fact(inputs, weights)?);
        let (Some(x), Some(w)) = (x.shape(), w.shape()) else { return Ok(None) };
        let problem = self.resolve(x, w)?;
        if let Some(bias) = bias {
            expect_shape(inputs, bias, &[problem.out_channels])?;
        }
        let shape = problem.output_shape();
        element_count(&shape)?;
        Ok(Some(shape))
    }
    /// The sums in `f64`, bias included, and their shape.
    pub(super) fn sums(&self, inputs: &[Option<&Tensor>]) -> Result<(Vec<f64>, Vec<usize>)> {
        let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
        let problem = self.resolve(x.shape(), w.shape())?;
        let mut sums = convolve(&problem, &x.to_f64s(), &w.to_f64s())?;
        if let Some(bias) = optional(inputs, 2) {
            add_per_channel(&mut sums, &bias.to_f64s(), &problem.window.output);
        }
        Ok((sums, problem.output_shape()))
    }
    /// Multiply-accumulate operations for these inputs, the weights being input `weights`.
    pub(super) fn count(&self, inputs: &[Option<Fact>], weights: usize) -> u64 {
        let shape = |i: usize| inputs.get(i)?.as_ref()?.shape();
        match (shape(0), shape(weights)) {
            (Some(x), Some(w)) => self.resolve(x, w).map_or(0, |p| p.macs()),
            _ => 0,
        }
    }
    pub(super) fn written(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if let Some(kernel) = &self.kernel_shape {
            attributes = attributes.with("kernel_shape", write_extents(kernel));
        }
        if self.group != 1 {
            attributes = attributes.with("group", i64::try_from(self.group).unwrap_or(i64::MAX));
        }
        write_window(attributes, &self.rule())
    }
}

/// The attribute, where given, must say what the weights say.
pub(super) fn check_kernel_shape(attribute: Option<&[usize]>, weights: &[usize]) -> Result<()> {
    match attribute {
        Some(given) if given != weights => {
            invalid!("attribute \"kernel_shape\" is {given:?}, where the weights say {weights:?}")
        }
        _ => Ok(()),
    }
}

/// A number that convolutions sum: `f64`, or an integer wide enough never to overflow.
pub(super) trait Summable: Copy + Default + AddAssign + Mul<Output = Self> {}
impl Summable for f64 {}
impl Summable for i64 {}

/// The sums of products, `[N, M, …]`, without bias.
pub(super) fn convolve<T: Summable>(problem: &ConvProblem, x: &[T], w: &[T]) -> Result<Vec<T>> {
    let window = problem.window.volumetric();
    let image = element_count(&window.input)?;
    let taps = element_count(&window.kernel)?;
    let plane = element_count(&window.output)?;
    let mut out = zeros::<T>(&problem.output_shape())?;
    let channels = problem.in_channels / problem.group;
    let per_group = problem.out_channels / problem.group;
    if out.is_empty() || x.is_empty() || w.is_empty() {
        return Ok(out);
    }
    for (index, target) in out.chunks_exact_mut(plane).enumerate() {
        let (n, m) = (index / problem.out_channels, index % problem.out_channels);
        let first = n * problem.in_channels + m / per_group * channels;
        let images = &x[first * image..][..channels * image];
        convolve_plane(&window, images, &w[m * channels * taps..][..channels * taps], target);
    }
    Ok(out)
}

/// One output channel: a row at a time, which stays in the cache while all channels and taps are added to it.
fn convolve_plane<T: Summable>(window: &Window, images: &[T], weights: &[T], target: &mut [T]) {
    let [_, height, width] = [window.input[0], window.input[1], window.input[2]];
    let image = window.input.iter().product::<usize>();
    let [_, tap_rows, row_taps] = [window.kernel[0], window.kernel[1], window.kernel[2]];
    let taps = window.kernel.iter().product::<usize>();
    let stride = window.strides[2];
    let reach: Vec<_> = (0..row_taps).map(|tap| (tap, window.outputs(2, tap))).collect();
    for (row, target) in target.chunks_exact_mut(window.output[2]).enumerate() {
        let (z, y) = (row / window.output[1], row % window.output[1]);
        for (image, weights) in images.chunks_exact(image).zip(weights.chunks_exact(taps)) {
            for tap_z in window.taps(0, z) {
                for tap_y in window.taps(1, y) {
                    let line = window.position(0, z, tap_z) * height + window.position(1, y, tap_y);
                    let line = &image[line * width..][..width];
                    let weights = &weights[(tap_z * tap_rows + tap_y) * row_taps..][..row_taps];
                    for (tap, outputs) in reach.iter().filter(|(_, outputs)| !outputs.is_empty()) {
                        let weight = weights[*tap];
                        let from = &line[window.position(2, outputs.start, *tap)..];
                        let sums = &mut target[outputs.clone()];
                        if stride == 1 {
                            sums.iter_mut().zip(from).for_each(|(sum, &v)| *sum += weight * v);
                        } else {
                            sums.iter_mut()
                                .zip(from.iter().step_by(stride))
                                .for_each(|(sum, &v)| *sum += weight * v);
                        }
                    }
                }
            }
        }
    }
}

/// Zeros for every element of `shape`, or an error where there is no room for them.
pub(super) fn zeros<T: Copy + Default>(shape: &[usize]) -> Result<Vec<T>> {
    let mut out = room(shape)?;
    out.resize(element_count(shape)?, T::default());
    Ok(out)
}

/// Adds `bias[channel]` to every element of the channel, in `[N, M, …]` with these spatial extents.
pub(super) fn add_per_channel<T: Summable>(sums: &mut [T], bias: &[T], spatial: &[usize]) {
    let plane = product(spatial).max(1);
    if bias.is_empty() {
        return;
    }
    for (index, plane) in sums.chunks_exact_mut(plane).enumerate() {
        let bias = bias[index % bias.len()];
        plane.iter_mut().for_each(|v| *v += bias);
    }
}

impl Operator for Conv {
    fn name(&self) -> &'static str {
        "Conv"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        same_type(inputs, 1, dtype)?;
        same_type(inputs, 2, dtype)?;
        Ok(vec![shaped(dtype, self.infer_shape(inputs, 1, Some(2))?)])
    }
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        self.count(inputs, 1)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (sums, shape) = self.sums(inputs)?;
        Ok(vec![Tensor::from_f64s(required(inputs, 0)?.dtype(), &shape, &sums)?])
    }
    fn attributes(&self) -> Attributes {
        self.written()
    }
}

/// What is known of a value whose shape may be.
pub(super) fn shaped(dtype: DType, shape: Option<Vec<usize>>) -> Fact {
    Fact { dtype, shape, value: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(shape: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32).collect();
        Tensor::new(shape, &values).unwrap()
    }

    fn run(conv: &Conv, inputs: &[&Tensor]) -> (Vec<usize>, Vec<f64>) {
        let facts: Vec<_> = inputs.iter().map(|t| Some(Fact::constant(t))).collect();
        let fact = conv.infer(&facts, 1).unwrap().remove(0);
        let given: Vec<_> = inputs.iter().map(|&t| Some(t)).collect();
        let y = conv.eval(&given, 1).unwrap().remove(0);
        assert_eq!(fact, Fact::new(y.dtype(), y.shape()));
        (y.shape().to_vec(), y.to_f64s())
    }

    #[test]
    fn sums_windows() {
        let x = ramp(&[1, 1, 5, 5]);
        let w = Tensor::new(&[1, 1, 3, 3], &[1f32; 9]).unwrap();
        let (shape, y) = run(&Conv::default(), &[&x, &w]);
        assert_eq!((shape, y), (vec![1, 1, 3, 3], vec![54., 63., 72., 99., 108., 117., 144., 153., 162.]));
        let padded = Conv { pads: vec![1; 4], strides: vec![2, 2], ..Conv::default() };
        let (shape, y) = run(&padded, &[&x, &w]);
        assert_eq!((shape, y), (vec![1, 1, 3, 3], vec![12., 27., 24., 63., 108., 81., 72., 117., 84.]));
        let same = Conv { auto_pad: AutoPad::SameLower, strides: vec![2, 2], ..Conv::default() };
        assert_eq!(run(&same, &[&x, &w]).1, [12., 27., 24., 63., 108., 81., 72., 117., 84.]);
    }

    #[test]
    fn groups_dilation_and_bias() {
        let x = ramp(&[1, 2, 4]);
        let w = Tensor::new(&[2, 1, 2], &[1f32, 10., 1., -1.]).unwrap();
        let b = Tensor::new(&[2], &[0.5f32, 0.]).unwrap();
        let conv = Conv { group: 2, dilations: vec![2], ..Conv::default() };
        assert_eq!(run(&conv, &[&x, &w, &b]), (vec![1, 2, 2], vec![20.5, 31.5, -2., -2.]));
        let facts: Vec<_> = [&x, &w].map(|t| Some(Fact::constant(t))).to_vec();
        assert_eq!(conv.macs(&facts, &[]), 8);
    }

    #[test]
    fn volumes_and_empty_batches() {
        let x = ramp(&[1, 1, 2, 2, 2]);
        let w = Tensor::new(&[1, 1, 2, 2, 2], &[1f32; 8]).unwrap();
        assert_eq!(run(&Conv::default(), &[&x, &w]), (vec![1, 1, 1, 1, 1], vec![28.]));
        let none = Tensor::zeros(DType::F16, &[0, 3, 9]).unwrap();
        let w = Tensor::zeros(DType::F16, &[4, 3, 2]).unwrap();
        assert_eq!(run(&Conv::default(), &[&none, &w]), (vec![0, 4, 8], vec![]));
    }

    #[test]
    fn refuses_with_the_attribute_named() {
        let facts =
            |x: &[usize], w: &[usize]| vec![Some(Fact::new(DType::F32, x)), Some(Fact::new(DType::F32, w))];
        let says = |conv: Conv, x: &[usize], w: &[usize], text: &str| {
            let message = conv.infer(&facts(x, w), 1).unwrap_err().to_string();
            assert!(message.contains(text), "{message}");
        };
        let plain = Conv::default;
        says(Conv { group: 2, ..plain() }, &[1, 3, 5, 5], &[2, 1, 3, 3], "group");
        says(Conv { group: 2, ..plain() }, &[1, 2, 5, 5], &[3, 1, 3, 3], "group");
        says(Conv { group: 0, ..plain() }, &[1, 2, 5, 5], &[3, 1, 3, 3], "group");
        says(
            Conv { kernel_shape: Some(vec![1, 1]), ..plain() },
            &[1, 2, 5, 5],
            &[3, 2, 3, 3],
            "kernel_shape",
        );
        says(plain(), &[1, 2, 2, 2], &[3, 2, 3, 3], "kernel_shape");
        says(plain(), &[1, 2, 2], &[3, 2, 3, 3], "ranks");
        says(plain(), &[1, 2], &[3, 2], "axes");
        let mut wrong = facts(&[1, 2, 5, 5], &[3, 2, 3, 3]);
        wrong[1] = Some(Fact::new(DType::F64, &[3, 2, 3, 3]));
        assert!(plain().infer(&wrong, 1).is_err());
        wrong[1] = Some(Fact::unknown(DType::F32));
        assert_eq!(plain().infer(&wrong, 1).unwrap(), [Fact::unknown(DType::F32)]);
    }

    #[test]
    fn attributes_round_trip() {
        let conv = Conv {
            kernel_shape: Some(vec![3, 3]),
            strides: vec![2, 1],
            pads: vec![1, 0, 1, 2],
            dilations: vec![1, 2],
            group: 4,
            auto_pad: AutoPad::NotSet,
        };
        assert_eq!(Conv::from_attributes(&conv.attributes()).unwrap(), conv);
        let bad = Attributes::new().with("strides", vec![-1i64, 1]);
        assert!(Conv::from_attributes(&bad).unwrap_err().to_string().contains("strides"));
    }
}
