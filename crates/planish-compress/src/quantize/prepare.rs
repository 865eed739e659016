//! The graph in the form that quantising starts from: simplified, batch normalisations folded, and nothing fused, so that
//! every value which will be rounded has a name.

use super::layers::Layer;
use planish_engine::passes;
use planish_graph::error::Context;
use planish_graph::ops::math::activation::{Activation, ActivationFunction};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::fused::{ConvAdd, FusedActivation};
use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, QuantizeLinear};
use planish_graph::{Graph, Node, Operator, OperatorExt, Result, Tensor, Value, ValueId, invalid};
use std::sync::Arc;

/// A float network that can be quantised: plain operators, and the layers among them.
#[derive(Clone, Debug)]
pub struct Network {
    /// The graph. Every layer that can have a bias has one.
    pub graph: Graph,
    /// Convolutions and matrix products with constant weights, in order.
    pub layers: Vec<Layer>,
}

impl Network {
    /// Simplifies `graph` and finds its layers. An error where it is quantised already, or has no layer.
    pub fn of(graph: &Graph) -> Result<Network> {
        refuse_quantised(graph)?;
        let mut simple = graph.clone();
        passes::optimise(&mut simple)?;
        let mut plain = Plain { graph: Graph { nodes: Vec::new(), ..simple.clone() } };
        for node in &simple.nodes {
            plain.add(node)?;
        }
        let graph = plain.graph;
        graph.validate().context(|| "after taking fused operators apart")?;
        let layers: Vec<Layer> = (0..graph.nodes.len()).filter_map(|n| Layer::of(&graph, n)).collect();
        if layers.is_empty() {
            invalid!("nothing to quantise: no convolution or matrix product has constant f32 weights");
        }
        Ok(Network { graph, layers })
    }
    /// Gives `layer` another bias, where it has one.
    pub fn set_bias(&mut self, layer: &Layer, bias: &[f32]) -> Result<()> {
        if let Some(at) = layer.bias {
            self.graph.value_mut(at).constant = Some(Tensor::new(&[layer.channels], bias)?);
        }
        Ok(())
    }
}

/// An error where `graph` holds quantised operators; their scales are checked first, since broken ones are the likelier
/// reason to look here.
fn refuse_quantised(graph: &Graph) -> Result<()> {
    for node in &graph.nodes {
        let scaled = node.op.is_op::<QuantizeLinear>() || node.op.is_op::<DequantizeLinear>();
        if let Some(scale) = node.input(1).filter(|_| scaled).and_then(|s| graph.constant(s))
            && let Some(bad) = scale.to_f64s().into_iter().find(|s| !(s.is_finite() && *s > 0.0))
        {
            invalid!(
                "{}: the scale (input 1) holds {bad}, where scales must be positive and finite",
                node.place()
            );
        }
        let integer = scaled
            || ["ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"].contains(&node.op.name())
            || node.op.name().starts_with("QLinear");
        if integer {
            invalid!(
                "the model is quantised already ({}): quantise the float model it came from",
                node.place()
            );
        }
    }
    Ok(())
}

/// A graph in the making, of plain operators.
struct Plain {
    graph: Graph,
}

impl Plain {
    /// Adds `node`; a fused one as its parts.
    fn add(&mut self, node: &Node) -> Result<()> {
        if let Some(fused) = node.op.as_op::<ConvAdd>() {
            return self.add_fused(node, fused);
        }
        let mut node = node.clone();
        if node.op.is_op::<Conv>() || node.op.as_op::<Gemm>().is_some_and(|g| g.beta == 1.0) {
            self.give_bias(&mut node)?;
        }
        self.graph.nodes.push(node);
        Ok(())
    }

