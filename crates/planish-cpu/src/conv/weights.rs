//! What a convolution multiplies with.

use super::ConvProblem;
use crate::element::ElementType;

/// The weights and biases of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// O×(I/groups)×D×H×W. Where the problem is on levels: whole numbers, the levels of the weights less their zero
    /// points, -255 to 255.
    pub values: &'a [f32],
    /// Added to the sums, a number for each output channel; not where the problem is on levels.
    pub bias: Option<&'a [f32]>,
    /// What makes numbers of the sums, where the problem is on levels and only there.
    pub levels: Option<SumLevels<'a>>,
}

/// What the sums of products of levels stand for: `(sum of (x - input_zero) w + bias) scale + shift`.
#[derive(Clone, Copy, Debug)]
pub struct SumLevels<'a> {
    /// The level of the input that stands for zero, which padding is made of.
    pub input_zero: u8,
    /// Added to the sums of integers, for each output channel; sums wrap around.
    pub bias: Option<&'a [i32]>,
    /// What one unit of the sum is, for each output channel.
    pub scales: &'a [f32],
    /// Added to what was scaled, for each output channel: where the unit of the sum is too coarse for a bias.
    pub shift: Option<&'a [f32]>,
}

impl<'a> Weights<'a> {
    /// The weights of a problem on numbers.
    pub fn new(values: &'a [f32], bias: Option<&'a [f32]>) -> Self {
        Self { values, bias, levels: None }
    }

    /// Refuses what does not fit the problem.
    pub(super) fn check(&self, problem: &ConvProblem) -> Result<(), String> {
        let Self { values, bias, levels } = *self;
        if values.len() != problem.weights_len() {
            return Err(format!("{} weights for a convolution of {}", values.len(), problem.weights_len()));
        }
        check_channels("biases", bias, problem.out_channels)?;
        match (problem.element, levels) {
            (ElementType::U8, Some(levels)) => {
                if bias.is_some() {
                    return Err("sums of integers have integer biases".to_owned());
                }
                if let Some(other) = values.iter().find(|v| v.trunc() != **v || v.abs() > 255.0) {
                    return Err(format!("a weight of {other}, which is no difference of two levels"));
                }
                for weights in values.chunks_exact(problem.group_in() * problem.taps()) {
                    let (low, high) =
                        weights.iter().fold((0f32, 0f32), |(low, high), &w| (low.min(w), high.max(w)));
                    if high - low > 255.0 {
                        return Err(format!("weights from {low} to {high} are no levels of a byte"));
                    }
                }
                check_channels("scales", Some(levels.scales), problem.out_channels)?;
                check_channels("biases", levels.bias, problem.out_channels)?;
                check_channels("shifts", levels.shift, problem.out_channels)
            }
            (ElementType::U8, None) => Err("a convolution on levels needs to know what they are".to_owned()),
            (_, Some(_)) => Err(format!("levels for a convolution on {}", problem.element)),
            (_, None) => Ok(()),
        }
    }
}

impl ConvProblem {
    /// The sum of the weights of each output channel, which are whole numbers: what the zero point of the input is
    /// multiplied with.
    pub(super) fn channel_sums(&self, values: &[f32]) -> Vec<i32> {
        let each = self.group_in() * self.taps();
        values.chunks_exact(each).map(|weights| weights.iter().map(|&w| w as i32).sum()).collect()
    }
}

/// Refuses so many numbers where there are so many channels.
pub(super) fn check_channels<T>(what: &str, numbers: Option<&[T]>, channels: usize) -> Result<(), String> {
    match numbers {
        Some(numbers) if numbers.len() != channels => {
            Err(format!("{} {what} for {channels} channels", numbers.len()))
        }
        _ => Ok(()),
    }
}
