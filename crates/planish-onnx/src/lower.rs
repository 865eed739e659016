//! planish's own operators as the standard operators they stand for, so that every tool reads what planish writes.

use planish_graph::ops::math::softmax::Softmax;
use planish_graph::ops::nn::fused::{ConvAdd, FusedActivation};
use planish_graph::ops::nn::quantized::fused::{Grid, Quantised};
use planish_graph::ops::{NodeReader, OperatorExt, WRITTEN_OPSET, read_operator};
use planish_graph::{Attributes, DType, Graph, Node, Operator, Result, Tensor, Value, ValueId, unsupported};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// `graph` without planish's own operators, or `None` where it has none. Values keep their ids and names; what a
/// replacement needs between its nodes comes behind them. Operators of other domains stay what they are.
pub(crate) fn to_standard(graph: &Graph) -> Result<Option<Graph>> {
    if !graph.nodes.iter().any(is_own) {
        return Ok(None);
    }
    let mut lowering = Lowering {
        taken: graph.values.iter().map(|v| v.name.clone()).collect(),
        graph: Graph { nodes: Vec::with_capacity(graph.nodes.len()), ..graph.clone() },
    };
    for node in &graph.nodes {
        if is_own(node) {
            lowering.node(node)?;
        } else {
            lowering.graph.nodes.push(node.clone());
        }
    }
    Ok(Some(lowering.graph))
}

