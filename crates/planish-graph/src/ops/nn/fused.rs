//! ConvAdd: a convolution with what follows it, computed while the sums are still in registers.
//!
//! Not an ONNX operator (domain "planish"): passes make it from Conv, Add and an activation. Its meaning is theirs, in one
//! step and rounded once.

use super::checks::{expect_shape, float_input, same_type};
use super::conv::{Conv, shaped};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::math::special::erfc;
use crate::ops::{Arity, NodeReader, Operator, optional, required};
use crate::tensor::Tensor;
use std::sync::Arc;

/// What is done to every element behind a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FusedActivation {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, min), max)`.
    Clip {
        /// Lower bound.
        min: f32,
        /// Upper bound, which wins where the two cross.
        max: f32,
    },
    /// `x` where positive, else `alpha x`.
    LeakyRelu {
        /// The slope of the negative side.
        alpha: f32,
    },
    /// `x * max(0, min(1, x / 6 + 1/2))`.
    HardSwish,
    /// `x * sigmoid(x)`.
    Silu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `max(0, min(1, alpha x + beta))`.
    HardSigmoid {
        /// The slope.
        alpha: f32,
        /// The value at 0.
        beta: f32,
    },
    /// The hyperbolic tangent.
    Tanh,
    /// `x / 2 * (1 + erf(x / √2))`.
    Gelu,
    /// `x` where positive, else `alpha (e^x - 1)`.
    Elu {
        /// The depth of the negative side.
        alpha: f32,
    },
    /// `x * tanh(ln(1 + e^x))`.
    Mish,
}

impl FusedActivation {
    /// The name that the attribute `activation` holds.
    pub fn name(self) -> &'static str {
        match self {
            FusedActivation::None => "None",
            FusedActivation::Relu => "Relu",
            FusedActivation::Clip { .. } => "Clip",
            FusedActivation::LeakyRelu { .. } => "LeakyRelu",
            FusedActivation::HardSwish => "HardSwish",
            FusedActivation::Silu => "Silu",
            FusedActivation::Sigmoid => "Sigmoid",
            FusedActivation::HardSigmoid { .. } => "HardSigmoid",
            FusedActivation::Tanh => "Tanh",
            FusedActivation::Gelu => "Gelu",
            FusedActivation::Elu { .. } => "Elu",
            FusedActivation::Mish => "Mish",
        }
    }
    /// The function. NaN stays NaN.
    pub fn apply(self, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let clip = |x: f64, min: f64, max: f64| {
            let raised = if x < min { min } else { x };
            if raised > max { max } else { raised }
        };
        match self {
            FusedActivation::None => x,
            FusedActivation::Relu => clip(x, 0.0, f64::INFINITY),
            FusedActivation::Clip { min, max } => clip(x, min.into(), max.into()),
            FusedActivation::LeakyRelu { alpha } if x < 0.0 => f64::from(alpha) * x,
            FusedActivation::HardSwish => x * clip(x / 6.0 + 0.5, 0.0, 1.0),
            FusedActivation::Silu => x * sigmoid(x),
            FusedActivation::Sigmoid => sigmoid(x),
            FusedActivation::HardSigmoid { alpha, beta } => {
                clip(f64::from(alpha) * x + f64::from(beta), 0.0, 1.0)
            }
            FusedActivation::Tanh => x.tanh(),
            FusedActivation::Gelu => 0.5 * x * erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
            FusedActivation::Elu { alpha } if x < 0.0 => f64::from(alpha) * x.exp_m1(),
            FusedActivation::LeakyRelu { .. } | FusedActivation::Elu { .. } => x,
            // Beyond 20, ln(1 + e^x) is x to the last bit that tanh can tell.
            FusedActivation::Mish if x > 20.0 => x,
            FusedActivation::Mish => x * x.exp().ln_1p().tanh(),
        }
    }
    /// Reads the attributes that [`Self::write`] writes.
    pub fn read(attributes: &Attributes) -> Result<FusedActivation> {
        let number = |name: &str| Attributes::require(name, attributes.opt_float(name)?);
        Ok(match attributes.string("activation", "None")?.as_str() {
            "None" => FusedActivation::None,
            "Relu" => FusedActivation::Relu,
            "Clip" => FusedActivation::Clip { min: number("min")?, max: number("max")? },
            "LeakyRelu" => FusedActivation::LeakyRelu { alpha: number("alpha")? },
            "HardSwish" => FusedActivation::HardSwish,
            "Silu" => FusedActivation::Silu,
            "Sigmoid" => FusedActivation::Sigmoid,
            "HardSigmoid" => FusedActivation::HardSigmoid { alpha: number("alpha")?, beta: number("beta")? },
            "Tanh" => FusedActivation::Tanh,
            "Gelu" => FusedActivation::Gelu,
            "Elu" => FusedActivation::Elu { alpha: number("alpha")? },
            "Mish" => FusedActivation::Mish,
            other => invalid!("attribute \"activation\" is unknown: \"{other}\""),
        })
    }
    /// `attributes` with the function's name and parameters.
    #[must_use]
    pub fn write(self, attributes: Attributes) -> Attributes {
        let attributes = match self {
            FusedActivation::None => return attributes,
            FusedActivation::Clip { min, max } => attributes.with("min", min).with("max", max),
            FusedActivation::LeakyRelu { alpha } | FusedActivation::Elu { alpha } => {
                attributes.with("alpha", alpha)
            }
            FusedActivation::HardSigmoid { alpha, beta } => {
                attributes.with("alpha", alpha).with("beta", beta)
            }
            _ => attributes,
        };
        attributes.with("activation", self.name())
    }
}

