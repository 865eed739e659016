//! What tuning has learned on this machine, kept between runs.
//!
//! A small JSON file: which algorithm won for each convolution. It is optional and disposable, and never trusted where
//! it was made by another version, on another machine or for another instruction set: then it counts as empty, and is
//! written anew.

use planish_graph::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The winners, by what they won.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wisdom {
    /// Version, machine and instruction set that the entries hold for.
    pub fingerprint: String,
    /// For each problem (a text that names the whole shape and the number of threads) the winner.
    pub winners: BTreeMap<String, Winner>,
}

/// The algorithm that was fastest, and how fast all were that were measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Winner {
    /// Its name.
    pub algorithm: String,
    /// By algorithm, the measured milliseconds.
    pub milliseconds: BTreeMap<String, f64>,
}

impl Winner {
    /// The fastest of these; `None` where there are none.
    pub fn of(milliseconds: BTreeMap<String, f64>) -> Option<Winner> {
        let fastest = milliseconds.iter().min_by(|a, b| a.1.total_cmp(b.1))?;
        Some(Winner { algorithm: fastest.0.clone(), milliseconds })
    }

    /// What an algorithm was measured at.
    pub fn measured(&self, algorithm: &str) -> Option<f64> {
        self.milliseconds.get(algorithm).copied()
    }
}

/// A file larger than this is not read.
const MAX_BYTES: u64 = 64 << 20;

/// What a measurement must agree on to be trusted: planish's version and the processor.
pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown", |m| m.trim_start_matches([' ', '\t', ':']));
    format!("planish {} / {} / {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, model.trim())
}

/// The text of a file that is not too large; `None` where there is none.
pub(crate) fn read_bounded(path: &Path) -> Option<String> {
    let readable = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= MAX_BYTES);
    if readable { std::fs::read_to_string(path).ok() } else { None }
}

/// Writes JSON beside `path`, then renames, making its folder where needed.
pub(crate) fn write_whole(path: &Path, content: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(content).map_err(|e| Error::invalid(e.to_string()))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
    }
    planish_files::replace(path, |w| w.write_all(text.as_bytes())).map_err(|e| Error::io(path, &e))
}

impl Wisdom {
    /// Nothing learned yet, for `fingerprint`.
    pub fn empty(fingerprint: &str) -> Wisdom {
        Wisdom { fingerprint: fingerprint.to_string(), winners: BTreeMap::new() }
    }

    /// What `path` holds for `fingerprint`; empty where there is no such file, it is damaged, or it is another's.
    pub fn load(path: &Path, fingerprint: &str) -> Wisdom {
        let wisdom = read_bounded(path).and_then(|t| serde_json::from_str::<Wisdom>(&t).ok());
        wisdom.filter(|w| w.fingerprint == fingerprint).unwrap_or_else(|| Wisdom::empty(fingerprint))
    }

    /// Writes beside `path`, then renames, making its folder where needed.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_whole(path, self)
    }

    /// Where wisdom is kept unless told otherwise: `wisdom.json` in `PLANISH_CACHE_DIR`, else `planish/wisdom.json` in
    /// `XDG_CACHE_HOME` or `~/.cache`; `None` where none of them is set.
    pub fn default_path() -> Option<PathBuf> {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let folder = set("PLANISH_CACHE_DIR")
            .or_else(|| set("XDG_CACHE_HOME").map(|d| d.join("planish")))
            .or_else(|| set("HOME").map(|d| d.join(".cache").join("planish")))?;
        Some(folder.join("wisdom.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machines_wisdom_counts_as_empty() {
        let folder = std::env::temp_dir().join(format!("planish-wisdom-{}", std::process::id()));
        let path = folder.join("wisdom.json");
        let mut wisdom = Wisdom::empty("here");
        let times = BTreeMap::from([("im2col".to_string(), 2.5), ("direct".to_string(), 1.5)]);
        wisdom.winners.insert("conv".into(), Winner::of(times).unwrap());
        assert_eq!(wisdom.winners["conv"].algorithm, "direct");
        wisdom.save(&path).unwrap();
        assert_eq!(Wisdom::load(&path, "here"), wisdom);
        assert_eq!(Wisdom::load(&path, "elsewhere"), Wisdom::empty("elsewhere"));
        std::fs::write(&path, "{ damaged").unwrap();
        assert_eq!(Wisdom::load(&path, "here"), Wisdom::empty("here"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
