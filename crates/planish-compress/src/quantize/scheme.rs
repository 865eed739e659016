//! Everything that quantising a network decided, apart from the network itself.

use super::grid::Grid;
use super::prepare::Network;
use super::roles::Roles;
use super::weights::{QuantisedWeights, WeightScheme};
use planish_graph::ValueId;
use std::collections::{BTreeSet, HashMap};

/// What becomes of a network.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// Layers that stay float, by their place among the layers.
    pub float: BTreeSet<usize>,
    /// Those of them that still read rounded numbers: float is faster for them than integers, and their neighbours would not
    /// be integers if what is between were float.
    pub between: BTreeSet<usize>,
    /// Which values are integers, given that.
    pub roles: Roles,
    /// The grid of every value that is one of integers when no layer stays float.
    pub grids: HashMap<ValueId, Grid>,
    /// The weights of every layer as integers, those of the float ones too.
    pub weights: Vec<QuantisedWeights>,
}

impl Scheme {
    /// The nearest weights, with `grids` for values.
    pub fn new(network: &Network, grids: HashMap<ValueId, Grid>, weights: &[WeightScheme]) -> Scheme {
        let mut scheme = Scheme {
            float: BTreeSet::new(),
            between: BTreeSet::new(),
            roles: Roles::of(network, &BTreeSet::new(), &BTreeSet::new()),
            grids,
            weights: Vec::with_capacity(network.layers.len()),
        };
        for (layer, how) in network.layers.iter().zip(weights) {
            scheme.weights.push(QuantisedWeights::nearest(layer, &network.graph, *how));
        }
        scheme.fit_biases(network);
        scheme
    }
    /// Makes sure that every bias fits 32 bits; to be called when biases have changed.
    pub fn fit_biases(&mut self, network: &Network) {
        for (layer, weights) in network.layers.iter().zip(&mut self.weights) {
            if let Some(grid) = self.grids.get(&layer.input) {
                let rows = layer.rows(layer.weights_of(&network.graph));
                weights.fit_biases(&layer.bias_of(&network.graph), grid.scale, &rows);
            }
        }
    }
    /// Leaves the layers in `float` float, of which those in `between` read rounded numbers.
    pub fn keep_float(&mut self, network: &Network, float: BTreeSet<usize>, between: BTreeSet<usize>) {
        self.roles = Roles::of(network, &float, &between);
        (self.float, self.between) = (float, between);
    }
    /// The grid of `v`, where it is kept as integers.
    pub fn grid(&self, v: ValueId) -> Option<&Grid> {
        self.grids.get(&v).filter(|_| self.roles.is_integer(v))
    }
}
