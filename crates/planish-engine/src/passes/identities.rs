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
