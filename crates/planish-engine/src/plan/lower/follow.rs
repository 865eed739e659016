//! What the kernel before it does as well, while its result is still in registers: a residual addition, a PReLU, an
//! activation, and factors and offsets for each channel.
//!
//! A pass of its own puts activations and shortcuts into convolutions, because that changes what else can be fused. For
//! the rest, and for the other kernels, it is enough to decide here, where layouts are known, and no operator has to be
//! invented for each pair: the kernel writes what the last of the followers would have written, and they make no steps.

use super::{Facts, Layout, Lowering, Operand, elementwise, family};
use crate::passes::{Affine, channel_map, per_channel};
use crate::run::environment::{Environment, Stored};
use planish_cpu::element::ElementType;
use planish_cpu::epilogue::{Activation, Epilogue, Levels};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::prelu::PRelu;
use planish_graph::{DType, Error, Node, OperatorExt, Result, ValueId};
use std::collections::HashMap;

/// What a kernel can do to its result, in the order in which it does it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Abilities {
    /// Add a tensor of the same shape.
    pub(crate) residual: bool,
    /// An activation.
    pub(crate) activation: bool,
    /// Multiply negative numbers by a slope for each channel, where it can do an activation too; after that, multiply
    /// each channel by a factor and add to it.
    pub(crate) channels: bool,
}

impl Abilities {
    /// Kernels that end in an [`Epilogue`].
    pub(crate) const ALL: Abilities = Abilities { residual: true, activation: true, channels: true };
    /// Kernels that take an activation only.
    pub(crate) const ACTIVATION: Abilities = Abilities { residual: false, activation: true, channels: false };
}

/// What follows a node and is done by its kernel.
#[derive(Clone, Debug, Default)]
pub(super) struct Followers {
    /// The nodes that are done, the first first.
    pub(super) nodes: Vec<usize>,
    residual: Option<ValueId>,
    slopes: Option<Vec<f32>>,
    activation: Activation,
    affine: Option<Affine>,
}

/// An [`Epilogue`] that keeps its numbers, and its residual by where it is found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behind {
    pub(crate) residual: Option<Operand>,
    pub(crate) slopes: Option<Vec<f32>>,
    pub(crate) activation: Activation,
    pub(crate) scale: Option<Vec<f32>>,
    pub(crate) shift: Option<Vec<f32>>,
    pub(crate) levels: Levels,
}

