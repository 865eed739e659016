//! The layers of networks: convolution, pooling, normalisation, resizing, quantisation, detection heads.

pub mod affine_grid;
pub mod axis_normalization;
pub mod batch_normalization;
pub mod channel_shuffle;
mod checks;
pub mod col2im;
pub mod conv;
pub mod conv_transpose;
pub mod deform_conv;
pub mod depth_to_space;
pub mod dropout;
pub mod fused;
pub mod global_pool;
pub mod grid_sample;
pub mod group_normalization;
pub mod layer_normalization;
pub mod lp_pool;
pub mod max_unpool;
pub mod non_max_suppression;
pub mod pool;
pub mod quantized;
mod random;
pub mod resize;
pub mod response_normalization;
#[cfg(test)]
mod robustness;
pub mod roi_align;
pub mod roi_pool;
pub mod window;

use super::OperatorEntry;
use affine_grid::AffineGrid;
use axis_normalization::{LpNormalization, MeanVarianceNormalization};
use batch_normalization::BatchNormalization;
use channel_shuffle::ChannelShuffle;
use col2im::Col2Im;
use conv::Conv;
use conv_transpose::ConvTranspose;
use deform_conv::DeformConv;
use depth_to_space::{DepthToSpace, SpaceToDepth};
use dropout::Dropout;
use fused::ConvAdd;
use global_pool::GlobalPool;
use grid_sample::GridSample;
use group_normalization::{GroupNormalization, InstanceNormalization};
use layer_normalization::{LayerNormalization, RmsNormalization};
use lp_pool::LpPool;
use max_unpool::MaxUnpool;
use non_max_suppression::NonMaxSuppression;
use pool::{AveragePool, MaxPool};
use quantized::conv_integer::{ConvInteger, QLinearConv};
use quantized::matmul_integer::{MatMulInteger, QLinearMatMul};
use quantized::qonnx::{self, BipolarQuant, Quant, Trunc};
use quantized::quantize::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear};
use resize::Resize;
use response_normalization::Lrn;
use roi_align::RoiAlign;
use roi_pool::MaxRoiPool;

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[
    OperatorEntry::onnx("AffineGrid", AffineGrid::read),
    OperatorEntry::onnx("AveragePool", AveragePool::read),
    OperatorEntry::onnx("BatchNormalization", BatchNormalization::read),
    OperatorEntry::onnx("Col2Im", Col2Im::read),
    OperatorEntry::onnx("Conv", Conv::read),
    OperatorEntry { domain: "planish", name: "ConvAdd", read: ConvAdd::read },
    OperatorEntry::onnx("ConvInteger", ConvInteger::read),
    OperatorEntry::onnx("ConvTranspose", ConvTranspose::read),
    OperatorEntry::onnx("DeformConv", DeformConv::read),
    OperatorEntry::onnx("DepthToSpace", DepthToSpace::read),
    OperatorEntry::onnx("DequantizeLinear", DequantizeLinear::read),
    OperatorEntry::onnx("Dropout", Dropout::read),
    OperatorEntry::onnx("DynamicQuantizeLinear", DynamicQuantizeLinear::read),
    OperatorEntry::onnx("GlobalAveragePool", GlobalPool::read),
    OperatorEntry::onnx("GlobalLpPool", GlobalPool::read),
    OperatorEntry::onnx("GlobalMaxPool", GlobalPool::read),
    OperatorEntry::onnx("GridSample", GridSample::read),
    OperatorEntry::onnx("GroupNormalization", GroupNormalization::read),
    OperatorEntry::onnx("InstanceNormalization", InstanceNormalization::read),
    OperatorEntry::onnx("LRN", Lrn::read),
    OperatorEntry::onnx("LayerNormalization", LayerNormalization::read),
    OperatorEntry::onnx("LpNormalization", LpNormalization::read),
    OperatorEntry::onnx("LpPool", LpPool::read),
    OperatorEntry::onnx("MatMulInteger", MatMulInteger::read),
    OperatorEntry::onnx("MaxPool", MaxPool::read),
    OperatorEntry { domain: "planish", name: "ChannelShuffle", read: ChannelShuffle::read },
    OperatorEntry::onnx("MaxRoiPool", MaxRoiPool::read),
    OperatorEntry::onnx("MaxUnpool", MaxUnpool::read),
    OperatorEntry::onnx("MeanVarianceNormalization", MeanVarianceNormalization::read),
    OperatorEntry::onnx("NonMaxSuppression", NonMaxSuppression::read),
    OperatorEntry::onnx("QLinearConv", QLinearConv::read),
    OperatorEntry::onnx("QLinearMatMul", QLinearMatMul::read),
    OperatorEntry::onnx("QuantizeLinear", QuantizeLinear::read),
    OperatorEntry::onnx("RMSNormalization", RmsNormalization::read),
    OperatorEntry::onnx("Resize", Resize::read),
    OperatorEntry::onnx("RoiAlign", RoiAlign::read),
    OperatorEntry::onnx("SpaceToDepth", SpaceToDepth::read),
    OperatorEntry::onnx("Upsample", Resize::read_upsample),
    OperatorEntry { domain: qonnx::DOMAIN, name: "BipolarQuant", read: BipolarQuant::read },
    OperatorEntry { domain: qonnx::DOMAIN, name: "IntQuant", read: Quant::read },
    OperatorEntry { domain: qonnx::DOMAIN, name: "Quant", read: Quant::read },
    OperatorEntry { domain: qonnx::DOMAIN, name: "Trunc", read: Trunc::read },
    OperatorEntry { domain: qonnx::BREVITAS_DOMAIN, name: "BipolarQuant", read: BipolarQuant::read },
    OperatorEntry { domain: qonnx::BREVITAS_DOMAIN, name: "Quant", read: Quant::read },
    OperatorEntry { domain: qonnx::BREVITAS_DOMAIN, name: "Trunc", read: Trunc::read },
];
