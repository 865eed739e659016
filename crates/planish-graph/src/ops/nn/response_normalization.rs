//! LRN: an element is damped by the energy of its neighbours in other channels.
//!
//! Local response normalisation, from AlexNet (Krizhevsky et al., 2012); GoogLeNet and CaffeNet use it too.

use super::checks::{float_input, product, split_shape};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `y = x / (bias + alpha / size * Σ x²)^beta`, the sum over `size` channels around x's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lrn {
    /// How strongly neighbours damp.
    pub alpha: f32,
    /// The power of the damping.
    pub beta: f32,
    /// What is added to the energy.
    pub bias: f32,
    /// Channels in the sum; where even, one more follows than precedes.
    pub size: usize,
}

impl Lrn {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let attributes = &node.attributes;
        let size = Attributes::require("size", attributes.opt_int("size")?)?;
        Ok(Arc::new(Lrn {
            alpha: attributes.float("alpha", 1e-4)?,
            beta: attributes.float("beta", 0.75)?,
            bias: attributes.float("bias", 1.0)?,
            size: match usize::try_from(size) {
                Ok(size) if size > 0 => size,
                _ => invalid!("attribute \"size\" is {size}, where a positive number is expected"),
            },
        }))
    }
}

impl Operator for Lrn {
    fn name(&self) -> &'static str {
        "LRN"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        if self.size == 0 {
            invalid!("attribute \"size\" is 0, where a positive number is expected");
        }
        let x = required_fact(inputs, 0)?;
        if let Some(shape) = x.shape() {
            split_shape(shape, 0)?;
        }
        Ok(vec![Fact { dtype, shape: x.shape.clone(), value: None }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (_, channels, spatial) = split_shape(x.shape(), 0)?;
        let values = x.to_f64s();
        let plane = product(spatial).max(1);
        let mut out = values.clone();
        let (before, after) = ((self.size - 1) / 2, self.size / 2);
        let share = f64::from(self.alpha) / self.size as f64;
        for (index, target) in out.chunks_exact_mut(plane).enumerate() {
            let channel = index % channels;
            let first = index - channel.min(before);
            let last = index + (channels - 1 - channel).min(after);
            for (at, v) in target.iter_mut().enumerate() {
                let energy: f64 = (first..=last).map(|c| values[c * plane + at].powi(2)).sum();
                *v /= (f64::from(self.bias) + share * energy).powf(f64::from(self.beta));
            }
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), x.shape(), &out)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
            .with("alpha", self.alpha)
            .with("beta", self.beta)
            .with("bias", self.bias)
            .with("size", i64::try_from(self.size).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn damps_by_neighbouring_channels() {
        let x = Tensor::new(&[1, 4, 1], &[1f32, 2., 3., 4.]).unwrap();
        let run = |size| {
            let op = Lrn { alpha: size as f32, beta: 1.0, bias: 1.0, size };
            op.eval(&[Some(&x)], 1).unwrap()[0].to_f32s()
        };
        assert_eq!(run(1), [1. / 2., 2. / 5., 3. / 10., 4. / 17.]);
        assert_eq!(run(2), [1. / 6., 2. / 14., 3. / 26., 4. / 17.]);
        assert_eq!(run(3), [1. / 6., 2. / 15., 3. / 30., 4. / 26.]);
        let op = Lrn { alpha: 1.0, beta: 1.0, bias: 1.0, size: 0 };
        assert!(op.infer(&[Some(Fact::new(DType::F32, &[1, 2]))], 1).is_err());
        let none = Tensor::zeros(DType::F32, &[0, 2, 3]).unwrap();
        assert_eq!(Lrn { size: 5, ..op }.eval(&[Some(&none)], 1).unwrap()[0].shape(), [0, 2, 3]);
    }
}
