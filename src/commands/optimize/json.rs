//! The report for programs.

use super::Arguments;
use super::judge::Loss;
use super::search::{Kind, Outcome, Variant};
use planish::report::machine;
use serde_json::{Value, json};

/// The outcome as one object.
pub fn report(arguments: &Arguments, outcome: &Outcome) -> Value {
    let (before, best) = (&outcome.variants[0], &outcome.variants[outcome.chosen]);
    let layers: Vec<Value> = outcome
        .layers
        .iter()
        .map(|l| {
            json!({
                "name": l.name, "operator": l.operator, "format": l.format, "algorithm": l.algorithm, "why": l.why,
                "f32_ms": l.before_ms, "ms": l.after_ms, "gained_ms": l.gained_ms(), "predicted_gain_ms": l.predicted_ms,
                "alone_sqnr_db": l.alone_db,
            })
        })
        .collect();
    let back: Vec<&str> = outcome.back.iter().map(String::as_str).collect();
    let float = outcome.variants.iter().find(|v| v.kind == Kind::Float);
    json!({
        "model": outcome.place.display().to_string(),
        "output": arguments.output.as_ref().map(|o| o.display().to_string()),
        "report": arguments.report_path().map(|p| p.display().to_string()),
        "version": env!("CARGO_PKG_VERSION"), "cpu": machine::processor(), "isa": best.session.isa().name(),
        "threads": best.session.threads(), "precision": best.precision.name(), "input_shapes": outcome.shapes,
        "standard": outcome.standard.name(), "max_drop": outcome.max_drop, "seed": outcome.seed,
        "calibrating": outcome.calibrating, "asked": outcome.asked, "held_out": outcome.judging, "skipped": outcome.skipped,
        "chosen": best.name(), "speedup": before.median() / best.median(),
        "speedup_over_f32": float.map(|f| f.median() / best.median()),
        "loss": loss(before, best).map(|l| loss_json(&l)),
        "variants": outcome.variants.iter().map(|v| variant(before, v)).collect::<Vec<_>>(),
        "all_integers_accuracy": outcome.all_integers.as_ref().map(|j| j.percent()),
        "within_bound": best.holds, "back": back,
        "layers": layers, "seconds": outcome.seconds, "interrupted": outcome.interrupted,
    })
}

/// What `after` loses against `before`, where both were judged.
pub fn loss(before: &Variant, after: &Variant) -> Option<Loss> {
    Some(before.judgement.as_ref()?.loss(after.judgement.as_ref()?))
}

fn loss_json(loss: &Loss) -> Value {
    json!({
        "points": loss.points, "interval": loss.interval, "lost": loss.paired.map(|p| p.lost),
        "gained": loss.paired.map(|p| p.gained), "p_value": loss.paired.map(|p| p.p_value()),
    })
}

fn variant(before: &Variant, v: &Variant) -> Value {
    json!({
        "name": v.name(), "precision": v.precision.name(), "within_bound": v.holds,
        "accuracy": v.judgement.as_ref().map(|j| j.percent()), "interval": v.judgement.as_ref().map(|j| j.interval()),
        "loss": loss(before, v).map(|l| loss_json(&l)),
        "latency_ms": v.latency.map(|l| json!({"p50": l.p50, "p10": l.p10, "p90": l.p90, "min": l.min, "runs": l.count})),
        "file_bytes": v.file_bytes, "constant_bytes": v.graph.constant_bytes(), "arena_bytes": v.arena_bytes,
    })
}
