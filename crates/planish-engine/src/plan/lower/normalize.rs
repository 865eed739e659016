//! Normalisation that was not folded into a convolution: by learnt statistics, or by the activations' own.
//!
//! All kernels want channels next to each other. For layer normalisation, "channels" are the last axes in ONNX's own
//! order; for the others they are axis 1, so those work channels-last.

use super::follow::Behind;
use super::{Abilities, Facts, Family, Keeps, Layout, Lowering, Wish, no_levels};
use planish_cpu::for_float;
use planish_cpu::normalize::{group_normalize, layer_normalize, local_response_normalize, scale_shift};
use planish_graph::ops::nn::batch_normalization::BatchNormalization;
use planish_graph::ops::nn::group_normalization::{GroupNormalization, InstanceNormalization};
use planish_graph::ops::nn::layer_normalization::LayerNormalization;
use planish_graph::ops::nn::response_normalization::Lrn;
use planish_graph::tensor::index;
use planish_graph::{DType, Error, Node, OperatorExt, Result, Tensor, ValueId};

/// BatchNormalization with constant statistics.
pub(super) struct BatchNormalizations;

/// GroupNormalization and InstanceNormalization with constant scales.
pub(super) struct GroupNormalizations;

/// LayerNormalization with constant scales.
pub(super) struct LayerNormalizations;

/// LRN.
pub(super) struct ResponseNormalizations;

fn lost() -> Error {
    Error::invalid("a normalisation lost an input or output")
}

/// A normalisation of channels, where the first input and the only output are activations of three axes and more.
fn of_channels(node: &Node, facts: &Facts<'_>) -> Option<Wish> {
    let plain = node.outputs.len() == 1 && facts.output(node).is_some();
    (plain && facts.input(node, 0)?.len() >= 3).then_some(Wish::ChannelsLast)
}

/// Whether the inputs in `range` are constant `f32`.
fn constants(node: &Node, facts: &Facts<'_>, mut range: std::ops::Range<usize>) -> bool {
    range.all(|i| facts.constant(node, i).is_some_and(|t| t.dtype() == DType::F32))
}

fn constant<'a>(l: &Lowering<'a>, node: &Node, index: usize) -> Result<&'a Tensor> {
    node.input(index).and_then(|v| l.constant(v)).ok_or_else(lost)
}

fn input(node: &Node) -> Result<ValueId> {
    node.input(0).ok_or_else(lost)
}

impl Family for BatchNormalizations {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let op = node.op.as_op::<BatchNormalization>()?;
        of_channels(node, facts).filter(|_| !op.training_mode && constants(node, facts, 1..5))
    }

    fn keeps(&self, _: &Node, _: &Facts<'_>, _: &[Layout]) -> Keeps {
        Keeps::Follow
    }

    fn follows(&self, _: &Node, _: &Facts<'_>) -> Abilities {
        Abilities::ACTIVATION
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let op = node.op.as_op::<BatchNormalization>().ok_or_else(lost)?;
        let x = input(node)?;
        let (y, Behind { activation, .. }) = l.result(node)?;
        let numbers = |i: usize| constant(l, node, i).map(|t| t.to_f64s());
        let (gamma, beta, mean, variance) = (numbers(1)?, numbers(2)?, numbers(3)?, numbers(4)?);
        let (mut scale, mut shift) = (Vec::with_capacity(gamma.len()), Vec::with_capacity(gamma.len()));
        for c in 0..gamma.len() {
            let factor = gamma[c] / (variance[c] + op.epsilon as f64).sqrt();
            scale.push(factor as f32);
            shift.push((beta[c] - mean[c] * factor) as f32);
        }
        let element = l.element(y);
        let operand = l.operand_as(x, Layout::ChannelsLast, element)?;
        let target = l.output_over(y, x)?;
        let info = l.info(node, "scale and shift", "vectorised over channels");
        let from = operand.clone();
        l.push(info, &[&operand], &[&target], move |env| {
            for_float!(element, T => {
                let (input, output) = (env.rows::<T>(&from)?, env.rows_mut(&target));
                scale_shift(env.isa, env.pool, &scale, &shift, activation, input, output);
            }, else return Err(no_levels()));
            Ok(())
        });
        Ok(())
    }
}

/// The number of groups and the epsilon of a normalisation of groups.
fn groups(node: &Node, channels: usize) -> Option<(usize, f32)> {
    if let Some(op) = node.op.as_op::<GroupNormalization>() {
        return Some((op.num_groups, op.epsilon));
    }
    node.op.as_op::<InstanceNormalization>().map(|op| (channels, op.epsilon))
}

/// A number per channel from one per channel or, as opset 18 had it, one per group.
fn per_channel(numbers: &Tensor, channels: usize) -> Result<Vec<f32>> {
    let numbers = numbers.as_slice::<f32>()?;
    let each = channels / numbers.len().max(1);
    Ok(numbers.iter().flat_map(|&x| std::iter::repeat_n(x, each)).collect())
}

