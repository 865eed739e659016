//! Dropout: while training, elements are zeroed at random and the rest enlarged to keep the sum; else nothing happens.
//!
//! Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (2014).

use super::conv::shaped;
use super::random::MersenneTwister;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{DType, Tensor};
use crate::{invalid, unsupported};
use std::sync::Arc;

/// Inputs: X, ratio (optional, 0.5), training mode (optional, a truth value, false). Outputs: Y, and a mask of what was
/// kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropout {
    /// Where the random numbers start; 0 in the reference where left out.
    pub seed: Option<i64>,
}

impl Dropout {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        if node.before(10) && node.output_count > 1 {
            unsupported!("the mask of opsets before 10, which is not of truth values, is not supported");
        }
        if node.before(12) {
            let ratio = node.attributes.float("ratio", 0.5)?;
            node.set_constant_input(1, Tensor::scalar(ratio));
        }
        Ok(Arc::new(Dropout { seed: node.attributes.opt_int("seed")? }))
    }
}

impl Operator for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }
    fn arity(&self) -> Arity {
        Arity::range(1, 3).outputs(1, 2)
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        let dtype = super::checks::float_input(inputs)?;
        if let Some(ratio) = optional_fact(inputs, 1) {
            if !ratio.dtype.is_wide_float() {
                invalid!("input 1 is of type {}, where a float type is expected", ratio.dtype);
            }
            let value = ratio.value.as_ref().map(|v| v.to_f64s());
            match value.as_deref() {
                None => {}
                Some([ratio]) if (0.0..1.0).contains(ratio) => {}
                Some(other) => {
                    invalid!("input 1 (ratio) is {other:?}, where a number from 0 to below 1 is expected")
                }
            }
        }
        super::checks::same_type(inputs, 2, DType::Bool)?;
        let shape = required_fact(inputs, 0)?.shape.clone();
        let mut facts = vec![shaped(dtype, shape.clone()), shaped(DType::Bool, shape)];
        facts.truncate(outputs.max(1));
        Ok(facts)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let ratio = optional(inputs, 1).and_then(|t| t.to_f64s().first().copied()).unwrap_or(0.5);
        let training = match optional(inputs, 2) {
            Some(flag) => flag.as_bools()?.first() == Some(&1),
            None => false,
        };
        let mut made = vec![x.clone()];
        let mut kept = vec![true; x.len()];
        if training && ratio > 0.0 {
            // NumPy takes the lower half of a larger seed no further than 32 bits, and neither do we.
            let mut random = MersenneTwister::new(self.seed.unwrap_or(0) as u32);
            kept.iter_mut().for_each(|keep| *keep = random.uniform() >= ratio);
            let mut values = x.to_f64s();
            for (v, keep) in values.iter_mut().zip(&kept) {
                *v *= f64::from(u8::from(*keep)) / (1.0 - ratio);
            }
            made = vec![Tensor::from_f64s(x.dtype(), x.shape(), &values)?];
        }
        if outputs > 1 {
            made.push(Tensor::from_bools(x.shape(), &kept)?);
        }
        Ok(made)
    }
    fn attributes(&self) -> Attributes {
        match self.seed {
            Some(seed) => Attributes::new().with("seed", seed),
            None => Attributes::new(),
        }
    }
    fn is_pure(&self) -> bool {
        // Without training it always is, but that is only known with the inputs.
        self.seed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_only_while_training() {
        let x = Tensor::new(&[3], &[1f32, 2., 3.]).unwrap();
        let op = Dropout { seed: Some(0) };
        let made = op.eval(&[Some(&x)], 2).unwrap();
        assert_eq!((&made[0], made[1].as_bools().unwrap()), (&x, &[1, 1, 1][..]));
        let (ratio, training) = (Tensor::scalar(0.6f32), Tensor::from_bools(&[], &[true]).unwrap());
        let made = op.eval(&[Some(&x), Some(&ratio), Some(&training)], 2).unwrap();
        assert_eq!(made[1].as_bools().unwrap(), [0, 1, 1]);
        assert!((made[0].to_f64s()[1] - 5.0).abs() < 1e-6);
        let none = Tensor::scalar(0f32);
        assert_eq!(op.eval(&[Some(&x), Some(&none), Some(&training)], 1).unwrap(), std::slice::from_ref(&x));
        let all = Fact::constant(&Tensor::scalar(1f32));
        assert!(op.infer(&[Some(Fact::constant(&x)), Some(all)], 1).is_err());
    }
}
