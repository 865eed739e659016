//! Constant weights of few bits become integers and what they mean, however a file says them.
//!
//! QONNX writes numbers and the node that quantises them (Pappalardo et al., arXiv 2206.07527). Other files hold the
//! quantised numbers themselves: binary and ternary ones show by having one magnitude in each output channel (Rastegari et
//! al., "XNOR-Net", arXiv 1603.05279; Zhu et al., "Trained Ternary Quantization", arXiv 1612.01064, with one factor for both
//! signs). Either way the layer gets integers behind a DequantizeLinear, which every other pass knows, and which say the same
//! numbers to the last bit. A transposition of such weights is done here, because nothing else looks through it.
//!
//! A quantised constant that is none of this becomes the numbers that it means.

use super::super::Pass;
use super::super::rewrite::Rewriter;
use super::grids::{constants, dequantised, levels};
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::movement::transpose::Transpose;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::fused::ConvAdd;
use planish_graph::ops::nn::quantized::fused::Grid;
use planish_graph::ops::nn::quantized::qonnx::{BipolarQuant, Quant};
use planish_graph::reference::eval_node;
use planish_graph::{DType, Graph, Node, NodeId, Operator, OperatorExt, Result, Tensor, ValueId};
use std::sync::Arc;

/// Makes integers of constants of few bits.
pub struct FewBitConstants;

impl Pass for FewBitConstants {
    fn name(&self) -> &'static str {
        "few-bit-constants"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            let Some(node) = rewriter.node(id).cloned() else { continue };
            if node.op.is_op::<Quant>() || node.op.is_op::<BipolarQuant>() {
                quantised(&mut rewriter, id, &node)?;
            } else if let Some(transpose) = node.op.as_op::<Transpose>() {
                transposed(&mut rewriter, id, &node, transpose)?;
            } else {
                one_magnitude(&mut rewriter, id, &node)?;
            }
        }
        rewriter.finish()
    }
}

/// Node `id` becomes the numbers of these integers.
fn set(rewriter: &mut Rewriter, id: NodeId, integers: Tensor, grid: &Grid) -> Result<()> {
    let name = rewriter.node_name(id);
    let inputs = operands(rewriter, &name, integers, grid)?;
    rewriter.set(id, Arc::new(grid.dequantize()), inputs);
    Ok(())
}

/// Integers, their scale and their zero point as the constants that a DequantizeLinear reads.
pub(in super::super) fn operands(
    rewriter: &mut Rewriter,
    name: &str,
    integers: Tensor,
    grid: &Grid,
) -> Result<Vec<Option<ValueId>>> {
    let integers = rewriter.add_constant(&format!("{name}.integers"), integers);
    let [scale, zero] = constants(rewriter, name, grid)?;
    Ok(vec![Some(integers), scale, zero])
}

/// The integers of a quantised constant, or else its numbers.
fn quantised(rewriter: &mut Rewriter, id: NodeId, node: &Node) -> Result<()> {
    let inputs: Option<Vec<Option<&Tensor>>> =
        (0..node.inputs.len()).map(|index| rewriter.constant_input(node, index).map(Some)).collect();
    let (Some(inputs), Some(output)) = (inputs, node.output()) else { return Ok(()) };
    if let Some((integers, grid)) = integers(&*node.op, &inputs) {
        return set(rewriter, id, integers, &grid);
    }
    // A node that fails to evaluate is left for the run to report.
    if let Some(numbers) = eval_node(node, &inputs).ok().and_then(|mut made| made.pop()) {
        rewriter.make_constant(output, numbers);
    }
    Ok(())
}

