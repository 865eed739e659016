//! ConvTranspose: the transpose of a convolution, by which networks enlarge their images.
//!
//! Every input element adds its multiple of the kernel to the output, `strides` apart (Zeiler et al., "Deconvolutional
//! networks", 2010; Dumoulin and Visin, 2016). It is the gradient of [`super::conv::Conv`] with respect to its input: the
//! windows lie over the output, and the input has one element a window.

use super::checks::{expect_shape, float_input, same_type, split_shape};
use super::conv::{add_per_channel, check_kernel_shape, shaped, zeros};
use super::window::{AutoPad, Window, per_axis, read_extents, split_pads, write_extents};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::Tensor;
use std::sync::Arc;

use super::conv::Conv;

/// Inputs: X `[N, C, …]`, W `[C, M / group, …]`, bias `[M]` (optional).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConvTranspose {
    /// The attributes that it shares with the convolution it transposes.
    pub conv: Conv,
    /// Elements added at the end of each spatial axis of the output; empty for none.
    pub output_padding: Vec<usize>,
    /// The spatial extents of the output, from which the padding follows.
    pub output_shape: Option<Vec<usize>>,
}

/// A transposed convolution of given shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTransposeProblem {
    /// Images.
    pub batch: usize,
    /// Channels of the input, all groups together.
    pub in_channels: usize,
    /// Channels of the output, all groups together.
    pub out_channels: usize,
    /// Independent convolutions.
    pub group: usize,
    /// The windows of the transposed convolution: `input` are the extents of this operator's output, and `output` those
    /// of its input.
    pub window: Window,
}

impl ConvTransposeProblem {
    /// The output's shape.
    pub fn output_shape(&self) -> Vec<usize> {
        let mut shape = vec![self.batch, self.out_channels];
        shape.extend_from_slice(&self.window.input);
        shape
    }
    /// Multiply-accumulate operations: every input element meets every weight of its channel.
    pub fn macs(&self) -> u64 {
        let each = (self.out_channels / self.group) as u64;
        let counts = [self.batch, self.in_channels];
        let all = counts.iter().chain(&self.window.output).chain(&self.window.kernel);
        all.fold(each, |n, &d| n.saturating_mul(d as u64))
    }
}

impl ConvTranspose {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(ConvTranspose::from_attributes(&node.attributes)?))
    }
    fn from_attributes(attributes: &Attributes) -> Result<ConvTranspose> {
        Ok(ConvTranspose {
            conv: Conv::from_attributes(attributes)?,
            output_padding: read_extents(attributes, "output_padding")?.unwrap_or_default(),
            output_shape: read_extents(attributes, "output_shape")?.filter(|s| !s.is_empty()),
        })
    }
    /// The transposed convolution of an input and weights of these shapes; an error where they do not fit.
    pub fn resolve(&self, input: &[usize], weights: &[usize]) -> Result<ConvTransposeProblem> {
        let (batch, in_channels, spatial) = split_shape(input, 1)?;
        let axes = spatial.len();
        if weights.len() != input.len() || axes > 3 {
            invalid!("input of shape {input:?} and weights of shape {weights:?} do not fit each other");
        }
        let (each, kernel) = (weights[1], &weights[2..]);
        check_kernel_shape(self.conv.kernel_shape.as_deref(), kernel)?;
        let group = self.conv.group;
        if group == 0 || weights[0] != in_channels || !in_channels.is_multiple_of(group) {
            invalid!(
                "attribute \"group\": {group} groups do not fit {in_channels} input channels and weights of shape {weights:?}"
            );
        }
        let too_large = || Error::limit("the output does not fit in this machine's integers");
        let out_channels = each.checked_mul(group).ok_or_else(too_large)?;
        let kernel = per_axis("kernel_shape", kernel, axes)?;
        let strides = per_axis("strides", &self.conv.strides, axes)?;
        let dilations = per_axis("dilations", &self.conv.dilations, axes)?;
        let (mut pads_begin, mut pads_end) = split_pads(&self.conv.pads, axes)?;
        let added = self.added(axes, &strides, &dilations)?;
        let wanted = match &self.output_shape {
            Some(shape) if shape.len() == axes => Some(&shape[..]),
            Some(shape) if shape.len() == axes + 2 => Some(&shape[2..]),
            Some(shape) => {
                invalid!("attribute \"output_shape\" has {} entries for {axes} spatial axes", shape.len())
            }
            None => None,
        };
        let mut output = Vec::with_capacity(axes);
        for axis in 0..axes {
            let extent = spatial[axis];
            if extent == 0 {
                invalid!("spatial axis {axis} of the input has no elements");
            }
            let span = (kernel[axis] - 1) * dilations[axis] + 1;
            let full =
                (extent - 1).checked_mul(strides[axis]).and_then(|n| n.checked_add(span + added[axis]));
            let full = full.ok_or_else(too_large)?;
            let same = matches!(self.conv.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
            let target = match wanted {
                Some(shape) => Some(shape[axis]),
                None if same => Some(extent.checked_mul(strides[axis]).ok_or_else(too_large)?),
                None => None,
            };
            let (begin, end) = (&mut pads_begin[axis], &mut pads_end[axis]);
            if let Some(target) = target {
                let total = full.saturating_sub(target);
                let (less, more) = (total / 2, total - total / 2);
                let upper = self.conv.auto_pad == AutoPad::SameUpper;
                (*begin, *end) = if upper { (less, more) } else { (more, less) };
            } else if self.conv.auto_pad == AutoPad::Valid {
                (*begin, *end) = (0, 0);
            }
            let made = target.or_else(|| full.checked_sub(*begin + *end)).filter(|&n| n > 0);
            let Some(made) = made else {
                invalid!(
                    "attribute \"pads\": {begin} and {end} leave nothing of the {full} elements of axis {axis}"
                );
            };
            output.push(made);
        }
        let window = Window {
            input: output,
            kernel,
            strides,
            dilations,
            pads_begin,
            pads_end,
            output: spatial.to_vec(),
        };
        Ok(ConvTransposeProblem { batch, in_channels, out_channels, group, window })
    }
    /// The output padding of each axis, which must be smaller than its stride or dilation.
    fn added(&self, axes: usize, strides: &[usize], dilations: &[usize]) -> Result<Vec<usize>> {
        if self.output_padding.is_empty() {
            return Ok(vec![0; axes]);
        }
        if self.output_padding.len() != axes {
            invalid!(
                "attribute \"output_padding\" has {} entries for {axes} axes",
                self.output_padding.len()
            );
        }
        for (axis, &added) in self.output_padding.iter().enumerate() {
            if added >= strides[axis].max(dilations[axis]) {
                invalid!(
                    "attribute \"output_padding\" is {added} for axis {axis}, not below its stride or dilation"
                );
            }
        }
        Ok(self.output_padding.clone())
    }
}

