//! Bias correction: rounding shifts the mean of a layer's sums, and its bias can take that back.
//!
//! Nagel et al. (ICCV 2019), Finkelstein et al. ("Fighting Quantization Bias With Bias", 2019): rounding errors of weights
//! do not cancel when their inputs are not centred, as behind ReLU, and the shift is the same for all pictures. The means are
//! measured on the calibration pictures, layer by layer: each sees its input as the corrected layers before it make it.

use super::place::{Form, quantised};
use super::prepare::Network;
use super::run::Pictures;
use super::scheme::Scheme;
use super::watch::Watch;
use planish_graph::{Result, ValueId};

/// Moves the biases of `network`, whose other numbers stay, so that under `scheme` the mean of every output channel of
/// every integer layer is what it is in float. Layers without a bias are left alone, and those that the watch does not
/// leave time for.
pub fn correct(network: &mut Network, scheme: &mut Scheme, pictures: &Pictures<'_>, watch: &mut Watch<'_>) -> Result<()> {
    let layers: Vec<usize> = (0..network.layers.len())
        .filter(|l| !scheme.float.contains(l) && network.layers[*l].bias.is_some())
        .collect();
    watch.begin("correcting biases", layers.len());
    let values: Vec<ValueId> = layers.iter().map(|&l| network.layers[l].output).collect();
    let wanted = watch.within(|w| pictures.channel_means(&network.graph, &values, w))?;
    for (&l, wanted) in layers.iter().zip(wanted) {
        let graph = quantised(network, scheme, Form::Simulated)?;
        let layer = network.layers[l].clone();
        let found = watch.within(|w| pictures.channel_means(&graph, &[layer.output], w))?;
        let bias: Vec<f32> = layer
            .bias_of(&network.graph)
            .iter()
            .zip(wanted.iter().zip(&found[0]))
            .map(|(b, (wanted, found))| (f64::from(*b) + wanted - found) as f32)
            .collect();
        if bias.len() == layer.channels && bias.iter().all(|b| b.is_finite()) {
            network.set_bias(&layer, &bias)?;
        }
        if !watch.step() {
            break;
        }
    }
    scheme.fit_biases(network);
    Ok(())
}
