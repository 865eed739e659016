//! Resizing of the spatial axes of pictures.

use super::{Facts, Family, Layout, Lowering, StepInfo, Wish};
use planish_cpu::element::ElementType;
use planish_cpu::resize::{AxisTaps, resize};
use planish_graph::ops::nn::resize::{Interpolation, Resize, TapTable};
use planish_graph::{Error, Node, OperatorExt, Result};

/// Resize with known scales or sizes.
pub(super) struct Resizes;

/// The taps along height and width, where batch and channels keep their extents.
pub(super) fn taps(op: &Resize, node: &Node, facts: &Facts<'_>) -> Option<(AxisTaps, AxisTaps)> {
    let (input, output) = facts.moved(node, 0)?;
    let known = (1..4).all(|i| node.input(i).is_none() || facts.constant(node, i).is_some());
    if !known || !(3..=4).contains(&input.len()) || input[..2] != output[..2] || output.contains(&0) {
        return None;
    }
    let axes =
        op.resolve(input, facts.constant(node, 1), facts.constant(node, 2), facts.constant(node, 3)).ok()?;
    // A region of tf_crop_and_resize may crop batch and channels, too.
    if !axes[..2].iter().all(|a| a.taps().is_identity(a.input)) {
        return None;
    }
    let table = |axis: usize| -> Option<AxisTaps> {
        if axis < 2 {
            return AxisTaps::new(1, 1, vec![0], vec![1.0]).ok();
        }
        padded(&axes[axis].taps(), axes[axis].input)
    };
    match input.len() {
        3 => Some((table(0)?, table(2)?)),
        _ => Some((table(2)?, table(3)?)),
    }
}

/// A table whose coordinates all have as many taps; missing ones weigh nothing. `None` where a coordinate lies outside
/// the input and takes the extrapolation value instead.
fn padded(table: &TapTable, input: usize) -> Option<AxisTaps> {
    let most = (0..table.len()).map(|o| table.of(o).len()).max()?;
    let (mut indices, mut weights) = (Vec::new(), Vec::new());
    for o in 0..table.len() {
        let own = table.of(o);
        let &(first, _) = own.first()?;
        for t in 0..most {
            let (index, weight) = own.get(t).copied().unwrap_or((first, 0.0));
            indices.push(index);
            weights.push(weight as f32);
        }
    }
    AxisTaps::new(input, most, indices, weights).ok()
}

impl Family for Resizes {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let op = node.op.as_op::<Resize>()?;
        // What lies between levels depends on what they mean.
        let nearest = matches!(op.interpolation, Interpolation::Nearest(_));
        let levels = nearest && facts.levels(node.input(0)?).is_some();
        let known = levels || facts.input(node, 0).is_some();
        taps(op, node, facts).filter(|_| known).map(|_| Wish::ChannelsLast)
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let lost = || Error::invalid("a resize lost its input or output");
        let op = node.op.as_op::<Resize>().ok_or_else(lost)?;
        let taps = taps(op, node, &l.facts()).ok_or_else(lost)?;
        let info = l.info(node, "taps", "separable, vectorised over channels");
        step(l, node, info, taps)
    }
}

/// The step of a resize by these taps.
pub(super) fn step(
    l: &mut Lowering<'_>,
    node: &Node,
    info: StepInfo,
    (height, width): (AxisTaps, AxisTaps),
) -> Result<()> {
    let lost = || Error::invalid("a resize lost its input or output");
    let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
    let images = l.shape(x)?[0];
    let operand = l.operand(x, Layout::ChannelsLast)?;
    let target = l.output(y)?;
    let from = operand.clone();
    l.push(info, &[&operand], &[&target], move |env| {
        match target.element {
            ElementType::U8 => {
                let (input, output) = (env.rows::<u8>(&from)?, env.rows_mut(&target));
                resize(env.isa, env.pool, images, (&height, &width), input, output);
            }
            ElementType::F32 | ElementType::Bf16 | ElementType::F16 => {
                let (input, output) = (env.rows::<f32>(&from)?, env.rows_mut(&target));
                resize(env.isa, env.pool, images, (&height, &width), input, output);
            }
        }
        Ok(())
    });
    Ok(())
}
