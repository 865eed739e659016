//! Rewriting: what passes and transforms do to a graph.

use super::{Graph, Node, Value, ValueId};
use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashSet};

impl Graph {
    /// A value name that is not taken yet: `wish`, or `wish` with a number.
    pub fn fresh_name(&self, wish: &str) -> String {
        let taken: HashSet<&str> = self.values.iter().map(|v| v.name.as_str()).collect();
        if !wish.is_empty() && !taken.contains(wish) {
            return wish.to_string();
        }
        (1..)
            .map(|i| format!("{wish}_{i}"))
            .find(|n| !taken.contains(n.as_str()))
            .expect("some number is free")
    }

    /// Makes every reader of `old`, and the graph's outputs, read `new` instead.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        for node in &mut self.nodes {
            for input in node.inputs.iter_mut().flatten() {
                if *input == old {
                    *input = new;
                }
            }
        }
        for output in &mut self.outputs {
            if *output == old {
                *output = new;
            }
        }
    }

    /// Drops nodes whose results nobody reads, and values that nothing names; renumbers the rest. Inputs stay. Returns
    /// whether anything was dropped.
    pub fn drop_unused(&mut self) -> bool {
        let mut live: HashSet<ValueId> = self.outputs.iter().copied().collect();
        let before = (self.nodes.len(), self.values.len());
        let mut kept: Vec<Node> = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.outputs.iter().flatten().any(|o| live.contains(o)) {
                live.extend(node.inputs.iter().flatten());
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        live.extend(&self.inputs);
        for node in &mut self.nodes {
            live.extend(node.outputs.iter().flatten());
        }
        let mut renumbered = vec![None; self.values.len()];
        let mut values: Vec<Value> = Vec::with_capacity(live.len());
        for (i, value) in std::mem::take(&mut self.values).into_iter().enumerate() {
            if live.contains(&ValueId(i as u32)) {
                renumbered[i] = Some(ValueId(values.len() as u32));
                values.push(value);
            }
        }
        self.values = values;
        let all =
            self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().chain(n.outputs.iter_mut()).flatten());
        for id in all.chain(&mut self.inputs).chain(&mut self.outputs) {
            *id = renumbered[id.0 as usize].expect("every named value is live");
        }
        before != (self.nodes.len(), self.values.len())
    }

    /// Orders the nodes so that every value is made before it is read, keeping their order where it already holds; an
    /// error names the nodes of a cycle.
    pub fn sort(&mut self) -> Result<()> {
        let makers = self.producers();
        let mut waiting: Vec<usize> = vec![0; self.nodes.len()];
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (n, node) in self.nodes.iter().enumerate() {
            for v in node.inputs.iter().flatten() {
                if let Some((maker, _)) = makers[v.0 as usize] {
                    waiting[n] += 1;
                    readers[maker.0 as usize].push(n);
                }
            }
        }
        let mut ready: BTreeSet<usize> = (0..self.nodes.len()).filter(|&n| waiting[n] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(n) = ready.pop_first() {
            order.push(n);
            for &r in &readers[n] {
                waiting[r] -= 1;
                if waiting[r] == 0 {
                    ready.insert(r);
                }
            }
        }
        if order.len() < self.nodes.len() {
            let stuck: Vec<String> = (0..self.nodes.len())
                .filter(|&n| waiting[n] > 0)
                .take(8)
                .map(|n| self.nodes[n].place())
                .collect();
            return Err(Error::invalid(format!("the graph has a cycle through {}", stuck.join(", "))));
        }
        let mut nodes: Vec<Option<Node>> = std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        self.nodes = order.into_iter().filter_map(|n| nodes[n].take()).collect();
        Ok(())
    }
}
