//! Reshape targets that are computed from open extents become constants where that can be proven.
//!
//! `x.view(x.size(0), -1)` reaches a file as `Shape → Gather → Unsqueeze → Concat → Reshape`. Once the input shapes are
//! fixed, [`super::known_contents`] computes it; this pass does it while they are open, so that an optimised file needs
//! no shape arithmetic either. It follows short lists of integers whose entries are known or are extents of a value. A
//! target is then constant if each entry is known, or is the extent that the reshaped value has at that place (written
//! 0), except one at most, which follows from the others (written -1; holds for tensors that are not empty).

use super::Pass;
use super::rewrite::Rewriter;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::cast::Cast;
use planish_graph::ops::movement::gather::Gather;
use planish_graph::ops::movement::reshape::Reshape;
use planish_graph::ops::movement::shape::Shape;
use planish_graph::ops::movement::slice::Cut;
use planish_graph::{DType, Dim, Graph, Node, NodeId, OperatorExt, Result, Tensor, ValueId};
use std::collections::HashMap;
use std::sync::Arc;

/// Finds constant targets of reshapes.
pub struct SymbolicShapes;

impl Pass for SymbolicShapes {
    fn name(&self) -> &'static str {
        "symbolic-shapes"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        let mut lists = Lists(HashMap::new());
        for id in rewriter.node_ids() {
            if let Some((x, target)) = constant_target(&rewriter, &lists, id) {
                let name = rewriter.node_name(id);
                let target = rewriter.add_constant(&format!("{name}.shape"), Tensor::from_i64s(&target)?);
                rewriter.set(id, Arc::new(Reshape { allow_zero: false }), vec![Some(x), Some(target)]);
            } else if let Some(node) = rewriter.node(id)
                && let Some(output) = node.output()
                && let Some(list) = lists.follow(&rewriter, node)
            {
                lists.0.insert(output, list);
            }
        }
        rewriter.finish()
    }
}

/// One entry of a followed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Known(i64),
    /// The extent of a value along an axis.
    Extent(ValueId, usize),
    Other,
}

/// A followed list of integers.
#[derive(Clone, Debug)]
enum List {
    /// The shape of a value from an axis on, to the end.
    ShapeOf(ValueId, usize),
    /// One number (rank 0).
    Scalar(Entry),
    /// A list (rank 1).
    Entries(Vec<Entry>),
}

/// Longer lists are no shapes.
const LONGEST: usize = 64;

/// What is known of lists of integers, by value.
struct Lists(HashMap<ValueId, List>);

