//! The layers of networks: convolution, pooling, normalisation, resizing, quantisation, detection heads.

pub mod batch_normalization;
mod checks;
pub mod conv;
pub mod pool;
pub mod window;

use super::OperatorEntry;
use batch_normalization::BatchNormalization;
use conv::Conv;
use pool::{AveragePool, MaxPool};

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[
    OperatorEntry::onnx("AveragePool", AveragePool::read),
    OperatorEntry::onnx("BatchNormalization", BatchNormalization::read),
    OperatorEntry::onnx("Conv", Conv::read),
    OperatorEntry::onnx("MaxPool", MaxPool::read),
];
