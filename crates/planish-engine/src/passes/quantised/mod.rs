//! What passes over quantised networks ask of a graph.

pub(super) mod absorb;
pub(super) mod constants;
pub(super) mod dynamic;
pub(super) mod grids;
pub(super) mod limits;
pub(super) mod movement;
pub(super) mod qonnx;
pub(super) mod report;
pub(super) mod residual;
pub(super) mod short_weights;
pub(super) mod spelling;
pub(super) mod thresholds;

use planish_graph::ops::movement::{
    concat::Concat, expand::Expand, flatten::Flatten, gather::Gather, identity::Identity, reshape::Reshape,
    slice::Slice, split::Split, squeeze::Squeeze, squeeze::Unsqueeze, transpose::Transpose,
};
use planish_graph::ops::nn::channel_shuffle::ChannelShuffle;
use planish_graph::ops::nn::depth_to_space::{DepthToSpace, SpaceToDepth};
use planish_graph::ops::nn::pool::MaxPool;
use planish_graph::ops::nn::resize::{Coordinates, Interpolation, Resize};
use planish_graph::{Operator, OperatorExt};

/// How many inputs of `op` are the tensors whose elements it moves or picks by their order, so that it does the same to
/// levels as to the numbers that they mean; `None` where it does anything else.
pub(crate) fn moves_levels(op: &dyn Operator) -> Option<usize> {
    if op.is_op::<Concat>() {
        return Some(usize::MAX);
    }
    // A region that is cropped may lie outside, where pixels are a number that the operator holds.
    let nearest = op.as_op::<Resize>().is_some_and(|resize| {
        matches!(resize.interpolation, Interpolation::Nearest(_))
            && resize.coordinates != Coordinates::TfCropAndResize
    });
    let moves = op.is_op::<Identity>()
        || op.is_op::<Reshape>()
        || op.is_op::<Flatten>()
        || op.is_op::<Squeeze>()
        || op.is_op::<Unsqueeze>()
        || op.is_op::<Transpose>()
        || op.is_op::<Slice>()
        || op.is_op::<Split>()
        || op.is_op::<Gather>()
        || op.is_op::<Expand>()
        || op.is_op::<DepthToSpace>()
        || op.is_op::<SpaceToDepth>()
        || op.is_op::<ChannelShuffle>()
        || op.is_op::<MaxPool>();
    (moves || nearest).then_some(1)
}
