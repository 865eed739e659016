//! Everything in a model that planish does not do, reported at once: nobody wants to learn it one operator at a time.

use planish_graph::{Error, Result};
use std::collections::BTreeMap;

/// How many nodes are named for each missing thing.
const NAMED: usize = 3;

/// What is missing, and where it was met.
#[derive(Debug, Default)]
pub(crate) struct Unsupported(BTreeMap<String, (usize, Vec<String>)>);

impl Unsupported {
    /// Notes that `what` is missing for `place`.
    pub(crate) fn add(&mut self, what: String, place: &str) {
        let (count, places) = self.0.entry(what).or_default();
        *count += 1;
        if places.len() < NAMED {
            places.push(format!("\"{place}\""));
        }
    }
    /// An error that lists all that is missing, if anything is.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let lines = self.0.iter().map(|(what, (count, places))| {
            let more = if *count > places.len() { ", …" } else { "" };
            let times = if *count > 1 { format!("{count} times: ") } else { String::new() };
            format!("\n  {what} ({times}{}{more})", places.join(", "))
        });
        Err(Error::unsupported(format!("planish does not support{}", lines.collect::<String>())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_everything_once() {
        let mut missing = Unsupported::default();
        assert!(missing.check().is_ok());
        for node in ["a", "b", "c", "d"] {
            missing.add("operator LSTM".into(), node);
        }
        missing.add("operator GRU".into(), "e");
        let message = missing.check().unwrap_err().to_string();
        assert!(message.contains("LSTM (4 times: \"a\", \"b\", \"c\", …)"), "{message}");
        assert!(message.contains("GRU (\"e\")"), "{message}");
    }
}
