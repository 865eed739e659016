//! What only moves levels, or picks the largest of them, does so below the conversions.
//!
//! Quantisers put conversions around every operator, or only around those that multiply; either way a reshape or a max
//! pooling between `f32` moves four times the bytes, and a conversion behind it keeps the layer before from writing levels.
//! DequantizeLinear sinks below such operators, QuantizeLinear rises above them with the limits or the choice of a sign that
//! stand before it, and where the two meet they cancel, or are one table from levels to levels.

use super::super::Pass;
use super::super::rewrite::Rewriter;
use super::grids::{constants, levels, quantisation, quantised_behind};
use super::limits::limits;
use super::moves_levels;
use planish_graph::ops::movement::identity::Identity;
use planish_graph::ops::movement::pad::{Pad, PadMode};
use planish_graph::ops::nn::pool::MaxPool;
use planish_graph::ops::nn::quantized::fused::{Grid, Quantised};
use planish_graph::ops::nn::quantized::qonnx::BipolarQuant;
use planish_graph::{DType, Graph, Node, NodeId, Operator, OperatorExt, Result, Tensor, ValueId};
use std::sync::Arc;

/// How many operators a quantisation rises above before other passes see it: one each time that all nodes are passed. The
/// normalisation before them must still be there when `thresholds` looks for one.
const REPEATS: usize = 16;

/// Moves conversions out of the way of what moves levels.
pub struct QuantisedMovement;

impl Pass for QuantisedMovement {
    fn name(&self) -> &'static str {
        "quantised-movement"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut moved = 0;
        for _ in 0..REPEATS {
            match once(graph)? {
                0 => break,
                more => moved += more,
            }
        }
        Ok(moved)
    }
}

/// Passes every node once.
fn once(graph: &mut Graph) -> Result<usize> {
    let mut rewriter = Rewriter::new(graph);
    for id in rewriter.node_ids() {
        if sink(&mut rewriter, id)?.is_none() && raise(&mut rewriter, id)?.is_none() {
            meet(&mut rewriter, id);
        }
    }
    rewriter.finish()
}

/// How many inputs of a node hold the elements that it moves.
fn moved(node: &Node) -> Option<usize> {
    let indices = node.op.is_op::<MaxPool>() && node.outputs.len() > 1;
    let pads = node.op.as_op::<Pad>().is_some_and(|pad| pad.mode == PadMode::Constant);
    let count = if pads { Some(1) } else { moves_levels(&*node.op) };
    Some(count?.min(node.inputs.len())).filter(|_| !indices)
}

/// A node for `op` in the place of `anchor`, whose outputs are like `outputs` but of type `dtype`.
fn insert(
    rewriter: &mut Rewriter,
    anchor: NodeId,
    op: Arc<dyn Operator>,
    inputs: Vec<Option<ValueId>>,
    outputs: &[Option<ValueId>],
    dtype: DType,
) -> Vec<Option<ValueId>> {
    let made: Vec<Option<ValueId>> = outputs
        .iter()
        .map(|like| {
            let value = rewriter.graph().value((*like)?);
            let (name, shape) = (value.name.clone(), value.shape.clone());
            Some(rewriter.add_value(&name, Some(dtype), shape))
        })
        .collect();
    let name = made.iter().flatten().next().map(|v| rewriter.graph().value(*v).name.clone());
    rewriter.insert(anchor, Node { name: name.unwrap_or_default(), op, inputs, outputs: made.clone() });
    made
}

