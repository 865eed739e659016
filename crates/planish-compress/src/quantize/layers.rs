//! Layers: convolutions and matrix products with constant weights, told alike.

use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::{DType, Graph, OperatorExt, Tensor, ValueId};

/// A node that multiplies its input by constant weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The node's name.
    pub name: String,
    /// The node, by its place in the graph.
    pub node: usize,
    /// What it reads.
    pub input: ValueId,
    /// Its weights, a constant.
    pub weights: ValueId,
    /// Its bias, a constant of one number an output channel.
    pub bias: Option<ValueId>,
    /// What it makes.
    pub output: ValueId,
    /// The axis of the weights that output channels lie along: 0, or 1 of a matrix.
    pub axis: usize,
    /// Output channels.
    pub channels: usize,
    /// Independent groups of channels; 1 but for convolutions.
    pub groups: usize,
}

impl Layer {
    /// The layer that node `n` is, where it is one of `f32` with constant weights.
    pub fn of(graph: &Graph, n: usize) -> Option<Layer> {
        let node = &graph.nodes[n];
        let (weights, rank_two) = (node.input(1)?, |t: &Tensor| t.rank() == 2);
        let tensor = graph.constant(weights).filter(|t| t.dtype() == DType::F32 && !t.is_empty())?;
        let (axis, groups) = if let Some(conv) = node.op.as_op::<Conv>() {
            (0, conv.group)
        } else if let Some(gemm) = node.op.as_op::<Gemm>().filter(|_| rank_two(tensor)) {
            if gemm.alpha != 1.0 || gemm.beta != 1.0 || gemm.trans_a {
                return None;
            }
            (usize::from(!gemm.trans_b), 1)
        } else if node.op.is_op::<MatMul>() && rank_two(tensor) {
            (1, 1)
        } else {
            return None;
        };
        let channels = *tensor.shape().get(axis)?;
        let bias = node.input(2);
        let fits = |b: ValueId| {
            graph.constant(b).is_some_and(|t| t.dtype() == DType::F32 && t.shape() == [channels])
        };
        if bias.is_some_and(|b| !fits(b)) || groups == 0 || !channels.is_multiple_of(groups) {
            return None;
        }
        let (input, output) = (node.input(0).filter(|x| graph.constant(*x).is_none())?, node.output()?);
        let name = node.name.clone();
        Some(Layer { name, node: n, input, weights, bias, output, axis, channels, groups })
    }
    /// The output channel that weight `index` belongs to.
    pub fn channel_of(&self, index: usize, weights: &Tensor) -> usize {
        match self.axis {
            0 => index / (weights.len() / self.channels),
            _ => index % self.channels,
        }
    }
    /// The weights of each output channel together, in their order.
    pub fn rows(&self, weights: &Tensor) -> Vec<Vec<f32>> {
        let mut rows = vec![Vec::with_capacity(weights.len() / self.channels); self.channels];
        for (i, w) in weights.to_f32s().into_iter().enumerate() {
            rows[self.channel_of(i, weights)].push(w);
        }
        rows
    }
    /// The reverse of [`Self::rows`], for numbers of any kind.
    pub fn unrows<T: Copy>(&self, rows: &[Vec<T>], weights: &Tensor) -> Vec<T> {
        let per_row = weights.len() / self.channels;
        (0..weights.len())
            .map(|i| match self.axis {
                0 => rows[i / per_row][i % per_row],
                _ => rows[i % self.channels][i / self.channels],
            })
            .collect()
    }
    /// The bias, zeros where there is none.
    pub fn bias_of(&self, graph: &Graph) -> Vec<f32> {
        let bias = self.bias.and_then(|b| graph.constant(b));
        bias.map_or_else(|| vec![0.0; self.channels], Tensor::to_f32s)
    }
    /// The weights as they stand in `graph`.
    pub fn weights_of<'g>(&self, graph: &'g Graph) -> &'g Tensor {
        graph.constant(self.weights).expect("a layer's weights are constant")
    }
}
