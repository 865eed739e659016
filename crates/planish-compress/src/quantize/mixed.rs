//! Which layers compute in integers and which in float: by the time they take on this machine, and by accuracy.
//!
//! Two questions, asked one after the other. Where is a layer *faster* in float, the conversions around it charged? Those
//! layers stay float but read rounded numbers ([`Quantised::between`]), so that their neighbours lose nothing. And which
//! layers must go *back* to float until the network is accurate enough? Those that regain most accuracy for each
//! millisecond they lose; how many is found by doubling and halving, since judging takes long and accuracy hardly ever
//! falls when fewer layers are quantised.
//!
//! How a graph is timed and judged is the caller's: this module knows neither machine nor labels.

use super::{Distance, Form, Pictures, Quantised, Watch};
use planish_engine::{Profile, StepProfile};
use planish_graph::{Fact, Graph, OperatorExt, Result, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// What a layer takes, in milliseconds, where it could be told from others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    /// In the float network.
    pub float: Option<f64>,
    /// In the network with every layer in integers.
    pub integer: Option<f64>,
    /// Float between integers, where that was tried.
    pub between: Option<Between>,
}

/// What a layer that computes in float between integers gains over integers, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Between {
    /// Its time in integers less its time in float and that of two conversions, as expected of the two profiles.
    pub predicted: f64,
    /// Measured, conversions included.
    pub measured: f64,
}

impl Times {
    /// Milliseconds that float costs over integers.
    pub fn loss(&self) -> Option<f64> {
        Some(self.float? - self.integer?)
    }
}

/// Nanoseconds that converting a number takes where the profile of a network shows no conversion.
const CONVERSION: f64 = 0.25;

/// What share of a layer's time a gain must be so that it is none by chance.
const NOTEWORTHY: f64 = 0.03;

/// The least that a layer is said to lose in float, in milliseconds: what cannot be told from nothing.
const LEAST_LOSS: f64 = 1e-3;

/// Something that times a graph: the fastest time of each step of several runs, with inputs of the shape given to
/// [`Quantised::times`].
pub type Timer<'a> = dyn FnMut(&Graph) -> Result<Profile> + 'a;

fn milliseconds(step: &StepProfile) -> f64 {
    step.time.as_secs_f64() * 1e3
}

fn total(profile: &Profile) -> f64 {
    profile.steps.iter().map(milliseconds).sum()
}

fn is_conversion(step: &StepProfile) -> bool {
    ["QuantizeLinear", "DequantizeLinear", "conversion", "layout change"].contains(&step.operator.as_str())
}

/// The time of each of `names` in `profile`. A step that computes several layers ("first … last") is shared out by `shares`.
pub fn by_layer(names: &[String], profile: &Profile, shares: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (l, name) in names.iter().enumerate() {
        places.entry(name).or_default().push(l);
    }
    // Layers of one name cannot be told apart.
    let place = |name: &str| places.get(name).filter(|p| p.len() == 1).map(|p| p[0]);
    let mut times = vec![None; names.len()];
    for step in &profile.steps {
        if let Some(l) = place(&step.node) {
            *times[l].get_or_insert(0.0) += milliseconds(step);
        } else if let Some((first, last)) = step.node.split_once(" … ")
            && let (Some(first), Some(last)) = (place(first), place(last))
            && first < last
        {
            let share = |l: usize| shares.get(l).copied().flatten().unwrap_or(0.0).max(1e-9);
            let all: f64 = (first..=last).map(share).sum();
            for (l, time) in times.iter_mut().enumerate().take(last + 1).skip(first) {
                *time = Some(milliseconds(step) * share(l) / all);
            }
        }
    }
    times
}

/// The time of each of `names`, which computes in float between integers, with the conversions directly around it.
fn with_conversions(names: &[String], profile: &Profile) -> Vec<Option<f64>> {
    let steps = &profile.steps;
    let is_layer = |step: &StepProfile| names.contains(&step.node);
    let time = |name: &String| {
        let at = steps.iter().position(|s| s.node == *name)?;
        let before = steps[..at].iter().rev().take_while(|s| !is_layer(s) && s.operator != "QuantizeLinear");
        let behind = steps[at + 1..].iter().take_while(|s| !is_layer(s) && s.operator != "DequantizeLinear");
        let conversions = before.chain(behind).filter(|s| is_conversion(s)).map(milliseconds);
        Some(milliseconds(&steps[at]) + conversions.sum::<f64>())
    };
    names.iter().map(time).collect()
}

