//! QONNX's quantisers of activations become conversions to levels and back, which all other passes know.
//!
//! QONNX (Pappalardo et al., arXiv 2206.07527) says in one node what QuantizeLinear and DequantizeLinear say in two: `Quant`
//! any number of bits, `BipolarQuant` signs. Up to eight bits are levels of a byte, the lowest of them 0, kept from the
//! others by limits on the numbers before. Signs are the levels 0 and 2 around the zero point 1 (see
//! `planish_cpu::conv::InputBits`), with the node that decides about them left before the conversion.
//!
//! Where the zero point is 0 and integers are rounded to nearest, that is the same to the last bit: both divide by the scale in
//! `f32`. QuantizeLinear adds zero points behind its rounding, QONNX before: there a tie may be between other integers, and
//! the sum is rounded once more. So other zero points, and rounding up or down, are written out as arithmetic in front of
//! levels of step 1. What no levels can say stays: scales for each channel, the other roundings, more bits. Only of NaN
//! nothing is kept, as in all quantised networks, and subnormal numbers are 0 to kernels.

use super::super::Pass;
use super::super::rewrite::Rewriter;
use super::grids::constants;
use super::limits::limited;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::nn::quantized::fused::Grid;
use planish_graph::ops::nn::quantized::qonnx::{BipolarQuant, Quant, RoundingMode};
use planish_graph::ops::nn::quantized::quantize::QuantizeLinear;
use planish_graph::{DType, Graph, NodeId, Operator, OperatorExt, Result, Tensor, ValueId};
use std::sync::Arc;

/// The largest scale of a `Quant` of one bit, which is the sign of `x / scale`, that is spelled the sign of `x`: no number
/// that is not subnormal becomes 0 when it is divided by no more.
const MOST_SIGN_SCALE: f32 = (1 << 23) as f32;

/// Spells the quantisers of activations as conversions.
pub struct QonnxSpelling;

impl Pass for QonnxSpelling {
    fn name(&self) -> &'static str {
        "qonnx-spelling"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            let Some(node) = rewriter.node(id) else { continue };
            // Of constants, `constants` makes integers.
            let made_at_run_time = node.input(0).filter(|&x| rewriter.constant(x).is_none());
            let (Some(x), Some(y)) = (made_at_run_time, node.output()) else { continue };
            if node.op.is_op::<BipolarQuant>() {
                if !is_spelled(&rewriter, y) {
                    bipolar(&mut rewriter, id, x)?;
                }
            } else if let Some(&quant) = node.op.as_op::<Quant>() {
                spell(&mut rewriter, id, x, quant)?;
            }
        }
        rewriter.finish()
    }
}

/// Whether nothing but a quantisation reads signs.
fn is_spelled(rewriter: &Rewriter, signs: ValueId) -> bool {
    rewriter.sole_reader(signs).is_some_and(|id| rewriter.node_of::<QuantizeLinear>(id).is_some())
}

/// The number in an input that is one constant number.
fn single(rewriter: &Rewriter, id: NodeId, index: usize) -> Option<f32> {
    let tensor = rewriter.constant_input(rewriter.node(id)?, index)?;
    (tensor.len() == 1 && tensor.dtype() == DType::F32).then(|| tensor.to_f32s()[0])
}

/// The scale of a quantiser, where there is one for all and it means something.
fn scale(rewriter: &Rewriter, id: NodeId) -> Option<f32> {
    single(rewriter, id, 1).filter(|scale| scale.is_finite() && *scale > 0.0)
}

/// Signs times a scale become levels; other scales than one positive number are multiplied with behind them.
fn bipolar(rewriter: &mut Rewriter, id: NodeId, x: ValueId) -> Result<()> {
    match scale(rewriter, id) {
        Some(scale) => signs(rewriter, id, x, scale),
        None => {
            let Some(given) = rewriter.node(id).and_then(|node| node.input(1)) else { return Ok(()) };
            let levels = sign_levels(rewriter, id, x, 1.0)?;
            let numbers = before(rewriter, id, Arc::new(Grid::levels(1.0, 1).dequantize()), levels, x);
            rewriter.set(id, multiply(), vec![Some(numbers), Some(given)]);
            Ok(())
        }
    }
}

fn multiply() -> Arc<dyn Operator> {
    Arc::new(Binary { function: BinaryFunction::Mul })
}

/// Node `id` becomes the numbers of the levels of signs of `x`.
fn signs(rewriter: &mut Rewriter, id: NodeId, x: ValueId, scale: f32) -> Result<()> {
    let levels = sign_levels(rewriter, id, x, scale)?;
    rewriter.set(id, Arc::new(Grid::levels(scale, 1).dequantize()), levels);
    Ok(())
}

