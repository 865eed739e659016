//! Activation functions that files spell out become one operator each.
//!
//! Exporters write SiLU as `x · sigmoid(x)`, HardSwish as `x · clip(x + 3, 0, 6) / 6`, GELU as five nodes, in any
//! association. All of these are products: the pass gathers the factors of a product (scalars multiplied up, at most two
//! others) and asks which function they are. Bounds (`Clip`, `Relu`, and each behind the other) are merged too. Nothing is
//! gathered through a value that somebody else reads.

use super::Pass;
use super::pattern::{argument, close, inner, operands, plus_scalar, times_scalar};
use super::rewrite::Rewriter;
use planish_graph::ops::math::activation::{Activation, ActivationFunction};
use planish_graph::ops::math::binary::BinaryFunction;
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::{DType, Graph, Node, NodeId, Operator, OperatorExt, Result, Tensor, ValueId};
use std::f64::consts::FRAC_1_SQRT_2;
use std::sync::Arc;

/// Recognises activation functions.
pub struct Activations;

impl Pass for Activations {
    fn name(&self) -> &'static str {
        "activations"
    }
    fn run(&self, graph: &mut Graph) -> Result<usize> {
        let mut rewriter = Rewriter::new(graph);
        for id in rewriter.node_ids() {
            if let Some((op, x)) = product(&rewriter, id) {
                rewriter.set(id, op, vec![Some(x)]);
            } else if let Some((low, high, x)) = merged_bounds(&rewriter, id) {
                bound(&mut rewriter, id, low, high, x);
            }
        }
        rewriter.finish()
    }
}

/// The activation that the product at `id` is, and its argument.
fn product(rewriter: &Rewriter, id: NodeId) -> Option<(Arc<dyn Operator>, ValueId)> {
    let mut factors = Vec::new();
    let mut scale = 1.0;
    gather(rewriter, id, &mut scale, &mut factors, 4)?;
    let unary = |function| -> Arc<dyn Operator> { Arc::new(Unary { function }) };
    let activation = |function| -> Arc<dyn Operator> { Arc::new(Activation { function }) };
    if let &[gate] = &factors[..] {
        let x = shifted_clip(rewriter, gate).filter(|_| close(scale, 1.0 / 6.0))?;
        return Some((activation(ActivationFunction::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }), x));
    }
    let &[a, b] = &factors[..] else { return None };
    [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
        let is_x = |found: Option<ValueId>| found == Some(x);
        if close(scale, 1.0) {
            if let Some(inside) = argument(rewriter, gate, unary_is(UnaryFunction::Sigmoid)) {
                let (inside, alpha) = match inside == x {
                    true => (x, 1.0),
                    false => times_scalar(rewriter, rewriter.maker(inside)?)?,
                };
                let swish = ActivationFunction::Swish { alpha: alpha as f32 };
                return is_x(Some(inside)).then(|| (activation(swish), x));
            }
            if is_x(argument::<Activation>(rewriter, gate, |op| is_hard_gate(op.function))) {
                return Some((unary(UnaryFunction::HardSwish), x));
            }
            let softplus = argument(rewriter, gate, unary_is(UnaryFunction::Tanh))
                .and_then(|inside| argument(rewriter, inside, unary_is(UnaryFunction::Softplus)));
            return is_x(softplus).then(|| (unary(UnaryFunction::Mish), x));
        }
        if close(scale, 1.0 / 6.0) && is_x(shifted_clip(rewriter, gate)) {
            return Some((unary(UnaryFunction::HardSwish), x));
        }
        let gelu = ActivationFunction::Gelu { tanh: false };
        (close(scale, 0.5) && is_x(one_plus_erf(rewriter, gate))).then(|| (activation(gelu), x))
    })
}

fn unary_is(function: UnaryFunction) -> impl Fn(&Unary) -> bool {
    move |op| op.function == function
}

fn is_hard_gate(function: ActivationFunction) -> bool {
    matches!(function, ActivationFunction::HardSigmoid { alpha, beta }
        if close(f64::from(alpha), 1.0 / 6.0) && close(f64::from(beta), 0.5))
}

/// Gathers the factors of the product at `id`: scalars into `scale`, others into `factors`; `None` where there are more
/// than two, or `id` is no product. Looks through at most `depth` products, one behind the other.
fn gather(
    rewriter: &Rewriter,
    id: NodeId,
    scale: &mut f64,
    factors: &mut Vec<ValueId>,
    depth: usize,
) -> Option<()> {
    let parts = match times_scalar(rewriter, id) {
        Some((x, c)) => {
            *scale *= c;
            vec![x]
        }
        None => {
            let (a, b) = operands(rewriter, id, BinaryFunction::Mul)?;
            vec![a, b]
        }
    };
    for value in parts {
        let deeper = rewriter.maker(value).filter(|_| depth > 1 && rewriter.use_count(value) == 1);
        let (scale_before, count_before) = (*scale, factors.len());
        if deeper.and_then(|id| gather(rewriter, id, scale, factors, depth - 1)).is_none() {
            *scale = scale_before;
            factors.truncate(count_before);
            if factors.len() == 2 {
                return None;
            }
            factors.push(value);
        }
    }
    Some(())
}

