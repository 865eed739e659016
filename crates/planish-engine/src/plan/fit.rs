//! Fits the rates of the cost model to measurements, by least squares over relative errors.
//!
//! An estimate is a sum of counts times rates ([`planish_cpu::rates`]), so a measurement is a linear equation: counts
//! over measured time, times rates, should be one. Rates cannot be negative. Such a problem is solved exactly by going
//! through the unknowns again and again, each time moving one to its best value with all others as they are and
//! stopping at zero (Franc, Hlaváč and Navara, *Sequential Coordinate-wise Algorithm for the Non-negative Least Squares
//! Problem*, CAIP 2005); with some thirty unknowns that takes no time.
//!
//! Two additions. Every rate has one weak equation that says that it is what it was: what no measurement speaks of keeps
//! its value. And measurements that a fit misses by much count less in the next one (Huber, *Robust Estimation of a
//! Location Parameter*, 1964): a disturbed measurement, or a shape that the model does not understand, must not spoil the
//! others.

use planish_cpu::rates::{Rate, Rates, Work};

/// The weight of the equation that a rate stays as it is, against that of one measurement.
const STAY: f64 = 0.02;
/// Relative errors beyond this count less.
const TOLERATED: f64 = 0.2;
/// Fits, each with the weights that follow from the one before.
const ROUNDS: usize = 8;
/// Passes over all rates in one fit; they converge long before.
const PASSES: usize = 2000;
/// A pass that changes every rate by less than this fraction is the last.
const SETTLED: f64 = 1e-7;

/// A measured time and the work that was done in it.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What was done.
    pub work: Work,
    /// How long it took.
    pub milliseconds: f64,
}

impl Sample {
    /// The estimate over the measured time, less one.
    pub fn error(&self, rates: &Rates) -> f64 {
        rates.milliseconds(&self.work) / self.milliseconds - 1.0
    }
}

/// The rates that estimate `samples` best, starting from `start`. Samples without a positive finite time are left out.
pub fn fit(samples: &[Sample], start: &Rates) -> Rates {
    let scale: Vec<f64> = Rate::ALL.iter().map(|&rate| start.get(rate).max(1e-3)).collect();
    // Unknowns are multiples of the scale, so that all are of one size.
    let rows: Vec<Vec<f64>> = samples
        .iter()
        .filter(|s| s.milliseconds.is_finite() && s.milliseconds > 0.0)
        .map(|s| {
            let part = |(&rate, scale)| s.work.count(rate) * scale * 1e-6 / s.milliseconds;
            Rate::ALL.iter().zip(&scale).map(part).collect()
        })
        .collect();
    let prior: Vec<f64> =
        Rate::ALL.iter().zip(&scale).map(|(&rate, scale)| start.get(rate) / scale).collect();
    let mut x = prior.clone();
    for _ in 0..ROUNDS {
        let weights: Vec<f64> = rows
            .iter()
            .map(|row| {
                TOLERATED / (row.iter().zip(&x).map(|(a, x)| a * x).sum::<f64>() - 1.0).abs().max(TOLERATED)
            })
            .collect();
        x = non_negative_least_squares(&rows, &weights, &prior);
    }
    let mut rates = *start;
    for ((&rate, x), scale) in Rate::ALL.iter().zip(&x).zip(&scale) {
        rates.set(rate, x * scale);
    }
    rates
}

/// The `x ≥ 0` with the least `Σ weight (row · x - 1)² + STAY Σ (x - prior)²`.
fn non_negative_least_squares(rows: &[Vec<f64>], weights: &[f64], prior: &[f64]) -> Vec<f64> {
    let unknowns = prior.len();
    let mut normal = vec![vec![0.0; unknowns]; unknowns];
    let mut right: Vec<f64> = prior.iter().map(|p| STAY * p).collect();
    for (i, line) in normal.iter_mut().enumerate() {
        line[i] = STAY;
    }
    for (row, weight) in rows.iter().zip(weights) {
        for i in (0..unknowns).filter(|&i| row[i] != 0.0) {
            right[i] += weight * row[i];
            for j in 0..unknowns {
                normal[i][j] += weight * row[i] * row[j];
            }
        }
    }
    let mut x = prior.to_vec();
    for _ in 0..PASSES {
        let mut moved = 0f64;
        for i in 0..unknowns {
            let others: f64 = normal[i].iter().zip(&x).map(|(a, x)| a * x).sum::<f64>() - normal[i][i] * x[i];
            let best = ((right[i] - others) / normal[i][i]).max(0.0);
            moved = moved.max((best - x[i]).abs() / (x[i].abs() + 1e-6));
            x[i] = best;
        }
        if moved < SETTLED {
            break;
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_cpu::isa::Isa;

    fn sample(truth: &Rates, parts: &[(Rate, f64)]) -> Sample {
        let work = Work::of(parts);
        Sample { work, milliseconds: truth.milliseconds(&work) }
    }

    #[test]
    fn rates_are_found_again_whatever_one_measurement_says() {
        let start = Rates::defaults(Isa::Avx2);
        let mut truth = start;
        truth.set(Rate::MultiplyAdd, 0.5);
        truth.set(Rate::Address, 0.0);
        truth.set(Rate::Call, 300.0);
        let mut samples: Vec<Sample> = (1..600)
            .map(|i| {
                let i = f64::from(i);
                let parts = [
                    (Rate::MultiplyAdd, 1e5 * (i % 7.0 + 1.0)),
                    (Rate::Address, 1e6 * (i % 5.0)),
                    (Rate::Call, 1.0 + 500.0 * (i % 3.0)),
                ];
                sample(&truth, &parts)
            })
            .collect();
        samples[7].milliseconds *= 40.0;
        samples[9].milliseconds = f64::NAN;
        let fitted = fit(&samples, &start);
        for rate in [Rate::MultiplyAdd, Rate::Call] {
            assert!((fitted.get(rate) / truth.get(rate) - 1.0).abs() < 0.03, "{rate:?} {}", fitted.get(rate));
        }
        assert!(fitted.get(Rate::Address) < 0.05 && fitted.get(Rate::Address) >= 0.0);
        // Nothing was said of it.
        assert_eq!(fitted.get(Rate::WinogradSum), start.get(Rate::WinogradSum));
    }

    #[test]
    fn without_measurements_nothing_changes() {
        let start = Rates::defaults(Isa::Portable);
        assert_eq!(fit(&[], &start), start);
    }
}
