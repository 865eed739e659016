//! Many convolutions within a time budget: over channels, map sizes, kernels, strides, dense and depthwise.
//!
//! The cheapest layers come first, so that a budget buys as many as it can; what it does not reach are the most expensive
//! ones, and the report leaves their places blank.

use super::laboratory::{Effort, Laboratory, Trial};
use super::shape;
use planish::report::progress::Progress;
use planish::report::stats::geometric_mean;
use planish_cpu::conv::{ConvProblem, algorithms};
use planish_graph::error::ErrorKind;
use planish_graph::{Error, Result};
use serde_json::{Value, json};
use std::time::Instant;

/// What is swept over.
#[derive(Clone, Debug)]
pub struct Axes {
    /// Channels: as many outputs as inputs, but from 3, where a picture enters, to [`FIRST_OUTPUTS`].
    pub channels: Vec<usize>,
    /// Height and width of the input.
    pub maps: Vec<usize>,
    /// Height and width of the kernel; padding keeps the size where the stride is 1.
    pub kernels: Vec<usize>,
    /// Strides.
    pub strides: Vec<usize>,
}

/// Output channels of layers with 3 input channels.
const FIRST_OUTPUTS: usize = 32;

impl Axes {
    /// The whole sweep, or a coarse one.
    pub fn new(quick: bool) -> Axes {
        let (channels, maps, kernels): (&[usize], &[usize], &[usize]) = if quick {
            (&[3, 16, 64, 256], &[7, 14, 28, 56], &[1, 3, 5, 7])
        } else {
            (&[3, 8, 16, 32, 64, 128, 256, 512], &[7, 14, 28, 56, 112, 224], &[1, 3, 5, 7, 11, 15, 31])
        };
        Axes {
            channels: channels.to_vec(),
            maps: maps.to_vec(),
            kernels: kernels.to_vec(),
            strides: vec![1, 2],
        }
    }

    /// The channels of dense layers, or of depthwise ones, which are not for pictures.
    pub fn channels(&self, depthwise: bool) -> Vec<usize> {
        self.channels.iter().copied().filter(|&c| !depthwise || c > 3).collect()
    }

    /// Every layer.
    pub fn layers(&self) -> Vec<ConvProblem> {
        let mut layers = Vec::new();
        for &kernel in &self.kernels {
            for &stride in &self.strides {
                for &map in &self.maps {
                    layers.extend(self.channels(false).into_iter().map(|c| layer(c, 1, map, kernel, stride)));
                    layers.extend(self.channels(true).into_iter().map(|c| layer(c, c, map, kernel, stride)));
                }
            }
        }
        layers
    }
}

fn layer(channels: usize, groups: usize, map: usize, kernel: usize, stride: usize) -> ConvProblem {
    let outputs = if channels == 3 { FIRST_OUTPUTS } else { channels };
    let mut layer = ConvProblem::new_2d(1, channels, outputs, [map, map], [kernel, kernel]);
    (layer.groups, layer.stride) = (groups, [1, stride, stride]);
    layer.pads_begin = shape::same_padding(&layer);
    layer.pads_end = layer.pads_begin;
    layer
}

/// What a sweep found.
pub struct Sweep {
    /// What it went over.
    pub axes: Axes,
    /// How many layers that is.
    pub layers: usize,
    /// Those that were measured, cheapest first.
    pub trials: Vec<Trial>,
    /// Seconds that it was allowed, and that it took.
    pub seconds: [f64; 2],
}

/// Multiply-accumulates of the reference for one layer: some milliseconds.
const REFERENCE_MACS: u64 = 2_000_000;
/// Algorithms this many times slower than the fastest are timed once only.
const HOPELESS: f64 = 3.0;
/// Algorithms with an estimate this many times the cheapest are left out: no estimate was ever so wrong, and one run of
/// a depthwise layer as matrix products would cost more than all others together.
const UNLIKELY: f64 = 12.0;
/// Rounds of a layer at least.
const ROUNDS: usize = 3;

