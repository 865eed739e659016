//! A layer of which only the sign is kept has one integer threshold in each output channel.
//!
//! Between a convolution of levels and the sign of its result stand a bias, a batch normalisation, factors and limits: maps
//! of each channel that rise or fall. So there is a sum from which on, or up to which, the sign is positive (Umuroglu et al.,
//! "FINN", arXiv 1612.07119, section 4.2.2), and nothing else of those maps matters. It is found by computing them, by the
//! reference, for sums between the least and the greatest there can be: a tie falls where the network lets it fall, whatever
//! was rounded on the way. Where the map falls, weights change their signs.
//!
//! The layer is written so that this shows in standard operators: its products have the unit of two steps, and with the
//! threshold `t` its result is `2 (sum - t) + 1` steps, an odd number of them, which limits turn into one step up or down.
//! Half a step of error would not change it. A bias that is rounded to whole units errs by a step: so what rounding leaves
//! of it is kept (`plan/integer_sums.rs`).
//!
//! A matrix product, into which no limits are fused, goes to levels as they are, and the sign is taken of those.

use super::super::Pass;
use super::super::absorb_affine::channel_map;
use super::super::layer_weights::{bias_numbers, grid_along, with_signs};
use super::super::pattern::per_channel;
use super::super::rewrite::Rewriter;
use super::constants::operands;
use super::grids::{dequantised, levels, quantisation, quantised_behind, through};
use super::limits::limited;
use crate::plan::integer_sums::{channel_axis, differences};
use planish_graph::ops::math::binary::Binary;
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::nn::batch_normalization::BatchNormalization;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::quantized::fused::Grid;
use planish_graph::ops::nn::quantized::qonnx::BipolarQuant;
use planish_graph::ops::nn::quantized::quantize::QuantizeLinear;
use planish_graph::reference::eval_node;
use planish_graph::{DType, Graph, Node, NodeId, Operator, OperatorExt, Result, Tensor, ValueId};
use std::sync::Arc;

/// Makes thresholds of what stands between layers of levels and signs.
pub struct SignThresholds;

/// The largest threshold. A bias in `f32` says half a unit up to 2^23; up to this, what the scales round moves none by as
/// much as a sixteenth of a unit.
const MOST: i64 = 1 << 18;

impl Pass for SignThresholds {
    fn name(&self) -> &'static str {
        "sign-thresholds"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some(found) = Layer::behind(&rewriter, id)
                && let Some(thresholds) = found.thresholds(&rewriter)
            {
                found.write(&mut rewriter, id, &thresholds)?;
            }
        }
        rewriter.finish()
    }
}

/// A layer on levels, and the way from its result to a sign.
struct Layer {
    id: NodeId,
    op: Arc<dyn Operator>,
    /// Levels as numbers, and what they mean.
    input: ValueId,
    from: Grid,
    /// How far levels lie from their zero point at most.
    most: i64,
    integers: Tensor,
    weights: Grid,
    /// The axis of the weights that counts output channels.
    axis: usize,
    bias: Vec<f64>,
    /// What stands between, the last first, each with the value that it maps.
    maps: Vec<(Node, ValueId)>,
    /// The step of the signs.
    step: f32,
}

/// What the sign of a channel depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Threshold {
    /// Positive from this sum on.
    From(i64),
    /// Positive up to this sum.
    UpTo(i64),
    /// The same for all sums.
    Always(bool),
}

impl Layer {
    /// The layer before the signs that node `id` makes for a quantisation.
    fn behind(rewriter: &Rewriter, id: NodeId) -> Option<Layer> {
        let (node, _) = rewriter.node_of::<BipolarQuant>(id)?;
        let step = *rewriter.constant_input(node, 1).filter(|t| t.len() == 1)?.to_f32s().first()?;
        let (_, grid) = quantised_behind(rewriter, node.output()?)?;
        if grid.single() != Some((step, 1)) {
            return None;
        }
        let (mut maps, mut value) = (Vec::new(), node.input(0)?);
        loop {
            let maker = rewriter.maker(value).filter(|_| rewriter.use_count(value) == 1)?;
            let node = rewriter.node(maker)?;
            if let Some(layer) = Layer::of(rewriter, maker, node, step) {
                return Some(Layer { maps, ..layer });
            }
            let map =
                node.op.is_op::<BatchNormalization>() || node.op.is_op::<Binary>() || node.op.is_op::<Clip>();
            if !map {
                return None;
            }
            let inner = node.inputs.iter().flatten().find(|&&v| rewriter.constant(v).is_none()).copied()?;
            maps.push((node.clone(), inner));
            value = inner;
        }
    }

