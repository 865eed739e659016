//! What a convolution is, in plain loops: the oracle of the tests of every algorithm.

use super::{ConvProblem, Weights};

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
    convolve_at(problem, input, weights, bias, 0..problem.out_rows() * problem.out_channels)
}

/// Computes only these elements of the output, counted as they lie in memory (pixel times channels plus channel): where
/// the whole would take too long.
///
/// An error as for [`convolve`], and where there is no such element.
pub fn convolve_at(
    problem: &ConvProblem,
    input: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    elements: impl IntoIterator<Item = usize>,
) -> Result<Reference, String> {
    problem.validate()?;
    Weights::new(weights, bias).check(problem)?;
    let out = problem.out_size()?;
    if input.len() != problem.in_rows() * problem.in_channels {
        return Err(format!("an input of {} numbers", input.len()));
    }
    let ConvProblem { in_size: size, kernel, stride, dilation, pads_begin: pads, .. } = *problem;
    let (group_in, group_out) = (problem.group_in(), problem.group_out());
    let (mut sums, mut magnitudes) = (Vec::new(), Vec::new());
    for element in elements {
        let (row, o) = (element / problem.out_channels, element % problem.out_channels);
        if row >= problem.out_rows() {
            return Err(format!("the output has no element {element}"));
        }
        let at = [row / out[2] / out[1] % out[0], row / out[2] % out[1], row % out[2]];
        let image = row / (out[0] * out[1] * out[2]);
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
    Ok(Reference { sums, magnitudes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_elements_are_those_of_the_whole() {
        let mut problem = ConvProblem::new_2d(2, 4, 6, [5, 4], [3, 2]);
        (problem.groups, problem.pads_begin, problem.stride) = (2, [0, 1, 1], [1, 2, 1]);
        let numbers = |len: usize| (0..len).map(|i| (i * 7 % 13) as f32 - 6.0).collect::<Vec<_>>();
        let (input, weights) = (numbers(2 * 5 * 4 * 4), numbers(problem.weights_len()));
        let whole = convolve(&problem, &input, &weights, Some(&weights[..6])).unwrap();
        let some = [whole.sums.len() - 1, 0, 17];
        let found = convolve_at(&problem, &input, &weights, Some(&weights[..6]), some).unwrap();
        assert_eq!(found.sums, some.map(|i| whole.sums[i]));
        assert_eq!(found.magnitudes, some.map(|i| whole.magnitudes[i]));
        assert!(convolve_at(&problem, &input, &weights, None, [whole.sums.len()]).is_err());
    }
}
