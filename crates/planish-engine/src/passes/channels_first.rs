//! Channels-last stretches of a network are told in channels-first terms, in which everything else is.
//!
//! ConvNeXt and its kin transpose to `[N, H, W, C]` for a layer norm and two matrix products, and transpose back. A matrix
//! product over the last of four axes is a 1×1 convolution between two transpositions, and a transposition behind which
//! elements are treated one by one may as well come after that. With both, the transpositions in the middle meet and
//! cancel, and the convolutions take in bias, activation, layer scale and shortcut like any other.

use super::Pass;
use super::rewrite::Rewriter;
use planish_graph::ops::math::activation::Activation;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::math::unary::Unary;
use planish_graph::ops::movement::transpose::Transpose;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::{Dim, Graph, Node, NodeId, Operator, OperatorExt, Result, Tensor, ValueId};
use std::sync::Arc;

/// Tells channels-last products as convolutions, and lets transpositions sink.
pub struct ChannelsFirst;

impl Pass for ChannelsFirst {
    fn name(&self) -> &'static str {
        "channels-first"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((x, weights)) = product(&rewriter, id) {
                convolve(&mut rewriter, id, x, weights);
            } else if let Some(sunk) = sinking(&rewriter, id) {
                sink(&mut rewriter, id, sunk);
            }
        }
        rewriter.finish()
    }
}

/// From channels last to channels first.
const TO_FIRST: [usize; 4] = [0, 3, 1, 2];
/// And back.
const TO_LAST: [usize; 4] = [0, 2, 3, 1];

/// How far behind a product its way back to channels-first is looked for.
const REACH: usize = 16;

/// Input and weights (as of a 1×1 convolution) of the product `id`, where its result is on the way to channels-first.
fn product(rewriter: &Rewriter, id: NodeId) -> Option<(ValueId, Tensor)> {
    let (node, _) = rewriter.node_of::<MatMul>(id)?;
    let x = node.input(0).filter(|&x| rewriter.rank(x) == Some(4))?;
    // A product of no rows is empty, a convolution over an axis without elements an error.
    if rewriter.dims(x).is_some_and(|dims| dims.contains(&Dim::Fixed(0))) {
        return None;
    }
    let matrix = rewriter.constant_input(node, 1).filter(|w| w.dtype().is_float())?;
    let &[inputs, outputs] = matrix.shape() else { return None };
    if matrix.is_empty() || !returns_to_channels_first(rewriter, node.output()?) {
        return None;
    }
    let values = matrix.to_f64s();
    let turned: Vec<f64> = (0..inputs * outputs).map(|i| values[i % inputs * outputs + i / inputs]).collect();
    Some((x, Tensor::from_f64s(matrix.dtype(), &[outputs, inputs, 1, 1], &turned).ok()?))
}

/// Whether `value` is transposed to channels-first, perhaps behind arithmetic with constants, functions of single elements
/// and further products, each the only reader of what is before it.
fn returns_to_channels_first(rewriter: &Rewriter, mut value: ValueId) -> bool {
    for _ in 0..REACH {
        let Some(node) = rewriter.sole_reader(value).and_then(|id| rewriter.node(id)) else { return false };
        if let Some(op) = node.op.as_op::<Transpose>() {
            return op.perm.as_deref() == Some(&TO_FIRST);
        }
        let with_constant = node.op.is_op::<Binary>() || node.op.is_op::<MatMul>();
        let other_is_constant = || {
            let others = node.inputs.iter().flatten().filter(|&&input| input != value);
            others.copied().all(|input| rewriter.constant(input).is_some())
        };
        let (true, Some(output)) =
            (by_element(&*node.op) || with_constant && other_is_constant(), node.output())
        else {
            return false;
        };
        value = output;
    }
    false
}

/// Whether an operator replaces each element of its first input by a function of that element.
fn by_element(op: &dyn Operator) -> bool {
    op.is_op::<Unary>() || op.is_op::<Activation>() || op.is_op::<Clip>()
}

