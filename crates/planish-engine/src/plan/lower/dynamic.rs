//! Networks whose activations are quantised while they run: levels by a tensor's own range, and products of levels whose
//! scale is known by then only.

use super::conv::problem;
use super::{Abilities, Facts, Family, Layout, Lowering, Operand, Wish, rows_of};
use crate::plan::integer_sums::differences;
use planish_cpu::conv::{ConvProblem, LevelCall, LevelConv};
use planish_cpu::element::ElementType;
use planish_cpu::integer::{Grids, own_grid, quantize};
use planish_graph::ops::nn::quantized::conv_integer::ConvInteger;
use planish_graph::ops::nn::quantized::matmul_integer::MatMulInteger;
use planish_graph::ops::nn::quantized::quantize::DynamicQuantizeLinear;
use planish_graph::ops::nn::quantized::scaled_sums::{SCALE, ScaledSums};
use planish_graph::{DType, Error, Node, OperatorExt, Result, Tensor};

/// DynamicQuantizeLinear.
pub(super) struct OwnRanges;

/// ScaledSums of unsigned activations and constant weights.
pub(super) struct DynamicProducts;

fn lost() -> Error {
    Error::invalid("a dynamically quantised operator lost an input or output")
}

impl Family for OwnRanges {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        node.op.as_op::<DynamicQuantizeLinear>()?;
        (facts.input(node, 0)? == facts.levels(node.output()?)?).then_some(Wish::Follow)
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let layout = l.layout(y);
        let operand = l.operand(x, layout)?;
        let target = l.output(y)?;
        let single = |l: &mut Lowering<'_>, index: usize| {
            let value = node.outputs.get(index).copied().flatten();
            value.map(|v| l.output(v)).transpose()
        };
        let (scale, zero) = (single(l, 1)?, single(l, 2)?);
        let info = l.info(node, "own range", "the range is that of each run");
        let writes = [Some(&target), scale.as_ref(), zero.as_ref()];
        let writes: Vec<_> = writes.into_iter().flatten().collect();
        let from = operand.clone();
        l.push(info, &[&operand], &writes, move |env| {
            let input = env.rows::<f32>(&from)?;
            let grid = own_grid(env.isa, env.pool, input);
            if let Some(scale) = &scale {
                env.rows_mut::<f32>(scale).row_mut(0)[0] = grid.scale;
            }
            if let Some(zero) = &zero {
                env.rows_mut::<u8>(zero).row_mut(0)[0] = grid.zero as u8;
            }
            quantize(env.isa, env.pool, Grids::One(grid), input, env.rows_mut(&target));
            Ok(())
        });
        Ok(())
    }
}

/// What a node computes: the problem, and the axis of the weights that counts its output channels.
fn parts(node: &Node, facts: &Facts<'_>) -> Option<(ConvProblem, usize)> {
    let sums = &node.op.as_op::<ScaledSums>()?.sums;
    let (input, weights) = (facts.levels(node.input(0)?)?, facts.constant(node, 1)?);
    let (posed, axis) = match sums.as_op::<ConvInteger>() {
        Some(op) if (3..=5).contains(&input.len()) => (problem(&op.conv, input, weights.shape()).ok()?, 0),
        Some(_) => return None,
        None => {
            sums.as_op::<MatMulInteger>()?;
            let &[depth, columns] = weights.shape() else { return None };
            let (rows, of) = rows_of(Layout::Plain, input);
            let plain = ConvProblem::new_2d(1, depth, columns, [1, rows], [1, 1]);
            (of == depth).then_some((plain, 1))?
        }
    };
    let posed = ConvProblem { element: ElementType::U8, ..posed };
    posed.validate().ok()?;
    Some((posed, axis))
}

/// Whether input `index` is one number: a constant, or a value with a place in the arena.
fn single(node: &Node, facts: &Facts<'_>, index: usize, dtype: DType) -> Option<()> {
    let v = node.input(index)?;
    let shape = if dtype == DType::U8 { facts.levels(v) } else { facts.shape(v) };
    shape?.iter().all(|&extent| extent == 1).then_some(())
}

