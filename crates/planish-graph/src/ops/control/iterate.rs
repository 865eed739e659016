//! Loop: runs a nested graph again and again, carrying values from one iteration to the next.

use super::accumulate::{Rows, no_rows, push_all, settle};
use super::nested::{self, bounded, condition, decided, given, given_tensors};
use crate::attributes::{Attributes, SubGraph};
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Inputs: how often at most (or left out), whether to start (or left out: yes), the values carried into the first
/// iteration, then the values that the body captures. The body takes the number of the iteration, the condition and the
/// carried values, and makes the next condition, the next carried values, and the rows of the stacked outputs. Outputs:
/// the carried values after the last iteration, then the stacked rows.
///
/// The body's condition ends the loop even where the node's condition was left out, as in other runtimes.
#[derive(Clone, Debug)]
pub struct Loop {
    /// One iteration.
    pub body: SubGraph,
}

/// Inputs of the node, and formal inputs of the body, before the carried values.
const BEFORE_CARRIED: usize = 2;

impl Loop {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let body = Attributes::require("body", node.attributes.opt_graph("body")?)?;
        let op = Loop { body };
        op.check(node.output_count)?;
        Ok(Arc::new(op))
    }

    fn check(&self, outputs: usize) -> Result<()> {
        nested::check(&self.body, BEFORE_CARRIED, (1 + outputs).max(1 + self.carried()), "body")
    }

    /// How many values are carried.
    fn carried(&self) -> usize {
        self.body.formal_inputs.saturating_sub(BEFORE_CARRIED)
    }

    /// The shape of formal input `index` (a scalar), which some exporters declare as a list of one.
    fn scalar_shape(&self, index: usize) -> &'static [usize] {
        let declared = self.body.graph.inputs.get(index).map(|&id| &self.body.graph.value(id).shape);
        if matches!(declared, Some(Some(dims)) if dims.len() == 1) { &[1] } else { &[] }
    }

    /// The largest number of iterations that `input`, the first one, allows, where it is known; `i64::MAX` where it is
    /// left out.
    fn most(input: Option<&Fact>) -> Result<Option<i64>> {
        let Some(fact) = input else { return Ok(Some(i64::MAX)) };
        if fact.dtype != DType::I64 || fact.shape().is_some_and(|s| s.iter().any(|&n| n != 1)) {
            invalid!("input \"M\" is {} {:?}, one i64 is expected", fact.dtype, fact.shape());
        }
        match &fact.value {
            None => Ok(None),
            Some(tensor) => Ok(tensor.to_i64s()?.first().map(|&n| n.max(0))),
        }
    }

    /// Whether the loop starts, where that is known.
    fn starts(input: Option<&Fact>) -> Result<Option<bool>> {
        input.map_or(Ok(Some(true)), |fact| condition(fact, "input \"cond\""))
    }

    /// What is known of the carried values in any iteration, and of the outputs of the body.
    fn settled(&self, rest: Vec<Fact>) -> Result<(Vec<Fact>, Vec<Fact>)> {
        let mut carried = rest;
        let captured = carried.split_off(self.carried().min(carried.len()));
        let counter = Fact::new(DType::I64, self.scalar_shape(0));
        // The body only runs when the condition holds.
        let truth = Fact::constant(&self.truth()?);
        settle(&self.body, carried, 1, |carried| {
            [&[counter.clone(), truth.clone()], carried, &captured[..]].concat()
        })
    }

    fn truth(&self) -> Result<Tensor> {
        Tensor::from_bools(self.scalar_shape(1), &[true])
    }
}