impl Quantised {
    /// The layers' names, in order.
    fn names(&self) -> Vec<String> {
        self.network.layers.iter().map(|l| l.name.clone()).collect()
    }

    /// What each layer takes in float and in integers. `float` is the network that was quantised. No layer may be float
    /// but those that were asked for.
    pub fn times(&self, float: &Graph, time: &mut Timer<'_>) -> Result<Vec<Times>> {
        let (integers, floats) = (time(&self.graph(Form::Qdq)?)?, time(float)?);
        let names = self.names();
        let integer = by_layer(&names, &integers, &[]);
        let float = by_layer(&names, &floats, &integer);
        Ok(float
            .into_iter()
            .zip(integer)
            .map(|(float, integer)| Times { float, integer, between: None })
            .collect())
    }

    /// Lets those layers compute in float between integers that are measured faster so, with inputs of `shape`, and notes in
    /// `times` what was expected and found. Leaves everything as it was where the network as a whole is not faster. Returns
    /// the sum of steps of the network as it is left, in milliseconds.
    pub fn keep_faster_float(
        &mut self,
        times: &mut [Times],
        shape: &[usize],
        time: &mut Timer<'_>,
        pictures: &Pictures<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<f64> {
        let all = time(&self.graph(Form::Qdq)?)?;
        let asked = self.scheme.float.clone();
        let mut chosen: BTreeMap<usize, f64> = BTreeMap::new();
        for (l, charge) in self.charges(&all, shape)?.into_iter().enumerate() {
            // All that are faster by themselves are tried: measuring is one run for all, and knows best what conversions take.
            let gain = times[l].loss().filter(|loss| *loss < 0.0).map(|loss| -loss - charge);
            if let Some(gain) = gain.filter(|_| !asked.contains(&l)) {
                chosen.insert(l, gain);
            }
        }
        // Two rounds: what is left out in the first may have been a neighbour of what stays.
        let mut best = total(&all);
        for _ in 0..2 {
            if chosen.is_empty() || watch.is_stopped() {
                break;
            }
            let between: BTreeSet<usize> = chosen.keys().copied().collect();
            self.keep_float(asked.union(&between).copied().collect(), between, pictures, watch)?;
            let mixed = time(&self.graph(Form::Qdq)?)?;
            let found = with_conversions(&self.names(), &mixed);
            for (&l, &predicted) in &chosen {
                let measured =
                    times[l].integer.zip(found[l]).map_or(f64::NEG_INFINITY, |(int, mix)| int - mix);
                times[l].between = Some(Between { predicted, measured });
            }
            let before = chosen.len();
            let least = |l: usize| NOTEWORTHY * times[l].integer.unwrap_or(0.0);
            chosen.retain(|l, _| times[*l].between.is_some_and(|b| b.measured > least(*l)));
            if chosen.len() == before {
                if total(&mixed) < best {
                    best = total(&mixed);
                } else {
                    chosen.clear();
                }
                break;
            }
        }
        if self.scheme.between.len() != chosen.len() {
            let between: BTreeSet<usize> = chosen.keys().copied().collect();
            self.keep_float(asked.union(&between).copied().collect(), between, pictures, watch)?;
            best = total(&time(&self.graph(Form::Qdq)?)?);
        }
        Ok(best)
    }

    /// What the conversions around each layer would take if only it were float, in milliseconds.
    fn charges(&self, profile: &Profile, shape: &[usize]) -> Result<Vec<f64>> {
        let graph = &self.network.graph;
        let input = Fact::new(planish_graph::DType::F32, shape);
        let facts = planish_graph::infer::infer(graph, &[input])?;
        let elements = |v: ValueId| {
            let shape = facts[v.0 as usize].as_ref().and_then(Fact::shape);
            shape.map_or(0.0, |s| s.iter().map(|&d| d as f64).product())
        };
        let conversions = profile.steps.iter().filter(|s| is_conversion(s));
        let (mut spent, mut converted) = (0.0, 0.0);
        for step in conversions {
            spent += milliseconds(step) * 1e6;
            converted += step.shape.iter().map(|&d| d as f64).product::<f64>();
        }
        let each = if converted > 0.0 { spent / converted } else { CONVERSION };
        let charge = |l: &super::layers::Layer| (elements(l.input) + elements(l.output)) * each * 1e-6;
        Ok(self.network.layers.iter().map(charge).collect())
    }

    /// Layers in integers, those first that regain most accuracy for each millisecond that float loses, by
    /// [`Quantised::measure_sensitivity`] and `times`; those whose sensitivity was not measured last. Without times, or
    /// where a layer's are not known, all lose alike.
    pub fn by_sensitivity(&self, times: &[Times]) -> Vec<usize> {
        let loss = |l: usize| times.get(l).and_then(Times::loss);
        let known: Vec<f64> = (0..self.network.layers.len()).filter_map(loss).collect();
        let usual = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        let worth = |l: usize| {
            // A float layer wants its input unrounded: the layer before it computes in float with it.
            let before = self.maker(l).and_then(loss).map_or(0.0, |ms| ms.max(0.0));
            let lost = loss(l).unwrap_or(usual) + before;
            self.alone[l].map_or(-1.0, |d: Distance| d.noise / lost.max(LEAST_LOSS))
        };
        let whole = |l: &usize| !self.scheme.float.contains(l) || self.scheme.between.contains(l);
        let mut order: Vec<usize> = (0..self.network.layers.len()).filter(whole).collect();
        order.sort_by(|&a, &b| worth(b).total_cmp(&worth(a)));
        order
    }

    /// The layer that makes the input of layer `l`, but for what is computed together with it.
    fn maker(&self, l: usize) -> Option<usize> {
        let graph = &self.network.graph;
        let makers = graph.producers();
        let mut value = self.network.layers[l].input;
        loop {
            let (node, _) = makers[value.0 as usize]?;
            if let Some(found) = self.network.layers.iter().position(|x| x.node == node.0 as usize) {
                return Some(found);
            }
            let node = &graph.nodes[node.0 as usize];
            let unary = node.op.is_op::<planish_graph::ops::math::clip::Clip>()
                || node.op.is_op::<planish_graph::ops::math::unary::Unary>()
                || node.op.is_op::<planish_graph::ops::math::activation::Activation>();
            value = node.input(0).filter(|_| unary)?;
        }
    }
}

/// What putting layers back led to.
#[derive(Clone, Debug)]
pub struct Bounded<A> {
    /// What was judged before any layer went back.
    pub first: A,
    /// What was judged of the network as it is left.
    pub last: A,
    /// Whether it holds.
    pub kept: bool,
    /// Layers that went back, in the order in which they did.
    pub back: Vec<usize>,
}

/// Puts layers of `quantised` back to float, in the order of [`Quantised::by_sensitivity`], until `holds` is true of what
/// `judge` finds; `times` is asked only where layers must go back. What is left when `watch` stops is the network with the fewest float layers that was found to hold; where
/// none was, the last that was tried.
pub fn within<A: Clone>(
    quantised: &mut Quantised,
    times: &mut dyn FnMut(&Quantised) -> Result<Vec<Times>>,
    pictures: &Pictures<'_>,
    judge: &mut dyn FnMut(&Quantised) -> Result<A>,
    holds: &dyn Fn(&A) -> bool,
    watch: &mut Watch<'_>,
) -> Result<Bounded<A>> {
    watch.begin("judging", 1);
    let first = judge(quantised)?;
    watch.step();
    if holds(&first) || watch.is_stopped() {
        let kept = holds(&first);
        return Ok(Bounded { last: first.clone(), first, kept, back: Vec::new() });
    }
    quantised.measure_sensitivity(pictures, watch)?;
    let order = quantised.by_sensitivity(&times(quantised)?);
    let (asked, between) = (quantised.float().clone(), quantised.between().clone());
    let put_back = |quantised: &mut Quantised, count: usize, watch: &mut Watch<'_>| {
        let back = &order[..count];
        let between = between.iter().copied().filter(|l| !back.contains(l)).collect();
        quantised.keep_float(asked.iter().chain(back).copied().collect(), between, pictures, watch)
    };
    let mut last = (0, first.clone());
    let mut enough: Option<(usize, A)> = None;
    let (mut too_few, mut count) = (0, 1);
    watch.begin("keeping the accuracy", 2 * order.len().ilog2().max(1) as usize);
    while !watch.is_stopped() {
        let next = match &enough {
            None if too_few < order.len() => count,
            Some((found, _)) if *found > too_few + 1 => (too_few + found) / 2,
            _ => break,
        };
        put_back(quantised, next, watch)?;
        last = (next, judge(quantised)?);
        watch.step();
        if holds(&last.1) {
            enough = Some(last.clone());
        } else {
            (too_few, count) = (next, (2 * next).min(order.len()));
        }
    }
    let kept = enough.is_some();
    let best = enough.unwrap_or_else(|| last.clone());
    if best.0 != last.0 {
        put_back(quantised, best.0, watch)?;
    }
    Ok(Bounded { first, last: best.1, kept, back: order[..best.0].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{batches, classifier};
    use super::super::{Event, Options, quantize};
    use super::*;
    use planish_engine::SessionOptions;
    use std::time::Duration;

    fn step(node: &str, operator: &str, micros: u64) -> StepProfile {
        StepProfile {
            node: node.to_string(),
            operator: operator.to_string(),
            algorithm: String::new(),
            reason: String::new(),
            candidates: Vec::new(),
            shape: vec![1, 8, 8, 8],
            macs: 1,
            start: Duration::ZERO,
            time: Duration::from_micros(micros),
        }
    }

    /// Calls `with` on the quantised test network.
    fn with_network(with: impl FnOnce(&mut Quantised, &Graph, &Pictures<'_>, &mut Watch<'_>)) {
        let graph = classifier();
        let given = batches(4, 4, 1);
        let session = SessionOptions::default();
        let pictures = Pictures { batches: &given, options: &session };
        let mut go_on = |_: Event<'_>| true;
        let mut watch = Watch::new(&mut go_on);
        let options = Options { observer: Some("min-max".into()), ..Options::default() };
        let mut made = quantize(&graph, &pictures, &options, &mut watch).unwrap();
        with(&mut made, &graph, &pictures, &mut watch);
    }

    /// A machine: every layer takes 100 µs in float; in integers "depth" takes 300 µs and the others 50. Conversions take 10.
    fn machine(graph: &Graph) -> Profile {
        let layers = ["stem", "expand", "depth", "project", "left", "right", "fc"];
        let mut steps = Vec::new();
        for node in &graph.nodes {
            let rounded = |v: Option<ValueId>| v.is_some_and(|v| graph.value(v).name.contains("weight"));
            if layers.contains(&node.name.as_str()) {
                let time = match (rounded(node.input(1)), node.name.as_str()) {
                    (false, _) => 100,
                    (true, "depth") => 300,
                    (true, _) => 50,
                };
                steps.push(step(&node.name, node.op.name(), time));
            }
        }
        // Only a float layer between integers has conversions that are left.
        let float = steps.iter().filter(|s| s.time.as_micros() == 100).count();
        if float < layers.len()
            && let Some(at) = steps.iter().position(|s| s.time.as_micros() == 100)
        {
            steps.insert(at + 1, step("out", "QuantizeLinear", 10));
            steps.insert(at, step("in", "DequantizeLinear", 10));
        }
        Profile { steps }
    }

    #[test]
    fn layers_stay_float_where_that_is_faster() {
        with_network(|made, graph, pictures, watch| {
            let mut times = made.times(graph, &mut |g| Ok(machine(g))).unwrap();
            assert!(
                (times[2].integer.unwrap() - 0.3).abs() < 1e-9
                    && (times[2].float.unwrap() - 0.1).abs() < 1e-9
            );
            let time = &mut |g: &Graph| Ok(machine(g));
            let sum = made.keep_faster_float(&mut times, &[1, 3, 8, 8], time, pictures, watch).unwrap();
            assert_eq!(made.between().iter().copied().collect::<Vec<_>>(), [2]);
            let found = times[2].between.unwrap();
            assert!((found.measured - 0.18).abs() < 1e-9 && found.predicted > 0.15, "{found:?}");
            assert!((sum - (6.0 * 0.05 + 0.12)).abs() < 1e-9, "{sum}");
            // Its neighbours are quantised on both sides: as many roundings as before.
            let graph = made.graph(Form::Qdq).unwrap();
            assert_eq!(graph.nodes.iter().filter(|n| n.op.name() == "QuantizeLinear").count(), 11);
            assert!(made.distance(pictures, watch).unwrap().noise < 1e-2);
        });
    }

    #[test]
    fn what_is_slower_as_a_whole_is_undone() {
        with_network(|made, graph, pictures, watch| {
            let mut times = made.times(graph, &mut |g| Ok(machine(g))).unwrap();
            let mut calls = 0;
            let time = &mut |g: &Graph| {
                let mut profile = machine(g);
                calls += 1;
                if calls == 2 {
                    profile.steps.push(step("elsewhere", "Add", 900));
                }
                Ok(profile)
            };
            made.keep_faster_float(&mut times, &[1, 3, 8, 8], time, pictures, watch).unwrap();
            assert!(made.between().is_empty() && made.float().is_empty());
        });
    }

    #[test]
    fn steps_of_several_layers_are_shared_out() {
        let names = ["a", "b", "c", "twice", "twice"].map(String::from);
        let profile = Profile {
            steps: vec![step("a … b", "Conv", 90), step("c", "Conv", 5), step("twice", "Conv", 7)],
        };
        let times = by_layer(&names, &profile, &[Some(0.1), Some(0.2)]);
        assert!((times[0].unwrap() - 0.03).abs() < 1e-9 && (times[1].unwrap() - 0.06).abs() < 1e-9);
        assert!(times[2].is_some() && times[3].is_none() && times[4].is_none());
    }

    #[test]
    fn layers_go_back_by_what_they_regain_for_their_time() {
        with_network(|made, _, pictures, watch| {
            made.measure_sensitivity(pictures, watch).unwrap();
            let alike = made.by_sensitivity(&[]);
            let noise = |l: usize| made.alone[l].unwrap().noise;
            assert!(alike.is_sorted_by(|a, b| noise(*a) >= noise(*b)));
            // Whatever regains most is put last by a price.
            let mut times = vec![Times { float: Some(1.0), integer: Some(0.5), between: None }; alike.len()];
            times[alike[0]].float = Some(1e9);
            assert_eq!(made.by_sensitivity(&times).last(), Some(&alike[0]));
        });
    }

    #[test]
    fn the_bound_takes_no_more_layers_than_it_must() {
        with_network(|made, _, pictures, watch| {
            let layers = made.layers().len();
            for wanted in 0..=layers {
                let judge = &mut |q: &Quantised| Ok(q.float().len());
                let found =
                    within(made, &mut |_| Ok(Vec::new()), pictures, judge, &|n| *n >= wanted, watch).unwrap();
                assert!(found.kept && found.last == wanted && found.back.len() == wanted, "{found:?}");
                assert_eq!(made.float().len(), wanted);
                made.keep_float(BTreeSet::new(), BTreeSet::new(), pictures, watch).unwrap();
            }
            let never = within(
                made,
                &mut |_| Ok(Vec::new()),
                pictures,
                &mut |q| Ok(q.float().len()),
                &|_| false,
                watch,
            )
            .unwrap();
            assert!(!never.kept && never.last == layers);
        });
    }

    #[test]
    fn stopping_leaves_the_best_so_far() {
        with_network(|made, _, pictures, _| {
            // The bound wants three layers; the watch ends when four were tried.
            let seen = std::cell::Cell::new(0);
            let mut tell = |_: Event<'_>| seen.get() < 4;
            let mut watch = Watch::new(&mut tell);
            let judge = &mut |q: &Quantised| {
                seen.set(q.float().len());
                Ok(q.float().len())
            };
            let found =
                within(made, &mut |_| Ok(Vec::new()), pictures, judge, &|n| *n >= 3, &mut watch).unwrap();
            assert!(found.kept && found.last >= 3 && made.float().len() == found.last, "{found:?}");
        });
    }
}