/// `x` where `value` is `clip(x + 3, 0, 6)`.
fn shifted_clip(rewriter: &Rewriter, value: ValueId) -> Option<ValueId> {
    let (id, _) = inner::<Clip>(rewriter, value)?;
    let (low, high, inside) = bounds(rewriter, id)?;
    if low != 0.0 || high != 6.0 || rewriter.use_count(inside) != 1 {
        return None;
    }
    let (x, offset) = plus_scalar(rewriter, rewriter.maker(inside)?)?;
    (offset == 3.0).then_some(x)
}

/// `x` where `value` is `1 + erf(x / √2)`.
fn one_plus_erf(rewriter: &Rewriter, value: ValueId) -> Option<ValueId> {
    let sum = rewriter.maker(value).filter(|_| rewriter.use_count(value) == 1)?;
    let (erf, one) = plus_scalar(rewriter, sum)?;
    let inside = argument(rewriter, erf, unary_is(UnaryFunction::Erf)).filter(|_| one == 1.0)?;
    let (x, factor) = times_scalar(rewriter, rewriter.maker(inside)?)?;
    (close(factor, FRAC_1_SQRT_2) && rewriter.use_count(inside) == 1).then_some(x)
}

/// What a `Relu` or a `Clip` with constant bounds bounds its argument to, and the argument.
fn bounds(rewriter: &Rewriter, id: NodeId) -> Option<(f64, f64, ValueId)> {
    let node = rewriter.node(id)?;
    let x = node.input(0)?;
    if node.op.as_op::<Unary>().is_some_and(|op| op.function == UnaryFunction::Relu) {
        return Some((0.0, f64::INFINITY, x));
    }
    node.op.as_op::<Clip>()?;
    let bound = |node: &Node, index, open| match node.input(index) {
        None => Some(open),
        Some(value) => rewriter.constant(value).filter(|t| t.len() == 1).map(|t| t.to_f64s()[0]),
    };
    let (low, high) = (bound(node, 1, f64::NEG_INFINITY)?, bound(node, 2, f64::INFINITY)?);
    (low <= high).then_some((low, high, x))
}

/// The bounds of node `id` and of the node before it together, where they are one; and what is bounded. Also a `Clip`
/// that says what a `Relu` says.
fn merged_bounds(rewriter: &Rewriter, id: NodeId) -> Option<(f64, f64, ValueId)> {
    let (low, high, x) = bounds(rewriter, id)?;
    let float = rewriter.dtype(x).is_some_and(DType::is_float);
    let before = rewriter.maker(x).filter(|_| rewriter.use_count(x) == 1);
    if let Some((first_low, first_high, inside)) =
        before.and_then(|id| bounds(rewriter, id)).filter(|_| float)
    {
        // Behind clip(a, b), clip(c, d) is clip(clip(a; c, d), clip(b; c, d)).
        return Some((first_low.clamp(low, high), first_high.clamp(low, high), inside));
    }
    let is_clip = rewriter.node_of::<Clip>(id).is_some();
    (is_clip && float && low == 0.0 && high >= f64::from(f32::MAX)).then_some((low, high, x))
}

