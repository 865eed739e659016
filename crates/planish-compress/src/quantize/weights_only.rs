//! Weights of four bits for large dense layers, everything else as it was.
//!
//! Most of an AlexNet or VGG are the weights of its dense layers, each of which is used once a picture: such layers take as
//! long as reading their weights. Four bits and a scale for each block of 32 along the depth make them 6.4 times smaller,
//! and no calibration is needed, because activations stay numbers (Dettmers and Zettlemoyer, "The case for 4-bit precision:
//! k-bit inference scaling laws", ICML 2023, who find four bits best for equal size, and small blocks better than large
//! ones). Each block is clipped where its squared error is least, as ACIQ does for tensors (Banner, Nahshan and Soudry,
//! NeurIPS 2019), here by search.

use super::grid::{Grid, Levels};
use super::layers::Layer;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, Granularity};
use planish_graph::{DType, Graph, Node, OperatorExt, Result, Tensor, Value, ValueId, invalid};
use std::sync::Arc;

/// How weights alone are quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightsOnly {
    /// Weights along the depth that share a scale.
    pub block: usize,
    /// Layers of fewer weights stay as they are.
    pub least: usize,
    /// Whether 0 is in the middle of the levels; otherwise blocks have zero points.
    pub symmetric: bool,
}

impl Default for WeightsOnly {
    fn default() -> WeightsOnly {
        WeightsOnly { block: 32, least: 1 << 20, symmetric: true }
    }
}

/// What became of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortLayer {
    /// The node's name.
    pub name: String,
    /// The operator.
    pub operator: &'static str,
    /// Weights.
    pub weights: usize,
    /// The squared error of the quantised weights over the weights' squares.
    pub noise: f64,
}

/// Shares of a block's reach that are tried as its clip.
const SHARES: usize = 16;

/// The smallest of them.
const LEAST_SHARE: f32 = 0.5;

/// `graph` with the weights of its large dense layers (matrix products and convolutions of one tap) in four bits, and what
/// was done. Errors name what is at fault: a block size that no kernel and no file has, a weight that is not finite.
pub fn weights_only(graph: &Graph, how: &WeightsOnly) -> Result<(Graph, Vec<ShortLayer>)> {
    if how.block < 16 || !how.block.is_power_of_two() {
        invalid!("blocks of {} weights: a power of two from 16 on is expected", how.block);
    }
    let mut made = graph.clone();
    made.nodes.clear();
    let mut done = Vec::new();
    for (n, node) in graph.nodes.iter().enumerate() {
        let mut copy = node.clone();
        if let Some(layer) = Layer::of(graph, n).filter(|layer| is_dense(layer, graph, how.least)) {
            let (numbers, short) = shorten(&mut made, &layer, layer.weights_of(graph), how)?;
            copy.inputs[1] = Some(numbers);
            done.push(ShortLayer { operator: node.op.name(), ..short });
        }
        made.nodes.push(copy);
    }
    made.drop_unused();
    made.validate()?;
    Ok((made, done))
}

/// Whether a layer is a large matrix product, or a convolution that is one.
fn is_dense(layer: &Layer, graph: &Graph, least: usize) -> bool {
    let weights = layer.weights_of(graph);
    let taps: usize = weights.shape().iter().skip(2).product();
    let convolves = graph.nodes[layer.node].op.is_op::<Conv>();
    weights.len() >= least && layer.groups == 1 && (taps == 1 || !convolves)
}