impl Lists {
    fn get(&self, rewriter: &Rewriter, value: ValueId) -> Option<List> {
        let Some(tensor) = rewriter.constant(value) else { return self.0.get(&value).cloned() };
        if tensor.rank() > 1 || tensor.len() > LONGEST {
            return None;
        }
        let mut entries = tensor.to_i64s().ok()?.into_iter().map(Entry::Known);
        Some(if tensor.rank() == 0 {
            List::Scalar(entries.next()?)
        } else {
            List::Entries(entries.collect())
        })
    }
    /// The entries of a list, one where it is a single number.
    fn entries(&self, rewriter: &Rewriter, value: ValueId) -> Option<Vec<Entry>> {
        match self.get(rewriter, value)? {
            List::ShapeOf(of, start) => {
                let dims = rewriter.dims(of)?;
                Some((start..dims.len()).map(|axis| extent(rewriter, of, axis)).collect())
            }
            List::Scalar(entry) => Some(vec![entry]),
            List::Entries(entries) => Some(entries),
        }
    }
    /// What `node` makes of the lists it reads.
    fn follow(&self, rewriter: &Rewriter, node: &Node) -> Option<List> {
        let first = node.input(0)?;
        if let Some(op) = node.op.as_op::<Shape>() {
            let start = usize::try_from(op.start).ok().filter(|_| op.end.is_none())?;
            return Some(List::ShapeOf(first, start));
        }
        match node.op.name() {
            "Gather" => {
                node.op.as_op::<Gather>().filter(|op| op.axis == 0)?;
                let source = self.get(rewriter, first)?;
                let pick = |index: i64| pick(rewriter, &source, index);
                match self.get(rewriter, node.input(1)?)? {
                    List::Scalar(Entry::Known(index)) => Some(List::Scalar(pick(index))),
                    List::Entries(indices) => {
                        let known = |entry| if let Entry::Known(n) = entry { Some(pick(n)) } else { None };
                        Some(List::Entries(indices.into_iter().map(known).collect::<Option<_>>()?))
                    }
                    _ => None,
                }
            }
            "Slice" => {
                let entries = self.entries(rewriter, first)?;
                let one = |index| match rewriter.ints_input(node, index)?[..] {
                    [bound] => Some(bound),
                    _ => None,
                };
                let step = if node.input(4).is_some() { one(4)? } else { 1 };
                let cut = Cut::new(entries.len(), one(1)?, one(2)?, step).ok().filter(|_| step > 0)?;
                let kept = entries.into_iter().skip(cut.start).step_by(cut.step as usize).take(cut.count);
                Some(List::Entries(kept.collect()))
            }
            "Concat" => {
                let mut joined = Vec::new();
                for &part in &node.inputs {
                    joined.extend(self.entries(rewriter, part?)?);
                    if joined.len() > LONGEST {
                        return None;
                    }
                }
                Some(List::Entries(joined))
            }
            "Unsqueeze" => match self.get(rewriter, first)? {
                List::Scalar(entry) => {
                    (rewriter.ints_input(node, 1)?.len() == 1).then(|| List::Entries(vec![entry]))
                }
                _ => None,
            },
            "Squeeze" => match self.get(rewriter, first)? {
                List::Entries(entries) if entries.len() == 1 => Some(List::Scalar(entries[0])),
                _ => None,
            },
            "Cast" => {
                node.op.as_op::<Cast>().filter(|op| op.to == DType::I64)?;
                self.get(rewriter, first)
            }
            _ => {
                let op = node.op.as_op::<Binary>()?;
                let (a, b) = (self.get(rewriter, first)?, self.get(rewriter, node.input(1)?)?);
                match (a, b) {
                    (List::Scalar(a), List::Scalar(b)) => Some(List::Scalar(combine(op.function, a, b))),
                    (List::Entries(a), List::Scalar(b)) => {
                        Some(List::Entries(a.into_iter().map(|a| combine(op.function, a, b)).collect()))
                    }
                    _ => None,
                }
            }
        }
    }
}

/// The extent of `value` along `axis`, where it has that many axes.
fn extent(rewriter: &Rewriter, value: ValueId, axis: usize) -> Entry {
    match rewriter.dims(value).and_then(|dims| dims.get(axis)) {
        Some(&Dim::Fixed(n)) => i64::try_from(n).map_or(Entry::Other, Entry::Known),
        _ => Entry::Extent(value, axis),
    }
}

/// Entry `index` of a list; negative ones count from the end, which must be known then.
fn pick(rewriter: &Rewriter, source: &List, index: i64) -> Entry {
    let place = |length: Option<usize>| match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => length?.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    };
    let found = match source {
        List::ShapeOf(of, start) => place(rewriter.rank(*of).and_then(|rank| rank.checked_sub(*start)))
            .and_then(|index| Some(extent(rewriter, *of, start.checked_add(index)?))),
        List::Entries(entries) => place(Some(entries.len())).and_then(|i| entries.get(i).copied()),
        List::Scalar(_) => None,
    };
    found.unwrap_or(Entry::Other)
}

fn combine(function: BinaryFunction, a: Entry, b: Entry) -> Entry {
    let (Entry::Known(x), Entry::Known(y)) = (a, b) else {
        let neutral = match function {
            BinaryFunction::Mul | BinaryFunction::Div => b == Entry::Known(1),
            BinaryFunction::Add | BinaryFunction::Sub => b == Entry::Known(0),
            _ => false,
        };
        return if neutral { a } else { Entry::Other };
    };
    let result = match function {
        BinaryFunction::Add => x.checked_add(y),
        BinaryFunction::Sub => x.checked_sub(y),
        BinaryFunction::Mul => x.checked_mul(y),
        BinaryFunction::Div => x.checked_div(y),
        _ => None,
    };
    result.map_or(Entry::Other, Entry::Known)
}

