//! Regular rearrangements of channels and pixels.

use super::{Facts, Family, Keeps, Layout, Lowering, Wish};
use planish_cpu::copy::{DepthOrder, channel_shuffle, depth_to_space, space_to_depth};
use planish_cpu::for_element;
use planish_graph::ops::nn::channel_shuffle::ChannelShuffle;
use planish_graph::ops::nn::depth_to_space::{BlockOrder, DepthToSpace, SpaceToDepth};
use planish_graph::{Error, Node, OperatorExt, Result};

/// ChannelShuffle, DepthToSpace and SpaceToDepth.
pub(super) struct Shuffles;

fn order(order: BlockOrder) -> DepthOrder {
    match order {
        BlockOrder::Dcr => DepthOrder::BlockFirst,
        BlockOrder::Crd => DepthOrder::ChannelFirst,
    }
}

impl Family for Shuffles {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let (input, _) = facts.moved(node, 0)?;
        let shuffle = node.op.is_op::<ChannelShuffle>() && input.len() >= 3;
        let blocks = (node.op.is_op::<DepthToSpace>() || node.op.is_op::<SpaceToDepth>()) && input.len() == 4;
        (shuffle || blocks).then_some(Wish::ChannelsLast)
    }

    fn keeps(&self, _: &Node, _: &Facts<'_>, _: &[Layout]) -> Keeps {
        Keeps::Follow
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let lost = || Error::invalid("a shuffle lost its input or output");
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let (input_shape, output_shape) = (l.shape(x)?, l.shape(y)?);
        let element = l.element(y);
        let operand = l.operand_as(x, Layout::ChannelsLast, element)?;
        let target = l.output(y)?;
        let info = l.info(node, "strided copy", "channels-last");
        let from = operand.clone();
        if let Some(op) = node.op.as_op::<ChannelShuffle>() {
            let groups = op.groups;
            l.push(info, &[&operand], &[&target], move |env| {
                for_element!(element, T => {
                    let (input, output) = (env.rows::<T>(&from)?, env.rows_mut(&target));
                    channel_shuffle(env.isa, env.pool, groups, input, output);
                });
                Ok(())
            });
        } else if let Some(op) = node.op.as_op::<DepthToSpace>() {
            let (size, block) =
                ([input_shape[0], input_shape[2], input_shape[3]], (op.blocksize, order(op.order)));
            l.push(info, &[&operand], &[&target], move |env| {
                for_element!(element, T => {
                    let (input, output) = (env.rows::<T>(&from)?, env.rows_mut(&target));
                    depth_to_space(env.isa, env.pool, size, block, input, output);
                });
                Ok(())
            });
        } else {
            let op = node.op.as_op::<SpaceToDepth>().ok_or_else(lost)?;
            let (size, block) =
                ([output_shape[0], output_shape[2], output_shape[3]], (op.blocksize, order(op.order)));
            l.push(info, &[&operand], &[&target], move |env| {
                for_element!(element, T => {
                    let (input, output) = (env.rows::<T>(&from)?, env.rows_mut(&target));
                    space_to_depth(env.isa, env.pool, size, block, input, output);
                });
                Ok(())
            });
        }
        Ok(())
    }
}