/// What a DequantizeLinear reads to give `scale` where `x` is at least 0, else `-scale`.
fn sign_levels(rewriter: &mut Rewriter, id: NodeId, x: ValueId, scale: f32) -> Result<Vec<Option<ValueId>>> {
    let name = rewriter.node_name(id);
    let step = rewriter.add_constant(&format!("{name}.scale"), Tensor::scalar(scale));
    let signs = before(rewriter, id, Arc::new(BipolarQuant), vec![Some(x), Some(step)], x);
    levels(rewriter, id, signs, &Grid::levels(scale, 1))
}

/// The levels of numbers, with the scale and the zero point that a conversion back takes.
fn levels(rewriter: &mut Rewriter, id: NodeId, x: ValueId, grid: &Grid) -> Result<Vec<Option<ValueId>>> {
    let name = rewriter.node_name(id);
    let [scale, zero] = constants(rewriter, &name, grid)?;
    let name = format!("{name}/QuantizeLinear");
    let op = Arc::new(grid.quantize());
    let levels = rewriter.insert_like(id, &name, op, vec![Some(x), scale, zero], x, DType::U8);
    Ok(vec![Some(levels), scale, zero])
}

/// A node on numbers before `id`, of the shape of `x`.
fn before(
    rewriter: &mut Rewriter,
    id: NodeId,
    op: Arc<dyn Operator>,
    inputs: Vec<Option<ValueId>>,
    x: ValueId,
) -> ValueId {
    let name = format!("{}/{}", rewriter.node_name(id), op.name());
    rewriter.insert_like(id, &name, op, inputs, x, DType::F32)
}