fn is_own(node: &Node) -> bool {
    node.op.domain() == "planish"
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
        if let Some(fused) = node.op.as_op::<ConvAdd>() {
            return self.conv_add(node, fused);
        }
        if let Some(quantised) = node.op.as_op::<Quantised>() {
            return self.quantised(node, quantised);
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

    /// A convolution, the addition, the activation.
    fn conv_add(&mut self, node: &Node, fused: &ConvAdd) -> Result<()> {
        let mut inputs = node.inputs.clone();
        let residual = if inputs.len() > 3 { inputs.swap_remove(3) } else { None };
        let mut steps: Vec<Arc<dyn Operator>> = vec![Arc::new(fused.conv.clone())];
        if residual.is_some() {
            steps.push(standard("Add", Attributes::new(), 2)?);
        }
        let (function, parameters) = activation(fused.activation);
        if let Some(function) = function {
            steps.push(standard(function, parameters, 1)?);
        }
        if fused.activation == FusedActivation::Silu {
            steps.push(standard("Mul", Attributes::new(), 2)?);
        }
        let count = steps.len();
        let mut before = None;
        for (index, op) in steps.into_iter().enumerate() {
            let given = match op.name() {
                "Conv" => std::mem::take(&mut inputs),
                "Add" => vec![before, residual],
                "Clip" => self.clip_inputs(node, fused.activation, before)?,
                "Mul" => vec![before, inputs.first().copied().flatten()],
                _ => vec![before],
            };
            if op.name() == "Sigmoid" {
                inputs = vec![before];
            }
            before = if index + 1 < count {
                Some(self.push_between(node, op, given))
            } else {
                let (name, outputs) = (node.name.clone(), node.outputs.clone());
                self.graph.nodes.push(Node { name, op, inputs: given, outputs });
                None
            };
        }
        Ok(())
    }

    /// The operator on numbers between conversions.
    fn quantised(&mut self, node: &Node, quantised: &Quantised) -> Result<()> {
        let mut numbers = Vec::with_capacity(node.inputs.len());
        for (index, input) in node.inputs.iter().enumerate() {
            numbers.push(match (input, quantised.input(index)) {
                (Some(v), Some(grid)) => Some(self.convert(node, grid, false, *v, None)?),
                (input, _) => *input,
            });
        }
        let op = quantised.op.clone();
        let made = |lowering: &mut Lowering, name: &str| {
            let name = lowering.fresh_name(&format!("{}/{name}", node.name));
            lowering.graph.add_value(Value { name, ..Value::default() })
        };
        let inner = quantised.inner.as_ref().zip(op.as_op::<ConvAdd>());
        let y = match &quantised.output {
            Some(_) => Some(made(self, "numbers")),
            None => node.output(),
        };
        if let Some((inner, fused)) = inner {
            // The convolution, its levels, the residual, the activation.
            let residual = numbers.get(3).copied().flatten();
            numbers.truncate(3);
            let sums = self.push_between(node, Arc::new(fused.conv.clone()), numbers);
            let levels = self.convert(node, inner, true, sums, None)?;
            let between = self.convert(node, inner, false, levels, None)?;
            let add = standard("Add", Attributes::new(), 2)?;
            if fused.activation == FusedActivation::None {
                let name = self.fresh_name(&format!("{}/Add", node.name));
                self.graph.nodes.push(Node {
                    name,
                    op: add,
                    inputs: vec![Some(between), residual],
                    outputs: vec![y],
                });
            } else {
                let sum = self.push_between(node, add, vec![Some(between), residual]);
                self.activated(node, fused.activation, sum, y)?;
            }
        } else {
            let name = node.name.clone();
            let plain = Node { name, op, inputs: numbers, outputs: vec![y] };
            if is_own(&plain) { self.node(&plain)? } else { self.graph.nodes.push(plain) }
        }
        if let (Some(grid), Some(y)) = (&quantised.output, y) {
            self.convert(node, grid, true, y, node.output())?;
        }
        Ok(())
    }

    /// A conversion to levels or from them, with its scale and zero point; of `result`, or a new value.
    fn convert(
        &mut self,
        node: &Node,
        grid: &Grid,
        to_levels: bool,
        v: ValueId,
        result: Option<ValueId>,
    ) -> Result<ValueId> {
        let [scale, zero] = grid.tensors()?;
        let mut inputs = vec![Some(v)];
        for (name, tensor) in [("scale", scale), ("zero", zero)] {
            let name = self.fresh_name(&format!("{}/{name}", node.name));
            inputs.push(Some(self.graph.add_constant(&name, tensor)));
        }
        let op: Arc<dyn Operator> =
            if to_levels { Arc::new(grid.quantize()) } else { Arc::new(grid.dequantize()) };
        let Some(result) = result else { return Ok(self.push_between(node, op, inputs)) };
        let name = self.fresh_name(&format!("{}/{}", node.name, op.name()));
        self.graph.nodes.push(Node { name, op, inputs, outputs: vec![Some(result)] });
        Ok(result)
    }

    /// An activation by itself.
    fn activated(
        &mut self,
        node: &Node,
        function: FusedActivation,
        x: ValueId,
        y: Option<ValueId>,
    ) -> Result<()> {
        let (name, parameters) = activation(function);
        let op = standard(name.unwrap_or("Identity"), parameters, 1)?;
        let inputs = self.clip_inputs(node, function, Some(x))?;
        if function == FusedActivation::Silu {
            let share = self.push_between(node, op, inputs);
            let name = self.fresh_name(&format!("{}/Mul", node.name));
            let op = standard("Mul", Attributes::new(), 2)?;
            self.graph.nodes.push(Node { name, op, inputs: vec![Some(x), Some(share)], outputs: vec![y] });
            return Ok(());
        }
        let name = self.fresh_name(&format!("{}/{}", node.name, op.name()));
        self.graph.nodes.push(Node { name, op, inputs, outputs: vec![y] });
        Ok(())
    }

    /// Clip takes its bounds as constants of the element type.
    fn clip_inputs(
        &mut self,
        node: &Node,
        activation: FusedActivation,
        x: Option<ValueId>,
    ) -> Result<Vec<Option<ValueId>>> {
        let FusedActivation::Clip { min, max } = activation else {
            return Ok(vec![x]);
        };
        let weights = node.input(1).and_then(|w| self.graph.value(w).dtype).filter(|d| d.is_float());
        let weights = weights.unwrap_or(DType::F32);
        let mut inputs = vec![x];
        for (name, bound) in [("min", min), ("max", max)] {
            let bound = Tensor::from_f64s(weights, &[], &[f64::from(bound)])?;
            let name = self.fresh_name(&format!("{}/{name}", node.name));
            inputs.push(Some(self.graph.add_constant(&name, bound)));
        }
        Ok(inputs)
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
        Ok(self.push_between(node, op, inputs))
    }

    fn push_between(&mut self, node: &Node, op: Arc<dyn Operator>, inputs: Vec<Option<ValueId>>) -> ValueId {
        let name = self.fresh_name(&format!("{}/{}", node.name, op.name()));
        let output = self.graph.add_value(Value { name: name.clone(), ..Value::default() });
        self.graph.nodes.push(Node { name, op, inputs, outputs: vec![Some(output)] });
        output
    }

    fn fresh_name(&mut self, wish: &str) -> String {
        let mut name = wish.to_string();
        let mut number = 0;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = format!("{wish}_{number}");
        }
        name
    }
}

