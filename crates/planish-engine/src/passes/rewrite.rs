//! A graph under rewriting: who makes and who reads each value, kept right while a pass works.
//!
//! A pass walks the nodes once and matches patterns; every match asks "who reads this?" and changes a few nodes. Asking
//! the graph each time would cost a walk over all nodes for each match. [`Rewriter`] computes the answers once and keeps
//! them up to date, so that a pass stays near-linear on graphs of any size.
//!
//! The habit of all passes: the **last** node of a pattern becomes the new operator and keeps its output value (so graph
//! outputs keep their names); the nodes before it die by themselves once nobody reads them.

use planish_graph::ops::movement::identity::Identity;
use planish_graph::{Attribute, DType, Dim, Graph, Node, NodeId, Operator, OperatorExt, Result, Tensor};
use planish_graph::{Value, ValueId};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A graph under rewriting. See the module.
pub(super) struct Rewriter<'g> {
    graph: &'g mut Graph,
    /// By value: the node that makes it and which output it is.
    makers: Vec<Option<(NodeId, usize)>>,
    /// By value: the nodes and input places that read it.
    uses: Vec<BTreeSet<(NodeId, usize)>>,
    is_output: HashSet<ValueId>,
    /// By node: gone.
    dead: Vec<bool>,
    /// How many nodes there were at the start.
    original: usize,
    /// For each node added since: the original node before which it stands.
    anchors: Vec<NodeId>,
    /// Taken names, and the last number that was tried for a wish; made when first needed.
    names: Option<(HashSet<String>, HashMap<String, usize>)>,
    rewrites: usize,
}

