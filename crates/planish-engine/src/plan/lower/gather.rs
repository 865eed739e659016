//! Picking slices along an axis by constant indices. Detectors take their scores class by class this way, and a
//! reference would copy all scores once for each class.

use super::{Facts, Family, Layout, Lowering, Wish};
use planish_cpu::for_element;
use planish_cpu::gather::{IndexTable, gather};
use planish_graph::ops::movement::gather::Gather;
use planish_graph::tensor::index;
use planish_graph::{Error, Node, OperatorExt, Result};

/// Gather with constant indices.
pub(super) struct Gathers;

/// What a Gather does to an input seen as `[outer, extent, inner]`.
struct Picks {
    physical: [usize; 3],
    /// The indices along the middle axis.
    indices: Vec<usize>,
}

fn picks(node: &Node, facts: &Facts<'_>) -> Option<Picks> {
    let op = node.op.as_op::<Gather>()?;
    let (shape, indices) = (facts.moved(node, 0)?.0, facts.constant(node, 1)?);
    let axis = index::axis(op.axis, shape.len()).ok()?;
    let extent = shape[axis];
    // An index outside is the reference's to refuse.
    let position = |i: i64| index::axis(i, extent).ok();
    Some(Picks {
        physical: [shape[..axis].iter().product(), extent, shape[axis + 1..].iter().product()],
        indices: indices.to_i64s().ok()?.into_iter().map(position).collect::<Option<_>>()?,
    })
}

impl Family for Gathers {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        picks(node, facts).map(|_| Wish::Plain)
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let lost = || Error::invalid("a gathering lost its input or output");
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let Picks { physical, indices } = picks(node, &l.facts()).ok_or_else(lost)?;
        let [outer, extent, inner] = physical;
        let operand = l.operand(x, Layout::Plain)?;
        let target = l.output(y)?;
        let count = indices.len();
        let from = operand.reshaped(outer * extent, inner);
        let to = target.reshaped(outer * count, inner);
        let (first, reason) = (indices[0], "the indices are constant");
        if indices.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
            let info = l.info(node, "strided copy", reason);
            l.push(info, &[&operand], &[&target], move |env| {
                for_element!(to.element, T => {
                    let input = env.strided::<T>(&from, &physical)?.window(1, first, count, 1);
                    let output = env.strided_mut(&to, &[outer, count, inner]);
                    planish_cpu::copy::copy(env.isa, env.pool, input, output);
                });
                Ok(())
            });
            return Ok(());
        }
        let whole = |extent: usize| (0..extent).map(Some).collect();
        let tables: [IndexTable; 3] = [whole(outer), indices.into_iter().map(Some).collect(), whole(inner)];
        let info = l.info(node, "index tables", reason);
        l.push(info, &[&operand], &[&target], move |env| {
            for_element!(to.element, T => {
                let input = env.strided::<T>(&from, &physical)?;
                gather(env.pool, &tables, T::default(), input, env.strided_mut(&to, &[outer, count, inner]));
            });
            Ok(())
        });
        Ok(())
    }
}
