//! What `planish quantize` tells: on the terminal, as JSON, and as a page.

use super::{Arguments, Outcome};
use planish::report::html::{Page, paragraph};
use planish::report::table::{Align, Table, bytes, count};
use planish_compress::quantize::LayerReport;
use planish_graph::{Error, Result};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// Writes the report of layers: a page, or JSON.
pub fn save(arguments: &Arguments, outcome: &Outcome, path: &Path) -> Result<()> {
    let html = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("html"));
    let text = match html {
        true => page(arguments, outcome).render(),
        false => planish::report::to_json(&json(arguments, outcome))?,
    };
    planish_files::replace(path, |out| out.write_all(text.as_bytes())).map_err(|e| Error::io(path, &e))
}

/// The report as JSON.
pub fn json(arguments: &Arguments, outcome: &Outcome) -> Value {
    let q = &outcome.quantised;
    let layers: Vec<Value> = q
        .layers()
        .iter()
        .map(|l| {
            json!({
                "name": l.name, "operator": l.operator, "weights": l.weights, "bits": l.bits,
                "activation_bits": l.activation_bits, "float": l.float,
                "weight_sqnr_db": decibels(l.weight_noise),
                "alone_sqnr_db": l.alone.map(|d| decibels(d.noise)), "alone_changed": l.alone.map(|d| d.changed),
            })
        })
        .collect();
    let tried: Vec<Value> = q
        .tried
        .iter()
        .map(|(name, d)| json!({"observer": name, "sqnr_db": decibels(d.noise), "changed": d.changed}))
        .collect();
    let names = q.layers();
    let gains: Vec<Value> = q
        .gains
        .iter()
        .map(|g| json!({"layer": names[g.layer].name, "nearest": g.nearest, "adapted": g.adapted}))
        .collect();
    let accuracy = outcome.accuracy.as_ref().map(|a| {
        let (all, after) = (&a.quantised.first, &a.quantised.last);
        json!({
            "pictures": a.float.images, "float_top1": a.float.percent(a.float.top1),
            "top1": after.percent(after.top1), "float_top5": a.float.percent(a.float.top5),
            "top5": after.percent(after.top5), "all_quantised_top1": all.percent(all.top1),
            "within_bound": a.kept,
        })
    });
    json!({
        "model": arguments.model.display().to_string(),
        "output": arguments.output.as_ref().map(|o| o.display().to_string()),
        "pictures": outcome.pictures, "asked": outcome.asked, "skipped": outcome.skipped,
        "observer": q.observer, "tried": tried, "scales": q.scales,
        "equalized_pairs": q.equalised.0, "absorbed_channels": q.equalised.1, "rounding_gains": gains, "bias_corrected": q.corrected,
        "sqnr_db": decibels(outcome.distance.noise), "changed": outcome.distance.changed,
        "constant_bytes_before": outcome.bytes[0], "constant_bytes": outcome.bytes[1],
        "bit_operations": outcome.bit_operations,
        "accuracy": accuracy, "layers": layers, "seconds": outcome.seconds, "interrupted": outcome.interrupted,
    })
}

/// The report for people.
pub fn print(arguments: &Arguments, outcome: &Outcome) {
    for line in summary(arguments, outcome) {
        println!("{line}");
    }
    if outcome.quantised.layers().iter().any(|l| l.alone.is_some()) {
        print!("{}", table(outcome, 10));
    }
    match (&arguments.output, &arguments.report) {
        (Some(path), _) => println!("written to {}", path.display()),
        (None, _) => println!("next: -o OUT.onnx writes the quantised model"),
    }
    if let Some(path) = &arguments.report {
        println!("all layers: {}", path.display());
    }
}

