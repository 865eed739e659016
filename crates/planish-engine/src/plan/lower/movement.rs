//! Moving elements: views where the memory allows it, strided copies otherwise.

use super::{BufferView, Facts, Family, Keeps, Layout, Lowering, Operand, Wish, rows_of};
use planish_cpu::for_element;
use planish_cpu::strided::MAX_RANK;
use planish_graph::ops::movement::{concat::Concat, expand::Expand, flatten::Flatten, identity::Identity};
use planish_graph::ops::movement::{reshape::Reshape, slice::Slice, split::Split, transpose::Transpose};
use planish_graph::ops::movement::{squeeze::Squeeze, squeeze::Unsqueeze};
use planish_graph::tensor::index;
use planish_graph::{Error, Node, OperatorExt, Result, ValueId};

/// Concat, Split, Slice, Transpose, Expand, and everything that only renames axes.
pub(super) struct Movement;

fn lost() -> Error {
    Error::invalid("a node lost an input or output")
}

/// Whether the operator only gives the same elements another shape.
fn renames_axes(node: &Node) -> bool {
    node.op.is_op::<Reshape>()
        || node.op.is_op::<Flatten>()
        || node.op.is_op::<Squeeze>()
        || node.op.is_op::<Unsqueeze>()
}

/// The permutation of a Transpose.
fn permutation(node: &Node, rank: usize) -> Option<Vec<usize>> {
    let transpose = node.op.as_op::<Transpose>()?;
    Some(transpose.perm.clone().unwrap_or_else(|| (0..rank).rev().collect()))
}

/// The permutation that puts the last axis second: what makes an NHWC value of ONNX an NCHW one.
fn puts_last_second(perm: &[usize]) -> bool {
    let rank = perm.len();
    rank >= 3 && perm[0] == 0 && perm[1] == rank - 1 && perm[2..].iter().enumerate().all(|(i, &p)| p == i + 1)
}

/// The permutation that puts the second axis last: what makes an NCHW value of ONNX an NHWC one.
fn puts_second_last(perm: &[usize]) -> bool {
    let rank = perm.len();
    let spatial = perm.len() >= 3 && perm[0] == 0 && perm[rank - 1] == 1;
    spatial && perm[1..rank - 1].iter().enumerate().all(|(i, &p)| p == i + 2)
}

/// Of each axis of a value of shape `input`, the first index and the step that each output of a Slice or Split keeps.
fn cuts(node: &Node, facts: &Facts<'_>, input: &[usize]) -> Option<Vec<Vec<(usize, isize, usize)>>> {
    let outputs: Vec<&[usize]> = node.outputs.iter().map(|o| facts.kept((*o)?)).collect::<Option<_>>()?;
    let whole: Vec<(usize, isize, usize)> = input.iter().map(|&d| (0, 1, d)).collect();
    if let Some(split) = node.op.as_op::<Split>() {
        let axis = index::axis(split.axis, input.len()).ok()?;
        let mut start = 0;
        return Some(
            outputs
                .iter()
                .map(|shape| {
                    let mut cut = whole.clone();
                    cut[axis] = (start, 1, shape[axis]);
                    start += shape[axis];
                    cut
                })
                .collect(),
        );
    }
    node.op.as_op::<Slice>()?;
    let list = |i: usize| match node.input(i) {
        Some(_) => facts.constant(node, i).and_then(|t| t.to_i64s().ok()).map(Some),
        None => Some(None),
    };
    let (starts, _, axes, steps) = (list(1)??, list(2)??, list(3)?, list(4)?);
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let mut cut = whole;
    for (i, &start) in starts.iter().enumerate() {
        let axis = index::axis(*axes.get(i)?, input.len()).ok()?;
        let step = steps.as_ref().map_or(Some(1), |s| s.get(i).copied())?;
        let extent = input[axis] as i64;
        let start = if start < 0 { start.saturating_add(extent) } else { start };
        let first = start.clamp(0, if step < 0 { (extent - 1).max(0) } else { extent });
        // Of one element no step is taken, and the model may name any.
        let step = if outputs[0][axis] <= 1 { 1 } else { step };
        cut[axis] = (first as usize, isize::try_from(step).ok()?, outputs[0][axis]);
    }
    Some(vec![cut])
}

/// The output of `node` where it is a channels-last concatenation along the channels.
pub(super) fn channel_concat(node: &Node, facts: &Facts<'_>, layouts: &[Layout]) -> Option<ValueId> {
    let concat = node.op.as_op::<Concat>()?;
    let (output, shape) = (node.output()?, facts.moved(node, 0)?.1);
    let along_channels = index::axis(concat.axis, shape.len()).is_ok_and(|a| a == 1);
    (along_channels && layouts[output.0 as usize] == Layout::ChannelsLast).then_some(output)
}

