//! AdaRound: rounding weights up or down as suits the layer's results, not to the nearest level.
//!
//! Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (ICML 2020). A weight becomes
//! `scale · clip(⌊w/scale⌋ + h(V))` with a rectified sigmoid `h` between 0 and 1, and Adam moves `V` so that the layer's
//! results, activation included, for inputs as the quantised layers before it make them, are those of the float layer; a
//! penalty drives every `h` to 0 or 1. Errors are relative to those of nearest rounding, so that the penalty weighs the same
//! for every layer and number of bits. Output channels do not touch each other: each is optimised by itself, on as many
//! threads as there are, and keeps nearest rounding where that turns out better.

use super::grid::Grid;
use super::samples::{Bend, Samples};
use crate::random::Random;

/// How long to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaRound {
    /// Steps of Adam a layer.
    pub iterations: usize,
    /// Results that each step looks at.
    pub batch: usize,
    /// Calibration pictures that samples are taken from.
    pub pictures: usize,
    /// For the choice of samples.
    pub seed: u64,
}

impl Default for AdaRound {
    fn default() -> AdaRound {
        AdaRound { iterations: 1000, batch: 32, pictures: 64, seed: 0 }
    }
}

const STRETCH: [f32; 2] = [-0.1, 1.1];
const LEARNING_RATE: f32 = 1e-2;
const PENALTY: f32 = 0.01;
/// What the error of nearest rounding weighs against the whole penalty.
const WEIGHT: f64 = 10.0;
/// The penalty's exponent, at first and at last: it starts flat.
const EXPONENTS: [f32; 2] = [20.0, 2.0];
/// The share of the iterations without penalty.
const WARM_UP: f32 = 0.2;

/// One output channel's weights, and what is known of its results.
pub(super) struct Channel<'a> {
    /// The float weights.
    pub weights: &'a [f32],
    /// Where they may go.
    pub grid: Grid,
    /// The bias.
    pub bias: f32,
    /// What the layer's results are bent by.
    pub bend: Bend,
    /// Inputs and wanted results.
    pub samples: &'a Samples,
    /// The channel among those that the samples are for.
    pub index: usize,
}

/// The integers of a channel, with the squared error of nearest rounding and of these, relative to the wanted power.
pub(super) struct Rounded {
    pub integers: Vec<i32>,
    pub nearest_error: f64,
    pub error: f64,
}

impl Channel<'_> {
    /// Rounds the channel's weights.
    pub fn round(&self, options: &AdaRound) -> Rounded {
        let nearest: Vec<i32> = self.weights.iter().map(|&w| self.grid.quantise(w)).collect();
        let nearest_error = self.error(&nearest);
        if nearest_error == 0.0 {
            return Rounded { integers: nearest, nearest_error, error: nearest_error };
        }
        let adapted = self.adapt(options, nearest_error / self.samples.count as f64);
        let error = self.error(&adapted);
        match error < nearest_error {
            true => Rounded { integers: adapted, nearest_error, error },
            false => Rounded { integers: nearest, nearest_error, error: nearest_error },
        }
    }

    /// The squared error of these integers over all samples.
    fn error(&self, integers: &[i32]) -> f64 {
        let weights: Vec<f32> = integers.iter().map(|&q| self.grid.restore(q)).collect();
        let wanted = self.samples.wanted(self.index);
        let errors = (0..self.samples.count).map(|s| {
            let y = self.bend.apply(dot(self.samples.row(s), &weights) + self.bias);
            f64::from(y - wanted[s]).powi(2)
        });
        errors.sum()
    }

    /// `usual` is the mean squared error of nearest rounding.
    fn adapt(&self, options: &AdaRound, usual: f64) -> Vec<i32> {
        let count = self.weights.len();
        let (scale, levels) = (self.grid.scale, self.grid.levels);
        let [bottom, top] = [levels.low - self.grid.zero, levels.high - self.grid.zero].map(|q| q as f32);
        let floors: Vec<f32> = self.weights.iter().map(|w| (w / scale).floor()).collect();
        let [low, high] = STRETCH;
        let mut v: Vec<f32> = self
            .weights
            .iter()
            .zip(&floors)
            .map(|(w, f)| {
                let share = (w / scale - f).clamp(0.0, 1.0);
                -((high - low) / (share - low) - 1.0).ln()
            })
            .collect();
        let wanted = self.samples.wanted(self.index);
        let unit = (WEIGHT * f64::from(PENALTY) * count as f64 / usual) as f32;
        let mut adam = Adam::new(count);
        let (mut weights, mut slope, mut gradient) = (vec![0.0; count], vec![0.0; count], vec![0.0; count]);
        let mut random = Random::new(options.seed);
        let batch = options.batch.clamp(1, self.samples.count);
        for step in 0..options.iterations {
            for i in 0..count {
                let sigmoid = 1.0 / (1.0 + (-v[i]).exp());
                let h = (sigmoid * (high - low) + low).clamp(0.0, 1.0);
                let q = floors[i] + h;
                weights[i] = q.clamp(bottom, top) * scale;
                let moves = h > 0.0 && h < 1.0 && q >= bottom && q <= top;
                slope[i] = if moves { sigmoid * (1.0 - sigmoid) * (high - low) } else { 0.0 };
            }
            gradient.fill(0.0);
            // Samples are in random order already: neighbours are as good as any, and read faster.
            let first = random.below(self.samples.count - batch + 1);
            for (s, wanted) in (first..).zip(&wanted[first..first + batch]) {
                let row = self.samples.row(s);
                let sum = dot(row, &weights) + self.bias;
                let error = (self.bend.apply(sum) - wanted) * self.bend.slope(sum);
                if error != 0.0 {
                    let factor = 2.0 * unit * error / batch as f32;
                    gradient.iter_mut().zip(row).for_each(|(g, x)| *g += factor * x);
                }
            }
            let done = step as f32 / options.iterations as f32;
            let penalised = (done - WARM_UP) / (1.0 - WARM_UP);
            let exponent = EXPONENTS[0] + (EXPONENTS[1] - EXPONENTS[0]) * penalised;
            for i in 0..count {
                let mut g = gradient[i] * scale;
                if penalised > 0.0 && slope[i] != 0.0 {
                    let h = (weights[i] / scale - floors[i]).clamp(0.0, 1.0);
                    let off = 2.0 * h - 1.0;
                    g -= PENALTY * exponent * 2.0 * off.signum() * off.abs().powf(exponent - 1.0);
                }
                gradient[i] = g * slope[i];
            }
            adam.step(&mut v, &gradient);
        }
        let up = |v: f32| 1.0 / (1.0 + (-v).exp()) * (high - low) + low >= 0.5;
        let integers = floors.iter().zip(&v).map(|(f, &v)| {
            let q = (f + f32::from(u8::from(up(v)))).clamp(bottom, top);
            q as i32 + self.grid.zero
        });
        integers.collect()
    }
}

