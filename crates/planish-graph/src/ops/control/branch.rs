//! If: runs one of two nested graphs.

use super::nested::{self, bounded, condition, decided, given, given_tensors};
use crate::attributes::{Attributes, SubGraph};
use crate::error::{Context, Result};
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::Tensor;
use std::sync::Arc;

/// The outputs of one branch or the other. Inputs: the condition, then the values that the first branch captures, then
/// those of the second.
#[derive(Clone, Debug)]
pub struct If {
    /// Runs where the condition is true.
    pub then_branch: SubGraph,
    /// Runs where it is false.
    pub else_branch: SubGraph,
}

impl If {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let [then_branch, else_branch] = ["then_branch", "else_branch"].map(|name| {
            let branch = Attributes::require(name, node.attributes.opt_graph(name)?)?;
            nested::check(&branch, 0, node.output_count, name)?;
            Ok(branch)
        });
        Ok(Arc::new(If { then_branch: then_branch?, else_branch: else_branch? }))
    }

    /// The branch to take, its name, and where its captured values start among the inputs.
    fn branch(&self, truth: bool) -> (&SubGraph, &'static str, usize) {
        if truth {
            (&self.then_branch, "then_branch", 1)
        } else {
            (&self.else_branch, "else_branch", 1 + nested::captured(&self.then_branch))
        }
    }

    /// The inputs that go to a branch.
    fn of_branch<T>(branch: &SubGraph, first: usize, mut inputs: Vec<T>) -> Vec<T> {
        inputs.drain(..first.min(inputs.len()));
        inputs.truncate(nested::captured(branch));
        inputs
    }

    fn infer_branch(&self, truth: bool, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        let (branch, name, first) = self.branch(truth);
        nested::check(branch, 0, outputs, name)?;
        nested::infer(branch, &If::of_branch(branch, first, given(inputs, 0)?)).context(|| name)
    }
}

impl Operator for If {
    fn name(&self) -> &'static str {
        "If"
    }
    fn arity(&self) -> Arity {
        let inputs = 1 + nested::captured(&self.then_branch) + nested::captured(&self.else_branch);
        Arity::exact(inputs).outputs(0, self.then_branch.graph.outputs.len())
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        bounded(|| match condition(required_fact(inputs, 0)?, "the condition")? {
            Some(truth) => self.infer_branch(truth, inputs, outputs),
            None => {
                let then = self.infer_branch(true, inputs, outputs)?;
                let other = self.infer_branch(false, inputs, outputs)?;
                then.into_iter().zip(&other).map(|(a, b)| nested::join(a, b)).collect()
            }
        })
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        bounded(|| {
            let (branch, name, first) = self.branch(decided(required(inputs, 0)?, "the condition")?);
            nested::run(branch, &If::of_branch(branch, first, given_tensors(inputs, 0)?)).context(|| name)
        })
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
            .with("then_branch", self.then_branch.clone())
            .with("else_branch", self.else_branch.clone())
    }
    fn is_pure(&self) -> bool {
        nested::is_pure(&self.then_branch) && nested::is_pure(&self.else_branch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::movement::concat::Concat;
    use super::super::super::movement::identity::Identity;
    use super::super::super::movement::testing::{counting, node, run};
    use super::*;
    use crate::graph::Graph;
    use crate::tensor::DType;

    /// Doubles its one captured input in length, or passes it on.
    fn branch(double: bool) -> SubGraph {
        let mut graph = Graph::new("branch");
        let x = graph.add_value(crate::graph::Value {
            name: "x".into(),
            dtype: Some(DType::F32),
            ..Default::default()
        });
        graph.inputs.push(x);
        let y = if double {
            graph.add_node("y", Concat { axis: 0 }, &[x, x])
        } else {
            graph.add_node("y", Identity, &[x])
        };
        graph.outputs.push(y);
        SubGraph { graph, formal_inputs: 0 }
    }

    #[test]
    fn takes_the_branch_of_the_condition() {
        let op = If { then_branch: branch(true), else_branch: branch(false) };
        let (a, b) = (counting(&[2]), counting(&[3]));
        let truth = |b| Tensor::from_bools(&[], &[b]).unwrap();
        assert_eq!(run(op.clone(), &[&truth(true), &a, &b]).unwrap().to_f32s(), [0., 1., 0., 1.]);
        assert_eq!(run(op.clone(), &[&truth(false), &a, &b]).unwrap(), b);
        assert!(run(op.clone(), &[&counting(&[]), &a, &b]).is_err());
        assert!(run(op.clone(), &[&truth(true), &counting(&[]), &b]).is_err());
        assert!(run(op, &[&truth(true), &a]).is_err());
    }

    #[test]
    fn joins_the_branches_where_the_condition_is_unknown() {
        let unknown = Some(Fact::new(DType::Bool, &[]));
        let fact = |n| Some(Fact::new(DType::F32, &[n]));
        let same = If { then_branch: branch(true), else_branch: branch(false) };
        assert_eq!(same.infer(&[unknown.clone(), fact(2), fact(4)], 1).unwrap(), [fact(4).unwrap()]);
        assert_eq!(same.infer(&[unknown, fact(2), fact(3)], 1).unwrap(), [Fact::unknown(DType::F32)]);
    }

    #[test]
    fn reads_its_branches() {
        let both = Attributes::new().with("then_branch", branch(true));
        assert!(If::read(&mut node("If", 16, 1, both.clone())).is_err());
        let both = both.with("else_branch", branch(false));
        assert!(If::read(&mut node("If", 16, 1, both)).is_ok());
    }
}
