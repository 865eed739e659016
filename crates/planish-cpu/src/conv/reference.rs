//! What a convolution is, in plain loops: the oracle of the tests of every algorithm.

use super::ConvProblem;

/// The sums of a convolution in double precision, with what is needed to judge an error.
#[derive(Clone, Debug)]
pub struct Reference {
    /// `[output pixel][out_channels]` sums including the bias.
    pub sums: Vec<f64>,
    /// The same sums over absolute values. A sum of `n` products in `f32`, in any order, differs from the exact
    /// one by at most about `n · 2^-24` times this (Higham, *Accuracy and Stability of Numerical Algorithms*,
    /// 2002, §3.1).
    pub magnitudes: Vec<f64>,
}

/// Computes a convolution of dense channels-last input (`[N·D·H·W][C]`) by its definition.
///
/// An error where the problem is not valid or a length does not match it.
pub fn convolve(
    problem: &ConvProblem,
    input: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Reference, String> {
    problem.validate()?;
    problem.check_weights(weights, bias)?;
    let out = problem.out_size()?;
    if input.len() != problem.in_rows() * problem.in_channels {
        return Err(format!("an input of {} numbers", input.len()));
    }
    let ConvProblem { in_size: size, kernel, stride, dilation, pads_begin: pads, .. } = *problem;
    let (group_in, group_out) = (problem.group_in(), problem.group_out());
    let mut sums = Vec::with_capacity(problem.out_rows() * problem.out_channels);
    let mut magnitudes = Vec::with_capacity(sums.capacity());
    for row in 0..problem.out_rows() {
        let at = [row / out[2] / out[1] % out[0], row / out[2] % out[1], row % out[2]];
        let image = row / (out[0] * out[1] * out[2]);
        for o in 0..problem.out_channels {
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias[o]));
            let mut magnitude = sum.abs();
            for tap in 0..problem.taps() {
                let k = [tap / kernel[2] / kernel[1], tap / kernel[2] % kernel[1], tap % kernel[2]];
                let place = |axis: usize| {
                    let padded = at[axis] * stride[axis] + k[axis] * dilation[axis];
                    padded.checked_sub(pads[axis]).filter(|&i| i < size[axis])
                };
                let (Some(z), Some(y), Some(x)) = (place(0), place(1), place(2)) else { continue };
                let pixel = ((image * size[0] + z) * size[1] + y) * size[2] + x;
                for c in 0..group_in {
                    let channel = o / group_out * group_in + c;
                    let a = f64::from(input[pixel * problem.in_channels + channel]);
                    let w = f64::from(weights[(o * group_in + c) * problem.taps() + tap]);
                    sum += a * w;
                    magnitude += (a * w).abs();
                }
            }
            sums.push(sum);
            magnitudes.push(magnitude);
        }
    }
    Ok(Reference { sums, magnitudes })
}
