//! What planish tells people and programs: tables, statistics, JSON, progress, and the machine it ran on.
//!
//! Every command reports through here, so numbers look the same everywhere: results on standard output, as a table for
//! people or as JSON for programs; progress on standard error, and only where a person is looking. Reports that are
//! looked at rather than read are one HTML file with pictures in SVG.

pub mod bars;
pub mod chart;
pub mod grid;
pub mod html;
pub mod intervals;
pub mod machine;
pub mod progress;
pub mod shares;
pub mod stats;
pub mod table;

use planish_graph::{Error, Result};
use serde::Serialize;

/// `value` as JSON, indented, ending in a newline. A number that is not finite becomes `null`.
pub fn to_json(value: &impl Serialize) -> Result<String> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|e| Error::invalid(format!("cannot write JSON: {e}")))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_ends_in_a_newline_and_has_no_nan() {
        assert_eq!(to_json(&[1.5, f64::NAN]).unwrap(), "[\n  1.5,\n  null\n]\n");
    }
}