/// The sums without bias, `[N, M, …]`.
fn scatter(problem: &ConvTransposeProblem, x: &[f64], w: &[f64]) -> Result<Vec<f64>> {
    let window = problem.window.volumetric();
    let plane = element_count(&window.input)?;
    let image = element_count(&window.output)?;
    let taps = element_count(&window.kernel)?;
    let mut out: Vec<f64> = zeros(&problem.output_shape())?;
    if out.is_empty() || x.is_empty() || w.is_empty() {
        return Ok(out);
    }
    let channels = problem.in_channels / problem.group;
    let each = problem.out_channels / problem.group;
    for (index, target) in out.chunks_exact_mut(plane).enumerate() {
        let (n, m) = (index / problem.out_channels, index % problem.out_channels);
        let first = m / each * channels;
        for c in first..first + channels {
            let image = &x[(n * problem.in_channels + c) * image..][..image];
            let weights = &w[(c * each + m % each) * taps..][..taps];
            scatter_plane(&window, image, weights, target);
        }
    }
    Ok(out)
}

/// Adds one input channel's share to one output channel.
fn scatter_plane(window: &Window, image: &[f64], weights: &[f64], target: &mut [f64]) {
    let [height, width] = [window.input[1], window.input[2]];
    for (row, line) in image.chunks_exact(window.output[2]).enumerate() {
        let (z, y) = (row / window.output[1], row % window.output[1]);
        for tap_z in window.taps(0, z) {
            for tap_y in window.taps(1, y) {
                let start = window.position(0, z, tap_z) * height + window.position(1, y, tap_y);
                let target = &mut target[start * width..][..width];
                let weights = &weights[(tap_z * window.kernel[1] + tap_y) * window.kernel[2]..];
                for (tap, weight) in weights[..window.kernel[2]].iter().enumerate() {
                    let inputs = window.outputs(2, tap);
                    if inputs.is_empty() {
                        continue;
                    }
                    let first = window.position(2, inputs.start, tap);
                    let sums = target[first..].iter_mut().step_by(window.strides[2]);
                    sums.zip(&line[inputs]).for_each(|(sum, v)| *sum += weight * v);
                }
            }
        }
    }
}