/// Extents of `value` in the order of `perm`, where they are known.
fn permuted(rewriter: &Rewriter, value: ValueId, perm: &[usize]) -> Option<Vec<Dim>> {
    let dims = rewriter.dims(value)?;
    perm.iter().map(|&axis| dims.get(axis).cloned()).collect()
}

/// Makes the product `id` the transposition of a convolution of the transposed `x`.
fn convolve(rewriter: &mut Rewriter, id: NodeId, x: ValueId, weights: Tensor) {
    let Some(node) = rewriter.node(id) else { return };
    let (name, output) = (node.name.clone(), node.output());
    let dtype = rewriter.dtype(x);
    let turned = rewriter.add_value(&format!("{name}.turned"), dtype, permuted(rewriter, x, &TO_FIRST));
    let shape = output.and_then(|output| permuted(rewriter, output, &TO_FIRST));
    let sums = rewriter.add_value(&format!("{name}.sums"), dtype, shape);
    let weights = rewriter.add_constant(&format!("{name}.weight"), weights);
    let op = Arc::new(Transpose { perm: Some(TO_FIRST.to_vec()) });
    let (inputs, outputs) = (vec![Some(x)], vec![Some(turned)]);
    rewriter.insert(id, Node { name: format!("{name}.turned"), op, inputs, outputs });
    let (inputs, outputs) = (vec![Some(turned), Some(weights)], vec![Some(sums)]);
    rewriter.insert(id, Node { name, op: Arc::new(Conv::default()), inputs, outputs });
    rewriter.set(id, Arc::new(Transpose { perm: Some(TO_LAST.to_vec()) }), vec![Some(sums)]);
}

/// What a node would compute before the transposition that it stands behind.
struct Sunk {
    perm: Vec<usize>,
    x: ValueId,
    /// The place of the transposed value among the node's inputs.
    place: usize,
    /// The other operand, turned.
    constant: Option<Tensor>,
}

/// How node `id` could change places with the transposition before it.
fn sinking(rewriter: &Rewriter, id: NodeId) -> Option<Sunk> {
    let node = rewriter.node(id)?;
    let before = |place| {
        let value = node.input(place).filter(|&value| rewriter.use_count(value) == 1)?;
        let (_, transposition, op) = rewriter.maker_of::<Transpose>(value)?;
        Some((transposition.input(0)?, op.perm.clone()?))
    };
    if by_element(&*node.op) {
        let (x, perm) = before(0)?;
        return Some(Sunk { perm, x, place: 0, constant: None });
    }
    use BinaryFunction::{Add, Div, Mul, Sub};
    node.op.as_op::<Binary>().filter(|op| matches!(op.function, Add | Sub | Mul | Div))?;
    (0..2).find_map(|place| {
        let (x, perm) = before(place)?;
        let constant = rewriter.constant_input(node, 1 - place)?;
        let last = *perm.last()?;
        let shape = match *constant.shape() {
            [] => Vec::new(),
            // Along the last axis; further axes of the new place come behind it.
            [extent] => {
                let kept = rewriter.dims(x)?.get(last) == Some(&Dim::Fixed(extent));
                let axes = last..perm.len();
                kept.then(|| axes.map(|axis| if axis == last { extent } else { 1 }).collect())?
            }
            _ => return None,
        };
        Some(Sunk { x, place, constant: Some(constant.reshaped(&shape).ok()?), perm })
    })
}

