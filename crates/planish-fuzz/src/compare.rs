//! Whether two sets of outputs agree, where rounding may grow along the way.
//!
//! A chain of operators can turn the last bit of a number into anything (a division by almost zero, a floor next to a
//! whole number). How much a graph does so is measured: the reference runs again with every value it makes shaken in its
//! last digits, and an element that moves under that is not held against the engine.

use planish_graph::reference::{eval_node, run_with};
use planish_graph::{DType, Graph, Result, Tensor};

/// The outputs by the reference, and whether every value on the way was a tame number.
pub(crate) fn wanted(graph: &Graph, inputs: &[Tensor]) -> Result<(Vec<Tensor>, bool)> {
    let mut tame = true;
    let outputs = run_with(graph, inputs, |_, tensor| {
        if tensor.dtype().is_float() {
            tame &= tensor.to_f64s().iter().all(|x| x.abs() < 1e12);
        }
        Ok(())
    })?;
    Ok((outputs, tame))
}

/// Says how `found` differs from `wanted`, if it does by more than rounding explains.
pub(crate) fn difference(
    graph: &Graph,
    inputs: &[Tensor],
    (wanted, tame): (&[Tensor], bool),
    found: &[Tensor],
) -> Option<String> {
    if wanted.len() != found.len() {
        return Some(format!("{} outputs instead of {}", found.len(), wanted.len()));
    }
    let mut shaken: Option<Vec<Vec<Tensor>>> = None;
    for (index, (w, f)) in wanted.iter().zip(found).enumerate() {
        if (w.dtype(), w.shape()) != (f.dtype(), f.shape()) {
            return Some(format!("output {index} is {f:?} instead of {w:?}"));
        }
        if !tame || w == f {
            continue;
        }
        for (at, (w, f)) in w.to_f64s().into_iter().zip(f.to_f64s()).enumerate() {
            let near = |spread: f64| w == f || (w - f).abs() <= 1e-4 * w.abs().max(1.0) + 30.0 * spread;
            if near(0.0) {
                continue;
            }
            let runs = shaken
                .get_or_insert_with(|| (0..ROUNDS).filter_map(|round| shake(graph, inputs, round)).collect());
            if runs.len() < ROUNDS as usize || runs.iter().any(|r| r[index].shape() != wanted[index].shape())
            {
                break;
            }
            let spread = runs.iter().map(|r| (r[index].to_f64s()[at] - w).abs()).fold(0.0, f64::max);
            // Where a millionth moves the result by a thousandth, it says nothing.
            let steady = spread <= 1e-3 * w.abs().max(1.0);
            if !near(spread) && steady {
                let maker = graph.producers()[graph.outputs[index].0 as usize];
                let maker = maker.map_or("nothing", |(n, _)| graph.nodes[n.0 as usize].op.name());
                return Some(format!("output {index} of {maker} has {f} instead of {w} at element {at}"));
            }
        }
    }
    None
}

/// How often a graph is shaken.
const ROUNDS: u64 = 7;

/// The reference's outputs where every float on the way is shaken by a few millionths of itself and of one, more than the
/// absolute error that GELU may have; `None` where that fails. Rounds go in pairs that shake in opposite directions, so
/// that what lies next to zero does cross it; the last one puts it there, where a function may be that is the same on both
/// sides. Convolutions may be computed by transforms, which err by the largest number of a tile.
fn shake(graph: &Graph, inputs: &[Tensor], round: u64) -> Option<Vec<Tensor>> {
    let mut state = (round / 2 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let direction = if round.is_multiple_of(2) { 1.0 } else { -1.0 };
    let mut shaken = |tensor: &Tensor, transformed: bool| -> Option<Tensor> {
        if tensor.dtype() != DType::F32 {
            return Some(tensor.clone());
        }
        let values = tensor.to_f32s();
        let largest = if transformed { values.iter().fold(0f32, |m, x| m.max(x.abs())) } else { 0.0 };
        let values: Vec<f32> = values
            .into_iter()
            .map(|x| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let by = direction * ((state >> 40) as f32 / (1u32 << 24) as f32 - 0.5);
                if round == ROUNDS - 1 && x.abs() < 5e-6 {
                    return 0.0;
                }
                x + x * by * 4e-6 + by * 1e-5 + by * 4e-6 * largest
            })
            .collect();
        Tensor::new(tensor.shape(), &values).ok()
    };
    let mut values: Vec<Option<Tensor>> = graph.values.iter().map(|v| v.constant.clone()).collect();
    for (id, tensor) in graph.inputs.iter().zip(inputs) {
        values[id.0 as usize] = Some(shaken(tensor, false)?);
    }
    for node in &graph.nodes {
        let given: Vec<Option<&Tensor>> =
            node.inputs.iter().map(|i| i.and_then(|i| values[i.0 as usize].as_ref())).collect();
        let made = eval_node(node, &given).ok()?;
        let transformed = matches!(node.op.name(), "Conv" | "ConvAdd");
        for (output, tensor) in node.outputs.iter().zip(made) {
            if let Some(id) = output {
                values[id.0 as usize] = Some(shaken(&tensor, transformed)?);
            }
        }
    }
    graph.outputs.iter().map(|id| values[id.0 as usize].clone()).collect()
}