impl Behind {
    /// What the kernel gets; `T` is the element of the result.
    pub(crate) fn epilogue<T: Stored>(&self, env: &mut Environment<'_>) -> Result<Epilogue<'_, T>> {
        Ok(Epilogue {
            residual: self.residual.as_ref().map(|r| env.rows(r)).transpose()?,
            slopes: self.slopes.as_deref(),
            activation: self.activation,
            scale: self.scale.as_deref(),
            shift: self.shift.as_deref(),
            levels: self.levels,
        })
    }
}

/// By node, what its kernel does of those that follow: each the only reader of what is before it, in the same layout and
/// element.
pub(super) fn assign(
    known: &Facts<'_>,
    layouts: &[Layout],
    elements: &[ElementType],
) -> HashMap<usize, Followers> {
    let graph = known.graph;
    let mut readers: HashMap<ValueId, (usize, usize)> = HashMap::new();
    let mut makers: HashMap<ValueId, usize> = HashMap::new();
    for (n, node) in graph.nodes.iter().enumerate() {
        for &v in node.inputs.iter().flatten() {
            let (count, last) = readers.entry(v).or_default();
            (*count, *last) = (*count + 1, n);
        }
        makers.extend(node.outputs.iter().flatten().map(|&v| (v, n)));
    }
    let mut followers: HashMap<usize, Followers> = HashMap::new();
    let mut done = vec![false; graph.nodes.len()];
    for (n, node) in graph.nodes.iter().enumerate() {
        let abilities = family(node, known).map(|(f, _)| f.follows(node, known)).unwrap_or_default();
        let &[Some(mut made)] = &node.outputs[..] else { continue };
        if done[n] {
            continue;
        }
        let mut found = Followers::default();
        while let Some(&(1, reader)) = readers.get(&made).filter(|_| !graph.outputs.contains(&made)) {
            let next = &graph.nodes[reader];
            let Some(result) = next.output() else { break };
            let form = |v: ValueId| (layouts[v.0 as usize], elements[v.0 as usize]);
            let there = |v: ValueId| makers.get(&v).is_none_or(|&maker| maker < n);
            if form(made) != form(result)
                || !found.take(abilities, known, next, made, layouts[made.0 as usize], &there)
            {
                break;
            }
            found.nodes.push(reader);
            done[reader] = true;
            made = result;
        }
        if !found.nodes.is_empty() {
            followers.insert(n, found);
        }
    }
    followers
}

impl Followers {
    /// Takes in what `next` does to `made`, where the kernel is able to do it and nothing that comes later has been
    /// taken in; says whether it did. `there` tells which values are made before the kernel runs.
    fn take(
        &mut self,
        abilities: Abilities,
        known: &Facts<'_>,
        next: &Node,
        made: ValueId,
        layout: Layout,
        there: &dyn Fn(ValueId) -> bool,
    ) -> bool {
        let Some(shape) = known.shape(made) else { return false };
        let axis = if layout == Layout::ChannelsLast { 1 } else { shape.len().saturating_sub(1) };
        let Some(&channels) = shape.get(axis) else { return false };
        let bent = self.slopes.is_some() || self.activation != Activation::None || self.affine.is_some();
        if abilities.residual
            && self.nodes.is_empty()
            && let Some(other) = added(known, next, made).filter(|&v| there(v))
        {
            self.residual = Some(other);
            return true;
        }
        let slopes = || {
            let slopes = known.constant(next, 1).filter(|t| t.dtype() == DType::F32)?;
            let fits = next.op.is_op::<PRelu>() && next.input(0) == Some(made);
            per_channel(slopes, shape.len(), axis, channels).filter(|_| fits)
        };
        if abilities.channels
            && abilities.activation
            && !bent
            && let Some(slopes) = slopes()
        {
            self.slopes = Some(slopes.into_iter().map(|s| s as f32).collect());
            return true;
        }
        if abilities.activation
            && self.activation == Activation::None
            && self.affine.is_none()
            && next.input(0) == Some(made)
            && let Some(activation) = elementwise::activation(next, known)
        {
            self.activation = activation;
            return true;
        }
        let constant = |v| known.graph.constant(v).filter(|t| t.dtype() == DType::F32);
        let broadcast = |t: &_| per_channel(t, shape.len(), axis, channels);
        if abilities.channels
            && known.output(next) == Some(shape)
            && let Some(map) = channel_map(next, made, channels, axis == 1, constant, broadcast)
            && map.iter().all(|(factor, offset)| factor.is_finite() && offset.is_finite())
        {
            let before = self.affine.take().unwrap_or_else(|| vec![(1.0, 0.0); channels]);
            let both = before.iter().zip(&map).map(|((f, o), (g, p))| (f * g, o * g + p));
            self.affine = Some(both.collect());
            return true;
        }
        false
    }

    /// Their names, for reports.
    pub(super) fn names(&self, nodes: &[Node]) -> String {
        let names: Vec<&str> = self.nodes.iter().map(|&n| nodes[n].op.name()).collect();
        names.join(" and ")
    }
}

/// What `next` adds to `made`, where that has the same shape.
fn added(known: &Facts<'_>, next: &Node, made: ValueId) -> Option<ValueId> {
    let add = next.op.as_op::<Binary>().filter(|op| op.function == BinaryFunction::Add);
    let (a, b) = (next.input(0)?, next.input(1).filter(|_| add.is_some())?);
    let other = if a == made { b } else { a };
    let shape = known.shape(made)?;
    (other != made && known.shape(other)? == shape && known.output(next)? == shape).then_some(other)
}

impl Lowering<'_> {
    /// What the kernel of the node that is being lowered does behind its own work, and the value that it makes by that.
    pub(crate) fn result(&mut self, node: &Node) -> Result<(ValueId, Behind)> {
        let lost = || Error::invalid("a node lost its output");
        let Some(found) = self.followers.get(&self.node_index).cloned() else {
            return Ok((node.output().ok_or_else(lost)?, Behind::default()));
        };
        let last = found.nodes.last().map_or(node, |&n| &self.graph.nodes[n]);
        let made = last.output().ok_or_else(lost)?;
        let (layout, element) = (self.layout(made), self.element(made));
        let numbers = |part: fn(&(f64, f64)) -> f64, otherwise: f64| {
            let affine =
                found.affine.as_ref().filter(|map| map.iter().any(|pair| part(pair) != otherwise))?;
            Some(affine.iter().map(|pair| part(pair) as f32).collect())
        };
        let (scale, shift) = (numbers(|pair| pair.0, 1.0), numbers(|pair| pair.1, 0.0));
        let residual = found.residual.map(|v| self.operand_as(v, layout, element)).transpose()?;
        let Followers { slopes, activation, .. } = found;
        let behind = Behind { residual, slopes, activation, scale, shift, ..Behind::default() };
        Ok((made, behind))
    }
}
