//! Bits of activations where they count: 8 or 4 for each scale, so that the network takes no more operations on bits than it
//! may, and the answers suffer least.
//!
//! A product of a weight of `w` bits and an activation of `a` bits is `w · a` operations on bits, which is what bit-serial
//! kernels and multipliers in silicon spend (BOPS; HAQ: Wang et al., CVPR 2019; HAWQ-V3: Yao et al., ICML 2021). What four
//! bits do to the answers is measured for each scale with all else in float, and taken to add up; then it is a knapsack, as
//! for weights (`allocate`), whose widths are chosen by then.

use super::allocate::{Cost, allocate};
use super::grid::Grid;
use super::place::only_values;
use super::prepare::Network;
use super::run::{Distance, Pictures};
use super::scheme::Scheme;
use super::watch::Watch;
use planish_graph::infer::{Fact, infer};
use planish_graph::{Result, Tensor, ValueId, invalid};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The widths to choose from.
pub const WIDTHS: [u32; 2] = [8, 4];

/// The bits of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationBits {
    /// Those of [`Options::activations`](super::Options::activations), for all.
    Given,
    /// 8 or 4 for each scale, within so many operations on bits for a picture.
    Within(usize),
}

/// Multiply-accumulate operations of each layer for one picture, given the shape of a batch of them: the network may leave
/// the size of its input open.
pub fn multiplications(network: &Network, batch: &[usize]) -> Result<Vec<u64>> {
    let graph = &network.graph;
    let mut inputs = Vec::with_capacity(graph.inputs.len());
    for &id in &graph.inputs {
        match graph.value(id).dtype {
            Some(dtype) => inputs.push(Fact::new(dtype, batch)),
            None => invalid!("input \"{}\" has no element type", graph.value(id).name),
        }
    }
    let facts = infer(graph, &inputs)?;
    let of = |v: &ValueId| facts[v.0 as usize].clone();
    let images = batch.first().copied().unwrap_or(1).max(1) as u64;
    let macs = network.layers.iter().map(|layer| {
        let node = &graph.nodes[layer.node];
        let given: Vec<Option<Fact>> = node.inputs.iter().map(|v| v.as_ref().and_then(of)).collect();
        let made: Vec<Fact> = node.outputs.iter().flatten().filter_map(of).collect();
        node.op.macs(&given, &made) / images
    });
    Ok(macs.collect())
}

/// The values of each scale that layers read, by group, with the operations on bits that one bit of them takes.
fn groups(network: &Network, scheme: &Scheme, bits: &[u32], macs: &[u64]) -> BTreeMap<usize, u64> {
    let mut groups = BTreeMap::new();
    for (l, layer) in network.layers.iter().enumerate().filter(|(l, _)| !scheme.float.contains(l)) {
        let each = macs[l].saturating_mul(bits[l].into());
        let sum: &mut u64 = groups.entry(scheme.roles.group(layer.input)).or_default();
        *sum = sum.saturating_add(each);
    }
    groups
}

/// Operations on bits of all layers that are not float, for one picture of a batch of this shape.
pub fn operations(network: &Network, scheme: &Scheme, bits: &[u32], batch: &[usize]) -> Result<u64> {
    let macs = multiplications(network, batch)?;
    let layers = network.layers.iter().enumerate().filter(|(l, _)| !scheme.float.contains(l));
    Ok(layers.fold(0u64, |sum, (l, layer)| {
        let width = scheme.grids.get(&layer.input).map_or(8, |grid| grid.levels.bits());
        sum.saturating_add(macs[l].saturating_mul(u64::from(bits[l] * width)))
    }))
}

/// Chooses which scales have four bits, whose grids are `four`, so that all layers, with weights of `bits`, take at most
/// `budget` operations on bits for a picture; the grids of their values replace those of `scheme`. The float answers for
/// `pictures` are `wanted`. An error where not even four bits for all are few enough.
pub fn choose(
    network: &Network,
    scheme: &mut Scheme,
    four: &HashMap<ValueId, Grid>,
    (bits, budget): (&[u32], usize),
    (pictures, wanted): (&Pictures<'_>, &[Tensor]),
    watch: &mut Watch<'_>,
) -> Result<()> {
    let macs = multiplications(network, pictures.shape())?;
    let groups = groups(network, scheme, bits, &macs);
    watch.begin("choosing bits of activations", groups.len());
    let mut costs = Vec::with_capacity(groups.len());
    for (&group, &each) in &groups {
        let mut choices = Vec::with_capacity(WIDTHS.len());
        for (width, grids) in WIDTHS.into_iter().zip([&scheme.grids, four]) {
            let size = usize::try_from(each.saturating_mul(width.into())).unwrap_or(usize::MAX);
            // Once stopped, fewer bits count as so much worse, wherever they are.
            let noise = if watch.is_stopped() {
                1.0 / f64::from(width)
            } else {
                let grid = |v: ValueId| grids.get(&v).filter(|_| scheme.roles.group(v) == group).copied();
                let graph =
                    only_values(network, scheme, &|v| grid(v).filter(|_| scheme.roles.is_integer(v)))?;
                let got = watch.within(|w| pictures.outputs(&graph, w))?;
                Distance::between(wanted, &got).noise
            };
            choices.push(Cost { size, noise });
        }
        costs.push(choices);
        watch.step();
    }
    let Some(chosen) = allocate(&costs, budget) else {
        let least = costs
            .iter()
            .fold(0usize, |sum, c| sum.saturating_add(c.iter().map(|c| c.size).min().unwrap_or(0)));
        invalid!(
            "the network does not fit {budget} operations on bits: with activations of {} bits each it takes {least}; fewer \
             bits of weights (--weight-bits, --weight-budget) take less",
            WIDTHS[WIDTHS.len() - 1]
        );
    };
    let short: BTreeSet<usize> =
        groups.keys().zip(chosen).filter(|(_, c)| WIDTHS[*c] == 4).map(|(group, _)| *group).collect();
    for (v, grid) in &mut scheme.grids {
        if short.contains(&scheme.roles.group(*v))
            && let Some(grid_of_four) = four.get(v)
        {
            *grid = *grid_of_four;
        }
    }
    scheme.fit_biases(network);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_graph::ops::nn::conv::Conv;
    use planish_graph::{DType, Dim, Graph, Tensor};

    #[test]
    fn layers_are_counted_at_the_size_of_the_pictures() {
        let mut g = Graph::new("open");
        let open = |name: &str| Dim::Symbol(name.into());
        let x = g.add_input("x", DType::F32, &[open("N"), Dim::Fixed(3), open("H"), open("W")]);
        let w = g.add_constant("w", Tensor::new(&[4, 3, 3, 3], &[1.0f32; 108]).unwrap());
        let y = g.add_node("conv", Conv::default(), &[x, w]);
        g.outputs.push(y);
        let network = Network::of(&g).unwrap();
        assert_eq!(multiplications(&network, &[2, 3, 8, 7]).unwrap(), [6 * 5 * 4 * 27]);
    }
}
