//! High-bias absorption: what a channel always exceeds is moved behind its ReLU, so that its levels need not span it.
//!
//! Nagel et al. (ICCV 2019): where a channel lies above `c` for all but a few numbers, `ReLU(x) = ReLU(x − c) + c` for all
//! but those, and `W·c` is a constant that belongs into the next layer's bias. `c = max(0, mean − 3·deviation)`, measured on
//! the calibration pictures rather than read off a batch normalisation, which is long folded. A next layer that pads would
//! read zeros where `c` is missing, so those are left alone.

use super::pairs::{Between, input_channel, pairs};
use super::prepare::Network;
use super::run::Pictures;
use super::watch::Watch;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::window::AutoPad;
use planish_graph::{OperatorExt, Result, ValueId};

/// Deviations below the mean: one number in a thousand of a normal distribution is below them.
const DEVIATIONS: f64 = 3.0;

/// Absorbs in place, and says how many channels had something to give.
pub fn absorb(network: &mut Network, pictures: &Pictures<'_>, watch: &mut Watch<'_>) -> Result<usize> {
    let mut pairs = pairs(network);
    pairs.retain(|p| {
        let second = &network.layers[p.second];
        let pads = network.graph.nodes[second.node]
            .op
            .as_op::<Conv>()
            .is_some_and(|c| c.pads.iter().any(|p| *p > 0) || c.auto_pad != AutoPad::NotSet);
        let biased = network.layers[p.first].bias.is_some() && second.bias.is_some();
        p.between == Between::Relu && !pads && biased
    });
    let values: Vec<ValueId> = pairs.iter().map(|p| network.layers[p.first].output).collect();
    if values.is_empty() {
        return Ok(0);
    }
    watch.begin("absorbing biases", pictures.batches.len());
    let moments = moments(&network.graph, &values, pictures, watch)?;
    let mut absorbed = 0;
    for (pair, moments) in pairs.iter().zip(moments) {
        let (first, second) = (network.layers[pair.first].clone(), network.layers[pair.second].clone());
        let given: Vec<f64> =
            moments.iter().map(|(mean, deviation)| (mean - DEVIATIONS * deviation).max(0.0)).collect();
        absorbed += given.iter().filter(|c| **c > 0.0).count();
        let bias: Vec<f32> = first
            .bias_of(&network.graph)
            .iter()
            .zip(&given)
            .map(|(b, c)| (f64::from(*b) - c) as f32)
            .collect();
        let mut behind: Vec<f64> = second.bias_of(&network.graph).iter().map(|b| f64::from(*b)).collect();
        let weights = second.weights_of(&network.graph);
        for (i, w) in weights.to_f32s().into_iter().enumerate() {
            behind[second.channel_of(i, weights)] += f64::from(w) * given[input_channel(&second, weights, i)];
        }
        network.set_bias(&first, &bias)?;
        network.set_bias(&second, &behind.iter().map(|b| *b as f32).collect::<Vec<f32>>())?;
    }
    Ok(absorbed)
}

/// Mean and standard deviation of each channel of `values`.
fn moments(
    graph: &planish_graph::Graph,
    values: &[ValueId],
    pictures: &Pictures<'_>,
    watch: &mut Watch<'_>,
) -> Result<Vec<Vec<(f64, f64)>>> {
    let mut sums: Vec<Vec<[f64; 3]>> = vec![Vec::new(); values.len()];
    pictures.visit(graph, values, watch, |_, v, tensor| {
        let channels = *tensor.shape().get(1).unwrap_or(&1);
        let plane = tensor.shape().iter().skip(2).product::<usize>().max(1);
        sums[v].resize(channels, [0.0; 3]);
        for (i, values) in tensor.as_slice::<f32>()?.chunks_exact(plane).enumerate() {
            let [n, first, second] = &mut sums[v][i % channels];
            *n += values.len() as f64;
            for &x in values {
                *first += f64::from(x);
                *second += f64::from(x) * f64::from(x);
            }
        }
        Ok(())
    })?;
    let moment = |[n, first, second]: [f64; 3]| {
        let mean = first / n.max(1.0);
        (mean, (second / n.max(1.0) - mean * mean).max(0.0).sqrt())
    };
    Ok(sums.into_iter().map(|channels| channels.into_iter().map(moment).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::testing::{batches, conv, open_graph, relu};
    use planish_engine::SessionOptions;
    use planish_graph::reference;

    #[test]
    fn biases_move_and_answers_stay() {
        let (mut g, x) = open_graph(3);
        let a = conv(&mut g, "a", x, [3, 4, 1], 1, 1);
        let bias = planish_graph::Tensor::new(&[4], &[40f32, 0.0, 30.0, 0.0]).unwrap();
        let at = g.find_value("a.b").unwrap();
        g.value_mut(at).constant = Some(bias);
        let a = relu(&mut g, "a.relu", a);
        let b = conv(&mut g, "b", a, [4, 4, 1], 1, 2);
        g.outputs.push(b);
        let before = Network::of(&g).unwrap();
        let mut network = before.clone();
        let given = batches(2, 2, 5);
        let options = SessionOptions::default();
        let pictures = Pictures { batches: &given, options: &options };
        let mut go_on = |_: crate::quantize::watch::Event<'_>| true;
        assert_eq!(absorb(&mut network, &pictures, &mut Watch::new(&mut go_on)).unwrap(), 2);
        assert!(network.layers[0].bias_of(&network.graph)[0] < 20.0);
        let run = |n: &Network| reference::run(&n.graph, &given[..1]).unwrap()[0].to_f64s();
        let (old, new) = (run(&before), run(&network));
        let error: f64 = old.iter().zip(&new).map(|(a, b)| (a - b).powi(2)).sum();
        let power: f64 = old.iter().map(|a| a * a).sum();
        assert!(error < 1e-5 * power, "{error} {power}");
    }
}