    /// Node `id`, where it is such a layer.
    fn of(rewriter: &Rewriter, id: NodeId, node: &Node, step: f32) -> Option<Layer> {
        let matrix = node.op.is_op::<Gemm>() || node.op.is_op::<MatMul>() && plain_rows(rewriter, node);
        if !matrix && !node.op.is_op::<Conv>() {
            return None;
        }
        let input = node.input(0)?;
        let (given, from) = levels(rewriter, input)?;
        let (integers, weights) = dequantised(rewriter, node.input(1)?)?;
        let integers = rewriter.constant(integers)?.clone();
        let axis = channel_axis(&*node.op, &integers)?;
        // Others are no weights of sums of integers.
        let known =
            integers.dtype() == weights.dtype && weights.dtype.is_integer() && weights.dtype.bits() <= 8;
        grid_along(&weights, &integers, axis).filter(|_| known && !integers.is_empty())?;
        let bias = bias_numbers(rewriter, node, integers.rank().min(2), integers.shape()[axis])?;
        let (_, zero) = from.single()?;
        let most = if are_signs(rewriter, given, &from) { 1 } else { i64::from(zero.max(255 - zero)) };
        let (op, maps) = (node.op.clone(), Vec::new());
        Some(Layer { id, op, input, from, most, integers, weights, axis, bias, maps, step })
    }

    fn channels(&self) -> usize {
        self.integers.shape()[self.axis]
    }

    fn of_channel<T: Copy>(numbers: &[T], channel: usize) -> T {
        numbers[if numbers.len() == 1 { 0 } else { channel }]
    }

    /// The signs of each channel where the sums are these; `None` where something between is no map of channels.
    fn signs(&self, rewriter: &Rewriter, sums: &[i64]) -> Option<Vec<bool>> {
        let channels = self.channels();
        let (input, _) = self.from.single()?;
        let numbers: Vec<f32> = (0..channels)
            .map(|c| {
                let unit = f64::from(input) * f64::from(Self::of_channel(&self.weights.scales, c));
                (sums[c] as f64 * unit + self.bias[c]) as f32
            })
            .collect();
        let mut shape = vec![1; self.integers.rank().max(2)];
        shape[1] = channels;
        let mut at = Tensor::new(&shape, &numbers).ok()?;
        for (node, value) in self.maps.iter().rev() {
            let constant = |v: ValueId| rewriter.constant(v);
            let broadcast = |t: &Tensor| per_channel(t, shape.len(), 1, channels);
            let bounds =
                node.inputs.iter().skip(1).flatten().all(|&v| constant(v).is_some_and(|t| t.len() == 1));
            let limits = node.op.is_op::<Clip>() && node.input(0) == Some(*value) && bounds;
            if !limits {
                channel_map(node, *value, channels, true, constant, broadcast)?;
            }
            let inputs: Vec<Option<&Tensor>> = node
                .inputs
                .iter()
                .map(|input| if *input == Some(*value) { Some(&at) } else { input.and_then(constant) })
                .collect();
            // What the operator refuses stays, to be refused.
            let made = eval_node(node, &inputs).ok()?.into_iter().next()?;
            if made.shape() != shape {
                return None;
            }
            at = made;
        }
        Some(at.to_f32s().into_iter().map(|x| x >= 0.0).collect())
    }

    /// The largest magnitude that the sum of each channel can have.
    fn bounds(&self) -> Vec<i64> {
        let zeros = |c: usize| Self::of_channel(&self.weights.zeros, c) as f32;
        let values = differences(&self.integers, self.axis, zeros);
        let each = values.len() / self.channels();
        let sum = |own: &[f32]| own.iter().map(|w| w.abs() as i64).sum::<i64>();
        values.chunks(each).map(|own| sum(own) * self.most).collect()
    }

