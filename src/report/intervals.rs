//! Values with their intervals, one under the other, in SVG: for what does not start at zero.

use super::html::{colour, escape};
use std::fmt::Write as _;

/// A value and the interval that it may lie in.
#[derive(Clone, Debug)]
pub struct Interval {
    /// What stands before it.
    pub name: String,
    /// The colour, as for [`colour`].
    pub index: usize,
    /// The value.
    pub value: f64,
    /// The ends of its interval.
    pub ends: [f64; 2],
    /// What stands behind it.
    pub text: String,
}

const WIDTH: f64 = 720.0;
const LEFT: f64 = 150.0;
const BEHIND: f64 = 170.0;
const ROW: f64 = 26.0;

/// The picture of `rows`, with a dotted line at `bound` where there is one that is not far from them, told by its text.
pub fn svg(rows: &[Interval], bound: Option<(f64, &str)>) -> String {
    let low = rows.iter().map(|r| r.ends[0]).fold(f64::INFINITY, f64::min);
    let high = rows.iter().map(|r| r.ends[1]).fold(f64::NEG_INFINITY, f64::max);
    let bound = bound.filter(|b| b.0 >= low - (high - low) && b.0 <= high + (high - low));
    let values = rows.iter().flat_map(|r| [r.ends[0], r.ends[1], r.value]).chain(bound.map(|b| b.0));
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let (low, high) = if low < high { (low, high) } else { (low - 1.0, low + 1.0) };
    let place = |v: f64| LEFT + (v - low) / (high - low) * (WIDTH - LEFT - BEHIND);
    let top = if bound.is_some() { 18.0 } else { 0.0 };
    let height = top + ROW * rows.len() as f64 + 4.0;
    let mut text = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n");
    if let Some((at, note)) = bound.filter(|b| b.0.is_finite()) {
        let x = place(at);
        let anchor = if x > WIDTH / 2.0 { "end" } else { "start" };
        let _ = writeln!(
            text,
            "<path class=\"guide\" d=\"M{x:.1} {top}V{height}\"/><text class=\"soft\" x=\"{x:.1}\" y=\"11\" \
             text-anchor=\"{anchor}\">{}</text>",
            escape(note)
        );
    }
    for (r, row) in rows.iter().enumerate().filter(|(_, r)| r.value.is_finite()) {
        let y = top + ROW * (r as f64 + 0.5);
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><path class=\"whisker {c}\" \
             d=\"M{:.1} {y}H{:.1}\"/><circle class=\"bar {c}\" cx=\"{:.1}\" cy=\"{y}\" r=\"5\"/>\
             <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            escape(&row.name),
            place(row.ends[0]),
            place(row.ends[1]),
            place(row.value),
            WIDTH - BEHIND + 10.0,
            y + 4.0,
            escape(&row.text),
            c = colour(row.index)
        );
    }
    text + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_between_their_ends() {
        let row = |value: f64| Interval {
            name: "a<b".into(),
            index: 0,
            value,
            ends: [value - 1.0, value + 1.0],
            text: "x".into(),
        };
        let text = svg(&[row(90.0), row(92.0)], Some((89.5, "bound")));
        // From 89 to 93 on 400 units.
        assert!(text.contains("cx=\"250.0\"") && text.contains("cx=\"450.0\""), "{text}");
        assert!(text.contains("M200.0 18V") && text.contains("a&lt;b"));
        assert!(!svg(&[row(f64::NAN)], None).contains("NaN") && !svg(&[], None).contains("inf"));
    }
}
