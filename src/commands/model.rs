//! Arguments that say which model, how it is loaded, and how it runs.

use super::interrupt::Interrupt;
use clap::Args;
use planish::report::progress::Progress;
use planish_cpu::element::ElementType;
use planish_cpu::isa::Isa;
use planish_engine::plan::choose::{ChooserOptions, MAX_ERROR};
use planish_engine::plan::tune::{Event, Tuning, Watch};
use planish_engine::plan::wisdom::Wisdom;
use planish_engine::{Session, SessionOptions};
use planish_graph::error::Context;
use planish_graph::limits::{Budget, with_budget};
use planish_graph::{Error, Graph, Result, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How a model runs.
#[derive(Args, Clone, Debug)]
pub struct Execution {
    /// Threads; 0 for every core this process may use (affinity, cgroup quota, PLANISH_THREADS, OMP_NUM_THREADS)
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Cap on the bytes of tensors and working memory; K, M, G are understood
    #[arg(long, default_value = "16G", value_parser = bytes, value_name = "BYTES")]
    pub max_memory: usize,
    /// What activations and weights are kept as: f32 (the default); bf16, which needs a machine with AVX512-BF16 and rounds
    /// to 8 bits; or f16, which needs AVX2, rounds to 11 bits and ends at 65504. Sums are f32 in any case
    #[arg(long, value_name = "TYPE", value_parser = precision_not_auto)]
    pub precision: Option<Precision>,
    /// Measure the candidate algorithms of each convolution and remember the winners; Ctrl-C ends it early
    #[arg(long)]
    pub tune: bool,
    /// Seconds that measuring may take for each set of input shapes [default: 30]
    #[arg(long, value_name = "S", requires = "tune", value_parser = seconds)]
    pub tune_seconds: Option<f64>,
    /// Where the winners are remembered [default: planish/wisdom.json in the user's cache folder]
    #[arg(long, value_name = "FILE", conflicts_with = "no_wisdom")]
    pub wisdom: Option<PathBuf>,
    /// Neither read nor write remembered winners
    #[arg(long)]
    pub no_wisdom: bool,
    /// Use this convolution algorithm wherever it accepts the layer (for experiments)
    #[arg(long, value_name = "NAME", value_parser = algorithm)]
    pub algorithm: Option<String>,
    /// The largest relative error (L2) to be expected of a convolution's result; 0 for algorithms that err no more than
    /// plain sums do
    #[arg(long, value_name = "ERROR", default_value_t = MAX_ERROR, value_parser = relative_error)]
    pub max_error: f32,
}

/// What numbers are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Whatever is fastest; only where that is measured.
    Auto,
    /// This.
    Is(ElementType),
}

impl Execution {
    /// The options of a session.
    pub fn options(&self) -> SessionOptions {
        let wisdom = if self.no_wisdom { None } else { self.wisdom.clone().or_else(Wisdom::default_path) };
        SessionOptions {
            threads: self.threads,
            max_memory: self.max_memory,
            precision: match self.precision {
                Some(Precision::Is(element)) => element,
                Some(Precision::Auto) | None => ElementType::F32,
            },
            chooser: ChooserOptions {
                tune: self.tune.then(|| Tuning {
                    time: Duration::from_secs_f64(self.tune_seconds.unwrap_or(Tuning::DEFAULT_SECONDS)),
                    watch: Some(watch()),
                }),
                wisdom,
                only: self.algorithm.clone(),
                max_error: self.max_error,
            },
            ..SessionOptions::default()
        }
    }
}

/// Extents for what a model leaves open.
#[derive(Args, Clone, Debug, Default)]
pub struct Shapes {
    /// Extent of the first axis of inputs that leave it open
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Shape of an input, NAME=1x3x224x224 (the name may be left out where there is one input); or extent of a named
    /// dimension, NAME=N
    #[arg(long = "shape", value_name = "NAME=…", value_parser = named_shape)]
    pub shapes: Vec<(String, Vec<usize>)>,
}