/// A `Quant` of few enough bits becomes conversions, where they can say it.
fn spell(rewriter: &mut Rewriter, id: NodeId, x: ValueId, quant: Quant) -> Result<()> {
    let (Some(scale), Some(zero)) = (scale(rewriter, id), single(rewriter, id, 2)) else { return Ok(()) };
    let bits = rewriter.node(id).and_then(|node| rewriter.constant_input(node, 3));
    // Others are the operator's to refuse.
    let Some(bits) = bits.and_then(|bits| Quant::bits(bits).ok()).filter(|&bits| bits <= 8.0) else {
        return Ok(());
    };
    if quant.is_bipolar(bits) {
        let same = zero == 0.0 && scale <= MOST_SIGN_SCALE;
        return if same { signs(rewriter, id, x, scale) } else { Ok(()) };
    }
    let (low, high) = quant.range.bounds(bits);
    // The lowest integer becomes level 0; what lies on the zero point means 0.
    let back = zero - low;
    if back.fract() != 0.0 || !(0.0..=255.0).contains(&back) || high <= low {
        return Ok(());
    }
    let meaning = Grid::levels(scale, back as u8);
    let direct = zero == 0.0 && quant.rounding == RoundingMode::Round;
    let round = match quant.rounding {
        RoundingMode::Round => None,
        RoundingMode::Floor => Some(UnaryFunction::Floor),
        RoundingMode::Ceil => Some(UnaryFunction::Ceil),
        _ => return Ok(()),
    };
    let (mut given, mut step) = (x, scale);
    if !direct {
        step = 1.0;
        let mut arithmetic = |rewriter: &mut Rewriter, function, number: f32| {
            let name = format!("{}.constant", rewriter.node_name(id));
            let number = rewriter.add_constant(&name, Tensor::scalar(number));
            given = before(rewriter, id, Arc::new(Binary { function }), vec![Some(given), Some(number)], x);
        };
        arithmetic(rewriter, BinaryFunction::Div, scale);
        if zero != 0.0 {
            arithmetic(rewriter, BinaryFunction::Add, zero);
        }
        if let Some(function) = round {
            given = before(rewriter, id, Arc::new(Unary { function }), vec![Some(given)], x);
        }
    }
    if high - low < 255.0 {
        given = limited(rewriter, id, given, [low * step, high * step]);
    }
    let mut inputs = levels(rewriter, id, given, &Grid::levels(step, (-low) as u8))?;
    let name = rewriter.node_name(id);
    let [scale, zero] = constants(rewriter, &name, &meaning)?;
    (inputs[1], inputs[2]) = (scale, zero);
    rewriter.set(id, Arc::new(meaning.dequantize()), inputs);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_inferred, input, scalar};
    use planish_graph::ops::nn::quantized::qonnx::Range;

    /// A `Quant` of the input "x", which lies between -2 and 2; after the pass, `rest` is left.
    fn quantised(
        (signed, narrow, rounding): (bool, bool, RoundingMode),
        [scale, zero, bits]: [f32; 3],
        rest: &[(&'static str, usize)],
    ) -> Graph {
        let (mut g, x) = input(&[3, 40]);
        let [scale, zero, bits] =
            [("s", scale), ("z", zero), ("b", bits)].map(|(name, number)| scalar(&mut g, name, number));
        let op = Quant { range: Range { signed, narrow }, rounding, spelled_int: false };
        let y = g.add_node("y", op, &[x, scale, zero, bits]);
        g.outputs.push(y);
        check_inferred(&QonnxSpelling, g, rest)
    }

    const DIRECT: [(&str, usize); 3] = [("Clip", 1), ("DequantizeLinear", 1), ("QuantizeLinear", 1)];

    #[test]
    fn integers_are_levels() {
        for signed in [false, true] {
            for narrow in [false, true] {
                for bits in [1.0, 2.0, 3.0, 4.0, 7.0, 8.0] {
                    let kind = (signed, narrow, RoundingMode::Round);
                    if bits == 1.0 {
                        // Bipolar, or of one integer only.
                        if signed || narrow {
                            continue;
                        }
                    }
                    let whole = bits == 8.0 && !narrow;
                    // A scale of a power of two makes ties of numbers.
                    for scale in [0.25, 0.1] {
                        quantised(kind, [scale, 0.0, bits], if whole { &DIRECT[1..] } else { &DIRECT });
                    }
                }
            }
        }
    }

    #[test]
    fn other_zero_points_and_roundings_are_written_out() {
        use RoundingMode::{Ceil, Floor, Round};
        for (rounding, zero) in [(Round, 1.0), (Round, 2.0), (Floor, 0.0), (Ceil, 1.0), (Floor, -1.0)] {
            let arithmetic = match (rounding, zero) {
                (Round, _) => vec![("Div", 1), ("Add", 1)],
                (Floor, 0.0) => vec![("Div", 1), ("Floor", 1)],
                (Floor, _) => vec![("Div", 1), ("Add", 1), ("Floor", 1)],
                _ => vec![("Div", 1), ("Add", 1), ("Ceil", 1)],
            };
            let rest: Vec<_> = arithmetic.into_iter().chain(DIRECT).collect();
            for scale in [0.25, 0.1] {
                quantised((true, false, rounding), [scale, zero, 4.0], &rest);
            }
        }
    }

    #[test]
    fn what_levels_cannot_say_stays() {
        use RoundingMode::{HalfUp, Round};
        for (rounding, numbers) in [
            (HalfUp, [0.25, 0.0, 4.0]),
            (Round, [0.25, 0.5, 4.0]),
            (Round, [0.25, 0.0, 9.0]),
            (Round, [-0.25, 0.0, 4.0]),
            (Round, [0.25, 300.0, 4.0]),
            (Round, [1e8, 0.0, 1.0]),
        ] {
            quantised((true, false, rounding), numbers, &[("Quant", 1)]);
        }
    }

    const SIGNS: [(&str, usize); 3] = [("BipolarQuant", 1), ("DequantizeLinear", 1), ("QuantizeLinear", 1)];

    #[test]
    fn signs_are_two_levels() {
        quantised((true, false, RoundingMode::Round), [0.3, 0.0, 1.0], &SIGNS);
        let (mut g, x) = input(&[2, 9]);
        let scale = scalar(&mut g, "scale", 0.7);
        // Of 0, too, which is positive.
        let x = g.add_node("zero", Binary { function: BinaryFunction::Sub }, &[x, x]);
        let y = g.add_node("y", BipolarQuant, &[x, scale]);
        g.outputs.push(y);
        let g = check_inferred(&QonnxSpelling, g, &[&SIGNS[..], &[("Sub", 1)]].concat());
        assert_eq!(g.nodes.last().map(|node| node.name.as_str()), Some("y"));
    }

    #[test]
    fn scales_of_channels_are_multiplied_with_behind_signs() {
        for scale in [&[0.5f32, -2.0, 1.0][..], &[-1.5]] {
            let (mut g, x) = input(&[2, 3, 4]);
            let scale = g.add_constant("scale", Tensor::new(&[1, scale.len(), 1], scale).unwrap());
            let y = g.add_node("y", BipolarQuant, &[x, scale]);
            g.outputs.push(y);
            check_inferred(&QonnxSpelling, g, &[&SIGNS[..], &[("Mul", 1)]].concat());
        }
    }
}
