//! Which values of a network are kept as integers, and which share a scale.
//!
//! The rules, as ONNX Runtime's and TFLite's kernels want them:
//!
//! - a layer and a pool read integers; what computes between integers (additions, products, activations) reads them where
//!   its own result is wanted as integers, too;
//! - an activation that is the only reader of a sum is part of the operator before it: only what is behind it is rounded;
//! - what only moves numbers (MaxPool, Reshape, Slice, Pad …), or lies between them (nearest and linear Resize), keeps the
//!   scale of what it moves, and Concat joins the scales of all its parts, so that none of them costs anything;
//! - whatever nobody wants as integers stays float: the network's answer above all.

use super::prepare::Network;
use planish_graph::ops::math::activation::Activation;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::prelu::PRelu;
use planish_graph::ops::math::unary::Unary;
use planish_graph::ops::movement::concat::Concat;
use planish_graph::ops::movement::pad::{Pad, PadMode};
use planish_graph::ops::nn::batch_normalization::BatchNormalization;
use planish_graph::ops::nn::global_pool::{GlobalPool, GlobalPoolKind};
use planish_graph::ops::nn::pool::{AveragePool, MaxPool};
use planish_graph::ops::nn::resize::Resize;
use planish_graph::ops::nn::resize::taps::Interpolation;
use planish_graph::{Graph, Node, OperatorExt, ValueId};
use std::collections::BTreeSet;

/// What a node is to quantisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Reads integers always.
    Layer,
    /// Reads integers always, has a scale of its own behind it.
    Pool,
    /// Computes between integers where its result is wanted so.
    Arithmetic,
    /// As arithmetic, of one value: can be part of the operator before it.
    Activation,
    /// Keeps the scale of its first input.
    Move,
    /// Joins the scales of all its inputs.
    Join,
    /// A layer that stays float and reads rounded numbers, so that what is before it computes in integers.
    Between,
    /// A layer that stays float and reads numbers as they are.
    FloatLayer,
    /// Computes in float.
    Float,
}

fn role(graph: &Graph, node: &Node) -> Role {
    let op = &*node.op;
    let moves =
        ["Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather", "Split"];
    let more = ["DepthToSpace", "SpaceToDepth", "ChannelShuffle", "Expand", "Tile"];
    if node.outputs.len() > 1 && op.name() != "Split" || node.inputs.is_empty() {
        return Role::Float;
    }
    if let Some(binary) = op.as_op::<Binary>() {
        let known = matches!(
            binary.function,
            BinaryFunction::Add | BinaryFunction::Mul | BinaryFunction::Sub | BinaryFunction::Div
        );
        let variable = node.inputs.iter().flatten().filter(|v| graph.constant(**v).is_none()).count();
        return match (binary.function, variable) {
            _ if !known => Role::Float,
            (_, 1) => Role::Activation,
            (BinaryFunction::Add | BinaryFunction::Mul, 2) => Role::Arithmetic,
            _ => Role::Float,
        };
    }
    let constant = |i: usize| node.input(i).is_none_or(|v| graph.constant(v).is_some());
    if op.is_op::<Unary>() || op.is_op::<Activation>() {
        return Role::Activation;
    }
    if op.is_op::<Clip>() || op.is_op::<PRelu>() || op.is_op::<BatchNormalization>() {
        return if (1..node.inputs.len()).all(constant) { Role::Activation } else { Role::Float };
    }
    if let Some(pool) = op.as_op::<GlobalPool>() {
        return match pool.kind {
            GlobalPoolKind::Average => Role::Pool,
            GlobalPoolKind::Max => Role::Move,
            GlobalPoolKind::Lp { .. } => Role::Float,
        };
    }
    if op.is_op::<AveragePool>() {
        return Role::Pool;
    }
    if let Some(resize) = op.as_op::<Resize>() {
        let convex = matches!(resize.interpolation, Interpolation::Nearest(_) | Interpolation::Linear { .. });
        return if convex { Role::Move } else { Role::Arithmetic };
    }
    if let Some(pad) = op.as_op::<Pad>() {
        let zero = node.input(2).is_none_or(|v| graph.constant(v).is_some_and(|t| t.to_f64s() == [0.0]));
        return if pad.mode != PadMode::Constant || zero { Role::Move } else { Role::Arithmetic };
    }
    match op.is_op::<Concat>() {
        true => Role::Join,
        false if op.is_op::<MaxPool>() || moves.contains(&op.name()) || more.contains(&op.name()) => {
            Role::Move
        }
        false => Role::Float,
    }
}

