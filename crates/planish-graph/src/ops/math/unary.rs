//! Functions of one element without parameters: `y = f(x)`, one operator with a table of functions.

use super::elementwise::{BOOL, FLOATS, INTEGERS, NUMBERS, SIGNED, functions, map, shaped_like, typed_fact};
use super::special::erf;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

functions! {
    /// A function of one element.
    UnaryFunction {
        /// `|x|`; the smallest integer stays itself, as it wraps.
        Abs = "Abs",
        /// `-x`; the smallest integer stays itself, as it wraps.
        Neg = "Neg",
        /// -1, 0 or 1; NaN stays NaN.
        Sign = "Sign",
        /// The largest whole number that is not larger.
        Floor = "Floor",
        /// The smallest whole number that is not smaller.
        Ceil = "Ceil",
        /// The nearest whole number, halves to the even one.
        Round = "Round",
        /// `e^x`
        Exp = "Exp",
        /// The natural logarithm.
        Log = "Log",
        /// The square root.
        Sqrt = "Sqrt",
        /// `1/x`
        Reciprocal = "Reciprocal",
        /// Sine of radians, as are all that follow.
        Sin = "Sin",
        /// Cosine.
        Cos = "Cos",
        /// Tangent.
        Tan = "Tan",
        /// Arc sine.
        Asin = "Asin",
        /// Arc cosine.
        Acos = "Acos",
        /// Arc tangent.
        Atan = "Atan",
        /// Hyperbolic sine.
        Sinh = "Sinh",
        /// Hyperbolic cosine.
        Cosh = "Cosh",
        /// Hyperbolic tangent.
        Tanh = "Tanh",
        /// Inverse hyperbolic sine.
        Asinh = "Asinh",
        /// Inverse hyperbolic cosine.
        Acosh = "Acosh",
        /// Inverse hyperbolic tangent.
        Atanh = "Atanh",
        /// The error function.
        Erf = "Erf",
        /// `max(x, 0)`; NaN stays NaN.
        Relu = "Relu",
        /// `1 / (1 + e^-x)`
        Sigmoid = "Sigmoid",
        /// `ln(1 + e^x)`
        Softplus = "Softplus",
        /// `x / (1 + |x|)`
        Softsign = "Softsign",
        /// `x · max(0, min(1, x/6 + ½))`
        HardSwish = "HardSwish",
        /// `x · tanh(softplus(x))`
        Mish = "Mish",
        /// The other truth value.
        Not = "Not",
        /// Every bit of an integer flipped.
        BitwiseNot = "BitwiseNot",
    }
}

impl UnaryFunction {
    /// The element types that ONNX gives this function.
    pub fn types(self) -> &'static [DType] {
        use UnaryFunction::*;
        match self {
            Abs | Sign => NUMBERS,
            Neg | Relu => SIGNED,
            Not => BOOL,
            BitwiseNot => INTEGERS,
            _ => FLOATS,
        }
    }
    /// The function on floats; what is only defined on integers leaves its argument.
    pub fn float(self, x: f64) -> f64 {
        use UnaryFunction::*;
        match self {
            Abs => x.abs(),
            Neg => -x,
            Sign if x == 0.0 || x.is_nan() => x,
            Sign => x.signum(),
            Floor => x.floor(),
            Ceil => x.ceil(),
            Round => x.round_ties_even(),
            Exp => x.exp(),
            Log => x.ln(),
            Sqrt => x.sqrt(),
            Reciprocal => x.recip(),
            Sin => x.sin(),
            Cos => x.cos(),
            Tan => x.tan(),
            Asin => x.asin(),
            Acos => x.acos(),
            Atan => x.atan(),
            Sinh => x.sinh(),
            Cosh => x.cosh(),
            Tanh => x.tanh(),
            Asinh => x.asinh(),
            Acosh => x.acosh(),
            Atanh => x.atanh(),
            Erf => erf(x),
            Relu if x < 0.0 => 0.0,
            Relu => x,
            Sigmoid => sigmoid(x),
            Softplus => softplus(x),
            Softsign => x / (1.0 + x.abs()),
            HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Mish => x * softplus(x).tanh(),
            Not | BitwiseNot => x,
        }
    }
    /// The function on integers and truth values (0 and 1); what is only defined on floats leaves its argument.
    pub fn int(self, x: i128) -> i128 {
        match self {
            UnaryFunction::Abs => x.abs(),
            UnaryFunction::Neg => -x,
            UnaryFunction::Sign => x.signum(),
            UnaryFunction::Relu => x.max(0),
            UnaryFunction::Not => (x == 0) as i128,
            UnaryFunction::BitwiseNot => !x,
            _ => x,
        }
    }
}