impl Shapes {
    /// Concrete shapes for the inputs of `graph`, in order. What stays open is 1, or the usual picture size where the
    /// open axes are a picture's.
    pub fn resolve(&self, graph: &Graph) -> Result<Vec<Vec<usize>>> {
        use planish_graph::Dim;
        let (mut given, mut symbols) = (BTreeMap::new(), BTreeMap::new());
        let mut dimensions: Vec<&str> = Vec::new();
        for &input in &graph.inputs {
            let value = graph.value(input);
            for (axis, dim) in value.shape.iter().flatten().enumerate() {
                if let Dim::Symbol(name) = dim {
                    dimensions.push(name);
                    if axis == 0
                        && let Some(batch) = self.batch
                    {
                        symbols.insert(name.clone(), batch);
                    }
                }
            }
        }
        for (name, extents) in &self.shapes {
            let name = match graph.inputs[..] {
                [only] if name.is_empty() => &graph.value(only).name,
                _ => name,
            };
            if dimensions.contains(&name.as_str()) && extents.len() == 1 {
                symbols.insert(name.clone(), extents[0]);
            } else {
                graph.find_input(name).map_err(|_| {
                    let names: Vec<&str> = graph.inputs.iter().map(|&i| graph.value(i).name.as_str()).collect();
                    Error::invalid(format!(
                        "--shape {name}: no input and no dimension has that name; inputs are {names:?}, dimensions {dimensions:?}"
                    ))
                })?;
                given.insert(name.clone(), extents.clone());
            }
        }
        let mut shapes = planish_graph::infer::input_shapes(graph, &given, &symbols, 1)?;
        for (&input, shape) in graph.inputs.iter().zip(&mut shapes) {
            let value = graph.value(input);
            let dims = value.shape.as_deref().unwrap_or(&[]);
            if given.contains_key(&value.name) || dims.len() != 4 {
                continue;
            }
            for axis in [2, 3] {
                let open = match &dims[axis] {
                    Dim::Fixed(_) => false,
                    Dim::Symbol(s) => !symbols.contains_key(s),
                    Dim::Unknown => true,
                };
                if open {
                    shape[axis] = USUAL_PICTURE;
                }
            }
            if let (Dim::Unknown, Some(batch)) = (&dims[0], self.batch) {
                shape[0] = batch;
            }
        }
        Ok(shapes)
    }
}

/// The side of the pictures that most classifiers take; for models that leave height and width open.
const USUAL_PICTURE: usize = 224;

/// A model that is ready to run, and how long that took.
pub struct Loaded {
    /// The session.
    pub session: Session,
    /// Milliseconds to read and optimise.
    pub load_ms: f64,
    /// What was wrong or noteworthy in the graph as it was read: nodes, MACs and so on are counted from here.
    pub original: Option<Graph>,
}

/// Reads the ONNX file at `path` under the memory cap.
pub fn read(path: &Path, max_memory: usize) -> Result<Graph> {
    let budget = Budget::new(max_memory);
    with_budget(&budget, || planish_onnx::load(path, &planish_onnx::ReadOptions::default()))
}

/// An error where `output` is the file that `model` is read from: what is written answers otherwise, and the model would be
/// lost.
pub fn refuse_overwriting(model: &Path, output: &Path) -> Result<()> {
    let same = match (model.canonicalize(), output.canonicalize()) {
        (Ok(model), Ok(output)) => model == output,
        _ => model == output,
    };
    if same {
        return Err(Error::invalid("the output would replace the model itself: give another file with -o")
            .at(output.display().to_string()));
    }
    Ok(())
}

/// Reads and optimises. `keep_original` also keeps the graph as it was read.
pub fn load(path: &Path, options: &SessionOptions, keep_original: bool) -> Result<Loaded> {
    let start = Instant::now();
    let graph = read(path, options.max_memory)?;
    let original = keep_original.then(|| graph.clone());
    let session = Session::new(graph, options).context(|| path.display().to_string())?;
    if session.isa() == Isa::Amx && planish_cpu::amx::is_emulated() {
        eprintln!(
            "planish: the tile unit is emulated, thousands of times slower than one; times say nothing"
        );
    }
    if session.precision() != options.precision {
        note_precision(options.precision, session.isa());
    }
    Ok(Loaded { session, load_ms: start.elapsed().as_secs_f64() * 1e3, original })
}

/// Says that a precision was asked for in vain.
pub fn note_precision(asked: ElementType, isa: Isa) {
    eprintln!("planish: {isa} on this machine has no instructions for {asked}; computing in f32");
}

/// The name of a precision.
pub fn precision(text: &str) -> std::result::Result<ElementType, String> {
    let all = [ElementType::F32, ElementType::Bf16, ElementType::F16];
    let found = all.into_iter().find(|element| element.name() == text);
    found.ok_or_else(|| format!("there is no precision \"{text}\"; there are f32, bf16 and f16"))
}

