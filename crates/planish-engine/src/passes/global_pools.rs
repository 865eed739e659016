//! Means over all pixels become `GlobalAveragePool`.
//!
//! Exporters write the last pooling as `ReduceMean` over the spatial axes, or as an `AveragePool` whose window is the
//! whole image. One operator for all of them means one kernel.

use super::Pass;
use super::rewrite::Rewriter;
use planish_graph::ops::math::reduce::{Reduce, ReduceFunction};
use planish_graph::ops::movement::flatten::Flatten;
use planish_graph::ops::nn::global_pool::GlobalAveragePool;
use planish_graph::ops::nn::pool::AveragePool;
use planish_graph::tensor::index;
use planish_graph::{Dim, Graph, NodeId, Result, ValueId};
use std::sync::Arc;

/// Recognises pooling over whole images.
pub struct GlobalPools;

impl Pass for GlobalPools {
    fn name(&self) -> &'static str {
        "global-pools"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some(x) = whole_window(&rewriter, id) {
                rewriter.set(id, Arc::new(GlobalAveragePool), vec![Some(x)]);
            } else if let Some((x, keeps_axes)) = spatial_mean(&rewriter, id) {
                if keeps_axes {
                    rewriter.set(id, Arc::new(GlobalAveragePool), vec![Some(x)]);
                } else {
                    flat_pool(&mut rewriter, id, x);
                }
            }
        }
        rewriter.finish()
    }
}

/// Pools `x` before node `id`, which flattens the result.
fn flat_pool(rewriter: &mut Rewriter, id: NodeId, x: ValueId) {
    let shape = rewriter.dims(x).map(|dims| {
        let one = |(axis, dim): (usize, &Dim)| if axis < 2 { dim.clone() } else { Dim::Fixed(1) };
        dims.iter().enumerate().map(one).collect()
    });
    let name = rewriter.node(id).map(|node| node.name.clone()).unwrap_or_default();
    let pooled = rewriter.add_value(&format!("{name}.pooled"), rewriter.dtype(x), shape);
    rewriter.insert(id, Arc::new(GlobalAveragePool), vec![Some(x)], pooled);
    rewriter.set(id, Arc::new(Flatten { axis: 1 }), vec![Some(pooled)]);
}

/// The input of a mean over all spatial axes, and whether these stay with extent 1.
fn spatial_mean(rewriter: &Rewriter, id: NodeId) -> Option<(ValueId, bool)> {
    let (node, op) = rewriter.node_of::<Reduce>(id)?;
    let x = node.input(0)?;
    let rank = rewriter.rank(x).filter(|&rank| rank > 2)?;
    if op.function != ReduceFunction::Mean || !rewriter.dtype(x)?.is_float() {
        return None;
    }
    let mut axes = index::axes(&rewriter.ints_input(node, 1)?, rank).ok()?;
    axes.sort_unstable();
    axes.into_iter().eq(2..rank).then_some((x, op.keepdims))
}

/// The input of an average pool whose one window is the whole image.
fn whole_window(rewriter: &Rewriter, id: NodeId) -> Option<ValueId> {
    let (node, op) = rewriter.node_of::<AveragePool>(id)?;
    let x = node.input(0)?;
    let window = op.window.resolve(&rewriter.shape(x)?).ok()?;
    let padded = window.pads_begin.iter().chain(&window.pads_end).any(|&p| p > 0);
    let whole = window.input == window.kernel && window.output.iter().all(|&n| n == 1);
    (whole && !padded).then_some(x)
}