/// What the reshape `id` reshapes, and its target as constants, where that is provable and not so yet.
fn constant_target(rewriter: &Rewriter, lists: &Lists, id: NodeId) -> Option<(ValueId, Vec<i64>)> {
    let (node, op) = rewriter.node_of::<Reshape>(id)?;
    let (x, target) = (node.input(0)?, node.input(1)?);
    if op.allow_zero || rewriter.constant(target).is_some() {
        return None;
    }
    let mut open = 0;
    let entries = lists.entries(rewriter, target)?.into_iter().enumerate();
    let constants: Vec<i64> = entries
        .map(|(place, entry)| match entry {
            Entry::Known(n) => {
                open += usize::from(n == -1);
                n
            }
            Entry::Extent(of, axis) if axis == place && same_extent(rewriter, of, x, axis) => 0,
            Entry::Extent(..) | Entry::Other => {
                open += 1;
                -1
            }
        })
        .collect();
    (open <= 1).then_some((x, constants))
}

/// Whether two values have the same extent along `axis`: they are the same, or the file names both extents alike.
fn same_extent(rewriter: &Rewriter, a: ValueId, b: ValueId, axis: usize) -> bool {
    let symbol = |value| match rewriter.dims(value).and_then(|dims| dims.get(axis)) {
        Some(Dim::Symbol(name)) => Some(name),
        _ => None,
    };
    a == b || symbol(a).is_some_and(|name| symbol(b) == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check, input, list};
    use planish_graph::ops::movement::concat::Concat;
    use planish_graph::ops::movement::squeeze::Unsqueeze;

    /// Reshapes "x" `[batch, 6, height]` to its extents at `picked` and then `rest`.
    fn reshaping(picked: &[i64], rest: &[i64]) -> Graph {
        let (mut g, x) = input(&[]);
        let open = |name: &str| Dim::Symbol(name.to_string());
        g.value_mut(x).shape = Some(vec![open("batch"), Dim::Fixed(6), open("height")]);
        let shape = g.add_node("shape", Shape { start: 0, end: None }, &[x]);
        let axis = list(&mut g, "axis", &[0]);
        let mut parts = Vec::new();
        for (i, &index) in picked.iter().enumerate() {
            let at = g.add_constant(&format!("at{i}"), Tensor::scalar(index));
            let extent = g.add_node(&format!("extent{i}"), Gather { axis: 0 }, &[shape, at]);
            parts.push(g.add_node(&format!("part{i}"), Unsqueeze, &[extent, axis]));
        }
        parts.push(list(&mut g, "rest", rest));
        let target = g.add_node("target", Concat { axis: 0 }, &parts);
        let y = g.add_node("y", Reshape { allow_zero: false }, &[x, target]);
        g.outputs.push(y);
        g
    }

    #[test]
    fn targets_that_follow_become_constant() {
        for (picked, rest, target) in [
            (&[0][..], &[-1][..], &[0, -1][..]),
            (&[0, 1], &[-1], &[0, 6, -1]),
            (&[2], &[12], &[-1, 12]),
            (&[0, -1, 1], &[], &[0, -1, 6]),
        ] {
            let g = check(&SymbolicShapes, reshaping(picked, rest), &[("Reshape", 1)]);
            assert_eq!(g.constant(g.nodes[0].inputs[1].unwrap()).unwrap().to_i64s().unwrap(), target);
        }
    }

    #[test]
    fn two_open_entries_stay() {
        for (picked, rest) in [(&[2, 0][..], &[6][..]), (&[2], &[-1]), (&[0, 2], &[-1])] {
            let g = reshaping(picked, rest);
            let mut after = g.clone();
            assert_eq!(SymbolicShapes.run(&mut after).unwrap(), 0, "{picked:?} {rest:?}");
        }
    }

    #[test]
    fn arithmetic_on_known_entries_is_followed() {
        let (mut g, x) = input(&[]);
        g.value_mut(x).shape = Some(vec![Dim::Unknown, Dim::Fixed(6)]);
        let shape = g.add_node("shape", Shape { start: 0, end: None }, &[x]);
        let one = g.add_constant("one", Tensor::scalar(1i64));
        let channels = g.add_node("channels", Gather { axis: 0 }, &[shape, one]);
        let two = g.add_constant("two", Tensor::scalar(2i64));
        let half = binary(&mut g, "half", BinaryFunction::Div, channels, two);
        let axis = list(&mut g, "axis", &[0]);
        let half = g.add_node("halves", Unsqueeze, &[half, axis]);
        let pair = list(&mut g, "pair", &[-1, 2]);
        let target = g.add_node("target", Concat { axis: 0 }, &[pair, half]);
        let y = g.add_node("y", Reshape { allow_zero: false }, &[x, target]);
        g.outputs.push(y);
        check(&SymbolicShapes, g, &[("Reshape", 1)]);
    }
}
