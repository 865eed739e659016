//! `planish tune --fit`: fits the cost model to this machine.
//!
//! The planner chooses by estimates, and an estimate is as good as what it knows of the machine. This times a spread of
//! convolutions by every algorithm that is not hopeless, on one thread and on all, fits the rates of the cost model to
//! the times, and keeps them beside the wisdom, where every session finds them.

mod samples;
mod shapes;

use clap::Args;
use planish::report::machine;
use planish::report::stats::geometric_mean;
use planish::report::table::{Align, Table};
use planish_cpu::isa::Isa;
use planish_cpu::rates::{Rate, Rates};
use planish_engine::SessionOptions;
use planish_engine::plan::fit::{Sample, fit};
use planish_engine::plan::rates;
use planish_engine::plan::wisdom::Wisdom;
use planish_graph::{Error, Result};
use samples::Measured;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// What to fit.
#[derive(Args)]
pub struct Arguments {
    /// Fit the cost model to this machine
    #[arg(long, required = true)]
    fit: bool,
    /// Seconds to measure
    #[arg(long, default_value_t = 60.0, value_name = "S", conflicts_with = "samples")]
    seconds: f64,
    /// Threads to measure with, beside one; 0 for every core this process may use
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Fit to the measurements in this file, an earlier --json, instead of measuring
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// The wisdom beside which the rates are kept [default: planish/wisdom.json in the user's cache folder]
    #[arg(long, value_name = "FILE", conflicts_with = "no_wisdom")]
    wisdom: Option<PathBuf>,
    /// Only report the rates, keep nothing
    #[arg(long)]
    no_wisdom: bool,
    /// Print one JSON object, the measurements included
    #[arg(long)]
    json: bool,
}

