//! ReverseSequence: turns around the first part of each sequence of a batch.

use super::inputs::Indices;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// The second input says, for each index of the batch axis, how many elements of the time axis are turned around.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReverseSequence {
    /// The time axis is the first and the batch axis the second; otherwise the other way round.
    pub time_major: bool,
}

impl ReverseSequence {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let (batch, time) = (node.attributes.int("batch_axis", 1)?, node.attributes.int("time_axis", 0)?);
        if !matches!((batch, time), (0, 1) | (1, 0)) {
            invalid!(
                "attributes \"batch_axis\" and \"time_axis\" are {batch} and {time}, 0 and 1 are expected"
            );
        }
        Ok(Arc::new(ReverseSequence { time_major: time == 0 }))
    }

    fn axes(&self) -> (usize, usize) {
        if self.time_major { (0, 1) } else { (1, 0) }
    }
}

impl Operator for ReverseSequence {
    fn name(&self) -> &'static str {
        "ReverseSequence"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let (data, lengths) = (required_fact(inputs, 0)?, required_fact(inputs, 1)?);
        if lengths.dtype != DType::I64 {
            invalid!("input \"sequence_lens\" is {}, i64 is expected", lengths.dtype);
        }
        if data.shape().is_some_and(|s| s.len() < 2) {
            invalid!("the input has shape {:?}, at least two axes are expected", data.shape());
        }
        if let (Some(shape), Some(given)) = (data.shape(), lengths.shape())
            && given != [shape[self.axes().1]]
        {
            invalid!("input \"sequence_lens\" has shape {given:?} beside data of shape {shape:?}");
        }
        Ok(vec![Fact { value: None, ..data.clone() }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (data, given) = (required(inputs, 0)?, required(inputs, 1)?);
        let mut out = Tensor::zeros(data.dtype(), data.shape())?;
        if out.is_empty() {
            return Ok(vec![out]);
        }
        let &[first, second, ..] = data.shape() else { invalid!("the input has less than two axes") };
        let lengths = Indices::of(given, "sequence_lens")?;
        let (time, _) = self.axes();
        let extent = data.shape()[time];
        let block = data.bytes().len() / (first * second);
        for (i, place) in out.bytes_mut().chunks_exact_mut(block).enumerate() {
            let mut index = [i / second, i % second];
            let length = lengths.count(index[1 - time], extent)?;
            if index[time] < length {
                index[time] = length - 1 - index[time];
            }
            place.copy_from_slice(&data.bytes()[(index[0] * second + index[1]) * block..][..block]);
        }
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        let (time, batch) = self.axes();
        Attributes::new().with("time_axis", time as i64).with("batch_axis", batch as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, node, run};
    use super::*;

    #[test]
    fn turns_the_start_around() {
        let x = counting(&[3, 2]);
        let made = run(ReverseSequence { time_major: true }, &[&x, &ints(&[3, 2])]).unwrap();
        assert_eq!(made.to_f32s(), [4., 3., 2., 1., 0., 5.]);
        let made = run(ReverseSequence { time_major: false }, &[&x, &ints(&[0, 1, 2])]).unwrap();
        assert_eq!(made.to_f32s(), [0., 1., 2., 3., 5., 4.]);
        let none = run(ReverseSequence { time_major: true }, &[&counting(&[3, 0]), &ints(&[])]).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let op = ReverseSequence { time_major: true };
        let x = counting(&[3, 2]);
        for lengths in [&[4i64, 1][..], &[-1, 1], &[1], &[1, 1, 1]] {
            assert!(run(op, &[&x, &ints(lengths)]).is_err(), "{lengths:?}");
        }
        assert!(run(op, &[&counting(&[3]), &ints(&[1])]).is_err());
        let same = Attributes::new().with("time_axis", 1i64);
        assert!(ReverseSequence::read(&mut node("ReverseSequence", 10, 2, same)).is_err());
    }
}
