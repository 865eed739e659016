//! LpPool: each window of a channel becomes the p-norm of its elements, between mean (p = 1) and maximum (p large).
//!
//! Sermanet et al., "Convolutional neural networks applied to house numbers digit classification" (2012). Padding
//! counts as zeros, that is, not at all.

use super::checks::float_input;
use super::conv::shaped;
use super::pool::PoolWindow;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `(Σ |x|^p)^(1/p)` over each window.
#[derive(Clone, Debug, PartialEq)]
pub struct LpPool {
    /// The window.
    pub window: PoolWindow,
    /// The power, positive.
    pub p: u32,
}

/// Reads attribute `p`, which must be positive.
pub(super) fn read_power(attributes: &Attributes) -> Result<u32> {
    let p = attributes.int("p", 2)?;
    match u32::try_from(p) {
        Ok(power) if power > 0 => Ok(power),
        _ => invalid!("attribute \"p\" is {p}, where a positive number is expected"),
    }
}

/// The p-norm of some numbers.
pub(super) fn lp_norm<'a>(values: impl Iterator<Item = &'a f64>, p: u32) -> f64 {
    match p {
        1 => values.map(|v| v.abs()).sum(),
        2 => values.map(|v| v * v).sum::<f64>().sqrt(),
        _ => values.map(|v| v.abs().powf(f64::from(p))).sum::<f64>().powf(1.0 / f64::from(p)),
    }
}

impl LpPool {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let window = PoolWindow::from_attributes(&node.attributes)?;
        Ok(Arc::new(LpPool { window, p: read_power(&node.attributes)? }))
    }
}

impl Operator for LpPool {
    fn name(&self) -> &'static str {
        "LpPool"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        Ok(vec![shaped(float_input(inputs)?, self.window.infer_shape(inputs)?)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (norms, shape) = self.window.reduce(x.shape(), &x.to_f64s(), |_, _, elements, _, inside| {
            lp_norm(inside.iter().map(|&i| &elements[i]), self.p)
        })?;
        Ok(vec![Tensor::from_f64s(x.dtype(), &shape, &norms)?])
    }
    fn attributes(&self) -> Attributes {
        self.window.written().with("p", i64::from(self.p))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_norms_of_windows() {
        let x = Tensor::new(&[1, 1, 3], &[3f32, -4., 1.]).unwrap();
        let window = PoolWindow { kernel_shape: vec![2], ..PoolWindow::default() };
        let run = |p| LpPool { window: window.clone(), p }.eval(&[Some(&x)], 1).unwrap()[0].to_f64s();
        assert_eq!(run(1), [7., 5.]);
        assert_eq!(run(2)[0], 5.0);
        assert!((run(3)[0] - 91f64.cbrt()).abs() < 1e-6);
        assert!(read_power(&Attributes::new().with("p", 0)).unwrap_err().to_string().contains("\"p\""));
    }
}
