//! BatchNormalization: each channel is shifted and scaled by statistics of the data the network was trained on.
//!
//! Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift"
//! (2015). At inference it is an affine map a channel, which the engine folds into the convolution before it.

use super::checks::{expect_shape, float_input, product, same_type};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use crate::{invalid, unsupported};
use std::sync::Arc;

/// `y = scale * (x - mean) / sqrt(variance + epsilon) + bias` for each channel (axis 1). Inputs: X, scale, bias, mean,
/// variance. In training mode the statistics are those of X, and outputs 1 and 2 are the running mean and variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormalization {
    /// Keeps the division finite.
    pub epsilon: f32,
    /// How much of the running statistics stays, in training mode.
    pub momentum: f32,
    /// Whether the statistics are those of X.
    pub training_mode: bool,
}

impl Default for BatchNormalization {
    fn default() -> BatchNormalization {
        BatchNormalization { epsilon: 1e-5, momentum: 0.9, training_mode: false }
    }
}

impl BatchNormalization {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let attributes = &node.attributes;
        if node.before(9) && !attributes.flag("spatial", true)? {
            unsupported!("attribute \"spatial\" is 0: statistics for each pixel are not supported");
        }
        if node.before(14) && node.output_count > 1 {
            unsupported!("has {} outputs: training mode is supported from opset 14 on", node.output_count);
        }
        let usual = BatchNormalization::default();
        Ok(Arc::new(BatchNormalization {
            epsilon: attributes.float("epsilon", usual.epsilon)?,
            momentum: attributes.float("momentum", usual.momentum)?,
            training_mode: attributes.flag("training_mode", false)?,
        }))
    }
    /// What each channel is multiplied by and what is added then, at inference: the affine map that folding uses.
    pub fn affine(&self, scale: &[f64], bias: &[f64], mean: &[f64], variance: &[f64]) -> Vec<(f64, f64)> {
        (scale.iter().zip(bias))
            .zip(mean.iter().zip(variance))
            .map(|((scale, bias), (mean, variance))| {
                let factor = scale / (variance + f64::from(self.epsilon)).sqrt();
                (factor, bias - mean * factor)
            })
            .collect()
    }
}

/// Channels and elements a channel and image; a vector is one channel of many images.
fn channels(shape: &[usize]) -> Result<(usize, usize)> {
    match shape {
        [] => invalid!("input 0 is a scalar, where at least one axis is expected"),
        [_] => Ok((1, 1)),
        [_, channels, rest @ ..] => Ok((*channels, product(rest))),
    }
}

impl Operator for BatchNormalization {
    fn name(&self) -> &'static str {
        "BatchNormalization"
    }
    fn arity(&self) -> Arity {
        Arity::exact(5).outputs(1, 3)
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        for index in 1..5 {
            let other = required_fact(inputs, index)?.dtype;
            if !other.is_wide_float() {
                invalid!("input {index} is of type {other}, where a float type is expected");
            }
        }
        same_type(inputs, 2, required_fact(inputs, 1)?.dtype)?;
        let statistics = required_fact(inputs, 3)?;
        same_type(inputs, 4, statistics.dtype)?;
        if !self.training_mode && outputs > 1 {
            invalid!("attribute \"training_mode\" is 0, so there is one output, not {outputs}");
        }
        let x = required_fact(inputs, 0)?;
        let known = match x.shape() {
            Some(shape) => {
                crate::limits::element_count(shape)?;
                Some(channels(shape)?.0)
            }
            None => None,
        };
        if let Some(count) = known {
            for index in 1..5 {
                expect_shape(inputs, index, &[count])?;
            }
        }
        let mut facts = vec![Fact { dtype, shape: x.shape.clone(), value: None }];
        for _ in 1..outputs {
            facts.push(Fact { dtype: statistics.dtype, shape: known.map(|count| vec![count]), value: None });
        }
        Ok(facts)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let statistics = required(inputs, 3)?;
        let mut values = x.to_f64s();
        let mut mean = statistics.to_f64s();
        let mut variance = required(inputs, 4)?.to_f64s();
        let mut running = Vec::new();
        if values.is_empty() {
            running = vec![mean.clone(), variance.clone()];
        } else if self.training_mode {
            let (count, inner) = channels(x.shape())?;
            let (batch_mean, batch_variance) = batch_statistics(&values, count, inner);
            let keep = f64::from(self.momentum);
            let mix = |old: &[f64], new: &[f64]| -> Vec<f64> {
                old.iter().zip(new).map(|(o, n)| o * keep + n * (1.0 - keep)).collect()
            };
            running = vec![mix(&mean, &batch_mean), mix(&variance, &batch_variance)];
            (mean, variance) = (batch_mean, batch_variance);
        }
        if !values.is_empty() {
            let (count, inner) = channels(x.shape())?;
            let (scale, bias) = (required(inputs, 1)?.to_f64s(), required(inputs, 2)?.to_f64s());
            let map = self.affine(&scale, &bias, &mean, &variance);
            for (index, plane) in values.chunks_exact_mut(inner).enumerate() {
                let channel = index % count;
                // Subtracting the mean first keeps a large mean from cancelling.
                let (factor, mean, bias) = (map[channel].0, mean[channel], bias[channel]);
                plane.iter_mut().for_each(|v| *v = (*v - mean) * factor + bias);
            }
        }
        let mut made = vec![Tensor::from_f64s(x.dtype(), x.shape(), &values)?];
        for values in running.iter().take(outputs.saturating_sub(1)) {
            made.push(Tensor::from_f64s(statistics.dtype(), &[values.len()], values)?);
        }
        Ok(made)
    }
    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new().with("epsilon", self.epsilon).with("momentum", self.momentum);
        if self.training_mode {
            attributes = attributes.with("training_mode", 1);
        }
        attributes
    }
}