/// Lets node `id` change places with the transposition before it.
fn sink(rewriter: &mut Rewriter, id: NodeId, sunk: Sunk) {
    let Some(node) = rewriter.node(id) else { return };
    let (name, op, mut inputs) = (node.name.clone(), node.op.clone(), node.inputs.clone());
    inputs[sunk.place] = Some(sunk.x);
    if let Some(tensor) = sunk.constant {
        inputs[1 - sunk.place] = Some(rewriter.add_constant(&format!("{name}.constant"), tensor));
    }
    let shape = rewriter.dims(sunk.x).map(<[Dim]>::to_vec);
    let made = rewriter.add_value(&format!("{name}.turned"), rewriter.dtype(sunk.x), shape);
    rewriter.insert(id, Node { name, op, inputs, outputs: vec![Some(made)] });
    rewriter.set(id, Arc::new(Transpose { perm: Some(sunk.perm) }), vec![Some(made)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check_inferred, check_same, histogram, input, unary, weights};
    use crate::passes::{optimise, run_pass};
    use planish_graph::ops::math::activation::ActivationFunction;
    use planish_graph::ops::math::unary::UnaryFunction::Relu;
    use planish_graph::ops::nn::layer_normalization::LayerNormalization;

    fn transposed(g: &mut Graph, name: &str, perm: &[usize], x: ValueId) -> ValueId {
        g.add_node(name, Transpose { perm: Some(perm.to_vec()) }, &[x])
    }
    fn linear(g: &mut Graph, name: &str, x: ValueId, shape: &[usize]) -> ValueId {
        let w = weights(g, &format!("{name}.w"), shape);
        let b = weights(g, &format!("{name}.b"), &shape[1..]);
        let product = g.add_node(name, MatMul, &[x, w]);
        binary(g, &format!("{name}.sum"), BinaryFunction::Add, b, product)
    }
    /// A block of ConvNeXt; its result is transposed back by `back`.
    fn block(back: &[usize]) -> Graph {
        let (mut g, x) = input(&[1, 3, 2, 2]);
        let y = transposed(&mut g, "to_last", &TO_LAST, x);
        let [scale, shift] = ["scale", "shift"].map(|name| weights(&mut g, name, &[3]));
        let norm = LayerNormalization::default();
        let y = g.add_node("norm", norm, &[y, scale, shift]);
        let y = linear(&mut g, "wide", y, &[3, 5]);
        let gelu = Activation { function: ActivationFunction::Gelu { tanh: false } };
        let y = g.add_node("gelu", gelu, &[y]);
        let y = linear(&mut g, "narrow", y, &[5, 3]);
        let y = transposed(&mut g, "back", back, y);
        g.outputs.push(y);
        g
    }

    #[test]
    fn blocks_become_convolutions() {
        let mut g = block(&TO_FIRST);
        let before = g.clone();
        let c = weights(&mut g, "layer_scale", &[3, 1, 1]);
        let y = binary(&mut g, "scaled", BinaryFunction::Mul, before.outputs[0], c);
        g.outputs[0] = binary(&mut g, "y", BinaryFunction::Add, y, before.inputs[0]);
        let mut after = g.clone();
        optimise(&mut after).unwrap();
        check_same(&g, &after);
        let expected = [("ConvAdd", 2), ("LayerNormalization", 1), ("Transpose", 2)];
        assert_eq!(histogram(&after), expected.into(), "{after}");
    }

    #[test]
    fn what_stays_channels_last_stays() {
        let mut g = block(&TO_LAST);
        run_pass(&crate::passes::known_contents::KnownContents, &mut g).unwrap();
        assert_eq!(ChannelsFirst.run(&mut g).unwrap(), 0);
    }

    #[test]
    fn transpositions_sink() {
        let (mut g, x) = input(&[2, 3, 4]);
        let turned = transposed(&mut g, "turned", &[2, 0, 1], x);
        let bent = unary(&mut g, "bent", Relu, turned);
        let c = weights(&mut g, "c", &[3]);
        let y = binary(&mut g, "y", BinaryFunction::Sub, c, bent);
        g.outputs.push(y);
        let g = check_inferred(&ChannelsFirst, g, &[("Transpose", 1), ("Relu", 1), ("Sub", 1)]);
        assert_eq!(g.nodes[2].op.name(), "Transpose");
    }

    #[test]
    fn what_others_read_does_not_sink() {
        let (mut g, x) = input(&[2, 3, 4]);
        let turned = transposed(&mut g, "turned", &[2, 0, 1], x);
        let bent = unary(&mut g, "bent", Relu, turned);
        g.outputs = vec![bent, turned];
        check_inferred(&ChannelsFirst, g.clone(), &[("Transpose", 1), ("Relu", 1)]);
    }
}
