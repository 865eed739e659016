//! Cross-layer equalisation: factors moved from one layer into the next until their channels reach equally far.
//!
//! Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019). Where channel `i` of
//! a layer gets the factor `k` and the next layer's weights for it `1/k`, nothing changes as long as the function between
//! them commutes with positive factors. With `k = √(r2/r1)` both reach `√(r1·r2)`. Through bounds (ReLU6) a factor passes
//! only while the channel stays below them: a channel that was seen at its bound keeps its factor of 1, and any other grows
//! no further than to the bound. That is exact for what was seen.

use super::pairs::{Between, Pair, input_channel, pairs};
use super::prepare::Network;
use super::run::Pictures;
use super::watch::Watch;
use planish_graph::{Result, Tensor};

/// Rounds over all pairs; chains of depthwise triples settle in a few.
const ROUNDS: usize = 40;
/// A round that changes no factor by more than this is the last.
const SETTLED: f32 = 1e-3;
/// How near to a bound a channel may be scaled.
const ROOM: f32 = 0.999;

/// Equalises `network` in place and says how many pairs there were.
pub fn equalise(network: &mut Network, pictures: &Pictures<'_>, watch: &mut Watch<'_>) -> Result<usize> {
    let pairs = pairs(network);
    let mut reached = channel_maxima(network, &pairs, pictures, watch)?;
    for _ in 0..ROUNDS {
        let mut largest_change = 0f32;
        for (pair, reached) in pairs.iter().zip(&mut reached) {
            let factors = factors(network, pair, reached);
            scale(network, pair, &factors)?;
            for (r, k) in reached.iter_mut().zip(&factors) {
                *r *= k;
                largest_change = largest_change.max(k.ln().abs());
            }
        }
        if largest_change < SETTLED {
            break;
        }
    }
    Ok(pairs.len())
}

/// The largest number of each channel between the layers of each bounded pair; nothing for the others.
fn channel_maxima(
    network: &Network,
    pairs: &[Pair],
    pictures: &Pictures<'_>,
    watch: &mut Watch<'_>,
) -> Result<Vec<Vec<f32>>> {
    let mut maxima: Vec<Vec<f32>> =
        pairs.iter().map(|p| vec![0.0; network.layers[p.first].channels]).collect();
    let bounded: Vec<usize> =
        (0..pairs.len()).filter(|&p| matches!(pairs[p].between, Between::Bounded(_))).collect();
    if bounded.is_empty() {
        return Ok(maxima);
    }
    let values: Vec<_> = bounded.iter().map(|&p| pairs[p].value).collect();
    watch.begin("equalising", pictures.batches.len());
    pictures.visit(&network.graph, &values, watch, |_, v, tensor| {
        let maxima = &mut maxima[bounded[v]];
        let plane = tensor.shape().iter().skip(2).product::<usize>().max(1);
        for (i, values) in tensor.as_slice::<f32>()?.chunks_exact(plane).enumerate() {
            let channel = i % maxima.len();
            maxima[channel] = values.iter().fold(maxima[channel], |a, &x| a.max(x));
        }
        Ok(())
    })?;
    Ok(maxima)
}

/// The factor of each channel between the layers of `pair`.
fn factors(network: &Network, pair: &Pair, reached: &[f32]) -> Vec<f32> {
    let (first, second) = (&network.layers[pair.first], &network.layers[pair.second]);
    let mut before = vec![0f32; first.channels];
    let weights = first.weights_of(&network.graph);
    for (i, w) in weights.to_f32s().into_iter().enumerate() {
        let channel = &mut before[first.channel_of(i, weights)];
        *channel = channel.max(w.abs());
    }
    let mut behind = vec![0f32; first.channels];
    let weights = second.weights_of(&network.graph);
    for (i, w) in weights.to_f32s().into_iter().enumerate() {
        let channel = &mut behind[input_channel(second, weights, i)];
        *channel = channel.max(w.abs());
    }
    (0..first.channels)
        .map(|c| {
            let (r1, r2) = (before[c], behind[c]);
            if r1 == 0.0 || r2 == 0.0 {
                return 1.0;
            }
            let wanted = (r2 / r1).sqrt().clamp(1e-3, 1e3);
            match pair.between {
                Between::Bounded(bound) if reached[c] >= ROOM * bound => 1.0,
                Between::Bounded(bound) if reached[c] > 0.0 => wanted.min(ROOM * bound / reached[c]),
                _ => wanted,
            }
        })
        .collect()
}

