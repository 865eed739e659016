//! Means over all pixels become `GlobalAveragePool`.
//!
//! Exporters write the last pooling as `ReduceMean` over the spatial axes, or as an `AveragePool` whose window is the
//! whole image. One operator for all of them means one kernel.

use super::Pass;
use super::rewrite::Rewriter;
use planish_graph::ops::math::reduce::{Reduce, ReduceFunction};
use planish_graph::ops::movement::flatten::Flatten;
use planish_graph::ops::nn::global_pool::{GlobalPool, GlobalPoolKind};
use planish_graph::ops::nn::pool::AveragePool;
use planish_graph::tensor::index;
use planish_graph::{Dim, Graph, Node, NodeId, Result, ValueId};
use std::sync::Arc;

/// Recognises pooling over whole images.
pub struct GlobalPools;

const POOL: GlobalPool = GlobalPool { kind: GlobalPoolKind::Average };

impl Pass for GlobalPools {
    fn name(&self) -> &'static str {
        "global-pools"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some(x) = whole_window(&rewriter, id) {
                rewriter.set(id, Arc::new(POOL), vec![Some(x)]);
            } else if let Some((x, keeps_axes)) = spatial_mean(&rewriter, id) {
                if keeps_axes {
                    rewriter.set(id, Arc::new(POOL), vec![Some(x)]);
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
    let name = rewriter.node_name(id);
    let pooled = rewriter.add_value(&format!("{name}.pooled"), rewriter.dtype(x), shape);
    let (inputs, outputs) = (vec![Some(x)], vec![Some(pooled)]);
    rewriter.insert(id, Node { name, op: Arc::new(POOL), inputs, outputs });
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
    // The mean of nothing is NaN, and a pool refuses it; extents still open are asked again when they are known.
    if !rewriter.dims(x)?[2..].iter().all(|d| matches!(d, Dim::Fixed(n) if *n > 0)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_inferred, input, list};
    use planish_graph::ops::nn::pool::PoolWindow;

    fn reduced(function: ReduceFunction, axes: &[i64], keepdims: bool) -> Graph {
        let (mut g, x) = input(&[2, 3, 4, 5]);
        let axes = list(&mut g, "axes", axes);
        let y = g.add_node("y", Reduce { function, keepdims, noop_with_empty_axes: false }, &[x, axes]);
        g.outputs.push(y);
        g
    }
    fn pooled(kernel_shape: &[usize], pads: &[usize]) -> Graph {
        let (mut g, x) = input(&[2, 3, 4, 5]);
        let (kernel_shape, pads) = (kernel_shape.to_vec(), pads.to_vec());
        let window = PoolWindow { kernel_shape, pads, strides: vec![9, 9], ..PoolWindow::default() };
        let y = g.add_node("y", AveragePool { window, count_include_pad: true }, &[x]);
        g.outputs.push(y);
        g
    }

    #[test]
    fn means_over_all_pixels_are_global_pools() {
        let mean = ReduceFunction::Mean;
        check_inferred(&GlobalPools, reduced(mean, &[2, 3], true), &[("GlobalAveragePool", 1)]);
        check_inferred(&GlobalPools, reduced(mean, &[-1, -2], true), &[("GlobalAveragePool", 1)]);
        let flat = &[("GlobalAveragePool", 1), ("Flatten", 1)];
        check_inferred(&GlobalPools, reduced(mean, &[3, 2], false), flat);
        check_inferred(&GlobalPools, pooled(&[4, 5], &[]), &[("GlobalAveragePool", 1)]);
    }

    #[test]
    fn other_reductions_stay() {
        check_inferred(&GlobalPools, reduced(ReduceFunction::Mean, &[1, 2], true), &[("ReduceMean", 1)]);
        check_inferred(&GlobalPools, reduced(ReduceFunction::Mean, &[3], true), &[("ReduceMean", 1)]);
        check_inferred(&GlobalPools, reduced(ReduceFunction::Sum, &[2, 3], true), &[("ReduceSum", 1)]);
        check_inferred(&GlobalPools, pooled(&[4, 4], &[]), &[("AveragePool", 1)]);
        check_inferred(&GlobalPools, pooled(&[4, 5], &[1, 0, 0, 0]), &[("AveragePool", 1)]);
    }
}
