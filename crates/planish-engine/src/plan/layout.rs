//! Decides for each value whether it is kept as ONNX has it or channels-last.
//!
//! Convolution, pooling and resizing compute channels-last (design.md says why); matrix products, reshapes and whatever
//! has no kernel compute in ONNX's order; and what stands between them works in either, so the question is where layouts
//! change. Each change moves the bytes of a value, once for all that read it; some operators move nothing in one layout
//! and everything in the other (a channels-last concatenation or a slice of channels is only a place in memory). All of
//! it is priced by the machine's rates ([`Prices`]), and the cheapest layouts of the whole graph are a minimum cut
//! ([`super::cut`]).
//!
//! A minimum cut and not dynamic programming, because there are only two layouts: the cut is then exact on any graph,
//! while dynamic programming is exact on chains and trees only, and residual and dense networks are neither. Following
//! the inputs node by node, as planish once did, converts early what later turns out to be wanted as it was: of a sum of
//! a large plain value and a small convolution's result that is read plainly, it changes both instead of one. Among
//! equally cheap layouts the one that follows is taken, so a network is converted once at its start and once where it
//! leaves the spatial world.

use super::cut::{Cut, FAR, NEAR, NEVER};
use super::lower::{self, Facts};
use planish_cpu::rates::{Rate, Rates};
use planish_graph::{Fact, Node, ValueId};

/// How a value's elements are ordered in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Layout {
    /// Row-major in ONNX's axis order.
    Plain,
    /// Batch, spatial axes, channels: axis 1 comes last. Only for `f32` and `u8` of rank 3 and more.
    ChannelsLast,
}

impl Layout {
    /// The extents in memory order of a value of ONNX shape `shape`.
    pub(crate) fn physical(self, shape: &[usize]) -> Vec<usize> {
        match self {
            Layout::Plain => shape.to_vec(),
            Layout::ChannelsLast => {
                let mut physical = vec![shape[0]];
                physical.extend(&shape[2..]);
                physical.push(shape[1]);
                physical
            }
        }
    }
    /// Which memory axis ONNX's `axis` is.
    pub(crate) fn axis(self, axis: usize, rank: usize) -> usize {
        match (self, axis) {
            (Layout::Plain, a) | (Layout::ChannelsLast, a @ 0) => a,
            (Layout::ChannelsLast, 1) => rank - 1,
            (Layout::ChannelsLast, a) => a - 1,
        }
    }
}

/// What an operator's kernel wants of layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Reads and writes channels-last.
    ChannelsLast,
    /// Works in either; writes what it reads.
    Follow,
    /// Reads and writes ONNX's order.
    Plain,
}

/// Whether a value may be kept channels-last at all.
pub(crate) fn may_be_channels_last(fact: Option<&Fact>) -> bool {
    fact.is_some_and(|f| lower::is_kept(f) && f.shape().is_some_and(|s| s.len() >= 3))
}

/// What moving memory takes, in picoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prices {
    call: f64,
    byte: f64,
}

impl Prices {
    /// By these rates.
    pub(crate) fn new(rates: &Rates) -> Prices {
        Prices { call: 1e3 * rates.get(Rate::Call), byte: 1e3 * rates.get(Rate::MovedByte) }
    }

    /// Of a copy of a value, in whatever order.
    fn of(self, fact: Option<&Fact>) -> u64 {
        // Beyond the range of integers the conversion saturates.
        let bytes = fact.and_then(Fact::bytes).unwrap_or(0) as f64;
        ((self.call + self.byte * bytes) as u64).min(NEVER / 1_000_000)
    }
}

/// The layout of every value of a specialised graph.
pub(crate) fn assign(known: &Facts<'_>, prices: Prices) -> Vec<Layout> {
    let followed = follow(known);
    let layouts = Search::new(known, prices, &followed).layouts();
    layouts.unwrap_or(followed)
}

/// The layouts where every kernel that works in either follows its inputs.
fn follow(known: &Facts<'_>) -> Vec<Layout> {
    let mut layouts = vec![Layout::Plain; known.graph.values.len()];
    for node in &known.graph.nodes {
        let wish = lower::wish(node, known);
        for output in node.outputs.iter().flatten() {
            let Some(rank) = known.rank_of_candidate(*output) else { continue };
            let channels_last = match wish {
                Wish::ChannelsLast => true,
                Wish::Plain => false,
                Wish::Follow => node.inputs.iter().flatten().any(|i| {
                    known.kept(*i).is_some_and(|s| s.len() == rank)
                        && layouts[i.0 as usize] == Layout::ChannelsLast
                }),
            };
            if channels_last {
                layouts[output.0 as usize] = Layout::ChannelsLast;
            }
        }
    }
    layouts
}

impl Facts<'_> {
    /// The rank of a value that may be kept channels-last; `None` for all others.
    fn rank_of_candidate(&self, v: ValueId) -> Option<usize> {
        let fact = self.facts[v.0 as usize].as_ref();
        may_be_channels_last(fact).then(|| fact.and_then(|f| f.shape()).map_or(0, |s| s.len()))
    }
}

