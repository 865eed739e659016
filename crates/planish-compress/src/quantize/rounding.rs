//! Adaptive rounding of a whole network, layer by layer: each learns from inputs as the rounded layers before it make them.

use super::adaround::{AdaRound, Channel, Rounded};
use super::pairs::{Between, following};
use super::place::{Form, quantised};
use super::prepare::Network;
use super::run::Pictures;
use super::samples::{Bend, Place, Reader, Samples};
use super::scheme::Scheme;
use super::watch::Watch;
use crate::random::Random;
use planish_graph::{Graph, Result, Tensor, ValueId};

/// The most numbers that samples of a layer's inputs may be, and the most and fewest samples.
const MOST_NUMBERS: usize = 8 << 20;
const SAMPLES: [usize; 2] = [256, 2048];

/// What rounding one layer gained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// The layer, by its place among the layers.
    pub layer: usize,
    /// The squared error of its results with nearest rounding, over the power of the wanted results.
    pub nearest: f64,
    /// The same with adaptive rounding.
    pub adapted: f64,
}

/// Rounds the weights of every integer layer anew. Layers that the watch leaves no time for keep what they have.
pub fn adapt(
    network: &Network,
    scheme: &mut Scheme,
    pictures: &Pictures<'_>,
    options: &AdaRound,
    watch: &mut Watch<'_>,
) -> Result<Vec<Gain>> {
    let pictures = pictures.first(options.pictures);
    let layers: Vec<usize> = (0..network.layers.len()).filter(|l| !scheme.float.contains(l)).collect();
    watch.begin("adaptive rounding", layers.len());
    let mut gains = Vec::with_capacity(layers.len());
    for l in layers {
        if watch.is_stopped() {
            break;
        }
        gains.push(watch.within(|w| adapt_layer(network, scheme, l, &pictures, options, w))?);
        watch.step();
    }
    Ok(gains)
}

fn adapt_layer(
    network: &Network,
    scheme: &mut Scheme,
    l: usize,
    pictures: &Pictures<'_>,
    options: &AdaRound,
    watch: &mut Watch<'_>,
) -> Result<Gain> {
    let layer = &network.layers[l];
    let simulated = quantised(network, scheme, Form::Simulated)?;
    let rounded = read_by(&simulated, layer.output).unwrap_or(layer.input);
    let inputs = all(pictures, &simulated, rounded, watch)?;
    let outputs = all(pictures, &network.graph, layer.output, watch)?;
    let bend = match following(network, l) {
        Between::Relu => Bend::Bounded(0.0, f32::INFINITY),
        Between::Bounded(high) => Bend::Bounded(0.0, high),
        Between::Nothing | Between::Homogeneous => Bend::None,
    };
    let bias = layer.bias_of(&network.graph);
    let rows = layer.rows(layer.weights_of(&network.graph));
    let (mut nearest, mut adapted, mut power) = (0.0, 0.0, 0.0);
    for group in 0..layer.groups {
        let channels: Vec<usize> =
            (group * layer.channels / layer.groups..(group + 1) * layer.channels / layer.groups).collect();
        let seed = options.seed ^ ((l as u64) << 20) ^ group as u64;
        let samples = take(network, l, group, (&inputs, &outputs), bend, seed)?;
        let work = |&c: &usize| {
            let weights = &rows[c];
            let grid = *scheme.weights[l].grid(c);
            let index = c - channels[0];
            Channel { weights, grid, bias: bias[c], bend, samples: &samples, index }.round(options)
        };
        for (c, found) in channels.iter().zip(in_parallel(&channels, pictures.options.threads, &work)) {
            nearest += found.nearest_error;
            adapted += found.error;
            power += samples.wanted(c - channels[0]).iter().map(|y| f64::from(*y).powi(2)).sum::<f64>();
            scheme.weights[l].rows[*c] = found.integers;
        }
    }
    let relative = |error: f64| if power > 0.0 { error / power } else { 0.0 };
    Ok(Gain { layer: l, nearest: relative(nearest), adapted: relative(adapted) })
}

/// The value that the node which makes `output` reads first.
fn read_by(graph: &Graph, output: ValueId) -> Option<ValueId> {
    graph.nodes.iter().find(|n| n.output() == Some(output))?.input(0)
}

/// `value` for every batch.
fn all(pictures: &Pictures<'_>, graph: &Graph, value: ValueId, watch: &mut Watch<'_>) -> Result<Vec<Tensor>> {
    let mut found = Vec::with_capacity(pictures.batches.len());
    pictures.visit(graph, &[value], watch, |_, _, tensor| {
        found.push(tensor.clone());
        Ok(())
    })?;
    Ok(found)
}

/// Random samples of the channels of one group.
fn take(
    network: &Network,
    l: usize,
    group: usize,
    (inputs, outputs): (&[Tensor], &[Tensor]),
    bend: Bend,
    seed: u64,
) -> Result<Samples> {
    let layer = &network.layers[l];
    let width = layer.weights_of(&network.graph).len() / layer.channels;
    let count = (MOST_NUMBERS / width.max(1)).clamp(SAMPLES[0], SAMPLES[1]);
    let per_group = layer.channels / layer.groups;
    let mut random = Random::new(seed);
    let mut rows = Vec::with_capacity(count * width);
    let mut wanted = vec![Vec::with_capacity(count); per_group];
    for _ in 0..count {
        let batch = random.below(inputs.len());
        let (x, y) = (&inputs[batch], &outputs[batch]);
        let reader = Reader::of(layer, &network.graph, x.shape())?;
        let place: Place = (random.below(x.shape()[0]), random.below(reader.results(x.shape()).max(1)));
        reader.read(x, place, group, layer.groups, &mut rows)?;
        for (c, wanted) in wanted.iter_mut().enumerate() {
            wanted.push(bend.apply(reader.result(y, place, group * per_group + c)?));
        }
    }
    Ok(Samples::new(width, rows, wanted))
}

/// `work` for all `items`, in their order; 0 threads stands for as many as the machine gives.
fn in_parallel(items: &[usize], threads: usize, work: &(dyn Fn(&usize) -> Rounded + Sync)) -> Vec<Rounded> {
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { available() } else { threads };
    let portion = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = items
            .chunks(portion)
            .map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<Rounded>>()))
            .collect();
        let finished = parts.into_iter().map(|part| part.join());
        // A panic in a thread goes on here.
        finished.flat_map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