/// Which values are integers. See the module.
#[derive(Clone, Debug)]
pub struct Roles {
    /// By value: kept as integers.
    integer: Vec<bool>,
    /// By value: the first value of those that share its scale.
    group: Vec<usize>,
    /// By value: makes its scale, rather than having it from another.
    source: Vec<bool>,
}

impl Roles {
    /// The roles in `network` when the layers in `float` (by their place among the layers) stay float, of which those in
    /// `between` still read rounded numbers.
    pub fn of(network: &Network, float: &BTreeSet<usize>, between: &BTreeSet<usize>) -> Roles {
        let graph = &network.graph;
        let mut roles: Vec<Role> = graph.nodes.iter().map(|n| role(graph, n)).collect();
        for (l, layer) in network.layers.iter().enumerate() {
            roles[layer.node] = match (float.contains(&l), between.contains(&l)) {
                (false, _) => Role::Layer,
                (true, true) => Role::Between,
                (true, false) => Role::FloatLayer,
            };
        }
        let (makers, readers) = (graph.producers(), graph.consumers());
        let outputs: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
        // The value of a sum that only an activation reads is never written down.
        let inner = |v: ValueId| {
            let made = makers[v.0 as usize].map(|(n, _)| roles[n.0 as usize]);
            let read = &readers[v.0 as usize];
            let sums = [
                Role::Layer,
                Role::Between,
                Role::FloatLayer,
                Role::Arithmetic,
                Role::Activation,
                Role::Pool,
            ];
            made.is_some_and(|role| sums.contains(&role))
                && read.len() == 1
                && roles[read[0].0 as usize] == Role::Activation
                && !outputs.contains(&v)
        };
        let mut integer = vec![false; graph.values.len()];
        let mut works = vec![false; graph.nodes.len()];
        for (n, node) in graph.nodes.iter().enumerate().rev() {
            let wanted =
                node.outputs.iter().flatten().any(|&v| {
                    integer[v.0 as usize] || inner(v) && works[readers[v.0 as usize][0].0 as usize]
                });
            works[n] = match roles[n] {
                Role::Layer | Role::Between | Role::Pool => true,
                Role::FloatLayer | Role::Float => false,
                _ => wanted,
            };
            if works[n] {
                let read = match roles[n] {
                    Role::Arithmetic | Role::Activation | Role::Join => node.inputs.len(),
                    _ => 1,
                };
                for &v in node.inputs[..read].iter().flatten() {
                    if graph.constant(v).is_none() && !inner(v) {
                        integer[v.0 as usize] = true;
                    }
                }
            }
        }
        let mut group: Vec<usize> = (0..graph.values.len()).collect();
        let mut source = integer.clone();
        for (n, node) in graph.nodes.iter().enumerate().filter(|(n, _)| works[*n]) {
            let joined = match roles[n] {
                Role::Move => 1,
                Role::Join => node.inputs.len(),
                _ => continue,
            };
            for &out in node.outputs.iter().flatten().filter(|v| integer[v.0 as usize]) {
                // A constant part may reach further than the others: then what is joined makes the scale as well.
                source[out.0 as usize] =
                    node.inputs[..joined].iter().flatten().any(|v| !integer[v.0 as usize]);
                for &v in node.inputs[..joined].iter().flatten().filter(|v| integer[v.0 as usize]) {
                    let (a, b) = (root(&mut group, v.0 as usize), root(&mut group, out.0 as usize));
                    group[a.max(b)] = a.min(b);
                }
            }
        }
        for v in 0..group.len() {
            group[v] = root(&mut group, v);
        }
        Roles { integer, group, source }
    }
    /// Whether `v` is kept as integers.
    pub fn is_integer(&self, v: ValueId) -> bool {
        self.integer[v.0 as usize]
    }
    /// The values that make a scale, each with the number of the group that shares it.
    pub fn sources(&self) -> impl Iterator<Item = (ValueId, usize)> {
        (0..self.source.len()).filter(|v| self.source[*v]).map(|v| (ValueId(v as u32), self.group[v]))
    }
    /// The number of the group of values that `v` shares its scale with.
    pub fn group(&self, v: ValueId) -> usize {
        self.group[v.0 as usize]
    }
}

/// The first value of the group of `v`; shortens the way there.
fn root(group: &mut [usize], mut v: usize) -> usize {
    while group[v] != v {
        group[v] = group[group[v]];
        v = group[v];
    }
    v
}
