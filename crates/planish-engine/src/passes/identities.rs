//! Nodes that change nothing go away.
//!
//! Exporters leave `Identity` and inference-time `Dropout` behind; conversions leave casts to the same type, reshapes to
//! the same shape, paddings by nothing, slices of everything, joins of one part. Shapes must be proven equal, so most of
//! this happens once they are fixed.

use super::Pass;
use super::pattern::{plus_scalar, times_scalar};
use super::rewrite::Rewriter;
use planish_graph::ops::math::cast::Cast;
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::variadic::Variadic;
use planish_graph::ops::movement::identity::Identity;
use planish_graph::ops::movement::transpose::Transpose;
use planish_graph::{Graph, Node, NodeId, OperatorExt, Result, ValueId};

/// Takes nodes away that pass their input through.
pub struct Identities;

impl Pass for Identities {
    fn name(&self) -> &'static str {
        "identities"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((output, input)) = passed_through(&rewriter, id) {
                rewriter.replace(output, input);
            }
        }
        rewriter.finish()
    }
}

/// The output of `id` and the input that it equals.
fn passed_through(rewriter: &Rewriter, id: NodeId) -> Option<(ValueId, ValueId)> {
    let node = rewriter.node(id)?;
    let output = node.output()?;
    if node.outputs[1..].iter().flatten().any(|&other| !rewriter.is_unused(other)) {
        return None;
    }
    let neutral = times_scalar(rewriter, id)
        .filter(|(_, factor)| *factor == 1.0)
        .or_else(|| plus_scalar(rewriter, id).filter(|(_, offset)| *offset == 0.0));
    if let Some((x, _)) = neutral {
        return Some((output, x));
    }
    let input = node.input(0)?;
    keeps_first_input(rewriter, node, input, output).then_some((output, input))
}

fn keeps_first_input(rewriter: &Rewriter, node: &Node, input: ValueId, output: ValueId) -> bool {
    let same_shape = || rewriter.shape(input).is_some_and(|shape| rewriter.shape(output) == Some(shape));
    let given = node.inputs.iter().flatten().count();
    match node.op.name() {
        "Identity" => node.op.is_op::<Identity>(),
        "Dropout" => match node.input(2) {
            None => true,
            Some(training) => rewriter.constant(training).is_some_and(|t| t.bytes().iter().all(|&b| b == 0)),
        },
        "Cast" => node.op.as_op::<Cast>().is_some_and(|op| rewriter.dtype(input) == Some(op.to)),
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Expand" | "Tile" => same_shape(),
        "Slice" => {
            let forwards = match node.input(4) {
                None => true,
                Some(_) => rewriter.ints_input(node, 4).is_some_and(|steps| steps.iter().all(|&s| s > 0)),
            };
            forwards && (same_shape() || takes_everything(rewriter, node))
        }
        // Every element in its place, as indexing by a range of the whole axis writes it.
        "Gather" => {
            same_shape()
                && rewriter.ints_input(node, 1).is_some_and(|at| at.iter().copied().eq(0..at.len() as i64))
        }
        "Pad" => rewriter.ints_input(node, 1).is_some_and(|pads| pads.iter().all(|&p| p == 0)),
        "Transpose" => node.op.as_op::<Transpose>().is_some_and(|op| match &op.perm {
            Some(perm) => perm.iter().copied().eq(0..perm.len()),
            None => rewriter.rank(input).is_some_and(|rank| rank < 2),
        }),
        "Concat" => given == 1,
        "Clip" => given == 1 && node.op.is_op::<Clip>(),
        _ => given == 1 && node.op.is_op::<Variadic>(),
    }
}

