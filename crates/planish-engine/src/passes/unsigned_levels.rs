//! Signed levels become unsigned ones: `i8` with a zero point `z` is the same numbers as `u8` with `z + 128`.
//!
//! Files quantise activations in either signedness. The products that machines have multiply unsigned activations by signed
//! weights, so kernels know activations as `u8` only; this is the one place where the other spelling is read. Rewritten are
//! QuantizeLinear, everything that only moves its levels or compares them, and the DequantizeLinear behind. What the caller
//! of the graph gives or gets keeps its type.

use super::Pass;
use super::quantised::moves_levels;
use super::rewrite::Rewriter;
use planish_graph::ops::nn::pool::MaxPool;
use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, QuantizeLinear};
use planish_graph::{DType, Graph, NodeId, OperatorExt, Result, Tensor, ValueId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Makes signed activations unsigned.
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
            let zeros: Option<Vec<(NodeId, Tensor)>> =
                region.ends.iter().map(|&end| Some((end, raised(&rewriter, end)?))).collect();
            let Some(zeros) = zeros else { continue };
            for (end, zero) in zeros {
                let Some(node) = rewriter.node(end) else { continue };
                let (mut inputs, name) = (node.inputs.clone(), format!("{}.zero", node.name));
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
    values: BTreeSet<ValueId>,
    ends: BTreeSet<NodeId>,
}

impl Region {
    /// The region of a value; `None` where it is no `i8` or ends in anything but conversions.
    fn around(rewriter: &Rewriter, value: ValueId) -> Option<Region> {
        let mut region = Region { values: BTreeSet::new(), ends: BTreeSet::new() };
        let mut open = vec![value];
        while let Some(v) = open.pop() {
            if !region.values.insert(v) {
                continue;
            }
            let other = rewriter.dtype(v).is_some_and(|d| d != DType::I8);
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

/// The zero point of a conversion of signed levels as that of unsigned ones.
fn raised(rewriter: &Rewriter, id: NodeId) -> Option<Tensor> {
    let node = rewriter.node(id)?;
    let given = match node.input(2) {
        Some(zero) => rewriter.constant(zero)?,
        // Without one, a quantisation says its type, and the zero point is 0 for every scale.
        None => {
            let signed =
                node.op.as_op::<QuantizeLinear>().is_none_or(|op| op.output_dtype == Some(DType::I8));
            let shape = rewriter.constant(node.input(1)?)?.shape().to_vec();
            return signed.then(|| filled(&shape, 128))?;
        }
    };
    let raise = |&zero: &i8| (i16::from(zero) + 128) as u8;
    let zeros: Vec<u8> = given.as_slice::<i8>().ok()?.iter().map(raise).collect();
    Tensor::new(given.shape(), &zeros).ok()
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