fn precision_not_auto(text: &str) -> std::result::Result<Precision, String> {
    precision(text).map(Precision::Is)
}

/// The name of a precision, or "auto".
pub fn precision_or_auto(text: &str) -> std::result::Result<Precision, String> {
    if text == "auto" { Ok(Precision::Auto) } else { precision_not_auto(text) }
}

/// Noise for every input of `graph`, in the given shapes.
pub fn random_inputs(graph: &Graph, shapes: &[Vec<usize>], seed: u64) -> Result<Vec<Tensor>> {
    let typed = graph.inputs.iter().zip(shapes);
    typed
        .enumerate()
        .map(|(i, (&id, shape))| {
            let value = graph.value(id);
            let dtype =
                value.dtype.ok_or_else(|| Error::invalid(format!("input \"{}\" has no type", value.name)))?;
            planish_engine::run::session::random_input(dtype, shape, seed + i as u64)
        })
        .collect()
}

/// Shows how far tuning is, and stops it on Ctrl-C.
fn watch() -> Watch {
    let shown: Mutex<Option<(Progress, Interrupt)>> = Mutex::new(None);
    Watch(Arc::new(move |event| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Begin(steps) => *shown = Some((Progress::new("tuning", steps as u64), Interrupt::new())),
            Event::Step(what) => {
                if let Some((progress, interrupt)) = &*shown {
                    progress.say(what);
                    progress.advance(1);
                    return !interrupt.is_raised();
                }
            }
            Event::End => {
                if let Some((progress, interrupt)) = shown.take()
                    && interrupt.is_raised()
                {
                    progress.note("planish: tuning was interrupted; what was learned is used");
                }
            }
        }
        true
    }))
}

/// Seconds of a budget: none or more, and no more than a day.
pub fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86400.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("\"{text}\" is no number of seconds from 0 to 86400")),
    }
}

/// Reads "16G", "512M", "4096".
pub fn bytes(text: &str) -> std::result::Result<usize, String> {
    let (digits, unit) = match text.trim_end_matches(['B', 'b']).char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number = digits.parse::<usize>().ok().and_then(|n| n.checked_mul(1usize << unit));
    number.ok_or_else(|| format!("\"{text}\" is no number of bytes: write 4096, 512M or 16G"))
}

/// A relative error: zero or more.
fn relative_error(text: &str) -> std::result::Result<f32, String> {
    match text.parse::<f32>() {
        Ok(error) if error >= 0.0 => Ok(error),
        _ => Err(format!("\"{text}\" is no relative error; 1e-6 would be one")),
    }
}

/// The name of a convolution algorithm.
fn algorithm(text: &str) -> std::result::Result<String, String> {
    let names: Vec<&str> = planish_cpu::conv::algorithms().iter().map(|a| a.name()).collect();
    match names.contains(&text) {
        true => Ok(text.to_string()),
        false => Err(format!("there is no algorithm \"{text}\"; there are {}", names.join(", "))),
    }
}

/// Remembers what tuning learned. That it cannot be written is no reason to lose the results.
pub fn remember(session: &Session) {
    if let Err(error) = session.chooser().save_wisdom() {
        eprintln!("planish: what tuning learned is not remembered: {error}");
    }
}

fn named_shape(text: &str) -> std::result::Result<(String, Vec<usize>), String> {
    let problem = || format!("\"{text}\" is no shape: write NAME=1x3x224x224, DIMENSION=8, or 1x3x224x224");
    let (name, extents) = text.rsplit_once('=').unwrap_or(("", text));
    let extents =
        extents.split(['x', ',']).map(|e| e.trim().parse::<usize>()).collect::<std::result::Result<_, _>>();
    Ok((name.to_string(), extents.map_err(|_| problem())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bytes_and_shapes() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("2K"), Ok(2048));
        assert_eq!(bytes("16GB"), Ok(16 << 30));
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(seconds("nan").is_err() && seconds("-1").is_err() && seconds("1e9").is_err());
        assert!(bytes("much").is_err() && bytes("99999999999G").is_err());
        assert_eq!(named_shape("x=1x3x8x8").unwrap(), ("x".into(), vec![1, 3, 8, 8]));
        assert_eq!(named_shape("x:0=1,3").unwrap(), ("x:0".into(), vec![1, 3]));
        assert_eq!(named_shape("1x3x8x8").unwrap(), (String::new(), vec![1, 3, 8, 8]));
        assert!(named_shape("x").is_err() && named_shape("x=a").is_err());
    }
}
