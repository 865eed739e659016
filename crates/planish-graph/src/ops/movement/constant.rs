//! Constant and ConstantOfShape: values that the file holds.

use super::inputs::extents;
use super::layout;
use crate::attributes::{Attribute, Attributes};
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use crate::{invalid, unsupported};
use std::sync::Arc;

/// A value given as a node. Readers of files turn such nodes into constants of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// The value.
    pub value: Tensor,
}

impl Constant {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let mut found = Vec::new();
        for (name, attribute) in &node.attributes.0 {
            found.push(match (name.as_str(), attribute) {
                ("value", Attribute::Tensor(tensor)) => tensor.clone(),
                ("value_int", Attribute::Int(x)) => Tensor::scalar(*x),
                ("value_float", Attribute::Float(x)) => Tensor::scalar(*x),
                ("value_ints", Attribute::Ints(v)) => Tensor::from_i64s(v)?,
                ("value_floats", Attribute::Floats(v)) => Tensor::new(&[v.len()], v)?,
                ("value_string" | "value_strings", _) => {
                    unsupported!("constants of strings are not supported")
                }
                ("sparse_value", _) => unsupported!("attribute \"sparse_value\" is not supported"),
                _ => invalid!("attribute \"{name}\" is unknown or of another type than its name says"),
            });
        }
        match found.pop() {
            Some(value) if found.is_empty() => Ok(Arc::new(Constant { value })),
            Some(_) => invalid!("has more than one value attribute"),
            None => invalid!("has no value attribute"),
        }
    }
}

impl Operator for Constant {
    fn name(&self) -> &'static str {
        "Constant"
    }
    fn arity(&self) -> Arity {
        Arity::exact(0)
    }
    fn infer(&self, _inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        Ok(vec![Fact::constant(&self.value)])
    }
    fn eval(&self, _inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![self.value.clone()])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("value", self.value.clone())
    }
}

/// One value all over the shape that the input lists.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantOfShape {
    /// The value: one element.
    pub value: Tensor,
}

impl ConstantOfShape {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let value = match node.attributes.opt_tensor("value")? {
            None => Tensor::new(&[1], &[0f32])?,
            Some(value) if value.len() == 1 => value.reshaped(&[1])?,
            Some(value) => {
                invalid!("attribute \"value\" has shape {:?}, one element is expected", value.shape())
            }
        };
        Ok(Arc::new(ConstantOfShape { value }))
    }
}

impl Operator for ConstantOfShape {
    fn name(&self) -> &'static str {
        "ConstantOfShape"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let shape = extents(required_fact(inputs, 0)?, "input")?;
        Ok(vec![Fact { dtype: self.value.dtype(), shape, value: None }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let Some(shape) = extents(&Fact::constant(required(inputs, 0)?), "input")? else {
            invalid!("the shape is not known")
        };
        let mut out = Tensor::zeros(self.value.dtype(), &shape)?;
        layout::fill(out.bytes_mut(), self.value.bytes());
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("value", self.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, node, run};
    use super::*;
    use crate::limits::{Budget, with_budget};

    fn read(attributes: Attributes) -> Result<Tensor> {
        let op = Constant::read(&mut node("Constant", 13, 0, attributes))?;
        Ok(op.eval(&[], 1)?.remove(0))
    }

    #[test]
    fn reads_every_spelling() {
        let none = Attributes::new;
        assert_eq!(read(none().with("value", counting(&[2]))).unwrap(), counting(&[2]));
        assert_eq!(read(none().with("value_int", 3i64)).unwrap(), Tensor::scalar(3i64));
        assert_eq!(read(none().with("value_float", 0.5f32)).unwrap(), Tensor::scalar(0.5f32));
        assert_eq!(read(none().with("value_ints", vec![1i64, 2])).unwrap(), ints(&[1, 2]));
        assert_eq!(read(none().with("value_floats", vec![0f32, 1.])).unwrap(), counting(&[2]));
    }

    #[test]
    fn refuses_what_is_no_one_value() {
        let text = read(Attributes::new().with("value_string", "a")).unwrap_err();
        assert_eq!(text.kind(), crate::ErrorKind::Unsupported);
        assert!(read(Attributes::new()).is_err());
        assert!(read(Attributes::new().with("value", 1i64)).is_err());
        assert!(read(Attributes::new().with("value_int", 1i64).with("value_float", 1f32)).is_err());
    }

    #[test]
    fn fills_a_shape() {
        let sevens = ConstantOfShape { value: Tensor::new(&[1], &[7i16]).unwrap() };
        let made = run(sevens.clone(), &[&ints(&[2, 1])]).unwrap();
        assert_eq!(made, Tensor::new(&[2, 1], &[7i16, 7]).unwrap());
        assert_eq!(run(sevens.clone(), &[&ints(&[])]).unwrap(), Tensor::scalar(7i16));
        assert_eq!(run(sevens.clone(), &[&ints(&[0, 4])]).unwrap().shape(), [0, 4]);
        assert!(run(sevens.clone(), &[&ints(&[-1])]).is_err());
        assert!(run(sevens.clone(), &[&ints(&[1 << 40, 1 << 40])]).is_err());
        with_budget(&Budget::new(1000), || assert!(run(sevens, &[&ints(&[1 << 30])]).is_err()));
        let two = Attributes::new().with("value", counting(&[2]));
        assert!(ConstantOfShape::read(&mut node("ConstantOfShape", 9, 1, two)).is_err());
    }
}
