//! IsNaN and IsInf: what sort of float each element is.

use super::elementwise::{FLOATS, shaped_like, typed_fact};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Which floats are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Classify {
    /// NaN.
    IsNaN,
    /// Infinities.
    IsInf {
        /// Whether negative infinity counts.
        detect_negative: bool,
        /// Whether positive infinity counts.
        detect_positive: bool,
    },
}

impl Classify {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(if node.op_type == "IsNaN" {
            Classify::IsNaN
        } else {
            Classify::IsInf {
                detect_negative: node.attributes.flag("detect_negative", true)?,
                detect_positive: node.attributes.flag("detect_positive", true)?,
            }
        }))
    }
    /// Whether `x` is one of them.
    pub fn holds(self, x: f64) -> bool {
        match self {
            Classify::IsNaN => x.is_nan(),
            Classify::IsInf { detect_negative, detect_positive } => {
                (detect_negative && x == f64::NEG_INFINITY) || (detect_positive && x == f64::INFINITY)
            }
        }
    }
}

impl Operator for Classify {
    fn name(&self) -> &'static str {
        match self {
            Classify::IsNaN => "IsNaN",
            Classify::IsInf { .. } => "IsInf",
        }
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        Ok(vec![shaped_like(DType::Bool, typed_fact(inputs, 0, "the input", FLOATS)?)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let held: Vec<bool> = x.to_f64s().into_iter().map(|v| self.holds(v)).collect();
        Ok(vec![Tensor::from_bools(x.shape(), &held)?])
    }
    fn attributes(&self) -> Attributes {
        match *self {
            Classify::IsNaN => Attributes::new(),
            Classify::IsInf { detect_negative, detect_positive } => Attributes::new()
                .with("detect_negative", detect_negative)
                .with("detect_positive", detect_positive),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{eval, floats, read, refusal};

    #[test]
    fn tells_floats_apart() {
        let x = floats(&[4], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.]);
        let inf = |negative: bool, positive: bool| {
            let a = Attributes::new().with("detect_negative", negative).with("detect_positive", positive);
            read("IsInf", 20, a).unwrap()
        };
        let asked = |op: &dyn Operator| eval(op, &[&x]).as_bools().unwrap().to_vec();
        assert_eq!(asked(&Classify::IsNaN), [1, 0, 0, 0]);
        assert_eq!(asked(read("IsInf", 10, Attributes::new()).unwrap().as_ref()), [0, 1, 1, 0]);
        assert_eq!(asked(inf(true, false).as_ref()), [0, 0, 1, 0]);
        assert_eq!(asked(inf(false, true).as_ref()), [0, 1, 0, 0]);
        assert_eq!(asked(inf(false, false).as_ref()), [0, 0, 0, 0]);
        assert!(refusal(&Classify::IsNaN, &[Fact::new(DType::I32, &[])]).contains("i32"));
    }
}
