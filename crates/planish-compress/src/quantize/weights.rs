//! Weights as integers: a grid for each output channel, or one for all of them.
//!
//! One scale a channel saves most of the accuracy (Krishnamoorthi, "Quantizing deep convolutional networks for efficient
//! inference", 2018): channels differ by orders of magnitude once batch normalisations are folded into them. Symmetric
//! grids keep the zero point out of the inner loop; affine ones, one a tensor, are for engines that want them.

use super::grid::{Grid, Levels};
use super::layers::Layer;
use super::observe::mean_square::best_share;
use planish_graph::Graph;

/// How weights become integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightScheme {
    /// Bits of an integer, 2 to 8; more, up to 16, only in simulation.
    pub bits: u32,
    /// Whether 0 is in the middle of the levels. Without it weights have one grid a tensor: ONNX Runtime's kernels take
    /// no zero point that differs between channels.
    pub symmetric: bool,
    /// Whether each output channel has its own grid, where grids are symmetric.
    pub per_channel: bool,
}

impl Default for WeightScheme {
    fn default() -> WeightScheme {
        WeightScheme { bits: 8, symmetric: true, per_channel: true }
    }
}

/// A layer's weights as integers.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantisedWeights {
    /// The integers of each output channel, as [`Layer::rows`] orders them.
    pub rows: Vec<Vec<i32>>,
    /// A grid for each output channel, or one for all.
    pub grids: Vec<Grid>,
}

impl QuantisedWeights {
    /// The weights of `layer` in `graph`, each moved to the nearest level of the grids that err least.
    pub fn nearest(layer: &Layer, graph: &Graph, scheme: WeightScheme) -> QuantisedWeights {
        let rows = layer.rows(layer.weights_of(graph));
        let grids: Vec<Grid> = if scheme.symmetric && scheme.per_channel {
            rows.iter().map(|row| fitted(row, scheme)).collect()
        } else {
            vec![fitted(&rows.concat(), scheme)]
        };
        let rows = rows.iter().enumerate().map(|(c, row)| {
            let grid = grids[c.min(grids.len() - 1)];
            row.iter().map(|&w| grid.quantise(w)).collect()
        });
        QuantisedWeights { rows: rows.collect(), grids }
    }
    /// The grid of output channel `channel`.
    pub fn grid(&self, channel: usize) -> &Grid {
        &self.grids[channel.min(self.grids.len() - 1)]
    }
    /// What the integers of a channel stand for.
    pub fn restored(&self, channel: usize) -> Vec<f32> {
        let grid = self.grid(channel);
        self.rows[channel].iter().map(|&q| grid.restore(q)).collect()
    }
    /// Widens the grids of channels whose bias would not fit 32 bits in units of input scale times weight scale. That
    /// happens to channels of zeros, whose scale says nothing, and next to none besides.
    pub fn fit_biases(&mut self, bias: &[f32], input_scale: f32, weights: &[Vec<f32>]) {
        for (c, &b) in bias.iter().enumerate() {
            let at = c.min(self.grids.len() - 1);
            let least = (f64::from(b.abs()) / f64::from(input_scale) / MOST_BIAS) as f32;
            if self.grids[at].scale < least {
                self.grids[at].scale = least;
                let grid = self.grids[at];
                let shared = self.grids.len() == 1;
                for (r, row) in weights.iter().enumerate().filter(|(r, _)| shared || *r == c) {
                    self.rows[r] = row.iter().map(|&w| grid.quantise(w)).collect();
                }
            }
        }
    }
}

/// The largest bias in units of a sum: what `i32` holds, with room for the sum itself.
const MOST_BIAS: f64 = (1u32 << 30) as f64;

/// The grid for `weights` of least squared error.
fn fitted(weights: &[f32], scheme: WeightScheme) -> Grid {
    let (low, high) = weights.iter().fold((0f32, 0f32), |(l, h), &w| (l.min(w), h.max(w)));
    let make = |share: f32| match scheme.symmetric {
        true => Grid::symmetric(high.max(-low) * share, Levels::symmetric(scheme.bits)),
        false => Grid::spanning(low * share, high * share, Levels::signed(scheme.bits)),
    };
    make(best_share(|share| make(share).squared_error(weights.iter().copied())))
}

/// The mean squared error of the quantised weights, relative to the weights' mean square; 0 for weights of zeros.
pub fn relative_error(quantised: &QuantisedWeights, rows: &[Vec<f32>]) -> f64 {
    let (mut error, mut power) = (0.0, 0.0);
    for (c, row) in rows.iter().enumerate() {
        for (w, r) in row.iter().zip(quantised.restored(c)) {
            error += f64::from(w - r).powi(2);
            power += f64::from(*w).powi(2);
        }
    }
    if power == 0.0 { 0.0 } else { error / power }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::testing::{network_of, normal_weights};
    use proptest::prelude::*;

    #[test]
    fn channels_of_zeros_leave_room_for_their_bias() {
        let mut weights = normal_weights(4 * 9, 1);
        weights[9..18].fill(0.0);
        let network = network_of(1, 4, weights);
        let layer = &network.layers[0];
        let mut q = QuantisedWeights::nearest(layer, &network.graph, WeightScheme::default());
        assert_eq!(q.rows[1], [0; 9]);
        let rows = layer.rows(layer.weights_of(&network.graph));
        q.fit_biases(&[0.0, 5e9, 0.0, 0.0], 0.1, &rows);
        assert!(5e9 / (0.1 * f64::from(q.grid(1).scale)) < f64::from(i32::MAX));
        assert_eq!((q.rows[1].clone(), q.grid(0).scale), (vec![0; 9], q.grids[0].scale));
    }

    #[test]
    fn more_bits_converge() {
        let network = network_of(3, 8, normal_weights(3 * 8 * 9, 2));
        let layer = &network.layers[0];
        let rows = layer.rows(layer.weights_of(&network.graph));
        let errors: Vec<f64> = [2, 4, 8, 12, 16]
            .map(|bits| {
                let scheme = WeightScheme { bits, ..WeightScheme::default() };
                relative_error(&QuantisedWeights::nearest(layer, &network.graph, scheme), &rows)
            })
            .to_vec();
        assert!(errors.is_sorted_by(|a, b| a > b), "{errors:?}");
        assert!(errors[4] < 1e-8, "{errors:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn channels_err_less_than_tensors(seed in 0u64..1000, bits in 2u32..=8, outputs in 2usize..6) {
            let mut weights = normal_weights(2 * outputs * 9, seed);
            for (c, row) in weights.chunks_mut(18).enumerate() {
                row.iter_mut().for_each(|w| *w *= 1.0 + 3.0 * c as f32);
            }
            let network = network_of(2, outputs, weights);
            let layer = &network.layers[0];
            let rows = layer.rows(layer.weights_of(&network.graph));
            let error = |per_channel| {
                let scheme = WeightScheme { bits, per_channel, symmetric: true };
                relative_error(&QuantisedWeights::nearest(layer, &network.graph, scheme), &rows)
            };
            prop_assert!(error(true) <= error(false) * 1.0001);
        }
    }
}
