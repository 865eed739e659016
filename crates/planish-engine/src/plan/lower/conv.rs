//! Convolutions with constant weights, plain and transposed, with everything fused behind them.

use super::quantised::{self, Levels};
use super::{Abilities, Facts, Family, Keeps, Layout, Lowering, Operand, Wish, chain};
use crate::plan::choose::Request;
use planish_cpu::conv::{ConvCall, ConvProblem, PreparedTransposed, TransposedProblem};
use planish_cpu::element::ElementType;
use planish_cpu::epilogue::Activation;
use planish_cpu::for_element;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::conv_transpose::ConvTranspose;
use planish_graph::ops::nn::fused::{ConvAdd, FusedActivation};
use planish_graph::ops::nn::window::Window;
use planish_graph::{DType, Error, Node, OperatorExt, Result};

/// Conv and ConvAdd: the planner's choice of algorithm.
pub(super) struct Convolutions;

/// ConvTranspose.
pub(super) struct TransposedConvolutions;

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
pub(super) fn parts(node: &Node) -> Option<(&Conv, FusedActivation)> {
    let fused = node.op.as_op::<ConvAdd>().map(|c| (&c.conv, c.activation));
    fused.or_else(|| node.op.as_op::<Conv>().map(|c| (c, FusedActivation::None)))
}

/// The problem that a node poses to the kernels.
pub(super) fn problem(conv: &Conv, input: &[usize], weights: &[usize]) -> Result<ConvProblem> {
    let resolved = conv.resolve(input, weights)?;
    let channels = [resolved.in_channels, resolved.out_channels, resolved.group];
    let window = resolved.window.volumetric();
    Ok(of_window(resolved.batch, channels, three(&window.input), &window))
}

fn three(values: &[usize]) -> [usize; 3] {
    [values[0], values[1], values[2]]
}

/// The kernels' problem for a volumetric window and `[in, out, groups]` channels.
fn of_window(batch: usize, channels: [usize; 3], in_size: [usize; 3], window: &Window) -> ConvProblem {
    let [in_channels, out_channels, groups] = channels;
    ConvProblem {
        batch,
        in_channels,
        out_channels,
        groups,
        in_size,
        kernel: three(&window.kernel),
        stride: three(&window.strides),
        dilation: three(&window.dilations),
        pads_begin: three(&window.pads_begin),
        pads_end: three(&window.pads_end),
        element: ElementType::F32,
        bits: None,
    }
}

/// The problem that a transposed convolution poses to the kernels.
fn transposed_problem(op: &ConvTranspose, input: &[usize], weights: &[usize]) -> Option<TransposedProblem> {
    let resolved = op.resolve(input, weights).ok()?;
    // In the graph's words the window is that of the convolution back: its output is our input.
    let window = resolved.window.volumetric();
    let channels = [resolved.in_channels, resolved.out_channels, resolved.group];
    let shape = of_window(resolved.batch, channels, three(&window.output), &window);
    let mut problem = TransposedProblem { shape, output_padding: [0; 3] };
    let plain = problem.out_size().ok()?;
    for (padding, (wanted, plain)) in problem.output_padding.iter_mut().zip(window.input.iter().zip(plain)) {
        *padding = wanted.checked_sub(plain)?;
    }
    problem.validate().ok()?;
    Some(problem)
}

/// Every convolution of the graph that will be given an algorithm.
pub(super) fn requests<'a>(known: &Facts<'a>, elements: &[ElementType]) -> Vec<Request<'a>> {
    let nodes = known.graph.nodes.iter();
    nodes
        .filter_map(|node| match parts(node) {
            Some(_) => Convolutions.wish(node, known).and_then(|_| request(node, known, elements)),
            None => Levels.wish(node, known).and_then(|_| quantised::request(node, known)),
        })
        .collect()
}

/// What a node with constant weights asks of the chooser, where values are kept as `elements`.
pub(super) fn request<'a>(node: &Node, known: &Facts<'a>, elements: &[ElementType]) -> Option<Request<'a>> {
    let (conv, _) = parts(node)?;
    let weights = known.constant(node, 1)?;
    let problem = problem(conv, known.input(node, 0)?, weights.shape()).ok()?;
    let problem = ConvProblem { element: elements[node.output()?.0 as usize], ..problem };
    Some(Request { problem, weights, bias: known.constant(node, 2), sums: None })
}

