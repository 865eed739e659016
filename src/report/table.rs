//! Tables for people: columns that line up, numbers to the right, units that fit.

use super::html::escape;
use std::fmt;

/// To which edge a column's cells are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table; [`fmt::Display`] lines it up for a terminal, [`Table::markdown`] for a document, [`Table::html`] for a page.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these headings.
    pub fn new(columns: &[(&str, Align)]) -> Table {
        Table {
            columns: columns.iter().map(|&(name, align)| (name.to_string(), align)).collect(),
            rows: Vec::new(),
        }
    }
    /// Adds a row. Missing cells are left empty, those beyond the last column are dropped.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Table {
        let mut row: Vec<String> = cells.into_iter().map(|cell| one_line(&cell.into())).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
        self
    }
    /// The number of rows under the heading.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    /// Whether there are only headings.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = String>| {
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let mut text = line(&mut self.columns.iter().map(|(name, _)| name.clone()));
        text += &line(&mut self.columns.iter().map(|(_, align)| match align {
            Align::Left => "---".to_string(),
            Align::Right => "---:".to_string(),
        }));
        for row in &self.rows {
            text += &line(&mut row.iter().map(|cell| cell.replace('|', "\\|")));
        }
        text
    }
    /// The table in HTML, in a frame that scrolls where the page is narrow.
    pub fn html(&self) -> String {
        let line = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::from("<tr>");
            for (cell, (_, align)) in cells.zip(&self.columns) {
                let class = if *align == Align::Right { " class=\"right\"" } else { "" };
                text += &format!("<{tag}{class}>{}</{tag}>", escape(cell));
            }
            text + "</tr>\n"
        };
        let mut text = String::from("<div class=\"wide\">\n<table>\n<thead>\n");
        text += &line("th", &mut self.columns.iter().map(|(name, _)| name.as_str()));
        text += "</thead>\n<tbody>\n";
        for row in &self.rows {
            text += &line("td", &mut row.iter().map(String::as_str));
        }
        text + "</tbody>\n</table>\n</div>\n"
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: &str| text.chars().count();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|c| self.rows.iter().map(|row| width(&row[c])).fold(width(&self.columns[c].0), usize::max))
            .collect();
        let headings: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(String::as_str).collect());
        for row in std::iter::once(headings).chain(rows) {
            let mut line = String::new();
            for ((cell, &wide), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let gap = if line.is_empty() { "" } else { "  " };
                match align {
                    Align::Left => line += &format!("{gap}{cell:<wide$}"),
                    Align::Right => line += &format!("{gap}{cell:>wide$}"),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Names come from models: a line break or an escape sequence in one must not reach the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A number of bytes with a binary unit: `512 B`, `1.50 KiB`, `97.7 MiB`.
pub fn bytes(count: u64) -> String {
    scaled(count as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// A count with a decimal unit: `950`, `25.6 M`, `4.09 G`. Multiply-accumulates, parameters.
pub fn count(count: u64) -> String {
    scaled(count as f64, 1000.0, &["", "K", "M", "G", "T", "P", "E"])
}

/// A time given in milliseconds, with the unit that fits: `850 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`.
pub fn milliseconds(time: f64) -> String {
    scaled(time * 1e6, 1000.0, &["ns", "µs", "ms", "s"])
}

/// Three significant digits, and the largest unit that leaves at least 1.
fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // 999.5 would be shown as 1000 of the smaller unit.
    while value.abs() >= base - 0.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let digits = match value.abs() {
        v if unit == 0 && v.fract() == 0.0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", units[unit]).trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(&[("layer", Align::Left), ("MACs", Align::Right), ("note", Align::Left)]);
        table.row(["conv1", "118 M", "Winograd"]).row(["a|b\x1b[31m\n", "5"]).row(["x", "1", "y", "dropped"]);
        table
    }

    #[test]
    fn columns_line_up() {
        let wanted = "layer       MACs  note\n\
                      conv1      118 M  Winograd\n\
                      a|b\u{fffd}[31m\u{fffd}      5\n\
                      x              1  y\n";
        assert_eq!(example().to_string(), wanted);
        assert_eq!((example().len(), example().is_empty()), (3, false));
    }

    #[test]
    fn markdown_escapes_bars() {
        let text = example().markdown();
        assert!(
            text.starts_with("| layer | MACs | note |\n| --- | ---: | --- |\n| conv1 | 118 M | Winograd |\n"),
            "{text}"
        );
        assert!(text.contains("a\\|b"));
    }

    #[test]
    fn html_escapes_what_models_name() {
        let mut table = Table::new(&[("a", Align::Left), ("b", Align::Right)]);
        table.row(["<b>", "1"]);
        let text = table.html();
        assert!(text.contains("<tr><th>a</th><th class=\"right\">b</th></tr>"), "{text}");
        assert!(text.contains("<tr><td>&lt;b&gt;</td><td class=\"right\">1</td></tr>"), "{text}");
    }

    #[test]
    fn units_fit() {
        for (value, wanted) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (102_400_000, "97.7 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(value), wanted);
        }
        for (value, wanted) in
            [(999, "999"), (1000, "1.00 K"), (999_999, "1.00 M"), (4_089_000_000, "4.09 G")]
        {
            assert_eq!(count(value), wanted);
        }
        for (value, wanted) in [
            (0.0, "0 ns"),
            (0.00085, "850 ns"),
            (0.01234, "12.3 µs"),
            (4.5649, "4.56 ms"),
            (1200.0, "1.20 s"),
            (5e6, "5000 s"),
        ] {
            assert_eq!(milliseconds(value), wanted);
        }
    }
}
