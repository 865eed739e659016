//! Normalisation that was not folded into a convolution.

use super::{Facts, Family, Layout, Lowering, Wish};
use planish_cpu::epilogue::Activation;
use planish_cpu::normalize::scale_shift;
use planish_graph::ops::nn::batch_normalization::BatchNormalization;
use planish_graph::{Error, Node, OperatorExt, Result};

/// BatchNormalization with constant statistics.
pub(super) struct Normalizations;

impl Family for Normalizations {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let op = node.op.as_op::<BatchNormalization>()?;
        let shape = facts.input(node, 0)?;
        let constant = (1..5).all(|i| facts.constant(node, i).is_some() && facts.absent_or_constant(node, i));
        let plain = !op.training_mode && node.outputs.len() == 1 && constant && facts.output(node).is_some();
        (plain && shape.len() >= 3).then_some(Wish::ChannelsLast)
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let lost = || Error::invalid("a normalisation lost an input or output");
        let op = node.op.as_op::<BatchNormalization>().ok_or_else(lost)?;
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let constant =
            |i: usize| node.input(i).and_then(|v| l.constant(v)).ok_or_else(lost).map(|t| t.to_f64s());
        let (gamma, beta, mean, variance) = (constant(1)?, constant(2)?, constant(3)?, constant(4)?);
        let (mut scale, mut shift) = (Vec::with_capacity(gamma.len()), Vec::with_capacity(gamma.len()));
        for c in 0..gamma.len() {
            let factor = gamma[c] / (variance[c] + op.epsilon as f64).sqrt();
            scale.push(factor as f32);
            shift.push((beta[c] - mean[c] * factor) as f32);
        }
        let operand = l.operand(x, Layout::ChannelsLast)?;
        let target = l.output_over(y, x)?;
        let info = l.info(node, "scale and shift", "vectorised over channels");
        let from = operand.clone();
        l.push(info, &[&operand], &[&target], move |env| {
            let (input, output) = (env.rows(&from)?, env.rows_mut(&target));
            scale_shift(env.isa, env.pool, &scale, &shift, Activation::None, input, output);
            Ok(())
        });
        Ok(())
    }
}