/// What a quantiser makes of constants, as integers of a byte.
fn integers(op: &dyn Operator, inputs: &[Option<&Tensor>]) -> Option<(Tensor, Grid)> {
    let input = |index: usize| inputs.get(index).copied().flatten();
    let (x, scale) = (input(0)?, input(1)?);
    let quant = op.as_op::<Quant>();
    let zero = quant.and_then(|_| input(2));
    let (axis, count) =
        [Some(scale), zero].into_iter().flatten().try_fold((1, 1), |found, tensor| {
            match (along(tensor, x.shape())?, found) {
                ((_, 1), found) | (found, (_, 1)) => Some(found),
                (one, other) => (one == other).then_some(one),
            }
        })?;
    let each = |tensor: &Tensor| {
        let numbers = tensor.to_f32s();
        if numbers.len() == count { numbers } else { vec![numbers[0]; count] }
    };
    let (scales, zeros) = (each(scale), zero.map_or(vec![0.0; count], each));
    if !scales.iter().all(|s| s.is_finite() && *s > 0.0) || x.dtype() != DType::F32 {
        return None;
    }
    let bits = match quant {
        Some(_) => Quant::bits(input(3)?).ok()?,
        None => 1.0,
    };
    let inner: usize = x.shape()[axis.min(x.rank())..].iter().skip(1).product();
    let numbers = x.to_f32s();
    let made: Vec<f32> = numbers
        .iter()
        .enumerate()
        .map(|(i, &x)| {
            let at = i / inner.max(1) % count;
            match quant {
                Some(quant) => quant.integer(x / scales[at] + zeros[at], bits),
                None if x >= 0.0 => 1.0,
                None => -1.0,
            }
        })
        .collect();
    let fits = |dtype: DType| {
        let (low, high) = dtype.integer_range()?;
        let within = |v: &f32| v.fract() == 0.0 && (low as f32..=high as f32).contains(v);
        made.iter().chain(&zeros).all(within).then_some(dtype)
    };
    let dtype = fits(DType::I8).or_else(|| fits(DType::U8))?;
    let whole: Vec<i128> = made.iter().map(|&v| v as i128).collect();
    let zeros = zeros.iter().map(|&z| z as i32).collect();
    Some((
        Tensor::from_ints(dtype, x.shape(), &whole).ok()?,
        Grid { dtype, axis: axis as i64, scales, zeros },
    ))
}

/// The only axis of `shape` along which what broadcasts to it varies, and its extent; any axis and 1 where none does.
fn along(tensor: &Tensor, shape: &[usize]) -> Option<(usize, usize)> {
    let skip = shape.len().checked_sub(tensor.rank())?;
    if tensor.len() == 1 {
        return Some((1, 1));
    }
    let mut wide = tensor.shape().iter().enumerate().filter(|(_, extent)| **extent != 1);
    match (wide.next(), wide.next()) {
        (Some((axis, &extent)), None) if shape[axis + skip] == extent => Some((axis + skip, extent)),
        _ => None,
    }
}

/// Constant integers are transposed themselves, not the numbers that they mean.
fn transposed(rewriter: &mut Rewriter, id: NodeId, node: &Node, op: &Transpose) -> Result<()> {
    match transposed_integers(rewriter, node, op) {
        Some((integers, grid)) => set(rewriter, id, integers, &grid),
        None => Ok(()),
    }
}

fn transposed_integers(rewriter: &Rewriter, node: &Node, op: &Transpose) -> Option<(Tensor, Grid)> {
    let (integers, grid) = dequantised(rewriter, node.input(0)?)?;
    let integers = rewriter.constant(integers)?;
    // Small floats are dequantised, too.
    if !grid.dtype.is_integer() || integers.dtype() != grid.dtype {
        return None;
    }
    let rank = integers.rank() as i64;
    let axis = if grid.axis < 0 { grid.axis + rank } else { grid.axis };
    let to = op.order(integers.rank()).ok()?.iter().position(|&from| from as i64 == axis);
    let axis = if grid.scales.len() == 1 { 1 } else { to? as i64 };
    let moved = eval_node(node, &[Some(integers)]).ok()?.pop()?;
    Some((moved, Grid { axis, ..grid }))
}

/// Weights of a layer on levels whose magnitude is 0 or one number in each output channel become integers.
fn one_magnitude(rewriter: &mut Rewriter, id: NodeId, node: &Node) -> Result<()> {
    let Some((name, integers, grid)) = signed_magnitudes(rewriter, node) else { return Ok(()) };
    let Some(old) = node.input(1) else { return Ok(()) };
    let parts = operands(rewriter, &name, integers, &grid)?;
    let weights = rewriter.insert_like(
        id,
        &format!("{name}/DequantizeLinear"),
        Arc::new(grid.dequantize()),
        parts,
        old,
        DType::F32,
    );
    let mut inputs = node.inputs.clone();
    inputs[1] = Some(weights);
    rewriter.set(id, node.op.clone(), inputs);
    Ok(())
}

