//! Bits where they count: a width for each layer's weights, so that all fit a budget and the answers suffer least.
//!
//! What each width does to the answers is measured with all else in float, and taken to add up, as HAWQ-V3 does (Yao et al.,
//! ICML 2021) with a Hessian in place of the measurement. Then it is a knapsack with one choice a layer, solved exactly, up
//! to the grain of sizes, by dynamic programming.

use super::place::only_weights;
use super::prepare::Network;
use super::run::{Distance, Pictures};
use super::scheme::Scheme;
use super::watch::Watch;
use super::weights::{QuantisedWeights, WeightScheme};
use planish_graph::{Result, Tensor, invalid};

/// The widths to choose from.
pub const WIDTHS: [u32; 3] = [8, 4, 2];

/// What a choice costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// What the budget counts: bytes of a layer's weights, or operations on bits.
    pub size: usize,
    /// Noise in the answers.
    pub noise: f64,
}

/// Sizes are told apart to this share of the budget; they are rounded up, so that the budget holds.
const GRAINS: usize = 1 << 14;

/// For each layer the choice (its place in the layer's list) that makes the sum of noise smallest while the sum of sizes is
/// within `budget`; `None` where even the smallest choices are not.
pub fn allocate(layers: &[Vec<Cost>], budget: usize) -> Option<Vec<usize>> {
    let grain = budget.div_ceil(GRAINS).max(1);
    let room = budget / grain;
    // best[r]: the least noise of the layers so far in r grains or fewer; picks[l][r]: the choice that led there.
    let mut best = vec![0f64; room + 1];
    let mut picks: Vec<Vec<u8>> = Vec::with_capacity(layers.len());
    for choices in layers {
        let mut next = vec![f64::INFINITY; room + 1];
        let mut pick = vec![u8::MAX; room + 1];
        for (c, cost) in choices.iter().enumerate().take(usize::from(u8::MAX)) {
            let size = cost.size.div_ceil(grain);
            for r in size..=room {
                let noise = best[r - size] + cost.noise;
                if noise < next[r] {
                    (next[r], pick[r]) = (noise, c as u8);
                }
            }
        }
        best = next;
        picks.push(pick);
    }
    let mut left = room;
    let mut chosen = vec![0; layers.len()];
    for (l, pick) in picks.iter().enumerate().rev() {
        chosen[l] = usize::from(pick[left]);
        left -= layers[l].get(chosen[l])?.size.div_ceil(grain);
    }
    Some(chosen)
}

/// Bytes of `weights` numbers of `bits` bits, and their scales.
fn bytes(weights: usize, bits: u32, scales: usize) -> usize {
    (weights * bits as usize).div_ceil(8) + scales * size_of::<f32>()
}

/// Chooses a width for the weights of each layer of `scheme` so that all take at most `budget` bytes, biases apart. The float
/// answers for `pictures` are `wanted`. An error where not even the smallest fit.
pub fn widths(
    network: &Network,
    scheme: &Scheme,
    how: WeightScheme,
    budget: usize,
    (pictures, wanted): (&Pictures<'_>, &[Tensor]),
    watch: &mut Watch<'_>,
) -> Result<Vec<WeightScheme>> {
    watch.begin("choosing bits", network.layers.len());
    let mut costs = Vec::with_capacity(network.layers.len());
    let mut trial = scheme.clone();
    for (l, layer) in network.layers.iter().enumerate() {
        let count = layer.weights_of(&network.graph).len();
        let mut choices = Vec::with_capacity(WIDTHS.len());
        for bits in WIDTHS {
            let weights = QuantisedWeights::nearest(layer, &network.graph, WeightScheme { bits, ..how });
            let size = bytes(count, bits, weights.grids.len());
            let before = std::mem::replace(&mut trial.weights[l], weights);
            // Once stopped, layers count by the error of their weights alone.
            let noise = if watch.is_stopped() {
                super::weights::relative_error(
                    &trial.weights[l],
                    &layer.rows(layer.weights_of(&network.graph)),
                )
            } else {
                let graph = only_weights(network, &trial, l)?;
                let got = watch.within(|w| pictures.outputs(&graph, w))?;
                Distance::between(wanted, &got).noise
            };
            trial.weights[l] = before;
            choices.push(Cost { size, noise });
        }
        costs.push(choices);
        watch.step();
    }
    let Some(chosen) = allocate(&costs, budget) else {
        let least: usize = costs.iter().map(|c| c.iter().map(|c| c.size).min().unwrap_or(0)).sum();
        invalid!(
            "the weights do not fit {budget} bytes: with {} bits each they take {least}",
            WIDTHS[WIDTHS.len() - 1]
        );
    };
    Ok(chosen.into_iter().map(|c| WeightScheme { bits: WIDTHS[c], ..how }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn finds_the_best_of_all() {
        let mut random = Random::new(1);
        for _ in 0..50 {
            let layers: Vec<Vec<Cost>> = (0..5)
                .map(|_| {
                    let mut noise = 0.0;
                    let count = 10 + random.below(90);
                    [8, 4, 2]
                        .map(|bits| {
                            noise += random.below(100) as f64 / 100.0;
                            Cost { size: count * bits, noise }
                        })
                        .to_vec()
                })
                .collect();
            let budget = 300 + random.below(2500);
            let total = |pick: &[usize]| {
                let costs = || layers.iter().zip(pick).map(|(l, &c)| l[c]);
                (costs().map(|c| c.size).sum::<usize>(), costs().map(|c| c.noise).sum::<f64>())
            };
            let all = (0..3usize.pow(5)).map(|n| (0..5).map(|l| n / 3usize.pow(l) % 3).collect::<Vec<_>>());
            let best = all.map(|pick| total(&pick)).filter(|t| t.0 <= budget).map(|t| t.1).reduce(f64::min);
            match (allocate(&layers, budget), best) {
                (Some(pick), Some(best)) => {
                    let (bytes, noise) = total(&pick);
                    assert!(bytes <= budget && (noise - best).abs() < 1e-9, "{noise} {best}");
                }
                (None, None) => {}
                (found, best) => panic!("{found:?} {best:?}"),
            }
        }
    }

    #[test]
    fn large_sizes_stay_within_the_budget() {
        let layers =
            vec![vec![Cost { size: 40_000_000, noise: 0.0 }, Cost { size: 20_000_001, noise: 1.0 }]; 3];
        let pick = allocate(&layers, 100_000_001).unwrap();
        assert_eq!(pick.iter().filter(|c| **c == 0).count(), 1);
        assert_eq!(allocate(&layers, 60_000_000), None);
        assert_eq!(allocate(&[], 0), Some(Vec::new()));
    }
}