impl Family for GroupNormalizations {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        groups(node, facts.input(node, 0)?.get(1).copied()?)?;
        of_channels(node, facts).filter(|_| constants(node, facts, 1..3))
    }

    fn follows(&self, _: &Node, _: &Facts<'_>) -> Abilities {
        Abilities::ACTIVATION
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let x = input(node)?;
        let (y, Behind { activation, .. }) = l.result(node)?;
        let (images, channels) = (l.shape(x)?[0], l.shape(x)?[1]);
        let (groups, epsilon) = groups(node, channels).ok_or_else(lost)?;
        let scale = per_channel(constant(l, node, 1)?, channels)?;
        let shift = per_channel(constant(l, node, 2)?, channels)?;
        let operand = l.operand(x, Layout::ChannelsLast)?;
        let target = l.output_over(y, x)?;
        let info = l.info(node, "group", "vectorised over channels");
        let from = operand.clone();
        l.push(info, &[&operand], &[&target], move |env| {
            let (input, output) = (env.rows(&from)?, env.rows_mut(&target));
            let (parts, affine) = ((images, groups), (&scale[..], &shift[..]));
            group_normalize(env.isa, env.pool, parts, epsilon, affine, activation, input, output);
            Ok(())
        });
        Ok(())
    }
}

/// The numbers of a scale or bias for one row of a layer normalisation from `axis` on; `None` where it differs from row
/// to row.
fn of_row(numbers: &Tensor, shape: &[usize], axis: usize) -> Option<Vec<f32>> {
    let rows = shape.len().checked_sub(numbers.rank())?;
    if (rows..axis).any(|a| numbers.shape()[a - rows] != 1) {
        return None;
    }
    let values = numbers.as_slice::<f32>().ok()?;
    let strides = index::broadcast_strides(numbers.shape(), shape);
    let mut row = Vec::with_capacity(shape[axis..].iter().product());
    index::for_each(&shape[axis..], [&strides[axis..]], |_, [at]| row.push(values[at]));
    Some(row)
}

/// The first axis of a row, the scale, and the bias where there is one.
fn layer(node: &Node, facts: &Facts<'_>) -> Option<(usize, Vec<f32>, Option<Vec<f32>>)> {
    let op = node.op.as_op::<LayerNormalization>()?;
    let shape = facts.input(node, 0)?;
    let axis = index::axis(op.rule.axis, shape.len()).ok()?;
    let scale = of_row(facts.constant(node, 1)?, shape, axis)?;
    let shift = match node.input(2) {
        Some(_) => Some(of_row(facts.constant(node, 2)?, shape, axis)?),
        None => None,
    };
    Some((axis, scale, shift))
}

impl Family for LayerNormalizations {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        facts.output(node).filter(|_| node.outputs.len() == 1)?;
        layer(node, facts).map(|_| Wish::Plain)
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let op = node.op.as_op::<LayerNormalization>().ok_or_else(lost)?;
        let (axis, scale, shift) = layer(node, &l.facts()).ok_or_else(lost)?;
        let (x, y) = (input(node)?, node.output().ok_or_else(lost)?);
        let (rows, channels) = (l.shape(x)?[..axis].iter().product(), scale.len());
        let operand = l.operand(x, Layout::Plain)?;
        let target = l.output_over(y, x)?;
        let info = l.info(node, "layer", "rows lie together in ONNX's order");
        let (from, to, epsilon) =
            (operand.reshaped(rows, channels), target.reshaped(rows, channels), op.rule.epsilon);
        l.push(info, &[&operand], &[&target], move |env| {
            let (input, output) = (env.rows(&from)?, env.rows_mut(&to));
            let affine = (&scale[..], shift.as_deref());
            layer_normalize(env.isa, env.pool, epsilon, affine, input, output);
            Ok(())
        });
        Ok(())
    }
}

impl Family for ResponseNormalizations {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let op = node.op.as_op::<Lrn>()?;
        // Windows that reach beyond all channels on both sides are no kernel's business: it would only add zeros.
        of_channels(node, facts).filter(|_| op.size <= 2 * facts.input(node, 0).map_or(0, |s| s[1]))
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let op = *node.op.as_op::<Lrn>().ok_or_else(lost)?;
        let (x, y) = (input(node)?, node.output().ok_or_else(lost)?);
        let operand = l.operand(x, Layout::ChannelsLast)?;
        let target = l.output_over(y, x)?;
        let info = l.info(node, "local response", "a window of channels slides along each pixel");
        let from = operand.clone();
        l.push(info, &[&operand], &[&target], move |env| {
            let (input, output) = (env.rows(&from)?, env.rows_mut(&target));
            let numbers = (op.alpha, op.beta, op.bias);
            local_response_normalize(env.isa, env.pool, op.size, numbers, input, output);
            Ok(())
        });
        Ok(())
    }
}
