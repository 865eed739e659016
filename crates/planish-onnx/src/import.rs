//! From decoded messages to a graph: names become ids, nodes become operators, functions are expanded where they are
//! called, and nested graphs take what they read from outside as inputs.
//!
//! Each graph is read in two rounds, first the values, then the nodes, so that the order of nodes in the file does not
//! matter; cycles are found when the graph is sorted.

use crate::call::FunctionKey;
use crate::external::ExternalFiles;
use crate::microsoft;
use crate::opset::{self, standard_domain};
use crate::proto::{FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto};
use crate::scope::{Building, Scopes, Terms, declared};
use crate::tensor;
use crate::unsupported::Unsupported;
use crate::wire::Allowance;
use planish_graph::error::Context;
use planish_graph::ops::table;
use planish_graph::{Attribute, Error, ErrorKind, Graph, Result, Tensor, Value, ValueId, invalid};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Turns one model into a graph.
#[derive(Debug)]
pub(crate) struct Importer<'a, 'p, 'c> {
    pub(crate) functions: HashMap<FunctionKey<'a>, &'p FunctionProto<'a>>,
    pub(crate) terms: Rc<Terms>,
    allowance: &'c Allowance,
    pub(crate) external: ExternalFiles,
    pub(crate) scopes: Scopes<'a>,
    pub(crate) calls: Vec<FunctionKey<'a>>,
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

    /// A graph, of the model or of an attribute.
    pub(crate) fn read_graph(&mut self, proto: &'p GraphProto<'a>, terms: Rc<Terms>) -> Result<Building> {
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
    pub(crate) fn declare_nodes(
        &mut self,
        nodes: &'p [NodeProto<'a>],
        infos: &HashMap<&'a str, &'p ValueInfoProto<'a>>,
        bound: &HashMap<&'a str, ValueId>,
    ) -> Result<()> {
        for (index, node) in nodes.iter().enumerate() {
            for &output in node.outputs.iter().filter(|o| !o.is_empty()) {
                let made = match bound.get(output) {
                    Some(&id) => self.scopes.bind(output, id),
                    None => {
                        let value = infos.get(output).map(|i| declared(&i.kind)).unwrap_or_default();
                        self.declare(output, value).map(|_| ())
                    }
                };
                made.context(|| self.place(node, index))?;
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

    /// Reads `nodes`, whose outputs are declared.
    pub(crate) fn nodes(&mut self, nodes: &'p [NodeProto<'a>]) -> Result<()> {
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
        if microsoft::is_read(domain, node.op_type) {
            return self.microsoft(node, name);
        }
        let domain = if domain.is_empty() { String::new() } else { format!("{domain}::") };
        Err(Error::unsupported(format!("operator {domain}{}", node.op_type)))
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
