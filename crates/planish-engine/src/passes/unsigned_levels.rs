//! Levels of every type become `u8`: `i8` with a zero point `z` is the same numbers as `u8` with `z + 128`, `i4` as `u8` with
//! `z + 8`, and `u4` as `u8` with `z`, where those of four bits end at 15; of two bits, `i2` as `u8` with `z + 2`, which end at 3.
//!
//! Files quantise activations in either signedness, and in four or two bits. The products that machines have multiply unsigned
//! activations by signed weights, so kernels know activations as `u8` only; this is the one place where the other spellings
//! are read. Rewritten are QuantizeLinear, everything that only moves its levels or compares them, and the DequantizeLinear
//! behind. What the caller of the graph gives or gets keeps its type.
//!
//! That levels end at 15 or 3 is said by limits on the numbers before they are quantised, which go where all activations go: into
//! the operator before. Limits that stood there are part of them.

use super::Pass;
use super::quantised::limits::limited;
use super::quantised::moves_levels;
use super::rewrite::Rewriter;
use planish_graph::ops::nn::pool::MaxPool;
use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, QuantizeLinear};
use planish_graph::{DType, Graph, NodeId, OperatorExt, Result, Tensor, ValueId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Makes levels of every type unsigned ones of 8 bits.
pub struct UnsignedLevels;

impl Pass for UnsignedLevels {
    fn name(&self) -> &'static str {
        "unsigned-levels"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        let mut seen: BTreeSet<ValueId> = BTreeSet::new();
        for id in rewriter.node_ids() {
            let Some(made) = rewriter.node_of::<QuantizeLinear>(id).and_then(|(node, _)| node.output())
            else {
                continue;
            };
            if seen.contains(&made) {
                continue;
            }
            let Some(region) = Region::around(&rewriter, made) else { continue };
            seen.extend(&region.values);
            let ends: Option<Vec<(NodeId, End)>> =
                region.ends.iter().map(|&end| Some((end, End::of(&rewriter, end, region.dtype)?))).collect();
            let Some(ends) = ends else { continue };
            for (end, End { zero, limits }) in ends {
                let Some(node) = rewriter.node(end) else { continue };
                let (mut inputs, name) = (node.inputs.clone(), format!("{}.zero", node.name));
                if let (Some(limits), Some(x)) = (limits, inputs[0]) {
                    inputs[0] = Some(limited(&mut rewriter, end, x, limits));
                }
                let Some(node) = rewriter.node(end) else { continue };
                let mut op = node.op.clone();
                if let Some(quantize) = op.as_op::<QuantizeLinear>() {
                    op = Arc::new(QuantizeLinear { output_dtype: None, ..*quantize });
                }
                inputs.resize(3, None);
                inputs[2] = Some(rewriter.add_constant(&name, zero));
                rewriter.set(end, op, inputs);
            }
            for v in region.values {
                rewriter.set_dtype(v, DType::U8);
            }
        }
        rewriter.finish()
    }
}

/// Values of signed levels that must change together, and the conversions at their ends.
struct Region {
    /// Their type.
    dtype: DType,
    values: BTreeSet<ValueId>,
    ends: BTreeSet<NodeId>,
}

impl Region {
    /// The region of a value; `None` where it is of none of the types, or ends in anything but conversions.
    fn around(rewriter: &Rewriter, value: ValueId) -> Option<Region> {
        let dtype = rewriter.dtype(value)?;
        raise(dtype)?;
        let mut region = Region { dtype, values: BTreeSet::new(), ends: BTreeSet::new() };
        let mut open = vec![value];
        while let Some(v) = open.pop() {
            if !region.values.insert(v) {
                continue;
            }
            let other = rewriter.dtype(v) != Some(dtype);
            if other || rewriter.is_output(v) || rewriter.constant(v).is_some() {
                return None;
            }
            let maker = rewriter.maker(v)?;
            for id in rewriter.readers(v).chain([maker]) {
                let node = rewriter.node(id)?;
                let converts = node.op.is_op::<QuantizeLinear>() || node.op.is_op::<DequantizeLinear>();
                let indices = node.op.is_op::<MaxPool>() && node.outputs.len() > 1;
                if converts {
                    region.ends.insert(id);
                } else {
                    let levels = moves_levels(&*node.op).filter(|_| !indices)?;
                    open.extend(
                        node.inputs.iter().take(levels).flatten().chain(node.outputs.iter().flatten()),
                    );
                }
            }
        }
        Some(region)
    }
}

/// How much higher levels of a type are as unsigned ones of 8 bits; `None` where they are no others.
fn raise(dtype: DType) -> Option<i16> {
    match dtype {
        DType::I8 => Some(128),
        DType::I4 => Some(8),
        DType::I2 => Some(2),
        DType::U4 | DType::U2 => Some(0),
        _ => None,
    }
}

/// What becomes of a conversion at the end of a region.
struct End {
    /// Its zero point.
    zero: Tensor,
    /// Between what the numbers that it quantises must stay, where their levels do not fill a byte.
    limits: Option<[f32; 2]>,
}

