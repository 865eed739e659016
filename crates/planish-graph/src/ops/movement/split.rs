//! Split: cuts a tensor into parts along an axis.

use super::inputs::{check_index_type, extent};
use super::layout::{self, Walk};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// Parts of the first input along `axis`. The second input gives their extents; without it they are equal, the last one
/// smaller where the extent does not divide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// The axis, counted from the end where negative.
    pub axis: i64,
    /// How many parts, where there is no second input. Files before opset 18 leave it to the number of outputs.
    pub num_outputs: Option<i64>,
}

impl Split {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let axis = node.attributes.int("axis", 0)?;
        if node.before(13)
            && let Some(parts) = node.attributes.opt_ints("split")?
        {
            node.set_constant_input(1, Tensor::from_i64s(&parts)?);
            return Ok(Arc::new(Split { axis, num_outputs: None }));
        }
        let num_outputs = match node.attributes.opt_int("num_outputs")? {
            None if node.input_count < 2 => Some(node.output_count as i64),
            given => given,
        };
        Ok(Arc::new(Split { axis, num_outputs }))
    }

    /// The extents of the parts of an axis of `whole`; `given` is the content of the second input.
    fn parts(&self, whole: usize, given: Option<&Tensor>, outputs: usize) -> Result<Vec<usize>> {
        let Some(given) = given else { return self.equal_parts(whole, outputs) };
        let parts = given.to_i64s()?.into_iter().map(|n| extent(n, "split")).collect::<Result<Vec<_>>>()?;
        let sum = parts.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
        if sum != Some(whole) {
            invalid!("input \"split\" cuts an axis of extent {whole} into {parts:?}");
        }
        Ok(parts)
    }

    fn equal_parts(&self, whole: usize, outputs: usize) -> Result<Vec<usize>> {
        if outputs == 0 {
            invalid!("attribute \"num_outputs\" is 0");
        }
        let part = whole.div_ceil(outputs);
        let last =
            part.checked_mul(outputs - 1).and_then(|before| whole.checked_sub(before)).ok_or_else(|| {
                Error::invalid(format!("an axis of extent {whole} cannot be cut into {outputs} equal parts"))
            })?;
        let mut parts = vec![part; outputs];
        parts[outputs - 1] = last;
        Ok(parts)
    }

    fn check(&self, given: Option<&Fact>, outputs: usize) -> Result<()> {
        match (self.num_outputs, given) {
            (Some(_), Some(_)) => invalid!("has both input \"split\" and attribute \"num_outputs\""),
            (Some(n), None) if usize::try_from(n) != Ok(outputs) => {
                invalid!("attribute \"num_outputs\" is {n}, the node has {outputs} outputs")
            }
            (_, None) => Ok(()),
            (None, Some(fact)) => {
                check_index_type(fact.dtype, "split")?;
                match fact.shape() {
                    Some(shape) if shape != [outputs] => {
                        invalid!("input \"split\" has shape {shape:?}, the node has {outputs} outputs")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Operator for Split {
    fn name(&self) -> &'static str {
        "Split"
    }
    fn arity(&self) -> Arity {
        Arity::range(1, 2).outputs(1, usize::MAX)
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        let given = optional_fact(inputs, 1);
        self.check(given, outputs)?;
        let Some(shape) = data.shape() else { return Ok(vec![Fact::unknown(data.dtype); outputs]) };
        let axis = index::axis(self.axis, shape.len())?;
        let content = given.and_then(|g| g.value.as_ref());
        if given.is_some() && content.is_none() {
            return Ok(vec![Fact::unknown(data.dtype); outputs]);
        }
        let parts = self.parts(shape[axis], content, outputs)?;
        let mut shape = shape.to_vec();
        Ok(parts
            .into_iter()
            .map(|part| {
                shape[axis] = part;
                Fact::new(data.dtype, &shape)
            })
            .collect())
    }
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let axis = index::axis(self.axis, data.rank())?;
        let parts = self.parts(data.shape()[axis], optional(inputs, 1), outputs)?;
        let mut corner = vec![0; data.rank()];
        let mut shape = data.shape().to_vec();
        let mut made = Vec::with_capacity(parts.len());
        for part in parts {
            shape[axis] = part;
            let mut out = Tensor::zeros(data.dtype(), &shape)?;
            let from = Walk::boxed(data.shape(), &corner);
            let size = data.dtype().size();
            layout::copy(&shape, size, data.bytes(), &from, out.bytes_mut(), &Walk::dense(&shape));
            corner[axis] += part;
            made.push(out);
        }
        Ok(made)
    }
    fn attributes(&self) -> Attributes {
        let written = Attributes::new().with("axis", self.axis);
        match self.num_outputs {
            Some(n) => written.with("num_outputs", n),
            None => written,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, node, run_many};
    use super::*;

    fn shapes(made: &[Tensor]) -> Vec<&[usize]> {
        made.iter().map(|t| t.shape()).collect()
    }

    #[test]
    fn cuts_as_told() {
        let x = counting(&[2, 5]);
        let told = Split { axis: -1, num_outputs: None };
        let made = run_many(told, &[Some(&x), Some(&ints(&[2, 0, 3]))], 3).unwrap();
        assert_eq!(shapes(&made), [[2, 2], [2, 0], [2, 3]]);
        assert_eq!(made[2].as_slice::<f32>().unwrap(), [2., 3., 4., 7., 8., 9.]);
    }

    #[test]
    fn cuts_equally_with_a_smaller_rest() {
        let even = Split { axis: 1, num_outputs: Some(3) };
        let made = run_many(even, &[Some(&counting(&[1, 7]))], 3).unwrap();
        assert_eq!(shapes(&made), [[1, 3], [1, 3], [1, 1]]);
        let none = run_many(even, &[Some(&counting(&[1, 0]))], 3).unwrap();
        assert!(none.iter().all(|t| t.is_empty()));
    }

    #[test]
    fn refuses_what_does_not_add_up() {
        let x = counting(&[5]);
        let told = Split { axis: 0, num_outputs: None };
        for split in [&[2i64, 2][..], &[6, -1], &[5], &[i64::MAX, i64::MAX]] {
            assert!(run_many(told, &[Some(&x), Some(&ints(split))], 2).is_err(), "{split:?}");
        }
        assert!(run_many(Split { axis: 1, ..told }, &[Some(&x)], 1).is_err());
        assert!(run_many(Split { axis: 0, num_outputs: Some(4) }, &[Some(&x)], 4).is_err());
        assert!(run_many(Split { axis: 0, num_outputs: Some(2) }, &[Some(&x)], 3).is_err());
    }

    #[test]
    fn reads_old_spellings() {
        let mut old = node("Split", 11, 1, Attributes::new().with("split", vec![1i64, 2]));
        assert_eq!(format!("{:?}", Split::read(&mut old).unwrap()), "Split { axis: 0, num_outputs: None }");
        assert_eq!(old.added_inputs[&1], ints(&[1, 2]));
        let mut equal = node("Split", 13, 1, Attributes::new());
        assert_eq!(
            format!("{:?}", Split::read(&mut equal).unwrap()),
            "Split { axis: 0, num_outputs: Some(1) }"
        );
    }
}
