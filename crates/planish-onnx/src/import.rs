//! From decoded messages to a graph: names become ids, nodes become operators, functions are expanded where they are
//! called, and nested graphs take what they read from outside as inputs.
//!
//! Each graph is read in two rounds, first the values, then the nodes, so that the order of nodes in the file does not
//! matter; cycles are found when the graph is sorted.

use crate::attribute::{Content, content};
use crate::external::ExternalFiles;
use crate::legacy;
use crate::lower::standard;
use crate::opset::{self, standard_domain};
use crate::proto::{FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto};
use crate::read::OLDEST_OPSET;
use crate::scope::{Building, Scopes, Terms, declared};
use crate::tensor;
use crate::unsupported::Unsupported;
use crate::wire::Allowance;
use planish_graph::attributes::SubGraph;
use planish_graph::error::Context;
use planish_graph::ops::movement::identity::Identity;
use planish_graph::ops::{NodeReader, read_operator, table};
use planish_graph::{
    Attribute, Attributes, Error, ErrorKind, Graph, Node, Result, Tensor, Value, ValueId, invalid,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// How many functions may be expanded inside each other.
const MOST_NESTED_CALLS: usize = 32;

/// How long a name may be that expanded names are put behind.
const LONGEST_PREFIX: usize = 200;

/// A function's domain, name and overload.
type FunctionKey<'a> = (&'a str, &'a str, &'a str);

/// Turns one model into a graph.
#[derive(Debug)]
pub(crate) struct Importer<'a, 'p, 'c> {
    functions: HashMap<FunctionKey<'a>, &'p FunctionProto<'a>>,
    terms: Rc<Terms>,
    allowance: &'c Allowance,
    external: ExternalFiles,
    scopes: Scopes<'a>,
    calls: Vec<FunctionKey<'a>>,
    unsupported: Unsupported,
}

impl<'a, 'p, 'c> Importer<'a, 'p, 'c> {
    /// An importer for the graph of `model`.
    pub(crate) fn new(model: &'p ModelProto<'a>, allowance: &'c Allowance, external: ExternalFiles) -> Self {
        let functions =
            model.functions.iter().map(|f| ((standard_domain(f.domain), f.name, f.overload), f)).collect();
        let terms = Rc::new(Terms { opsets: opset::versions(&model.opsets), ..Terms::default() });
        Importer {
            functions,
            terms,
            allowance,
            external,
            scopes: Scopes::default(),
            calls: Vec::new(),
            unsupported: Unsupported::default(),
        }
    }

    /// The graph that `proto` describes.
    pub(crate) fn graph(mut self, proto: &'p GraphProto<'a>) -> Result<Graph> {
        opset::check_model(&self.terms.opsets)?;
        let building = self.read_graph(proto, self.terms.clone())?;
        self.unsupported.check()?;
        Ok(building.graph)
    }

    fn read_graph(&mut self, proto: &'p GraphProto<'a>, terms: Rc<Terms>) -> Result<Building> {
        self.scopes.enter_graph(proto.name, terms)?;
        self.declare_graph(proto)?;
        self.nodes(&proto.nodes)?;
        for output in &proto.outputs {
            let found = self.scopes.resolve(output.name).context(|| "the list of outputs")?;
            match found {
                Some(id) => self.scopes.building().graph.outputs.push(id),
                None => invalid!("output \"{}\" is left out by the caller", output.name),
            }
        }
        Ok(self.scopes.leave_graph())
    }

    /// Makes a value for every name that the graph itself brings.
    fn declare_graph(&mut self, proto: &'p GraphProto<'a>) -> Result<()> {
        if proto.sparse_initializers > 0 {
            self.unsupported.add("sparse initializers".to_string(), proto.name);
        }
        let initialized: HashSet<&str> = proto.initializers.iter().map(|t| t.name).collect();
        for input in &proto.inputs {
            if initialized.contains(input.name) {
                // Before IR version 4 every initializer was listed as an input; later, it is an input with a default.
                if self.scopes.is_nested() {
                    invalid!("input \"{}\" of a nested graph is also an initializer", input.name);
                }
                continue;
            }
            let place = || format!("input \"{}\"", input.name);
            let value = self.declared_input(input).context(place)?;
            let id = self.declare(input.name, value).context(place)?;
            self.scopes.building().graph.inputs.push(id);
        }
        for initializer in &proto.initializers {
            let place = || format!("initializer \"{}\"", initializer.name);
            let tensor = self
                .attempt(initializer.name, |s| tensor::tensor(initializer, &mut s.external))
                .context(place)?;
            let value = tensor.map(constant).unwrap_or_default();
            self.declare(initializer.name, value).context(place)?;
        }
        let infos = proto.value_info.iter().chain(&proto.outputs).map(|i| (i.name, i)).collect();
        self.declare_nodes(&proto.nodes, &infos, &HashMap::new())
    }

