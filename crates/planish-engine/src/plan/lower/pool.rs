//! Pooling, over windows and over whole maps.

use super::{Facts, Family, Keeps, Layout, Lowering, Wish};
use planish_cpu::element::ElementType;
use planish_cpu::for_element;
use planish_cpu::pooling::{PoolAxis, PoolProblem, Pooling, pool};
use planish_cpu::reduce::{Reduction, reduce};
use planish_graph::ops::nn::global_pool::{GlobalPool, GlobalPoolKind};
use planish_graph::ops::nn::lp_pool::LpPool;
use planish_graph::ops::nn::pool::{AveragePool, MaxPool};
use planish_graph::ops::nn::window::Window;
use planish_graph::{Error, Node, OperatorExt, Result};

/// MaxPool, AveragePool, LpPool and their global forms.
pub(super) struct Pools;

/// Numbers of an image from which on its mean is computed in pieces, so that threads can share it; below, it takes a few
/// microseconds.
const SHARED_FROM: usize = 128 * 1024;

/// What a node does with a window of which size.
pub(super) fn parts(node: &Node, input: &[usize]) -> Option<(Pooling, Window)> {
    if !(3..=5).contains(&input.len()) {
        return None;
    }
    if let Some(op) = node.op.as_op::<MaxPool>() {
        // Indices are for unpooling; nothing fast wants them.
        return if node.outputs.len() == 1 {
            Some((Pooling::Max, op.window.resolve(input).ok()?))
        } else {
            None
        };
    }
    if let Some(op) = node.op.as_op::<AveragePool>() {
        let kind = Pooling::Average { count_include_pad: op.count_include_pad };
        return Some((kind, op.window.resolve(input).ok()?));
    }
    if let Some(op) = node.op.as_op::<LpPool>() {
        let kind = match op.p {
            1 => Pooling::L1,
            2 => Pooling::L2,
            _ => return None,
        };
        return Some((kind, op.window.resolve(input).ok()?));
    }
    let kind = match node.op.as_op::<GlobalPool>()?.kind {
        GlobalPoolKind::Max => Pooling::Max,
        GlobalPoolKind::Average => Pooling::Average { count_include_pad: false },
        GlobalPoolKind::Lp { p: 1 } => Pooling::L1,
        GlobalPoolKind::Lp { p: 2 } => Pooling::L2,
        GlobalPoolKind::Lp { .. } => return None,
    };
    let spatial = &input[2..];
    let ones = vec![1; spatial.len()];
    let none = vec![0; spatial.len()];
    let window = Window {
        input: spatial.to_vec(),
        kernel: spatial.to_vec(),
        strides: ones.clone(),
        dilations: ones.clone(),
        pads_begin: none.clone(),
        pads_end: none,
        output: ones,
    };
    (!spatial.contains(&0)).then_some((kind, window))
}

pub(super) fn problem(images: usize, window: &Window) -> PoolProblem {
    let window = window.volumetric();
    let axis = |i: usize| PoolAxis {
        input: window.input[i],
        output: window.output[i],
        kernel: window.kernel[i],
        stride: window.strides[i],
        dilation: window.dilations[i],
        pad_begin: window.pads_begin[i],
        pad_end: window.pads_end[i],
    };
    PoolProblem { images, axes: [axis(0), axis(1), axis(2)] }
}

impl Family for Pools {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let (input, _) = facts.moved(node, 0)?;
        let (kind, _) = parts(node, input)?;
        // Of levels there is a largest without knowing their scale.
        (kind == Pooling::Max || facts.input(node, 0).is_some()).then_some(Wish::ChannelsLast)
    }

    fn keeps(&self, _: &Node, _: &Facts<'_>, _: &[Layout]) -> Keeps {
        Keeps::Follow
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let lost = || Error::invalid("a pooling node lost its input or output");
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let shape = l.shape(x)?;
        let (kind, window) = parts(node, shape).ok_or_else(lost)?;
        let problem = problem(shape[0], &window);
        let operand = l.operand_as(x, Layout::ChannelsLast, l.element(y))?;
        let target = l.output(y)?;
        let average = node.op.as_op::<GlobalPool>().is_some_and(|op| op.kind == GlobalPoolKind::Average);
        let pixels: usize = shape[2..].iter().product();
        if average && target.element == ElementType::F32 && pixels * shape[1] >= SHARED_FROM {
            let info = l.info(node, "reduction", "a large map is shared among threads");
            let (from, extents) = (operand.clone(), [shape[0], pixels, shape[1]]);
            l.push(info, &[&operand], &[&target], move |env| {
                let input = env.strided(&from, &extents)?;
                reduce(env.isa, env.pool, Reduction::Mean, input, env.rows_mut(&target));
                Ok(())
            });
            return Ok(());
        }
        let info = l.info(node, "pooling", "vectorised over channels");
        let from = operand.clone();
        l.push(info, &[&operand], &[&target], move |env| {
            for_element!(target.element, T => {
                let (input, output) = (env.rows::<T>(&from)?, env.rows_mut(&target));
                pool(env.isa, env.pool, kind, &problem, input, output);
            });
            Ok(())
        });
        Ok(())
    }
}
