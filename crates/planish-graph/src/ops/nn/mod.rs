//! The layers of networks: convolution, pooling, normalisation, resizing, quantisation, detection heads.

pub mod axis_normalization;
pub mod batch_normalization;
pub mod channel_shuffle;
mod checks;
pub mod conv;
pub mod conv_integer;
pub mod conv_transpose;
pub mod depth_to_space;
pub mod global_pool;
pub mod group_normalization;
pub mod layer_normalization;
pub mod lp_pool;
pub mod matmul_integer;
pub mod max_unpool;
pub mod pool;
pub mod quantize;
pub mod resize;
pub mod response_normalization;
pub mod scales;
pub mod window;

use super::OperatorEntry;
use axis_normalization::{LpNormalization, MeanVarianceNormalization};
use batch_normalization::BatchNormalization;
use channel_shuffle::ChannelShuffle;
use conv::Conv;
use conv_integer::{ConvInteger, QLinearConv};
use conv_transpose::ConvTranspose;
use depth_to_space::{DepthToSpace, SpaceToDepth};
use global_pool::GlobalPool;
use group_normalization::{GroupNormalization, InstanceNormalization};
use layer_normalization::{LayerNormalization, RmsNormalization};
use lp_pool::LpPool;
use matmul_integer::{MatMulInteger, QLinearMatMul};
use max_unpool::MaxUnpool;
use pool::{AveragePool, MaxPool};
use quantize::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear};
use resize::Resize;
use response_normalization::Lrn;

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[
    OperatorEntry::onnx("AveragePool", AveragePool::read),
    OperatorEntry::onnx("BatchNormalization", BatchNormalization::read),
    OperatorEntry::onnx("Conv", Conv::read),
    OperatorEntry::onnx("ConvInteger", ConvInteger::read),
    OperatorEntry::onnx("ConvTranspose", ConvTranspose::read),
    OperatorEntry::onnx("DepthToSpace", DepthToSpace::read),
    OperatorEntry::onnx("DequantizeLinear", DequantizeLinear::read),
    OperatorEntry::onnx("DynamicQuantizeLinear", DynamicQuantizeLinear::read),
    OperatorEntry::onnx("GlobalAveragePool", GlobalPool::read),
    OperatorEntry::onnx("GlobalLpPool", GlobalPool::read),
    OperatorEntry::onnx("GlobalMaxPool", GlobalPool::read),
    OperatorEntry::onnx("GroupNormalization", GroupNormalization::read),
    OperatorEntry::onnx("InstanceNormalization", InstanceNormalization::read),
    OperatorEntry::onnx("LRN", Lrn::read),
    OperatorEntry::onnx("LayerNormalization", LayerNormalization::read),
    OperatorEntry::onnx("LpNormalization", LpNormalization::read),
    OperatorEntry::onnx("LpPool", LpPool::read),
    OperatorEntry::onnx("MatMulInteger", MatMulInteger::read),
    OperatorEntry::onnx("MaxPool", MaxPool::read),
    OperatorEntry { domain: "planish", name: "ChannelShuffle", read: ChannelShuffle::read },
    OperatorEntry::onnx("MaxUnpool", MaxUnpool::read),
    OperatorEntry::onnx("MeanVarianceNormalization", MeanVarianceNormalization::read),
    OperatorEntry::onnx("QLinearConv", QLinearConv::read),
    OperatorEntry::onnx("QLinearMatMul", QLinearMatMul::read),
    OperatorEntry::onnx("QuantizeLinear", QuantizeLinear::read),
    OperatorEntry::onnx("RMSNormalization", RmsNormalization::read),
    OperatorEntry::onnx("Resize", Resize::read),
    OperatorEntry::onnx("SpaceToDepth", SpaceToDepth::read),
    OperatorEntry::onnx("Upsample", Resize::read_upsample),
];
