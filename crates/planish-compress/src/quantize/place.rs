//! A scheme put into a network's graph, in one of two forms that mean the same.
//!
//! **QDQ** is the form for files: QuantizeLinear and DequantizeLinear around every value that is kept as integers, weights
//! and biases as integers with a DequantizeLinear each. Engines recognise the pairs and run what is between them in
//! integers. **Simulated** is the form for measuring: weights are floats that lie on their levels, and rounding is spelled
//! as division, rounding, bounds and multiplication, which run in fast `f32` kernels.

use super::grid::Grid;
use super::layers::Layer;
use super::prepare::Network;
use super::scheme::Scheme;
use super::weights::QuantisedWeights;
use planish_graph::error::Context;
use planish_graph::ops::math::activation::{Activation, ActivationFunction};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, Granularity, QuantizeLinear};
use planish_graph::{DType, Graph, Node, Operator, OperatorExt, Result, Tensor, Value, ValueId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How rounding is written down. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For files.
    Qdq,
    /// For measuring.
    Simulated,
}

/// `network` with all of `scheme` in it.
pub fn quantised(network: &Network, scheme: &Scheme, form: Form) -> Result<Graph> {
    let layers = (0..network.layers.len()).filter(|l| !scheme.float.contains(l)).collect();
    place(network, scheme, form, &layers, &|v| scheme.grid(v).copied())
}

/// `network` with the weights and the input of one layer rounded, simulated.
pub fn only_layer(network: &Network, scheme: &Scheme, l: usize) -> Result<Graph> {
    let input = network.layers[l].input;
    let grid = |v: ValueId| scheme.grids.get(&v).filter(|_| v == input).copied();
    place(network, scheme, Form::Simulated, &HashSet::from([l]), &grid)
}

/// `network` with the weights of one layer rounded, simulated.
pub fn only_weights(network: &Network, scheme: &Scheme, l: usize) -> Result<Graph> {
    place(network, scheme, Form::Simulated, &HashSet::from([l]), &|_| None)
}

/// `network` with the values rounded that `grid` has one for, simulated; no weights.
pub fn only_values(
    network: &Network,
    scheme: &Scheme,
    grid: &dyn Fn(ValueId) -> Option<Grid>,
) -> Result<Graph> {
    place(network, scheme, Form::Simulated, &HashSet::new(), grid)
}

/// `network` with the values rounded that `grid` has one for, and the weights of `layers`.
fn place(
    network: &Network,
    scheme: &Scheme,
    form: Form,
    layers: &HashSet<usize>,
    grid: &dyn Fn(ValueId) -> Option<Grid>,
) -> Result<Graph> {
    let source = &network.graph;
    let mut placing = Placing {
        taken: source.values.iter().map(|v| v.name.clone()).collect(),
        graph: Graph { nodes: Vec::with_capacity(4 * source.nodes.len()), ..source.clone() },
        rounded: HashMap::new(),
        form,
    };
    for &input in &source.inputs {
        if let Some(grid) = grid(input) {
            placing.round(input, &grid)?;
        }
    }
    let by_node: HashMap<usize, usize> = network
        .layers
        .iter()
        .enumerate()
        .filter(|(l, _)| layers.contains(l))
        .map(|(l, x)| (x.node, l))
        .collect();
    for (n, node) in source.nodes.iter().enumerate() {
        let mut copy = node.clone();
        for v in copy.inputs.iter_mut().flatten() {
            *v = placing.rounded.get(v).copied().unwrap_or(*v);
        }
        if let Some(&l) = by_node.get(&n) {
            let layer = &network.layers[l];
            let input = grid(layer.input);
            placing.layer(&mut copy, layer, &scheme.weights[l], input).context(|| node.place())?;
        }
        placing.push(copy);
        for &v in node.outputs.iter().flatten() {
            if let Some(grid) = grid(v) {
                placing.round(v, &grid)?;
            }
        }
    }
    let mut graph = placing.graph;
    // Simulated graphs keep the numbers of the network's values, so that they can be looked at.
    if form == Form::Qdq {
        graph.drop_unused();
    }
    graph.validate().context(|| "the quantised graph")?;
    Ok(graph)
}

