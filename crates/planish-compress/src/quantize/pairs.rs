//! Layers one behind the other: what equalisation and bias absorption move numbers between.

use super::layers::Layer;
use super::prepare::Network;
use planish_graph::ops::math::activation::{Activation, ActivationFunction};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::{Graph, Node, OperatorExt, Tensor, ValueId};

/// What is between two layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Between {
    /// Nothing.
    Nothing,
    /// max(x, 0).
    Relu,
    /// Another function that commutes with positive factors.
    Homogeneous,
    /// Bounds from 0 to this.
    Bounded(f32),
}

/// A layer, and the only one that reads what it makes.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The first, by its place among the layers.
    pub first: usize,
    /// The second.
    pub second: usize,
    /// The function between them.
    pub between: Between,
    /// The value that the second reads.
    pub value: ValueId,
}

/// The pairs of `network` in which every channel between them may get a factor of its own.
pub fn pairs(network: &Network) -> Vec<Pair> {
    let graph = &network.graph;
    let readers = graph.consumers();
    let only_reader = |v: ValueId| match readers[v.0 as usize][..] {
        [only] if !graph.outputs.contains(&v) => Some(only.0 as usize),
        _ => None,
    };
    let layer_at = |n: usize| network.layers.iter().position(|l| l.node == n);
    let mut found = Vec::new();
    for (first, layer) in network.layers.iter().enumerate() {
        let Some(mut reader) = only_reader(layer.output) else { continue };
        let (mut value, mut between) = (layer.output, Between::Nothing);
        if let Some(function) = function(graph, &graph.nodes[reader])
            && let Some(output) = graph.nodes[reader].output()
        {
            let Some(next) = only_reader(output) else { continue };
            (value, between, reader) = (output, function, next);
        }
        let own = |l: &Layer| readers[l.weights.0 as usize].len() == 1;
        if let Some(second) = layer_at(reader)
            && network.layers[second].input == value
            && input_channels(&network.layers[second], graph) == layer.channels
            && own(layer)
            && own(&network.layers[second])
        {
            found.push(Pair { first, second, between, value });
        }
    }
    found
}

/// The function that alone reads what layer `l` makes; nothing where there is none of a known kind.
pub fn following(network: &Network, l: usize) -> Between {
    let graph = &network.graph;
    let output = network.layers[l].output;
    match graph.consumers()[output.0 as usize][..] {
        [only] => function(graph, &graph.nodes[only.0 as usize]).unwrap_or(Between::Nothing),
        _ => Between::Nothing,
    }
}

fn function(graph: &Graph, node: &Node) -> Option<Between> {
    if let Some(op) = node.op.as_op::<Unary>() {
        return (op.function == UnaryFunction::Relu).then_some(Between::Relu);
    }
    if let Some(op) = node.op.as_op::<Activation>() {
        return matches!(op.function, ActivationFunction::LeakyRelu { .. }).then_some(Between::Homogeneous);
    }
    node.op.as_op::<Clip>()?;
    let bound = |i: usize| graph.constant(node.input(i)?).filter(|t| t.len() == 1).map(|t| t.to_f32s()[0]);
    let (low, high) = (bound(1)?, bound(2)?);
    (low == 0.0 && high > 0.0).then_some(Between::Bounded(high))
}

/// Channels that a layer reads.
fn input_channels(layer: &Layer, graph: &Graph) -> usize {
    let weights = layer.weights_of(graph);
    if weights.rank() == 2 { weights.len() / layer.channels } else { weights.shape()[1] * layer.groups }
}

/// The input channel that weight `index` of `layer` multiplies.
pub fn input_channel(layer: &Layer, weights: &Tensor, index: usize) -> usize {
    if layer.axis == 1 {
        return index / layer.channels;
    }
    let taps: usize = weights.shape()[2..].iter().product();
    let per_group = weights.shape()[1];
    let group = index / (taps * per_group) / (layer.channels / layer.groups);
    group * per_group + index / taps % per_group
}
