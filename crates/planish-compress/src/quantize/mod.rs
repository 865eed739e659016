//! Post-training quantisation: from a float network and pictures to a network of small integers.
//!
//! In this order, each step in a file of its own:
//!
//! 1. `prepare`: the simplified graph, its layers, nothing fused; `roles` says which values become integers.
//! 2. `equalise`, `absorb_bias` (both on request): the float network made easier to quantise.
//! 3. `calibrate`: statistics of the values on real pictures, from which an observer (`observe/`) makes ranges. Without a
//!    choice of the caller, several observers are tried, and the one is taken whose answers are nearest to float.
//! 4. `weights`, their bits chosen by `allocate` where there is a budget, and those of activations by `activation_bits`, then
//!    `rounding` (on request), then `correct_bias`.
//! 5. `sensitivity`: what each layer costs by itself. `mixed`: which layers go back to float, because they are faster there or
//!    for accuracy's sake.
//! 6. `place`: the graph with QuantizeLinear and DequantizeLinear in it, or with rounding simulated in float.
//!
//! `weights_only` is a shorter way, for large dense layers, and needs no pictures.
//!
//! Everything but the pictures is fixed by the options: equal input gives equal output, on any number of threads.

mod absorb_bias;
pub mod activation_bits;
pub mod adaround;
pub mod allocate;
mod calibrate;
mod correct_bias;
mod equalise;
pub mod grid;
mod layers;
pub mod mixed;
pub mod observe;
mod pairs;
mod place;
mod prepare;
mod roles;
mod rounding;
mod run;
mod samples;
mod scheme;
mod sensitivity;
pub mod statistics;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod watch;
mod weights;
pub mod weights_only;

pub use place::Form;
pub use rounding::Gain;
pub use run::{Distance, Pictures};
pub use watch::{Event, Watch};
pub use weights::WeightScheme;

use activation_bits::ActivationBits;
use adaround::AdaRound;
use calibrate::Calibration;
use grid::Levels;
use observe::{Observer, observer, observers};
use planish_graph::{Graph, Result, Tensor, invalid};
use prepare::Network;
use scheme::Scheme;
use std::collections::BTreeSet;

/// How to quantise.
#[derive(Clone, Debug)]
pub struct Options {
    /// The observer of ranges, by name; `None` for the best of several.
    pub observer: Option<String>,
    /// How weights become integers.
    pub weights: WeightScheme,
    /// Bytes that all weights together may take, with widths chosen for each layer ([`allocate::WIDTHS`]) in place of
    /// `weights.bits`.
    pub weight_budget: Option<usize>,
    /// The integers of activations, where they have 8 bits.
    pub activations: Levels,
    /// How many bits they have.
    pub activation_bits: ActivationBits,
    /// Whether layers are equalised, and high biases absorbed, first.
    pub equalise: bool,
    /// Whether biases are corrected.
    pub correct_bias: bool,
    /// Whether weights are rounded adaptively, and how.
    pub rounding: Option<AdaRound>,
    /// Names of layers that stay float.
    pub keep_float: Vec<String>,
    /// Whether the sensitivity of layers is measured.
    pub sensitivity: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            observer: None,
            weights: WeightScheme::default(),
            weight_budget: None,
            activations: Levels::U8,
            activation_bits: ActivationBits::Given,
            equalise: false,
            correct_bias: true,
            rounding: None,
            keep_float: Vec::new(),
            sensitivity: false,
        }
    }
}

/// Observers that are tried where none is asked for; the others are seldom best and never by much.
const TRIED: [&str; 4] = ["min-max", "percentile-99.999", "percentile-99.99", "mse"];

/// Pictures that choices are made on, that biases are corrected by, and that sensitivities are measured on.
const CHOOSING: usize = 64;
const CORRECTING: usize = 96;
const SENSING: usize = 32;

/// What is told of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerReport {
    /// The node's name.
    pub name: String,
    /// The operator.
    pub operator: &'static str,
    /// Weights.
    pub weights: usize,
    /// Bits of a weight, where it does not stay float.
    pub bits: u32,
    /// Bits of an element of its input, where it does not stay float.
    pub activation_bits: u32,
    /// Whether it stays float.
    pub float: bool,
    /// The squared error of the integer weights over the weights' squares.
    pub weight_noise: f64,
    /// What quantising it alone does to the answers, where that was measured.
    pub alone: Option<Distance>,
}