impl<'g> Rewriter<'g> {
    /// Looks at `graph`, which must be valid.
    pub fn new(graph: &'g mut Graph) -> Rewriter<'g> {
        let mut uses = vec![BTreeSet::new(); graph.values.len()];
        for (n, node) in graph.nodes.iter().enumerate() {
            for (place, value) in node.inputs.iter().enumerate() {
                if let Some(value) = value {
                    uses[value.0 as usize].insert((NodeId(n as u32), place));
                }
            }
        }
        Rewriter {
            makers: graph.producers(),
            uses,
            is_output: graph.outputs.iter().copied().collect(),
            dead: vec![false; graph.nodes.len()],
            original: graph.nodes.len(),
            anchors: Vec::new(),
            names: None,
            rewrites: 0,
            graph,
        }
    }

    /// The nodes that the graph had when the pass began, in order.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.original as u32).map(NodeId)
    }
    /// The graph as it stands (dead nodes are empty).
    pub fn graph(&self) -> &Graph {
        self.graph
    }
    /// A node, unless it died.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        (!self.dead[id.0 as usize]).then(|| &self.graph.nodes[id.0 as usize])
    }
    /// The name of a node, for what is made in its place; none of a dead one.
    pub fn node_name(&self, id: NodeId) -> String {
        self.node(id).map(|node| node.name.clone()).unwrap_or_default()
    }
    /// A living node of operator `T`.
    pub fn node_of<T: Operator>(&self, id: NodeId) -> Option<(&Node, &T)> {
        let node = self.node(id)?;
        Some((node, node.op.as_op::<T>()?))
    }
    /// The node that makes `value`, where its operator is `T` and `value` its first output.
    pub fn maker_of<T: Operator>(&self, value: ValueId) -> Option<(NodeId, &Node, &T)> {
        let (id, 0) = self.makers[value.0 as usize]? else { return None };
        let (node, op) = self.node_of::<T>(id)?;
        Some((id, node, op))
    }
    /// The node that makes `value`.
    pub fn maker(&self, value: ValueId) -> Option<NodeId> {
        self.makers[value.0 as usize].map(|(id, _)| id)
    }
    /// The content of `value`, where it is a constant.
    pub fn constant(&self, value: ValueId) -> Option<&Tensor> {
        self.graph.constant(value)
    }
    /// The content of input `index` of a node, where given and constant.
    pub fn constant_input(&self, node: &Node, index: usize) -> Option<&Tensor> {
        self.constant(node.input(index)?)
    }
    /// The whole numbers in constant input `index` of a node.
    pub fn ints_input(&self, node: &Node, index: usize) -> Option<Vec<i64>> {
        self.constant_input(node, index)?.to_i64s().ok()
    }
    /// The element type, where it is known.
    pub fn dtype(&self, value: ValueId) -> Option<DType> {
        self.graph.value(value).dtype
    }
    /// The declared extents, where there are any.
    pub fn dims(&self, value: ValueId) -> Option<&[Dim]> {
        self.graph.value(value).shape.as_deref()
    }
    /// The number of axes, where it is known.
    pub fn rank(&self, value: ValueId) -> Option<usize> {
        self.dims(value).map(<[Dim]>::len)
    }
    /// The shape, where every extent is known.
    pub fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        fixed_shape(self.dims(value)?)
    }
    /// The value of a one-element float constant that, combined with `other`, leaves its shape alone.
    pub fn scalar(&self, value: ValueId, other: ValueId) -> Option<f64> {
        let tensor = self.constant(value)?;
        let keeps = tensor.rank() == 0 || self.rank(other).is_some_and(|rank| rank >= tensor.rank());
        (tensor.dtype().is_float() && tensor.len() == 1 && keeps).then(|| tensor.to_f64s()[0])
    }
    /// Whether the caller of the graph gets `value`.
    pub fn is_output(&self, value: ValueId) -> bool {
        self.is_output.contains(&value)
    }
    /// Whether nothing reads `value`.
    pub fn is_unused(&self, value: ValueId) -> bool {
        self.uses[value.0 as usize].is_empty() && !self.is_output(value)
    }
    /// How often `value` is read, the caller of the graph counted.
    pub fn use_count(&self, value: ValueId) -> usize {
        self.uses[value.0 as usize].len() + self.is_output(value) as usize
    }
    /// Counts one more rewrite.
    fn count(&mut self) {
        self.rewrites += 1;
    }

    /// The only reader of `value`.
    pub fn sole_reader(&self, value: ValueId) -> Option<NodeId> {
        let (node, _) = self.uses[value.0 as usize].first()?;
        (self.use_count(value) == 1).then_some(*node)
    }

    /// Declares another element type of `value`.
    pub fn set_dtype(&mut self, value: ValueId, dtype: DType) {
        self.graph.value_mut(value).dtype = Some(dtype);
    }
    /// The nodes that read `value`, each once for every input that does.
    pub fn readers(&self, value: ValueId) -> impl Iterator<Item = NodeId> + '_ {
        self.uses[value.0 as usize].iter().map(|(node, _)| *node)
    }

    /// A name that is not taken: `wish`, or `wish` with a number.
    pub fn fresh_name(&mut self, wish: &str) -> String {
        let (taken, tried) = self.names.get_or_insert_with(|| {
            (self.graph.values.iter().map(|v| v.name.clone()).collect(), HashMap::new())
        });
        let mut name = wish.to_string();
        let number = tried.entry(name.clone()).or_insert(0);
        while name.is_empty() || !taken.insert(name.clone()) {
            *number += 1;
            name = format!("{wish}_{number}");
        }
        name
    }
    /// Adds a value and room for its bookkeeping.
    pub fn add_value(&mut self, wish: &str, dtype: Option<DType>, shape: Option<Vec<Dim>>) -> ValueId {
        let name = self.fresh_name(wish);
        self.makers.push(None);
        self.uses.push(BTreeSet::new());
        self.graph.add_value(Value { name, dtype, shape, constant: None })
    }
    /// Adds a constant, named `wish` or like it.
    pub fn add_constant(&mut self, wish: &str, tensor: Tensor) -> ValueId {
        let id = self.add_value(wish, None, None);
        set_constant(self.graph.value_mut(id), tensor);
        id
    }
    /// Adds a node that stands before `anchor`. Its outputs are new values.
    pub fn insert(&mut self, anchor: NodeId, mut node: Node) {
        let id = NodeId(self.graph.nodes.len() as u32);
        let inputs = std::mem::take(&mut node.inputs);
        for (place, output) in node.outputs.iter().enumerate() {
            if let Some(output) = output {
                self.makers[output.0 as usize] = Some((id, place));
            }
        }
        self.graph.nodes.push(node);
        self.dead.push(false);
        self.anchors.push(anchor);
        self.read(id, inputs);
    }
    /// Adds a node that stands before `anchor`, with one output of the shape that `like` has and of type `dtype`.
    pub fn insert_like(
        &mut self,
        anchor: NodeId,
        name: &str,
        op: Arc<dyn Operator>,
        inputs: Vec<Option<ValueId>>,
        like: ValueId,
        dtype: DType,
    ) -> ValueId {
        let shape = self.dims(like).map(<[_]>::to_vec);
        let output = self.add_value(name, Some(dtype), shape);
        self.insert(anchor, Node { name: name.to_string(), op, inputs, outputs: vec![Some(output)] });
        output
    }
    /// Makes `id` read `inputs`.
    fn read(&mut self, id: NodeId, inputs: Vec<Option<ValueId>>) {
        for (place, value) in inputs.iter().enumerate() {
            if let Some(value) = value {
                self.uses[value.0 as usize].insert((id, place));
            }
        }
        let before = std::mem::replace(&mut self.graph.nodes[id.0 as usize].inputs, inputs);
        let mut unread = Vec::new();
        for (place, value) in before.into_iter().enumerate() {
            if let Some(value) = value.filter(|_| self.graph.nodes[id.0 as usize].input(place) != value) {
                self.uses[value.0 as usize].remove(&(id, place));
                unread.extend(self.maker(value));
            }
        }
        self.kill_unread(unread);
    }
    /// Turns a node into operator `op` on `inputs`; its name and outputs stay. Counts a rewrite.
    pub fn set(&mut self, id: NodeId, op: Arc<dyn Operator>, inputs: Vec<Option<ValueId>>) {
        self.graph.nodes[id.0 as usize].op = op;
        self.read(id, inputs);
        self.count();
    }
    /// [`Self::set`], taking the name of `named`, the node that is fused into this one.
    pub fn fuse(&mut self, id: NodeId, named: NodeId, op: Arc<dyn Operator>, inputs: Vec<Option<ValueId>>) {
        self.graph.nodes[id.0 as usize].name = self.graph.nodes[named.0 as usize].name.clone();
        self.set(id, op, inputs);
    }
    /// Makes every reader of `old` read `new`, which is the same content, and takes away the maker of `old` if nothing
    /// else is read from it. Says no where both names must stay. Counts a rewrite.
    pub fn replace(&mut self, old: ValueId, new: ValueId) -> bool {
        if self.is_output(old) {
            if let Some(tensor) = self.constant(new).cloned() {
                self.make_constant(old, tensor);
                return true;
            }
            let Some((maker, place)) = self.makers[new.0 as usize] else { return self.rename(old, new) };
            if self.is_output(new) {
                return self.rename(old, new);
            }
            // The graph's output keeps its name: its maker becomes the node that makes `new`.
            let former = self.makers[old.0 as usize];
            self.move_uses(new, old);
            if let Some((former, place)) = former {
                self.graph.nodes[former.0 as usize].outputs[place] = None;
            }
            self.graph.nodes[maker.0 as usize].outputs[place] = Some(old);
            self.makers[old.0 as usize] = Some((maker, place));
            self.makers[new.0 as usize] = None;
            self.count();
            self.kill_unread(former.map(|(node, _)| node).into_iter().collect());
            return true;
        }
        self.move_uses(old, new);
        self.count();
        self.kill_unread(self.maker(old).into_iter().collect());
        true
    }
    /// Where both values must keep their names, one is the other's Identity. A node that is that already stays.
    fn rename(&mut self, old: ValueId, new: ValueId) -> bool {
        let Some((maker, _)) = self.makers[old.0 as usize] else { return false };
        let node = &self.graph.nodes[maker.0 as usize];
        if node.op.is_op::<Identity>() || node.outputs.iter().flatten().count() != 1 {
            return false;
        }
        self.graph.nodes[maker.0 as usize].outputs = vec![Some(old)];
        self.makers[old.0 as usize] = Some((maker, 0));
        self.set(maker, Arc::new(Identity), vec![Some(new)]);
        true
    }
    /// Makes `value` a constant; whatever made it dies if nothing else is read from it. Counts a rewrite.
    pub fn make_constant(&mut self, value: ValueId, tensor: Tensor) {
        set_constant(self.graph.value_mut(value), tensor);
        if let Some((maker, place)) = self.makers[value.0 as usize].take() {
            self.graph.nodes[maker.0 as usize].outputs[place] = None;
            self.kill_unread(vec![maker]);
        }
        self.count();
    }
    fn move_uses(&mut self, from: ValueId, to: ValueId) {
        for (node, place) in std::mem::take(&mut self.uses[from.0 as usize]) {
            self.graph.nodes[node.0 as usize].inputs[place] = Some(to);
            self.uses[to.0 as usize].insert((node, place));
        }
    }
    /// Kills those of `candidates` of which nothing is read any more, and what only they read.
    fn kill_unread(&mut self, mut candidates: Vec<NodeId>) {
        while let Some(id) = candidates.pop() {
            let node = &self.graph.nodes[id.0 as usize];
            if self.dead[id.0 as usize] || node.outputs.iter().flatten().any(|&o| !self.is_unused(o)) {
                continue;
            }
            self.dead[id.0 as usize] = true;
            let node = &mut self.graph.nodes[id.0 as usize];
            let (inputs, outputs) = (std::mem::take(&mut node.inputs), std::mem::take(&mut node.outputs));
            for output in outputs.into_iter().flatten() {
                self.makers[output.0 as usize] = None;
            }
            for (place, input) in inputs.into_iter().enumerate() {
                if let Some(input) = input {
                    self.uses[input.0 as usize].remove(&(id, place));
                    candidates.extend(self.maker(input));
                }
            }
        }
    }
    /// Takes the dead nodes out, puts the added ones in their places, and says how many rewrites there were.
    pub fn finish(self) -> Result<usize> {
        if self.rewrites == 0 {
            return Ok(0);
        }
        let mut added: Vec<Vec<Node>> = Vec::new();
        let mut nodes = std::mem::take(&mut self.graph.nodes);
        let extra = nodes.split_off(self.original);
        if !extra.is_empty() {
            added.resize(self.original, Vec::new());
        }
        for (i, (node, anchor)) in extra.into_iter().zip(&self.anchors).enumerate() {
            if !self.dead[self.original + i] {
                added[anchor.0 as usize].push(node);
            }
        }
        let mut added = added.into_iter();
        for (node, dead) in nodes.into_iter().zip(&self.dead) {
            self.graph.nodes.extend(added.next().unwrap_or_default());
            if !dead {
                self.graph.nodes.push(node);
            }
        }
        self.graph.sort()?;
        self.graph.drop_unused();
        Ok(self.rewrites)
    }
}

/// Makes `value` hold `tensor`, with its type and shape.
pub(super) fn set_constant(value: &mut Value, tensor: Tensor) {
    value.dtype = Some(tensor.dtype());
    value.shape = Some(fixed_dims(tensor.shape()));
    value.constant = Some(tensor);
}

/// A concrete shape as declared extents.
pub(super) fn fixed_dims(shape: &[usize]) -> Vec<Dim> {
    shape.iter().map(|&d| Dim::Fixed(d)).collect()
}

/// Declared extents as a shape, where all are known.
pub(super) fn fixed_shape(dims: &[Dim]) -> Option<Vec<usize>> {
    dims.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None }).collect()
}

/// Whether an operator runs nested graphs.
pub(super) fn has_nested_graph(op: &dyn Operator) -> bool {
    op.attributes().0.values().any(|a| matches!(a, Attribute::Graph(_)))
}