/// The logistic function.
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `ln(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `y = function(x)`, element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unary {
    /// What is computed of each element.
    pub function: UnaryFunction,
}

impl Unary {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Unary { function: UnaryFunction::from_name(&node.op_type)? }))
    }
}

impl Operator for Unary {
    fn name(&self) -> &'static str {
        self.function.name()
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
        Ok(vec![map(x, |v| self.function.float(v), |v| self.function.int(v))?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{eval, refusal};

    #[test]
    fn functions_on_floats() {
        use UnaryFunction::*;
        let inf = f64::INFINITY;
        let table = [
            (Abs, -2.5, 2.5),
            (Neg, 2.0, -2.0),
            (Sign, -0.1, -1.0),
            (Sign, 0.0, 0.0),
            (Floor, -1.5, -2.0),
            (Ceil, -1.5, -1.0),
            (Round, 2.5, 2.0),
            (Round, -1.5, -2.0),
            (Round, 0.9, 1.0),
            (Exp, 1.0, std::f64::consts::E),
            (Log, 0.0, -inf),
            (Sqrt, 2.25, 1.5),
            (Reciprocal, 0.0, inf),
            (Tan, 1.0, 1.5574077246549023),
            (Atanh, 0.5, 0.5493061443340548),
            (Acosh, 1.0, 0.0),
            (Asinh, 1.0, 0.881373587019543),
            (Erf, 0.5, 0.5204998778130465),
            (Relu, -3.0, 0.0),
            (Sigmoid, -800.0, 0.0),
            (Sigmoid, 0.0, 0.5),
            (Softplus, 1000.0, 1000.0),
            (Softplus, 0.0, std::f64::consts::LN_2),
            (Softsign, -1.0, -0.5),
            (HardSwish, 1.0, 2.0 / 3.0),
            (HardSwish, -4.0, 0.0),
            (Mish, 1.0, 0.8650983882673103),
        ];
        for (function, x, y) in table {
            let got = function.float(x);
            assert!(got == y || (got - y).abs() <= 4e-16 * y.abs(), "{}({x}) = {got}", function.name());
        }
        for function in [Sign, Relu, Round, Sigmoid, Softplus, HardSwish, Erf] {
            assert!(function.float(f64::NAN).is_nan(), "{}", function.name());
        }
    }

    #[test]
    fn functions_on_integers_wrap() {
        let op = |function| Unary { function };
        let x = Tensor::new(&[3], &[-128i8, -1, 5]).unwrap();
        let got = |f| eval(&op(f), &[&x]).to_i64s().unwrap();
        assert_eq!(got(UnaryFunction::Abs), [-128, 1, 5]);
        assert_eq!(got(UnaryFunction::Neg), [-128, 1, -5]);
        assert_eq!(got(UnaryFunction::Sign), [-1, -1, 1]);
        assert_eq!(got(UnaryFunction::Relu), [0, 0, 5]);
        assert_eq!(got(UnaryFunction::BitwiseNot), [127, 0, -6]);
        let bits = Tensor::new(&[], &[0xF0u8]).unwrap();
        assert_eq!(eval(&op(UnaryFunction::BitwiseNot), &[&bits]).to_i64s().unwrap(), [0x0F]);
        let truth = Tensor::from_bools(&[2], &[true, false]).unwrap();
        assert_eq!(eval(&op(UnaryFunction::Not), &[&truth]).as_bools().unwrap(), [0, 1]);
    }

    #[test]
    fn every_function_keeps_shapes_of_every_type() {
        for &function in UnaryFunction::ALL {
            for &dtype in function.types() {
                for shape in [&[][..], &[0, 3], &[2, 1]] {
                    let x = Tensor::zeros(dtype, shape).unwrap();
                    let y = eval(&Unary { function }, &[&x]);
                    assert_eq!((y.dtype(), y.shape()), (dtype, shape), "{}", function.name());
                }
            }
        }
        let unsigned = Fact::new(DType::U8, &[1]);
        assert!(refusal(&Unary { function: UnaryFunction::Neg }, &[unsigned]).contains("u8"));
    }
}