/// Of an operator that moves what was dequantised: the operator on levels, and dequantises what it gives.
fn sink(rewriter: &mut Rewriter, id: NodeId) -> Result<Option<()>> {
    let Some(node) = rewriter.node(id) else { return Ok(None) };
    let Some(count) = moved(node) else { return Ok(None) };
    let found: Option<Vec<(ValueId, Grid)>> =
        node.inputs[..count].iter().map(|input| levels(rewriter, (*input)?)).collect();
    let Some(found) = found else { return Ok(None) };
    let Some((_, grid)) = found.first().cloned() else { return Ok(None) };
    let (op, mut inputs, outputs) = (node.op.clone(), node.inputs.clone(), node.outputs.clone());
    let name = node.name.clone();
    if found.iter().any(|(_, other)| *other != grid) {
        return Ok(None);
    }
    if op.is_op::<Pad>() {
        let Some(filled) = filled(rewriter, &inputs, &grid) else { return Ok(None) };
        inputs.resize(inputs.len().max(3), None);
        inputs[2] = Some(rewriter.add_constant(&format!("{name}.fill"), filled));
    }
    for (input, (integers, _)) in inputs.iter_mut().zip(&found) {
        *input = Some(*integers);
    }
    let conversion = constants(rewriter, &name, &grid)?;
    for (old, made) in outputs.iter().zip(insert(rewriter, id, op, inputs, &outputs, DType::U8)) {
        let (Some(old), Some(made)) = (*old, made) else { continue };
        let inputs = [&[Some(made)][..], &conversion].concat();
        let back = insert(rewriter, id, Arc::new(grid.dequantize()), inputs, &[Some(old)], DType::F32);
        if let Some(Some(back)) = back.first() {
            rewriter.replace(old, *back);
        }
    }
    Ok(Some(()))
}

/// The level of what a Pad fills with, where it is one exactly.
fn filled(rewriter: &Rewriter, inputs: &[Option<ValueId>], grid: &Grid) -> Option<Tensor> {
    let fill = match inputs.get(2).copied().flatten() {
        Some(fill) => rewriter.constant(fill).filter(|t| t.len() == 1 && t.dtype() == DType::F32)?.clone(),
        None => Tensor::scalar(0f32),
    };
    let level = grid.integers(&fill).ok()?;
    (grid.numbers(&level).ok()?.to_f32s() == fill.to_f32s()).then_some(level)
}

/// What makes levels, or numbers for nothing but levels, of each number by itself, and never a smaller one of a larger one:
/// the operator, the constants that it reads behind the number, and what it makes.
fn rising(rewriter: &mut Rewriter, id: NodeId) -> Result<Option<Rising>> {
    if let Some(grid) = quantisation(rewriter, id) {
        let name = rewriter.node_name(id);
        let constants = constants(rewriter, &name, &grid)?.to_vec();
        return Ok(Some(Rising { op: Arc::new(grid.quantize()), constants, dtype: DType::U8 }));
    }
    let limits = |rewriter: &Rewriter| {
        let node = rewriter.node(id)?;
        quantised_behind(rewriter, node.output()?)?;
        let sign = node.op.is_op::<BipolarQuant>();
        let constants = node.inputs.get(1..)?.to_vec();
        let known = constants.iter().flatten().all(|&v| rewriter.constant(v).is_some_and(|t| t.len() == 1));
        let fits = known && (sign || limits(rewriter, node).is_some());
        fits.then(|| Rising { op: node.op.clone(), constants, dtype: DType::F32 })
    };
    Ok(limits(rewriter))
}

struct Rising {
    op: Arc<dyn Operator>,
    constants: Vec<Option<ValueId>>,
    dtype: DType,
}

/// Of a quantisation, or what stands before one, that alone reads what an operator moves: the operator on what was quantised
/// before.
fn raise(rewriter: &mut Rewriter, id: NodeId) -> Result<Option<()>> {
    let Some(x) = rewriter.node(id).and_then(|node| node.input(0)) else { return Ok(None) };
    let Some(before) = rewriter.maker(x).and_then(|maker| rewriter.node(maker)) else { return Ok(None) };
    let Some(count) = moved(before).filter(|_| before.outputs.len() == 1) else { return Ok(None) };
    if rewriter.use_count(x) != 1 || before.op.is_op::<Pad>() {
        return Ok(None);
    }
    let (moving, mut inputs) = (before.op.clone(), before.inputs.clone());
    let wanted = |input: &Option<ValueId>| {
        input.is_some_and(|v| rewriter.dtype(v) == Some(DType::F32) && rewriter.constant(v).is_none())
    };
    if !inputs[..count].iter().all(wanted) {
        return Ok(None);
    }
    let Some(Rising { op, constants, dtype }) = rising(rewriter, id)? else { return Ok(None) };
    for input in &mut inputs[..count] {
        let given = [&[*input][..], &constants].concat();
        let made = insert(rewriter, id, op.clone(), given, &[*input], dtype);
        *input = made.first().copied().flatten();
    }
    rewriter.set(id, moving, inputs);
    Ok(Some(()))
}

