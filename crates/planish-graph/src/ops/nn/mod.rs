//! The layers of networks: convolution, pooling, normalisation, resizing, quantisation, detection heads.

pub mod batch_normalization;
pub mod channel_shuffle;
mod checks;
pub mod conv;
pub mod conv_integer;
pub mod conv_transpose;
pub mod matmul_integer;
pub mod pool;
pub mod quantize;
pub mod scales;
pub mod window;

use super::OperatorEntry;
use batch_normalization::BatchNormalization;
use channel_shuffle::ChannelShuffle;
use conv::Conv;
use conv_integer::{ConvInteger, QLinearConv};
use conv_transpose::ConvTranspose;
use matmul_integer::{MatMulInteger, QLinearMatMul};
use pool::{AveragePool, MaxPool};
use quantize::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear};

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[
    OperatorEntry::onnx("AveragePool", AveragePool::read),
    OperatorEntry::onnx("BatchNormalization", BatchNormalization::read),
    OperatorEntry::onnx("Conv", Conv::read),
    OperatorEntry::onnx("ConvInteger", ConvInteger::read),
    OperatorEntry::onnx("ConvTranspose", ConvTranspose::read),
    OperatorEntry::onnx("DequantizeLinear", DequantizeLinear::read),
    OperatorEntry::onnx("DynamicQuantizeLinear", DynamicQuantizeLinear::read),
    OperatorEntry::onnx("MatMulInteger", MatMulInteger::read),
    OperatorEntry::onnx("MaxPool", MaxPool::read),
    OperatorEntry { domain: "planish", name: "ChannelShuffle", read: ChannelShuffle::read },
    OperatorEntry::onnx("QLinearConv", QLinearConv::read),
    OperatorEntry::onnx("QLinearMatMul", QLinearMatMul::read),
    OperatorEntry::onnx("QuantizeLinear", QuantizeLinear::read),
];