/// `activation(conv(X, W) + bias + residual)`. Inputs: X, W, bias (optional), residual (optional, of the output's shape).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConvAdd {
    /// The convolution.
    pub conv: Conv,
    /// What is done to every sum.
    pub activation: FusedActivation,
}

impl ConvAdd {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let conv = Conv::from_attributes(&node.attributes)?;
        Ok(Arc::new(ConvAdd { conv, activation: FusedActivation::read(&node.attributes)? }))
    }
}

impl Operator for ConvAdd {
    fn name(&self) -> &'static str {
        "ConvAdd"
    }
    fn domain(&self) -> &'static str {
        "planish"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 4)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let dtype = float_input(inputs)?;
        for index in [1, 2, 3] {
            same_type(inputs, index, dtype)?;
        }
        let shape = self.conv.infer_shape(inputs, 1, Some(2))?;
        if let Some(shape) = &shape {
            expect_shape(inputs, 3, shape)?;
        }
        Ok(vec![shaped(dtype, shape)])
    }
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        self.conv.count(inputs, 1)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (mut sums, shape) = self.conv.sums(inputs)?;
        if let Some(residual) = optional(inputs, 3) {
            sums.iter_mut().zip(residual.to_f64s()).for_each(|(sum, r)| *sum += r);
        }
        sums.iter_mut().for_each(|v| *v = self.activation.apply(*v));
        Ok(vec![Tensor::from_f64s(required(inputs, 0)?.dtype(), &shape, &sums)?])
    }
    fn attributes(&self) -> Attributes {
        self.activation.write(self.conv.written())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    const ALL: [FusedActivation; 12] = [
        FusedActivation::None,
        FusedActivation::Relu,
        FusedActivation::Clip { min: -0.5, max: 0.5 },
        FusedActivation::LeakyRelu { alpha: 0.1 },
        FusedActivation::HardSwish,
        FusedActivation::Silu,
        FusedActivation::Sigmoid,
        FusedActivation::HardSigmoid { alpha: 0.2, beta: 0.5 },
        FusedActivation::Tanh,
        FusedActivation::Gelu,
        FusedActivation::Elu { alpha: 2.0 },
        FusedActivation::Mish,
    ];

    #[test]
    fn activations_are_what_torch_computes() {
        let wanted = [
            (-1., 1.),
            (0., 1.),
            (-0.5, 0.5),
            (-0.1, 1.),
            (-1. / 3., 2. / 3.),
            (-0.26894143, 0.7310586),
            (0.26894143, 0.7310586),
            (0.3, 0.7),
            (-0.7615942, 0.7615942),
            (-0.15865526, 0.8413447),
            (-1.2642411, 1.),
            (-0.30340147, 0.86509836),
        ];
        for (activation, (below, above)) in ALL.into_iter().zip(wanted) {
            let name = activation.name();
            assert!((activation.apply(-1.0) - below).abs() < 1e-6, "{name}");
            assert!((activation.apply(1.0) - above).abs() < 1e-6, "{name}");
            assert!(activation.apply(f64::NAN).is_nan(), "{name}");
            assert_eq!(FusedActivation::read(&activation.write(Attributes::new())).unwrap(), activation);
        }
        assert_eq!(FusedActivation::Mish.apply(1000.0), 1000.0);
        let bad = Attributes::new().with("activation", "Clip");
        assert!(FusedActivation::read(&bad).unwrap_err().to_string().contains("min"));
    }

    #[test]
    fn adds_before_it_activates() {
        let x = Tensor::new(&[1, 1, 2], &[1f32, -3.]).unwrap();
        let w = Tensor::new(&[1, 1, 1], &[2f32]).unwrap();
        let residual = Tensor::new(&[1, 1, 2], &[-3f32, 7.]).unwrap();
        let op = ConvAdd { conv: Conv::default(), activation: FusedActivation::Relu };
        let given = [Some(&x), Some(&w), None, Some(&residual)];
        assert_eq!(op.eval(&given, 1).unwrap()[0].to_f64s(), [0., 1.]);
        let facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(op.infer(&facts, 1).unwrap(), [Fact::new(DType::F32, &[1, 1, 2])]);
        let mut wrong = facts.to_vec();
        wrong[3] = Some(Fact::new(DType::F32, &[1, 1, 1]));
        assert!(op.infer(&wrong, 1).is_err());
    }
}
