//! Common subexpressions: equal operators on equal inputs are computed once, equal constants are kept once.
//!
//! Exporters compute the same shape arithmetic again for every layer and write the same small constants hundreds of
//! times. Two nodes are equal when the operator, its written attributes and its inputs are; random operators and
//! operators that run nested graphs are never merged.

use super::Pass;
use super::rewrite::{Rewriter, has_nested_graph};
use planish_graph::{Attribute, Attributes, Graph, NodeId, Result, Tensor, ValueId};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// Computes equal things once.
pub struct CommonSubexpressions;

/// How many different things of one hash are compared before giving up; keeps hostile collisions cheap.
const COMPARED: usize = 8;

/// How many bytes at a tensor's start go into its hash; equality compares all.
const HASHED_BYTES: usize = 1024;

impl Pass for CommonSubexpressions {
    fn name(&self) -> &'static str {
        "common-subexpressions"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        merge_constants(&mut rewriter);
        let mut seen: HashMap<u64, Vec<NodeId>> = HashMap::new();
        for id in rewriter.node_ids() {
            let Some(node) = rewriter.node(id) else { continue };
            if !node.op.is_pure() || has_nested_graph(&*node.op) {
                continue;
            }
            let attributes = node.op.attributes();
            let mut hasher = DefaultHasher::new();
            (node.op.domain(), node.op.name(), &node.inputs, node.outputs.len()).hash(&mut hasher);
            hash_attributes(&attributes, &mut hasher);
            let bucket = seen.entry(hasher.finish()).or_default();
            let same = bucket.iter().take(COMPARED).copied().find(|&first| {
                rewriter.node(first).is_some_and(|first| {
                    (first.op.domain(), first.op.name()) == (node.op.domain(), node.op.name())
                        && first.inputs == node.inputs
                        && equal_attributes(&first.op.attributes(), &attributes)
                })
            });
            match same {
                Some(first) => merge_nodes(&mut rewriter, first, id),
                None => bucket.push(id),
            }
        }
        rewriter.finish()
    }
}

/// Lets every reader of a constant read the first constant of the same content.
fn merge_constants(rewriter: &mut Rewriter) {
    let mut seen: HashMap<u64, Vec<ValueId>> = HashMap::new();
    for id in (0..rewriter.graph().values.len() as u32).map(ValueId) {
        let Some(tensor) = rewriter.constant(id).filter(|_| rewriter.use_count(id) > 0) else { continue };
        let mut hasher = DefaultHasher::new();
        hash_tensor(tensor, &mut hasher);
        let bucket = seen.entry(hasher.finish()).or_default();
        let same =
            bucket.iter().take(COMPARED).copied().find(|&first| rewriter.constant(first) == Some(tensor));
        match same {
            Some(first) if !rewriter.is_output(id) => {
                rewriter.replace(id, first);
            }
            Some(_) => {}
            None => bucket.push(id),
        }
    }
}

/// Lets every reader of `second` read `first`, where no graph output loses its name by it.
fn merge_nodes(rewriter: &mut Rewriter, first: NodeId, second: NodeId) {
    let outputs = |id| rewriter.node(id).map(|node| node.outputs.clone()).unwrap_or_default();
    let pairs: Vec<_> = outputs(first).into_iter().zip(outputs(second)).collect();
    let fits = pairs.iter().all(|pair| match pair {
        (Some(a), Some(b)) => !(rewriter.is_output(*a) && rewriter.is_output(*b)),
        (_, b) => b.is_none(),
    });
    if fits {
        for (old, new) in pairs.into_iter().filter_map(|(a, b)| Some((b?, a?))) {
            rewriter.replace(old, new);
        }
    }
}

fn hash_tensor(tensor: &Tensor, hasher: &mut impl Hasher) {
    (tensor.dtype(), tensor.shape()).hash(hasher);
    tensor.bytes()[..tensor.bytes().len().min(HASHED_BYTES)].hash(hasher);
}

