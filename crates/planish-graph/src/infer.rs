//! Shapes, types and known contents of every value of a graph, for given inputs.
//!
//! Symbolic dimensions are resolved before this runs: a plan is always made for concrete input shapes. What remains
//! unknown are shapes that depend on data (NonZero, NonMaxSuppression), and everything behind them. Values whose
//! content follows from shapes and constants alone (shape arithmetic) are evaluated on the way, so that the operators
//! behind them see their content.

use crate::error::{Context, Result};
use crate::graph::{Dim, Graph, ValueId};
use crate::invalid;
use crate::limits::element_count;
use crate::tensor::{DType, Tensor};
use std::collections::BTreeMap;

/// What is known of a value before the graph runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The element type.
    pub dtype: DType,
    /// The extents, where known.
    pub shape: Option<Vec<usize>>,
    /// The content, where known.
    pub value: Option<Tensor>,
}

impl Fact {
    /// A value of known type and shape.
    pub fn new(dtype: DType, shape: &[usize]) -> Fact {
        Fact { dtype, shape: Some(shape.to_vec()), value: None }
    }
    /// A value of known type only.
    pub fn unknown(dtype: DType) -> Fact {
        Fact { dtype, shape: None, value: None }
    }
    /// A known value.
    pub fn constant(tensor: &Tensor) -> Fact {
        Fact { dtype: tensor.dtype(), shape: Some(tensor.shape().to_vec()), value: Some(tensor.clone()) }
    }
    /// The shape, where known.
    pub fn shape(&self) -> Option<&[usize]> {
        self.shape.as_deref()
    }
    /// Bytes, where the shape is known; saturating.
    pub fn bytes(&self) -> Option<usize> {
        let shape = self.shape()?;
        Some(element_count(shape).unwrap_or(usize::MAX).saturating_mul(self.dtype.size()))
    }
}

/// Contents up to this many elements are followed through shape arithmetic; larger ones are left to constant folding.
const FOLLOWED_ELEMENTS: usize = 4096;

/// Concrete shapes for the inputs of `graph`: the declared ones with symbols and unknown extents taken from `given` (by
/// input name) where present, then from `symbols`; an extent that stays open is `default` (1 in most uses). An error
/// where a given shape contradicts a declared extent, or one symbol gets two extents.
pub fn input_shapes(
    graph: &Graph,
    given: &BTreeMap<String, Vec<usize>>,
    symbols: &BTreeMap<String, usize>,
    default: usize,
) -> Result<Vec<Vec<usize>>> {
    let mut bound = symbols.clone();
    for name in given.keys() {
        graph.find_input(name)?;
    }
    for &id in &graph.inputs {
        let value = graph.value(id);
        if let (Some(shape), Some(dims)) = (given.get(&value.name), &value.shape) {
            check_shape(graph, id, shape)?;
            for (dim, &extent) in dims.iter().zip(shape) {
                if let Dim::Symbol(s) = dim {
                    let before = *bound.entry(s.clone()).or_insert(extent);
                    if before != extent {
                        invalid!(
                            "dimension \"{s}\" is {before} in one input and {extent} in \"{}\"",
                            value.name
                        );
                    }
                }
            }
        }
    }
    graph
        .inputs
        .iter()
        .map(|&id| {
            let value = graph.value(id);
            if let Some(shape) = given.get(&value.name) {
                return Ok(shape.clone());
            }
            let Some(dims) = &value.shape else {
                invalid!(
                    "input \"{}\" declares no shape: give one with --shape {}=…",
                    value.name,
                    value.name
                );
            };
            Ok(dims
                .iter()
                .map(|d| match d {
                    Dim::Fixed(n) => *n,
                    Dim::Symbol(s) => bound.get(s).copied().unwrap_or(default),
                    Dim::Unknown => default,
                })
                .collect())
        })
        .collect()
}

/// Whether `shape` fits the declared shape of input `id`.
pub fn check_shape(graph: &Graph, id: ValueId, shape: &[usize]) -> Result<()> {
    let value = graph.value(id);
    if let Some(dims) = &value.shape {
        let fits = dims.len() == shape.len()
            && dims.iter().zip(shape).all(|(d, n)| !matches!(d, Dim::Fixed(f) if f != n));
        if !fits {
            invalid!("input {} does not take shape {shape:?}", graph.describe(id));
        }
    }
    element_count(shape).map(|_| ())
}

/// What is known of every value of `graph` (by [`ValueId`]) when its inputs are as `inputs` says (one [`Fact`] for each,
/// in order). Errors name the node.
pub fn infer(graph: &Graph, inputs: &[Fact]) -> Result<Vec<Option<Fact>>> {
    if inputs.len() != graph.inputs.len() {
        invalid!("{} inputs were given, the graph has {}", inputs.len(), graph.inputs.len());
    }
    let mut facts: Vec<Option<Fact>> =
        graph.values.iter().map(|v| v.constant.as_ref().map(Fact::constant)).collect();
    for (&id, fact) in graph.inputs.iter().zip(inputs) {
        let value = graph.value(id);
        if value.dtype.is_some_and(|d| d != fact.dtype) {
            invalid!("input {} was given as {}", graph.describe(id), fact.dtype);
        }
        if let Some(shape) = fact.shape() {
            check_shape(graph, id, shape)?;
        }
        facts[id.0 as usize] = Some(fact.clone());
    }
    for node in &graph.nodes {
        let given: Vec<Option<Fact>> =
            node.inputs.iter().map(|i| i.and_then(|i| facts[i.0 as usize].clone())).collect();
        let found = infer_node(node, &given).context(|| node.place())?;
        for (output, fact) in node.outputs.iter().zip(found) {
            if let Some(id) = output {
                facts[id.0 as usize] = Some(fact);
            }
        }
    }
    Ok(facts)
}

/// [`infer`] for one node: the operator's rule, then its evaluation where everything small is known.
pub fn infer_node(node: &crate::graph::Node, inputs: &[Option<Fact>]) -> Result<Vec<Fact>> {
    let mut found = node.op.infer(inputs, node.outputs.len())?;
    if found.len() < node.outputs.len() {
        invalid!("has {} outputs, the operator makes {}", node.outputs.len(), found.len());
    }
    for fact in &found {
        if let Some(shape) = fact.shape() {
            element_count(shape)?;
        }
    }
    let small = |f: &Fact| f.shape().is_some_and(|s| element_count(s).is_ok_and(|n| n <= FOLLOWED_ELEMENTS));
    let known = inputs.iter().flatten().all(|f| f.value.is_some() && small(f));
    if known && node.op.is_pure() && found.iter().all(|f| f.value.is_some() || small(f) || f.shape.is_none())
    {
        let tensors: Vec<Option<&Tensor>> =
            inputs.iter().map(|f| f.as_ref().and_then(|f| f.value.as_ref())).collect();
        let values = node.op.eval(&tensors, node.outputs.len())?;
        found = values.iter().map(Fact::constant).collect();
    }
    Ok(found)
}