    fn declared_input(&mut self, input: &'p ValueInfoProto<'a>) -> Result<Value> {
        match &input.kind {
            TypeProto::Tensor(0, _) | TypeProto::Missing => {}
            TypeProto::Tensor(data_type, _) => {
                self.attempt(input.name, |_| tensor::dtype(*data_type))?;
            }
            TypeProto::Other(what) => self.unsupported.add(format!("values of type {what}"), input.name),
        }
        Ok(declared(&input.kind))
    }

    /// Makes a value for every output of `nodes`, except those that `bound` gives already.
    fn declare_nodes(
        &mut self,
        nodes: &'p [NodeProto<'a>],
        infos: &HashMap<&'a str, &'p ValueInfoProto<'a>>,
        bound: &HashMap<&'a str, ValueId>,
    ) -> Result<()> {
        for (index, node) in nodes.iter().enumerate() {
            for &output in node.outputs.iter().filter(|o| !o.is_empty()) {
                (|| match bound.get(output) {
                    Some(&id) => self.scopes.bind(output, id),
                    None => {
                        let value = infos.get(output).map(|i| declared(&i.kind)).unwrap_or_default();
                        self.declare(output, value).map(|_| ())
                    }
                })()
                .context(|| self.place(node, index))?;
            }
        }
        // Constants are known before any node is read, so that operators can look at them.
        for (index, node) in nodes.iter().enumerate() {
            if is_constant(node) {
                self.constant_node(node).context(|| self.place(node, index))?;
            }
        }
        Ok(())
    }

    fn declare(&mut self, name: &'a str, value: Value) -> Result<ValueId> {
        if name.is_empty() {
            invalid!("it has no name");
        }
        self.allowance.take(1)?;
        self.scopes.declare(name, value)
    }

    fn constant_node(&mut self, node: &'p NodeProto<'a>) -> Result<()> {
        let [output] = node.outputs[..] else {
            invalid!("has {} outputs, where 1 is expected", node.outputs.len());
        };
        let Some(tensor) = self.attempt(output, |s| s.constant_content(node))? else {
            return Ok(());
        };
        if let Some(id) = self.scopes.local(output).flatten() {
            let value = self.scopes.building().graph.value_mut(id);
            let name = std::mem::take(&mut value.name);
            *value = Value { name, ..constant(tensor) };
        }
        Ok(())
    }

    fn constant_content(&mut self, node: &'p NodeProto<'a>) -> Result<Tensor> {
        let (attributes, _) = self.attributes(node)?;
        let mut given = attributes.0.into_iter();
        let (Some((name, content)), None) = (given.next(), given.next()) else {
            invalid!("takes exactly one attribute");
        };
        match (name.as_str(), content) {
            ("value", Attribute::Tensor(tensor)) => Ok(tensor),
            ("value_float", Attribute::Float(x)) => Ok(Tensor::scalar(x)),
            ("value_floats", Attribute::Floats(x)) => Tensor::new(&[x.len()], &x),
            ("value_int", Attribute::Int(x)) => Ok(Tensor::scalar(x)),
            ("value_ints", Attribute::Ints(x)) => Tensor::from_i64s(&x),
            ("value_string", _) | ("value_strings", _) => {
                Err(Error::unsupported("element type string is not supported"))
            }
            ("sparse_value", _) => Err(Error::unsupported("sparse tensors are not supported")),
            _ => invalid!("attribute \"{name}\" is not one of Constant, or has the wrong type"),
        }
    }

    fn nodes(&mut self, nodes: &'p [NodeProto<'a>]) -> Result<()> {
        for (index, node) in nodes.iter().enumerate().filter(|(_, n)| !is_constant(n)) {
            let name = self.node_name(node, index);
            self.attempt(&name, |s| s.node(node, &name))
                .context(|| format!("node \"{name}\" ({})", node.op_type))?;
        }
        Ok(())
    }

    fn node_name(&self, node: &NodeProto<'_>, index: usize) -> String {
        let own =
            if node.name.is_empty() { format!("{}_{index}", node.op_type) } else { node.name.to_string() };
        let terms = self.scopes.terms();
        if terms.prefix.is_empty() { own } else { format!("{}/{own}", terms.prefix) }
    }

    fn place(&self, node: &NodeProto<'_>, index: usize) -> String {
        format!("node \"{}\" ({})", self.node_name(node, index), node.op_type)
    }

    fn node(&mut self, node: &'p NodeProto<'a>, name: &str) -> Result<()> {
        self.allowance.take(1 + node.inputs.len() + node.outputs.len())?;
        if node.op_type.is_empty() {
            invalid!("the node has no operator type");
        }
        let domain = standard_domain(node.domain);
        if table().iter().any(|e| e.name == node.op_type && e.domain == domain) {
            return self.operator(node, domain, name);
        }
        if let Some(function) = self.functions.get(&(domain, node.op_type, node.overload)).copied() {
            return self.call(function, node, name);
        }
        let domain = if domain.is_empty() { String::new() } else { format!("{domain}::") };
        Err(Error::unsupported(format!("operator {domain}{}", node.op_type)))
    }

    fn operator(&mut self, node: &'p NodeProto<'a>, domain: &str, name: &str) -> Result<()> {
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
    fn outputs(&self, node: &NodeProto<'a>) -> Vec<Option<ValueId>> {
        let mut outputs: Vec<Option<ValueId>> =
            node.outputs.iter().map(|o| self.scopes.local(o).flatten()).collect();
        trim(&mut outputs);
        outputs
    }

    /// The attributes of a node, nested graphs read, and what those graphs capture: `then_branch` first, then
    /// `else_branch`, then any other.
    fn attributes(&mut self, node: &'p NodeProto<'a>) -> Result<(Attributes, Vec<ValueId>)> {
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

    /// Expands `function` where `node` calls it.
    fn call(&mut self, function: &'p FunctionProto<'a>, node: &'p NodeProto<'a>, name: &str) -> Result<()> {
        let key = (standard_domain(function.domain), function.name, function.overload);
        if self.calls.contains(&key) {
            invalid!("the function calls itself");
        }
        if self.calls.len() >= MOST_NESTED_CALLS {
            return Err(Error::limit(format!("more than {MOST_NESTED_CALLS} functions call each other")));
        }
        if node.inputs.len() > function.inputs.len() || node.outputs.len() > function.outputs.len() {
            invalid!(
                "the function takes {} inputs and makes {}",
                function.inputs.len(),
                function.outputs.len()
            );
        }
        let mut names = HashMap::new();
        for (index, &formal) in function.inputs.iter().enumerate() {
            let id = match node.inputs.get(index) {
                Some(&given) if !given.is_empty() => self.scopes.resolve(given)?,
                _ => None,
            };
            if names.insert(formal, id).is_some() {
                invalid!("two inputs of the function are named \"{formal}\"");
            }
        }
        let wanted: Vec<(&'a str, ValueId)> = std::iter::zip(&function.outputs, &node.outputs)
            .filter_map(|(&formal, given)| Some((formal, self.scopes.local(given).flatten()?)))
            .collect();
        let terms = self.function_terms(function, node, name)?;
        self.calls.push(key);
        self.scopes.enter_function(names, Rc::new(terms))?;
        let infos = function.value_info.iter().map(|i| (i.name, i)).collect();
        self.declare_nodes(&function.nodes, &infos, &wanted.iter().copied().collect())?;
        self.nodes(&function.nodes)?;
        for (formal, id) in wanted {
            match self.scopes.resolve(formal)? {
                Some(made) if made == id => {}
                Some(made) => self.scopes.building().graph.nodes.push(Node {
                    name: format!("{name}/{formal}"),
                    op: Arc::new(Identity),
                    inputs: vec![Some(made)],
                    outputs: vec![Some(id)],
                }),
                None => invalid!("output \"{formal}\" of the function is an input that was left out"),
            }
        }
        self.scopes.leave_function();
        self.calls.pop();
        Ok(())
    }

    fn function_terms(
        &mut self,
        function: &'p FunctionProto<'a>,
        node: &'p NodeProto<'a>,
        name: &str,
    ) -> Result<Terms> {
        let (mut attributes, _) = self.attributes(node)?;
        if attributes.0.values().any(|a| matches!(a, Attribute::Graph(_))) {
            return Err(Error::unsupported("graphs as attributes of a function are not supported"));
        }
        for default in &function.defaults {
            if !attributes.0.contains_key(default.name)
                && let Content::Plain(attribute) = content(default, &mut self.external)?
            {
                attributes.0.insert(default.name.to_string(), attribute);
            }
        }
        let mut opsets = self.terms.opsets.clone();
        opsets.extend(opset::versions(&function.opsets));
        opset::check_model(&opsets)?;
        let prefix = name.chars().take(LONGEST_PREFIX).collect();
        Ok(Terms { opsets, attributes: Some(attributes), prefix })
    }

    /// Does `work`. Notes what is unsupported in it, to report all of it at once, and goes on; any other error ends the
    /// reading.
    fn attempt<T>(&mut self, place: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        let (depth, calls) = (self.scopes.depth(), self.calls.len());
        match work(self) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.scopes.leave_to(depth);
                self.calls.truncate(calls);
                self.unsupported.add(error.message().to_string(), place);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Sorts the nested graphs of one node into the order in which the node lists what they capture.
pub(crate) fn capture_order(name: &str) -> (bool, bool, &str) {
    (name != "then_branch", name != "else_branch", name)
}

fn is_constant(node: &NodeProto<'_>) -> bool {
    node.op_type == "Constant" && standard_domain(node.domain).is_empty()
}

fn constant(tensor: Tensor) -> Value {
    let shape = tensor.shape().iter().map(|&d| planish_graph::Dim::Fixed(d)).collect();
    Value { name: String::new(), dtype: Some(tensor.dtype()), shape: Some(shape), constant: Some(tensor) }
}

fn trim(list: &mut Vec<Option<ValueId>>) {
    while let Some(None) = list.last() {
        list.pop();
    }
}