impl Family for TransposedConvolutions {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let op = node.op.as_op::<ConvTranspose>()?;
        let (input, weights) = (facts.input(node, 0)?, facts.constant(node, 1)?);
        let constant = weights.dtype() == DType::F32 && facts.absent_or_constant(node, 2);
        let accepted =
            (3..=5).contains(&input.len()) && transposed_problem(op, input, weights.shape()).is_some();
        (constant && accepted && facts.output(node).is_some()).then_some(Wish::ChannelsLast)
    }

    fn follows(&self, _: &Node, _: &Facts<'_>) -> Abilities {
        Abilities::ALL
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let missing = || Error::invalid("a transposed convolution lost its input, weights or output");
        let op = node.op.as_op::<ConvTranspose>().ok_or_else(missing)?;
        let (Some(x), Some(w)) = (node.input(0), node.input(1)) else { return Err(missing()) };
        let (y, behind) = l.result(node)?;
        let weights = l.constant(w).ok_or_else(missing)?;
        let bias = node.input(2).and_then(|b| l.constant(b)).map(|b| b.as_slice::<f32>()).transpose()?;
        let problem = transposed_problem(op, l.shape(x)?, weights.shape()).ok_or_else(missing)?;
        let prepared = PreparedTransposed::new(&problem, l.target.isa, weights.as_slice::<f32>()?, bias);
        let prepared = prepared.map_err(Error::invalid)?;
        let operand = l.operand(x, Layout::ChannelsLast)?;
        let output = l.output(y)?;
        let info = l.info(node, "transposed", "each phase of the stride is a convolution by itself");
        let from = operand.clone();
        let reads: Vec<&Operand> = [Some(&operand), behind.residual.as_ref()].into_iter().flatten().collect();
        let epilogue = behind.clone();
        l.push(info, &reads, &[&output], move |env| {
            let (input, target) = (env.rows(&from)?, env.rows_mut(&output));
            let epilogue = epilogue.epilogue(env)?;
            prepared.run(&problem, env.pool, input, epilogue, target).map_err(Error::invalid)
        });
        Ok(())
    }
}

impl Family for Convolutions {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let (conv, _) = parts(node)?;
        let (input, weights) = (facts.input(node, 0)?, facts.constant(node, 1)?);
        let constant = weights.dtype() == DType::F32 && facts.absent_or_constant(node, 2);
        let accepted = problem(conv, input, weights.shape()).is_ok_and(|p| {
            planish_cpu::conv::algorithms()
                .iter()
                .any(|a| a.accepts(&p, planish_cpu::isa::Isa::Portable).is_ok())
        });
        (constant && accepted && (3..=5).contains(&input.len())).then_some(Wish::ChannelsLast)
    }

    fn keeps(&self, _: &Node, _: &Facts<'_>, _: &[Layout]) -> Keeps {
        Keeps::Short
    }

    fn follows(&self, node: &Node, _: &Facts<'_>) -> Abilities {
        let activation = parts(node).is_some_and(|(_, fused)| fused == FusedActivation::None);
        Abilities { residual: activation && node.input(3).is_none(), activation, channels: true }
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        if chain::lower(l, node)? {
            return Ok(());
        }
        let missing = || Error::invalid("a convolution lost its input, weights or output");
        let (_, fused) = parts(node).ok_or_else(missing)?;
        let x = node.input(0).ok_or_else(missing)?;
        let request = request(node, &l.facts(), &l.elements).ok_or_else(missing)?;
        let element = request.problem.element;
        let input = l.operand_as(x, Layout::ChannelsLast, element)?;
        let (y, mut behind) = l.result(node)?;
        if let Some(r) = node.input(3) {
            behind.residual = Some(l.operand_as(r, Layout::ChannelsLast, element)?);
        }
        if fused != FusedActivation::None {
            behind.activation = activation(fused);
        }
        let choice = l.target.chooser.choose(&request)?;
        let problem = request.problem;
        let output = l.output(y)?;
        let scratch = l.scratch(choice.prepared.workspace_len(&problem, l.target.pool.threads()));
        let reads: Vec<&Operand> = [Some(&input), behind.residual.as_ref()].into_iter().flatten().collect();
        let mut info = l.info(node, choice.algorithm, choice.reason);
        info.candidates = choice.candidates;
        let (from, epilogue, prepared) = (input.clone(), behind.clone(), choice.prepared);
        l.push(info, &reads, &[&output, &scratch], move |env| {
            let done = for_element!(problem.element, T => {
                let (input, output) = (env.rows::<T>(&from)?, env.rows_mut(&output));
                let epilogue = epilogue.epilogue(env)?;
                let call = ConvCall { input, epilogue, output, workspace: env.scratch(&scratch) };
                prepared.run(&problem, env.pool, call)
            });
            done.map_err(Error::invalid)
        });
        Ok(())
    }
}
