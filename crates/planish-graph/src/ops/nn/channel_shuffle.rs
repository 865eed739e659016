//! ChannelShuffle: deals the channels out like cards, so that groups exchange what they know.
//!
//! Grouped convolutions never mix their groups; ShuffleNet (Zhang et al., 2018) shuffles the channels between them. ONNX
//! has no operator for it: files hold a reshape to `[N, groups, C / groups, …]`, a transposition of the two middle axes,
//! and a reshape back, which is what this one is written as.

use super::checks::split_shape;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Channel `j · groups + i` of the output is channel `i · (C / groups) + j` of the input, `[N, C, …]` of any type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelShuffle {
    /// How many runs of channels are dealt; divides the number of channels.
    pub groups: usize,
}

impl ChannelShuffle {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let groups = Attributes::require("groups", node.attributes.opt_int("groups")?)?;
        match usize::try_from(groups) {
            Ok(groups) if groups > 0 => Ok(Arc::new(ChannelShuffle { groups })),
            _ => invalid!("attribute \"groups\" is {groups}, where a positive number is expected"),
        }
    }
    fn check(&self, shape: &[usize]) -> Result<usize> {
        let (_, channels, _) = split_shape(shape, 0)?;
        if self.groups == 0 || !channels.is_multiple_of(self.groups) {
            invalid!("attribute \"groups\": {channels} channels do not divide into {} groups", self.groups);
        }
        Ok(channels)
    }
}

impl Operator for ChannelShuffle {
    fn name(&self) -> &'static str {
        "ChannelShuffle"
    }
    fn domain(&self) -> &'static str {
        "planish"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = required_fact(inputs, 0)?;
        if let Some(shape) = x.shape() {
            self.check(shape)?;
        }
        Ok(vec![Fact { dtype: x.dtype, shape: x.shape.clone(), value: None }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let channels = self.check(x.shape())?;
        let mut out = Tensor::zeros(x.dtype(), x.shape())?;
        if out.is_empty() {
            return Ok(vec![out]);
        }
        let plane = x.shape()[2..].iter().product::<usize>() * x.dtype().size();
        let each = channels / self.groups;
        let images = out.bytes_mut().chunks_exact_mut(plane * channels);
        for (to, from) in images.zip(x.bytes().chunks_exact(plane * channels)) {
            for (channel, to) in to.chunks_exact_mut(plane).enumerate() {
                let source = channel % self.groups * each + channel / self.groups;
                to.copy_from_slice(&from[source * plane..][..plane]);
            }
        }
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("groups", i64::try_from(self.groups).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn deals_channels() {
        let op = ChannelShuffle { groups: 2 };
        let x = Tensor::new(&[1, 6, 2], &[0i32, 1, 10, 11, 20, 21, 30, 31, 40, 41, 50, 51]).unwrap();
        let y = op.eval(&[Some(&x)], 1).unwrap().remove(0);
        assert_eq!(y.to_i64s().unwrap(), [0, 1, 30, 31, 10, 11, 40, 41, 20, 21, 50, 51]);
        let empty = Tensor::zeros(DType::F32, &[0, 6, 2]).unwrap();
        assert_eq!(op.eval(&[Some(&empty)], 1).unwrap(), [empty]);
    }

    #[test]
    fn refuses_groups_that_do_not_divide() {
        for groups in [0, 4] {
            let x = Fact::new(DType::F32, &[1, 6, 2]);
            assert!(ChannelShuffle { groups }.infer(&[Some(x)], 1).is_err());
        }
    }
}