/// What there is to say in a few sentences.
fn summary(arguments: &Arguments, outcome: &Outcome) -> Vec<String> {
    let q = &outcome.quantised;
    let layers = q.layers();
    let float: Vec<&str> = layers.iter().filter(|l| l.float).map(|l| l.name.as_str()).collect();
    let mut lines = vec![format!(
        "{}: {} of {} layers in integers, {} scales by {}, from {} pictures, in {:.1} s",
        arguments.model.display(),
        layers.len() - float.len(),
        layers.len(),
        q.scales,
        q.observer,
        outcome.pictures,
        outcome.seconds
    )];
    if outcome.skipped > 0 {
        lines.push(format!("{} pictures could not be read and were left out", outcome.skipped));
    }
    if !float.is_empty() {
        lines.push(format!("in float: {}", float.join(", ")));
    }
    if !q.gains.is_empty() {
        let gain: f64 = q.gains.iter().map(|g| (g.adapted.max(1e-30) / g.nearest.max(1e-30)).ln()).sum();
        let mean = (gain / q.gains.len() as f64).exp();
        lines.push(format!(
            "adaptive rounding: the layers' squared errors are {:.2} of those of nearest rounding, in geometric mean",
            mean
        ));
    }
    lines.push(format!(
        "answers: signal to noise {}, another best class for {:.1} % of the calibration pictures",
        written(outcome.distance.noise),
        100.0 * outcome.distance.changed
    ));
    if let Some(a) = &outcome.accuracy {
        let last = &a.quantised.last;
        let (before, after) = (a.float.percent(a.float.top1), last.percent(last.top1));
        lines.push(format!(
            "top-1 of {} pictures that did not calibrate: {before:.2} % in float, {after:.2} % quantised ({:+.2})",
            last.images,
            after - before
        ));
        if a.kept == Some(false) {
            lines.push("that is more than --max-drop allows: nothing more could be done".to_string());
        }
    }
    lines.push(format!(
        "constants: {} before, {} after",
        bytes(outcome.bytes[0] as u64),
        bytes(outcome.bytes[1] as u64)
    ));
    lines
}

/// The layers, those first that cost most, `most` of them.
fn table(outcome: &Outcome, most: usize) -> Table {
    let mut layers: Vec<LayerReport> = outcome.quantised.layers();
    let noise = |l: &LayerReport| l.alone.map_or(-1.0, |d| d.noise);
    layers.sort_by(|a, b| noise(b).total_cmp(&noise(a)));
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("operator", Align::Left),
        ("weights", Align::Right),
        ("bits", Align::Right),
        ("of input", Align::Right),
        ("weights' SQNR", Align::Right),
        ("answers' SQNR alone", Align::Right),
        ("changed alone", Align::Right),
        ("", Align::Left),
    ]);
    for l in layers.iter().take(most) {
        table.row([
            l.name.clone(),
            l.operator.to_string(),
            count(l.weights as u64),
            (if l.float { "32".to_string() } else { l.bits.to_string() }),
            (if l.float { "32".to_string() } else { l.activation_bits.to_string() }),
            written(l.weight_noise),
            l.alone.map_or("–".to_string(), |d| written(d.noise)),
            l.alone.map_or("–".to_string(), |d| format!("{:.1} %", 100.0 * d.changed)),
            (if l.float { "float" } else { "" }).to_string(),
        ]);
    }
    table
}

fn page(arguments: &Arguments, outcome: &Outcome) -> Page {
    let name = arguments.model.file_name().unwrap_or_default().to_string_lossy();
    let mut page = Page::new(
        &format!("{name}, quantised"),
        "What 8-bit integers cost this network, as a whole and layer by layer.",
    );
    page.section("The network", summary(arguments, outcome).iter().map(|line| paragraph(line)).collect());
    let mut tried = Table::new(&[
        ("observer", Align::Left),
        ("answers' SQNR", Align::Right),
        ("other best class", Align::Right),
    ]);
    for (name, d) in &outcome.quantised.tried {
        tried.row([name.to_string(), written(d.noise), format!("{:.1} %", 100.0 * d.changed)]);
    }
    if !tried.is_empty() {
        page.section("Ways to find ranges", tried.html());
    }
    let lead = paragraph(
        "The signal-to-noise ratio of the answers where this layer's input and weights are integers and all else is float. \
         The smallest cost most.",
    );
    page.section("Layers", lead + &table(outcome, usize::MAX).html());
    page
}

/// Signal to noise in decibels; `None` where there is no noise.
pub(super) fn decibels(noise: f64) -> Option<f64> {
    (noise > 0.0).then(|| -10.0 * noise.log10())
}

pub(super) fn written(noise: f64) -> String {
    decibels(noise).map_or("exact".to_string(), |db| format!("{db:.1} dB"))
}