/// Adds the weights of a layer in four bits, and the node that makes numbers of them.
fn shorten(
    graph: &mut Graph,
    layer: &Layer,
    weights: &Tensor,
    how: &WeightsOnly,
) -> Result<(ValueId, ShortLayer)> {
    let shape = weights.shape();
    // The depth is the other axis of the two that there are.
    let axis = 1 - layer.axis;
    let (depth, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let blocks = depth.div_ceil(how.block);
    let numbers = weights.as_slice::<f32>()?;
    if let Some(bad) = numbers.iter().find(|w| !w.is_finite()) {
        invalid!("layer \"{}\" has a weight of {bad}, which four bits cannot say", layer.name);
    }
    let mut scale_shape = shape.to_vec();
    scale_shape[axis] = blocks;
    let dtype = if how.symmetric { DType::I4 } else { DType::U4 };
    let mut integers = Tensor::zeros(dtype, shape)?;
    let mut scales = Tensor::zeros(DType::F32, &scale_shape)?;
    let mut zeros = Tensor::zeros(dtype, &scale_shape)?;
    let (mut error, mut power) = (0f64, 0f64);
    let mut block: Vec<f32> = Vec::with_capacity(how.block);
    for s in 0..scales.len() {
        let (outer, b, i) = (s / inner / blocks, s / inner % blocks, s % inner);
        let rows = b * how.block..depth.min((b + 1) * how.block);
        let at = |k: usize| (outer * depth + k) * inner + i;
        block.clear();
        block.extend(rows.clone().map(|k| numbers[at(k)]));
        let grid = fitted(&block, how.symmetric);
        for (k, &w) in rows.zip(&block) {
            let level = grid.quantise(w);
            integers.bytes_mut()[at(k)] = level as u8;
            error += f64::from(w - grid.restore(level)).powi(2);
            power += f64::from(w).powi(2);
        }
        scales.as_mut_slice::<f32>()?[s] = grid.scale;
        zeros.bytes_mut()[s] = grid.zero as u8;
    }
    let name = |what: &str| format!("{}.weight.{what}", layer.name);
    let mut inputs =
        vec![graph.add_constant(&name("int4"), integers), graph.add_constant(&name("scale"), scales)];
    if !how.symmetric {
        inputs.push(graph.add_constant(&name("zero"), zeros));
    }
    let granularity = Granularity { axis: axis as i64, block_size: how.block };
    let op = Arc::new(DequantizeLinear { granularity, output_dtype: None });
    let output = graph.add_value(Value { name: name("numbers"), ..Value::default() });
    let inputs = inputs.into_iter().map(Some).collect();
    graph.nodes.push(Node { name: name("Dequantize"), op, inputs, outputs: vec![Some(output)] });
    let noise = if power == 0.0 { 0.0 } else { error / power };
    let short = ShortLayer { name: layer.name.clone(), operator: "", weights: weights.len(), noise };
    Ok((output, short))
}

/// The grid of least squared error for a block.
fn fitted(block: &[f32], symmetric: bool) -> Grid {
    let (low, high) = block.iter().fold((0f32, 0f32), |(l, h), &w| (l.min(w), h.max(w)));
    let mut best: Option<(f32, Grid)> = None;
    for i in 0..SHARES {
        let share = 1.0 - (1.0 - LEAST_SHARE) * i as f32 / (SHARES - 1) as f32;
        let grid = match symmetric {
            true => Grid::symmetric(high.max(-low) * share, Levels::signed(4)),
            false => Grid::spanning(low * share, high * share, Levels::unsigned(4)),
        };
        let error = squared_error(block, &grid);
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, grid));
        }
    }
    best.map_or(Grid { scale: 1.0, zero: 0, levels: Levels::signed(4) }, |(_, grid)| grid)
}

