//! What was chosen for each layer, why, and what it gained: as the planner expected, and as measured.

use super::super::timing;
use super::search::{Found, Kind, Variant};
use planish::report::table::milliseconds;
use planish_compress::quantize::mixed::by_layer;
use planish_engine::Profile;
use planish_graph::{Result, Tensor};

/// What was chosen for one layer.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The node's name.
    pub name: String,
    /// The operator.
    pub operator: String,
    /// What it computes in: "int8", "f32", "bf16".
    pub format: String,
    /// The algorithm.
    pub algorithm: String,
    /// Why that format.
    pub why: String,
    /// Milliseconds in the simplified `f32` network.
    pub before_ms: Option<f64>,
    /// Milliseconds in the network that was chosen.
    pub after_ms: Option<f64>,
    /// What the planner's cost model expected the two to differ by.
    pub predicted_ms: Option<f64>,
    /// What the answers' signal to noise is where only this layer is quantised, in decibels, where that was measured.
    pub alone_db: Option<f64>,
}

impl Choice {
    /// Milliseconds that the choice gained.
    pub fn gained_ms(&self) -> Option<f64> {
        Some(self.before_ms? - self.after_ms?)
    }
}

/// Explains what became of each layer in the variant `chosen`.
pub fn explain(
    variants: &[Variant],
    chosen: usize,
    found: Option<&Found>,
    inputs: &[Tensor],
) -> Result<Vec<Choice>> {
    // The first float variant is what formats are compared with; the network as it was read stands in for it.
    let plain = variants.iter().find(|v| v.kind == Kind::Float).unwrap_or(&variants[0]);
    let best = &variants[chosen];
    let (before, after) = (timing::profile(&plain.session, inputs)?, timing::profile(&best.session, inputs)?);
    let names: Vec<String> = match found {
        Some(found) => found.quantised.layers().into_iter().map(|l| l.name).collect(),
        None => after.steps.iter().filter(|s| s.macs > 0).map(|s| s.node.clone()).collect(),
    };
    let after_ms = by_layer(&names, &after, &[]);
    let before_ms = by_layer(&names, &before, &after_ms);
    let reasons = reasons(best, found, names.len());
    let choice = |(l, name): (usize, &String)| {
        let step = after.steps.iter().find(|s| s.node == *name);
        let (format, why) = reasons[l].clone();
        Choice {
            operator: step.map_or(String::new(), |s| s.operator.clone()),
            algorithm: step.map_or(String::new(), |s| s.algorithm.clone()),
            format,
            why,
            before_ms: before_ms[l],
            after_ms: after_ms[l],
            predicted_ms: estimate(&before, name).zip(estimate(&after, name)).map(|(b, a)| b - a),
            alone_db: found
                .and_then(|f| f.quantised.layers()[l].alone)
                .map(|d| d.decibels())
                .filter(|db| db.is_finite()),
            name: name.clone(),
        }
    };
    Ok(names.iter().enumerate().map(choice).collect())
}

/// What the planner expects the step of a layer to take.
fn estimate(profile: &Profile, name: &str) -> Option<f64> {
    profile.steps.iter().find(|s| s.node == name)?.candidates.first().map(|c| c.estimated)
}

/// The format of each layer, and why.
fn reasons(best: &Variant, found: Option<&Found>, layers: usize) -> Vec<(String, String)> {
    let float = best.precision.to_string();
    let integers = found.filter(|_| best.kind == Kind::Integers);
    let Some(Found { quantised, times, bounded, .. }) = integers else {
        let why = match found {
            None => "integers were not tried",
            Some(found) if found.bounded.kept => "float is faster for the network as a whole",
            Some(_) => "integers lost more than the bound allows",
        };
        return vec![(float, why.to_string()); layers];
    };
    let decibels = |l: usize| match quantised.layers()[l].alone {
        Some(d) if d.noise > 0.0 => format!("; alone in integers it leaves {:.1} dB", d.decibels()),
        _ => String::new(),
    };
    let reason = |l: usize| {
        let times = times.get(l).copied().unwrap_or_default();
        let pair = times.integer.zip(times.float);
        if let Some(place) = bounded.back.iter().position(|&b| b == l) {
            let lost = times.loss().map_or(String::new(), |ms| format!(", for {} more", signed(ms)));
            return (float.clone(), format!("back for accuracy, number {}{lost}{}", place + 1, decibels(l)));
        }
        if quantised.between().contains(&l) {
            let gain = times.between.map_or(String::new(), |b| {
                format!(
                    ": gains {} with its conversions ({} expected)",
                    milliseconds(b.measured),
                    signed(b.predicted)
                )
            });
            return (float.clone(), format!("faster in float between integers{gain}"));
        }
        let why = match (pair, times.between) {
            (_, Some(between)) => format!(
                "float between integers was tried: {} expected, {} measured",
                signed(between.predicted),
                signed(between.measured)
            ),
            (Some((integer, float)), _) if integer < float => {
                format!("{:.2}× faster in integers", float / integer.max(1e-9))
            }
            (Some((integer, float)), _) => format!(
                "{:.2}× slower in integers, but less than conversions would cost",
                integer / float.max(1e-9)
            ),
            (None, _) => "integers wherever they hold the bound".to_string(),
        };
        ("int8".to_string(), why)
    };
    (0..layers).map(reason).collect()
}

/// A gain with its sign.
fn signed(ms: f64) -> String {
    let sign = if ms < 0.0 { "−" } else { "" };
    format!("{sign}{}", milliseconds(ms.abs()))
}