/// Multiplies the channels of the first layer by `factors`, and divides in the second.
fn scale(network: &mut Network, pair: &Pair, factors: &[f32]) -> Result<()> {
    let (first, second) = (&network.layers[pair.first], &network.layers[pair.second]);
    let weights = first.weights_of(&network.graph);
    let scaled: Vec<f32> = weights
        .to_f32s()
        .iter()
        .enumerate()
        .map(|(i, w)| w * factors[first.channel_of(i, weights)])
        .collect();
    let scaled = Tensor::new(weights.shape(), &scaled)?;
    let weights = second.weights_of(&network.graph);
    let divided: Vec<f32> = weights
        .to_f32s()
        .iter()
        .enumerate()
        .map(|(i, w)| w / factors[input_channel(second, weights, i)])
        .collect();
    let divided = Tensor::new(weights.shape(), &divided)?;
    let bias: Vec<f32> = first.bias_of(&network.graph).iter().zip(factors).map(|(b, k)| b * k).collect();
    let (first, second) = (first.clone(), second.clone());
    network.graph.value_mut(first.weights).constant = Some(scaled);
    network.graph.value_mut(second.weights).constant = Some(divided);
    network.set_bias(&first, &bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::testing::{batches, classifier, conv, open_graph};
    use planish_engine::SessionOptions;
    use planish_graph::ops::math::clip::Clip;
    use planish_graph::{Graph, reference};

    fn check(graph: &Graph, expected_pairs: usize) -> Network {
        let mut network = Network::of(graph).unwrap();
        let before = network.clone();
        let given = batches(2, 2, 5);
        let options = SessionOptions::default();
        let pictures = Pictures { batches: &given, options: &options };
        let mut go_on = |_: crate::quantize::watch::Event<'_>| true;
        assert_eq!(equalise(&mut network, &pictures, &mut Watch::new(&mut go_on)).unwrap(), expected_pairs);
        for batch in &given {
            let run =
                |n: &Network| reference::run(&n.graph, std::slice::from_ref(batch)).unwrap()[0].to_f64s();
            let (old, new) = (run(&before), run(&network));
            let largest = old.iter().fold(0f64, |a, x| a.max(x.abs()));
            for (a, b) in old.iter().zip(&new) {
                assert!((a - b).abs() < 1e-5 * largest, "{a} {b}");
            }
        }
        network
    }

    #[test]
    fn float_answers_stay_and_ranges_meet() {
        let network = check(&classifier(), 2);
        // The depthwise triple: each channel of "expand" now reaches as far as the one of "depth" behind it.
        let pairs = pairs(&network);
        for pair in pairs {
            let factors = factors(&network, &pair, &[]);
            assert!(factors.iter().all(|k| k.ln().abs() < 2.0 * SETTLED), "{factors:?}");
        }
    }

    #[test]
    fn bounds_are_not_passed() {
        let (mut g, x) = open_graph(3);
        let a = conv(&mut g, "a", x, [3, 6, 3], 1, 1);
        let ends = [0.0, 2.0].map(|v| Tensor::scalar(v as f32));
        let [low, high] = [("low", &ends[0]), ("high", &ends[1])].map(|(n, t)| g.add_constant(n, t.clone()));
        let bounded = g.add_node("bounded", Clip, &[a, low, high]);
        let b = conv(&mut g, "b", bounded, [6, 4, 1], 1, 2);
        g.outputs.push(b);
        check(&g, 1);
    }
}