    fn thresholds(&self, rewriter: &Rewriter) -> Option<Vec<Threshold>> {
        let bounds = self.bounds();
        let least: Vec<i64> = bounds.iter().map(|b| -b).collect();
        let (first, last) = (self.signs(rewriter, &least)?, self.signs(rewriter, &bounds)?);
        // In `low` the sign is that of the least sum, in `high` the other one, until they are neighbours.
        let (mut low, mut high) = (least, bounds);
        while low.iter().zip(&high).any(|(low, high)| high - low > 1) {
            let middle: Vec<i64> = low.iter().zip(&high).map(|(low, high)| low + (high - low) / 2).collect();
            let signs = self.signs(rewriter, &middle)?;
            for (c, middle) in middle.into_iter().enumerate() {
                *if signs[c] == first[c] { &mut low[c] } else { &mut high[c] } = middle;
            }
        }
        let found = (0..self.channels()).map(|c| match (first[c], last[c]) {
            (false, true) => Threshold::From(high[c]),
            (true, false) => Threshold::UpTo(low[c]),
            (same, _) => Threshold::Always(same),
        });
        let found: Vec<Threshold> = found.collect();
        let small = |threshold: &Threshold| match threshold {
            Threshold::From(t) | Threshold::UpTo(t) => t.abs() <= MOST,
            Threshold::Always(_) => true,
        };
        found.iter().all(small).then_some(found)
    }

    /// Writes the layer with these thresholds in front of node `id`, which limits its result.
    fn write(self, rewriter: &mut Rewriter, id: NodeId, thresholds: &[Threshold]) -> Result<()> {
        let channels = self.channels();
        let Some((input, _)) = self.from.single() else { return Ok(()) };
        let unit = 2.0 * self.step / input;
        let factors: Vec<i8> = thresholds
            .iter()
            .map(|threshold| match threshold {
                Threshold::From(_) => 1,
                Threshold::UpTo(_) => -1,
                Threshold::Always(_) => 0,
            })
            .collect();
        let bias = thresholds.iter().map(|threshold| {
            let least = match threshold {
                Threshold::From(least) => *least,
                Threshold::UpTo(most) => -most,
                Threshold::Always(sign) => i64::from(!sign),
            };
            (1 - 2 * least) as f32 * self.step
        });
        let bias: Vec<f32> = bias.collect();
        // Of a step that is nearly nothing or nearly all, `f32` cannot say these parts and multiples.
        if !unit.is_normal() || !self.step.is_normal() || !bias.iter().all(|b| b.is_finite()) {
            return Ok(());
        }
        let Some((integers, signed)) = with_signs(&self.integers, self.axis, &self.weights, &factors) else {
            return Ok(());
        };
        let shared = signed.zeros.iter().all(|&zero| zero == signed.zeros[0]);
        let count = if shared { 1 } else { channels };
        let zeros = signed.zeros[..count].to_vec();
        let grid = Grid {
            axis: if shared { 1 } else { self.axis as i64 },
            scales: vec![unit; count],
            zeros,
            ..signed
        };
        let Some(node) = rewriter.node(self.id) else { return Ok(()) };
        let (name, Some(old)) = (node.name.clone(), node.output()) else { return Ok(()) };
        let parts = operands(rewriter, &format!("{name}.weight"), integers, &grid)?;
        let shape = node_weights(rewriter, self.id);
        let dequantise = Arc::new(grid.dequantize());
        let wide = format!("{name}.weight/DequantizeLinear");
        let weights = rewriter.insert_like(id, &wide, dequantise, parts, shape, DType::F32);
        let bias = rewriter.add_constant(&format!("{name}.bias"), Tensor::new(&[channels], &bias)?);
        let inputs = vec![Some(self.input), Some(weights), Some(bias)];
        let matrix = !self.op.is_op::<Conv>();
        // A product without a place for the bias gets one.
        let op: Arc<dyn Operator> = match self.op.is_op::<MatMul>() {
            true => Arc::new(Gemm::default()),
            false => self.op,
        };
        let sums = rewriter.insert_like(id, &name, op, inputs, old, DType::F32);
        let Some(node) = rewriter.node(id) else { return Ok(()) };
        let mut inputs = node.inputs.clone();
        if matrix {
            let wide = Grid::levels(self.step, 128);
            inputs[0] = Some(through(rewriter, id, sums, &wide)?);
            rewriter.set(id, Arc::new(BipolarQuant), inputs);
        } else {
            let limits = limited(rewriter, id, sums, [-self.step, self.step]);
            // The limits take the place of the sign.
            if let Some(output) = rewriter.node(id).and_then(|node| node.output()) {
                rewriter.replace(output, limits);
            }
        }
        Ok(())
    }
}

