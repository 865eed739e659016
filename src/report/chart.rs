//! Lines and clouds of points over two axes, in SVG.

use super::html::{colour, escape};
use std::fmt::Write as _;

/// How an axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero, in equal steps.
    Linear,
    /// In equal factors. What is not above zero cannot be shown and is left out.
    Logarithmic,
}

/// Whether the points of a series belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A line through dots.
    Line,
    /// Dots only.
    Dots,
    /// A thin line that something is compared with; it has no colour.
    Guide,
}

/// Points of one kind.
#[derive(Clone, Debug)]
pub struct Series {
    /// What they are, told where the pointer rests.
    pub name: String,
    /// The colour, as for [`colour`].
    pub index: usize,
    /// How they are drawn.
    pub style: Style,
    /// The points.
    pub points: Vec<(f64, f64)>,
}

/// Series over two axes.
#[derive(Debug)]
pub struct Chart {
    names: [String; 2],
    scales: [Scale; 2],
    ticks: Option<Vec<f64>>,
    series: Vec<Series>,
}

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 250.0;
/// Room for labels: left, right, top, bottom.
const ROOM: [f64; 4] = [46.0, 10.0, 20.0, 36.0];

/// One axis: the values at its ends (their logarithms where it is logarithmic), and the pixels there.
struct Axis {
    scale: Scale,
    values: [f64; 2],
    pixels: [f64; 2],
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, pixels: [f64; 2]) -> Axis {
        let wanted = |v: &f64| v.is_finite() && (scale == Scale::Linear || *v > 0.0);
        let (low, high) = values
            .filter(wanted)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let values = match scale {
            Scale::Linear if high > 0.0 => [low.min(0.0), high * 1.05],
            Scale::Logarithmic if high > 0.0 => [low.log10() - 0.1, high.log10() + 0.1],
            _ => [0.0, 1.0],
        };
        Axis { scale, values, pixels }
    }
    /// Where a value lies; `None` where the axis cannot show it.
    fn place(&self, value: f64) -> Option<f64> {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic if value > 0.0 => value.log10(),
            Scale::Logarithmic => return None,
        };
        let share = (value - self.values[0]) / (self.values[1] - self.values[0]);
        share.is_finite().then(|| self.pixels[0] + share * (self.pixels[1] - self.pixels[0]))
    }
    /// Values to label: round ones, about five.
    fn ticks(&self) -> Vec<f64> {
        let [low, high] = self.values;
        if self.scale == Scale::Logarithmic {
            let step = (((high - low) / 6.0).ceil() as i32).max(1);
            let exponents = (low.ceil() as i32..=high.floor() as i32).filter(|e| e.rem_euclid(step) == 0);
            return exponents.map(|e| 10f64.powi(e)).collect();
        }
        let rough = (high - low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * power >= rough).unwrap_or(10.0) * power;
        (0..=10)
            .map(|i| (low / step).ceil() * step + f64::from(i) * step)
            .take_while(|&t| t <= high)
            .collect()
    }
}

/// A short form of a tick: `64`, `0.5`, `10⁻⁷`, `2·10⁴`.
fn label(value: f64) -> String {
    let exponent = (value.abs().log10() + 1e-9).floor();
    if value == 0.0 || (-2.0..4.0).contains(&exponent) {
        return format!("{}", (value * 1e3).round() / 1e3);
    }
    let digits = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let raised = format!("{exponent}")
        .chars()
        .map(|c| c.to_digit(10).map_or('⁻', |d| digits[d as usize]))
        .collect::<String>();
    match (value / 10f64.powf(exponent) * 10.0).round() / 10.0 {
        1.0 => format!("10{raised}"),
        factor => format!("{factor}·10{raised}"),
    }
}