/// A quantisation of what was dequantised: nothing where both mean the same, otherwise one table.
fn meet(rewriter: &mut Rewriter, id: NodeId) {
    let Some(to) = quantisation(rewriter, id) else { return };
    let Some(node) = rewriter.node(id) else { return };
    let (Some(x), Some(y)) = (node.input(0), node.output()) else { return };
    let Some((integers, from)) = levels(rewriter, x) else { return };
    if from.single() == to.single() {
        rewriter.replace(y, integers);
        return;
    }
    let op = Quantised { op: Arc::new(Identity), inputs: vec![Some(from)], output: Some(to), inner: None };
    rewriter.set(id, Arc::new(op), vec![Some(integers)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_inferred, input, scalar, weights};
    use planish_graph::Value;
    use planish_graph::ops::movement::{concat::Concat, flatten::Flatten};
    use planish_graph::ops::nn::conv::Conv;
    use planish_graph::ops::nn::pool::PoolWindow;
    use planish_graph::ops::nn::resize::{Coordinates, Resize};

    fn convert(g: &mut Graph, name: &str, to_levels: bool, x: ValueId, scale: f32) -> ValueId {
        let scale = scalar(g, &format!("{name}.s"), scale);
        let zero = g.add_constant(&format!("{name}.z"), Tensor::scalar(100u8));
        let grid = Grid::levels(1.0, 0);
        match to_levels {
            true => g.add_node(name, grid.quantize(), &[x, scale, zero]),
            false => g.add_node(name, grid.dequantize(), &[x, scale, zero]),
        }
    }

    fn pool() -> MaxPool {
        let window = PoolWindow { kernel_shape: vec![2], strides: vec![2], ..PoolWindow::default() };
        MaxPool { window, column_major: false }
    }

    #[test]
    fn pools_between_equal_grids_take_levels() {
        let (mut g, x) = input(&[1, 2, 6]);
        let q = convert(&mut g, "q", true, x, 0.02);
        let f = convert(&mut g, "f", false, q, 0.02);
        let p = g.add_node("p", pool(), &[f]);
        let flat = g.add_node("flat", Flatten { axis: 1 }, &[p]);
        let q = convert(&mut g, "r", true, flat, 0.02);
        let y = convert(&mut g, "y", false, q, 0.02);
        g.outputs.push(y);
        let rest = [("DequantizeLinear", 1), ("Flatten", 1), ("MaxPool", 1), ("QuantizeLinear", 1)];
        settle(g, &rest);
    }

    #[test]
    fn quantisations_rise_to_the_layer_before() {
        let (mut g, x) = input(&[1, 2, 6]);
        let w = weights(&mut g, "w", &[2, 2, 1]);
        let c = g.add_node("c", Conv::default(), &[x, w]);
        let p = g.add_node("p", pool(), &[c]);
        let q = convert(&mut g, "q", true, p, 0.02);
        g.outputs.push(q);
        let g = settle(g, &[("Conv", 1), ("MaxPool", 1), ("QuantizeLinear", 1)]);
        assert_eq!(
            g.nodes.iter().map(|n| n.op.name()).collect::<Vec<_>>(),
            ["Conv", "QuantizeLinear", "MaxPool"]
        );
    }

    #[test]
    fn one_run_rises_above_many_operators() {
        let (mut g, x) = input(&[1, 2, 24]);
        let w = weights(&mut g, "w", &[2, 2, 1]);
        let mut y = g.add_node("c", Conv::default(), &[x, w]);
        for name in ["p", "q", "r"] {
            y = g.add_node(name, pool(), &[y]);
        }
        let flat = g.add_node("flat", Flatten { axis: 1 }, &[y]);
        let step = scalar(&mut g, "step", 1.5);
        let sign = g.add_node("sign", BipolarQuant, &[flat, step]);
        let y = convert(&mut g, "y", true, sign, 1.5);
        g.outputs.push(y);
        let rest = [("BipolarQuant", 1), ("Conv", 1), ("Flatten", 1), ("MaxPool", 3), ("QuantizeLinear", 1)];
        let g = check_inferred(&QuantisedMovement, g, &rest);
        let order: Vec<_> = g.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(order[..3], ["Conv", "BipolarQuant", "QuantizeLinear"]);
    }

    #[test]
    fn limits_and_signs_rise_with_their_quantisation() {
        for sign in [false, true] {
            let (mut g, x) = input(&[1, 2, 6]);
            let w = weights(&mut g, "w", &[2, 2, 1]);
            let c = g.add_node("c", Conv::default(), &[x, w]);
            let p = g.add_node("p", pool(), &[c]);
            let (low, high) = (scalar(&mut g, "low", -0.5), scalar(&mut g, "high", 1.5));
            let limited = match sign {
                true => g.add_node("sign", BipolarQuant, &[p, high]),
                false => g.add_node("limits", planish_graph::ops::math::clip::Clip, &[p, low, high]),
            };
            let q = convert(&mut g, "q", true, limited, 1.5);
            g.outputs.push(q);
            let name = if sign { "BipolarQuant" } else { "Clip" };
            let g = settle(g, &[("Conv", 1), (name, 1), ("MaxPool", 1), ("QuantizeLinear", 1)]);
            let order: Vec<_> = g.nodes.iter().map(|n| n.op.name()).collect();
            assert_eq!(order, ["Conv", name, "QuantizeLinear", "MaxPool"]);
        }
    }

    #[test]
    fn concatenations_of_other_grids_are_brought_to_one() {
        let (mut g, x) = input(&[1, 2, 6]);
        let parts = [0.02f32, 0.03].map(|scale| {
            let q = convert(&mut g, &format!("q{scale}"), true, x, scale);
            convert(&mut g, &format!("f{scale}"), false, q, scale)
        });
        let joined = g.add_node("joined", Concat { axis: 1 }, &parts);
        let y = convert(&mut g, "y", true, joined, 0.03);
        g.outputs.push(y);
        settle(g, &[("Concat", 1), ("Quantised", 1), ("QuantizeLinear", 2)]);
    }

    #[test]
    fn pixels_that_are_filled_with_a_number_are_no_levels() {
        let (mut g, x) = input(&[1, 2, 6]);
        let q = convert(&mut g, "q", true, x, 0.02);
        let f = convert(&mut g, "f", false, q, 0.02);
        let region =
            g.add_constant("region", Tensor::new(&[6], &[0.0f32, 0.0, -0.5, 1.0, 1.0, 1.5]).unwrap());
        let sizes = g.add_constant("sizes", Tensor::from_i64s(&[1, 2, 11]).unwrap());
        let crop = Resize {
            coordinates: Coordinates::TfCropAndResize,
            extrapolation_value: 0.35,
            ..Resize::default()
        };
        let inputs = vec![Some(f), Some(region), None, Some(sizes)];
        let y = g.add_value(Value { name: "y".into(), ..Value::default() });
        g.nodes.push(Node { name: "crop".into(), op: Arc::new(crop), inputs, outputs: vec![Some(y)] });
        g.outputs.push(y);
        settle(g, &[("DequantizeLinear", 1), ("QuantizeLinear", 1), ("Resize", 1)]);
    }

    /// Runs the pass until it finds nothing; then as `check_inferred`.
    fn settle(g: Graph, rest: &[(&'static str, usize)]) -> Graph {
        let mut after = g.clone();
        super::super::super::known_contents::KnownContents.run(&mut after).unwrap();
        while QuantisedMovement.run(&mut after).unwrap() > 0 {
            after.validate().unwrap();
        }
        let after = check_inferred(&QuantisedMovement, after, rest);
        crate::passes::testing::check_same(&g, &after);
        after
    }
}
