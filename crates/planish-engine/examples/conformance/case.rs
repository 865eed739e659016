//! One case: a folder with a model and what it should answer.

use crate::compare::{Tolerance, compare};
use crate::scope;
use planish_graph::{Graph, Tensor, reference};
use planish_onnx::{ReadOptions, WriteOptions, load_tensor, read, survey, write};
use std::path::{Path, PathBuf};

/// How a graph is run, and what is done with it before.
#[derive(Clone, Debug)]
pub struct Runner {
    /// Runs a graph on inputs.
    pub run: fn(&Graph, &[Tensor]) -> planish_graph::Result<Vec<Tensor>>,
    /// Whether the graph is written and read back first.
    pub round_trip: bool,
    /// Where written models are kept.
    pub save: Option<PathBuf>,
}

impl Default for Runner {
    fn default() -> Runner {
        Runner { run: reference::run, round_trip: false, save: None }
    }
}

/// What became of a case.
pub enum Outcome {
    /// Every output agrees.
    Passed,
    /// It should have passed; the first reason why it did not.
    Failed(String),
    /// Planish does not answer for it; the rule that says so.
    OutOfScope(String),
}

/// A folder with `model.onnx`, `case.txt` and `test_data_set_*`.
pub struct Case {
    folder: PathBuf,
    kind: String,
}

/// All cases below `folder` (`kind/name/model.onnx`) whose name contains `filter`, sorted.
pub fn find(folder: &Path, filter: &str) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for kind in folders(folder)? {
        let name = file_name(&kind);
        for folder in folders(&kind)? {
            let case = Case { folder, kind: name.clone() };
            if case.name().contains(filter) {
                cases.push(case);
            }
        }
    }
    cases.sort_by_key(Case::name);
    Ok(cases)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Case {
    /// "kind/name".
    pub fn name(&self) -> String {
        format!("{}/{}", self.kind, file_name(&self.folder))
    }

    /// Loads, runs and compares.
    pub fn run(&self, runner: &Runner) -> Outcome {
        let path = self.folder.join("model.onnx");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => return Outcome::Failed(format!("{}: {error}", path.display())),
        };
        match survey(&bytes, &ReadOptions::default()) {
            Ok(found) => {
                if let Some(reason) = scope::outside(&file_name(&self.folder), &found) {
                    return Outcome::OutOfScope(reason);
                }
            }
            Err(error) => return Outcome::Failed(error.to_string()),
        }
        match self.check(&bytes, runner) {
            Ok(()) => Outcome::Passed,
            Err(reason) => Outcome::Failed(reason.replace('\n', " ")),
        }
    }

    fn check(&self, bytes: &[u8], runner: &Runner) -> Result<(), String> {
        let options = ReadOptions::default();
        let mut graph = read(bytes, Some(&self.folder), &options).map_err(|e| format!("load: {e}"))?;
        if runner.round_trip || runner.save.is_some() {
            let written = write(&graph, &WriteOptions::default()).map_err(|e| format!("write: {e}"))?;
            if let Some(folder) = &runner.save {
                let path = folder.join(format!("{}.onnx", self.name().replace('/', "-")));
                std::fs::write(&path, &written).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            graph = read(&written, None, &options).map_err(|e| format!("read back: {e}"))?;
        }
        let tolerance = Tolerance::read(&self.folder.join("case.txt"))?;
        let mut sets = 0;
        loop {
            let set = self.folder.join(format!("test_data_set_{sets}"));
            if !set.is_dir() {
                break;
            }
            let (inputs, expected) = (tensors(&set, "input")?, tensors(&set, "output")?);
            let made = (runner.run)(&graph, &inputs).map_err(|e| format!("run: {e}"))?;
            compare(&made, &expected, &tolerance).map_err(|e| format!("set {sets}: {e}"))?;
            sets += 1;
        }
        if sets == 0 { Err("the case has no data".to_string()) } else { Ok(()) }
    }
}

/// `input_0.pb`, `input_1.pb` … of a data set.
fn tensors(set: &Path, sort: &str) -> Result<Vec<Tensor>, String> {
    let paths = (0..).map(|i| set.join(format!("{sort}_{i}.pb"))).take_while(|p| p.exists());
    paths.map(|p| load_tensor(&p, &ReadOptions::default()).map_err(|e| e.to_string())).collect()
}
