//! Loops with a function inside them.
//!
//! Which activation to compute is known when a kernel starts, and a match inside its loop would be taken for every
//! vector. So whoever has a loop hands it over as a [`Visit`], and gets it run with the function as a type.

use super::Activation;
use crate::simd::Simd;

/// A function of every lane. A trait and no closure, because only a method can be marked to be inlined always: a closure
/// as long as an exponential would be left as a function of its own, compiled for the baseline machine.
pub(crate) trait Map: Copy {
    /// The function. Implementations are `#[inline(always)]`.
    fn map<S: Simd>(self, s: S, x: S::F32) -> S::F32;
}

/// A loop around a function.
pub(crate) trait Visit {
    /// Runs the loop. Implementations are `#[inline(always)]`, and [`Simd::call`] what they want compiled once.
    fn visit<S: Simd>(self, s: S, map: impl Map);
}

/// Runs a loop with an expression of `$x` inside.
macro_rules! visit_expression {
    ($visit:expr, $simd:ident, $x:ident, $name:ident { $($parameter:ident),* }, $body:expr) => {{
        #[derive(Clone, Copy)]
        struct $name {
            $($parameter: f32),*
        }

        impl $crate::epilogue::Map for $name {
            #[inline(always)]
            fn map<S: Simd>(self, $simd: S, $x: S::F32) -> S::F32 {
                let Self { $($parameter),* } = self;
                $body
            }
        }

        $visit.visit($simd, $name { $($parameter),* })
    }};
}
pub(crate) use visit_expression;

impl Activation {
    /// Runs the loop with this function inside.
    #[inline(always)]
    pub(crate) fn visit<S: Simd>(self, s: S, visit: impl Visit) {
        macro_rules! loops {
            ($($name:ident $({ $($parameter:ident),+ })?),*) => {
                match self {
                    $(Activation::$name $({ $($parameter),+ })? => visit_expression!(
                        visit, s, x, $name { $($($parameter),+)? },
                        Activation::$name $({ $($parameter),+ })?.apply(s, x)
                    ),)*
                }
            };
        }
        loops!(
            None,
            Relu,
            Clip { min, max },
            LeakyRelu { alpha },
            ThresholdedRelu { alpha },
            Shrink { bias, lambda },
            Elu { alpha },
            Selu { alpha, gamma },
            Celu { alpha },
            Sigmoid,
            HardSigmoid { alpha, beta },
            Silu,
            Swish { alpha },
            HardSwish,
            Tanh,
            Gelu,
            GeluTanh,
            Mish,
            Softplus,
            Softsign
        );
    }
}