/// Mean and (population) variance of each of `count` channels.
fn batch_statistics(values: &[f64], count: usize, inner: usize) -> (Vec<f64>, Vec<f64>) {
    let each = (values.len() / count) as f64;
    let (mut mean, mut variance) = (vec![0.0; count], vec![0.0; count]);
    for (index, plane) in values.chunks_exact(inner).enumerate() {
        mean[index % count] += plane.iter().sum::<f64>() / each;
    }
    for (index, plane) in values.chunks_exact(inner).enumerate() {
        let middle = mean[index % count];
        variance[index % count] += plane.iter().map(|v| (v - middle) * (v - middle)).sum::<f64>() / each;
    }
    (mean, variance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn vector(values: &[f32]) -> Tensor {
        Tensor::new(&[values.len()], values).unwrap()
    }

    #[test]
    fn normalises_each_channel() {
        let x = Tensor::new(&[1, 2, 2], &[1f32, 3., 10., 20.]).unwrap();
        let [scale, bias] = [vector(&[2., 1.]), vector(&[0., 1.])];
        let [mean, variance] = [vector(&[1., 10.]), vector(&[4., 25.])];
        let given = [Some(&x), Some(&scale), Some(&bias), Some(&mean), Some(&variance)];
        let op = BatchNormalization { epsilon: 0.0, ..BatchNormalization::default() };
        assert_eq!(op.eval(&given, 1).unwrap()[0].to_f64s(), [0., 2., 1., 3.]);
        let training = BatchNormalization { training_mode: true, momentum: 0.5, ..op };
        let made = training.eval(&given, 3).unwrap();
        assert_eq!(made[0].to_f64s(), [-2., 2., 0., 2.]);
        assert_eq!(made[1].to_f64s(), [1.5, 12.5]);
        assert_eq!(made[2].to_f64s(), [2.5, 25.]);
        let facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(training.infer(&facts, 3).unwrap()[2], Fact::new(DType::F32, &[2]));
        assert!(op.infer(&facts, 3).unwrap_err().to_string().contains("training_mode"));
    }

    #[test]
    fn refuses_other_channels_and_keeps_empties() {
        let op = BatchNormalization::default();
        let fact = |shape: &[usize]| Some(Fact::new(DType::F32, shape));
        let with = |x: &[usize], s: &[usize]| op.infer(&[fact(x), fact(s), fact(s), fact(s), fact(s)], 1);
        assert!(with(&[1, 2, 3], &[3]).is_err());
        assert!(with(&[], &[1]).is_err());
        assert_eq!(with(&[4], &[1]).unwrap(), [Fact::new(DType::F32, &[4])]);
        let none = Tensor::zeros(DType::F32, &[0, 2]).unwrap();
        let two = vector(&[1., 1.]);
        let two = Some(&two);
        let training = BatchNormalization { training_mode: true, ..op };
        let made = training.eval(&[Some(&none), two, two, two, two], 3).unwrap();
        assert_eq!((made[0].shape(), made[1].to_f64s()), (&[0, 2][..], vec![1., 1.]));
    }
}
