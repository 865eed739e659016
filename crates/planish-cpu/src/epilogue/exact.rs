//! The activations in double precision, straight from their definitions: what the tests of all kernels compare with.

use super::Activation;

/// One of each kind.
pub(crate) const ACTIVATIONS: [Activation; 21] = [
    Activation::None,
    Activation::Relu,
    Activation::Clip { min: -0.5, max: 0.75 },
    Activation::LeakyRelu { alpha: 0.1 },
    Activation::ThresholdedRelu { alpha: 0.3 },
    Activation::Shrink { bias: 0.4, lambda: 0.5 },
    Activation::Shrink { bias: -0.4, lambda: 0.5 },
    Activation::Elu { alpha: 1.5 },
    Activation::Selu { alpha: 1.673_263_2, gamma: 1.050_701 },
    Activation::Celu { alpha: 0.7 },
    Activation::Sigmoid,
    Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
    Activation::Silu,
    Activation::Swish { alpha: 1.7 },
    Activation::HardSwish,
    Activation::Tanh,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Mish,
    Activation::Softplus,
    Activation::Softsign,
];

impl Activation {
    /// Whether the function jumps, so that a small error of its argument may become a large one.
    pub(crate) fn jumps(self) -> bool {
        match self {
            Activation::ThresholdedRelu { .. } => true,
            Activation::Shrink { bias, lambda } => bias != lambda,
            _ => false,
        }
    }

    /// The function.
    pub(crate) fn exact(self, x: f64) -> f64 {
        use Activation::*;
        let f = f64::from;
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            None => x,
            Relu => x.max(0.0),
            Clip { min, max } => x.max(f(min)).min(f(max)),
            LeakyRelu { alpha } if x < 0.0 => x * f(alpha),
            Elu { alpha } if x < 0.0 => x.exp_m1() * f(alpha),
            LeakyRelu { .. } | Elu { .. } => x,
            ThresholdedRelu { alpha } if x > f(alpha) => x,
            ThresholdedRelu { .. } => 0.0,
            Shrink { bias, lambda } if x < -f(lambda) => x + f(bias),
            Shrink { bias, lambda } if x > f(lambda) => x - f(bias),
            Shrink { .. } => 0.0,
            Selu { alpha, gamma } => f(gamma) * if x > 0.0 { x } else { f(alpha) * x.exp_m1() },
            Celu { alpha } => x.max(0.0) + (f(alpha) * (x / f(alpha)).exp_m1()).min(0.0),
            Sigmoid => sigmoid(x),
            HardSigmoid { alpha, beta } => (x * f(alpha) + f(beta)).clamp(0.0, 1.0),
            Silu => x * sigmoid(x),
            Swish { alpha } => x * sigmoid(f(alpha) * x),
            HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Tanh => x.tanh(),
            Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + f(0.044_715) * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
            Mish => x * x.exp().ln_1p().tanh(),
            Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Softsign => x / (1.0 + x.abs()),
        }
    }
}

/// The error function, by its Maclaurin series where that converges fast enough to be exact.
pub(crate) fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}
