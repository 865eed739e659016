//! LayerNormalization and RMSNormalization: each row of features brought to a common spread, then scaled.
//!
//! Ba et al., "Layer normalization" (2016); Zhang and Sennrich, "Root mean square layer normalization" (2019), which
//! leaves the mean where it is. ConvNeXt and the vision transformers are built on the first.

use super::checks::{float_input, product, same_type};
use super::group_normalization::moments;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::room;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{DType, Tensor, index};
use std::sync::Arc;

/// Which axes form a row, and the attributes of both operators.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowRule {
    /// The first axis of a row; it and all behind it are normalised together.
    pub axis: i64,
    /// Keeps the division finite.
    pub epsilon: f32,
    /// The type in which the statistics are handed out.
    pub stash_type: DType,
}

impl Default for RowRule {
    fn default() -> RowRule {
        RowRule { axis: -1, epsilon: 1e-5, stash_type: DType::F32 }
    }
}

impl RowRule {
    fn from_attributes(attributes: &Attributes) -> Result<RowRule> {
        let stash_type = DType::from_onnx_code(attributes.int("stash_type", DType::F32.onnx_code())?)?;
        if !stash_type.is_wide_float() {
            invalid!("attribute \"stash_type\" is {stash_type}, where a float type is expected");
        }
        Ok(RowRule {
            axis: attributes.int("axis", -1)?,
            epsilon: attributes.float("epsilon", 1e-5)?,
            stash_type,
        })
    }
    /// The first axis of a row of a tensor of this rank.
    fn first_axis(&self, rank: usize) -> Result<usize> {
        match index::axis(self.axis, rank) {
            Ok(axis) => Ok(axis),
            Err(_) => invalid!("attribute \"axis\" is {}, outside a tensor of rank {rank}", self.axis),
        }
    }
    /// Checks that scale and bias (inputs 1 and 2) broadcast to input 0; returns the statistics' shape where known.
    fn check(&self, inputs: &[Option<Fact>]) -> Result<Option<Vec<usize>>> {
        let Some(shape) = required_fact(inputs, 0)?.shape() else { return Ok(None) };
        let axis = self.first_axis(shape.len())?;
        for index in [1, 2] {
            if let Some(other) = optional_fact(inputs, index).and_then(|f| f.shape())
                && index::broadcast(&[other, shape])? != shape
            {
                invalid!("input {index} of shape {other:?} does not broadcast to {shape:?}");
            }
        }
        let mut statistics = shape.to_vec();
        statistics[axis..].fill(1);
        Ok(Some(statistics))
    }
    fn written(&self) -> Attributes {
        let attributes = Attributes::new().with("axis", self.axis).with("epsilon", self.epsilon);
        if self.stash_type == DType::F32 {
            attributes
        } else {
            attributes.with("stash_type", self.stash_type.onnx_code())
        }
    }
}

/// Multiplies by a scale and adds a bias, both broadcast to `shape`.
fn affine(values: &mut [f64], shape: &[usize], scale: &Tensor, bias: Option<&Tensor>) {
    let factors = scale.to_f64s();
    let strides = index::broadcast_strides(scale.shape(), shape);
    index::for_each(shape, [&strides], |flat, [at]| values[flat] *= factors[at]);
    if let Some(bias) = bias {
        let added = bias.to_f64s();
        let strides = index::broadcast_strides(bias.shape(), shape);
        index::for_each(shape, [&strides], |flat, [at]| values[flat] += added[at]);
    }
}

/// Inputs: X, scale, bias (optional). Outputs: Y, and the mean and inverse standard deviation of each row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerNormalization {
    /// The attributes.
    pub rule: RowRule,
}

impl LayerNormalization {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(LayerNormalization { rule: RowRule::from_attributes(&node.attributes)? }))
    }
}