impl End {
    fn of(rewriter: &Rewriter, id: NodeId, dtype: DType) -> Option<End> {
        let node = rewriter.node(id)?;
        let scales = rewriter.constant(node.input(1)?)?;
        let quantises = node.op.as_op::<QuantizeLinear>();
        let higher = raise(dtype)?;
        let zero = match node.input(2) {
            Some(zero) => {
                let given = rewriter.constant(zero)?;
                let zeros: Option<Vec<u8>> =
                    given.to_i64s().ok()?.iter().map(|&z| u8::try_from(z + i64::from(higher)).ok()).collect();
                Tensor::new(given.shape(), &zeros?).ok()?
            }
            // Without one, a quantisation says its type, and the zero point is 0 for every scale.
            None => {
                quantises.is_none_or(|op| op.output_dtype == Some(dtype)).then_some(())?;
                filled(scales.shape(), u8::try_from(higher).ok()?)?
            }
        };
        let limits = match quantises {
            Some(op) if dtype.bits() < 8 => {
                let most = (1u8 << dtype.bits()) - 1;
                let plain = op.precision.is_none_or(|p| p == DType::F32) && scales.dtype() == DType::F32;
                let (&[scale], &[zero]) = (&scales.to_f32s()[..], zero.as_slice::<u8>().ok()?) else {
                    return None;
                };
                // Others are the conversion's to refuse.
                let usable = plain && scale.is_finite() && scale > 0.0 && zero <= most;
                usable.then_some(())?;
                Some([0, most].map(|end| f32::from(i16::from(end) - i16::from(zero)) * scale))
            }
            _ => None,
        };
        Some(End { zero, limits })
    }
}

fn filled(shape: &[usize], level: u8) -> Option<Tensor> {
    Tensor::new(shape, &vec![level; shape.iter().product()]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check_inferred, input, scalar};
    use planish_graph::ops::movement::flatten::Flatten;
    use planish_graph::{Node, Value};

    /// A conversion with a scale and a signed zero point.
    fn convert(g: &mut Graph, name: &str, to_levels: bool, x: ValueId, zero: i8) -> ValueId {
        let scale = scalar(g, &format!("{name}.s"), 0.05);
        let zero = g.add_constant(&format!("{name}.z"), Tensor::scalar(zero));
        match to_levels {
            true => g.add_node(name, QuantizeLinear::default(), &[x, scale, zero]),
            false => g.add_node(name, DequantizeLinear::default(), &[x, scale, zero]),
        }
    }

    #[test]
    fn levels_are_raised_with_what_moves_them() {
        let (mut g, x) = input(&[1, 2, 5]);
        let q = convert(&mut g, "q", true, x, -7);
        let flat = g.add_node("flat", Flatten { axis: 1 }, &[q]);
        let y = convert(&mut g, "y", false, flat, -7);
        let z = convert(&mut g, "z", false, q, -7);
        g.outputs = vec![y, z];
        let g = check_inferred(
            &UnsignedLevels,
            g,
            &[("DequantizeLinear", 2), ("Flatten", 1), ("QuantizeLinear", 1)],
        );
        let types: Vec<_> = g.values.iter().filter(|v| v.dtype == Some(DType::I8)).map(|v| &v.name).collect();
        assert!(types.is_empty(), "{types:?}");
        let zero = g.constant(g.nodes[0].inputs[2].unwrap()).unwrap();
        assert_eq!(zero.as_slice::<u8>().unwrap(), [121]);
    }

    #[test]
    fn levels_of_few_bits_end_where_their_type_does() {
        use planish_graph::ops::math::unary::UnaryFunction;
        for (dtype, zero, raised) in
            [(DType::U4, 3, 3), (DType::I4, -6, 2), (DType::U2, 1, 1), (DType::I2, -1, 1)]
        {
            for relu in [false, true] {
                let (mut g, x) = input(&[1, 2, 5]);
                let x = if relu {
                    crate::passes::testing::unary(&mut g, "relu", UnaryFunction::Relu, x)
                } else {
                    x
                };
                let scale = scalar(&mut g, "scale", 0.13);
                let zero = g.add_constant("zero", Tensor::from_ints(dtype, &[], &[zero]).unwrap());
                let q = g.add_node("q", QuantizeLinear::default(), &[x, scale, zero]);
                let flat = g.add_node("flat", Flatten { axis: 1 }, &[q]);
                let y = g.add_node("y", DequantizeLinear::default(), &[flat, scale, zero]);
                g.outputs.push(y);
                // A limit that stood before is part of the new one.
                let rest = [("Clip", 1), ("DequantizeLinear", 1), ("Flatten", 1), ("QuantizeLinear", 1)];
                let g = check_inferred(&UnsignedLevels, g, &rest);
                let q = g.nodes.iter().find(|node| node.op.is_op::<QuantizeLinear>()).unwrap();
                assert_eq!(g.constant(q.inputs[2].unwrap()).unwrap().as_slice::<u8>().unwrap(), [raised]);
            }
        }
    }

    #[test]
    fn what_the_caller_gets_stays_signed() {
        let (mut g, x) = input(&[1, 2, 5]);
        let q = convert(&mut g, "q", true, x, -7);
        let y = convert(&mut g, "y", false, q, -7);
        g.outputs = vec![y, q];
        check_inferred(&UnsignedLevels, g, &[("DequantizeLinear", 1), ("QuantizeLinear", 1)]);
    }

    #[test]
    fn types_without_a_zero_point() {
        let (mut g, x) = input(&[1, 2, 5]);
        let scale = scalar(&mut g, "scale", 0.05);
        let op = QuantizeLinear { output_dtype: Some(DType::I8), ..QuantizeLinear::default() };
        let q = g.add_node("q", op, &[x, scale]);
        let y = g.add_value(Value { name: "y".into(), ..Value::default() });
        let inputs = vec![Some(q), Some(scale)];
        g.nodes.push(Node {
            name: "y".into(),
            op: Arc::new(DequantizeLinear::default()),
            inputs,
            outputs: vec![Some(y)],
        });
        g.outputs.push(y);
        check_inferred(&UnsignedLevels, g, &[("DequantizeLinear", 1), ("QuantizeLinear", 1)]);
    }
}