/// The squared error of a block on a grid, in arithmetic that is done several numbers at a time.
fn squared_error(block: &[f32], grid: &Grid) -> f32 {
    /// Numbers this large have no fraction.
    const WHOLE: f32 = 12_582_912.0;
    let (low, high) = ((grid.levels.low - grid.zero) as f32, (grid.levels.high - grid.zero) as f32);
    let steps = 1.0 / grid.scale;
    block.iter().map(|&w| (w - ((w * steps).clamp(low, high) + WHOLE - WHOLE) * grid.scale).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_graph::ops::math::gemm::Gemm;
    use planish_graph::ops::math::matmul::MatMul;
    use planish_graph::{Dim, Operator, reference};

    fn weights(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        let mut random = crate::random::Random::new(7);
        let values: Vec<f32> = (0..count)
            .map(|_| (0..6).map(|_| random.below(1000) as f32 / 1000.0 - 0.5).sum::<f32>())
            .collect();
        Tensor::new(shape, &values).unwrap()
    }

    /// A network of one layer.
    fn network(op: impl Operator, x: &[usize], w: Tensor) -> Graph {
        let mut g = Graph::new("test");
        let dims: Vec<Dim> = x.iter().map(|&d| Dim::Fixed(d)).collect();
        let x = g.add_input("x", DType::F32, &dims);
        let w = g.add_constant("w", w);
        let y = g.add_node("y", op, &[x, w]);
        g.outputs.push(y);
        g
    }

    fn gemm(trans_b: bool) -> Gemm {
        Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b }
    }

    #[test]
    fn answers_are_those_of_rounded_weights() {
        let how = WeightsOnly { block: 16, least: 1, symmetric: true };
        let cases = [
            network(gemm(true), &[2, 40], weights(&[6, 40])),
            network(gemm(false), &[2, 40], weights(&[40, 6])),
            network(MatMul, &[2, 40], weights(&[40, 6])),
            network(Conv::default(), &[2, 40, 3, 3], weights(&[6, 40, 1, 1])),
        ];
        for g in cases {
            for symmetric in [true, false] {
                let (short, done) = weights_only(&g, &WeightsOnly { symmetric, ..how }).unwrap();
                assert_eq!(done.len(), 1);
                // Of a normal distribution in blocks of 16; facts D.6 has 18.9 dB for whole tensors.
                assert!(done[0].noise < 0.011, "{}", done[0].noise);
                let dims = g.value(g.inputs[0]).shape.clone().unwrap();
                let shape: Vec<usize> =
                    dims.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { 1 }).collect();
                let x = weights(&shape);
                let wanted = reference::run(&g, std::slice::from_ref(&x)).unwrap().remove(0).to_f64s();
                let found = reference::run(&short, &[x]).unwrap().remove(0).to_f64s();
                let (mut error, mut power) = (0.0, 0.0);
                for (w, f) in wanted.iter().zip(&found) {
                    (error, power) = (error + (w - f).powi(2), power + w * w);
                }
                assert!(error < 0.03 * power, "{error} of {power}");
                assert!(error > 0.0 && short.nodes.len() == 2);
            }
        }
    }

    #[test]
    fn small_and_grouped_layers_stay() {
        let g = network(MatMul, &[2, 40], weights(&[40, 6]));
        let (same, done) = weights_only(&g, &WeightsOnly::default()).unwrap();
        assert_eq!((same.nodes.len(), done.len()), (1, 0));
        let wide = network(Conv::default(), &[1, 4, 3, 3], weights(&[6, 4, 3, 3]));
        let how = WeightsOnly { least: 1, ..WeightsOnly::default() };
        assert_eq!(weights_only(&wide, &how).unwrap().1, []);
    }

    #[test]
    fn zeros_and_lone_numbers_have_a_grid() {
        for symmetric in [true, false] {
            assert_eq!(fitted(&[0.0; 16], symmetric).scale, 1.0);
            for x in [3.0f32, -3.0] {
                let grid = fitted(&[x], symmetric);
                assert!((grid.snap(x) - x).abs() < 1e-5, "{x} became {}", grid.snap(x));
            }
        }
    }

    #[test]
    fn bad_blocks_and_weights_are_refused() {
        let g = network(MatMul, &[2, 40], weights(&[40, 6]));
        for block in [0, 8, 24] {
            let error = weights_only(&g, &WeightsOnly { block, ..WeightsOnly::default() }).unwrap_err();
            assert!(error.to_string().contains("power of two"), "{error}");
        }
        let mut bad = weights(&[40, 6]);
        bad.as_mut_slice::<f32>().unwrap()[3] = f32::NAN;
        let how = WeightsOnly { least: 1, ..WeightsOnly::default() };
        let error = weights_only(&network(MatMul, &[2, 40], bad), &how).unwrap_err().to_string();
        assert!(error.contains("\"y\"") && error.contains("NaN"), "{error}");
    }
}
