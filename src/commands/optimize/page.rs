//! The report as a page: what it cost and gained as plots, and every layer.

use super::judge::Standard;
use super::layers::Choice;
use super::search::{Outcome, Variant};
use super::terminal;
use planish::report::bars::{Bar, Bars};
use planish::report::chart::{Chart, Scale, Series, Style};
use planish::report::html::{Page, figures, folded, legend, paragraph};
use planish::report::intervals::{self, Interval};
use planish::report::machine;
use planish::report::table::{Align, Table, bytes, milliseconds};

/// The colour of what was there before.
const BEFORE: usize = 6;
/// Formats, and their colours.
const FORMATS: [(&str, usize); 3] = [("int8", 0), ("f32", 1), ("bf16", 2)];

fn colour(format: &str) -> usize {
    FORMATS.iter().find(|f| f.0 == format).map_or(FORMATS.len(), |f| f.1)
}

fn variant_colour(outcome: &Outcome, v: usize) -> usize {
    match outcome.variants[v].name().as_str() {
        "unoptimised" => BEFORE,
        name if name.starts_with("int8") => colour("int8"),
        name => colour(name),
    }
}

/// The page.
pub fn page(outcome: &Outcome) -> Page {
    let name = outcome.place.file_name().unwrap_or_default().to_string_lossy();
    let best = &outcome.variants[outcome.chosen];
    let lead = format!(
        "Made as fast on this machine as a bound of {} of {} allows, by planish {} in {:.0} s on {}: {} threads, {}.",
        terminal::points(outcome.max_drop),
        outcome.standard.name(),
        env!("CARGO_PKG_VERSION"),
        outcome.seconds,
        machine::processor(),
        best.session.threads(),
        best.session.isa()
    );
    let mut page = Page::new(&format!("{name}, optimised"), &lead);
    let mut text: String = terminal::summary(outcome).iter().map(|line| paragraph(line)).collect();
    text += &terminal::variants(outcome).html();
    let advice = terminal::advice(outcome);
    if !advice.is_empty() {
        text += &paragraph(&format!("The network that was written reaches this{advice}."));
    }
    page.section("Before and after", text);
    page.section("Latency", latency(outcome));
    page.section("Accuracy", accuracy(outcome));
    page.section("File and memory", memory(outcome));
    page.section("Time of each layer", times(outcome));
    page.section("Gain of each layer, predicted and measured", gains(outcome));
    page.section("Every layer", folded("Show the table", &table(&outcome.layers).html()));
    page
}

fn plot(caption: &str, svg: String) -> String {
    let figure = figures([(caption.to_string(), svg)]);
    // One plot may take the whole width of a page.
    figure.replacen("<figure>", "<figure class=\"whole\">", 1)
}

fn name(outcome: &Outcome, v: usize) -> String {
    let chosen = if v == outcome.chosen { " (chosen)" } else { "" };
    format!("{}{chosen}", outcome.variants[v].name())
}

fn latency(outcome: &Outcome) -> String {
    let mut bars = Bars::new(150.0, 22.0);
    let before = outcome.variants[0].median();
    for (v, variant) in outcome.variants.iter().enumerate() {
        let Some(l) = variant.latency else { continue };
        let text = format!("{:.3} ms, {:.2}×", l.p50, before / l.p50);
        let story =
            format!("{}: {} runs, median {:.3} ms, fastest {:.3}", variant.name(), l.count, l.p50, l.min);
        let index = variant_colour(outcome, v);
        let bar = Bar { index, value: l.p50, text, story, spread: Some([l.p10, l.p90]) };
        bars.group(&name(outcome, v), vec![bar]);
    }
    let shape: Vec<String> = outcome.shapes[0].iter().map(usize::to_string).collect();
    paragraph(&format!(
        "Median milliseconds of one run on inputs of {}, all variants in turn on the same machine; the thin line spans the \
         10th to the 90th percentile.",
        shape.join("×")
    )) + &plot("Latency, ms", bars.svg())
}

fn accuracy(outcome: &Outcome) -> String {
    let row = |(v, variant): (usize, &Variant)| {
        let judgement = variant.judgement.as_ref()?;
        let loss = super::json::loss(&outcome.variants[0], variant)?;
        let text = match v {
            0 => format!("{:.2} %", judgement.percent()),
            _ => format!("{:.2} %, drop {:.2}", judgement.percent(), loss.points),
        };
        Some(Interval {
            name: name(outcome, v),
            index: variant_colour(outcome, v),
            value: judgement.percent(),
            ends: judgement.interval(),
            text,
        })
    };
    let rows: Vec<Interval> = outcome.variants.iter().enumerate().filter_map(row).collect();
    let least = outcome.variants[0].judgement.as_ref().map(|j| j.percent() - outcome.max_drop);
    let how = match outcome.standard {
        Standard::Labels => {
            "The share of pictures whose best class is right, with Wilson’s interval of 95 %."
        }
        Standard::Agreement => {
            "There are no labels: this is the share of pictures whose best class is that of the unoptimised network, with \
             Wilson’s interval of 95 %. It says nothing about which answers are right."
        }
        Standard::Outputs => {
            "The network is no classifier: this is 100 % less the relative L2 distance of all outputs from those of the \
             unoptimised network, the mean over pictures, with its interval of 95 %."
        }
    };
    let mut text = paragraph(&format!(
        "{how} {} pictures judged, {} others calibrated; seed {} chose which, and no picture did both.",
        outcome.judging, outcome.calibrating, outcome.seed
    ));
    text += &plot("Of held-out pictures, %", intervals::svg(&rows, least.map(|l| (l, "the bound"))));
    let best = &outcome.variants[outcome.chosen];
    if let Some(loss) = super::json::loss(&outcome.variants[0], best) {
        let mut line = format!(
            "The intervals above are of each variant by itself. The drop from unoptimised to {} is {:.2} points, with an \
             interval of 95 % from {:.2} to {:.2}",
            best.name(),
            loss.points,
            loss.interval[0],
            loss.interval[1]
        );
        line += &match loss.paired {
            Some(p) => format!(
                " (Agresti and Min’s, of paired shares: {} pictures only the unoptimised network got, {} only the other; \
                 McNemar’s exact test: p = {:.3}).",
                p.lost,
                p.gained,
                p.p_value()
            ),
            None => ", of the mean difference.".to_string(),
        };
        text += &paragraph(&line);
    }
    if !outcome.back.is_empty() {
        text += &paragraph(
            "The same pictures decided how many layers went back to float, so that the drop of the chosen network is told a \
             little too small.",
        );
    }
    text
}

