//! Convolutions and matrix products of levels whose result is numbers: a network's last layer, and layers of binarised networks,
//! which add numbers around them (Liu et al., "Bi-Real Net", arXiv 1808.00278).
//!
//! Bytes are multiplied by [`LevelConv`], which adds no shortcut: that is a step of its own then, in place. Bits are counted
//! with the shortcut and every activation in the kernel.

use super::conv::activation;
use super::quantised::{convolves, describe, lost, request};
use super::{BufferView, Layout, Lowering, Operand};
use crate::plan::choose::{Candidate, Chooser, Request};
use crate::plan::integer_sums::{self, IntegerSums};
use planish_cpu::conv::{BIT_ALGORITHM, BitConv, ConvProblem, LevelCall, LevelConv, Weights};
use planish_cpu::elementwise::{Binary, binary};
use planish_cpu::epilogue::{Activation, Epilogue};
use planish_graph::ops::nn::fused::FusedActivation;
use planish_graph::ops::nn::quantized::fused::Quantised;
use planish_graph::{Error, Node, OperatorExt, Result, ValueId};

/// The result of a layer and where it goes.
struct Layer {
    problem: ConvProblem,
    sums: IntegerSums,
    input: Operand,
    residual: Option<Operand>,
    /// What comes last.
    function: Activation,
    target: BufferView,
}

/// The steps of a layer from levels to numbers.
pub(super) fn lower(l: &mut Lowering<'_>, node: &Node, x: ValueId) -> Result<()> {
    let quantised = node.op.as_op::<Quantised>().ok_or_else(lost)?;
    let Request { problem, sums, .. } = request(node, &l.facts()).ok_or_else(lost)?;
    let layout = if convolves(&*quantised.op) { Layout::ChannelsLast } else { Layout::Plain };
    let input = l.operand(x, layout)?;
    let residual = node.input(3).map(|residual| l.operand(residual, layout)).transpose()?;
    let (y, behind) = l.result(node)?;
    let function = match integer_sums::activation(quantised) {
        FusedActivation::None => behind.activation,
        own => activation(own),
    };
    let target = l.output(y)?;
    let (isa, threads) = (l.target.isa, l.target.pool.threads());
    let bytes = LevelConv::milliseconds(&problem, isa, l.target.chooser.rates(), threads);
    let chooser = l.target.chooser;
    let reason = counts_bits(chooser, &chooser.candidates(&problem), bytes.unwrap_or(f64::INFINITY));
    let layer = Layer { problem, sums: sums.ok_or_else(lost)?, input, residual, function, target };
    match reason {
        Some(reason) => counted(l, node, layer, reason),
        None => multiplied(l, node, layer),
    }
}

/// Whether bits are counted, and why, where `bytes` are the estimated milliseconds of products of bytes. What was measured
/// was measured to levels, which says as much of numbers.
fn counts_bits(chooser: &Chooser, candidates: &[Candidate], bytes: f64) -> Option<&'static str> {
    let admitted = candidates.iter().filter(|c| c.admitted);
    let (bits, others): (Vec<_>, Vec<_>) = admitted.partition(|c| c.algorithm == BIT_ALGORITHM);
    let bits = bits.first()?;
    let others_measured = others.iter().filter_map(|c| c.measured).min_by(f64::total_cmp);
    let cheaper = match (bits.measured, others_measured) {
        (Some(bits), Some(others)) => bits < others,
        _ => bits.estimated < bytes,
    };
    let measured = bits.measured.and(others_measured);
    (others.is_empty() || cheaper).then(|| chooser.reason(bits.algorithm, 1 + others.len(), measured))
}

