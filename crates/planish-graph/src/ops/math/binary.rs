//! Functions of two elements of one type that make an element of that type: arithmetic, remainders, shifts, bits and
//! logic. `y = f(a, b)` with NumPy's broadcasting.

use super::elementwise::{
    BOOL, INTEGERS, NUMBERS, Pair, broadcast_fact, expect_same_type, functions, pair, typed_fact, zip,
};
use crate::attributes::{Attribute, Attributes};
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{DType, Numbers, Tensor, index};
use std::sync::Arc;

functions! {
    /// A function of two elements of one type.
    BinaryFunction {
        /// `a + b`
        Add = "Add",
        /// `a - b`
        Sub = "Sub",
        /// `a · b`
        Mul = "Mul",
        /// `a / b`; integers truncate, and an integer divided by 0 is 0.
        Div = "Div",
        /// `a - floor(a/b) · b`, with the sign of `b` (`fmod = 0`); an integer modulo 0 is 0.
        Mod = "Mod",
        /// `a - trunc(a/b) · b`, with the sign of `a` (`fmod = 1`); an integer modulo 0 is 0.
        Remainder = "Mod",
        /// Bits moved to the left; shifts outside the type's width leave 0.
        ShiftLeft = "BitShift",
        /// Bits moved to the right, keeping the sign; shifts outside the type's width leave only the sign.
        ShiftRight = "BitShift",
        /// Bits set in both.
        BitwiseAnd = "BitwiseAnd",
        /// Bits set in either.
        BitwiseOr = "BitwiseOr",
        /// Bits set in one.
        BitwiseXor = "BitwiseXor",
        /// Both are true.
        And = "And",
        /// Either is true.
        Or = "Or",
        /// One is true.
        Xor = "Xor",
    }
}

impl BinaryFunction {
    /// The element types that ONNX gives this function.
    pub fn types(self) -> &'static [DType] {
        use BinaryFunction::*;
        match self {
            Add | Sub | Mul | Div | Mod | Remainder => NUMBERS,
            ShiftLeft | ShiftRight | BitwiseAnd | BitwiseOr | BitwiseXor => INTEGERS,
            And | Or | Xor => BOOL,
        }
    }
    /// The function on floats; what is only defined on integers gives `a`.
    pub fn float(self, a: f64, b: f64) -> f64 {
        match self {
            BinaryFunction::Add => a + b,
            BinaryFunction::Sub => a - b,
            BinaryFunction::Mul => a * b,
            BinaryFunction::Div => a / b,
            BinaryFunction::Mod => floored_modulo(a, b),
            BinaryFunction::Remainder => a % b,
            _ => a,
        }
    }
    /// The function on integers of `dtype` and truth values (0 and 1). Results wrap when they are stored.
    pub fn int(self, a: i128, b: i128, dtype: DType) -> i128 {
        use BinaryFunction::*;
        let width = 8 * dtype.size() as i128;
        match self {
            Add => a + b,
            Sub => a - b,
            Mul => a.wrapping_mul(b),
            Div | Mod | Remainder if b == 0 => 0,
            Div => a / b,
            Mod if a % b != 0 && (a < 0) != (b < 0) => a % b + b,
            Mod | Remainder => a % b,
            ShiftLeft if (0..width).contains(&b) => a << b,
            ShiftLeft => 0,
            ShiftRight if (0..width).contains(&b) => a >> b,
            ShiftRight => a >> 127,
            BitwiseAnd | And => a & b,
            BitwiseOr | Or => a | b,
            BitwiseXor | Xor => a ^ b,
        }
    }
}

/// `a` modulo `b` with the sign of `b`, also for zeros and infinities.
fn floored_modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        0f64.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}

/// `y = function(a, b)`, element by element, with broadcasting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Binary {
    /// What is computed of each pair.
    pub function: BinaryFunction,
}

impl Binary {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let function = match BinaryFunction::from_name(&node.op_type)? {
            BinaryFunction::Mod if node.attributes.flag("fmod", false)? => BinaryFunction::Remainder,
            BinaryFunction::ShiftLeft => {
                let found = Attributes::require("direction", node.attributes.opt_string("direction")?)?;
                match found.as_str() {
                    "LEFT" => BinaryFunction::ShiftLeft,
                    "RIGHT" => BinaryFunction::ShiftRight,
                    other => invalid!("attribute \"direction\" is \"{other}\", not \"LEFT\" or \"RIGHT\""),
                }
            }
            function => function,
        };
        Ok(Arc::new(Binary { function }))
    }
}

impl Operator for Binary {
    fn name(&self) -> &'static str {
        self.function.name()
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let a = typed_fact(inputs, 0, "input A", self.function.types())?;
        let b = typed_fact(inputs, 1, "input B", self.function.types())?;
        expect_same_type(a, b)?;
        Ok(vec![broadcast_fact(a.dtype, &[a, b])?])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        let shape = index::broadcast(&[a.shape(), b.shape()])?;
        let f = self.function;
        let numbers = match pair(a, b)? {
            Pair::Float(x, y) => {
                Numbers::Float(zip(&shape, (a.shape(), &x), (b.shape(), &y), |x, y| f.float(x, y))?)
            }
            Pair::Int(x, y) => {
                Numbers::Int(zip(&shape, (a.shape(), &x), (b.shape(), &y), |x, y| f.int(x, y, a.dtype()))?)
            }
        };
        Ok(vec![Tensor::from_numbers(a.dtype(), &shape, &numbers)?])
    }
    fn attributes(&self) -> Attributes {
        let (name, value): (&str, Attribute) = match self.function {
            BinaryFunction::Mod => ("fmod", false.into()),
            BinaryFunction::Remainder => ("fmod", true.into()),
            BinaryFunction::ShiftLeft => ("direction", "LEFT".into()),
            BinaryFunction::ShiftRight => ("direction", "RIGHT".into()),
            _ => return Attributes::new(),
        };
        Attributes::new().with(name, value)
    }
}

