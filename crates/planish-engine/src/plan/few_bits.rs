//! How few bits the levels of a convolution have: what a graph says of them without saying it.
//!
//! Levels are bytes wherever they lie. That those of a value end at 3, or are 0 and 2 only, follows from how they are made:
//! from limits before a quantisation, from the choice of a sign, from sums that are odd. Of what only moves levels, it holds
//! behind it as before it. With that, and few bits of the weights, a problem is posed to the kernels that count bits
//! ([`planish_cpu::conv::FewBits`]), beside all others.

use super::integer_sums::{IntegerSums, activation};
use super::lower::{Facts, of_each_level};
use crate::passes::moves_levels;
use planish_cpu::conv::{FewBits, InputBits, WeightBits};
use planish_graph::ops::math::activation::Activation;
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::unary::Unary;
use planish_graph::ops::movement::identity::Identity;
use planish_graph::ops::movement::pad::Pad;
use planish_graph::ops::nn::fused::{ConvAdd, FusedActivation};
use planish_graph::ops::nn::quantized::fused::{Grid, Quantised};
use planish_graph::ops::nn::quantized::qonnx::BipolarQuant;
use planish_graph::ops::nn::quantized::quantize::QuantizeLinear;
use planish_graph::{DType, Node, Operator, OperatorExt, Tensor, ValueId};
use std::collections::HashMap;

/// The levels that a value can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    highest: u8,
    /// Whether they are 0 and 2 only.
    signs: bool,
}

impl Known {
    /// Of some levels.
    fn of(levels: &[u8]) -> Option<Known> {
        let highest = *levels.iter().max()?;
        Some(Known { highest, signs: levels.iter().all(|&level| level == 0 || level == 2) })
    }
    /// All levels up to one.
    fn up_to(highest: u8) -> Known {
        Known { highest, signs: highest == 0 }
    }
    fn and(self, other: Known) -> Known {
        Known { highest: self.highest.max(other.highest), signs: self.signs && other.signs }
    }
    /// The levels that there can be.
    fn all(self) -> Vec<u8> {
        (0..=self.highest).filter(|level| !self.signs || level % 2 == 0).collect()
    }
}

/// How few bits a layer on levels with these sums has, where they are few.
pub(crate) fn few_bits(node: &Node, facts: &Facts<'_>, sums: &IntegerSums) -> Option<FewBits> {
    let weights = WeightBits::of(&sums.values)?;
    let known = Walk::new(facts).levels(node.input(0)?)?;
    let signs = known.signs && sums.input_zero == 1;
    let input = if signs { InputBits::Signs } else { InputBits::up_to(known.highest)? };
    Some(FewBits { input, weights })
}

/// A walk against the direction of a graph.
struct Walk<'w, 'g> {
    facts: &'w Facts<'g>,
    /// What was found of each value on the way: several may be read twice.
    found: HashMap<ValueId, Option<Known>>,
}

impl<'w, 'g> Walk<'w, 'g> {
    fn new(facts: &'w Facts<'g>) -> Walk<'w, 'g> {
        Walk { facts, found: HashMap::new() }
    }

    /// What is known of the levels of `value`; `None` where they may be all. Without recursion, because what moves levels
    /// may stand in rows of any length.
    fn levels(&mut self, value: ValueId) -> Option<Known> {
        let mut waiting = vec![value];
        while let Some(next) = waiting.pop() {
            if self.found.contains_key(&next) {
                continue;
            }
            let mut sources = self.sources(next);
            sources.retain(|source| !self.found.contains_key(source));
            if sources.is_empty() {
                let known = self.of_sources(next);
                self.found.insert(next, known);
            } else {
                waiting.push(next);
                waiting.extend(sources);
            }
        }
        self.answer(value)
    }

    fn answer(&self, value: ValueId) -> Option<Known> {
        self.found.get(&value).copied().flatten()
    }

    /// The values of whose levels those of `value` are made, or which it holds itself.
    fn sources(&self, value: ValueId) -> Vec<ValueId> {
        let Some(node) = self.facts.maker(value) else { return Vec::new() };
        let count = match node.op.as_op::<Quantised>() {
            Some(quantised) => usize::from(is_table(&*quantised.op) && quantised.input(0).is_some()),
            None => moved(node).unwrap_or(0),
        };
        node.inputs.iter().take(count).flatten().copied().collect()
    }

    /// What is known of the levels of `value`, where that of its sources was found.
    fn of_sources(&self, value: ValueId) -> Option<Known> {
        if let Some(levels) = self.facts.graph.constant(value) {
            return Known::of(levels.as_slice::<u8>().ok()?);
        }
        let node = self.facts.maker(value)?;
        if let Some(quantised) = node.op.as_op::<Quantised>() {
            return self.made(node, quantised);
        }
        if node.op.is_op::<QuantizeLinear>() {
            return self.quantised(node);
        }
        let moved = moved(node)?;
        let filled = match node.input(2).filter(|_| node.op.is_op::<Pad>()) {
            Some(fill) => Known::of(self.facts.graph.constant(fill)?.as_slice::<u8>().ok()?)?,
            None => Known { highest: 0, signs: true },
        };
        node.inputs
            .iter()
            .take(moved)
            .flatten()
            .try_fold(filled, |known, &v| Some(known.and(self.answer(v)?)))
    }

