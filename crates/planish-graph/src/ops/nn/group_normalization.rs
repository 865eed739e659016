//! InstanceNormalization and GroupNormalization: channels of one image, singly or in groups, brought to mean 0 and
//! variance 1, then scaled and shifted.
//!
//! Ulyanov et al., "Instance normalization" (2016); Wu and He, "Group normalization" (2018). Neither looks at other
//! images, so they work at any batch size.

use super::checks::{expect_shape, float_input, product, same_type, split_shape};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, optional_fact, required, required_fact};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Mean and (population) variance of some numbers, in two passes.
pub(super) fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count)
}

/// Brings every `each` consecutive elements to mean 0 and variance 1.
fn standardise(values: &mut [f64], each: usize, epsilon: f32) {
    for chunk in values.chunks_exact_mut(each.max(1)) {
        let (mean, variance) = moments(chunk);
        let factor = 1.0 / (variance + f64::from(epsilon)).sqrt();
        chunk.iter_mut().for_each(|v| *v = (*v - mean) * factor);
    }
}

/// Multiplies and shifts every `each` consecutive elements by the next scale and bias, in turns.
fn scale_and_shift(values: &mut [f64], each: usize, scale: &[f64], bias: &[f64]) {
    let parameters = scale.iter().zip(bias).cycle();
    for (chunk, (scale, bias)) in values.chunks_exact_mut(each.max(1)).zip(parameters) {
        chunk.iter_mut().for_each(|v| *v = *v * scale + bias);
    }
}

fn parameters_of_input_type(inputs: &[Option<Fact>]) -> Result<Fact> {
    let dtype = float_input(inputs)?;
    same_type(inputs, 1, dtype)?;
    same_type(inputs, 2, dtype)?;
    Ok(Fact { dtype, shape: required_fact(inputs, 0)?.shape.clone(), value: None })
}

/// Each channel of each image by itself. Inputs: X `[N, C, …]`, scale `[C]`, bias `[C]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InstanceNormalization {
    /// Keeps the division finite.
    pub epsilon: f32,
}

impl InstanceNormalization {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(InstanceNormalization { epsilon: node.attributes.float("epsilon", 1e-5)? }))
    }
}

impl Operator for InstanceNormalization {
    fn name(&self) -> &'static str {
        "InstanceNormalization"
    }
    fn arity(&self) -> Arity {
        Arity::exact(3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let output = parameters_of_input_type(inputs)?;
        if let Some(shape) = output.shape() {
            let (_, channels, _) = split_shape(shape, 1)?;
            expect_shape(inputs, 1, &[channels])?;
            expect_shape(inputs, 2, &[channels])?;
        }
        Ok(vec![output])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (_, _, spatial) = split_shape(x.shape(), 1)?;
        let mut values = x.to_f64s();
        standardise(&mut values, product(spatial), self.epsilon);
        let (scale, bias) = (required(inputs, 1)?.to_f64s(), required(inputs, 2)?.to_f64s());
        scale_and_shift(&mut values, product(spatial), &scale, &bias);
        Ok(vec![Tensor::from_f64s(x.dtype(), x.shape(), &values)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("epsilon", self.epsilon)
    }
}

/// Groups of channels of each image. Inputs: X `[N, C, …]`, scale and bias, `[C]` each. Opset 18 gave one scale and bias
/// for each group; how many a reader meets tells which is meant, so both are understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormalization {
    /// Into how many groups the channels are split.
    pub num_groups: usize,
    /// Keeps the division finite.
    pub epsilon: f32,
}

impl GroupNormalization {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let groups = Attributes::require("num_groups", node.attributes.opt_int("num_groups")?)?;
        let num_groups = match usize::try_from(groups) {
            Ok(groups) if groups > 0 => groups,
            _ => invalid!("attribute \"num_groups\" is {groups}, where a positive number is expected"),
        };
        Ok(Arc::new(GroupNormalization { num_groups, epsilon: node.attributes.float("epsilon", 1e-5)? }))
    }
}

