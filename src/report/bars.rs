//! Bars that lie, one group under the other, in SVG: what is compared starts at the same line and at zero.

use super::html::{colour, escape};
use std::fmt::Write as _;

/// A bar: how long, and what it tells.
#[derive(Clone, Debug)]
pub struct Bar {
    /// The colour, as for [`colour`].
    pub index: usize,
    /// Its length; nothing is drawn for what is not above zero.
    pub value: f64,
    /// What stands behind it.
    pub text: String,
    /// The whole story, told where the pointer rests.
    pub story: String,
    /// The ends of a line across its own: how far values spread.
    pub spread: Option<[f64; 2]>,
}

/// Groups of bars under one name each.
#[derive(Debug)]
pub struct Bars {
    groups: Vec<(String, Vec<Bar>)>,
    left: f64,
    thick: f64,
}

const WIDTH: f64 = 720.0;
/// Room for what stands behind a bar.
const BEHIND: f64 = 120.0;
/// Between groups.
const GAP: f64 = 7.0;

impl Bars {
    /// No bars; names take `left` units of 720, and a bar is `thick` units thick, of which text takes 12.
    pub fn new(left: f64, thick: f64) -> Bars {
        Bars { groups: Vec::new(), left, thick }
    }
    /// Adds a group below the others.
    pub fn group(&mut self, name: &str, bars: Vec<Bar>) {
        self.groups.push((name.to_string(), bars));
    }
    /// The picture.
    pub fn svg(&self) -> String {
        let bars = || self.groups.iter().flat_map(|(_, bars)| bars);
        let reach = |b: &Bar| b.spread.map_or(b.value, |s| s[1].max(b.value));
        let most = bars().map(reach).filter(|v| v.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
        let unit = (WIDTH - self.left - BEHIND) / most;
        let height: f64 =
            self.groups.iter().map(|(_, bars)| self.thick * bars.len().max(1) as f64 + GAP).sum();
        let mut text = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n");
        let _ = writeln!(text, "<path class=\"rule\" d=\"M{} 0V{height}\"/>", self.left);
        let mut top = GAP / 2.0;
        for (name, bars) in &self.groups {
            let middle = top + self.thick * bars.len().max(1) as f64 / 2.0 + 4.0;
            let _ = writeln!(
                text,
                "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
                self.left - 8.0,
                escape(name)
            );
            for bar in bars {
                self.bar(&mut text, bar, top, unit);
                top += self.thick;
            }
            top += GAP;
        }
        text + "</svg>\n"
    }

    fn bar(&self, text: &mut String, bar: &Bar, top: f64, unit: f64) {
        let (middle, colour) = (top + self.thick / 2.0, colour(bar.index));
        let _ = write!(text, "<g><title>{}</title>", escape(&bar.story));
        let mut end = self.left;
        if bar.value.is_finite() && bar.value > 0.0 {
            let _ = write!(
                text,
                "<rect class=\"bar {colour}\" x=\"{}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{:.2}\" rx=\"1.5\"/>",
                self.left,
                top + 0.5,
                bar.value * unit,
                self.thick - 1.0
            );
            end += bar.value * unit;
        }
        if let Some([low, high]) = bar.spread.filter(|s| s[0].is_finite() && s[1].is_finite()) {
            let [low, high] = [low, high].map(|v| self.left + v.max(0.0) * unit);
            let _ = write!(text, "<path class=\"over\" d=\"M{low:.2} {middle:.2}H{high:.2}\"/>");
            end = end.max(high);
        }
        let size = (self.thick + 1.0).min(12.0);
        let _ = writeln!(
            text,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" font-size=\"{size}\">{}</text></g>",
            end + 6.0,
            middle + size / 3.0,
            escape(&bar.text)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_their_values() {
        let bar = |value, spread| Bar { index: 1, value, text: "a<b".into(), story: "s".into(), spread };
        let mut bars = Bars::new(100.0, 20.0);
        bars.group("first & last", vec![bar(1.0, None), bar(4.0, Some([3.0, 5.0]))]);
        bars.group("none", vec![bar(0.0, None), bar(f64::NAN, None), bar(-1.0, None)]);
        let svg = bars.svg();
        // 500 units for the 5 that the longest spread reaches.
        assert!(svg.contains("width=\"100.00\"") && svg.contains("width=\"400.00\""), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(!svg.contains("NaN") && svg.contains("first &amp; last") && svg.contains("a&lt;b"));
        assert!(Bars::new(10.0, 10.0).svg().contains("</svg>"));
    }
}