fn memory(outcome: &Outcome) -> String {
    let bars = |what: &dyn Fn(&Variant) -> Option<usize>| {
        let mut bars = Bars::new(150.0, 22.0);
        for (v, variant) in outcome.variants.iter().enumerate() {
            let Some(size) = what(variant) else { continue };
            let text = bytes(size as u64);
            let story = format!("{}: {size} bytes", variant.name());
            let index = variant_colour(outcome, v);
            bars.group(&name(outcome, v), vec![Bar { index, value: size as f64, text, story, spread: None }]);
        }
        bars.svg()
    };
    plot("The file", bars(&|v| v.file_bytes))
        + &plot("Working memory of one run, weights not counted", bars(&|v| Some(v.arena_bytes)))
}

fn key(outcome: &Outcome) -> String {
    let used = |format: &&(&str, usize)| outcome.layers.iter().any(|l| l.format == format.0);
    let formats = FORMATS.iter().filter(used).map(|&(format, index)| (index, "", format));
    legend([(BEFORE, "", "simplified, f32")].into_iter().chain(formats))
}

fn times(outcome: &Outcome) -> String {
    let mut bars = Bars::new(230.0, 10.0);
    for layer in &outcome.layers {
        let bar = |index, ms: Option<f64>, what: &str| Bar {
            index,
            value: ms.unwrap_or(0.0),
            text: ms.map_or(String::new(), milliseconds),
            story: format!("{}, {what}: {}", layer.name, layer.why),
            spread: None,
        };
        let after = bar(colour(&layer.format), layer.after_ms, &layer.format);
        bars.group(&shortened(&layer.name), vec![bar(BEFORE, layer.before_ms, "f32"), after]);
    }
    let text = paragraph(&format!(
        "The fastest of ten profiled runs, in the simplified f32 network and in the chosen one: {}.",
        terminal::formats(outcome)
    ));
    text + &key(outcome) + &plot("Milliseconds of each layer", bars.svg())
}

/// The end of a long name, which tells more than its start.
fn shortened(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    match letters.len() > 34 {
        true => format!("…{}", letters[letters.len() - 33..].iter().collect::<String>()),
        false => name.to_string(),
    }
}

fn gains(outcome: &Outcome) -> String {
    let mut chart = Chart::new(["predicted, ms", "measured, ms"], [Scale::Linear, Scale::Linear]);
    let mut all = Vec::new();
    for (format, index) in FORMATS {
        let of = outcome.layers.iter().filter(|l| l.format == format);
        let points: Vec<(f64, f64)> = of.filter_map(|l| l.predicted_ms.zip(l.gained_ms())).collect();
        all.extend(points.iter().flat_map(|p| [p.0, p.1]));
        if !points.is_empty() {
            chart.series(Series { name: format.to_string(), index, style: Style::Dots, points });
        }
    }
    if all.is_empty() {
        return paragraph(
            "No layer has both a prediction and a measurement: too few convolutions, or too little time.",
        );
    }
    let ends = [all.iter().copied().fold(0.0, f64::min), all.iter().copied().fold(0.0, f64::max)];
    let points = ends.map(|e| (e, e)).to_vec();
    let name = "measured = predicted".to_string();
    chart.series(Series { name, index: 0, style: Style::Guide, points });
    paragraph(
        "How much less each layer takes than in the simplified f32 network: by the planner’s cost model, and as measured. On \
         the dotted line the model is right. Layers that are computed together with others in either network have no dot.",
    ) + &key(outcome)
        + &figures([("Milliseconds gained".to_string(), chart.svg())])
}

fn table(layers: &[Choice]) -> Table {
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("operator", Align::Left),
        ("format", Align::Left),
        ("algorithm", Align::Left),
        ("f32", Align::Right),
        ("now", Align::Right),
        ("gained", Align::Right),
        ("predicted", Align::Right),
        ("alone in integers", Align::Right),
        ("why", Align::Left),
    ]);
    let time = |ms: Option<f64>| ms.map_or("–".to_string(), |ms| format!("{ms:.3}"));
    for l in layers {
        table.row([
            l.name.clone(),
            l.operator.clone(),
            l.format.clone(),
            l.algorithm.clone(),
            time(l.before_ms),
            time(l.after_ms),
            time(l.gained_ms()),
            time(l.predicted_ms),
            l.alone_db.map_or("–".to_string(), |db| format!("{db:.1} dB")),
            l.why.clone(),
        ]);
    }
    table
}
