//! Identity: passes its input through. Exporters leave it behind; cleaning takes it away.

use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `y = x`, for every type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Identity;

impl Identity {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Identity))
    }
}

impl Operator for Identity {
    fn name(&self) -> &'static str {
        "Identity"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        Ok(vec![crate::ops::required_fact(inputs, 0)?.clone()])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![required(inputs, 0)?.clone()])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_through() {
        let x = Tensor::new(&[2], &[1i32, 2]).unwrap();
        assert_eq!(Identity.eval(&[Some(&x)], 1).unwrap(), std::slice::from_ref(&x));
        assert_eq!(Identity.infer(&[Some(Fact::constant(&x))], 1).unwrap(), [Fact::constant(&x)]);
    }
}
