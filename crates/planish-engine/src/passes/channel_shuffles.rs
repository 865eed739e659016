//! Channel shuffles, which files spell as reshape, transposition and reshape, become one operator.
//!
//! The three nodes copy the feature map through five axes; one operator is one permutation of channels, which a
//! channels-last kernel does in a single pass.

use super::Pass;
use super::reshapes::keeps_order;
use super::rewrite::Rewriter;
use planish_graph::ops::movement::transpose::Transpose;
use planish_graph::ops::nn::channel_shuffle::ChannelShuffle;
use planish_graph::{Graph, NodeId, Result, ValueId};
use std::sync::Arc;

/// Recognises channel shuffles.
pub struct ChannelShuffles;

impl Pass for ChannelShuffles {
    fn name(&self) -> &'static str {
        "channel-shuffles"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((x, groups)) = shuffled(&rewriter, id) {
                rewriter.set(id, Arc::new(ChannelShuffle { groups }), vec![Some(x)]);
            }
        }
        rewriter.finish()
    }
}

/// What the reshape at `id` completes the shuffle of, and in how many groups.
fn shuffled(rewriter: &Rewriter, id: NodeId) -> Option<(ValueId, usize)> {
    let last = rewriter.node(id).filter(|node| keeps_order(&*node.op))?;
    let (_, middle, transpose) = rewriter.maker_of::<Transpose>(last.input(0)?)?;
    let split = middle.input(0)?;
    let first = rewriter.node(rewriter.maker(split)?).filter(|node| keeps_order(&*node.op))?;
    let x = first.input(0)?;
    let shape = rewriter.shape(x)?;
    let parts = rewriter.shape(split)?;
    let &[batch, channels, ref pixels @ ..] = &shape[..] else { return None };
    let &[outer, groups, each, ref kept @ ..] = &parts[..] else { return None };
    let order = transpose.order(parts.len()).ok()?;
    let swaps = order.starts_with(&[0, 2, 1]) && order.iter().copied().skip(3).eq(3..parts.len());
    let splits = outer == batch && groups > 0 && groups.checked_mul(each) == Some(channels) && kept == pixels;
    (swaps && splits && rewriter.shape(last.output()?)? == shape).then_some((x, groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_inferred, input, list};
    use planish_graph::ops::movement::reshape::Reshape;

    fn shuffle(split: &[i64], perm: &[usize], last: &[i64]) -> Graph {
        let (mut g, x) = input(&[2, 6, 2, 3]);
        let shape = list(&mut g, "split", split);
        let parts = g.add_node("parts", Reshape { allow_zero: false }, &[x, shape]);
        let swapped = g.add_node("swapped", Transpose { perm: Some(perm.to_vec()) }, &[parts]);
        let shape = list(&mut g, "shape", last);
        let y = g.add_node("y", Reshape { allow_zero: false }, &[swapped, shape]);
        g.outputs.push(y);
        g
    }

    #[test]
    fn shuffles_become_one_operator() {
        let g = shuffle(&[2, 3, 2, 2, 3], &[0, 2, 1, 3, 4], &[0, -1, 2, 3]);
        check_inferred(&ChannelShuffles, g, &[("ChannelShuffle", 1)]);
    }

    #[test]
    fn other_orders_are_no_shuffles() {
        let nodes = &[("Reshape", 2), ("Transpose", 1)];
        check_inferred(&ChannelShuffles, shuffle(&[2, 3, 2, 2, 3], &[1, 0, 2, 3, 4], &[2, 6, 2, 3]), nodes);
        check_inferred(&ChannelShuffles, shuffle(&[2, 3, 2, 3, 2], &[0, 2, 1, 3, 4], &[2, 6, 2, 3]), nodes);
        check_inferred(&ChannelShuffles, shuffle(&[2, 3, 2, 2, 3], &[0, 2, 1, 3, 4], &[2, 6, 3, 2]), nodes);
    }
}
