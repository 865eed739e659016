//! Residual additions move into the convolution before them, on levels as on numbers.
//!
//! Where a convolution's result is quantised before the addition, the kernel does that as well: it rounds its sum to levels
//! of that grid, and goes on with what they mean. So nothing is written and read again, and the network stays what it was
//! trained to be.

use super::super::Pass;
use super::super::fuse_convolutions::convolution;
use super::super::rewrite::Rewriter;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::nn::fused::FusedActivation;
use planish_graph::ops::nn::quantized::fused::Quantised;
use planish_graph::{DType, Graph, NodeId, OperatorExt, Result, ValueId};
use std::sync::Arc;

/// Fuses additions of levels into the convolutions before them.
pub struct QuantisedResiduals;

impl Pass for QuantisedResiduals {
    fn name(&self) -> &'static str {
        "quantised-residuals"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((layer, op, inputs)) = added(&rewriter, id) {
                rewriter.fuse(id, layer, Arc::new(op), inputs);
            }
        }
        rewriter.finish()
    }
}

/// The addition `id` with a convolution that makes one operand; the other is the shortcut.
fn added(rewriter: &Rewriter, id: NodeId) -> Option<(NodeId, Quantised, Vec<Option<ValueId>>)> {
    let (node, sum) = rewriter.node_of::<Quantised>(id)?;
    sum.op.as_op::<Binary>().filter(|op| op.function == BinaryFunction::Add)?;
    let (a, b) = (node.input(0)?, node.input(1)?);
    let shape = rewriter.shape(node.output()?)?;
    if a == b || rewriter.shape(a)? != shape || rewriter.shape(b)? != shape {
        return None;
    }
    let candidate = |value: ValueId, index: usize, shortcut: ValueId| {
        let maker = rewriter.maker(value).filter(|_| rewriter.use_count(value) == 1)?;
        let (before, layer) = rewriter.node_of::<Quantised>(maker)?;
        let fused = convolution(&*layer.op).filter(|op| op.activation == FusedActivation::None)?;
        if before.input(3).is_some() || sum.input(index) != layer.output.as_ref() {
            return None;
        }
        let mut inputs = before.inputs.clone();
        inputs.resize(3, None);
        inputs.push(Some(shortcut));
        let mut grids = layer.inputs.clone();
        grids.resize(3, None);
        grids.push(Some(sum.input(1 - index).filter(|grid| grid.dtype == DType::U8)?.clone()));
        let (output, inner) = (sum.output.clone(), layer.output.clone());
        Some((maker, Quantised { op: Arc::new(fused), inputs: grids, output, inner }, inputs))
    };
    let candidates = [candidate(a, 0, b), candidate(b, 1, a)].into_iter().flatten();
    candidates.max_by_key(|(maker, ..)| *maker)
}
