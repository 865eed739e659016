//! Reductions along axes, and softmax.

use super::{Facts, Family, Layout, Lowering, Operand, Wish, rows_of};
use planish_cpu::reduce::{Reduction, reduce};
use planish_cpu::softmax::{Softmax as SoftmaxKernel, softmax_channels, softmax_rows};
use planish_cpu::strided::MAX_RANK;
use planish_graph::ops::math::reduce::{Reduce, ReduceFunction};
use planish_graph::ops::math::softmax::{Softmax, SoftmaxFunction};
use planish_graph::tensor::index;
use planish_graph::{Error, Node, OperatorExt, Result};

/// Reduce* over known axes; Softmax and LogSoftmax.
pub(super) struct Reductions;

fn reduction(function: ReduceFunction) -> Option<Reduction> {
    Some(match function {
        ReduceFunction::Sum => Reduction::Sum,
        ReduceFunction::Mean => Reduction::Mean,
        ReduceFunction::Max => Reduction::Max,
        ReduceFunction::Min => Reduction::Min,
        ReduceFunction::Prod => Reduction::Product,
        ReduceFunction::L1 => Reduction::L1,
        ReduceFunction::L2 => Reduction::L2,
        ReduceFunction::SumSquare => Reduction::SumSquare,
        _ => return None,
    })
}

/// The axes that a node reduces, in order.
fn reduced_axes(node: &Node, facts: &Facts<'_>, rank: usize) -> Option<Vec<usize>> {
    let op = node.op.as_op::<Reduce>()?;
    let given = match node.input(1) {
        None => Vec::new(),
        Some(_) => facts.constant(node, 1)?.to_i64s().ok()?,
    };
    if given.is_empty() {
        return if op.noop_with_empty_axes { None } else { Some((0..rank).collect()) };
    }
    let mut axes = index::axes(&given, rank).ok()?;
    axes.sort_unstable();
    Some(axes)
}

impl Family for Reductions {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let shape = facts.input(node, 0)?;
        facts.output(node)?;
        if shape.is_empty() || shape.len() > MAX_RANK || shape.contains(&0) {
            return None;
        }
        if let Some(op) = node.op.as_op::<Softmax>() {
            let known = matches!(op.function, SoftmaxFunction::Softmax | SoftmaxFunction::LogSoftmax);
            return (known && !op.flatten).then_some(Wish::Follow);
        }
        reduction(node.op.as_op::<Reduce>()?.function)?;
        let axes = reduced_axes(node, facts, shape.len())?;
        let neighbours = axes.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        neighbours.then_some(Wish::Plain)
    }

    fn reads(&self, node: &Node, facts: &Facts<'_>, layout: Layout) -> Option<Layout> {
        let rank = facts.input(node, 0)?.len();
        let either = reduced_axes(node, facts, rank).is_some_and(|axes| keeps_order(&axes, rank));
        if either { None } else { Some(layout) }
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let lost = || Error::invalid("a reduction lost its input or output");
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let shape = l.shape(x)?;
        if let Some(op) = node.op.as_op::<Softmax>() {
            let kind = match op.function {
                SoftmaxFunction::Softmax => SoftmaxKernel::Probability,
                _ => SoftmaxKernel::Logarithm,
            };
            let layout = l.layout(y);
            let axis = layout.axis(index::axis(op.axis, shape.len())?, shape.len());
            let physical = layout.physical(shape);
            let operand = l.operand(x, layout)?;
            let target = l.output_over(y, x)?;
            let info = l.info(node, "softmax", "follows its input's layout");
            let from = operand.clone();
            if axis + 1 == physical.len() {
                l.push(info, &[&operand], &[&target], move |env| {
                    let (input, output) = (env.rows(&from)?, env.rows_mut(&target));
                    softmax_channels(env.isa, env.pool, kind, input, output);
                    Ok(())
                });
                return Ok(());
            }
            let inner: usize = physical[axis + 1..].iter().product();
            let outer: usize = physical[..axis].iter().product();
            // Where one position is several rows, they must lie side by side.
            let dense = operand.is_dense() && target.is_dense();
            let apart = !dense && axis + 2 != physical.len();
            let source =
                if apart && !operand.is_dense() { l.dense_copy(&operand, &physical)? } else { operand };
            let (rows, channels) = rows_of(layout, shape);
            let made = if apart && !target.is_dense() {
                l.new_buffer(rows, channels, target.element)
            } else {
                target
            };
            let (from, to) = match dense || apart {
                true => (
                    source.reshaped(outer * physical[axis], inner),
                    made.reshaped(outer * physical[axis], inner),
                ),
                false => (source.clone(), made),
            };
            let extent = physical[axis];
            l.push(info, &[&source], &[&made], move |env| {
                let (input, output) = (env.rows(&from)?, env.rows_mut(&to));
                softmax_rows(env.isa, env.pool, kind, extent, input, output);
                Ok(())
            });
            if made != target {
                l.copy(&Operand::Buffer(made), &target, &physical);
            }
            return Ok(());
        }
        let kind = node.op.as_op::<Reduce>().and_then(|op| reduction(op.function)).ok_or_else(lost)?;
        let axes = reduced_axes(node, &l.facts(), shape.len()).ok_or_else(lost)?;
        let mut layout = if keeps_order(&axes, shape.len()) { l.layout(x) } else { Layout::Plain };
        if axes[0] == 1 && !l.operand(x, layout)?.is_dense() {
            layout = Layout::Plain;
        }
        let physical = layout.physical(shape);
        let mut block: Vec<usize> = axes.iter().map(|&a| layout.axis(a, shape.len())).collect();
        block.sort_unstable();
        let (first, end) = (block[0], block[0] + block.len());
        let outer: usize = physical[..first].iter().product();
        let reduced: usize = physical[first..end].iter().product();
        let inner: usize = physical[end..].iter().product();
        let operand = l.operand(x, layout)?;
        let from =
            if operand.is_dense() { operand.reshaped(outer * reduced, inner) } else { operand.clone() };
        let target = l.output(y)?;
        let flat = target.reshaped(outer, inner);
        let info = l.info(node, "reduction", "axes are reduced where they lie");
        l.push(info, &[&operand], &[&target], move |env| {
            let input = env.strided(&from, &[outer, reduced, inner])?;
            reduce(env.isa, env.pool, kind, input, env.rows_mut(&flat));
            Ok(())
        });
        Ok(())
    }
}

/// Whether what remains of a channels-last value is in ONNX's order: all channels, all pixels, or both are reduced.
fn keeps_order(axes: &[usize], rank: usize) -> bool {
    let spatial: Vec<usize> = (2..rank).collect();
    let all: Vec<usize> = (1..rank).collect();
    rank >= 3 && (axes == [1] || axes == spatial || axes == all)
}
