//! Where names are looked up while a file becomes a graph.
//!
//! ONNX joins nodes by names, nested graphs see the names around them, and functions see only their own. planish joins
//! nodes by ids, and a nested graph is complete in itself: what it reads from outside becomes an input that the outer
//! node binds. [`Scopes`] is the stack that turns the one into the other.

use crate::proto::{DimProto, TypeProto};
use crate::tensor;
use planish_graph::{Attributes, DType, Dim, Error, Graph, Result, Tensor, Value, ValueId, invalid};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// How deep graphs in nodes and calls of functions may be nested in each other, all told: reading recurses.
const MOST_NESTED_SCOPES: usize = 40;

/// What the nodes of a model, or of a function's body, are read in terms of.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// The opset version of each domain.
    pub opsets: HashMap<String, i64>,
    /// In a function: the attributes of the call, for the body to refer to. `None` in the model itself.
    pub attributes: Option<Attributes>,
    /// In a function: the call's name, which the names inside are put behind. Empty in the model itself.
    pub prefix: String,
}

/// One graph being built.
#[derive(Debug, Default)]
pub(crate) struct Building {
    pub graph: Graph,
    taken: HashSet<String>,
    counter: usize,
    /// Values of the graph around it that it reads, in the order of the inputs that stand for them.
    pub captured: Vec<ValueId>,
}

impl Building {
    /// `wish` or `wish` with a number, unique in this graph from now on.
    pub(crate) fn fresh_name(&mut self, wish: &str) -> String {
        let mut name = if wish.is_empty() { "value".to_string() } else { wish.to_string() };
        while self.taken.contains(&name) {
            self.counter += 1;
            name = format!("{wish}_{}", self.counter);
        }
        self.taken.insert(name.clone());
        name
    }
    /// Adds a constant under a fresh name.
    pub(crate) fn add_constant(&mut self, wish: &str, tensor: Tensor) -> ValueId {
        let name = self.fresh_name(wish);
        self.graph.add_constant(&name, tensor)
    }
}

/// One level of names.
#[derive(Debug)]
struct Scope<'a> {
    /// What each name stands for; `None` is an optional input that the caller of a function left out.
    names: HashMap<&'a str, Option<ValueId>>,
    /// Whether this is a graph, which sees the names around it, or a function's body, which does not.
    is_graph: bool,
    terms: Rc<Terms>,
}

/// The stack of graphs and function bodies that are being read.
#[derive(Debug, Default)]
pub(crate) struct Scopes<'a> {
    scopes: Vec<Scope<'a>>,
    graphs: Vec<Building>,
}