/// Makes node `id` bound `x`: a `Relu` where that says it, else a `Clip`.
fn bound(rewriter: &mut Rewriter, id: NodeId, low: f64, high: f64, x: ValueId) {
    if low == 0.0 && high >= f64::from(f32::MAX) {
        rewriter.set(id, Arc::new(Unary { function: UnaryFunction::Relu }), vec![Some(x)]);
        return;
    }
    let Some(dtype) = rewriter.dtype(x) else { return };
    let constant = |bound: f64| Tensor::from_f64s(dtype, &[], &[bound]).ok();
    let (Some(low), Some(high)) = (constant(low), constant(high)) else { return };
    let low = rewriter.add_constant("bound.low", low);
    let high = rewriter.add_constant("bound.high", high);
    rewriter.set(id, Arc::new(Clip), vec![Some(x), Some(low), Some(high)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{binary, check, check_inferred, input, scalar, unary};
    use BinaryFunction::{Add, Div, Mul, Sub};
    use UnaryFunction::{Erf, Relu, Sigmoid, Softplus, Tanh};
    use planish_graph::Graph;

    fn clip(g: &mut Graph, name: &str, x: ValueId, low: f32, high: f32) -> ValueId {
        let low = scalar(g, &format!("{name}.low"), low);
        let high = scalar(g, &format!("{name}.high"), high);
        g.add_node(name, Clip, &[x, low, high])
    }
    /// `build` of the input and the graph's one output; the graph holds exactly `remaining` after the pass.
    fn becomes(remaining: &[(&'static str, usize)], build: impl Fn(&mut Graph, ValueId) -> ValueId) {
        let (mut g, x) = input(&[2, 40]);
        let y = build(&mut g, x);
        g.outputs.push(y);
        check_inferred(&Activations, g, remaining);
    }
    fn gate(g: &mut Graph, x: ValueId) -> ValueId {
        let three = scalar(g, "three", 3.0);
        let shifted = binary(g, "shifted", Add, three, x);
        clip(g, "gate", shifted, 0.0, 6.0)
    }

    #[test]
    fn gated_forms() {
        becomes(&[("Swish", 1)], |g, x| {
            let gate = unary(g, "gate", Sigmoid, x);
            binary(g, "y", Mul, x, gate)
        });
        becomes(&[("Swish", 1)], |g, x| {
            let factor = scalar(g, "factor", 1.702);
            let inside = binary(g, "inside", Mul, x, factor);
            let gate = unary(g, "gate", Sigmoid, inside);
            binary(g, "y", Mul, gate, x)
        });
        becomes(&[("HardSwish", 1)], |g, x| {
            let function = ActivationFunction::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };
            let gate = g.add_node("gate", Activation { function }, &[x]);
            binary(g, "y", Mul, x, gate)
        });
        becomes(&[("Mish", 1)], |g, x| {
            let inside = unary(g, "inside", Softplus, x);
            let gate = unary(g, "gate", Tanh, inside);
            binary(g, "y", Mul, x, gate)
        });
    }

    #[test]
    fn hard_swish_in_any_association() {
        becomes(&[("HardSwish", 1)], |g, x| {
            let gate = gate(g, x);
            let six = scalar(g, "six", 6.0);
            let product = binary(g, "product", Mul, x, gate);
            binary(g, "y", Div, product, six)
        });
        becomes(&[("HardSwish", 1)], |g, x| {
            let gate = gate(g, x);
            let sixth = scalar(g, "sixth", 1.0 / 6.0);
            let gate = binary(g, "scaled", Mul, sixth, gate);
            binary(g, "y", Mul, gate, x)
        });
        becomes(&[("HardSigmoid", 1)], |g, x| {
            let gate = gate(g, x);
            let six = scalar(g, "six", 6.0);
            binary(g, "y", Div, gate, six)
        });
    }

    #[test]
    fn gelu_in_any_association() {
        for half_first in [false, true] {
            becomes(&[("Gelu", 1)], |g, x| {
                let root = scalar(g, "root", std::f32::consts::SQRT_2);
                let half = scalar(g, "half", 0.5);
                let one = scalar(g, "one", 1.0);
                let inside = binary(g, "inside", Div, x, root);
                let erf = unary(g, "erf", Erf, inside);
                let gate = binary(g, "gate", Add, erf, one);
                if half_first {
                    let halved = binary(g, "halved", Mul, half, x);
                    binary(g, "y", Mul, halved, gate)
                } else {
                    let product = binary(g, "product", Mul, x, gate);
                    binary(g, "y", Mul, product, half)
                }
            });
        }
    }

    #[test]
    fn what_others_read_stays() {
        let (mut g, x) = input(&[2, 40]);
        let gate = unary(&mut g, "gate", Sigmoid, x);
        let y = binary(&mut g, "y", Mul, x, gate);
        g.outputs = vec![y, gate];
        check_inferred(&Activations, g, &[("Sigmoid", 1), ("Mul", 1)]);
    }

    #[test]
    fn other_gates_stay() {
        becomes(&[("Sigmoid", 1), ("Mul", 1), ("Tanh", 1)], |g, x| {
            let gate = unary(g, "gate", Sigmoid, x);
            let other = unary(g, "other", Tanh, x);
            binary(g, "y", Mul, other, gate)
        });
        becomes(&[("Sub", 1), ("Clip", 1), ("Mul", 1), ("Div", 1)], |g, x| {
            let three = scalar(g, "three", 3.0);
            let shifted = binary(g, "shifted", Sub, three, x);
            let gate = clip(g, "gate", shifted, 0.0, 6.0);
            let six = scalar(g, "six", 6.0);
            let product = binary(g, "product", Mul, x, gate);
            binary(g, "y", Div, product, six)
        });
    }

    #[test]
    fn bounds_merge() {
        becomes(&[("Relu", 1)], |g, x| clip(g, "y", x, 0.0, f32::MAX));
        becomes(&[("Clip", 1)], |g, x| {
            let first = unary(g, "first", Relu, x);
            clip(g, "y", first, -1.0, 1.0)
        });
        becomes(&[("Clip", 1)], |g, x| {
            let first = clip(g, "first", x, -0.5, 0.5);
            let second = clip(g, "second", first, 1.0, 1.5);
            unary(g, "y", Relu, second)
        });
        becomes(&[("Relu", 1)], |g, x| {
            let first = unary(g, "first", Relu, x);
            unary(g, "y", Relu, first)
        });
        becomes(&[("Clip", 1)], |g, x| clip(g, "y", x, 0.0, 6.0));
    }

    #[test]
    fn long_products_do_not_recurse() {
        let (mut g, x) = input(&[1]);
        let half = scalar(&mut g, "half", 0.5);
        let mut v = x;
        for i in 0..20_000 {
            v = binary(&mut g, &format!("v{i}"), Mul, v, half);
        }
        g.outputs.push(v);
        check(&Activations, g, &[("Mul", 20_000)]);
    }
}
