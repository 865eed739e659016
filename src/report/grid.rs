//! A grid of coloured cells in SVG: what won where, over two axes.

use super::html::{colour, escape};
use std::fmt::Write as _;

/// A cell: what it shows, and what it tells where the pointer rests.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The colour, as for [`colour`].
    pub index: usize,
    /// One or two short lines.
    pub lines: [String; 2],
    /// The whole story.
    pub story: String,
    /// Whether it is marked by a ring in its corner.
    pub marked: bool,
}

/// A grid: columns to the right, rows downwards.
#[derive(Debug)]
pub struct Grid {
    columns: Vec<String>,
    rows: Vec<String>,
    names: [String; 2],
    cells: Vec<(usize, usize, Cell)>,
}

const LEFT: usize = 40;
const TOP: usize = 34;
const WIDTH: usize = 400;
const ROW: usize = 34;

impl Grid {
    /// An empty grid; `names` are what columns and rows stand for.
    pub fn new(columns: Vec<String>, rows: Vec<String>, names: [&str; 2]) -> Grid {
        Grid { columns, rows, names: names.map(str::to_string), cells: Vec::new() }
    }
    /// Fills a cell. Those that are not filled stay blank.
    pub fn cell(&mut self, column: usize, row: usize, cell: Cell) {
        self.cells.push((column, row, cell));
    }
    /// The picture.
    pub fn svg(&self) -> String {
        let column = (WIDTH - LEFT) as f64 / self.columns.len().max(1) as f64;
        let height = TOP + ROW * self.rows.len() + 4;
        let mut text = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n");
        let middle = |c: usize| LEFT as f64 + (c as f64 + 0.5) * column;
        let [over, beside] = self.names.each_ref().map(|n| escape(n));
        let _ = writeln!(
            text,
            "<text class=\"soft\" x=\"{WIDTH}\" y=\"11\" text-anchor=\"end\">{over} →</text>\n\
             <text class=\"soft\" x=\"0\" y=\"11\">{beside} ↓</text>"
        );
        for (c, name) in self.columns.iter().enumerate() {
            let _ = writeln!(
                text,
                "<text class=\"soft\" x=\"{:.1}\" y=\"28\" text-anchor=\"middle\">{}</text>",
                middle(c),
                escape(name)
            );
        }
        for (r, name) in self.rows.iter().enumerate() {
            let y = TOP + r * ROW + ROW / 2 + 4;
            let _ = writeln!(
                text,
                "<text class=\"soft\" x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}</text>",
                LEFT - 6,
                escape(name)
            );
            for c in 0..self.columns.len() {
                if !self.cells.iter().any(|cell| (cell.0, cell.1) == (c, r)) {
                    text += &self.rectangle(c, r, column, "none");
                    text += "/>\n";
                }
            }
        }
        for (c, r, cell) in &self.cells {
            let top = TOP + r * ROW;
            text += "<g>";
            let _ = write!(text, "<title>{}</title>", escape(&cell.story));
            text += &self.rectangle(*c, *r, column, &format!("fill {}", colour(cell.index)));
            text += "/>";
            let [first, second] = cell.lines.each_ref().map(|l| escape(l));
            let _ = write!(
                text,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" font-weight=\"600\">{first}</text>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\">{second}</text>",
                top + 14,
                top + 27,
                x = middle(*c)
            );
            if cell.marked {
                let _ = write!(
                    text,
                    "<circle class=\"mark\" cx=\"{:.1}\" cy=\"{}\" r=\"3\"/>",
                    middle(*c) + column / 2.0 - 7.0,
                    top + 7
                );
            }
            text += "</g>\n";
        }
        text + "</svg>\n"
    }

    /// The start of a cell's rectangle, one unit smaller than its place on each side.
    fn rectangle(&self, column: usize, row: usize, wide: f64, class: &str) -> String {
        format!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" rx=\"3\"",
            LEFT as f64 + column as f64 * wide + 1.0,
            TOP + row * ROW + 1,
            wide - 2.0,
            ROW - 2
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_filled_or_blank() {
        let mut grid = Grid::new(vec!["3".into(), "16".into()], vec!["7".into()], ["channels", "map"]);
        let lines = ["di".to_string(), "1.2".to_string()];
        grid.cell(1, 0, Cell { index: 1, lines, story: "direct < 1".to_string(), marked: true });
        let svg = grid.svg();
        assert_eq!(svg.matches("<rect class=\"none\"").count(), 1);
        assert_eq!(svg.matches("<rect class=\"fill hue1\"").count(), 1);
        assert!(svg.contains("<title>direct &lt; 1</title>") && svg.contains("<circle"));
    }
}
