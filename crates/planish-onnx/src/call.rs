//! The model's own functions, expanded where they are called: planish knows operators and graphs, nothing between.

use crate::attribute::{Content, content};
use crate::import::Importer;
use crate::opset::{self, standard_domain};
use crate::proto::{FunctionProto, NodeProto};
use crate::scope::Terms;
use planish_graph::ops::movement::identity::Identity;
use planish_graph::{Attribute, Error, Node, Result, ValueId, invalid};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// How many functions may be expanded inside each other.
const MOST_NESTED_CALLS: usize = 32;

/// How long a name may be that expanded names are put behind.
const LONGEST_PREFIX: usize = 200;

/// A function's domain, name and overload.
pub(crate) type FunctionKey<'a> = (&'a str, &'a str, &'a str);

impl<'a, 'p> Importer<'a, 'p, '_> {
    /// Expands `function` where `node` calls it.
    pub(crate) fn call(
        &mut self,
        function: &'p FunctionProto<'a>,
        node: &'p NodeProto<'a>,
        name: &str,
    ) -> Result<()> {
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
}
