//! Padding and cropping by known amounts.

use super::{Facts, Family, Lowering, Wish};
use planish_cpu::element::Element;
use planish_cpu::for_element;
use planish_cpu::gather::{IndexTable, PadMode as Kernel, gather};
use planish_cpu::strided::MAX_RANK;
use planish_graph::ops::movement::pad::{Pad, PadMode};
use planish_graph::tensor::index;
use planish_graph::{Error, Node, OperatorExt, Result};

/// Pad in every mode, where the amounts are known.
pub(super) struct Pads;

/// What is added before and behind each axis of an input of rank `rank`; negative amounts crop.
fn amounts(node: &Node, facts: &Facts<'_>, rank: usize) -> Option<Vec<(isize, isize)>> {
    let pads = facts.constant(node, 1)?.to_i64s().ok()?;
    let axes: Vec<usize> = match node.input(3) {
        None => (0..rank).collect(),
        Some(_) => index::axes(&facts.constant(node, 3)?.to_i64s().ok()?, rank).ok()?,
    };
    let mut amounts = vec![(0, 0); rank];
    for (i, &axis) in axes.iter().enumerate() {
        amounts[axis] = (*pads.get(i)? as isize, *pads.get(i + axes.len())? as isize);
    }
    Some(amounts)
}

impl Family for Pads {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        node.op.as_op::<Pad>()?;
        let (input, output) = facts.moved(node, 0)?;
        let fill = node.input(2).is_none() || facts.constant(node, 2).is_some();
        let known = fill && amounts(node, facts, input.len()).is_some();
        (known && input.len() <= MAX_RANK && !input.contains(&0) && !output.contains(&0))
            .then_some(Wish::Follow)
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let lost = || Error::invalid("a pad lost its input or output");
        let op = node.op.as_op::<Pad>().ok_or_else(lost)?;
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let (input, layout) = (l.shape(x)?, l.layout(y));
        let rank = input.len();
        let mode = match op.mode {
            PadMode::Constant => Kernel::Constant,
            PadMode::Reflect => Kernel::Reflect,
            PadMode::Edge => Kernel::Edge,
            PadMode::Wrap => Kernel::Wrap,
        };
        let fill = node
            .input(2)
            .and_then(|v| l.constant(v))
            .and_then(|t| t.to_f32s().first().copied())
            .unwrap_or(0.0);
        let amounts = amounts(node, &l.facts(), rank).ok_or_else(lost)?;
        let mut tables: Vec<IndexTable> = vec![IndexTable::default(); rank];
        for (axis, &(begin, end)) in amounts.iter().enumerate() {
            tables[layout.axis(axis, rank)] = mode.table(input[axis], begin, end);
        }
        let operand = l.operand(x, layout)?;
        let target = l.output(y)?;
        let (from_shape, to_shape) = (layout.physical(input), layout.physical(l.shape(y)?));
        let info = l.info(node, "gather", "by one table an axis");
        let from = operand.clone();
        l.push(info, &[&operand], &[&target], move |env| {
            for_element!(target.element, T => {
                let (input, output) = (env.strided(&from, &from_shape)?, env.strided_mut(&target, &to_shape));
                gather(env.pool, &tables, <T as Element>::from_f32(fill), input, output);
            });
            Ok(())
        });
        Ok(())
    }
}
