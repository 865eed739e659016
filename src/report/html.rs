//! Reports as one HTML file that needs nothing else: no script, no font, no address outside. It opens in ten years, on a
//! telephone, and where there is no network.
//!
//! Pages are also well-formed XML, so that a test needs no browser to find a forgotten end.

use std::fmt::Write as _;

/// Text as the content of an element or the value of an attribute in double quotes. Control characters, which XML does
/// not have, become `U+FFFD`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' | '\t' => escaped.push(' '),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// How many colours there are for what a report tells apart. [`colour`] starts again behind them, with broken lines.
const HUES: [u16; 10] = [212, 28, 148, 328, 268, 52, 186, 0, 96, 300];

/// The classes that give the `index`-th of the things a report tells apart its colour: `fill` and `line` take it up.
pub fn colour(index: usize) -> String {
    let broken = if index >= HUES.len() { " broken" } else { "" };
    format!("hue{}{broken}", index % HUES.len())
}

/// A page: sections under headings, in the order in which they were added.
#[derive(Debug)]
pub struct Page {
    title: String,
    lead: String,
    sections: Vec<(String, String)>,
}

impl Page {
    /// An empty page. `lead` is a sentence or two, plain text.
    pub fn new(title: &str, lead: &str) -> Page {
        Page { title: title.to_string(), lead: lead.to_string(), sections: Vec::new() }
    }
    /// Adds a section; `body` is HTML, `heading` plain text.
    pub fn section(&mut self, heading: &str, body: String) {
        self.sections.push((heading.to_string(), body));
    }
    /// The file.
    pub fn render(&self) -> String {
        let title = escape(&self.title);
        let mut text = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{title}</title>\n\
             <style>\n{}{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n<p class=\"lead\">{}</p>\n</header>\n",
            hues(),
            escape(&self.lead)
        );
        for (heading, body) in &self.sections {
            let _ = write!(text, "<section>\n<h2>{}</h2>\n{body}</section>\n", escape(heading));
        }
        text += "</body>\n</html>\n";
        text
    }
}

/// A paragraph of plain text.
pub fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// Names with the colours of [`colour`], and a short form of each name before it where there is one.
pub fn legend<'a>(entries: impl IntoIterator<Item = (usize, &'a str, &'a str)>) -> String {
    let mut text = String::from("<ul class=\"legend\">\n");
    for (index, short, name) in entries {
        let _ = writeln!(
            text,
            "<li><span class=\"swatch fill {}\">{}</span> {}</li>",
            colour(index),
            escape(short),
            escape(name)
        );
    }
    text + "</ul>\n"
}

/// Figures side by side where the page is wide enough. Each is a caption (plain text) and its SVG.
pub fn figures(figures: impl IntoIterator<Item = (String, String)>) -> String {
    let mut text = String::from("<div class=\"figures\">\n");
    for (caption, svg) in figures {
        let _ = write!(text, "<figure>\n<figcaption>{}</figcaption>\n{svg}</figure>\n", escape(&caption));
    }
    text + "</div>\n"
}

/// `body` (HTML) folded away under `summary` (plain text).
pub fn folded(summary: &str, body: &str) -> String {
    format!("<details>\n<summary>{}</summary>\n{body}</details>\n", escape(summary))
}

/// The colours by class, for light and for dark pages. Fills are faint, so that text is readable on them; lines are strong.
fn hues() -> String {
    let mut text = String::new();
    for (i, hue) in HUES.iter().enumerate() {
        let _ = writeln!(text, ".hue{i} {{ --faint: hsl({hue} 72% 80%); --strong: hsl({hue} 78% 36%); }}");
    }
    text += "@media (prefers-color-scheme: dark) {\n";
    for (i, hue) in HUES.iter().enumerate() {
        let _ = writeln!(text, ".hue{i} {{ --faint: hsl({hue} 48% 30%); --strong: hsl({hue} 75% 66%); }}");
    }
    text + "}\n"
}

const STYLE: &str = "\
:root { color-scheme: light dark; --page: #fcfcfa; --ink: #1c1e21; --soft: #5d636b; --rule: #dcdcd6; --none: #eeeeea; }
@media (prefers-color-scheme: dark) {
:root { --page: #16181b; --ink: #e8e8e4; --soft: #a0a6ad; --rule: #34383d; --none: #212428; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, \"Segoe UI\", Roboto, \"Helvetica Neue\", sans-serif; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 .6rem; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 3rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
p { max-width: 44rem; margin: .5rem 0 1rem; }
.lead { color: var(--soft); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem 1.1rem; padding: 0; margin: .75rem 0 1.25rem; }
.swatch { display: inline-block; min-width: 2rem; padding: .05rem .4rem; border-radius: .25rem; text-align: center;
  background: var(--faint, var(--none)); border-bottom: 3px solid var(--strong, var(--rule)); font-size: .8rem; font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1.5rem; }
.figures + .figures { margin-top: 1.25rem; }
figure { margin: 0; }
figure:only-child { grid-column: 1 / -1; width: 100%; max-width: 34rem; }
figure.whole { grid-column: 1 / -1; width: 100%; max-width: 60rem !important; }
figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .25rem; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
svg text { fill: var(--ink); }
svg .soft { fill: var(--soft); }
svg .rule { stroke: var(--rule); stroke-width: 1; fill: none; }
svg .none { fill: var(--none); }
svg .fill { fill: var(--faint); }
svg .dot { fill: var(--strong); fill-opacity: .8; }
svg .bar { fill: var(--strong); }
svg .whisker { stroke: var(--strong); stroke-width: 2; fill: none; }
svg .over { stroke: var(--ink); stroke-width: 1.5; fill: none; }
svg .line { stroke: var(--strong); stroke-width: 2; fill: none; stroke-linejoin: round; }
svg .broken.line { stroke-dasharray: 5 3; }
svg .guide { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; fill: none; }
svg .mark { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--rule); }
td, th { padding: .25rem 1rem .25rem 0; }
tbody tr:hover { background: var(--none); }
.right { text-align: right; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--soft); padding: .35rem 0; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escape("<a href=\"x\">&\u{1b}\n"), "&lt;a href=&quot;x&quot;&gt;&amp;\u{fffd} ");
        let mut page = Page::new("<title>", "a & b");
        page.section("<h>", paragraph("<p>"));
        let text = page.render();
        assert!(text.contains("<h1>&lt;title&gt;</h1>") && text.contains("a &amp; b"));
        assert!(text.contains("<h2>&lt;h&gt;</h2>\n<p>&lt;p&gt;</p>"));
    }

    #[test]
    fn there_is_a_colour_for_everything() {
        let all: std::collections::HashSet<String> = (0..2 * HUES.len()).map(colour).collect();
        assert_eq!(all.len(), 2 * HUES.len());
        assert!(
            HUES.iter().enumerate().all(|(i, _)| STYLE.len() > i && hues().contains(&format!(".hue{i} ")))
        );
    }
}