/// The sum of products, in sixteen independent sums that vectorise.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), with its usual constants.
struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    /// What is left of the first values of the two averages.
    left: [f32; 2],
}

impl Adam {
    fn new(count: usize) -> Adam {
        Adam { mean: vec![0.0; count], square: vec![0.0; count], left: [1.0; 2] }
    }
    fn step(&mut self, values: &mut [f32], gradient: &[f32]) {
        let keep = [0.9, 0.999];
        self.left = [self.left[0] * keep[0], self.left[1] * keep[1]];
        let [m_factor, s_factor] = [1.0 / (1.0 - self.left[0]), 1.0 / (1.0 - self.left[1])];
        let averages = self.mean.iter_mut().zip(&mut self.square);
        for ((value, g), (mean, square)) in values.iter_mut().zip(gradient).zip(averages) {
            *mean = keep[0] * *mean + (1.0 - keep[0]) * g;
            *square = keep[1] * *square + (1.0 - keep[1]) * g * g;
            *value -= LEARNING_RATE * *mean * m_factor / ((*square * s_factor).sqrt() + 1e-8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::grid::Levels;
    use crate::quantize::observe::testing::normal;

    /// Inputs that go together: their rounding errors add up unless they are made to cancel.
    fn samples(inputs: usize, count: usize, weights: &[f32], bend: Bend) -> Samples {
        let common = normal(count, 3);
        let own = normal(count * inputs, 4);
        let rows: Vec<f32> = (0..count * inputs).map(|i| common[i / inputs].abs() + 0.1 * own[i]).collect();
        let wanted =
            (0..count).map(|s| bend.apply(dot(&rows[s * inputs..][..inputs], weights) + 0.1)).collect();
        Samples::new(inputs, rows, vec![wanted])
    }

    #[test]
    fn errs_less_than_nearest_rounding() {
        let weights: Vec<f32> = normal(40, 2).iter().map(|w| 0.7 * w).collect();
        for bend in [Bend::None, Bend::Bounded(0.0, f32::INFINITY), Bend::Bounded(0.0, 6.0)] {
            let samples = samples(40, 512, &weights, bend);
            let grid = Grid::symmetric(2.5, Levels::symmetric(3));
            let channel = Channel { weights: &weights, grid, bias: 0.1, bend, samples: &samples, index: 0 };
            let found = channel.round(&AdaRound::default());
            assert!(
                found.error < 0.9 * found.nearest_error,
                "{bend:?}: {} {}",
                found.error,
                found.nearest_error
            );
            // Up or down, and no further; what is beyond the last level stays there.
            for (q, w) in found.integers.iter().zip(&weights) {
                let (bottom, top) = grid.reach();
                assert!((grid.restore(*q) - w.clamp(bottom, top)).abs() <= grid.scale * 1.001, "{q} {w}");
            }
            let again = channel.round(&AdaRound::default());
            assert_eq!(found.integers, again.integers);
        }
    }
}
