//! Activation functions with parameters: `y = f(x; parameters)`, one operator with a table of functions.

use super::elementwise::{FLOATS, NUMBERS, map, shaped_like, typed_fact};
use super::special::erfc;
use super::unary::sigmoid;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{DType, Tensor};
use crate::{invalid, unsupported};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};
use std::sync::Arc;

/// A function of one element with the parameters of ONNX's attributes of the same name.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // the parameters stand in the formulas
pub enum ActivationFunction {
    /// `x` where positive, else `alpha · x`.
    LeakyRelu { alpha: f32 },
    /// `x` where positive, else `alpha (e^x - 1)`.
    Elu { alpha: f32 },
    /// `gamma ·` Elu.
    Selu { alpha: f32, gamma: f32 },
    /// `max(0, x) + min(0, alpha (e^(x/alpha) - 1))`.
    Celu { alpha: f32 },
    /// `max(0, min(1, alpha · x + beta))`.
    HardSigmoid { alpha: f32, beta: f32 },
    /// `x` where larger than `alpha`, else 0.
    ThresholdedRelu { alpha: f32 },
    /// `x + bias` below `-lambd`, `x - bias` above `lambd`, else 0. Also on integers.
    Shrink { bias: f32, lambd: f32 },
    /// `x · sigmoid(alpha · x)`; SiLU where `alpha` is 1.
    Swish { alpha: f32 },
    /// `½ x (1 + erf(x/√2))`, or its approximation by tanh (`approximate = "tanh"`).
    Gelu { tanh: bool },
}

impl ActivationFunction {
    /// The element types that ONNX gives this function.
    pub fn types(self) -> &'static [DType] {
        match self {
            ActivationFunction::Shrink { .. } => NUMBERS,
            _ => FLOATS,
        }
    }
    /// The function.
    pub fn apply(self, x: f64) -> f64 {
        use ActivationFunction::*;
        match self {
            LeakyRelu { alpha } => negative_branch(x, |x| alpha as f64 * x),
            Elu { alpha } => negative_branch(x, |x| alpha as f64 * x.exp_m1()),
            Selu { alpha, gamma } => gamma as f64 * negative_branch(x, |x| alpha as f64 * x.exp_m1()),
            Celu { alpha } => negative_branch(x, |x| alpha as f64 * (x / alpha as f64).exp_m1()),
            HardSigmoid { alpha, beta } => (alpha as f64 * x + beta as f64).clamp(0.0, 1.0),
            ThresholdedRelu { alpha } if x > alpha as f64 => x,
            ThresholdedRelu { .. } => 0.0,
            Shrink { bias, lambd } if x < -lambd as f64 => x + bias as f64,
            Shrink { bias, lambd } if x > lambd as f64 => x - bias as f64,
            Shrink { .. } => 0.0,
            Swish { alpha } => x * sigmoid(alpha as f64 * x),
            Gelu { tanh: false } => 0.5 * x * erfc(-x * FRAC_1_SQRT_2),
            Gelu { tanh: true } => 0.5 * x * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        }
    }
}

/// `x` where positive, else `f(x)`.
fn negative_branch(x: f64, f: impl Fn(f64) -> f64) -> f64 {
    if x > 0.0 { x } else { f(x) }
}

/// `y = function(x)`, element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    /// What is computed of each element.
    pub function: ActivationFunction,
}

impl Activation {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        use ActivationFunction::*;
        let a = &node.attributes;
        let function = match node.op_type.as_str() {
            "LeakyRelu" => LeakyRelu { alpha: a.float("alpha", 0.01)? },
            "Elu" => Elu { alpha: a.float("alpha", 1.0)? },
            "Selu" => Selu { alpha: a.float("alpha", 1.673_263_2)?, gamma: a.float("gamma", 1.050_701)? },
            "Celu" => Celu { alpha: a.float("alpha", 1.0)? },
            "HardSigmoid" => HardSigmoid { alpha: a.float("alpha", 0.2)?, beta: a.float("beta", 0.5)? },
            "ThresholdedRelu" => ThresholdedRelu { alpha: a.float("alpha", 1.0)? },
            "Shrink" => Shrink { bias: a.float("bias", 0.0)?, lambd: a.float("lambd", 0.5)? },
            "Swish" => Swish { alpha: a.float("alpha", 1.0)? },
            "Gelu" => match a.string("approximate", "none")?.as_str() {
                "none" => Gelu { tanh: false },
                "tanh" => Gelu { tanh: true },
                other => invalid!("attribute \"approximate\" is \"{other}\", not \"none\" or \"tanh\""),
            },
            other => unsupported!("{other} is no activation"),
        };
        Ok(Arc::new(Activation { function }))
    }
}

