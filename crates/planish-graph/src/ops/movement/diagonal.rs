//! EyeLike and Trilu: matrices by where their diagonals are.

use super::inputs::integer;
use super::number::Number;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Zeros with ones on one diagonal, in the shape of the input, a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EyeLike {
    /// The element type; the input's where there is none.
    pub dtype: Option<DType>,
    /// Which diagonal: 0 is the main one, positive ones lie above it.
    pub k: i64,
}

/// The upper or lower triangle of each matrix in the last two axes, the rest zero. The second input says from which
/// diagonal on (0 if left out).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trilu {
    /// The upper triangle, or the lower one.
    pub upper: bool,
}

impl EyeLike {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let dtype = node.attributes.opt_int("dtype")?.map(DType::from_onnx_code).transpose()?;
        Ok(Arc::new(EyeLike { dtype, k: node.attributes.int("k", 0)? }))
    }
}

impl Operator for EyeLike {
    fn name(&self) -> &'static str {
        "EyeLike"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let like = required_fact(inputs, 0)?;
        if like.shape().is_some_and(|s| s.len() != 2) {
            invalid!("the input has shape {:?}, a matrix is expected", like.shape());
        }
        Ok(vec![Fact { dtype: self.dtype.unwrap_or(like.dtype), shape: like.shape.clone(), value: None }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let like = required(inputs, 0)?;
        let &[rows, columns] = like.shape() else { invalid!("the input is no matrix") };
        let dtype = self.dtype.unwrap_or(like.dtype());
        let mut out = Tensor::zeros(dtype, like.shape())?;
        if out.is_empty() {
            return Ok(vec![out]);
        }
        for row in 0..rows {
            let column = usize::try_from(row as i128 + i128::from(self.k)).unwrap_or(usize::MAX);
            if column < columns {
                let place = (row * columns + column) * dtype.size();
                Number::Int(1).write(dtype, &mut out.bytes_mut()[place..][..dtype.size()]);
            }
        }
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        let written = Attributes::new().with("k", self.k);
        match self.dtype {
            Some(dtype) => written.with("dtype", dtype.onnx_code()),
            None => written,
        }
    }
}

impl Trilu {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Trilu { upper: node.attributes.flag("upper", true)? }))
    }
}

impl Operator for Trilu {
    fn name(&self) -> &'static str {
        "Trilu"
    }
    fn arity(&self) -> Arity {
        Arity::range(1, 2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        if data.shape().is_some_and(|s| s.len() < 2) {
            invalid!("the input has shape {:?}, matrices are expected", data.shape());
        }
        if let Some(k) = optional_fact(inputs, 1) {
            integer(k, "k")?;
        }
        Ok(vec![Fact { value: None, ..data.clone() }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let k = match optional(inputs, 1) {
            None => 0,
            Some(k) => integer(&Fact::constant(k), "k")?.unwrap_or(0),
        };
        let mut out = Tensor::zeros(data.dtype(), data.shape())?;
        if out.is_empty() {
            return Ok(vec![out]);
        }
        let &[.., rows, columns] = data.shape() else { invalid!("the input holds no matrices") };
        let size = data.dtype().size();
        let both =
            out.bytes_mut().chunks_exact_mut(columns * size).zip(data.bytes().chunks_exact(columns * size));
        for (i, (target, source)) in both.enumerate() {
            // The column of the diagonal in this row; the lower triangle keeps it too.
            let diagonal = (i % rows) as i128 + i128::from(k) + i128::from(!self.upper);
            let column = diagonal.clamp(0, columns as i128) as usize * size;
            let kept = if self.upper { column..columns * size } else { 0..column };
            target[kept.clone()].copy_from_slice(&source[kept]);
        }
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("upper", self.upper)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, run};
    use super::*;

    #[test]
    fn ones_on_a_diagonal() {
        let like = counting(&[2, 3]);
        let eye = |k| run(EyeLike { dtype: Some(DType::I32), k }, &[&like]).unwrap().to_i64s().unwrap();
        assert_eq!(eye(0), [1, 0, 0, 0, 1, 0]);
        assert_eq!(eye(2), [0, 0, 1, 0, 0, 0]);
        assert_eq!(eye(-1), [0, 0, 0, 1, 0, 0]);
        assert_eq!((eye(i64::MIN), eye(i64::MAX)), (vec![0; 6], vec![0; 6]));
        let same = EyeLike { dtype: None, k: 0 };
        assert_eq!(run(same, &[&counting(&[1, 1])]).unwrap().to_f32s(), [1.]);
        assert!(run(same, &[&counting(&[0, 3])]).unwrap().is_empty());
        assert!(run(same, &[&counting(&[3])]).is_err());
    }

    #[test]
    fn keeps_a_triangle() {
        let x = Tensor::new(&[1, 2, 3], &[1u8, 2, 3, 4, 5, 6]).unwrap();
        let cases: [(bool, i64, [u8; 6]); 6] = [
            (true, 0, [1, 2, 3, 0, 5, 6]),
            (true, 2, [0, 0, 3, 0, 0, 0]),
            (true, i64::MIN, [1, 2, 3, 4, 5, 6]),
            (false, 0, [1, 0, 0, 4, 5, 0]),
            (false, -1, [0, 0, 0, 4, 0, 0]),
            (false, i64::MAX, [1, 2, 3, 4, 5, 6]),
        ];
        for (upper, k, wanted) in cases {
            let made = run(Trilu { upper }, &[&x, &Tensor::scalar(k)]).unwrap();
            assert_eq!(made.bytes(), wanted, "{upper} {k}");
        }
        assert_eq!(run(Trilu { upper: true }, &[&x]).unwrap().bytes(), [1, 2, 3, 0, 5, 6]);
        assert!(run(Trilu { upper: true }, &[&counting(&[3, 0])]).unwrap().is_empty());
        assert!(run(Trilu { upper: true }, &[&counting(&[3])]).is_err());
        assert!(run(Trilu { upper: true }, &[&x, &ints(&[1, 2])]).is_err());
    }
}