impl Operator for ConvTranspose {
    fn name(&self) -> &'static str {
        "ConvTranspose"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        same_type(inputs, 1, dtype)?;
        same_type(inputs, 2, dtype)?;
        let (x, w) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        let shape = match (x.shape(), w.shape()) {
            (Some(x), Some(w)) => {
                let problem = self.resolve(x, w)?;
                expect_shape(inputs, 2, &[problem.out_channels])?;
                element_count(&problem.output_shape())?;
                Some(problem.output_shape())
            }
            _ => None,
        };
        Ok(vec![shaped(dtype, shape)])
    }
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        let shape = |i: usize| optional_fact(inputs, i).and_then(|f| f.shape());
        match (shape(0), shape(1)) {
            (Some(x), Some(w)) => self.resolve(x, w).map_or(0, |p| p.macs()),
            _ => 0,
        }
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
        let problem = self.resolve(x.shape(), w.shape())?;
        let mut sums = scatter(&problem, &x.to_f64s(), &w.to_f64s())?;
        if let Some(bias) = optional(inputs, 2) {
            add_per_channel(&mut sums, &bias.to_f64s(), &problem.window.input);
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), &problem.output_shape(), &sums)?])
    }
    fn attributes(&self) -> Attributes {
        let mut attributes = self.conv.written();
        if !self.output_padding.is_empty() {
            attributes = attributes.with("output_padding", write_extents(&self.output_padding));
        }
        if let Some(shape) = &self.output_shape {
            attributes = attributes.with("output_shape", write_extents(shape));
        }
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn run(op: &ConvTranspose, x: &Tensor, w: &Tensor) -> (Vec<usize>, Vec<f64>) {
        let facts = [Some(Fact::constant(x)), Some(Fact::constant(w))];
        let fact = op.infer(&facts, 1).unwrap().remove(0);
        let y = op.eval(&[Some(x), Some(w)], 1).unwrap().remove(0);
        assert_eq!(fact, Fact::new(y.dtype(), y.shape()));
        (y.shape().to_vec(), y.to_f64s())
    }

    #[test]
    fn spreads_every_input_element() {
        let x = Tensor::new(&[1, 1, 3], &[0f32, 1., 2.]).unwrap();
        let w = Tensor::new(&[1, 2, 3], &[1f32, 1., 1., 1., 10., 100.]).unwrap();
        let (shape, y) = run(&ConvTranspose::default(), &x, &w);
        assert_eq!((shape, y), (vec![1, 2, 5], vec![0., 1., 3., 3., 2., 0., 1., 12., 120., 200.]));
        let strided = ConvTranspose {
            conv: Conv { strides: vec![2], pads: vec![1, 0], ..Conv::default() },
            output_padding: vec![1],
            output_shape: None,
        };
        assert_eq!(run(&strided, &x, &w).1, [0., 1., 1., 3., 2., 2., 0., 0., 1., 10., 102., 20., 200., 0.]);
    }

    #[test]
    fn output_shape_decides_the_padding() {
        let x = Tensor::new(&[1, 1, 2], &[1f32, 2.]).unwrap();
        let w = Tensor::new(&[1, 1, 3], &[1f32, 1., 1.]).unwrap();
        let shaped = |extent, auto_pad| ConvTranspose {
            conv: Conv { strides: vec![2], auto_pad, ..Conv::default() },
            output_shape: Some(vec![extent]),
            output_padding: vec![],
        };
        assert_eq!(run(&shaped(7, AutoPad::NotSet), &x, &w).1, [1., 1., 3., 2., 2., 0., 0.]);
        assert_eq!(run(&shaped(4, AutoPad::NotSet), &x, &w).1, [1., 3., 2., 2.]);
        assert_eq!(run(&shaped(4, AutoPad::SameUpper), &x, &w).1, [1., 1., 3., 2.]);
        let same = Conv { strides: vec![2], auto_pad: AutoPad::SameUpper, ..Conv::default() };
        let same = ConvTranspose { conv: same, ..ConvTranspose::default() };
        assert_eq!(run(&same, &x, &w).1, [1., 1., 3., 2.]);
    }

    #[test]
    fn groups_and_refusals() {
        let x = Tensor::new(&[1, 2, 1], &[1f32, 2.]).unwrap();
        let w = Tensor::new(&[2, 1, 2], &[1f32, 2., 3., 4.]).unwrap();
        let grouped =
            ConvTranspose { conv: Conv { group: 2, ..Conv::default() }, ..ConvTranspose::default() };
        assert_eq!(run(&grouped, &x, &w), (vec![1, 2, 2], vec![1., 2., 6., 8.]));
        let says = |op: ConvTranspose, text: &str| {
            let facts = [Some(Fact::new(DType::F32, &[1, 2, 3])), Some(Fact::new(DType::F32, &[2, 1, 2]))];
            let message = op.infer(&facts, 1).unwrap_err().to_string();
            assert!(message.contains(text), "{message}");
        };
        says(ConvTranspose { output_padding: vec![1], ..Default::default() }, "output_padding");
        says(ConvTranspose { output_shape: Some(vec![1, 2]), ..Default::default() }, "output_shape");
        let conv = Conv { pads: vec![2, 2], ..Conv::default() };
        says(ConvTranspose { conv, ..Default::default() }, "pads");
        let conv = Conv { group: 3, ..Conv::default() };
        says(ConvTranspose { conv, ..Default::default() }, "group");
    }
}
