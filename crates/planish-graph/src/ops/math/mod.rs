//! Arithmetic on elements: unary and binary functions, comparisons, logic, reductions, matrix products.

pub mod activation;
pub mod arg;
pub mod binary;
pub mod cast;
pub mod classify;
pub mod clip;
pub mod compare;
pub mod cumulative;
pub mod det;
pub mod einsum;
mod elementwise;
pub mod gemm;
pub mod matmul;
pub mod power;
pub mod prelu;
pub mod reduce;
#[cfg(test)]
mod robustness;
pub mod select;
pub mod softmax;
pub mod special;
#[cfg(test)]
mod testing;
pub mod topk;
pub mod unary;
pub mod variadic;

use super::OperatorEntry;
use activation::Activation;
use arg::ArgReduce;
use binary::Binary;
use classify::Classify;
use compare::Compare;
use cumulative::Cumulative;
use reduce::Reduce;
use softmax::Softmax;
use unary::Unary;
use variadic::Variadic;

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[
    OperatorEntry::onnx("Abs", Unary::read),
    OperatorEntry::onnx("Neg", Unary::read),
    OperatorEntry::onnx("Sign", Unary::read),
    OperatorEntry::onnx("Floor", Unary::read),
    OperatorEntry::onnx("Ceil", Unary::read),
    OperatorEntry::onnx("Round", Unary::read),
    OperatorEntry::onnx("Exp", Unary::read),
    OperatorEntry::onnx("Log", Unary::read),
    OperatorEntry::onnx("Sqrt", Unary::read),
    OperatorEntry::onnx("Reciprocal", Unary::read),
    OperatorEntry::onnx("Sin", Unary::read),
    OperatorEntry::onnx("Cos", Unary::read),
    OperatorEntry::onnx("Tan", Unary::read),
    OperatorEntry::onnx("Asin", Unary::read),
    OperatorEntry::onnx("Acos", Unary::read),
    OperatorEntry::onnx("Atan", Unary::read),
    OperatorEntry::onnx("Sinh", Unary::read),
    OperatorEntry::onnx("Cosh", Unary::read),
    OperatorEntry::onnx("Tanh", Unary::read),
    OperatorEntry::onnx("Asinh", Unary::read),
    OperatorEntry::onnx("Acosh", Unary::read),
    OperatorEntry::onnx("Atanh", Unary::read),
    OperatorEntry::onnx("Erf", Unary::read),
    OperatorEntry::onnx("Relu", Unary::read),
    OperatorEntry::onnx("Sigmoid", Unary::read),
    OperatorEntry::onnx("Softplus", Unary::read),
    OperatorEntry::onnx("Softsign", Unary::read),
    OperatorEntry::onnx("HardSwish", Unary::read),
    OperatorEntry::onnx("Mish", Unary::read),
    OperatorEntry::onnx("Not", Unary::read),
    OperatorEntry::onnx("BitwiseNot", Unary::read),
    OperatorEntry::onnx("LeakyRelu", Activation::read),
    OperatorEntry::onnx("Elu", Activation::read),
    OperatorEntry::onnx("Selu", Activation::read),
    OperatorEntry::onnx("Celu", Activation::read),
    OperatorEntry::onnx("HardSigmoid", Activation::read),
    OperatorEntry::onnx("ThresholdedRelu", Activation::read),
    OperatorEntry::onnx("Shrink", Activation::read),
    OperatorEntry::onnx("Swish", Activation::read),
    OperatorEntry::onnx("Gelu", Activation::read),
    OperatorEntry::onnx("Clip", clip::Clip::read),
    OperatorEntry::onnx("PRelu", prelu::PRelu::read),
    OperatorEntry::onnx("Add", Binary::read),
    OperatorEntry::onnx("Sub", Binary::read),
    OperatorEntry::onnx("Mul", Binary::read),
    OperatorEntry::onnx("Div", Binary::read),
    OperatorEntry::onnx("Mod", Binary::read),
    OperatorEntry::onnx("BitShift", Binary::read),
    OperatorEntry::onnx("BitwiseAnd", Binary::read),
    OperatorEntry::onnx("BitwiseOr", Binary::read),
    OperatorEntry::onnx("BitwiseXor", Binary::read),
    OperatorEntry::onnx("And", Binary::read),
    OperatorEntry::onnx("Or", Binary::read),
    OperatorEntry::onnx("Xor", Binary::read),
    OperatorEntry::onnx("Pow", power::Pow::read),
    OperatorEntry::onnx("Min", Variadic::read),
    OperatorEntry::onnx("Max", Variadic::read),
    OperatorEntry::onnx("Sum", Variadic::read),
    OperatorEntry::onnx("Mean", Variadic::read),
    OperatorEntry::onnx("Equal", Compare::read),
    OperatorEntry::onnx("Greater", Compare::read),
    OperatorEntry::onnx("GreaterOrEqual", Compare::read),
    OperatorEntry::onnx("Less", Compare::read),
    OperatorEntry::onnx("LessOrEqual", Compare::read),
    OperatorEntry::onnx("IsNaN", Classify::read),
    OperatorEntry::onnx("IsInf", Classify::read),
    OperatorEntry::onnx("Where", select::Where::read),
    OperatorEntry::onnx("ReduceSum", Reduce::read),
    OperatorEntry::onnx("ReduceMean", Reduce::read),
    OperatorEntry::onnx("ReduceMax", Reduce::read),
    OperatorEntry::onnx("ReduceMin", Reduce::read),
    OperatorEntry::onnx("ReduceProd", Reduce::read),
    OperatorEntry::onnx("ReduceL1", Reduce::read),
    OperatorEntry::onnx("ReduceL2", Reduce::read),
    OperatorEntry::onnx("ReduceLogSum", Reduce::read),
    OperatorEntry::onnx("ReduceLogSumExp", Reduce::read),
    OperatorEntry::onnx("ReduceSumSquare", Reduce::read),
    OperatorEntry::onnx("ArgMax", ArgReduce::read),
    OperatorEntry::onnx("ArgMin", ArgReduce::read),
    OperatorEntry::onnx("TopK", topk::TopK::read),
    OperatorEntry::onnx("CumSum", Cumulative::read),
    OperatorEntry::onnx("CumProd", Cumulative::read),
    OperatorEntry::onnx("Softmax", Softmax::read),
    OperatorEntry::onnx("LogSoftmax", Softmax::read),
    OperatorEntry::onnx("Hardmax", Softmax::read),
    OperatorEntry { domain: "planish", name: "Softmax", read: Softmax::read },
    OperatorEntry { domain: "planish", name: "LogSoftmax", read: Softmax::read },
    OperatorEntry { domain: "planish", name: "Hardmax", read: Softmax::read },
    OperatorEntry::onnx("MatMul", matmul::MatMul::read),
    OperatorEntry::onnx("Gemm", gemm::Gemm::read),
    OperatorEntry::onnx("Einsum", einsum::Einsum::read),
    OperatorEntry::onnx("Det", det::Det::read),
    OperatorEntry::onnx("Cast", cast::Cast::read),
    OperatorEntry::onnx("CastLike", cast::CastLike::read),
    OperatorEntry::onnx("BitCast", cast::BitCast::read),
];
