//! A sweep as a page: who wins where, how fast, how exactly, and where the planner is wrong.

use super::laboratory::{Laboratory, Outcome, Trial};
use super::shape;
use super::sweep::Sweep;
use planish::report::chart::{Chart, Scale, Series, Style};
use planish::report::grid::{Cell, Grid};
use planish::report::html::{Page, figures, folded, legend, paragraph};
use planish::report::machine;
use planish::report::table::{Align, Table, milliseconds};
use planish_cpu::conv::algorithms;

/// Channels that rates are shown for.
const RATE_CHANNELS: [usize; 3] = [16, 64, 256];
/// Layers shown where the planner is most wrong.
const REGRETTED: usize = 20;

/// An algorithm as the page shows it: its colour, its short form, its name.
type Entry = (usize, String, &'static str);

/// The page.
pub fn render(laboratory: &Laboratory, sweep: &Sweep) -> String {
    let lead = format!(
        "{} of {} layers, measured by planish {} in {:.0} s on {}: {} threads, {}, {}, batch 1, channels-last. The \
         measured peak of these threads is {:.1} GFLOP/s.",
        sweep.trials.len(),
        sweep.layers,
        env!("CARGO_PKG_VERSION"),
        sweep.seconds[1],
        machine::processor(),
        laboratory.threads(),
        laboratory.isa,
        laboratory.precision,
        laboratory.peak_gflops
    );
    let names: Vec<&'static str> = algorithms().iter().map(|a| a.name()).collect();
    let entries: Vec<Entry> =
        short_forms(&names).into_iter().zip(names).enumerate().map(|(i, (s, n))| (i, s, n)).collect();
    let mut page = Page::new("Convolution algorithms", &lead);
    page.section("Which algorithm wins", winners(laboratory, sweep, &entries));
    page.section("The planner’s estimates", planner(sweep, &entries));
    page.section("Rate over map size", rates(sweep, &entries));
    page.section("Error over summed products", errors(sweep, &entries));
    page.section("All layers", folded("Show the table", &layers(laboratory, sweep)));
    page.render()
}

/// Two letters for each name that no other has: the first two, or the first with a later one.
fn short_forms(names: &[&str]) -> Vec<String> {
    let mut forms: Vec<String> = Vec::new();
    for name in names {
        let mut letters = name.chars();
        let first = letters.next().unwrap_or('?');
        let rest: Vec<char> = letters.collect();
        // The last one tells `winograd-2` from `winograd-4`.
        let seconds = rest.first().into_iter().chain(rest.last()).chain(&rest);
        let found = seconds.map(|second| format!("{first}{second}")).find(|form| !forms.contains(form));
        forms.push(found.unwrap_or_else(|| name.to_string()));
    }
    forms
}

fn index(name: &str, entries: &[Entry]) -> usize {
    entries.iter().position(|e| e.2 == name).unwrap_or(0)
}

fn is_depthwise(trial: &Trial) -> bool {
    trial.problem.groups > 1
}

/// A legend of the algorithms that `shows`.
fn key(entries: &[Entry], shows: impl Fn(&str) -> bool) -> String {
    legend(entries.iter().filter(|e| shows(e.2)).map(|(i, short, name)| (*i, short.as_str(), *name)))
}

/// Series of what `point` makes of each algorithm's outcomes.
fn series<'a>(
    trials: impl Iterator<Item = &'a Trial> + Clone,
    entries: &[Entry],
    style: Style,
    point: impl Fn(&Trial, &Outcome) -> (f64, f64),
) -> Vec<Series> {
    let all = entries.iter().map(|(index, _, name)| {
        let mut points: Vec<(f64, f64)> = trials
            .clone()
            .flat_map(|t| t.outcomes.iter().filter(|o| o.algorithm == *name).map(|o| point(t, o)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: name.to_string(), index: *index, style, points }
    });
    all.filter(|s| !s.points.is_empty()).collect()
}

fn winners(laboratory: &Laboratory, sweep: &Sweep, entries: &[Entry]) -> String {
    let mut text = paragraph(
        "Each cell is a layer with as many outputs as inputs (32 outputs where 3 channels enter): its colour and letters \
         name the fastest algorithm, the number below says how many times as long the second took. A ring marks layers \
         where the planner’s estimate picks another one that takes over 5 % longer. Blank layers were beyond the time budget.",
    );
    text += &key(entries, |name| sweep.trials.iter().any(|t| t.best().algorithm == name));
    let axes = &sweep.axes;
    let mut grids = Vec::new();
    for depthwise in [false, true] {
        let channels = axes.channels(depthwise);
        for &kernel in &axes.kernels {
            for &stride in &axes.strides {
                let names = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>();
                let mut grid = Grid::new(names(&channels), names(&axes.maps), ["channels", "map"]);
                let mut filled = false;
                for trial in sweep.trials.iter().filter(|t| {
                    (is_depthwise(t), t.problem.kernel[1], t.problem.stride[1]) == (depthwise, kernel, stride)
                }) {
                    let column = channels.iter().position(|&c| c == trial.problem.in_channels);
                    let row = axes.maps.iter().position(|&m| m == trial.problem.in_size[1]);
                    if let (Some(column), Some(row)) = (column, row) {
                        grid.cell(column, row, cell(laboratory, trial, entries));
                        filled = true;
                    }
                }
                if filled {
                    let kind = if depthwise { "depthwise " } else { "" };
                    grids.push((format!("{kind}{kernel}×{kernel}, stride {stride}"), grid.svg()));
                }
            }
        }
    }
    text + &figures(grids)
}

fn cell(laboratory: &Laboratory, trial: &Trial, entries: &[Entry]) -> Cell {
    let best = trial.best();
    let index = index(best.algorithm, entries);
    let rate = trial.gflops(best);
    let mut story = format!(
        "{}: {} {}, {rate:.1} GFLOP/s, {:.0} % of peak",
        shape::describe(&trial.problem),
        best.algorithm,
        milliseconds(best.times.min),
        laboratory.percent(rate)
    );
    for other in &trial.outcomes[1..] {
        story += &format!("; {} {:.2}×", other.algorithm, other.times.min / best.times.min);
    }
    if trial.picked != best.algorithm {
        story += &format!("; the planner picks {}", trial.picked);
    }
    let lead = match trial.lead() {
        Some(lead) if lead >= 9.95 => format!("{lead:.0}×"),
        Some(lead) => format!("{lead:.2}×"),
        None => "alone".to_string(),
    };
    Cell { index, lines: [entries[index].1.clone(), lead], story, marked: !trial.is_well_picked() }
}

fn planner(sweep: &Sweep, entries: &[Entry]) -> String {
    let (right, all) = (sweep.well_picked(), sweep.trials.len());
    let mut text = paragraph(&format!(
        "The cheapest estimate was the fastest algorithm, or at most 5 % slower, in {right} of {all} layers ({:.0} %). Over all layers the pick \
         takes {:.3} times as long as the fastest, as a geometric mean. Below: estimates over measured times; on the dotted \
         line an estimate is right, and what counts for the choice is that all algorithms err alike.",
        100.0 * right as f64 / all as f64,
        sweep.regret()
    ));
    let times: Vec<f64> = sweep.trials.iter().flat_map(|t| &t.outcomes).map(|o| o.times.min).collect();
    let ends = [times.iter().copied().fold(f64::MAX, f64::min), times.iter().copied().fold(0.0, f64::max)];
    let point = |_: &Trial, o: &Outcome| (o.times.min, o.estimated_ms);
    // One chart for each, because the clouds lie upon each other.
    let charts = series(sweep.trials.iter(), entries, Style::Dots, point).into_iter().map(|series| {
        let mut chart =
            Chart::new(["measured, ms", "estimated, ms"], [Scale::Logarithmic, Scale::Logarithmic]);
        let name = series.name.clone();
        chart.series(guide("estimate = time", ends.map(|t| (t, t))));
        chart.series(series);
        (name, chart.svg())
    });
    text += &figures(charts);
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("fastest", Align::Left),
        ("time", Align::Right),
        ("picked", Align::Left),
        ("times as long", Align::Right),
    ]);
    for trial in sweep.regretted().into_iter().take(REGRETTED) {
        let time = milliseconds(trial.best().times.min);
        let regret = format!("{:.2}", trial.regret());
        let layer = shape::describe(&trial.problem);
        table.row([layer.as_str(), trial.best().algorithm, &time, trial.picked, &regret]);
    }
    if !table.is_empty() {
        text += &paragraph("Where the pick costs most:");
        text += &table.html();
    }
    text
}

