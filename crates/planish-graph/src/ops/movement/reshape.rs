//! Reshape: the same elements under another shape.

use super::inputs::integers;
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use std::sync::Arc;

/// The first input under the shape that the second one lists, in which -1 stands for "whatever is left".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reshape {
    /// Whether a 0 in the list is an extent of 0; otherwise it keeps the extent of the input at that place.
    pub allow_zero: bool,
}

impl Reshape {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Reshape { allow_zero: node.attributes.flag("allowzero", false)? }))
    }

    /// The shape that `wanted` means for an input of shape `own`; `None` where that is needed and not known.
    pub fn target(&self, own: Option<&[usize]>, wanted: &[i64]) -> Result<Option<Vec<usize>>> {
        let needs_input = wanted.iter().any(|&n| n == -1 || (n == 0 && !self.allow_zero));
        if needs_input && own.is_none() {
            return Ok(None);
        }
        let mut target = Vec::with_capacity(wanted.len());
        let mut open = None;
        for (axis, &n) in wanted.iter().enumerate() {
            target.push(match n {
                -1 if open.is_some() => invalid!("input \"shape\" is {wanted:?}, with more than one -1"),
                -1 => {
                    open = Some(axis);
                    1
                }
                0 if !self.allow_zero => match own.and_then(|s| s.get(axis)) {
                    Some(&kept) => kept,
                    None => {
                        invalid!("input \"shape\" is {wanted:?}, whose 0 has no extent to keep in {own:?}")
                    }
                },
                _ => usize::try_from(n)
                    .map_err(|_| Error::invalid(format!("input \"shape\" is {wanted:?}, with a {n}")))?,
            });
        }
        let Some(own) = own else { return Ok(Some(target)) };
        let (count, rest) = (element_count(own)?, element_count(&target)?);
        if let Some(axis) = open {
            if rest == 0 || count % rest != 0 {
                invalid!("shape {own:?} does not fit {wanted:?}: {count} elements do not divide by {rest}");
            }
            target[axis] = count / rest;
        } else if count != rest {
            invalid!("shape {own:?} has {count} elements, {wanted:?} has {rest}");
        }
        Ok(Some(target))
    }
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        let target = match integers(required_fact(inputs, 1)?, "shape")? {
            None => None,
            Some(wanted) => self.target(data.shape(), &wanted)?,
        };
        Ok(vec![Fact { dtype: data.dtype, shape: target, value: None }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        match self.target(Some(data.shape()), &required(inputs, 1)?.to_i64s()?)? {
            Some(target) => Ok(vec![data.reshaped(&target)?]),
            None => invalid!("the shape is not known"),
        }
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("allowzero", self.allow_zero)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, run};
    use super::*;
    use crate::tensor::DType;

    const PLAIN: Reshape = Reshape { allow_zero: false };

    #[test]
    fn fills_in_what_is_left_open() {
        let cases: [(&[usize], &[i64], &[usize]); 6] = [
            (&[2, 3, 4], &[4, -1], &[4, 6]),
            (&[2, 3, 4], &[0, -1], &[2, 12]),
            (&[2, 3, 4], &[0, 0, 4, 1], &[2, 3, 4, 1]),
            (&[1], &[], &[]),
            (&[0, 3], &[-1, 3], &[0, 3]),
            (&[2, 0], &[0, 0], &[2, 0]),
        ];
        for (own, wanted, target) in cases {
            assert_eq!(run(PLAIN, &[&counting(own), &ints(wanted)]).unwrap().shape(), target);
        }
        let zero = run(Reshape { allow_zero: true }, &[&counting(&[0, 3]), &ints(&[5, 0])]).unwrap();
        assert_eq!(zero.shape(), [5, 0]);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let x = counting(&[2, 3]);
        for wanted in [&[4i64][..], &[-1, -1], &[-2, 3], &[1, 1, 0], &[-1, 4], &[i64::MAX, i64::MAX, -1]] {
            assert!(run(PLAIN, &[&x, &ints(wanted)]).is_err(), "{wanted:?}");
        }
        assert!(run(Reshape { allow_zero: true }, &[&counting(&[0]), &ints(&[0, -1])]).is_err());
        assert!(run(PLAIN, &[&x, &ints(&[6]).reshaped(&[1, 1]).unwrap()]).is_err());
    }

    #[test]
    fn a_full_shape_needs_no_input_shape() {
        let wanted = Fact::constant(&ints(&[2, 3]));
        let said = PLAIN.infer(&[Some(Fact::unknown(DType::F32)), Some(wanted)], 1).unwrap();
        assert_eq!(said, [Fact::new(DType::F32, &[2, 3])]);
    }
}