impl Sweep {
    /// Measures layer after layer until `budget` seconds are over.
    pub fn run(laboratory: &Laboratory, axes: Axes, budget: f64) -> Result<Sweep> {
        let begun = Instant::now();
        let mut layers = axes.layers();
        layers.iter_mut().for_each(|layer| *layer = laboratory.precision.of(layer.clone()));
        let effort = Effort {
            // Half of the budget for what is over in no time, the other half for what takes longer than this.
            seconds: (0.5 * budget / layers.len() as f64).min(0.3),
            rounds: ROUNDS,
            hopeless: HOPELESS,
            unlikely: UNLIKELY,
            reference_macs: REFERENCE_MACS,
        };
        let expected = |layer: &ConvProblem| laboratory.expected_ms(layer, effort);
        layers.sort_by_cached_key(|layer| (1e6 * expected(layer)) as u64);
        let progress = Progress::new("sweep", layers.len() as u64);
        let mut trials = Vec::new();
        for layer in &layers {
            // Warming up runs everything once, what is not hopeless is timed three times more.
            let seconds = 2e-3 * expected(layer);
            let elapsed = begun.elapsed().as_secs_f64();
            if elapsed >= budget || (!trials.is_empty() && elapsed + seconds > budget) {
                break;
            }
            progress.say(&shape::describe(layer));
            match laboratory.measure(layer, effort) {
                Ok(trial) => trials.push(trial),
                // One layer that is too large for the memory cap does not end the sweep.
                Err(error) if error.kind() == ErrorKind::Limit => progress.note(&format!("planish: {error}")),
                Err(error) => return Err(error),
            }
            progress.advance(1);
        }
        if trials.is_empty() {
            return Err(Error::invalid("no layer could be measured within --budget and --max-memory"));
        }
        Ok(Sweep { axes, layers: layers.len(), trials, seconds: [budget, begun.elapsed().as_secs_f64()] })
    }

    /// For each algorithm its name, in how many layers it was fastest, and in how many the planner picks it.
    pub fn winners(&self) -> Vec<(&'static str, usize, usize)> {
        let count = |is: &dyn Fn(&Trial) -> bool| self.trials.iter().filter(|t| is(t)).count();
        let names = algorithms().iter().map(|a| a.name());
        names.map(|n| (n, count(&|t| t.best().algorithm == n), count(&|t| t.picked == n))).collect()
    }

    /// In how many layers the planner's pick was the fastest.
    pub fn right(&self) -> usize {
        self.trials.iter().filter(|t| t.picked == t.best().algorithm).count()
    }

    /// In how many layers the planner's pick was the fastest or hardly slower.
    pub fn well_picked(&self) -> usize {
        self.trials.iter().filter(|t| t.is_well_picked()).count()
    }

    /// The geometric mean of how many times as long as the fastest the planner's pick takes.
    pub fn regret(&self) -> f64 {
        geometric_mean(&self.trials.iter().map(Trial::regret).collect::<Vec<_>>()).unwrap_or(1.0)
    }

    /// The layers where the planner's pick costs most, the worst first.
    pub fn regretted(&self) -> Vec<&Trial> {
        let mut trials: Vec<&Trial> = self.trials.iter().filter(|t| t.picked != t.best().algorithm).collect();
        trials.sort_by(|a, b| b.regret().total_cmp(&a.regret()));
        trials
    }

    /// The sweep for programs.
    pub fn to_json(&self, laboratory: &Laboratory) -> Value {
        let winners: Vec<Value> = self
            .winners()
            .into_iter()
            .map(|(name, fastest, picked)| json!({"name": name, "fastest": fastest, "picked": picked}))
            .collect();
        json!({
            "budget_s": self.seconds[0], "seconds": self.seconds[1], "layers": self.layers,
            "measured": self.trials.len(), "winners": winners, "picked_fastest": self.right(),
            "picked_within_5_percent": self.well_picked(),
            "picked_over_fastest": self.regret(),
            "sweep": self.trials.iter().map(|t| laboratory.to_json(t)).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_of_a_sweep_is_a_convolution() {
        for quick in [true, false] {
            let axes = Axes::new(quick);
            let layers = axes.layers();
            let places = axes.kernels.len() * axes.strides.len() * axes.maps.len();
            assert_eq!(layers.len(), places * (2 * axes.channels.len() - 1));
            for layer in &layers {
                layer.validate().unwrap();
                if layer.stride == [1, 1, 1] {
                    assert_eq!(layer.out_size().unwrap(), layer.in_size);
                }
            }
        }
    }
}