fn measured(sweep: &Sweep, name: &str) -> bool {
    sweep.trials.iter().any(|t| t.outcomes.iter().any(|o| o.algorithm == name))
}

fn guide(name: &str, ends: [(f64, f64); 2]) -> Series {
    Series { name: name.to_string(), index: 0, style: Style::Guide, points: ends.to_vec() }
}

fn rates(sweep: &Sweep, entries: &[Entry]) -> String {
    let mut text = paragraph(
        "Stride 1. Operations are counted by the definition of the convolution, padding included, whatever an algorithm \
         saves; so an algorithm may pass the peak.",
    );
    text += &key(entries, |name| measured(sweep, name));
    let mut panels = Vec::new();
    for depthwise in [false, true] {
        for &kernel in &sweep.axes.kernels {
            for channels in RATE_CHANNELS {
                let trials = sweep.trials.iter().filter(|t| {
                    (is_depthwise(t), t.problem.kernel[1], t.problem.in_channels)
                        == (depthwise, kernel, channels)
                        && t.problem.stride[1] == 1
                });
                let mut chart = Chart::new(["map size", "GFLOP/s"], [Scale::Logarithmic, Scale::Linear])
                    .ticks(sweep.axes.maps.iter().map(|&m| m as f64).collect());
                let point = |t: &Trial, o: &Outcome| (t.problem.in_size[1] as f64, t.gflops(o));
                for series in series(trials, entries, Style::Line, point) {
                    chart.series(series);
                }
                // A map size alone shows no course.
                if chart.longest() > 1 {
                    let kind = if depthwise { "depthwise " } else { "" };
                    panels.push((format!("{kind}{kernel}×{kernel}, {channels} channels"), chart.svg()));
                }
            }
        }
    }
    text + &figures(panels)
}