impl Chart {
    /// An empty chart; names and scales of the axes, horizontal first.
    pub fn new(names: [&str; 2], scales: [Scale; 2]) -> Chart {
        Chart { names: names.map(str::to_string), scales, ticks: None, series: Vec::new() }
    }
    /// Labels the horizontal axis at these values.
    pub fn ticks(mut self, ticks: Vec<f64>) -> Chart {
        self.ticks = Some(ticks);
        self
    }
    /// Adds a series; the first lies lowest.
    pub fn series(&mut self, series: Series) {
        self.series.push(series);
    }
    /// The points of the longest series.
    pub fn longest(&self) -> usize {
        self.series.iter().map(|s| s.points.len()).max().unwrap_or(0)
    }
    /// The picture.
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|s| s.points.iter());
        let [left, right, top, bottom] = ROOM;
        let x = Axis::new(self.scales[0], all().map(|p| p.0), [left, WIDTH - right]);
        let y = Axis::new(self.scales[1], all().map(|p| p.1), [HEIGHT - bottom, top]);
        let mut text = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
        for value in y.ticks() {
            let Some(at) = y.place(value) else { continue };
            let _ = writeln!(
                text,
                "<path class=\"rule\" d=\"M{left} {at:.1}H{}\"/><text class=\"soft\" x=\"{}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                WIDTH - right,
                left - 6.0,
                at + 4.0,
                label(value)
            );
        }
        for value in self.ticks.clone().unwrap_or_else(|| x.ticks()) {
            let Some(at) = x.place(value) else { continue };
            let _ = writeln!(
                text,
                "<path class=\"rule\" d=\"M{at:.1} {}v5\"/><text class=\"soft\" x=\"{at:.1}\" y=\"{}\" \
                 text-anchor=\"middle\">{}</text>",
                HEIGHT - bottom,
                HEIGHT - bottom + 17.0,
                label(value)
            );
        }
        let [across, up] = self.names.each_ref().map(|n| escape(n));
        let _ = writeln!(
            text,
            "<text class=\"soft\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{across}</text>\n\
             <text class=\"soft\" x=\"0\" y=\"11\">{up}</text>",
            WIDTH - right,
            HEIGHT - 4.0
        );
        for series in &self.series {
            let places = series.points.iter().filter_map(|p| Some((x.place(p.0)?, y.place(p.1)?, p)));
            let places: Vec<_> = places.collect();
            let colour = colour(series.index);
            let _ = write!(text, "<g><title>{}</title>", escape(&series.name));
            if series.style != Style::Dots && !places.is_empty() {
                let path: Vec<String> = places.iter().map(|(x, y, _)| format!("{x:.1} {y:.1}")).collect();
                let class =
                    if series.style == Style::Guide { "guide".to_string() } else { format!("line {colour}") };
                let _ = write!(text, "<path class=\"{class}\" d=\"M{}\"/>", path.join("L"));
            }
            if series.style != Style::Guide {
                let radius = if series.style == Style::Dots { 2.0 } else { 2.5 };
                for (x, y, _) in &places {
                    let _ = write!(
                        text,
                        "<circle class=\"dot {colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>"
                    );
                }
            }
            text += "</g>\n";
        }
        text + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_labels_short() {
        let linear = Axis::new(Scale::Linear, [3.0, 92.0].into_iter(), [0.0, 1.0]);
        assert_eq!(linear.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0]);
        let log = Axis::new(Scale::Logarithmic, [2e-8, 3e-5, 0.0].into_iter(), [0.0, 1.0]);
        assert_eq!(log.ticks().len(), 3);
        assert_eq!([0.0, 64.0, 0.5, 1e-7, 1e6, 2e4].map(label), ["0", "64", "0.5", "10⁻⁷", "10⁶", "2·10⁴"]);
    }

    #[test]
    fn what_cannot_be_shown_is_left_out() {
        let mut chart = Chart::new(["x", "y"], [Scale::Logarithmic, Scale::Logarithmic]);
        assert!(chart.longest() == 0 && !chart.svg().contains("NaN"));
        let points = vec![(1.0, 1e-7), (10.0, 0.0), (100.0, f64::NAN), (1e3, 1e-6)];
        chart.series(Series { name: "a<b".to_string(), index: 0, style: Style::Line, points });
        let svg = chart.svg();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.contains("a&lt;b"));
    }
}
