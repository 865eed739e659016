//! One node of a file into a node of the graph: its attributes, its inputs, and what older opsets say otherwise.

use crate::attribute::{Content, content};
use crate::import::{Importer, capture_order};
use crate::legacy;
use crate::lower::standard;
use crate::opset;
use crate::proto::NodeProto;
use crate::read::OLDEST_OPSET;
use planish_graph::attributes::SubGraph;
use planish_graph::error::Context;
use planish_graph::ops::{NodeReader, read_operator};
use planish_graph::{Attribute, Attributes, Node, Result, Tensor, Value, ValueId, invalid};
use std::collections::BTreeMap;

impl<'a, 'p> Importer<'a, 'p, '_> {
    /// Adds the node of a standard operator or one of planish's own.
    pub(crate) fn operator(&mut self, node: &'p NodeProto<'a>, domain: &str, name: &str) -> Result<()> {
        let version = opset::version(&self.scopes.terms().opsets, domain);
        opset::check_operator(node.op_type, domain, version)?;
        let (mut attributes, captured) = self.attributes(node)?;
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for &input in &node.inputs {
            inputs.push(if input.is_empty() { None } else { self.scopes.resolve(input)? });
        }
        let outputs = self.outputs(node);
        trim(&mut inputs);
        if domain.is_empty() && version < OLDEST_OPSET {
            self.upgrade(node.op_type, &mut attributes, &mut inputs, name)?;
        }
        if let Some(Attribute::Graph(body)) = attributes.0.get("body") {
            // A loop's own inputs are as many as its body's formal ones; what the body captures comes behind them.
            inputs.resize(inputs.len().max(body.formal_inputs), None);
        }
        let graph = &self.scopes.building().graph;
        let constant_inputs = inputs.iter().enumerate();
        let constant_inputs =
            constant_inputs.filter_map(|(i, id)| Some((i, graph.constant((*id)?)?.clone()))).collect();
        let mut reader = NodeReader {
            op_type: node.op_type.to_string(),
            domain: domain.to_string(),
            opset: version,
            attributes,
            input_count: inputs.len(),
            output_count: outputs.len(),
            constant_inputs,
            added_inputs: BTreeMap::new(),
            keep_inputs: None,
            moved_inputs: BTreeMap::new(),
        };
        let op = read_operator(&mut reader)?;
        let listed = inputs.clone();
        if let Some(kept) = reader.keep_inputs {
            inputs.truncate(kept);
        }
        for (to, from) in reader.moved_inputs {
            inputs.resize(inputs.len().max(to + 1), None);
            inputs[to] = listed.get(from).copied().flatten();
        }
        for (index, tensor) in reader.added_inputs {
            if index > op.arity().max_inputs {
                invalid!("the reader of the operator adds input {index}, which it does not have");
            }
            inputs.resize(inputs.len().max(index + 1), None);
            inputs[index] =
                Some(self.scopes.building().add_constant(&format!("{name}.input{index}"), tensor));
        }
        inputs.extend(captured.into_iter().map(Some));
        op.arity().check(&inputs, &outputs)?;
        self.scopes.building().graph.nodes.push(Node { name: name.to_string(), op, inputs, outputs });
        Ok(())
    }

    /// Tells a node of an opset before 7 in the terms of opset 7.
    fn upgrade(
        &mut self,
        operator: &str,
        attributes: &mut Attributes,
        inputs: &mut [Option<ValueId>],
        name: &str,
    ) -> Result<()> {
        let graph = &self.scopes.building().graph;
        let value = |index: usize| inputs.get(index).copied().flatten().map(|id| graph.value(id));
        let trailing = legacy::upgrade(operator, attributes, value(0), value(1))?;
        if let (true, Some(Some(second))) = (trailing > 0, inputs.get_mut(1)) {
            *second = self.append_axes(*second, trailing, &format!("{name}/Unsqueeze"))?;
        }
        Ok(())
    }

    /// `id` with `count` axes of extent 1 at its end.
    fn append_axes(&mut self, id: ValueId, count: usize, name: &str) -> Result<ValueId> {
        let building = self.scopes.building();
        let rank = building.graph.value(id).shape.as_ref().map_or(0, Vec::len);
        let axes: Vec<i64> = (rank..rank + count).map(|a| a as i64).collect();
        let axes = building.add_constant(&format!("{name}.axes"), Tensor::from_i64s(&axes)?);
        let output = building.fresh_name(name);
        let output = building.graph.add_value(Value { name: output, ..Value::default() });
        let op = standard("Unsqueeze", Attributes::new(), 2)?;
        let node = Node {
            name: name.to_string(),
            op,
            inputs: vec![Some(id), Some(axes)],
            outputs: vec![Some(output)],
        };
        building.graph.nodes.push(node);
        Ok(output)
    }

    /// The values that a node's outputs were declared as; outputs left out at the end are not listed.
    pub(crate) fn outputs(&self, node: &NodeProto<'a>) -> Vec<Option<ValueId>> {
        let mut outputs: Vec<Option<ValueId>> =
            node.outputs.iter().map(|o| self.scopes.local(o).flatten()).collect();
        trim(&mut outputs);
        outputs
    }

    /// The attributes of a node, nested graphs read, and what those graphs capture: `then_branch` first, then
    /// `else_branch`, then any other.
    pub(crate) fn attributes(&mut self, node: &'p NodeProto<'a>) -> Result<(Attributes, Vec<ValueId>)> {
        let mut attributes = Attributes::new();
        let mut graphs = Vec::new();
        for proto in &node.attributes {
            let place = || format!("attribute \"{}\"", proto.name);
            let taken = if proto.reference.is_empty() {
                match content(proto, &mut self.external).context(place)? {
                    Content::Graph(graph) => {
                        graphs.push((proto.name, graph));
                        continue;
                    }
                    Content::Plain(attribute) => Some(attribute),
                }
            } else {
                self.referred(proto.reference).context(place)?
            };
            if let Some(attribute) = taken
                && attributes.0.insert(proto.name.to_string(), attribute).is_some()
            {
                invalid!("attribute \"{}\" is given twice", proto.name);
            }
        }
        graphs.sort_by_key(|(name, _)| capture_order(name));
        let mut captured = Vec::new();
        for (name, proto) in graphs {
            let mut inner = self
                .read_graph(proto, self.scopes.terms())
                .context(|| format!("graph \"{}\" of attribute \"{name}\"", proto.name))?;
            inner.graph.doc = proto.doc.to_string();
            inner.graph.sort()?;
            captured.extend(&inner.captured);
            let formal_inputs = inner.graph.inputs.len() - inner.captured.len();
            let nested = SubGraph { graph: inner.graph, formal_inputs };
            if attributes.0.insert(name.to_string(), Attribute::Graph(nested)).is_some() {
                invalid!("attribute \"{name}\" is given twice");
            }
        }
        Ok((attributes, captured))
    }

    /// What the call of the function that is being expanded gives for its attribute `name`, if anything.
    fn referred(&self, name: &str) -> Result<Option<Attribute>> {
        match &self.scopes.terms().attributes {
            Some(given) => Ok(given.0.get(name).cloned()),
            None => invalid!("it refers to \"{name}\" of a function, and is not in one"),
        }
    }
}

fn trim(list: &mut Vec<Option<ValueId>>) {
    while let Some(None) = list.last() {
        list.pop();
    }
}