fn errors(sweep: &Sweep, entries: &[Entry]) -> String {
    let mut text = paragraph(
        "The relative L2 error against the reference in double precision, over the products that are summed for an output \
         (channels of a group × kernel). The dotted line grows as rounding errors do that fall either way: 2⁻²⁴ · √n.",
    );
    text += &key(entries, |name| measured(sweep, name));
    let products = |t: &Trial| (t.problem.group_in() * t.problem.taps()) as f64;
    let most = sweep.trials.iter().map(products).fold(1.0, f64::max);
    let unit = f64::from(f32::EPSILON) / 2.0;
    let mut chart = Chart::new(["summed products", "relative L2"], [Scale::Logarithmic, Scale::Logarithmic]);
    chart.series(guide("2⁻²⁴ · √n", [1.0, most].map(|n| (n, unit * n.sqrt()))));
    for series in series(sweep.trials.iter(), entries, Style::Dots, |t, o| (products(t), o.relative_l2)) {
        chart.series(series);
    }
    text += &figures([("All algorithms".to_string(), chart.svg())]);
    text
}

fn layers(laboratory: &Laboratory, sweep: &Sweep) -> String {
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("algorithm", Align::Left),
        ("time", Align::Right),
        ("GFLOP/s", Align::Right),
        ("of peak", Align::Right),
        ("times fastest", Align::Right),
        ("estimate/time", Align::Right),
        ("relative L2", Align::Right),
        ("", Align::Left),
    ]);
    for trial in &sweep.trials {
        for (rank, outcome) in trial.outcomes.iter().enumerate() {
            let rate = trial.gflops(outcome);
            table.row([
                if rank == 0 { shape::describe(&trial.problem) } else { String::new() },
                outcome.algorithm.to_string(),
                milliseconds(outcome.times.min),
                format!("{rate:.1}"),
                format!("{:.1} %", laboratory.percent(rate)),
                format!("{:.2}", outcome.times.min / trial.best().times.min),
                format!("{:.2}", outcome.estimated_ms / outcome.times.min.max(1e-9)),
                format!("{:.1e}", outcome.relative_l2),
                if outcome.algorithm == trial.picked { "picked".to_string() } else { String::new() },
            ]);
        }
    }
    table.html()
}

#[cfg(test)]
mod tests {
    use super::short_forms;

    #[test]
    fn short_forms_differ() {
        let names =
            ["pointwise", "direct", "indirect", "im2col", "depthwise", "winograd-2", "winograd-4", "w"];
        assert_eq!(short_forms(&names), ["po", "di", "in", "im", "de", "wi", "w4", "w"]);
    }
}