#[cfg(test)]
mod tests {
    use super::BinaryFunction::*;
    use super::*;
    use crate::ops::math::testing::{counting, eval, floats, read, refusal};

    #[test]
    fn broadcasts_floats() {
        let (a, b) = (counting(&[2, 1]), floats(&[3], &[1., 2., 4.]));
        for (function, expected) in [
            (Add, [1., 2., 4., 2., 3., 5.]),
            (Sub, [-1., -2., -4., 0., -1., -3.]),
            (Mul, [0., 0., 0., 1., 2., 4.]),
            (Div, [0., 0., 0., 1., 0.5, 0.25]),
        ] {
            assert_eq!(eval(&Binary { function }, &[&a, &b]), floats(&[2, 3], &expected), "{function:?}");
        }
        let empty = Tensor::zeros(DType::F32, &[0, 1]).unwrap();
        assert_eq!(eval(&Binary { function: Add }, &[&empty, &b]).shape(), [0, 3]);
    }

    #[test]
    fn integers_are_exact_and_wrap() {
        for (function, a, b, expected) in [
            (Add, 127i8, 1i8, -128),
            (Mul, 100, 100, 16),
            (Div, -7, 2, -3),
            (Div, -128, -1, -128),
            (Div, 3, 0, 0),
            (Mod, -7, 3, 2),
            (Mod, 7, -3, -2),
            (Mod, -6, 3, 0),
            (Mod, 5, 0, 0),
            (Remainder, -7, 3, -1),
            (Remainder, 7, -3, 1),
            (ShiftLeft, 96, 1, -64),
            (ShiftLeft, 1, 8, 0),
            (ShiftLeft, 1, -1, 0),
            (ShiftRight, -3, 1, -2),
            (ShiftRight, -3, 99, -1),
            (ShiftRight, 3, -1, 0),
            (BitwiseAnd, -2, 7, 6),
            (BitwiseOr, 1, 6, 7),
            (BitwiseXor, 3, 6, 5),
        ] {
            let got = eval(&Binary { function }, &[&Tensor::scalar(a), &Tensor::scalar(b)]);
            assert_eq!(got, Tensor::scalar(expected as i8), "{function:?}({a}, {b})");
        }
        let big = Tensor::scalar(u64::MAX);
        assert_eq!(eval(&Binary { function: Mul }, &[&big, &big]), Tensor::scalar(1u64));
        let shift = Tensor::scalar(63u64);
        assert_eq!(eval(&Binary { function: ShiftLeft }, &[&big, &shift]), Tensor::scalar(1u64 << 63));
        assert_eq!(eval(&Binary { function: ShiftRight }, &[&big, &shift]), Tensor::scalar(1u64));
    }

    #[test]
    fn float_remainders_keep_their_signs() {
        let inf = f64::INFINITY;
        for (function, a, b, expected) in [
            (Mod, -4.3, 2.0, 1.7000000000000002),
            (Mod, 4.3, -2.0, -1.7000000000000002),
            (Mod, 0.0, -2.0, -0.0),
            (Mod, -1.0, inf, inf),
            (Mod, 1.0, inf, 1.0),
            (Remainder, -4.5, 2.0, -0.5),
            (Remainder, 1.0, -inf, 1.0),
        ] {
            let got = function.float(a, b);
            assert!(
                got == expected && got.is_sign_negative() == expected.is_sign_negative(),
                "{a} {b}: {got}"
            );
        }
        assert!(Mod.float(1.0, 0.0).is_nan() && Mod.float(inf, 2.0).is_nan());
    }

    #[test]
    fn logic() {
        let a = Tensor::from_bools(&[2, 1], &[false, true]).unwrap();
        let b = Tensor::from_bools(&[2], &[false, true]).unwrap();
        for (function, expected) in [(And, [0, 0, 0, 1]), (Or, [0, 1, 1, 1]), (Xor, [0, 1, 1, 0])] {
            assert_eq!(eval(&Binary { function }, &[&a, &b]).as_bools().unwrap(), expected);
        }
    }

    #[test]
    fn reads_and_writes_every_function() {
        for &function in BinaryFunction::ALL {
            let op = Binary { function };
            let again = read(op.name(), 21, op.attributes()).unwrap();
            assert_eq!(format!("{again:?}"), format!("{op:?}"));
        }
        let wrong = Attributes::new().with("direction", "UP");
        assert!(read("BitShift", 11, wrong).unwrap_err().to_string().contains("\"direction\""));
        assert!(read("BitShift", 11, Attributes::new()).is_err());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let fact = |dtype, shape: &[usize]| Fact::new(dtype, shape);
        let add = Binary { function: Add };
        assert!(refusal(&add, &[fact(DType::F32, &[2]), fact(DType::F32, &[3])]).contains("broadcast"));
        assert!(refusal(&add, &[fact(DType::F32, &[]), fact(DType::F64, &[])]).contains("different types"));
        assert!(refusal(&add, &[fact(DType::Bool, &[]), fact(DType::Bool, &[])]).contains("bool"));
        let and = Binary { function: And };
        assert!(refusal(&and, &[fact(DType::U8, &[]), fact(DType::U8, &[])]).contains("u8"));
    }
}