impl Operator for LayerNormalization {
    fn name(&self) -> &'static str {
        "LayerNormalization"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 3).outputs(1, 3)
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        same_type(inputs, 1, dtype)?;
        same_type(inputs, 2, dtype)?;
        let statistics = self.rule.check(inputs)?;
        let mut facts = vec![Fact { dtype, shape: required_fact(inputs, 0)?.shape.clone(), value: None }];
        for _ in 1..outputs {
            facts.push(Fact { dtype: self.rule.stash_type, shape: statistics.clone(), value: None });
        }
        Ok(facts)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let axis = self.rule.first_axis(x.rank())?;
        let mut values = x.to_f64s();
        let mut shape = x.shape().to_vec();
        shape[axis..].fill(1);
        let (mut means, mut inverses): (Vec<f64>, Vec<f64>) = (room(&shape)?, room(&shape)?);
        for row in values.chunks_exact_mut(product(&x.shape()[axis..]).max(1)) {
            let (mean, variance) = moments(row);
            let inverse = 1.0 / (variance + f64::from(self.rule.epsilon)).sqrt();
            row.iter_mut().for_each(|v| *v = (*v - mean) * inverse);
            means.push(mean);
            inverses.push(inverse);
        }
        // Rows without elements have no statistics.
        means.resize(product(&shape), f64::NAN);
        inverses.resize(product(&shape), f64::NAN);
        affine(&mut values, x.shape(), required(inputs, 1)?, optional(inputs, 2));
        let mut made = vec![Tensor::from_f64s(x.dtype(), x.shape(), &values)?];
        for statistic in [means, inverses].iter().take(outputs.saturating_sub(1)) {
            made.push(Tensor::from_f64s(self.rule.stash_type, &shape, statistic)?);
        }
        Ok(made)
    }
    fn attributes(&self) -> Attributes {
        self.rule.written()
    }
}

/// `y = x / sqrt(mean(x²) + epsilon) * scale`. Inputs: X, scale, whose type is the output's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RmsNormalization {
    /// The attributes.
    pub rule: RowRule,
}

impl RmsNormalization {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(RmsNormalization { rule: RowRule::from_attributes(&node.attributes)? }))
    }
}

impl Operator for RmsNormalization {
    fn name(&self) -> &'static str {
        "RMSNormalization"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        float_input(inputs)?;
        let dtype = required_fact(inputs, 1)?.dtype;
        if !dtype.is_wide_float() {
            invalid!("input 1 is of type {dtype}, where a float type is expected");
        }
        self.rule.check(inputs)?;
        Ok(vec![Fact { dtype, shape: required_fact(inputs, 0)?.shape.clone(), value: None }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, scale) = (required(inputs, 0)?, required(inputs, 1)?);
        let axis = self.rule.first_axis(x.rank())?;
        let mut values = x.to_f64s();
        for row in values.chunks_exact_mut(product(&x.shape()[axis..]).max(1)) {
            let square = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
            let inverse = 1.0 / (square + f64::from(self.rule.epsilon)).sqrt();
            row.iter_mut().for_each(|v| *v *= inverse);
        }
        affine(&mut values, x.shape(), scale, None);
        Ok(vec![Tensor::from_f64s(scale.dtype(), x.shape(), &values)?])
    }
    fn attributes(&self) -> Attributes {
        self.rule.written()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_rows() {
        let x = Tensor::new(&[2, 2], &[1f32, 3., 10., 20.]).unwrap();
        let scale = Tensor::new(&[2], &[1f32, 2.]).unwrap();
        let bias = Tensor::scalar(1f32);
        let rule = RowRule { epsilon: 0.0, ..RowRule::default() };
        let op = LayerNormalization { rule };
        let given = [Some(&x), Some(&scale), Some(&bias)];
        let made = op.eval(&given, 3).unwrap();
        assert_eq!(made[0].to_f64s(), [0., 3., 0., 3.]);
        assert_eq!((made[1].shape(), made[1].to_f64s()), (&[2, 1][..], vec![2., 15.]));
        assert_eq!(made[2].to_f32s(), [1., 0.2]);
        let facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(op.infer(&facts, 3).unwrap()[2], Fact::new(DType::F32, &[2, 1]));
        let rms = RmsNormalization { rule };
        let x = Tensor::new(&[1, 2], &[1f32, 7.]).unwrap();
        assert_eq!(rms.eval(&[Some(&x), Some(&scale)], 1).unwrap()[0].to_f32s(), [0.2, 2.8]);
    }

    #[test]
    fn refuses_axes_and_shapes() {
        let fact = |s: &[usize]| Some(Fact::new(DType::F32, s));
        let op = LayerNormalization { rule: RowRule { axis: 2, ..RowRule::default() } };
        assert!(op.infer(&[fact(&[2, 2]), fact(&[2])], 1).unwrap_err().to_string().contains("axis"));
        let op = LayerNormalization::default();
        assert!(op.infer(&[fact(&[2, 2]), fact(&[3])], 1).is_err());
        assert!(op.infer(&[fact(&[1, 2]), fact(&[2, 2])], 1).is_err());
        let none = Tensor::zeros(DType::F32, &[2, 0]).unwrap();
        let scale = Tensor::zeros(DType::F32, &[0]).unwrap();
        let made = op.eval(&[Some(&none), Some(&scale)], 3).unwrap();
        assert_eq!((made[0].shape(), made[1].shape()), (&[2, 0][..], &[2, 1][..]));
    }
}