impl Family for Movement {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let (input, output) = facts.moved(node, 0)?;
        if output.len() > MAX_RANK || input.len() > MAX_RANK {
            return None;
        }
        if let Some(perm) = permutation(node, output.len()) {
            return Some(if puts_last_second(&perm) { Wish::ChannelsLast } else { Wish::Plain });
        }
        if renames_axes(node) || node.op.is_op::<Expand>() {
            return Some(Wish::Plain);
        }
        if node.op.is_op::<Concat>() {
            let all = node.inputs.iter().all(|i| i.is_some_and(|i| facts.kept(i).is_some()));
            return (all && !output.is_empty()).then_some(Wish::Follow);
        }
        let cut = cuts(node, facts, input).is_some();
        (node.op.is_op::<Identity>() || cut).then_some(Wish::Follow)
    }

    fn reads(&self, node: &Node, facts: &Facts<'_>, layout: Layout) -> Option<Layout> {
        match facts.moved(node, 0).and_then(|(_, output)| permutation(node, output.len())) {
            // Between ONNX's NHWC and a channels-last NCHW nothing moves.
            Some(perm) if puts_last_second(&perm) => Some(Layout::Plain),
            Some(perm) if puts_second_last(&perm) => Some(Layout::ChannelsLast),
            Some(_) => None,
            None => Some(layout),
        }
    }

    fn keeps(&self, _: &Node, _: &Facts<'_>, _: &[Layout]) -> Keeps {
        Keeps::Follow
    }

    fn is_alias(&self, node: &Node, facts: &Facts<'_>, layouts: &[Layout]) -> bool {
        if renames_axes(node) || node.op.is_op::<Identity>() || node.op.is_op::<Transpose>() {
            return true;
        }
        let Some(((input, _), v)) = facts.moved(node, 0).zip(node.output()) else { return false };
        let Some(cuts) = cuts(node, facts, input) else { return false };
        layouts[v.0 as usize] == Layout::ChannelsLast && cuts.iter().all(|c| only_channels(c, input))
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        if node.op.is_op::<Concat>() {
            return concat(l, node);
        }
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let (input, output) = (l.shape(x)?, l.shape(y)?);
        let element = l.element(y);
        if node.op.is_op::<Identity>() {
            let layout = l.layout(y);
            let operand = l.operand_as(x, layout, element)?;
            l.alias(y, layout, operand);
            return Ok(());
        }
        if renames_axes(node) {
            let operand = l.operand_as(x, Layout::Plain, element)?;
            let (rows, channels) = rows_of(Layout::Plain, output);
            l.alias(y, Layout::Plain, operand.reshaped(rows, channels));
            return Ok(());
        }
        if node.op.is_op::<Expand>() {
            let operand = l.operand_as(x, Layout::Plain, element)?;
            let target = l.output(y)?;
            let (from, shapes) = (operand.clone(), (input.to_vec(), output.to_vec()));
            let info = l.info(node, "strided copy", "repeats elements");
            l.push(info, &[&operand], &[&target], move |env| {
                for_element!(element, T => {
                    let source = env.strided::<T>(&from, &shapes.0)?;
                    let source = source.broadcast(&shapes.1).ok_or_else(lost)?;
                    let output = env.strided_mut(&target, &shapes.1);
                    planish_cpu::copy::copy(env.isa, env.pool, source, output);
                });
                Ok(())
            });
            return Ok(());
        }
        if let Some(perm) = permutation(node, output.len()) {
            return transpose(l, node, x, y, &perm);
        }
        cut(l, node, x)
    }
}

/// Whether a cut keeps every axis whole but the channels, of which it keeps a run.
fn only_channels(cut: &[(usize, isize, usize)], input: &[usize]) -> bool {
    cut.iter()
        .zip(input)
        .enumerate()
        .all(|(axis, (&(_, step, count), &extent))| step == 1 && (axis == 1 || count == extent))
}

fn concat(l: &mut Lowering<'_>, node: &Node) -> Result<()> {
    let concat = node.op.as_op::<Concat>().ok_or_else(lost)?;
    let y = node.output().ok_or_else(lost)?;
    let shape = l.shape(y)?;
    let (layout, element) = (l.layout(y), l.element(y));
    let axis = layout.axis(index::axis(concat.axis, shape.len())?, shape.len());
    let inputs: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
    let mut sources = Vec::with_capacity(inputs.len());
    for &v in &inputs {
        sources.push(l.operand_as(v, layout, element)?);
    }
    let target = l.output(y)?;
    let physical = layout.physical(shape);
    let mut start = 0;
    let mut copies: Vec<(Operand, Vec<usize>, usize)> = Vec::new();
    for (&v, source) in inputs.iter().zip(&sources) {
        let part = layout.physical(l.shape(v)?);
        let extent = part[axis];
        let there = BufferView { start: target.start + start, channels: extent, ..target };
        let in_place =
            matches!(source, Operand::Buffer(view) if axis + 1 == physical.len() && *view == there);
        if !in_place {
            copies.push((source.clone(), part, start));
        }
        start += extent;
    }
    if copies.is_empty() {
        return Ok(());
    }
    let info = l.info(node, "strided copy", "these inputs were not written in place");
    let reads: Vec<Operand> = copies.iter().map(|(o, _, _)| o.clone()).collect();
    l.push(info, &reads.iter().collect::<Vec<_>>(), &[&target], move |env| {
        for_element!(element, T => {
            for (source, part, start) in &copies {
                let from = env.strided::<T>(source, part)?;
                let to = env.strided_mut(&target, &physical).window(axis, *start, part[axis], 1);
                planish_cpu::copy::copy(env.isa, env.pool, from, to);
            }
        });
        Ok(())
    });
    Ok(())
}

