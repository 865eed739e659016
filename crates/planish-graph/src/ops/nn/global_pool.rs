//! GlobalAveragePool, GlobalMaxPool and GlobalLpPool: each channel becomes one number.
//!
//! The step from feature maps to a classifier that needs no fixed image size (Lin et al., "Network in Network", 2014).

use super::checks::{float_input, product, split_shape};
use super::conv::shaped;
use super::lp_pool::{lp_norm, read_power};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::limits::room;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use crate::{invalid, unsupported};
use std::sync::Arc;

/// What becomes of a channel's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobalPoolKind {
    /// Their mean.
    Average,
    /// The largest; a NaN wins.
    Max,
    /// The root of the sum of their magnitudes' powers.
    Lp {
        /// The power, positive.
        p: u32,
    },
}

/// Reduces all spatial axes of `[N, C, …]` to extent 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalPool {
    /// What becomes of a channel's elements.
    pub kind: GlobalPoolKind,
}

impl GlobalPool {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let kind = match node.op_type.as_str() {
            "GlobalAveragePool" => GlobalPoolKind::Average,
            "GlobalMaxPool" => GlobalPoolKind::Max,
            "GlobalLpPool" => GlobalPoolKind::Lp { p: read_power(&node.attributes)? },
            other => unsupported!("{other} is no global pool"),
        };
        Ok(Arc::new(GlobalPool { kind }))
    }
}

impl Operator for GlobalPool {
    fn name(&self) -> &'static str {
        match self.kind {
            GlobalPoolKind::Average => "GlobalAveragePool",
            GlobalPoolKind::Max => "GlobalMaxPool",
            GlobalPoolKind::Lp { .. } => "GlobalLpPool",
        }
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        let shape = match required_fact(inputs, 0)?.shape() {
            Some(shape) => {
                let (batch, channels, spatial) = split_shape(shape, 1)?;
                if spatial.contains(&0) {
                    invalid!("input 0 is of shape {shape:?}: there is nothing to pool");
                }
                let mut pooled = vec![batch, channels];
                pooled.resize(shape.len(), 1);
                Some(pooled)
            }
            None => None,
        };
        Ok(vec![shaped(dtype, shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (batch, channels, spatial) = split_shape(x.shape(), 1)?;
        let mut shape = vec![batch, channels];
        shape.resize(x.rank(), 1);
        let mut pooled: Vec<f64> = room(&shape)?;
        let reduce = |plane: &[f64]| match self.kind {
            GlobalPoolKind::Average => plane.iter().sum::<f64>() / plane.len() as f64,
            GlobalPoolKind::Max => {
                plane.iter().fold(f64::NEG_INFINITY, |a, &b| if b > a || b.is_nan() { b } else { a })
            }
            GlobalPoolKind::Lp { p } => lp_norm(plane.iter(), p),
        };
        pooled.extend(x.to_f64s().chunks_exact(product(spatial).max(1)).map(reduce));
        Ok(vec![Tensor::from_f64s(x.dtype(), &shape, &pooled)?])
    }
    fn attributes(&self) -> Attributes {
        match self.kind {
            GlobalPoolKind::Lp { p } => Attributes::new().with("p", i64::from(p)),
            _ => Attributes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn reduces_each_channel() {
        let x = Tensor::new(&[1, 2, 2], &[3f32, -4., 1., 2.]).unwrap();
        let run = |kind| GlobalPool { kind }.eval(&[Some(&x)], 1).unwrap().remove(0);
        assert_eq!(run(GlobalPoolKind::Average).to_f64s(), [-0.5, 1.5]);
        assert_eq!(run(GlobalPoolKind::Max).to_f64s(), [3., 2.]);
        assert_eq!(run(GlobalPoolKind::Lp { p: 2 }).to_f64s()[0], 5.0);
        assert_eq!(run(GlobalPoolKind::Lp { p: 1 }).shape(), [1, 2, 1]);
    }

    #[test]
    fn refuses_nothing_to_pool() {
        let op = GlobalPool { kind: GlobalPoolKind::Max };
        assert!(op.infer(&[Some(Fact::new(DType::F32, &[1, 2, 0]))], 1).is_err());
        assert!(op.infer(&[Some(Fact::new(DType::F32, &[1, 2]))], 1).is_err());
        let none = Tensor::zeros(DType::F32, &[0, 2, 3]).unwrap();
        assert_eq!(op.eval(&[Some(&none)], 1).unwrap()[0].shape(), [0, 2, 1]);
    }
}