fn signed_magnitudes(rewriter: &Rewriter, node: &Node) -> Option<(String, Tensor, Grid)> {
    let convolves = node.op.is_op::<Conv>() || node.op.is_op::<ConvAdd>();
    let rows = node.op.as_op::<Gemm>().map(|gemm| gemm.trans_b);
    let rows = rows.or_else(|| node.op.is_op::<MatMul>().then_some(false));
    let axis = if convolves { 0 } else { usize::from(!rows?) };
    let weights = node.input(1)?;
    let tensor = rewriter.constant(weights).filter(|t| t.dtype() == DType::F32)?;
    let fits = if convolves { tensor.rank() >= 3 } else { tensor.rank() == 2 };
    if !fits || tensor.is_empty() {
        return None;
    }
    levels(rewriter, node.input(0)?)?;
    let inner: usize = tensor.shape()[axis + 1..].iter().product();
    let channels = tensor.shape()[axis];
    let numbers = tensor.as_slice::<f32>().ok()?;
    let mut scales = vec![0f32; channels];
    for (i, w) in numbers.iter().enumerate().filter(|(_, w)| **w != 0.0) {
        let scale = &mut scales[i / inner % channels];
        if !w.is_finite() || *scale != 0.0 && *scale != w.abs() {
            return None;
        }
        *scale = w.abs();
    }
    scales.iter_mut().filter(|scale| **scale == 0.0).for_each(|scale| *scale = 1.0);
    let integers: Vec<i8> = numbers.iter().map(|w| i8::from(*w > 0.0) - i8::from(*w < 0.0)).collect();
    let name = rewriter.graph().value(weights).name.clone();
    let zeros = vec![0; channels];
    let grid = Grid { dtype: DType::I8, axis: axis as i64, scales, zeros };
    Some((name, Tensor::new(tensor.shape(), &integers).ok()?, grid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_inferred, input, numbers, scalar};
    use planish_graph::ops::math::binary::{Binary, BinaryFunction};
    use planish_graph::ops::nn::quantized::qonnx::{Range, RoundingMode};
    use planish_graph::ops::nn::quantized::quantize::DequantizeLinear;

    /// `x + quantised weights`, with `inputs` behind the weights.
    fn added(op: impl Operator, inputs: &[Tensor], rest: &[(&'static str, usize)]) -> Graph {
        let (mut g, x) = input(&[4, 3, 2]);
        let mut ids = vec![g.add_constant("w", numbers(&[4, 3, 2], 7))];
        for (i, tensor) in inputs.iter().enumerate() {
            ids.push(g.add_constant(&format!("c{i}"), tensor.clone()));
        }
        let w = g.add_node("quantised", op, &ids);
        let y = g.add_node("y", Binary { function: BinaryFunction::Add }, &[x, w]);
        g.outputs.push(y);
        check_inferred(&FewBitConstants, g, rest)
    }

    fn quant(signed: bool, rounding: RoundingMode) -> Quant {
        Quant { range: Range { signed, narrow: true }, rounding, spelled_int: true }
    }

    const INTEGERS: [(&str, usize); 2] = [("Add", 1), ("DequantizeLinear", 1)];

    fn of(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::new(shape, values).unwrap()
    }

    #[test]
    fn quantised_constants_are_integers() {
        let (zero, bits) = (Tensor::scalar(0f32), Tensor::scalar(2f32));
        let scales = [
            of(&[], &[0.7]),
            of(&[4, 1, 1], &[0.7, 1.0, 0.1, 3.0]),
            of(&[3, 1], &[0.7, 1.0, 0.1]),
            of(&[2], &[0.7, 0.2]),
        ];
        for scale in scales {
            let g = added(BipolarQuant, std::slice::from_ref(&scale), &INTEGERS);
            assert_eq!(g.nodes[0].op.name(), "DequantizeLinear");
            for rounding in [RoundingMode::Round, RoundingMode::HalfUp, RoundingMode::Down] {
                let inputs = [scale.clone(), zero.clone(), bits.clone()];
                added(quant(true, rounding), &inputs, &INTEGERS);
                let inputs = [scale.clone(), of(&[4, 1, 1], &[1.0, 0.0, 2.0, 3.0]), Tensor::scalar(8i64)];
                let both = matches!(scale.shape(), [] | [4, 1, 1]);
                let rest = if both { &INTEGERS } else { &INTEGERS[..1] };
                added(quant(false, rounding), &inputs, rest);
            }
        }
    }

    #[test]
    fn other_quantised_constants_are_numbers() {
        let zero = Tensor::scalar(0f32);
        for (scale, bits) in
            [(of(&[], &[1e-5]), 16f32), (of(&[], &[-0.5]), 4.0), (of(&[4, 3, 1], &[0.5; 12]), 4.0)]
        {
            let inputs = [scale, zero.clone(), Tensor::scalar(bits)];
            added(quant(true, RoundingMode::Round), &inputs, &INTEGERS[..1]);
        }
    }

    #[test]
    fn integers_are_transposed_themselves() {
        for perm in [None, Some(vec![1, 0])] {
            for scales in [&[0.5f32][..], &[0.5, 0.25, 0.125]] {
                let (mut g, x) = input(&[5, 4]);
                let integers: Vec<i8> = (0..12).map(|i| (i * 5 % 7) as i8 - 3).collect();
                let grid =
                    Grid { dtype: DType::I8, axis: 0, scales: scales.to_vec(), zeros: vec![1; scales.len()] };
                let [scale, zero] = grid.tensors().unwrap();
                let parts = [("w", Tensor::new(&[3, 4], &integers).unwrap()), ("s", scale), ("z", zero)];
                let parts = parts.map(|(name, tensor)| g.add_constant(name, tensor));
                let w = g.add_node("numbers", grid.dequantize(), &parts);
                let w = g.add_node("turned", Transpose { perm: perm.clone() }, &[w]);
                let y = g.add_node("y", MatMul, &[x, w]);
                g.outputs.push(y);
                check_inferred(&FewBitConstants, g, &[("DequantizeLinear", 1), ("MatMul", 1)]);
            }
        }
    }

    #[test]
    fn transpositions_of_what_is_no_grid_of_integers_stay() {
        for (perm, dtype) in [(vec![1, 0], DType::F8E4M3FN), (vec![0, 0], DType::I8)] {
            let (mut g, x) = input(&[5, 4]);
            let numbers: Vec<f64> = (0..12).map(|i| f64::from(i * 5 % 7 - 3)).collect();
            let numbers = match dtype.is_float() {
                true => Tensor::from_f64s(dtype, &[3, 4], &numbers).unwrap(),
                false => Tensor::zeros(dtype, &[3, 4]).unwrap(),
            };
            let w = g.add_constant("w", numbers);
            let scale = scalar(&mut g, "scale", 0.5);
            let w = g.add_node("numbers", DequantizeLinear::default(), &[w, scale]);
            let w = g.add_node("turned", Transpose { perm: Some(perm) }, &[w]);
            let y = g.add_node("y", MatMul, &[x, w]);
            g.outputs.push(y);
            if dtype.is_float() {
                let rest = [("DequantizeLinear", 1), ("MatMul", 1), ("Transpose", 1)];
                check_inferred(&FewBitConstants, g, &rest);
            } else {
                // It is the operator's to refuse.
                assert_eq!(FewBitConstants.run(&mut g).unwrap(), 0);
            }
        }
    }

    #[test]
    fn one_magnitude_in_each_channel_is_levels() {
        let rows = [[0.5f32, -0.5, 0.0], [0.0, 0.0, 0.0], [-3.0, -3.0, 3.0]];
        for (changed, found) in [(0.5f32, true), (0.25, false), (f32::NAN, false)] {
            for transposed in [false, true] {
                let (mut g, x) = input(&[2, 3]);
                let scale = scalar(&mut g, "scale", 0.1);
                let zero = g.add_constant("zero", Tensor::scalar(9u8));
                let grid = Grid::levels(1.0, 0);
                let q = g.add_node("q", grid.quantize(), &[x, scale, zero]);
                let f = g.add_node("f", grid.dequantize(), &[q, scale, zero]);
                let mut weights: Vec<f32> = rows.concat();
                weights[1] = -changed;
                let at = |i: usize| if transposed { weights[i] } else { weights[i % 3 * 3 + i / 3] };
                let weights: Vec<f32> = (0..9).map(at).collect();
                let w = g.add_constant("w", Tensor::new(&[3, 3], &weights).unwrap());
                let gemm = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: transposed };
                let y = g.add_node("y", gemm, &[f, w]);
                g.outputs.push(y);
                let rest =
                    [("DequantizeLinear", if found { 2 } else { 1 }), ("Gemm", 1), ("QuantizeLinear", 1)];
                if changed.is_nan() {
                    assert_eq!(FewBitConstants.run(&mut g).unwrap(), 0);
                } else {
                    check_inferred(&FewBitConstants, g, &rest);
                }
            }
        }
    }
}