impl<'a> Scopes<'a> {
    /// Enters a graph.
    pub(crate) fn enter_graph(&mut self, name: &str, terms: Rc<Terms>) -> Result<()> {
        self.check_depth()?;
        self.graphs.push(Building { graph: Graph::new(name), ..Building::default() });
        self.scopes.push(Scope { names: HashMap::new(), is_graph: true, terms });
        Ok(())
    }
    /// Leaves a graph that was entered.
    pub(crate) fn leave_graph(&mut self) -> Building {
        self.scopes.pop();
        self.graphs.pop().unwrap_or_default()
    }
    /// Enters a function's body, whose inputs are bound to `names`.
    pub(crate) fn enter_function(
        &mut self,
        names: HashMap<&'a str, Option<ValueId>>,
        terms: Rc<Terms>,
    ) -> Result<()> {
        self.check_depth()?;
        self.scopes.push(Scope { names, is_graph: false, terms });
        Ok(())
    }
    /// Leaves a function's body.
    pub(crate) fn leave_function(&mut self) {
        self.scopes.pop();
    }
    fn check_depth(&self) -> Result<()> {
        if self.scopes.len() >= MOST_NESTED_SCOPES {
            return Err(Error::limit(format!(
                "graphs and functions are nested deeper than {MOST_NESTED_SCOPES}"
            )));
        }
        Ok(())
    }
    /// How many graphs and functions are entered.
    pub(crate) fn depth(&self) -> usize {
        self.scopes.len()
    }
    /// Leaves whatever was entered since the depth was `depth`.
    pub(crate) fn leave_to(&mut self, depth: usize) {
        while self.scopes.len() > depth {
            if self.scopes.pop().is_some_and(|s| s.is_graph) {
                self.graphs.pop();
            }
        }
    }
    /// Whether the graph being read is nested in another.
    pub(crate) fn is_nested(&self) -> bool {
        self.graphs.len() > 1
    }
    /// The terms of the innermost scope.
    pub(crate) fn terms(&self) -> Rc<Terms> {
        self.scopes.last().map(|s| s.terms.clone()).unwrap_or_default()
    }
    /// The innermost graph.
    pub(crate) fn building(&mut self) -> &mut Building {
        if self.graphs.is_empty() {
            self.graphs.push(Building::default());
        }
        let last = self.graphs.len() - 1;
        &mut self.graphs[last]
    }
    /// What `name` stands for in the innermost scope alone, if it is bound there.
    pub(crate) fn local(&self, name: &str) -> Option<Option<ValueId>> {
        self.scopes.last()?.names.get(name).copied()
    }
    /// Binds `name` in the innermost scope; an error where it is bound there already.
    pub(crate) fn bind(&mut self, name: &'a str, id: ValueId) -> Result<()> {
        let Some(scope) = self.scopes.last_mut() else {
            return Ok(());
        };
        if scope.names.insert(name, Some(id)).is_some() {
            invalid!("two values are named \"{name}\"");
        }
        Ok(())
    }
    /// Makes a value that `name` stands for in the innermost scope.
    pub(crate) fn declare(&mut self, name: &'a str, value: Value) -> Result<ValueId> {
        let prefix = self.scopes.last().map_or("", |s| s.terms.prefix.as_str());
        let wish = if prefix.is_empty() { name.to_string() } else { format!("{prefix}/{name}") };
        let building = self.building();
        let name_in_graph = building.fresh_name(&wish);
        let id = building.graph.add_value(Value { name: name_in_graph, ..value });
        self.bind(name, id)?;
        Ok(id)
    }
    /// What `name` stands for: in the innermost scope, or in the graphs around it, from where it is captured.
    pub(crate) fn resolve(&mut self, name: &'a str) -> Result<Option<ValueId>> {
        let (Some(scope), Some(graph)) = (self.scopes.len().checked_sub(1), self.graphs.len().checked_sub(1))
        else {
            invalid!("no graph is being read");
        };
        self.resolve_in(scope, graph, name)
    }
    fn resolve_in(&mut self, scope: usize, graph: usize, name: &'a str) -> Result<Option<ValueId>> {
        if let Some(found) = self.scopes[scope].names.get(name) {
            return Ok(*found);
        }
        if !self.scopes[scope].is_graph || scope == 0 || graph == 0 {
            invalid!("reads \"{name}\", which nothing makes");
        }
        let outer = self.resolve_in(scope - 1, graph - 1, name)?;
        let found = outer.map(|outer| self.capture(graph, outer));
        self.scopes[scope].names.insert(name, found);
        Ok(found)
    }
    /// Brings a value of the graph around `graph` into it: a constant as a copy, anything else as an input.
    fn capture(&mut self, graph: usize, outer: ValueId) -> ValueId {
        let value = self.graphs[graph - 1].graph.value(outer).clone();
        let is_constant = value.constant.is_some();
        let building = &mut self.graphs[graph];
        let name = building.fresh_name(&value.name);
        let id = building.graph.add_value(Value { name, ..value });
        if !is_constant {
            building.graph.inputs.push(id);
            building.captured.push(outer);
        }
        id
    }
}

/// The declared type and shape of a value; types that planish does not have are left out.
pub(crate) fn declared(kind: &TypeProto<'_>) -> Value {
    let TypeProto::Tensor(data_type, shape) = kind else {
        return Value::default();
    };
    let dtype: Option<DType> = tensor::dtype(*data_type).ok();
    let shape = shape.as_ref().map(|dims| {
        dims.iter()
            .map(|dim| match dim {
                DimProto::Value(n) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Fixed),
                DimProto::Symbol("") | DimProto::Unknown => Dim::Unknown,
                DimProto::Symbol(s) => Dim::Symbol(s.to_string()),
            })
            .collect()
    });
    Value { dtype, shape, ..Value::default() }
}
