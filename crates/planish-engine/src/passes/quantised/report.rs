//! Which conversions a quantised network is left with, and why: each costs a pass over a tensor, and stands where a layer
//! is computed in numbers although the network says that it could be in integers.

use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, QuantizeLinear};
use planish_graph::{Graph, Node, OperatorExt, ValueId};

/// A conversion that no operator took in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// The node's name.
    pub node: String,
    /// QuantizeLinear or DequantizeLinear.
    pub operator: &'static str,
    /// What stands on its other side.
    pub reason: String,
}

/// The conversions in `graph`, in order.
pub fn conversions(graph: &Graph) -> Vec<Conversion> {
    let of = |node: &Node| {
        let reason = reason(graph, node)?;
        Some(Conversion { node: node.name.clone(), operator: node.op.name(), reason })
    };
    graph.nodes.iter().filter_map(of).collect()
}

/// Why a conversion stays; `None` where a node is none.
pub(crate) fn reason(graph: &Graph, node: &Node) -> Option<String> {
    if node.op.is_op::<QuantizeLinear>() {
        let x = node.input(0)?;
        let maker = graph.nodes.iter().find(|other| other.outputs.contains(&Some(x)));
        return Some(match maker {
            _ if graph.inputs.contains(&x) => "the network is given numbers".to_string(),
            Some(maker) => format!("{} computes in numbers", maker.op.name()),
            None => "it quantises a constant".to_string(),
        });
    }
    node.op.as_op::<DequantizeLinear>()?;
    let y = node.output()?;
    let mut readers: Vec<&str> = readers(graph, y).map(|reader| reader.op.name()).collect();
    readers.dedup();
    Some(match &readers[..] {
        [] => "the network gives numbers".to_string(),
        [one] => format!("{one} computes in numbers"),
        _ => format!("{} compute in numbers", readers.join(" and ")),
    })
}

fn readers(graph: &Graph, value: ValueId) -> impl Iterator<Item = &Node> {
    graph.nodes.iter().filter(move |node| node.inputs.contains(&Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{input, scalar, unary};
    use planish_graph::ops::math::unary::UnaryFunction;

    #[test]
    fn says_what_stands_on_the_other_side() {
        let (mut g, x) = input(&[1, 3]);
        let scale = scalar(&mut g, "scale", 0.5);
        let q = g.add_node("q", QuantizeLinear::default(), &[x, scale]);
        let f = g.add_node("f", DequantizeLinear::default(), &[q, scale]);
        let y = unary(&mut g, "y", UnaryFunction::Exp, f);
        let r = g.add_node("r", QuantizeLinear::default(), &[y, scale]);
        let z = g.add_node("z", DequantizeLinear::default(), &[r, scale]);
        g.outputs.push(z);
        let reasons: Vec<String> = conversions(&g).into_iter().map(|c| c.reason).collect();
        let wanted = [
            "the network is given numbers",
            "Exp computes in numbers",
            "Exp computes in numbers",
            "the network gives numbers",
        ];
        assert_eq!(reasons, wanted);
    }
}