/// Measures, fits, reports and keeps the rates.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !(arguments.seconds > 0.0 && arguments.seconds <= 3600.0) {
        return Err(Error::invalid("--seconds takes seconds above 0, up to 3600"));
    }
    if arguments.threads > SessionOptions::MAX_THREADS {
        return Err(Error::invalid(format!("--threads takes at most {}", SessionOptions::MAX_THREADS)));
    }
    let isa = Isa::from_env().map_err(|e| Error::unsupported(e.to_string()))?;
    let threads = match arguments.threads {
        0 => planish_cpu::processors::default_threads(),
        threads => threads,
    };
    let measured = match &arguments.samples {
        Some(path) => samples::read(path)?,
        None => samples::measure(isa, threads, arguments.seconds)?,
    };
    let samples: Vec<Sample> = measured.iter().map(|m| m.sample(isa)).collect();
    if samples.is_empty() {
        return Err(Error::invalid("there are no measurements to fit to; give it more --seconds"));
    }
    let before = Rates::defaults(isa);
    let after = fit(&samples, &before);
    let wisdom = arguments.wisdom.clone().or_else(Wisdom::default_path).filter(|_| !arguments.no_wisdom);
    let path = wisdom.map(|path| rates::path_beside(&path));
    if let Some(path) = &path {
        rates::save(path, isa, &after)?;
    }
    let fitted = Fitted { isa, measured, samples, before, after };
    let kept = path.map(|p| p.display().to_string());
    if arguments.json {
        let mut report = fitted.to_json();
        report["output"] = json!(kept);
        super::print_json(&report)?;
    } else {
        fitted.print();
        match kept {
            Some(path) => println!("kept in {path}"),
            None => println!("not kept"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Measurements and what was made of them.
struct Fitted {
    isa: Isa,
    measured: Vec<Measured>,
    samples: Vec<Sample>,
    before: Rates,
    after: Rates,
}

/// Relative errors of an algorithm's estimates: their median, and that of the largest distance from the truth.
#[derive(Clone, Copy)]
struct Errors {
    median: f64,
    worst: f64,
}

impl Errors {
    fn of(mut errors: Vec<f64>) -> Errors {
        errors.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        let median = errors[errors.len() / 2].abs();
        Errors { median, worst: errors[errors.len() - 1] }
    }
}

impl Fitted {
    /// For every algorithm how many samples it has, and its errors before and after.
    fn errors(&self) -> BTreeMap<&'static str, (usize, [Errors; 2])> {
        let mut by_algorithm: BTreeMap<&'static str, Vec<&Sample>> = BTreeMap::new();
        for (measured, sample) in self.measured.iter().zip(&self.samples) {
            by_algorithm.entry(measured.algorithm).or_default().push(sample);
        }
        let errors =
            |samples: &[&Sample], rates| Errors::of(samples.iter().map(|s| s.error(rates)).collect());
        by_algorithm
            .into_iter()
            .map(|(name, s)| (name, (s.len(), [errors(&s, &self.before), errors(&s, &self.after)])))
            .collect()
    }

    /// How many times as long as the fastest the algorithm with the cheapest estimate takes, in geometric mean over all
    /// convolutions and numbers of threads.
    fn regret(&self, rates: &Rates) -> f64 {
        // For each convolution the cheapest estimate with its measured time, and the least measured time.
        let mut races: BTreeMap<(usize, usize), [f64; 3]> = BTreeMap::new();
        for (measured, sample) in self.measured.iter().zip(&self.samples) {
            let (estimate, time) = (rates.milliseconds(&sample.work), sample.milliseconds);
            let race = races.entry((measured.race, measured.threads)).or_insert([f64::INFINITY; 3]);
            if estimate < race[0] {
                [race[0], race[1]] = [estimate, time];
            }
            race[2] = race[2].min(time);
        }
        let ratios: Vec<f64> = races.values().map(|[_, picked, best]| picked / best).collect();
        geometric_mean(&ratios).unwrap_or(1.0)
    }

    fn print(&self) {
        let mut table = Table::new(&[
            ("rate", Align::Left),
            ("default ns", Align::Right),
            ("fitted ns", Align::Right),
            ("what one is", Align::Left),
        ]);
        let number = |ns: f64| if ns >= 10.0 { format!("{ns:.0}") } else { format!("{ns:.4}") };
        for &rate in Rate::ALL {
            let [before, after] = [&self.before, &self.after].map(|rates| number(rates.get(rate)));
            table.row([rate.name(), &before, &after, rate.meaning()]);
        }
        println!("{table}");
        let mut table = Table::new(&[
            ("algorithm", Align::Left),
            ("samples", Align::Right),
            ("median error", Align::Right),
            ("worst", Align::Right),
            ("fitted: median", Align::Right),
            ("worst", Align::Right),
        ]);
        let percent = |error: f64| format!("{:.0} %", 100.0 * error);
        let signed = |error: f64| format!("{:+.0} %", 100.0 * error);
        for (name, (count, [before, after])) in self.errors() {
            table.row([
                name.to_string(),
                count.to_string(),
                percent(before.median),
                signed(before.worst),
                percent(after.median),
                signed(after.worst),
            ]);
        }
        print!("{table}");
        println!(
            "the cheapest estimate takes {:.3} times as long as the fastest, with fitted rates {:.3}",
            self.regret(&self.before),
            self.regret(&self.after)
        );
        println!("planish {} on {}, {}", env!("CARGO_PKG_VERSION"), machine::processor(), self.isa);
    }

    fn to_json(&self) -> serde_json::Value {
        let rates: Vec<_> = Rate::ALL
            .iter()
            .map(|&rate| {
                json!({
                    "rate": rate.name(), "meaning": rate.meaning(), "default_ns": self.before.get(rate),
                    "fitted_ns": self.after.get(rate),
                })
            })
            .collect();
        let algorithms: Vec<_> = self
            .errors()
            .into_iter()
            .map(|(name, (count, [before, after]))| {
                json!({
                    "name": name, "samples": count, "median_error": before.median, "worst_error": before.worst,
                    "fitted_median_error": after.median, "fitted_worst_error": after.worst,
                })
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "cpu": machine::processor(), "isa": self.isa.name(),
            "rates": rates, "algorithms": algorithms, "picked_over_fastest": self.regret(&self.before),
            "fitted_picked_over_fastest": self.regret(&self.after),
            "samples": self.measured.iter().zip(&self.samples).map(|(m, s)| m.to_json(self.after.milliseconds(&s.work))).collect::<Vec<_>>(),
        })
    }
}