fn counted(l: &mut Lowering<'_>, node: &Node, layer: Layer, reason: &str) -> Result<()> {
    let Layer { problem, sums, input, residual, function, target } = layer;
    let weights = Weights { values: &sums.values, bias: None, levels: Some(sums.levels()) };
    let conv = BitConv::new(&problem, l.target.isa, weights).map_err(Error::invalid)?;
    let scratch = l.scratch(conv.workspace_len(&problem));
    let info = describe(l, node, BIT_ALGORITHM, reason);
    let reads: Vec<&Operand> = [Some(&input), residual.as_ref()].into_iter().flatten().collect();
    let (from, shortcut) = (input.clone(), residual.clone());
    l.push(info, &reads, &[&target, &scratch], move |env| {
        let residual = shortcut.as_ref().map(|r| env.rows(r)).transpose()?;
        let epilogue = Epilogue { residual, activation: function, ..Epilogue::default() };
        let (input, output) = (env.rows::<u8>(&from)?, env.rows_mut(&target));
        let workspace = env.scratch(&scratch);
        conv.numbers(&problem, env.pool, input, epilogue, output, workspace).map_err(Error::invalid)
    });
    Ok(())
}

fn multiplied(l: &mut Lowering<'_>, node: &Node, layer: Layer) -> Result<()> {
    let Layer { problem, sums, input, residual, function, target } = layer;
    let problem = ConvProblem { bits: None, ..problem };
    let (isa, threads) = (l.target.isa, l.target.pool.threads());
    let conv = LevelConv::new(&problem, isa, l.target.chooser.rates(), threads, &sums.values);
    let conv = conv.map_err(Error::invalid)?;
    let scratch = l.scratch(conv.workspace_len(threads));
    let info = describe(l, node, conv.algorithm(), "the weights are constant; nothing is quantised behind");
    let (from, own) = (input.clone(), if residual.is_some() { Activation::None } else { function });
    l.push(info, &[&input], &[&target, &scratch], move |env| {
        let call = LevelCall {
            input: env.rows::<u8>(&from)?,
            zero: sums.input_zero,
            units: Some(&sums.bias),
            scales: &sums.scales,
            bias: sums.shift.as_deref(),
            activation: own,
            output: env.rows_mut::<f32>(&target),
            workspace: env.scratch(&scratch),
        };
        conv.run(env.isa, env.pool, call).map_err(Error::invalid)
    });
    let Some(residual) = residual else { return Ok(()) };
    let info = describe(l, node, "elementwise", "adds the shortcut");
    let (made, shape) = (Operand::Buffer(target), [target.rows, target.channels]);
    l.push(info, &[&made.clone(), &residual.clone()], &[&target], move |env| {
        let (sums, shortcut) = (env.strided::<f32>(&made, &shape)?, env.strided(&residual, &shape)?);
        let output = env.strided_mut(&target, &shape);
        binary(env.isa, env.pool, Binary::Add, function, sums, shortcut, output);
        Ok(())
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::choose::ChooserOptions;
    use planish_cpu::isa::Isa;

    fn candidate(algorithm: &'static str, estimated: f64, measured: Option<f64>) -> Candidate {
        Candidate { algorithm, estimated, measured, error: 0.0, admitted: true }
    }

    #[test]
    fn bits_are_counted_where_that_is_faster() {
        let chooser = |only: Option<&str>| {
            let options = ChooserOptions { only: only.map(str::to_string), ..ChooserOptions::default() };
            Chooser::new(Isa::Portable, 1, &options)
        };
        let free = chooser(None);
        let reason = |bits: Option<f64>, bytes: Option<f64>, estimate: f64| {
            let candidates = [candidate("bits", 2.0, bits), candidate("indirect", 9.0, bytes)];
            counts_bits(&free, &candidates, estimate)
        };
        assert_eq!(reason(None, None, 3.0), Some("the least estimate"));
        assert_eq!(reason(None, None, 1.0), None);
        assert_eq!(reason(Some(4.0), Some(3.0), 3.0), None);
        assert_eq!(reason(Some(2.5), Some(3.0), 1.0), Some("the fastest when tuned"));
        let alone = [candidate("bits", 2.0, None)];
        assert_eq!(counts_bits(&chooser(Some("bits")), &alone, 1.0), Some("asked for"));
        assert_eq!(counts_bits(&free, &alone, 1.0), Some("the only one that may be taken"));
        let other = Candidate { admitted: false, ..candidate("bits", 2.0, None) };
        assert_eq!(counts_bits(&free, &[other, candidate("indirect", 9.0, None)], 3.0), None);
    }
}