    /// Of numbers that are quantised: what limits stand before.
    fn quantised(&self, node: &Node) -> Option<Known> {
        let before = self.facts.maker(node.input(0)?)?;
        let high = match before.op.as_op::<ConvAdd>().map(|op| op.activation) {
            Some(FusedActivation::Clip { max, .. }) => max,
            Some(_) => return None,
            None => {
                before.op.as_op::<Clip>()?;
                self.facts.constant(before, 2).filter(|t| t.len() == 1)?.to_f32s()[0]
            }
        };
        let mut inputs = vec![Some(Tensor::scalar(high))];
        for index in 1..node.inputs.len() {
            inputs.push(Some(self.facts.constant(node, index).filter(|t| t.len() == 1)?.clone()));
        }
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(|input| input.as_ref()).collect();
        let level = node.op.eval(&inputs, 1).ok()?.pop()?;
        Some(Known::up_to(*level.as_slice::<u8>().ok()?.first()?))
    }

    /// Of what an operator on levels makes.
    fn made(&self, node: &Node, quantised: &Quantised) -> Option<Known> {
        let output = quantised.output.as_ref().filter(|grid| grid.dtype == DType::U8)?;
        if let FusedActivation::Clip { min, max } = activation(quantised) {
            let [low, high] = [level(output, min)?, level(output, max)?];
            let known = Known::up_to(high);
            let signs = output.single().is_some_and(|(_, zero)| zero == 1) && (low, high) == (0, 2);
            return Some(Known { signs: known.signs || signs && self.is_odd(node, quantised), ..known });
        }
        let Some(input) = node.input(0).filter(|_| quantised.input(0).is_some()) else {
            // Chosen of numbers.
            quantised.op.as_op::<BipolarQuant>()?;
            let scale = self.facts.constant(node, 1)?.to_f32s();
            return Known::of(&[level(output, -*scale.first()?)?, level(output, *scale.first()?)?]);
        };
        if !is_table(&*quantised.op) {
            return None;
        }
        let given = self.answer(input).unwrap_or(Known::up_to(u8::MAX)).all();
        Known::of(&of_each_level(quantised, node, self.facts, &given)?)
    }

    /// Whether the sums of a layer are odd numbers of its output's steps, so that limits of one step make signs of them.
    fn is_odd(&self, node: &Node, quantised: &Quantised) -> bool {
        if node.input(3).is_some() {
            return false;
        }
        let weights = self.facts.constant(node, 1);
        let sums =
            weights.and_then(|weights| IntegerSums::of(quantised, weights, self.facts.constant(node, 2)));
        sums.is_some_and(|sums| sums.are_odd())
    }
}

/// How many inputs of a node hold the levels that it moves.
fn moved(node: &Node) -> Option<usize> {
    if node.op.is_op::<Pad>() { Some(1) } else { moves_levels(&*node.op) }
}

/// Whether an operator makes each level of one level.
fn is_table(op: &dyn Operator) -> bool {
    let function = op.is_op::<Unary>() || op.is_op::<Activation>() || op.is_op::<Clip>();
    function || op.is_op::<Identity>() || op.is_op::<BipolarQuant>()
}