    fn add_fused(&mut self, node: &Node, fused: &ConvAdd) -> Result<()> {
        let activation = activation(fused.activation);
        let bends = activation.is_some();
        let residual = node.input(3);
        let mut conv = Node {
            op: Arc::new(fused.conv.clone()),
            inputs: node.inputs.iter().copied().take(3).collect(),
            ..node.clone()
        };
        if residual.is_some() || bends {
            conv.outputs = vec![Some(self.between(&format!("{}/Conv", node.name)))];
        }
        let mut last = conv.output();
        self.give_bias(&mut conv)?;
        self.graph.nodes.push(conv);
        if let Some(residual) = residual {
            let output = match bends {
                true => Some(self.between(&format!("{}/Add", node.name))),
                false => node.output(),
            };
            self.graph.nodes.push(Node {
                name: format!("{}/Add", node.name),
                op: Arc::new(Binary { function: BinaryFunction::Add }),
                inputs: vec![last, Some(residual)],
                outputs: vec![output],
            });
            last = output;
        }
        if let Some((op, bounds)) = activation {
            let mut inputs = vec![last];
            for (name, bound) in bounds {
                let name = self.graph.fresh_name(&format!("{}/{name}", node.name));
                inputs.push(Some(self.graph.add_constant(&name, Tensor::scalar(bound))));
            }
            let name = format!("{}/{}", node.name, op.name());
            self.graph.nodes.push(Node { name, op, inputs, outputs: node.outputs.clone() });
        }
        Ok(())
    }

    /// A new value between two nodes.
    fn between(&mut self, wish: &str) -> ValueId {
        let name = self.graph.fresh_name(wish);
        self.graph.add_value(Value { name, ..Value::default() })
    }

    /// Gives a layer with constant `f32` weights a bias where it has none: corrections need a place.
    fn give_bias(&mut self, node: &mut Node) -> Result<()> {
        let Some(weights) = node.input(1).and_then(|w| self.graph.constant(w)) else { return Ok(()) };
        let transposed = node.op.as_op::<Gemm>().is_some_and(|g| !g.trans_b);
        let Some(&channels) = weights.shape().get(usize::from(transposed)) else { return Ok(()) };
        let dtype = weights.dtype();
        if node.input(2).is_none() {
            let name = self.graph.fresh_name(&format!("{}.bias", node.name));
            let bias = self.graph.add_constant(&name, Tensor::zeros(dtype, &[channels])?);
            node.inputs.truncate(2);
            node.inputs.push(Some(bias));
        }
        Ok(())
    }
}

/// Names and values of bounds.
type Bounds = Vec<(&'static str, f32)>;

/// The plain operator of a fused activation, and the bounds that it takes as inputs; `None` where there is none.
fn activation(function: FusedActivation) -> Option<(Arc<dyn Operator>, Bounds)> {
    let unary = |function| -> Arc<dyn Operator> { Arc::new(Unary { function }) };
    let bent = |function| -> Arc<dyn Operator> { Arc::new(Activation { function }) };
    let op = match function {
        FusedActivation::None => return None,
        FusedActivation::Relu => unary(UnaryFunction::Relu),
        FusedActivation::Clip { min, max } => {
            return Some((Arc::new(Clip), vec![("min", min), ("max", max)]));
        }
        FusedActivation::LeakyRelu { alpha } => bent(ActivationFunction::LeakyRelu { alpha }),
        FusedActivation::HardSwish => unary(UnaryFunction::HardSwish),
        FusedActivation::Silu => bent(ActivationFunction::Swish { alpha: 1.0 }),
        FusedActivation::Sigmoid => unary(UnaryFunction::Sigmoid),
        FusedActivation::HardSigmoid { alpha, beta } => bent(ActivationFunction::HardSigmoid { alpha, beta }),
        FusedActivation::Tanh => unary(UnaryFunction::Tanh),
        FusedActivation::Gelu => bent(ActivationFunction::Gelu { tanh: false }),
        FusedActivation::Elu { alpha } => bent(ActivationFunction::Elu { alpha }),
        FusedActivation::Mish => unary(UnaryFunction::Mish),
    };
    Some((op, Vec::new()))
}
