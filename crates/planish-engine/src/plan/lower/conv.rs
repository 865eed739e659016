//! Convolutions with constant weights: the planner's choice of algorithm, with everything fused behind it.

use super::{Facts, Family, Layout, Lowering, Operand, Wish};
use planish_cpu::conv::ConvProblem;
use planish_cpu::epilogue::Activation;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::conv_add::{ConvAdd, FusedActivation};
use planish_graph::{DType, Error, Node, OperatorExt, Result};

/// Conv and ConvAdd.
pub(super) struct Convolutions;

/// The activation that a graph names, as the kernels know it.
pub(super) fn activation(fused: FusedActivation) -> Activation {
    match fused {
        FusedActivation::None => Activation::None,
        FusedActivation::Relu => Activation::Relu,
        FusedActivation::Clip { min, max } => Activation::Clip { min, max },
        FusedActivation::LeakyRelu { alpha } => Activation::LeakyRelu { alpha },
        FusedActivation::HardSwish => Activation::HardSwish,
        FusedActivation::Silu => Activation::Silu,
        FusedActivation::Sigmoid => Activation::Sigmoid,
        FusedActivation::HardSigmoid { alpha, beta } => Activation::HardSigmoid { alpha, beta },
        FusedActivation::Tanh => Activation::Tanh,
        FusedActivation::Gelu => Activation::Gelu,
        FusedActivation::Elu { alpha } => Activation::Elu { alpha },
        FusedActivation::Mish => Activation::Mish,
    }
}

/// The convolution of a node and what follows it.
fn parts(node: &Node) -> Option<(&Conv, FusedActivation)> {
    let fused = node.op.as_op::<ConvAdd>().map(|c| (&c.conv, c.activation));
    fused.or_else(|| node.op.as_op::<Conv>().map(|c| (c, FusedActivation::None)))
}

/// The problem that a node poses to the kernels.
fn problem(conv: &Conv, input: &[usize], weights: &[usize]) -> Result<ConvProblem> {
    let resolved = conv.resolve(input, weights)?;
    let window = resolved.window.volumetric();
    let three = |values: &[usize]| [values[0], values[1], values[2]];
    Ok(ConvProblem {
        batch: resolved.batch,
        in_channels: resolved.in_channels,
        out_channels: resolved.out_channels,
        groups: resolved.group,
        in_size: three(&window.input),
        kernel: three(&window.kernel),
        stride: three(&window.strides),
        dilation: three(&window.dilations),
        pads_begin: three(&window.pads_begin),
        pads_end: three(&window.pads_end),
    })
}

impl Family for Convolutions {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let (conv, _) = parts(node)?;
        let (input, weights) = (facts.input(node, 0)?, facts.constant(node, 1)?);
        let constant = weights.dtype() == DType::F32 && facts.absent_or_constant(node, 2);
        let accepted = problem(conv, input, weights.shape()).is_ok_and(|p| {
            planish_cpu::conv::algorithms().iter().any(|a| a.accepts(&p, planish_cpu::isa::Isa::Portable).is_ok())
        });
        (constant && accepted && (3..=5).contains(&input.len())).then_some(Wish::ChannelsLast)
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let missing = || Error::invalid("a convolution lost its input, weights or output");
        let (conv, fused) = parts(node).ok_or_else(missing)?;
        let (x, w, y) = (node.input(0), node.input(1), node.output());
        let (Some(x), Some(w), Some(y)) = (x, w, y) else { return Err(missing()) };
        let weights = l.constant(w).ok_or_else(missing)?;
        let bias = node.input(2).and_then(|b| l.constant(b));
        let problem = problem(conv, l.shape(x)?, weights.shape())?;
        let input = l.operand(x, Layout::ChannelsLast)?;
        let residual = match node.input(3) {
            Some(r) => Some(l.operand(r, Layout::ChannelsLast)?),
            None => None,
        };
        let choice = l.target.chooser.choose(&problem, weights, bias, l.target.pool)?;
        let output = l.output(y)?;
        let scratch = l.scratch(choice.prepared.workspace_len(&problem, l.target.pool.threads()));
        let reads: Vec<&Operand> = [Some(&input), residual.as_ref()].into_iter().flatten().collect();
        let info = l.info(node, choice.algorithm, &choice.reason);
        let activation = activation(fused);
        let (from, residual_from, prepared) = (input.clone(), residual.clone(), choice.prepared);
        l.push(info, &reads, &[&output, &scratch], move |env| {
            let (input, target) = (env.rows(&from)?, env.rows_mut(&output));
            let residual = residual_from.as_ref().map(|r| env.rows(r)).transpose()?;
            let workspace = env.scratch(&scratch);
            let done = prepared.run(&problem, env.pool, input, residual, activation, target, workspace);
            done.map_err(Error::invalid)
        });
        Ok(())
    }
}