/// The numbers of a constant that has one for each channel, or one for all.
fn each(tensor: &Tensor, channels: usize) -> Option<Vec<f32>> {
    let numbers = tensor.to_f32s();
    match numbers.len() {
        1 => Some(vec![numbers[0]; channels]),
        count => (count == channels).then_some(numbers),
    }
}

impl Family for DynamicProducts {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let (problem, _) = parts(node, facts)?;
        facts.output(node)?;
        if node.input(2).is_some() {
            single(node, facts, 2, DType::U8)?;
        }
        single(node, facts, SCALE, DType::F32)?;
        let channels = problem.out_channels;
        if node.input(3).is_some() {
            let zeros = facts.constant(node, 3)?;
            (zeros.len() == 1 || zeros.len() == channels).then_some(())?;
        }
        each(facts.constant(node, SCALE + 1)?, channels)?;
        if node.input(SCALE + 2).is_some() {
            each(facts.constant(node, SCALE + 2)?, channels)?;
        }
        let sums = &node.op.as_op::<ScaledSums>()?.sums;
        Some(if sums.is_op::<ConvInteger>() { Wish::ChannelsLast } else { Wish::Plain })
    }

    fn follows(&self, _: &Node, _: &Facts<'_>) -> Abilities {
        Abilities::ACTIVATION
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let facts = l.facts();
        let (problem, axis) = parts(node, &facts).ok_or_else(lost)?;
        let channels = problem.out_channels;
        let weights = facts.constant(node, 1).ok_or_else(lost)?;
        let zeros = facts.constant(node, 3).map(|zeros| zeros.to_f32s());
        let zero_of =
            |c: usize| zeros.as_ref().map_or(0.0, |zeros| zeros[if zeros.len() == 1 { 0 } else { c }]);
        let values = differences(weights, axis, zero_of);
        let own =
            facts.constant(node, SCALE + 1).and_then(|scales| each(scales, channels)).ok_or_else(lost)?;
        let bias = facts.constant(node, SCALE + 2).and_then(|bias| each(bias, channels));
        let (isa, threads) = (l.target.isa, l.target.pool.threads());
        let conv = LevelConv::new(&problem, isa, l.target.chooser.rates(), threads, &values);
        let conv = conv.map_err(Error::invalid)?;
        let layout = if axis == 0 { Layout::ChannelsLast } else { Layout::Plain };
        let input = l.operand(node.input(0).ok_or_else(lost)?, layout)?;
        let scale = l.operand(node.input(SCALE).ok_or_else(lost)?, Layout::Plain)?;
        let zero = node.input(2).map(|v| l.operand(v, Layout::Plain)).transpose()?;
        let (y, behind) = l.result(node)?;
        let output = l.output(y)?;
        let scratch = l.scratch(conv.workspace_len(threads));
        let reason = match conv.multiplies_bytes() {
            true => "products of bytes, scaled as this run has it",
            false => "exact sums of numbers, which few products are faster as",
        };
        let info = l.info(node, conv.algorithm(), reason);
        let reads: Vec<&Operand> =
            [Some(&input), Some(&scale), zero.as_ref()].into_iter().flatten().collect();
        let (from, step, zero_point) = (input.clone(), scale.clone(), zero.clone());
        l.push(info, &reads, &[&output, &scratch], move |env| {
            let step = env.rows::<f32>(&step)?.row(0)[0];
            let zero = match &zero_point {
                Some(zero) => env.rows::<u8>(zero)?.row(0)[0],
                None => 0,
            };
            // Both scales are multiplied first, as the nodes that stood here did.
            let scales: Vec<f32> = own.iter().map(|own| step * own).collect();
            let call = LevelCall {
                input: env.rows::<u8>(&from)?,
                zero,
                units: None,
                scales: &scales,
                bias: bias.as_deref(),
                activation: behind.activation,
                output: env.rows_mut(&output),
                workspace: env.scratch(&scratch),
            };
            conv.run(env.isa, env.pool, call).map_err(Error::invalid)
        });
        Ok(())
    }
}