/// The standard operator of an activation, and its attributes. Silu has none: it is its input times this Sigmoid.
fn activation(function: FusedActivation) -> (Option<&'static str>, Attributes) {
    let none = Attributes::new();
    match function {
        FusedActivation::None => (None, none),
        FusedActivation::Silu => (Some("Sigmoid"), none),
        FusedActivation::LeakyRelu { alpha } | FusedActivation::Elu { alpha } => {
            (Some(function.name()), none.with("alpha", alpha))
        }
        FusedActivation::HardSigmoid { alpha, beta } => {
            (Some(function.name()), none.with("alpha", alpha).with("beta", beta))
        }
        _ => (Some(function.name()), none),
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
        moved_inputs: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_graph::ops::math::softmax::SoftmaxFunction;
    use planish_graph::ops::nn::conv::Conv;
    use planish_graph::ops::nn::quantized::qonnx::BipolarQuant;
    use planish_graph::{Dim, reference};

    #[test]
    fn fused_convolutions_mean_the_same() {
        let functions = [
            FusedActivation::None,
            FusedActivation::Relu,
            FusedActivation::Clip { min: -0.5, max: 0.5 },
            FusedActivation::LeakyRelu { alpha: 0.1 },
            FusedActivation::HardSwish,
            FusedActivation::Silu,
            FusedActivation::Sigmoid,
            FusedActivation::HardSigmoid { alpha: 0.2, beta: 0.5 },
            FusedActivation::Tanh,
            FusedActivation::Gelu,
            FusedActivation::Elu { alpha: 2.0 },
            FusedActivation::Mish,
        ];
        let input = Tensor::new(&[1, 1, 4], &[1f32, -3.0, 0.25, 2.0]).unwrap();
        for (activation, with_residual) in functions.into_iter().flat_map(|f| [(f, true), (f, false)]) {
            let mut graph = Graph::new("g");
            let x = graph.add_input("x", DType::F32, &[Dim::Fixed(1), Dim::Fixed(1), Dim::Fixed(4)]);
            let w = graph.add_constant("w", Tensor::new(&[1, 1, 1], &[0.5f32]).unwrap());
            let y = graph.add_node("y", ConvAdd { conv: Conv::default(), activation }, &[x, w]);
            if with_residual {
                graph.nodes[0].inputs.extend([None, Some(x)]);
            }
            graph.outputs.push(y);
            let lowered = to_standard(&graph).unwrap().unwrap();
            lowered.validate().unwrap();
            assert!(lowered.nodes.iter().all(|n| n.op.domain().is_empty()));
            let before = reference::run(&graph, std::slice::from_ref(&input)).unwrap()[0].to_f64s();
            let after = reference::run(&lowered, std::slice::from_ref(&input)).unwrap()[0].to_f64s();
            for (a, b) in before.iter().zip(&after) {
                assert!((a - b).abs() < 1e-6, "{activation:?} {with_residual}: {before:?} {after:?}");
            }
        }
    }

    #[test]
    fn quantised_operators_mean_the_same() {
        let grid = |scale: f32, zero: u8| Some(Grid::levels(scale, zero));
        let weights = Grid { dtype: DType::I8, axis: 0, scales: vec![0.5], zeros: vec![1] };
        let input = Tensor::new(&[1, 1, 4], &[100u8, 3, 250, 127]).unwrap();
        let functions = [
            FusedActivation::None,
            FusedActivation::Clip { min: -0.5, max: 9.0 },
            FusedActivation::Silu,
            FusedActivation::Tanh,
        ];
        for (activation, inner) in functions.into_iter().flat_map(|f| [(f, None), (f, grid(1.5, 128))]) {
            let mut graph = Graph::new("g");
            let x = graph.add_input("x", DType::U8, &[Dim::Fixed(1), Dim::Fixed(1), Dim::Fixed(4)]);
            let w = graph.add_constant("w", Tensor::new(&[1, 1, 1], &[5i8]).unwrap());
            let op = Quantised {
                op: Arc::new(ConvAdd { conv: Conv::default(), activation }),
                inputs: vec![grid(0.25, 100), Some(weights.clone()), None, grid(0.25, 100)],
                output: grid(0.7, 20),
                inner,
            };
            let y = graph.add_node("y", op, &[x, w]);
            graph.nodes[0].inputs.extend([None, Some(x)]);
            graph.outputs.push(y);
            let lowered = to_standard(&graph).unwrap().unwrap();
            lowered.validate().unwrap();
            assert!(lowered.nodes.iter().all(|n| n.op.domain().is_empty()));
            let before = reference::run(&graph, std::slice::from_ref(&input)).unwrap();
            assert_eq!(
                before,
                reference::run(&lowered, std::slice::from_ref(&input)).unwrap(),
                "{activation:?}"
            );
        }
    }

    #[test]
    fn signs_keep_their_operator() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", DType::F32, &[Dim::Fixed(3)]);
        let scale = graph.add_constant("scale", Tensor::scalar(0.5f32));
        let op = Arc::new(BipolarQuant);
        let quantised =
            Quantised { op, inputs: vec![None, None], output: Some(Grid::levels(0.5, 1)), inner: None };
        let y = graph.add_node("y", quantised, &[x, scale]);
        graph.outputs.push(y);
        let lowered = to_standard(&graph).unwrap().unwrap();
        let names: Vec<&str> = lowered.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(names, ["BipolarQuant", "QuantizeLinear"]);
        let input = Tensor::new(&[3], &[1f32, -3.0, 0.0]).unwrap();
        let made = reference::run(&lowered, std::slice::from_ref(&input)).unwrap();
        assert_eq!(made, reference::run(&graph, std::slice::from_ref(&input)).unwrap());
        assert_eq!(made[0].as_slice::<u8>().unwrap(), [2, 0, 2]);
    }

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
            let (before, after) = (
                reference::run(&graph, std::slice::from_ref(&input)),
                reference::run(&lowered, std::slice::from_ref(&input)),
            );
            assert_eq!(before.unwrap(), after.unwrap());
        }
    }
}
