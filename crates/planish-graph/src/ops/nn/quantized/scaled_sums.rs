//! Integer sums and what makes numbers of them, as one operator: ConvInteger or MatMulInteger, the cast of its sums, their
//! product with both scales, and the bias behind it.
//!
//! That is how networks are spelled whose activations are quantised while they run (ONNX Runtime's dynamic quantisation):
//! five nodes and four tensors of 32 bits for what a kernel does with its sums in registers.

use super::conv_integer::ConvInteger;
use super::matmul_integer::MatMulInteger;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::room;
use crate::ops::nn::checks::same_type;
use crate::ops::{Arity, Operator, OperatorExt, optional, optional_fact, required};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// `sums * (scale of x * scale of w) + bias`, each step rounded to `f32`. Inputs: those of the sums (x, w, and their zero
/// points, which may be left out), the scale of x (one number), the scale of w (one number, or one for each output channel
/// or column), the bias (optional; one for each).
#[derive(Clone, Debug)]
pub struct ScaledSums {
    /// [`ConvInteger`] or [`MatMulInteger`].
    pub sums: Arc<dyn Operator>,
}

/// Where the scale of x is among the inputs; that of w and the bias follow.
pub const SCALE: usize = 4;

impl ScaledSums {
    /// The axis of the sums that counts channels or columns.
    fn axis(&self, rank: usize) -> usize {
        if self.sums.is_op::<ConvInteger>() { 1 } else { rank.saturating_sub(1) }
    }
}

impl Operator for ScaledSums {
    fn name(&self) -> &'static str {
        "ScaledSums"
    }
    fn domain(&self) -> &'static str {
        "planish"
    }
    fn arity(&self) -> Arity {
        // Zero points between them may be left out.
        Arity { min_inputs: 2, max_inputs: 7, min_outputs: 1, max_outputs: 1 }
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        if !self.sums.is_op::<ConvInteger>() && !self.sums.is_op::<MatMulInteger>() {
            invalid!("{} makes no integer sums", self.sums.name());
        }
        let mut facts = self.sums.infer(&inputs[..inputs.len().min(SCALE)], outputs)?;
        let [fact] = &mut facts[..] else { invalid!("integer sums have one output") };
        (fact.dtype, fact.value) = (DType::F32, None);
        let count = fact.shape().map(|shape| shape.get(self.axis(shape.len())).copied().unwrap_or(1));
        for index in SCALE..SCALE + 3 {
            same_type(inputs, index, DType::F32)?;
            let given = optional_fact(inputs, index);
            if given.is_none() && index < SCALE + 2 {
                invalid!("input {index} is required and was left out");
            }
            let given = given.and_then(|f| f.shape()).map(|shape| shape.iter().product::<usize>());
            if let (Some(given), Some(count)) = (given, count)
                && given != 1
                && (index == SCALE || given != count)
            {
                invalid!("input {index} holds {given} numbers for {count} channels");
            }
        }
        Ok(facts)
    }
    fn macs(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        self.sums.macs(&inputs[..inputs.len().min(SCALE)], outputs)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let made = self.sums.eval(&inputs[..inputs.len().min(SCALE)], outputs)?;
        let [sums] = &made[..] else { invalid!("integer sums have one output") };
        let (x, w) = (required(inputs, SCALE)?.to_f32s(), required(inputs, SCALE + 1)?.to_f32s());
        let bias = optional(inputs, SCALE + 2).map(|bias| bias.to_f32s());
        let (shape, axis) = (sums.shape(), self.axis(sums.rank()));
        let channels = shape.get(axis).copied().unwrap_or(1).max(1);
        let inner = shape.iter().skip(axis + 1).product::<usize>().max(1);
        let one = |numbers: &[f32], channel: usize| match numbers {
            [number] => Ok(*number),
            _ => match numbers.get(channel) {
                Some(number) => Ok(*number),
                None => invalid!("{} numbers for {channels} channels", numbers.len()),
            },
        };
        let mut values: Vec<f32> = room(shape)?;
        for (index, &sum) in sums.as_slice::<i32>()?.iter().enumerate() {
            let channel = index / inner % channels;
            let number = sum as f32 * (one(&x, 0)? * one(&w, channel)?);
            values.push(match &bias {
                Some(bias) => number + one(bias, channel)?,
                None => number,
            });
        }
        Ok(vec![Tensor::new(shape, &values)?])
    }
    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new().with("op", self.sums.name());
        for (name, value) in self.sums.attributes().0 {
            attributes.0.insert(format!("op.{name}"), value);
        }
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_scaled_by_channel() {
        let x = Tensor::new(&[1, 1, 2], &[10u8, 20]).unwrap();
        let w = Tensor::new(&[2, 1, 1], &[3i8, -4]).unwrap();
        let (zero, scale) = (Tensor::scalar(10u8), Tensor::scalar(0.5f32));
        let scales = Tensor::new(&[2], &[1f32, 0.25]).unwrap();
        let bias = Tensor::new(&[2], &[0.125f32, -1.0]).unwrap();
        let op = ScaledSums { sums: Arc::new(ConvInteger::default()) };
        let given = [Some(&x), Some(&w), Some(&zero), None, Some(&scale), Some(&scales), Some(&bias)];
        let y = op.eval(&given, 1).unwrap().remove(0);
        // Sums 0, 30 | 0, -40.
        assert_eq!(y.as_slice::<f32>().unwrap(), [0.125, 15.125, -1.0, -6.0]);
        let facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(op.infer(&facts, 1).unwrap(), [Fact::new(DType::F32, &[1, 2, 2])]);
        assert_eq!(op.macs(&facts, &[]), 4);
        let mut wrong = facts.to_vec();
        wrong[5] = Some(Fact::new(DType::F32, &[3]));
        assert!(op.infer(&wrong, 1).unwrap_err().to_string().contains("input 5"));
        wrong[5] = None;
        assert!(op.infer(&wrong, 1).is_err());
    }

    #[test]
    fn columns_of_products() {
        let a = Tensor::new(&[1, 2], &[10u8, 20]).unwrap();
        let b = Tensor::new(&[2, 2], &[1i8, 2, 3, 4]).unwrap();
        let scale = Tensor::scalar(2f32);
        let scales = Tensor::new(&[2], &[1f32, 0.5]).unwrap();
        let op = ScaledSums { sums: Arc::new(MatMulInteger) };
        let given = [Some(&a), Some(&b), None, None, Some(&scale), Some(&scales)];
        assert_eq!(op.eval(&given, 1).unwrap()[0].as_slice::<f32>().unwrap(), [140.0, 100.0]);
    }
}