fn hash_attributes(attributes: &Attributes, hasher: &mut impl Hasher) {
    for (name, attribute) in &attributes.0 {
        name.hash(hasher);
        match attribute {
            Attribute::Int(v) => v.hash(hasher),
            Attribute::Float(v) => v.to_bits().hash(hasher),
            Attribute::String(v) => v.hash(hasher),
            Attribute::Ints(v) => v.hash(hasher),
            Attribute::Floats(v) => v.iter().for_each(|x| x.to_bits().hash(hasher)),
            Attribute::Strings(v) => v.hash(hasher),
            Attribute::Tensor(v) => hash_tensor(v, hasher),
            Attribute::Graph(_) => {}
        }
    }
}

/// Whether two lists of attributes say the same; numbers are compared by their bits, nested graphs never equal.
fn equal_attributes(a: &Attributes, b: &Attributes) -> bool {
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let equal = |a: &Attribute, b: &Attribute| match (a, b) {
        (Attribute::Int(a), Attribute::Int(b)) => a == b,
        (Attribute::Float(a), Attribute::Float(b)) => a.to_bits() == b.to_bits(),
        (Attribute::String(a), Attribute::String(b)) => a == b,
        (Attribute::Ints(a), Attribute::Ints(b)) => a == b,
        (Attribute::Floats(a), Attribute::Floats(b)) => bits(a) == bits(b),
        (Attribute::Strings(a), Attribute::Strings(b)) => a == b,
        (Attribute::Tensor(a), Attribute::Tensor(b)) => a == b,
        _ => false,
    };
    a.0.len() == b.0.len() && a.0.iter().zip(&b.0).all(|((n, a), (m, b))| n == m && equal(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check, input, scalar, unary};
    use planish_graph::ops::math::binary::BinaryFunction::{Add, Mul};
    use planish_graph::ops::math::unary::UnaryFunction::{Relu, Tanh};
    use planish_graph::ops::nn::conv::Conv;

    #[test]
    fn equal_nodes_are_computed_once() {
        let (mut g, x) = input(&[1, 4]);
        let sums: Vec<_> = (0..3)
            .map(|i| {
                let one = scalar(&mut g, &format!("one{i}"), 1.0);
                let sum = binary(&mut g, &format!("sum{i}"), Add, x, one);
                unary(&mut g, &format!("relu{i}"), Relu, sum)
            })
            .collect();
        let other = unary(&mut g, "other", Tanh, x);
        let y = binary(&mut g, "y", Mul, sums[0], sums[1]);
        let z = binary(&mut g, "z", Mul, sums[2], other);
        g.outputs = vec![y, z];
        let g = check(&CommonSubexpressions, g, &[("Add", 1), ("Relu", 1), ("Tanh", 1), ("Mul", 2)]);
        assert_eq!(g.values.iter().filter(|v| v.constant.is_some()).count(), 1);
    }

    #[test]
    fn outputs_keep_their_names() {
        let (mut g, x) = input(&[1, 4]);
        let inner = unary(&mut g, "inner", Relu, x);
        let out = unary(&mut g, "out", Relu, x);
        let both = binary(&mut g, "both", Add, inner, out);
        g.outputs = vec![out, both];
        check(&CommonSubexpressions, g.clone(), &[("Relu", 1), ("Add", 1)]);
        // Two outputs of the same content stay two values.
        g.outputs.push(inner);
        check(&CommonSubexpressions, g, &[("Relu", 2), ("Add", 1)]);
    }

    #[test]
    fn attributes_count() {
        let (mut g, x) = input(&[1, 2, 5]);
        let w = crate::passes::testing::weights(&mut g, "w", &[2, 2, 1]);
        let a = g.add_node("a", Conv::default(), &[x, w]);
        let b = g.add_node("b", Conv { strides: vec![1], ..Conv::default() }, &[x, w]);
        let y = binary(&mut g, "y", Add, a, b);
        g.outputs.push(y);
        check(&CommonSubexpressions, g, &[("Conv", 2), ("Add", 1)]);
    }
}
