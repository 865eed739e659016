//! The report for people, on the terminal.

use super::Arguments;
use super::judge::Standard;
use super::search::{Kind, Outcome, Variant};
use planish::report::table::{Align, Table, bytes};

/// Prints the outcome.
pub fn print(arguments: &Arguments, outcome: &Outcome) {
    for line in summary(outcome) {
        println!("{line}");
    }
    print!("{}", variants(outcome));
    if !outcome.layers.is_empty() {
        println!("layers: {}", formats(outcome));
    }
    match &arguments.output {
        Some(path) => println!("written to {}{}", path.display(), advice(outcome)),
        None => println!("next: -o OUT.onnx writes the network{}", advice(outcome)),
    }
    if let Some(path) = arguments.report_path() {
        println!("each layer, and plots: {}", path.display());
    }
}

/// How the written network is run at its speed.
pub fn advice(outcome: &Outcome) -> String {
    let best = &outcome.variants[outcome.chosen];
    match best.precision.name() {
        "f32" => String::new(),
        precision => format!("; run it with --precision {precision}"),
    }
}

/// A number of points.
pub fn points(points: f64) -> String {
    format!("{points} point{}", if points == 1.0 { "" } else { "s" })
}

/// How many layers got each format.
pub fn formats(outcome: &Outcome) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for layer in &outcome.layers {
        *counts.entry(&layer.format).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(format, n)| format!("{n} {format}")).collect();
    counts.join(", ")
}

/// What there is to say in a few sentences.
pub fn summary(outcome: &Outcome) -> Vec<String> {
    let (before, best) = (&outcome.variants[0], &outcome.variants[outcome.chosen]);
    let mut lines = vec![format!(
        "{}: {:.2}× faster than unoptimised as {}, {:.3} ms instead of {:.3} (batch {}, {} threads, {})",
        outcome.place.display(),
        before.median() / best.median(),
        best.name(),
        best.median(),
        before.median(),
        outcome.shapes[0].first().copied().unwrap_or(1),
        best.session.threads(),
        best.session.isa()
    )];
    if let Some(loss) = super::json::loss(before, best) {
        let mut line = format!(
            "{} drops by {:.2} points (95 %: {:.2} to {:.2}) on {} pictures that did not calibrate",
            outcome.standard.name(),
            loss.points,
            loss.interval[0],
            loss.interval[1],
            outcome.judging
        );
        if let Some(p) = loss.paired {
            line += &format!(": {} lost, {} gained, p = {:.2}", p.lost, p.gained, p.p_value());
        }
        lines.push(line);
    }
    lines.push(format!(
        "{} pictures calibrated (seed {}); {} may be lost",
        outcome.calibrating,
        outcome.seed,
        points(outcome.max_drop)
    ));
    if outcome.standard != Standard::Labels {
        lines.push(
            "without labels: what is kept is what the unoptimised network answers, right or wrong"
                .to_string(),
        );
    }
    if outcome.skipped > 0 {
        lines.push(format!("{} pictures could not be read and were left out", outcome.skipped));
    }
    let integers = outcome.variants.iter().find(|v| v.kind == Kind::Integers);
    if integers.is_some_and(|v| !v.holds) {
        lines
            .push("integers lose more than the bound allows, or there was no time to judge them".to_string());
    }
    lines
}

/// Every variant that was tried.
pub fn variants(outcome: &Outcome) -> Table {
    let mut table = Table::new(&[
        ("", Align::Left),
        (if outcome.standard == Standard::Outputs { "closeness" } else { "top-1" }, Align::Right),
        ("95 %", Align::Right),
        ("latency", Align::Right),
        ("faster", Align::Right),
        ("file", Align::Right),
        ("working memory", Align::Right),
        ("", Align::Left),
    ]);
    let before = outcome.variants[0].median();
    for (v, variant) in outcome.variants.iter().enumerate() {
        table.row([
            variant.name(),
            variant.judgement.as_ref().map_or("–".to_string(), |j| format!("{:.2} %", j.percent())),
            variant.judgement.as_ref().map_or("–".to_string(), |j| {
                let [low, high] = j.interval();
                format!("{low:.1} to {high:.1}")
            }),
            variant.latency.map_or("–".to_string(), |l| format!("{:.3} ms", l.p50)),
            variant.latency.map_or("–".to_string(), |l| format!("{:.2}×", before / l.p50)),
            variant.file_bytes.map_or("–".to_string(), |b| bytes(b as u64)),
            bytes(variant.arena_bytes as u64),
            remark(variant, v == outcome.chosen).to_string(),
        ]);
    }
    table
}

fn remark(variant: &Variant, chosen: bool) -> &'static str {
    match (chosen, variant.holds, &variant.judgement) {
        (true, ..) => "chosen",
        (_, true, _) => "",
        (_, false, Some(_)) => "loses too much",
        (_, false, None) => "not judged",
    }
}
