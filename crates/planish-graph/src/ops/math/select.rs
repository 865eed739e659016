//! Where: takes each element from one of two tensors.

use super::elementwise::{BOOL, broadcast_fact, expect_same_type, typed_fact};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// `y = condition ? x : y`, element by element, with broadcasting, for every type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Where;

impl Where {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Where))
    }
}

impl Operator for Where {
    fn name(&self) -> &'static str {
        "Where"
    }
    fn arity(&self) -> Arity {
        Arity::exact(3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let condition = typed_fact(inputs, 0, "the condition", BOOL)?;
        let (x, y) = (required_fact(inputs, 1)?, required_fact(inputs, 2)?);
        expect_same_type(x, y)?;
        Ok(vec![broadcast_fact(x.dtype, &[condition, x, y])?])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (condition, x, y) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let shape = index::broadcast(&[condition.shape(), x.shape(), y.shape()])?;
        let mut out = Tensor::zeros(x.dtype(), &shape)?;
        let [c, a, b] = [condition, x, y].map(|t| index::broadcast_strides(t.shape(), &shape));
        let size = x.dtype().size();
        let (truth, target) = (condition.as_bools()?, out.bytes_mut());
        index::for_each(&shape, [&c, &a, &b], |flat, [c, a, b]| {
            let source = if truth[c] != 0 { &x.bytes()[a * size..] } else { &y.bytes()[b * size..] };
            target[flat * size..][..size].copy_from_slice(&source[..size]);
        });
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{eval, floats, refusal};
    use crate::tensor::DType;

    #[test]
    fn takes_from_either() {
        let c = Tensor::from_bools(&[2, 1], &[true, false]).unwrap();
        let (x, y) = (floats(&[2], &[1., 2.]), Tensor::scalar(9f32));
        assert_eq!(eval(&Where, &[&c, &x, &y]), floats(&[2, 2], &[1., 2., 9., 9.]));
        let empty = Tensor::zeros(DType::F32, &[0]).unwrap();
        assert_eq!(eval(&Where, &[&c, &empty, &y]).shape(), [2, 0]);
        let (p, q) = (Tensor::from_bools(&[], &[true]).unwrap(), Tensor::from_bools(&[], &[false]).unwrap());
        assert_eq!(eval(&Where, &[&c, &p, &q]).as_bools().unwrap(), [1, 0]);
    }

    #[test]
    fn refuses_mixtures() {
        let fact = |dtype| Fact::new(dtype, &[]);
        assert!(
            refusal(&Where, &[fact(DType::U8), fact(DType::F32), fact(DType::F32)]).contains("condition")
        );
        assert!(
            refusal(&Where, &[fact(DType::Bool), fact(DType::F32), fact(DType::F64)]).contains("different")
        );
    }
}
