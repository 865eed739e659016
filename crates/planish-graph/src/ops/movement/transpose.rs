//! Transpose: permutes the axes.

use super::layout::{self, Walk};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Axis `i` of the output is axis `perm[i]` of the input.
#[derive(Clone, Debug, PartialEq)]
pub struct Transpose {
    /// The permutation; the axes are reversed where there is none.
    pub perm: Option<Vec<usize>>,
}

impl Transpose {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let Some(given) = node.attributes.opt_ints("perm")? else {
            return Ok(Arc::new(Transpose { perm: None }));
        };
        let perm = given.iter().map(|&axis| usize::try_from(axis)).collect::<std::result::Result<_, _>>();
        let perm = perm.map_err(|_| Error::invalid(format!("attribute \"perm\" is {given:?}")))?;
        Ok(Arc::new(Transpose { perm: Some(perm) }))
    }

    /// The permutation for a tensor of `rank`; an error where the attribute is none of that rank.
    pub fn order(&self, rank: usize) -> Result<Vec<usize>> {
        let Some(perm) = &self.perm else { return Ok((0..rank).rev().collect()) };
        let mut seen = vec![false; rank];
        let valid = perm.len() == rank
            && perm.iter().all(|&axis| axis < rank && !std::mem::replace(&mut seen[axis], true));
        if !valid {
            invalid!("attribute \"perm\" is {perm:?}, no permutation of the axes of a tensor of rank {rank}");
        }
        Ok(perm.clone())
    }
}

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        let Some(shape) = data.shape() else { return Ok(vec![Fact::unknown(data.dtype)]) };
        let permuted: Vec<usize> = self.order(shape.len())?.into_iter().map(|a| shape[a]).collect();
        Ok(vec![Fact::new(data.dtype, &permuted)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let order = self.order(data.rank())?;
        let shape: Vec<usize> = order.iter().map(|&a| data.shape()[a]).collect();
        let dense = Walk::dense(data.shape());
        let from = Walk { start: 0, steps: order.iter().map(|&a| dense.steps[a]).collect() };
        let mut out = Tensor::zeros(data.dtype(), &shape)?;
        let to = Walk::dense(&shape);
        layout::copy(&shape, data.dtype().size(), data.bytes(), &from, out.bytes_mut(), &to);
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        match &self.perm {
            None => Attributes::new(),
            Some(perm) => Attributes::new().with("perm", perm.iter().map(|&a| a as i64).collect::<Vec<_>>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, node, run};
    use super::*;

    #[test]
    fn permutes() {
        let x = counting(&[2, 3]);
        let wanted = Tensor::new(&[3, 2], &[0f32, 3., 1., 4., 2., 5.]).unwrap();
        assert_eq!(run(Transpose { perm: None }, &[&x]).unwrap(), wanted);
        let to_channels_last = Transpose { perm: Some(vec![0, 2, 3, 1]) };
        let y = run(to_channels_last, &[&counting(&[1, 2, 2, 2])]).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap(), [0., 4., 1., 5., 2., 6., 3., 7.]);
        assert_eq!(run(Transpose { perm: None }, &[&counting(&[])]).unwrap(), counting(&[]));
        assert_eq!(run(Transpose { perm: None }, &[&counting(&[0, 3])]).unwrap().shape(), [3, 0]);
    }

    #[test]
    fn refuses_what_is_no_permutation() {
        for perm in [vec![0], vec![0, 0], vec![0, 2], vec![0, 1, 2]] {
            assert!(run(Transpose { perm: Some(perm) }, &[&counting(&[2, 3])]).is_err());
        }
        let negative = Attributes::new().with("perm", vec![-1i64, 0]);
        assert!(Transpose::read(&mut node("Transpose", 13, 1, negative)).is_err());
    }
}
