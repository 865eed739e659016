//! The layers of networks: convolution, pooling, normalisation, resizing, quantisation, detection heads.

pub mod batch_normalization;
pub mod channel_shuffle;
mod checks;
pub mod conv;
pub mod pool;
pub mod window;

use super::OperatorEntry;
use batch_normalization::BatchNormalization;
use channel_shuffle::ChannelShuffle;
use conv::Conv;
use pool::{AveragePool, MaxPool};

/// The lines of this family in the operator table.
pub(super) static OPERATORS: &[OperatorEntry] = &[
    OperatorEntry::onnx("AveragePool", AveragePool::read),
    OperatorEntry::onnx("BatchNormalization", BatchNormalization::read),
    OperatorEntry::onnx("Conv", Conv::read),
    OperatorEntry::onnx("MaxPool", MaxPool::read),
    OperatorEntry { domain: "planish", name: "ChannelShuffle", read: ChannelShuffle::read },
];
