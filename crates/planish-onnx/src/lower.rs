//! planish's own operators as the standard operators they stand for, so that every tool reads what planish writes.

use planish_graph::ops::math::softmax::Softmax;
use planish_graph::ops::{NodeReader, OperatorExt, WRITTEN_OPSET, read_operator};
use planish_graph::{Attributes, Graph, Node, Operator, Result, Value, ValueId, unsupported};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// `graph` in standard operators only, or `None` where it is that already. Values keep their ids and names; what a
/// replacement needs between its nodes comes behind them.
pub(crate) fn to_standard(graph: &Graph) -> Result<Option<Graph>> {
    if graph.nodes.iter().all(|n| n.op.domain().is_empty()) {
        return Ok(None);
    }
    let mut lowering = Lowering {
        taken: graph.values.iter().map(|v| v.name.clone()).collect(),
        graph: Graph { nodes: Vec::with_capacity(graph.nodes.len()), ..graph.clone() },
    };
    for node in &graph.nodes {
        if node.op.domain().is_empty() {
            lowering.graph.nodes.push(node.clone());
        } else {
            lowering.node(node)?;
        }
    }
    Ok(Some(lowering.graph))
}

/// A graph whose nodes are being rewritten in order.
struct Lowering {
    graph: Graph,
    taken: HashSet<String>,
}

impl Lowering {
    fn node(&mut self, node: &Node) -> Result<()> {
        if let Some(softmax) = node.op.as_op::<Softmax>() {
            return self.flattened_softmax(node, *softmax);
        }
        unsupported!(
            "{}: {}::{} has no counterpart among the standard operators",
            node.place(),
            node.op.domain(),
            node.op.name()
        )
    }

    /// Softmax of the opsets before 13: all axes from one on are normalised together.
    fn flattened_softmax(&mut self, node: &Node, softmax: Softmax) -> Result<()> {
        let rank = node.input(0).and_then(|x| self.graph.value(x).shape.as_ref()).map(Vec::len);
        let plain = rank.map(|rank| softmax.for_rank(rank)).filter(|s| !s.flatten);
        if let Some(plain) = plain {
            self.graph.nodes.push(Node { op: Arc::new(plain), ..node.clone() });
            return Ok(());
        }
        let shape = self.between(node, "Shape", Attributes::new(), node.inputs.clone())?;
        let axis = Attributes::new().with("axis", softmax.axis);
        let flat = self.between(node, "Flatten", axis, node.inputs.clone())?;
        let last = Attributes::new().with("axis", -1i64);
        let shares = self.between(node, softmax.function.name(), last, vec![Some(flat)])?;
        self.graph.nodes.push(Node {
            name: node.name.clone(),
            op: standard("Reshape", Attributes::new().with("allowzero", 1i64), 2)?,
            inputs: vec![Some(shares), Some(shape)],
            outputs: node.outputs.clone(),
        });
        Ok(())
    }

    /// Adds a node in the place of `node` and returns its new output.
    fn between(
        &mut self,
        node: &Node,
        op_type: &str,
        attributes: Attributes,
        inputs: Vec<Option<ValueId>>,
    ) -> Result<ValueId> {
        let op = standard(op_type, attributes, inputs.len())?;
        let wish = format!("{}/{op_type}", node.name);
        let mut name = wish.clone();
        let mut number = 0;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = format!("{wish}_{number}");
        }
        let output = self.graph.add_value(Value { name: name.clone(), ..Value::default() });
        self.graph.nodes.push(Node { name, op, inputs, outputs: vec![Some(output)] });
        Ok(output)
    }
}

/// A standard operator with one output.
pub(crate) fn standard(
    op_type: &str,
    attributes: Attributes,
    input_count: usize,
) -> Result<Arc<dyn Operator>> {
    read_operator(&mut NodeReader {
        op_type: op_type.to_string(),
        domain: String::new(),
        opset: WRITTEN_OPSET,
        attributes,
        input_count,
        output_count: 1,
        constant_inputs: BTreeMap::new(),
        added_inputs: BTreeMap::new(),
        keep_inputs: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_graph::ops::math::softmax::SoftmaxFunction;
    use planish_graph::{DType, Dim, Tensor, reference};

    #[test]
    fn flattened_softmax_means_the_same() {
        for shape in [None, Some(vec![Dim::Unknown; 3])] {
            let mut graph = Graph::new("g");
            let x = graph.add_input("x", DType::F32, &[]);
            graph.value_mut(x).shape = shape;
            let softmax = Softmax { function: SoftmaxFunction::Softmax, axis: 1, flatten: true };
            let y = graph.add_node("y", softmax, &[x]);
            graph.outputs.push(y);
            let lowered = to_standard(&graph).unwrap().unwrap();
            lowered.validate().unwrap();
            assert!(to_standard(&lowered).unwrap().is_none());
            let input = Tensor::new(&[2, 2, 2], &[1f32, 2.0, 0.5, -1.0, 3.0, 0.0, 0.0, 1.0]).unwrap();
            let (before, after) =
                (reference::run(&graph, &[input.clone()]), reference::run(&lowered, &[input]));
            assert_eq!(before.unwrap(), after.unwrap());
        }
    }
}