impl Operator for Activation {
    fn name(&self) -> &'static str {
        match self.function {
            ActivationFunction::LeakyRelu { .. } => "LeakyRelu",
            ActivationFunction::Elu { .. } => "Elu",
            ActivationFunction::Selu { .. } => "Selu",
            ActivationFunction::Celu { .. } => "Celu",
            ActivationFunction::HardSigmoid { .. } => "HardSigmoid",
            ActivationFunction::ThresholdedRelu { .. } => "ThresholdedRelu",
            ActivationFunction::Shrink { .. } => "Shrink",
            ActivationFunction::Swish { .. } => "Swish",
            ActivationFunction::Gelu { .. } => "Gelu",
        }
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = typed_fact(inputs, 0, "the input", self.function.types())?;
        Ok(vec![shaped_like(x.dtype, x)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        Ok(vec![map(x, |v| self.function.apply(v), |v| self.function.apply(v as f64) as i128)?])
    }
    fn attributes(&self) -> Attributes {
        use ActivationFunction::*;
        let a = Attributes::new();
        match self.function {
            LeakyRelu { alpha } | Elu { alpha } | Celu { alpha } => a.with("alpha", alpha),
            ThresholdedRelu { alpha } | Swish { alpha } => a.with("alpha", alpha),
            Selu { alpha, gamma } => a.with("alpha", alpha).with("gamma", gamma),
            HardSigmoid { alpha, beta } => a.with("alpha", alpha).with("beta", beta),
            Shrink { bias, lambd } => a.with("bias", bias).with("lambd", lambd),
            Gelu { tanh } => a.with("approximate", if tanh { "tanh" } else { "none" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ActivationFunction::*;
    use super::*;
    use crate::ops::math::testing::{eval, read, refusal};

    const DEFAULTS: [(&str, ActivationFunction, [f64; 3]); 9] = [
        ("LeakyRelu", LeakyRelu { alpha: 0.01 }, [-0.02, 0.5, 3.0]),
        ("Elu", Elu { alpha: 1.0 }, [-0.8646647167633873, 0.5, 3.0]),
        ("Selu", Selu { alpha: 1.673_263_2, gamma: 1.050_701 }, [-1.5201664, 0.5253505, 3.152103]),
        ("Celu", Celu { alpha: 1.0 }, [-0.8646647167633873, 0.5, 3.0]),
        ("HardSigmoid", HardSigmoid { alpha: 0.2, beta: 0.5 }, [0.1, 0.6, 1.0]),
        ("ThresholdedRelu", ThresholdedRelu { alpha: 1.0 }, [0.0, 0.0, 3.0]),
        ("Shrink", Shrink { bias: 0.0, lambd: 0.5 }, [-2.0, 0.0, 3.0]),
        ("Swish", Swish { alpha: 1.0 }, [-0.23840584404423515, 0.31122966560092726, 2.8577223804672998]),
        ("Gelu", Gelu { tanh: false }, [-0.04550026389635841, 0.34573123063700656, 2.9959503059600277]),
    ];

    #[test]
    fn defaults_and_values() {
        for (name, function, expected) in DEFAULTS {
            let op = read(name, 20, Attributes::new()).unwrap();
            let x = Tensor::new(&[3], &[-2.0f64, 0.5, 3.0]).unwrap();
            let got = eval(op.as_ref(), &[&x]).to_f64s();
            assert_eq!(op.name(), name);
            assert_eq!(format!("{op:?}"), format!("{:?}", Activation { function }));
            for (y, e) in got.iter().zip(expected) {
                assert!((y - e).abs() < 1e-7, "{name}: {got:?}");
            }
            let again = read(name, 21, op.attributes()).unwrap();
            assert_eq!(format!("{op:?}"), format!("{again:?}"));
        }
        let tanh = Gelu { tanh: true }.apply(0.5);
        assert!((tanh - 0.34571400982514394).abs() < 1e-15, "{tanh}");
        assert!(read("Gelu", 20, Attributes::new().with("approximate", "fast")).is_err());
    }

    #[test]
    fn shrinks_integers() {
        let op = Activation { function: Shrink { bias: 1.5, lambd: 1.5 } };
        let x = Tensor::new(&[5], &[-2i8, -1, 0, 1, 2]).unwrap();
        assert_eq!(eval(&op, &[&x]).to_i64s().unwrap(), [0, 0, 0, 0, 0]);
        let op = Activation { function: Shrink { bias: 1.0, lambd: 1.5 } };
        assert_eq!(eval(&op, &[&x]).to_i64s().unwrap(), [-1, 0, 0, 0, 1]);
    }

    #[test]
    fn refuses_integers_elsewhere() {
        let op = Activation { function: Elu { alpha: 1.0 } };
        assert!(refusal(&op, &[Fact::new(DType::I32, &[])]).contains("i32"));
    }
}
