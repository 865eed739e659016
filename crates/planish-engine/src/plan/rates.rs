//! The rates that were fitted on this machine (`planish tune --fit`), kept between runs.
//!
//! A small JSON file beside the wisdom: for each instruction set the nanoseconds of each kind of work. As wisdom it is
//! optional, disposable and never trusted: what was made by another version or on another machine counts as absent, and
//! so does a damaged file; a rate that is missing or no number keeps its default.

use super::wisdom::{machine, read_bounded, write_whole};
use planish_cpu::isa::Isa;
use planish_cpu::rates::{Rate, Rates};
use planish_graph::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize, Deserialize)]
struct File {
    fingerprint: String,
    /// By instruction set and kind of work, nanoseconds.
    rates: BTreeMap<String, BTreeMap<String, f64>>,
}

fn read(path: &Path) -> Option<File> {
    let file = serde_json::from_str::<File>(&read_bounded(path)?).ok()?;
    (file.fingerprint == machine()).then_some(file)
}

/// Where the rates lie that belong to a wisdom file: `wisdom.rates.json` beside `wisdom.json`.
pub fn path_beside(wisdom: &Path) -> PathBuf {
    wisdom.with_extension("rates.json")
}

/// The rates that `path` holds for this machine and `isa`, if any.
pub fn load(path: &Path, isa: Isa) -> Option<Rates> {
    let file = read(path)?;
    let fitted = file.rates.get(isa.name())?;
    let mut rates = Rates::defaults(isa);
    for &rate in Rate::ALL {
        if let Some(&nanoseconds) = fitted.get(rate.name()) {
            rates.set(rate, nanoseconds);
        }
    }
    Some(rates)
}

/// Writes the rates of `isa`; those of other instruction sets of this machine stay.
pub fn save(path: &Path, isa: Isa, rates: &Rates) -> Result<()> {
    let mut file = read(path).unwrap_or_else(|| File { fingerprint: machine(), rates: BTreeMap::new() });
    let named = Rate::ALL.iter().map(|&rate| (rate.name().to_string(), rates.get(rate))).collect();
    file.rates.insert(isa.name().to_string(), named);
    write_whole(path, &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_and_foreign_rates_count_as_absent() {
        let folder = std::env::temp_dir().join(format!("planish-rates-{}", std::process::id()));
        let path = path_beside(&folder.join("wisdom.json"));
        let mut rates = Rates::defaults(Isa::Avx2);
        rates.set(Rate::Address, 7.0);
        save(&path, Isa::Avx2, &rates).unwrap();
        save(&path, Isa::Portable, &Rates::defaults(Isa::Portable)).unwrap();
        assert_eq!(load(&path, Isa::Avx2), Some(rates));
        assert_eq!(load(&path, Isa::Avx512), None);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"address\": 7.0", "\"address\": -7.0")).unwrap();
        assert_eq!(load(&path, Isa::Avx2), Some(Rates::defaults(Isa::Avx2)));
        std::fs::write(&path, text.replace("planish ", "other ")).unwrap();
        assert_eq!(load(&path, Isa::Avx2), None);
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert_eq!(load(&path, Isa::Avx2), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