/// Whether levels of this grid are made of signs as large as its step, so that they lie one from the zero point.
fn are_signs(rewriter: &Rewriter, levels: ValueId, grid: &Grid) -> bool {
    let Some((id, node, _)) = rewriter.maker_of::<QuantizeLinear>(levels) else { return false };
    let signs = node.input(0).and_then(|x| rewriter.maker_of::<BipolarQuant>(x));
    let size = signs.and_then(|(_, node, _)| rewriter.constant_input(node, 1));
    size.is_some_and(|size| size.to_f32s() == grid.scales)
        && quantisation(rewriter, id).as_ref() == Some(grid)
}

/// The weights that a node reads, as numbers.
fn node_weights(rewriter: &Rewriter, id: NodeId) -> ValueId {
    rewriter.node(id).and_then(|node| node.input(1)).expect("a layer has weights")
}

/// Whether a product's rows are those of a matrix, so that it can take a bias.
fn plain_rows(rewriter: &Rewriter, node: &Node) -> bool {
    node.input(0).and_then(|x| rewriter.rank(x)) == Some(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_inferred, convert, input, scalar, unary, weights};
    use planish_graph::ops::math::binary::{Binary, BinaryFunction};
    use planish_graph::ops::math::unary::UnaryFunction;
    use planish_graph::ops::nn::batch_normalization::BatchNormalization;

    /// The signs of "x", as numbers.
    fn signs(g: &mut Graph, x: ValueId, name: &str, scale: f32) -> ValueId {
        let step = scalar(g, &format!("{name}.step"), scale);
        let x = g.add_node(&format!("{name}.sign"), BipolarQuant, &[x, step]);
        let x = convert(g, &format!("{name}.q"), true, x, &Grid::levels(scale, 1));
        convert(g, &format!("{name}.f"), false, x, &Grid::levels(scale, 1))
    }

    /// Weights of -1, 0 and 1 with scales along `axis`.
    fn ternary(g: &mut Graph, shape: &[usize], axis: usize, least: i8) -> ValueId {
        let len: usize = shape.iter().product();
        let integers: Vec<i8> =
            (0..len).map(|i| if i % 5 == 3 { least } else { (i * 7 % 3) as i8 - 1 }).collect();
        let w = g.add_constant("w", Tensor::new(shape, &integers).unwrap());
        let channels = shape[axis];
        let scales = (0..channels).map(|c| 0.25 + 0.5 * (c % 3) as f32).collect();
        let grid = Grid { dtype: DType::I8, axis: axis as i64, scales, zeros: vec![0; channels] };
        convert(g, "wf", false, w, &grid)
    }

    /// A normalisation whose means are whole sums, so that there are ties, and whose factors have every sign.
    fn normalised(g: &mut Graph, x: ValueId, channels: usize) -> ValueId {
        let of = |function: &dyn Fn(usize) -> f32| -> Vec<f32> { (0..channels).map(function).collect() };
        let parts = [
            ("gamma", of(&|c| [0.7, -1.3, 0.0, 2.0, -0.1, 0.0][c % 6])),
            ("beta", of(&|c| [0.0, 0.0, 0.5, 3.0, 0.0, -0.5][c % 6])),
            ("mean", of(&|c| [0.125, -0.375, 0.0, 1.0, 0.375, 2.0][c % 6])),
            ("variance", of(&|c| 0.3 + c as f32)),
        ];
        let mut inputs = vec![x];
        for (name, values) in parts {
            inputs.push(g.add_constant(name, Tensor::new(&[channels], &values).unwrap()));
        }
        g.add_node("norm", BatchNormalization::default(), &inputs)
    }

    /// Ends the graph in signs; after the pass, `rest` is left beside the conversions around the input.
    fn finish(mut g: Graph, y: ValueId, rest: &[(&'static str, usize)]) -> Graph {
        let y = signs(&mut g, y, "y", 0.4);
        g.outputs.push(y);
        check_inferred(&SignThresholds, g, rest)
    }

    const CONVOLVED: [(&str, usize); 5] =
        [("BipolarQuant", 1), ("Clip", 1), ("Conv", 1), ("DequantizeLinear", 3), ("QuantizeLinear", 2)];

    #[test]
    fn normalisations_become_thresholds_of_either_direction() {
        for least in [-1, -128] {
            let (mut g, x) = input(&[2, 4, 9]);
            let (x, w) = (signs(&mut g, x, "x", 0.5), ternary(&mut g, &[6, 2, 3], 0, least));
            let conv = Conv { group: 2, pads: vec![1, 2], ..Conv::default() };
            let y = g.add_node("conv", conv, &[x, w]);
            let y = normalised(&mut g, y, 6);
            let g = finish(g, y, &CONVOLVED);
            assert!(g.nodes.iter().any(|node| node.name == "conv"));
        }
    }

    #[test]
    fn biases_factors_and_limits_are_part_of_them() {
        let (mut g, x) = input(&[2, 4, 9]);
        let (x, w) = (signs(&mut g, x, "x", 0.5), ternary(&mut g, &[6, 4, 3], 0, 1));
        let b = weights(&mut g, "b", &[6]);
        let y = g.add_node("conv", Conv::default(), &[x, w, b]);
        let factor = weights(&mut g, "factor", &[1, 6, 1]);
        let y = g.add_node("factors", Binary { function: BinaryFunction::Mul }, &[factor, y]);
        let ends = [-1.0, 1.0].map(|end| scalar(&mut g, &format!("{end}"), end));
        let y = g.add_node("limits", Clip, &[y, ends[0], ends[1]]);
        finish(g, y, &CONVOLVED);
    }

    #[test]
    fn matrix_products_go_to_levels_first() {
        for gemm in [false, true] {
            let (mut g, x) = input(&[5, 8]);
            let x = signs(&mut g, x, "x", 0.5);
            let w = ternary(&mut g, if gemm { &[6, 8] } else { &[8, 6] }, usize::from(!gemm), 1);
            let y = match gemm {
                true => g.add_node("product", Gemm { trans_b: true, ..Gemm::default() }, &[x, w]),
                false => g.add_node("product", MatMul, &[x, w]),
            };
            let y = normalised(&mut g, y, 6);
            let rest = [("BipolarQuant", 2), ("Gemm", 1), ("DequantizeLinear", 4), ("QuantizeLinear", 3)];
            finish(g, y, &rest);
        }
    }

    #[test]
    fn what_cannot_be_computed_so_stays() {
        // Weights whose sums leave 64 bits; limits of a type that the operator refuses; a step with no half in `f32`.
        for (wide, integer_limits, step) in
            [(true, false, 0.4), (false, true, 0.4), (false, false, 1e-44), (false, false, 3e38)]
        {
            let (mut g, x) = input(&[2, 4, 9]);
            let x = signs(&mut g, x, "x", 0.5);
            let w = match wide {
                false => ternary(&mut g, &[6, 4, 3], 0, 1),
                true => {
                    let integers = Tensor::new(&[6, 4, 3], &[i32::MAX - 1; 72]).unwrap();
                    let w = g.add_constant("w", integers);
                    let grid = Grid { dtype: DType::I32, axis: 1, scales: vec![1e-9], zeros: vec![0] };
                    convert(&mut g, "wf", false, w, &grid)
                }
            };
            let mut y = g.add_node("conv", Conv::default(), &[x, w]);
            if integer_limits {
                let ends = [-1i64, 1].map(|end| g.add_constant(&format!("{end}"), Tensor::scalar(end)));
                y = g.add_node("limits", Clip, &[y, ends[0], ends[1]]);
            }
            let y = signs(&mut g, y, "y", step);
            g.outputs.push(y);
            if !integer_limits {
                crate::passes::known_contents::KnownContents.run(&mut g).unwrap();
            }
            assert_eq!(SignThresholds.run(&mut g).unwrap(), 0, "{wide} {integer_limits} {step}");
        }
    }

    #[test]
    fn what_is_no_map_of_channels_or_read_by_others_stays() {
        for read in [false, true] {
            let (mut g, x) = input(&[2, 4, 9]);
            let (x, w) = (signs(&mut g, x, "x", 0.5), ternary(&mut g, &[6, 4, 3], 0, 1));
            let y = g.add_node("conv", Conv::default(), &[x, w]);
            let bent = if read { y } else { unary(&mut g, "bent", UnaryFunction::Abs, y) };
            if read {
                g.outputs.push(y);
            }
            let mut rest =
                vec![("BipolarQuant", 2), ("Conv", 1), ("DequantizeLinear", 3), ("QuantizeLinear", 2)];
            rest.extend((!read).then_some(("Abs", 1)));
            finish(g, bent, &rest);
        }
    }
}