/// A graph in the making.
struct Placing {
    graph: Graph,
    taken: HashSet<String>,
    /// What is read in place of a value.
    rounded: HashMap<ValueId, ValueId>,
    form: Form,
}

impl Placing {
    fn fresh_name(&mut self, wish: String) -> String {
        let mut name = wish.clone();
        let mut number = 0;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = format!("{wish}_{number}");
        }
        name
    }
    fn constant(&mut self, wish: String, tensor: Tensor) -> ValueId {
        let name = self.fresh_name(wish);
        self.graph.add_constant(&name, tensor)
    }
    /// Adds a node with one new output.
    fn node(&mut self, wish: String, op: Arc<dyn Operator>, inputs: &[ValueId]) -> ValueId {
        let name = self.fresh_name(wish);
        let output = self.graph.add_value(Value { name: name.clone(), ..Value::default() });
        let inputs = inputs.iter().map(|&v| Some(v)).collect();
        self.graph.nodes.push(Node { name, op, inputs, outputs: vec![Some(output)] });
        output
    }
    /// Adds a node of the network. In files, Swish is spelled with the operators of every opset.
    fn push(&mut self, node: Node) {
        let swish = node.op.as_op::<Activation>().map(|a| a.function);
        if let (Form::Qdq, Some(ActivationFunction::Swish { alpha: 1.0 }), Some(x)) =
            (self.form, swish, node.input(0))
        {
            let gate = self.node(
                format!("{}/Sigmoid", node.name),
                Arc::new(Unary { function: UnaryFunction::Sigmoid }),
                &[x],
            );
            let op = Arc::new(Binary { function: BinaryFunction::Mul });
            self.graph.nodes.push(Node { op, inputs: vec![Some(x), Some(gate)], ..node });
            return;
        }
        self.graph.nodes.push(node);
    }
    /// Rounds `v` for all that read it from here on.
    fn round(&mut self, v: ValueId, grid: &Grid) -> Result<()> {
        let name = self.graph.value(v).name.clone();
        let back = match self.form {
            Form::Qdq => {
                let scale = self.constant(format!("{name}.scale"), Tensor::scalar(grid.scale));
                let dtype = match (grid.levels.low < 0, grid.levels.bits() <= 4) {
                    (true, true) => DType::I4,
                    (false, true) => DType::U4,
                    (true, false) => DType::I8,
                    (false, false) => DType::U8,
                };
                let zero = Tensor::from_ints(dtype, &[], &[i128::from(grid.zero)])?;
                let zero = self.constant(format!("{name}.zero"), zero);
                let quantise = Arc::new(QuantizeLinear::default());
                let integers = self.node(format!("{name}/Quantize"), quantise, &[v, scale, zero]);
                let restore = Arc::new(DequantizeLinear::default());
                self.node(format!("{name}/Dequantize"), restore, &[integers, scale, zero])
            }
            Form::Simulated => {
                let scale = self.constant(format!("{name}.scale"), Tensor::scalar(grid.scale));
                let binary = |function| Arc::new(Binary { function });
                let mut x = self.node(format!("{name}/steps"), binary(BinaryFunction::Div), &[v, scale]);
                let round = Arc::new(Unary { function: UnaryFunction::Round });
                x = self.node(format!("{name}/rounded"), round, &[x]);
                let ends = [grid.levels.low - grid.zero, grid.levels.high - grid.zero];
                let [low, high] =
                    ends.map(|end| self.constant(format!("{name}.end"), Tensor::scalar(end as f32)));
                x = self.node(format!("{name}/bounded"), Arc::new(Clip), &[x, low, high]);
                self.node(format!("{name}/restored"), binary(BinaryFunction::Mul), &[x, scale])
            }
        };
        self.rounded.insert(v, back);
        Ok(())
    }
    /// Puts the integer weights and bias of a layer in their place in `node`.
    fn layer(
        &mut self,
        node: &mut Node,
        layer: &Layer,
        weights: &QuantisedWeights,
        input: Option<Grid>,
    ) -> Result<()> {
        let bias = layer.bias_of(&self.graph);
        let shape = layer.weights_of(&self.graph).shape().to_vec();
        // A bias is in units of the sums, where there are such units and not nothing but zeros.
        let has_bias = layer.bias.is_some() && bias.iter().any(|b| *b != 0.0);
        let steps = input.filter(|_| has_bias).map(|input| {
            let unit = |c: usize| input.scale * weights.grid(c).scale;
            let count = if weights.grids.len() == 1 { 1 } else { layer.channels };
            let integers = bias.iter().enumerate().map(|(c, b)| (b / unit(c)).round_ties_even() as i32);
            ((0..count).map(unit).collect::<Vec<f32>>(), integers.collect::<Vec<i32>>())
        });
        let place = match self.form {
            Form::Qdq => self.weights_node(layer, weights, &shape)?,
            Form::Simulated => {
                let rows: Vec<Vec<f32>> = (0..layer.channels).map(|c| weights.restored(c)).collect();
                let values = layer.unrows(&rows, layer.weights_of(&self.graph));
                self.constant(format!("{}.weight", layer.name), Tensor::new(&shape, &values)?)
            }
        };
        node.inputs[1] = Some(place);
        if layer.bias.is_some() && !has_bias {
            node.inputs.truncate(2);
        }
        let Some((units, integers)) = steps else { return Ok(()) };
        node.inputs[2] = Some(match self.form {
            Form::Qdq => {
                let values = Tensor::new(&[layer.channels], &integers)?;
                let values = self.constant(format!("{}.bias", layer.name), values);
                self.dequantise(format!("{}.bias", layer.name), values, &units, 0, None)?
            }
            Form::Simulated => {
                let unit = |c: usize| units[c.min(units.len() - 1)];
                let values: Vec<f32> =
                    integers.iter().enumerate().map(|(c, &b)| b as f32 * unit(c)).collect();
                self.constant(format!("{}.bias", layer.name), Tensor::new(&[layer.channels], &values)?)
            }
        });
        Ok(())
    }
    fn weights_node(
        &mut self,
        layer: &Layer,
        weights: &QuantisedWeights,
        shape: &[usize],
    ) -> Result<ValueId> {
        let values = layer.unrows(&weights.rows, layer.weights_of(&self.graph));
        let values: Vec<i128> = values.into_iter().map(i128::from).collect();
        let values =
            self.constant(format!("{}.weight", layer.name), Tensor::from_ints(DType::I8, shape, &values)?);
        let scales: Vec<f32> = weights.grids.iter().map(|g| g.scale).collect();
        let zeros: Vec<i128> = weights.grids.iter().map(|g| i128::from(g.zero)).collect();
        let rank: &[usize] = if zeros.len() == 1 { &[] } else { &[zeros.len()] };
        let zeros = Tensor::from_ints(DType::I8, rank, &zeros)?;
        self.dequantise(format!("{}.weight", layer.name), values, &scales, layer.axis, Some(zeros))
    }
    /// DequantizeLinear of a constant, with one scale or one for each index of `axis`.
    fn dequantise(
        &mut self,
        name: String,
        integers: ValueId,
        scales: &[f32],
        axis: usize,
        zeros: Option<Tensor>,
    ) -> Result<ValueId> {
        let rank: &[usize] = if scales.len() == 1 { &[] } else { &[scales.len()] };
        let scale = self.constant(format!("{name}.scale"), Tensor::new(rank, scales)?);
        let mut inputs = vec![integers, scale];
        if let Some(zeros) = zeros {
            inputs.push(self.constant(format!("{name}.zero"), zeros));
        }
        let axis = if scales.len() == 1 { Granularity::default().axis } else { axis as i64 };
        let granularity = Granularity { axis, block_size: 0 };
        let op = Arc::new(DequantizeLinear { granularity, output_dtype: None });
        Ok(self.node(format!("{name}/Dequantize"), op, &inputs))
    }
}