/// The level of a number.
fn level(grid: &Grid, number: f32) -> Option<u8> {
    let made = grid.integers(&Tensor::scalar(number)).ok()?;
    made.as_slice::<u8>().ok()?.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{convert, input, scalar};
    use planish_graph::infer::infer;
    use planish_graph::ops::movement::concat::Concat;
    use planish_graph::ops::movement::pad::PadMode;
    use planish_graph::{Graph, ValueId};

    fn known(graph: &Graph, value: ValueId) -> Option<Known> {
        graph.validate().unwrap();
        let inputs: Vec<_> =
            graph.inputs.iter().map(|_| planish_graph::Fact::new(DType::F32, &[1, 4, 5])).collect();
        let facts = infer(graph, &inputs).unwrap();
        Walk::new(&Facts { graph, facts: &facts, makers: &graph.producers() }).levels(value)
    }

    /// The levels of "x" between two numbers.
    fn limited(g: &mut Graph, x: ValueId, name: &str, ends: [f32; 2], grid: &Grid) -> ValueId {
        let ends = ends.map(|end| scalar(g, &format!("{name}.{end}"), end));
        let x = g.add_node(&format!("{name}.clip"), Clip, &[x, ends[0], ends[1]]);
        convert(g, name, true, x, grid)
    }

    /// The signs of "x".
    fn signs(g: &mut Graph, x: ValueId, name: &str) -> ValueId {
        let scale = scalar(g, &format!("{name}.scale"), 0.5);
        let inputs = vec![None, None];
        let op = Quantised {
            op: std::sync::Arc::new(BipolarQuant),
            inputs,
            output: Some(Grid::levels(0.5, 1)),
            inner: None,
        };
        g.add_node(name, op, &[x, scale])
    }

    const SIGNS: Option<Known> = Some(Known { highest: 2, signs: true });

    #[test]
    fn limits_and_signs_say_levels() {
        let (mut g, x) = input(&[1, 4, 5]);
        let few = limited(&mut g, x, "few", [-0.5, 1.0], &Grid::levels(0.5, 1));
        let around = limited(&mut g, x, "around", [-0.5, 0.5], &Grid::levels(0.5, 1));
        let all = convert(&mut g, "all", true, x, &Grid::levels(0.5, 1));
        let signs = signs(&mut g, x, "signs");
        assert_eq!(known(&g, few), Some(Known { highest: 3, signs: false }));
        assert_eq!(known(&g, around), Some(Known { highest: 2, signs: false }));
        assert_eq!((known(&g, all), known(&g, signs)), (None, SIGNS));
    }

    #[test]
    fn what_moves_levels_keeps_them_and_fills_say_more() {
        let (mut g, x) = input(&[1, 4, 5]);
        let parts = ["a", "b"].map(|name| signs(&mut g, x, name));
        let both = g.add_node("both", Concat { axis: 1 }, &parts);
        let few = limited(&mut g, x, "few", [0.0, 4.5], &Grid::levels(0.5, 0));
        let mixed = g.add_node("mixed", Concat { axis: 1 }, &[both, few]);
        let pads = g.add_constant("pads", Tensor::from_i64s(&[0, 0, 1, 0, 0, 1]).unwrap());
        let padded = [0u8, 1, 77].map(|fill| {
            let level = g.add_constant(&format!("fill{fill}"), Tensor::scalar(fill));
            g.add_node(&format!("pad{fill}"), Pad { mode: PadMode::Constant }, &[both, pads, level])
        });
        assert_eq!((known(&g, both), known(&g, padded[0])), (SIGNS, SIGNS));
        assert_eq!(known(&g, mixed), Some(Known { highest: 9, signs: false }));
        assert_eq!(known(&g, padded[1]), Some(Known { highest: 2, signs: false }));
        assert_eq!(known(&g, padded[2]), Some(Known { highest: 77, signs: false }));
    }

    #[test]
    fn levels_that_are_read_twice_count_each_time() {
        let (mut g, x) = input(&[1, 4, 5]);
        let many = limited(&mut g, x, "many", [0.0, 7.5], &Grid::levels(0.5, 0));
        let grid = Some(Grid::levels(0.5, 0));
        let ends = [0.0, 0.5].map(|end| scalar(&mut g, &format!("{end}"), end));
        let op = Quantised {
            op: std::sync::Arc::new(Clip),
            inputs: vec![grid.clone()],
            output: grid,
            inner: None,
        };
        let few = g.add_node("few", op, &[many, ends[0], ends[1]]);
        let both = g.add_node("both", Concat { axis: 1 }, &[few, many, many]);
        assert_eq!(known(&g, few), Some(Known { highest: 1, signs: false }));
        assert_eq!(known(&g, both), Some(Known { highest: 15, signs: false }));
    }

    #[test]
    fn rows_of_any_length_are_walked() {
        let (mut g, x) = input(&[1, 4, 5]);
        let mut y = signs(&mut g, x, "signs");
        for i in 0..50_000 {
            y = g.add_node(&format!("moved {i}"), Identity, &[y]);
        }
        assert_eq!(known(&g, y), SIGNS);
    }

    #[test]
    fn tables_say_what_they_hold() {
        let (mut g, x) = input(&[1, 4, 5]);
        let all = convert(&mut g, "all", true, x, &Grid::levels(0.5, 128));
        let table = |g: &mut Graph, name: &str, op: &dyn Fn() -> Quantised, from: ValueId, bounds: &[f32]| {
            let mut inputs = vec![from];
            inputs.extend(bounds.iter().map(|b| scalar(g, &format!("{name}.{b}"), *b)));
            g.add_node(name, op(), &inputs)
        };
        let of = |op: std::sync::Arc<dyn Operator>| Quantised {
            op,
            inputs: vec![Some(Grid::levels(0.5, 128))],
            output: Some(Grid::levels(0.5, 1)),
            inner: None,
        };
        let signs = table(&mut g, "signs", &|| of(std::sync::Arc::new(BipolarQuant)), all, &[0.5]);
        let few = table(&mut g, "few", &|| of(std::sync::Arc::new(Clip)), all, &[-0.5, 0.5]);
        assert_eq!(known(&g, signs), SIGNS);
        assert_eq!(known(&g, few), Some(Known { highest: 2, signs: false }));
    }
}
