//! Bias correction: rounded weights shift the mean of a layer's sums, and its bias can take that back.
//!
//! Nagel et al. (ICCV 2019), Finkelstein et al. ("Fighting Quantization Bias With Bias", 2019): rounding errors of weights
//! do not cancel when their inputs are not centred, as behind ReLU, and the shift `E[(W − Ŵ)·x]` is the same for all
//! pictures. By linearity it follows from the mean of each input channel, measured on the calibration pictures with
//! everything before the layer quantised. Only what weights do is corrected: inputs that are clipped shift the mean by a few
//! large numbers, and a bias that makes up for those moves all the others away.

use super::pairs::input_channel;
use super::place::{Form, quantised};
use super::prepare::Network;
use super::run::Pictures;
use super::scheme::Scheme;
use super::watch::Watch;
use planish_graph::{Result, ValueId};

/// Moves the biases of `network`, whose other numbers stay, so that under `scheme` rounded weights leave the mean of every
/// output channel of every integer layer where it was. Layers without a bias are left alone.
pub fn correct(
    network: &mut Network,
    scheme: &mut Scheme,
    pictures: &Pictures<'_>,
    watch: &mut Watch<'_>,
) -> Result<()> {
    let layers: Vec<usize> = (0..network.layers.len())
        .filter(|l| !scheme.float.contains(l) && network.layers[*l].bias.is_some())
        .collect();
    let graph = quantised(network, scheme, Form::Simulated)?;
    // What a layer reads in the simulated graph is the rounded value.
    let read = |l: usize| {
        let output = Some(network.layers[l].output);
        let node = graph.nodes.iter().find(|n| n.output() == output);
        node.and_then(|n| n.input(0)).unwrap_or(network.layers[l].input)
    };
    let values: Vec<ValueId> = layers.iter().map(|&l| read(l)).collect();
    watch.begin("correcting biases", pictures.batches.len());
    let means = pictures.channel_means(&graph, &values, watch)?;
    for (&l, means) in layers.iter().zip(means) {
        let layer = network.layers[l].clone();
        let weights = layer.weights_of(&network.graph);
        let rows: Vec<Vec<f32>> = (0..layer.channels).map(|c| scheme.weights[l].restored(c)).collect();
        let rounded = layer.unrows(&rows, weights);
        let mut bias: Vec<f64> = layer.bias_of(&network.graph).iter().map(|b| f64::from(*b)).collect();
        for (i, (w, r)) in weights.to_f32s().iter().zip(&rounded).enumerate() {
            let mean = means.get(input_channel(&layer, weights, i)).copied().unwrap_or(0.0);
            bias[layer.channel_of(i, weights)] += f64::from(w - r) * mean;
        }
        if bias.iter().all(|b| b.is_finite()) {
            network.set_bias(&layer, &bias.iter().map(|b| *b as f32).collect::<Vec<f32>>())?;
        }
    }
    scheme.fit_biases(network);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::calibrate::Calibration;
    use crate::quantize::grid::Levels;
    use crate::quantize::observe::observer;
    use crate::quantize::testing::{batches, conv, open_graph, relu};
    use crate::quantize::weights::WeightScheme;
    use planish_engine::SessionOptions;

    #[test]
    fn means_are_those_of_float_again() {
        let (mut g, x) = open_graph(3);
        let a = conv(&mut g, "a", x, [3, 8, 1], 1, 1);
        let a = relu(&mut g, "a.relu", a);
        let b = conv(&mut g, "b", a, [8, 8, 1], 1, 2);
        g.outputs.push(b);
        let mut network = Network::of(&g).unwrap();
        let given = batches(4, 4, 5);
        let options = SessionOptions::default();
        let pictures = Pictures { batches: &given, options: &options };
        let mut go_on = |_: crate::quantize::watch::Event<'_>| true;
        let mut watch = Watch::new(&mut go_on);
        let grids = Calibration::of(&network, &pictures, &mut watch)
            .unwrap()
            .grids(observer("min-max").unwrap(), Levels::unsigned(12));
        let coarse = WeightScheme { bits: 3, ..WeightScheme::default() };
        let mut scheme = Scheme::new(&network, grids, &[coarse; 2]);
        let last = [network.layers[1].output];
        let wanted = pictures.channel_means(&network.graph, &last, &mut watch).unwrap();
        let mut found = Vec::new();
        for corrected in [false, true] {
            if corrected {
                correct(&mut network, &mut scheme, &pictures, &mut watch).unwrap();
            }
            let graph = quantised(&network, &scheme, Form::Simulated).unwrap();
            let means = pictures.channel_means(&graph, &last, &mut watch).unwrap();
            found.push(means[0].iter().zip(&wanted[0]).map(|(a, b)| (a - b).powi(2)).sum::<f64>());
        }
        assert!(found[1] < 0.1 * found[0], "{found:?}");
    }
}