impl Operator for Loop {
    fn name(&self) -> &'static str {
        "Loop"
    }
    fn arity(&self) -> Arity {
        let outputs = self.body.graph.outputs.len().saturating_sub(1);
        Arity {
            min_inputs: 0,
            max_inputs: self.body.graph.inputs.len(),
            min_outputs: 0,
            max_outputs: outputs,
        }
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        self.check(outputs)?;
        if inputs.len() != self.body.graph.inputs.len() {
            invalid!("has {} inputs, where the body takes {}", inputs.len(), self.body.graph.inputs.len());
        }
        let most = Loop::most(optional_fact(inputs, 0))?;
        let starts = Loop::starts(optional_fact(inputs, 1))?;
        let rest = given(inputs, BEFORE_CARRIED)?;
        let (mut found, made) = bounded(|| self.settled(rest))?;
        // Whether every iteration asks for the next one, so that only the count ends the loop.
        let goes_on = match made.first() {
            Some(fact) => condition(fact, "the body's condition")? == Some(true),
            None => false,
        };
        let count = match (most, starts) {
            (Some(0), _) | (_, Some(false)) => Some(0),
            (Some(most), Some(true)) if goes_on => usize::try_from(most).ok(),
            _ => None,
        };
        for row in made.iter().skip(1 + self.carried()) {
            found.push(match (count, row.shape()) {
                (Some(count), Some(row_shape)) => Fact::new(row.dtype, &[&[count], row_shape].concat()),
                _ => Fact::unknown(row.dtype),
            });
        }
        Ok(found)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let most = Loop::most(optional(inputs, 0).map(Fact::constant).as_ref())?.unwrap_or(0);
        let mut goes_on = Loop::starts(optional(inputs, 1).map(Fact::constant).as_ref())?.unwrap_or(true);
        let mut carried = given_tensors(inputs, BEFORE_CARRIED)?;
        let captured = carried.split_off(self.carried().min(carried.len()));
        let stacked = self.body.graph.outputs.len().saturating_sub(1 + self.carried());
        let mut rows: Vec<Option<Rows>> = (0..stacked).map(|_| None).collect();
        let facts: Vec<Fact> = carried.iter().chain(&captured).map(Fact::constant).collect();
        bounded(|| {
            let mut iteration = 0;
            while goes_on && iteration < most {
                let counter = Tensor::new(self.scalar_shape(0), &[iteration])?;
                let given = [&[counter, self.truth()?], &carried[..], &captured[..]].concat();
                let mut made = nested::run(&self.body, &given)?;
                if made.len() != 1 + carried.len() + stacked {
                    invalid!("the body made {} values", made.len());
                }
                push_all(&mut rows, &made[1 + carried.len()..])?;
                made.truncate(1 + carried.len());
                goes_on = decided(&made[0], "the body's condition")?;
                carried = made.split_off(1);
                iteration += 1;
            }
            if rows.iter().any(Option::is_none) {
                let (_, made) = self.settled(facts)?;
                let first = 1 + carried.len();
                for (i, rows) in rows.iter().enumerate() {
                    if rows.is_none()
                        && let Some(fact) = made.get(first + i)
                    {
                        carried.push(no_rows(&self.body, first + i, fact)?);
                    }
                }
            }
            for rows in rows.into_iter().flatten() {
                carried.push(rows.finish()?);
            }
            Ok(carried)
        })
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("body", self.body.clone())
    }
    fn is_pure(&self) -> bool {
        nested::is_pure(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Dim, Graph, Value, ValueId};
    use crate::limits::{Budget, with_budget};
    use crate::ops::movement::concat::Concat;
    use crate::ops::movement::identity::Identity;
    use crate::ops::movement::testing::{counting, ints, run_many};

    fn input(graph: &mut Graph, name: &str, dtype: DType) -> ValueId {
        let id = graph.add_value(Value { name: name.into(), dtype: Some(dtype), ..Value::default() });
        graph.inputs.push(id);
        id
    }

    /// Carries `x`, appending the captured `more` to it if `grows`; stacks the iteration numbers. The condition is
    /// passed on, or taken from a constant.
    fn body(grows: bool, condition: Option<bool>) -> Loop {
        let mut graph = Graph::new("body");
        let i = graph.add_input("i", DType::I64, &[]);
        let goes_on = graph.add_input("goes_on", DType::Bool, &[]);
        let x = input(&mut graph, "x", DType::F32);
        let more = input(&mut graph, "more", DType::F32);
        let next = match condition {
            None => graph.add_node("next", Identity, &[goes_on]),
            Some(b) => graph.add_constant("next", Tensor::from_bools(&[], &[b]).unwrap()),
        };
        let y = if grows {
            graph.add_node("y", Concat { axis: 0 }, &[x, more])
        } else {
            graph.add_node("y", Identity, &[x])
        };
        let row = graph.add_node("row", Identity, &[i]);
        graph.outputs = vec![next, y, row];
        Loop { body: SubGraph { graph, formal_inputs: 3 } }
    }

    fn iterate(op: Loop, most: Option<i64>, start: Option<bool>) -> Result<Vec<Tensor>> {
        let most = most.map(Tensor::scalar);
        let start = start.map(|b| Tensor::from_bools(&[1], &[b]).unwrap());
        let x = counting(&[1]);
        run_many(op, &[most.as_ref(), start.as_ref(), Some(&x), Some(&x)], 2)
    }

    #[test]
    fn carries_and_stacks() {
        let made = iterate(body(true, None), Some(3), None).unwrap();
        assert_eq!((made[0].to_f32s(), &made[1]), (vec![0.; 4], &ints(&[0, 1, 2])));
        let made = iterate(body(false, None), Some(2), Some(true)).unwrap();
        assert_eq!((made[0].to_f32s(), &made[1]), (vec![0.], &ints(&[0, 1])));
        let once = iterate(body(true, Some(false)), None, None).unwrap();
        assert_eq!((once[0].to_f32s(), &once[1]), (vec![0.; 2], &ints(&[0])));
    }

    #[test]
    fn may_not_run_at_all() {
        for (most, start) in [(Some(0), None), (Some(-5), None), (Some(3), Some(false)), (None, Some(false))]
        {
            let made = iterate(body(true, None), most, start).unwrap();
            assert_eq!((made[0].to_f32s(), &made[1]), (vec![0.], &ints(&[])), "{most:?} {start:?}");
        }
    }

    #[test]
    fn knows_the_shapes_that_stay() {
        let facts = |most: Fact| {
            [Some(most), None, Some(Fact::new(DType::F32, &[1])), Some(Fact::new(DType::F32, &[1]))]
        };
        let five = Fact::constant(&Tensor::scalar(5i64));
        let still = body(false, None).infer(&facts(five.clone()), 2).unwrap();
        assert_eq!(still, [Fact::new(DType::F32, &[1]), Fact::new(DType::I64, &[5])]);
        let grows = body(true, None).infer(&facts(five), 2).unwrap();
        assert_eq!(grows, [Fact::unknown(DType::F32), Fact::new(DType::I64, &[5])]);
        let unknown = body(false, None).infer(&facts(Fact::new(DType::I64, &[])), 2).unwrap();
        assert_eq!(unknown[1], Fact::unknown(DType::I64));
    }

    #[test]
    fn loops_that_never_end_are_stopped() {
        let stacks = iterate(body(false, Some(true)), None, None).unwrap_err();
        assert_eq!(stacks.kind(), crate::ErrorKind::Limit, "{stacks}");
        // Nothing to stack, so that no shape gives the endlessness away.
        let mut carries = body(false, Some(true));
        carries.body.graph.outputs.truncate(2);
        let x = counting(&[1]);
        let carries = run_many(carries, &[None, None, Some(&x), Some(&x)], 1).unwrap_err();
        assert!(carries.message().contains("may never end"), "{carries}");
        let nested = iterate(nested(body(false, Some(true))), None, None).unwrap_err();
        assert_eq!(nested.kind(), crate::ErrorKind::Limit, "{nested}");
        with_budget(&Budget::new(10_000), || {
            assert!(iterate(body(true, None), Some(i64::MAX), None).is_err());
        });
    }

    /// A loop whose body is a loop of three iterations.
    fn nested(inner: Loop) -> Loop {
        let mut graph = Graph::new("outer");
        let inputs = [
            graph.add_input("i", DType::I64, &[]),
            graph.add_input("goes_on", DType::Bool, &[]),
            input(&mut graph, "x", DType::F32),
            input(&mut graph, "more", DType::F32),
        ];
        let three = graph.add_constant("three", Tensor::scalar(3i64));
        let made = ["y", "row"].map(|name| graph.add_value(Value { name: name.into(), ..Value::default() }));
        graph.nodes.push(crate::graph::Node {
            name: "inner".into(),
            op: Arc::new(inner),
            inputs: vec![Some(three), None, Some(inputs[2]), Some(inputs[3])],
            outputs: made.map(Some).to_vec(),
        });
        graph.outputs = vec![inputs[1], made[0], made[1]];
        Loop { body: SubGraph { graph, formal_inputs: 3 } }
    }

    #[test]
    fn loops_nest() {
        let made = iterate(nested(body(true, None)), Some(2), None).unwrap();
        assert_eq!(made[0].shape(), [7]);
        assert_eq!(made[1], Tensor::new(&[2, 3], &[0i64, 1, 2, 0, 1, 2]).unwrap());
    }

    #[test]
    fn refuses_bodies_that_do_not_fit() {
        let x = counting(&[1]);
        let most = Tensor::scalar(1i64);
        assert!(run_many(body(true, None), &[Some(&most), None, Some(&x)], 2).is_err());
        assert!(run_many(body(true, None), &[Some(&most), None, Some(&x), None], 2).is_err());
        assert!(run_many(body(true, None), &[Some(&x), None, Some(&x), Some(&x)], 2).is_err());
        assert!(run_many(body(true, None), &[None, Some(&x), Some(&x), Some(&x)], 2).is_err());
        let mut fixed = body(true, None);
        let carried = fixed.body.graph.inputs[2];
        fixed.body.graph.value_mut(carried).shape = Some(vec![Dim::Fixed(1)]);
        assert!(iterate(fixed, Some(3), None).is_err());
    }
}