/// Whether a forward slice begins at 0, ends where no axis reaches and leaves nothing out.
fn takes_everything(rewriter: &Rewriter, node: &Node) -> bool {
    let all = |index, test: fn(i64) -> bool| {
        rewriter.ints_input(node, index).is_some_and(|values| values.into_iter().all(test))
    };
    let each_one = node.input(4).is_none() || all(4, |step| step == 1);
    each_one && all(1, |start| start == 0) && all(2, |end| end >= i64::from(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check, check_inferred, input, list, scalar, unary, weights};
    use planish_graph::ops::math::binary::BinaryFunction::{Add, Div, Mul, Sub};
    use planish_graph::ops::math::unary::UnaryFunction::Relu;
    use planish_graph::ops::math::variadic::VariadicFunction;
    use planish_graph::ops::movement::concat::Concat;
    use planish_graph::ops::movement::expand::Expand;
    use planish_graph::ops::movement::gather::Gather;
    use planish_graph::ops::movement::pad::{Pad, PadMode};
    use planish_graph::ops::movement::reshape::Reshape;
    use planish_graph::ops::movement::slice::Slice;
    use planish_graph::{DType, Tensor};

    #[test]
    fn what_changes_nothing_goes() {
        let (mut g, x) = input(&[2, 3]);
        let one = scalar(&mut g, "one", 1.0);
        let zero = scalar(&mut g, "zero", 0.0);
        let shape = list(&mut g, "shape", &[2, 3]);
        let begin = list(&mut g, "begin", &[0, 0]);
        let end = list(&mut g, "end", &[2, i64::MAX]);
        let pads = list(&mut g, "pads", &[0, 0, 0, 0]);
        let mut v = unary(&mut g, "first", Relu, x);
        v = g.add_node("identity", Identity, &[v]);
        v = g.add_node("cast", Cast::new(DType::F32), &[v]);
        v = g.add_node("reshape", Reshape { allow_zero: false }, &[v, shape]);
        v = g.add_node("expand", Expand, &[v, shape]);
        v = g.add_node("slice", Slice, &[v, begin, end]);
        let indices = list(&mut g, "indices", &[0, 1, 2]);
        v = g.add_node("gather", Gather { axis: -1 }, &[v, indices]);
        v = g.add_node("pad", Pad { mode: PadMode::Constant }, &[v, pads]);
        v = g.add_node("transpose", Transpose { perm: Some(vec![0, 1]) }, &[v]);
        v = g.add_node("concat", Concat { axis: 1 }, &[v]);
        v = g.add_node("clip", Clip, &[v]);
        v = g.add_node("sum", Variadic { function: VariadicFunction::Sum }, &[v]);
        v = binary(&mut g, "times", Mul, one, v);
        v = binary(&mut g, "over", Div, v, one);
        v = binary(&mut g, "plus", Add, v, zero);
        v = binary(&mut g, "minus", Sub, v, zero);
        g.outputs.push(v);
        check_inferred(&Identities, g, &[("Relu", 1)]);
    }

    #[test]
    fn what_changes_something_stays() {
        let (mut g, x) = input(&[2, 3]);
        let begin = list(&mut g, "begin", &[-1, -1]);
        let end = list(&mut g, "end", &[i64::MIN, i64::MIN]);
        let axes = list(&mut g, "axes", &[0, 1]);
        let back = list(&mut g, "back", &[-1, -1]);
        let turned = g.add_node("turned", Slice, &[x, begin, end, axes, back]);
        let pads = list(&mut g, "pads", &[1, 0, -1, 0]);
        let moved = g.add_node("moved", Pad { mode: PadMode::Constant }, &[turned, pads]);
        let ones = g.add_constant("ones", Tensor::new(&[1, 1, 1], &[1f32]).unwrap());
        let deeper = binary(&mut g, "deeper", Mul, moved, ones);
        let one = scalar(&mut g, "one", 1.0);
        let inverse = binary(&mut g, "inverse", Div, one, deeper);
        let row = weights(&mut g, "row", &[3]);
        let sum = binary(&mut g, "sum", Add, inverse, row);
        g.outputs.push(sum);
        let nodes = &[("Slice", 1), ("Pad", 1), ("Mul", 1), ("Div", 1), ("Add", 1)];
        check_inferred(&Identities, g, nodes);
    }

    #[test]
    fn inputs_and_outputs_keep_their_names() {
        let (mut g, x) = input(&[2]);
        let y = g.add_node("y", Identity, &[x]);
        let z = g.add_node("z", Identity, &[y]);
        g.outputs = vec![y, z];
        check(&Identities, g, &[("Identity", 2)]);
    }
}