/// A network with everything that was decided about it. [`Quantised::graph`] makes the graph.
pub struct Quantised {
    network: Network,
    /// The network before biases were corrected, where they are to be.
    uncorrected: Option<Network>,
    scheme: Scheme,
    alone: Vec<Option<Distance>>,
    /// By layer, of a weight.
    bits: Vec<u32>,
    float_answers: Vec<Tensor>,
    /// The shape of a batch of the pictures that it was quantised with.
    batch: Vec<usize>,
    /// The observer that made the ranges.
    pub observer: &'static str,
    /// The observers that were tried, and the distance of their answers from float before anything was corrected.
    pub tried: Vec<(&'static str, Distance)>,
    /// What adaptive rounding gained, by layer.
    pub gains: Vec<Gain>,
    /// Pairs of layers that were equalised, and channels whose bias was absorbed.
    pub equalised: (usize, usize),
    /// Whether corrected biases brought the answers nearer to float, and were kept.
    pub corrected: bool,
    /// Different scales of activations.
    pub scales: usize,
}

/// Quantises `graph`, a float network with one input, as `options` say. Errors name the node or value at fault: a network
/// that is quantised already or has nothing to quantise, values that are not finite, no pictures.
pub fn quantize(
    graph: &Graph,
    pictures: &Pictures<'_>,
    options: &Options,
    watch: &mut Watch<'_>,
) -> Result<Quantised> {
    let mut network = Network::of(graph)?;
    let float = named(&network, &options.keep_float)?;
    let float_answers = watch.within(|w| pictures.first(CHOOSING).outputs(&network.graph, w))?;
    let mut equalised = (0, 0);
    if options.equalise {
        equalised.0 = equalise::equalise(&mut network, pictures, watch)?;
        equalised.1 = absorb_bias::absorb(&mut network, pictures, watch)?;
    }
    let calibration = Calibration::of(&network, pictures, watch)?;
    let schemes = vec![options.weights; network.layers.len()];
    let levels = options.activations;
    let make = |observer: &dyn Observer| {
        let grids = calibration.grids(observer, levels);
        let mut scheme = Scheme::new(&network, grids, &schemes);
        scheme.keep_float(&network, float.clone(), BTreeSet::new());
        scheme
    };
    let choosing = pictures.first(CHOOSING);
    let (found, mut scheme, tried) = match &options.observer {
        Some(name) => {
            let chosen = observer(name)?;
            (chosen.name(), make(chosen), Vec::new())
        }
        None => choose(&network, &float_answers, &choosing, &make, watch)?,
    };
    let mut bits = vec![options.weights.bits; network.layers.len()];
    let few = pictures.first(SENSING);
    let wanted = &float_answers[..few.batches.len().min(float_answers.len())];
    if let Some(budget) = options.weight_budget {
        let widths = allocate::widths(&network, &scheme, options.weights, budget, (&few, wanted), watch)?;
        bits = widths.iter().map(|w| w.bits).collect();
        scheme = Scheme::new(&network, scheme.grids, &widths);
        scheme.keep_float(&network, float.clone(), BTreeSet::new());
    }
    if let ActivationBits::Within(budget) = options.activation_bits {
        let four = calibration.grids(observer(found)?, levels.of_bits(4));
        activation_bits::choose(&network, &mut scheme, &four, (&bits, budget), (&few, wanted), watch)?;
    }
    let mut gains = Vec::new();
    if let Some(rounding) = &options.rounding {
        gains = rounding::adapt(&network, &mut scheme, pictures, rounding, watch)?;
    }
    let mut made = Quantised {
        alone: vec![None; network.layers.len()],
        uncorrected: options.correct_bias.then(|| network.clone()),
        bits,
        network,
        scheme,
        float_answers,
        batch: pictures.shape().to_vec(),
        observer: found,
        tried,
        gains,
        equalised,
        corrected: false,
        scales: calibration.scales(),
    };
    made.correct_biases(pictures, watch)?;
    if options.sensitivity {
        made.measure_sensitivity(pictures, watch)?;
    }
    Ok(made)
}

/// An error where [`quantize`] would refuse `graph` for what it is, and not for what its values are.
pub fn check(graph: &Graph) -> Result<()> {
    Network::of(graph).map(drop)
}

/// The layers of these names.
fn named(network: &Network, names: &[String]) -> Result<BTreeSet<usize>> {
    let mut found = BTreeSet::new();
    for name in names {
        let before = found.len();
        found.extend((0..network.layers.len()).filter(|l| network.layers[*l].name == *name));
        if found.len() == before && !found.iter().any(|l: &usize| network.layers[*l].name == *name) {
            let all: Vec<&str> = network.layers.iter().map(|l| l.name.as_str()).collect();
            invalid!("no layer is named \"{name}\"; the layers are {}", all.join(", "));
        }
    }
    Ok(found)
}

/// Observers, and the distance of their answers from float.
type Tried = Vec<(&'static str, Distance)>;

/// The observer whose answers are nearest to float, of [`TRIED`].
fn choose(
    network: &Network,
    wanted: &[Tensor],
    pictures: &Pictures<'_>,
    make: &dyn Fn(&dyn Observer) -> Scheme,
    watch: &mut Watch<'_>,
) -> Result<(&'static str, Scheme, Tried)> {
    let mut best: Option<(f64, &'static str, Scheme)> = None;
    let mut tried = Vec::new();
    watch.begin("choosing ranges", TRIED.len());
    for observer in observers().iter().filter(|o| TRIED.contains(&o.name())) {
        let scheme = make(*observer);
        let graph = place::quantised(network, &scheme, Form::Simulated)?;
        let got = watch.within(|w| pictures.outputs(&graph, w))?;
        let distance = Distance::between(wanted, &got);
        tried.push((observer.name(), distance));
        if best.as_ref().is_none_or(|(noise, ..)| distance.noise < *noise) {
            best = Some((distance.noise, observer.name(), scheme));
        }
        if !watch.step() {
            break;
        }
    }
    let (_, name, scheme) = best.expect("at least one observer was tried");
    Ok((name, scheme, tried))
}

impl Quantised {
    /// The network as a graph of this form.
    pub fn graph(&self, form: Form) -> Result<Graph> {
        place::quantised(&self.network, &self.scheme, form)
    }
    /// How far the answers for (the first of) `pictures` are from those of the float network; the pictures must be those
    /// that the network was quantised with.
    pub fn distance(&self, pictures: &Pictures<'_>, watch: &mut Watch<'_>) -> Result<Distance> {
        let graph = self.graph(Form::Simulated)?;
        let got = watch.within(|w| pictures.first(CHOOSING).outputs(&graph, w))?;
        Ok(Distance::between(&self.float_answers, &got))
    }
    /// Measures what each layer costs by itself, where that is not known yet.
    pub fn measure_sensitivity(&mut self, pictures: &Pictures<'_>, watch: &mut Watch<'_>) -> Result<()> {
        if self.alone.iter().all(Option::is_none) {
            let few = pictures.first(SENSING);
            let wanted = &self.float_answers[..few.batches.len().min(self.float_answers.len())];
            self.alone = sensitivity::sensitivity(&self.network, &self.scheme, wanted, &few, watch)?;
        }
        Ok(())
    }
    /// The layers that stay float, by their place among the layers.
    pub fn float(&self) -> &BTreeSet<usize> {
        &self.scheme.float
    }
    /// Those of them that still read rounded numbers, because only their own computing is faster in float.
    pub fn between(&self) -> &BTreeSet<usize> {
        &self.scheme.between
    }
    /// Leaves exactly these layers float, of which those in `between` still read rounded numbers, and corrects the biases of
    /// the others for that.
    pub fn keep_float(
        &mut self,
        layers: BTreeSet<usize>,
        between: BTreeSet<usize>,
        pictures: &Pictures<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        self.scheme.keep_float(&self.network, layers, between);
        self.correct_biases(pictures, watch)
    }
    fn correct_biases(&mut self, pictures: &Pictures<'_>, watch: &mut Watch<'_>) -> Result<()> {
        let Some(uncorrected) = self.uncorrected.clone() else { return Ok(()) };
        self.network = uncorrected.clone();
        if watch.is_stopped() {
            return Ok(());
        }
        let before = (self.distance(pictures, watch)?, self.scheme.clone());
        correct_bias::correct(&mut self.network, &mut self.scheme, &pictures.first(CORRECTING), watch)?;
        self.corrected = self.distance(pictures, watch)?.noise < before.0.noise;
        if !self.corrected {
            (self.network, self.scheme) = (uncorrected.clone(), before.1);
        }
        Ok(())
    }
    /// Operations on bits that the layers in integers take for one picture: products of the bits of weight and activation.
    pub fn bit_operations(&self) -> Result<u64> {
        activation_bits::operations(&self.network, &self.scheme, &self.bits, &self.batch)
    }
    /// What there is to say of each layer.
    pub fn layers(&self) -> Vec<LayerReport> {
        let graph = &self.network.graph;
        let layers = self.network.layers.iter().enumerate();
        layers
            .map(|(l, layer)| {
                let weights = layer.weights_of(graph);
                LayerReport {
                    name: layer.name.clone(),
                    operator: graph.nodes[layer.node].op.name(),
                    weights: weights.len(),
                    bits: self.bits[l],
                    activation_bits: self.scheme.grids.get(&layer.input).map_or(8, |grid| grid.levels.bits()),
                    float: self.scheme.float.contains(&l),
                    weight_noise: weights::relative_error(&self.scheme.weights[l], &layer.rows(weights)),
                    alone: self.alone[l],
                }
            })
            .collect()
    }
}