fn transpose(l: &mut Lowering<'_>, node: &Node, x: ValueId, y: ValueId, perm: &[usize]) -> Result<()> {
    let (input, output) = (l.shape(x)?, l.shape(y)?);
    // Between ONNX's NHWC and a channels-last NCHW nothing moves.
    let same = if puts_last_second(perm) && l.layout(y) == Layout::ChannelsLast {
        Some((Layout::Plain, Layout::ChannelsLast))
    } else if puts_second_last(perm) && l.layout(x) == Layout::ChannelsLast {
        Some((Layout::ChannelsLast, Layout::Plain))
    } else {
        None
    };
    let element = l.element(y);
    if let Some((from, to)) = same {
        let operand = l.operand_as(x, from, element)?;
        if operand.is_dense() {
            let (rows, channels) = rows_of(to, output);
            l.alias(y, to, operand.reshaped(rows, channels));
            return Ok(());
        }
    }
    let layout = l.layout(x);
    let operand = l.operand_as(x, layout, element)?;
    let rank = input.len();
    let target = l.output(y)?;
    // Memory axis i of the output is ONNX axis a of the output, perm[a] of the input, and so on to the input's memory.
    let target_layout = l.layout(y);
    let mut order = vec![0; rank];
    for (axis, &from) in perm.iter().enumerate() {
        order[target_layout.axis(axis, rank)] = layout.axis(from, rank);
    }
    let (from, from_shape, to_shape) =
        (operand.clone(), layout.physical(input), target_layout.physical(output));
    let info = l.info(node, "strided copy", "axes change their order");
    l.push(info, &[&operand], &[&target], move |env| {
        for_element!(element, T => {
            let source = env.strided::<T>(&from, &from_shape)?.permute(&order);
            let output = env.strided_mut(&target, &to_shape);
            planish_cpu::copy::copy(env.isa, env.pool, source, output);
        });
        Ok(())
    });
    Ok(())
}

/// Slice and Split: views of channels where possible, copies otherwise.
fn cut(l: &mut Lowering<'_>, node: &Node, x: ValueId) -> Result<()> {
    let input = l.shape(x)?;
    let cuts = cuts(node, &l.facts(), input).ok_or_else(lost)?;
    for (y, cut) in node.outputs.iter().zip(cuts) {
        let Some(y) = *y else { continue };
        let (layout, element) = (l.layout(y), l.element(y));
        let operand = l.operand_as(x, layout, element)?;
        if layout == Layout::ChannelsLast
            && only_channels(&cut, input)
            && let Operand::Buffer(view) = &operand
        {
            let (start, _, count) = cut[1];
            l.alias(y, layout, Operand::Buffer(view.columns(start, count)));
            continue;
        }
        let target = l.output(y)?;
        let rank = input.len();
        let windows: Vec<(usize, (usize, isize, usize))> =
            cut.iter().enumerate().map(|(axis, c)| (layout.axis(axis, rank), *c)).collect();
        let (from, from_shape, to_shape) =
            (operand.clone(), layout.physical(input), layout.physical(l.shape(y)?));
        let info = l.info(node, "strided copy", "takes a window");
        l.push(info, &[&operand], &[&target], move |env| {
            for_element!(element, T => {
                let mut source = env.strided::<T>(&from, &from_shape)?;
                for &(axis, (start, step, count)) in &windows {
                    source = source.window(axis, start, count, step);
                }
                let output = env.strided_mut(&target, &to_shape);
                planish_cpu::copy::copy(env.isa, env.pool, source, output);
            });
            Ok(())
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_permutations_between_layouts() {
        assert!(puts_last_second(&[0, 3, 1, 2]) && !puts_last_second(&[0, 2, 3, 1]));
        assert!(puts_second_last(&[0, 2, 3, 1]) && !puts_second_last(&[0, 3, 1, 2]));
        assert!(puts_last_second(&[0, 2, 1]) && puts_second_last(&[0, 2, 1]));
    }
}