/// The search for the cheapest layouts. Near are nodes that write channels-last.
struct Search<'a> {
    known: &'a Facts<'a>,
    cut: Cut,
    /// By node, the thing that stands for the layout it writes.
    writes: Vec<usize>,
    /// By node, the thing that stands for the layout it reads; `None` where it reads either as well.
    reads: Vec<Option<usize>>,
}

/// The thing that stands for a layout.
fn side(layout: Layout) -> usize {
    match layout {
        Layout::ChannelsLast => NEAR,
        Layout::Plain => FAR,
    }
}

impl<'a> Search<'a> {
    fn new(known: &'a Facts<'a>, prices: Prices, followed: &[Layout]) -> Search<'a> {
        let mut search = Search { known, cut: Cut::new(), writes: Vec::new(), reads: Vec::new() };
        let values = known.graph.values.len();
        let (plain, last) = (vec![Layout::Plain; values], vec![Layout::ChannelsLast; values]);
        for node in &known.graph.nodes {
            let free = node.outputs.iter().flatten().find(|v| known.rank_of_candidate(**v).is_some());
            let layout = match (lower::wish(node, known), free) {
                (Wish::Follow, Some(output)) => {
                    search.follower(node, prices, [&last, &plain], followed[output.0 as usize]);
                    continue;
                }
                (Wish::ChannelsLast, _) => Layout::ChannelsLast,
                (Wish::Plain | Wish::Follow, _) => Layout::Plain,
            };
            search.writes.push(side(layout));
            search.reads.push(lower::reads(node, known, layout).map(side));
        }
        search.charge_changes(prices);
        search
    }

    /// A node that reads and writes one layout or the other, in `followed` if nothing speaks against it.
    fn follower(&mut self, node: &Node, prices: Prices, layouts: [&Vec<Layout>; 2], followed: Layout) {
        let thing = self.cut.thing();
        self.writes.push(thing);
        self.reads.push(Some(thing));
        // Where its result lies in another value's memory, the node moves nothing.
        let [last, plain] = layouts.map(|all| {
            lower::is_alias(node, self.known, all) || lower::channel_concat(node, self.known, all).is_some()
        });
        let outputs = node.outputs.iter().flatten();
        let copies: u64 = outputs.map(|v| prices.of(self.known.facts[v.0 as usize].as_ref())).sum();
        match (last, plain) {
            (true, false) => self.cut.charge(NEAR, thing, copies),
            (false, true) => self.cut.charge(thing, FAR, copies),
            _ => {}
        }
        match followed {
            Layout::ChannelsLast => self.cut.charge(NEAR, thing, 1),
            Layout::Plain => self.cut.charge(thing, FAR, 1),
        }
    }

    /// A value is changed once for all that read it in the other layout.
    fn charge_changes(&mut self, prices: Prices) {
        let Facts { graph, facts, .. } = *self.known;
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.values.len()];
        for (node, reads) in graph.nodes.iter().zip(&self.reads) {
            for v in node.inputs.iter().flatten() {
                readers[v.0 as usize].extend(*reads);
            }
        }
        for v in &graph.outputs {
            readers[v.0 as usize].push(FAR);
        }
        let produced = graph.nodes.iter().zip(self.writes.clone());
        let made = produced.flat_map(|(node, thing)| node.outputs.iter().flatten().map(move |v| (*v, thing)));
        let given = graph.inputs.iter().map(|v| (*v, FAR));
        for (v, maker) in made.chain(given) {
            let shape = self.known.kept(v).unwrap_or_default();
            if self.known.rank_of_candidate(v).is_none() || lower::layouts_agree(shape) {
                continue;
            }
            let price = prices.of(facts[v.0 as usize].as_ref());
            let readers = &mut readers[v.0 as usize];
            readers.sort_unstable();
            readers.dedup();
            let (mut to_plain, mut to_last) = (readers.first().copied(), readers.first().copied());
            if readers.len() > 1 {
                // Something of its own that is on one side as soon as any reader is.
                let (any_plain, any_last) = (self.cut.thing(), self.cut.thing());
                for &reader in readers.iter() {
                    self.cut.charge(any_plain, reader, NEVER);
                    self.cut.charge(reader, any_last, NEVER);
                }
                (to_plain, to_last) = (Some(any_plain), Some(any_last));
            }
            if let (Some(to_plain), Some(to_last)) = (to_plain, to_last) {
                self.cut.charge(maker, to_plain, price);
                self.cut.charge(to_last, maker, price);
            }
        }
    }

    /// The cheapest layouts; `None` where they take too long to find.
    fn layouts(self) -> Option<Vec<Layout>> {
        let near = self.cut.near()?;
        let mut layouts = vec![Layout::Plain; self.known.graph.values.len()];
        for (node, thing) in self.known.graph.nodes.iter().zip(self.writes) {
            for &v in node.outputs.iter().flatten() {
                if near[thing] && self.known.rank_of_candidate(v).is_some() {
                    layouts[v.0 as usize] = Layout::ChannelsLast;
                }
            }
        }
        Some(layouts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::passes::testing::{input, inputs, list, weights};
    use crate::passes::{Specialised, as_it_stands};
    use planish_graph::ops::math::binary::{Binary, BinaryFunction};
    use planish_graph::ops::math::unary::{Unary, UnaryFunction};
    use planish_graph::ops::movement::{flatten::Flatten, slice::Slice};
    use planish_graph::ops::nn::conv::Conv;
    use planish_graph::{DType, Dim, Graph};

    fn conv(g: &mut Graph, name: &str, x: ValueId, channels: usize) -> ValueId {
        let w = weights(g, &format!("{name}.w"), &[channels, channels, 1, 1]);
        g.add_node(name, Conv::default(), &[x, w])
    }

    /// The names of the values that are kept channels-last: by the cheapest layouts, and by following.
    fn kept(mut g: Graph, outputs: &[ValueId]) -> [Vec<String>; 2] {
        g.outputs = outputs.to_vec();
        let shapes: Vec<Vec<usize>> = inputs(&g).iter().map(|t| t.shape().to_vec()).collect();
        let Specialised { graph, facts, .. } = as_it_stands(&g, &shapes).unwrap();
        let known = Facts { graph: &graph, facts: &facts, makers: &graph.producers() };
        let best = assign(&known, Prices { call: 0.0, byte: 1000.0 });
        [best, follow(&known)].map(|layouts| {
            let last = layouts.iter().zip(&graph.values).filter(|(l, _)| **l == Layout::ChannelsLast);
            last.map(|(_, v)| v.name.clone()).collect()
        })
    }

    #[test]
    fn a_large_plain_value_is_not_changed_for_a_small_one() {
        // A sum of what a convolution made and an input is only read plainly: changing the one is enough.
        let (mut g, x) = input(&[1, 8, 6, 6]);
        let dims = [1, 8, 6, 6].map(Dim::Fixed);
        let z = g.add_input("z", DType::F32, &dims);
        let c = conv(&mut g, "c", x, 8);
        let sum = g.add_node("sum", Binary { function: BinaryFunction::Add }, &[c, z]);
        let y = g.add_node("y", Flatten { axis: 1 }, &[sum]);
        let [best, followed] = kept(g, &[y]);
        assert_eq!(best, ["c"]);
        assert_eq!(followed, ["c", "sum"]);
    }

    #[test]
    fn channels_are_sliced_where_that_is_free() {
        // Following, both halves are copied and then changed; channels-last they are views of what was changed once.
        let (mut g, x) = input(&[1, 16, 6, 6]);
        let mut ends = Vec::new();
        for half in 0..2 {
            let lists: Vec<ValueId> = [("from", 8 * half), ("to", 8 * half + 8), ("axis", 1)]
                .iter()
                .map(|(name, n)| list(&mut g, &format!("{name}{half}"), &[*n]))
                .collect();
            let part = g.add_node(&format!("part{half}"), Slice, &[x, lists[0], lists[1], lists[2]]);
            ends.push(conv(&mut g, &format!("c{half}"), part, 8));
        }
        let [best, followed] = kept(g, &ends);
        assert_eq!(best, ["part0", "c0", "part1", "c1"]);
        assert_eq!(followed, ["c0", "c1"]);
    }

    #[test]
    fn a_chain_is_changed_once_at_each_end() {
        let (mut g, x) = input(&[1, 8, 6, 6]);
        let scaled = g.add_node("scaled", Unary { function: UnaryFunction::Neg }, &[x]);
        let a = conv(&mut g, "a", scaled, 8);
        let bent = g.add_node("bent", Unary { function: UnaryFunction::Tanh }, &[a]);
        let sum = g.add_node("sum", Binary { function: BinaryFunction::Add }, &[bent, a]);
        let b = conv(&mut g, "b", sum, 8);
        let last = g.add_node("last", Unary { function: UnaryFunction::Tanh }, &[b]);
        let y = g.add_node("y", Flatten { axis: 1 }, &[last]);
        let [best, followed] = kept(g, &[y]);
        assert_eq!(best, ["a", "bent", "sum", "b", "last"]);
        assert_eq!(followed, best);
    }

    #[test]
    fn channels_move_to_the_end() {
        assert_eq!(Layout::ChannelsLast.physical(&[2, 3, 4, 5]), [2, 4, 5, 3]);
        let axes: Vec<usize> = (0..4).map(|a| Layout::ChannelsLast.axis(a, 4)).collect();
        assert_eq!(axes, [0, 3, 1, 2]);
        assert_eq!(Layout::Plain.axis(1, 4), 1);
    }
}