impl Operator for GroupNormalization {
    fn name(&self) -> &'static str {
        "GroupNormalization"
    }
    fn arity(&self) -> Arity {
        Arity::exact(3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let output = parameters_of_input_type(inputs)?;
        if let Some(shape) = output.shape() {
            let (_, channels, _) = split_shape(shape, 0)?;
            if self.num_groups == 0 || !channels.is_multiple_of(self.num_groups) {
                invalid!("attribute \"num_groups\": {} do not divide {channels} channels", self.num_groups);
            }
            let given = |i: usize| optional_fact(inputs, i).and_then(|f| f.shape());
            let by_group = given(1).or(given(2)) == Some(&[self.num_groups][..]);
            let wanted = if by_group { self.num_groups } else { channels };
            expect_shape(inputs, 1, &[wanted])?;
            expect_shape(inputs, 2, &[wanted])?;
        }
        Ok(vec![output])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (_, channels, spatial) = split_shape(x.shape(), 0)?;
        let (scale, bias) = (required(inputs, 1)?.to_f64s(), required(inputs, 2)?.to_f64s());
        let mut values = x.to_f64s();
        if !values.is_empty() {
            let group = channels / self.num_groups * product(spatial);
            standardise(&mut values, group, self.epsilon);
            let each = if scale.len() == channels { product(spatial) } else { group };
            scale_and_shift(&mut values, each, &scale, &bias);
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), x.shape(), &values)?])
    }
    fn attributes(&self) -> Attributes {
        let groups = i64::try_from(self.num_groups).unwrap_or(i64::MAX);
        Attributes::new().with("num_groups", groups).with("epsilon", self.epsilon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn vector(values: &[f32]) -> Tensor {
        Tensor::new(&[values.len()], values).unwrap()
    }

    #[test]
    fn normalises_channels_and_groups() {
        let x = Tensor::new(&[1, 2, 2], &[1f32, 3., 10., 20.]).unwrap();
        let (scale, bias) = (vector(&[1., 2.]), vector(&[0., 1.]));
        let given = [Some(&x), Some(&scale), Some(&bias)];
        let instance = InstanceNormalization { epsilon: 0.0 };
        assert_eq!(instance.eval(&given, 1).unwrap()[0].to_f64s(), [-1., 1., -1., 3.]);
        let each = GroupNormalization { num_groups: 2, epsilon: 0.0 };
        assert_eq!(each.eval(&given, 1).unwrap()[0].to_f64s(), [-1., 1., -1., 3.]);
        let x = Tensor::new(&[1, 2, 1], &[1f32, 3.]).unwrap();
        let all = GroupNormalization { num_groups: 1, epsilon: 0.0 };
        assert_eq!(all.eval(&[Some(&x), Some(&scale), Some(&bias)], 1).unwrap()[0].to_f64s(), [-1., 3.]);
        let (one, none) = (vector(&[2.]), vector(&[1.]));
        assert_eq!(all.eval(&[Some(&x), Some(&one), Some(&none)], 1).unwrap()[0].to_f64s(), [-1., 3.]);
    }

    #[test]
    fn refuses_what_does_not_divide() {
        let fact = |s: &[usize]| Some(Fact::new(DType::F32, s));
        let op = GroupNormalization { num_groups: 3, epsilon: 0.0 };
        let message = op.infer(&[fact(&[1, 4, 2]), fact(&[4]), fact(&[4])], 1).unwrap_err().to_string();
        assert!(message.contains("num_groups"), "{message}");
        let op = InstanceNormalization { epsilon: 0.0 };
        assert!(op.infer(&[fact(&[1, 4, 2]), fact(&[3]), fact(&[3])], 1).is_err());
        assert!(op.infer(&[fact(&[4])], 1).is_err());
    }
}
