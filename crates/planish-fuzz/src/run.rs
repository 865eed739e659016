//! A graph through the engine and through the reference, under a cap on memory.

use crate::compare::{difference, wanted};
use crate::source::{Source, noise};
use planish_cpu::element::ElementType;
use planish_cpu::isa::Isa;
use planish_engine::plan::choose::ChooserOptions;
use planish_engine::{Session, SessionOptions};
use planish_graph::infer::{infer, input_shapes};
use planish_graph::limits::{Budget, with_budget};
use planish_graph::{DType, ErrorKind, Fact, Graph, Tensor};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// The cap on the memory of everything that is tried, in bytes.
pub const MEMORY: usize = 64 << 20;

/// Graphs that make more elements, or multiply more often, are planned and not run.
const MOST_WORK: u64 = 1 << 22;

/// How many graphs ran by engine and reference both: whether the fuzzing is any good.
static COMPARED: AtomicU64 = AtomicU64::new(0);

/// How many graphs ran by engine and reference both so far.
pub fn reference_cases() -> u64 {
    COMPARED.load(Ordering::Relaxed)
}

/// Shapes for the inputs of a graph that leaves some open; where it does not say at all, there are no axes.
pub(crate) fn open_shapes(graph: &Graph) -> Vec<Vec<usize>> {
    let undeclared = graph.inputs.iter().map(|&i| graph.value(i)).filter(|v| v.shape.is_none());
    let given: BTreeMap<String, Vec<usize>> = undeclared.map(|v| (v.name.clone(), Vec::new())).collect();
    input_shapes(graph, &given, &BTreeMap::new(), 2).unwrap_or_default()
}

fn options(source: &mut Source<'_>) -> SessionOptions {
    let isas: Vec<Isa> = Isa::ALL.into_iter().rev().filter(|i| i.is_available()).collect();
    let algorithms = planish_cpu::conv::algorithms();
    SessionOptions {
        threads: source.pick(&[1, 1, 1, 2]),
        isa: Some(source.pick(&isas)),
        max_memory: MEMORY,
        optimise: source.below(3) > 0,
        chooser: ChooserOptions {
            only: source.once_in(2).then(|| algorithms[source.below(algorithms.len())].name().to_string()),
            ..ChooserOptions::default()
        },
        precision: source.pick(&[ElementType::F32, ElementType::F32, ElementType::Bf16, ElementType::F16]),
    }
}

/// Elements made and multiplications done, as far as they are known before the run; `None` where the rules refuse.
fn work(graph: &Graph, shapes: &[Vec<usize>]) -> Option<u64> {
    let inputs: Vec<Fact> = graph
        .inputs
        .iter()
        .zip(shapes)
        .map(|(&i, s)| Fact::new(graph.value(i).dtype.unwrap_or(DType::F32), s))
        .collect();
    let facts = infer(graph, &inputs).ok()?;
    let elements =
        facts.iter().flatten().filter_map(|f| f.bytes()).fold(0u64, |n, b| n.saturating_add(b as u64 / 4));
    let macs = graph.nodes.iter().map(|node| {
        let find = |v: &Option<planish_graph::ValueId>| v.and_then(|v| facts[v.0 as usize].clone());
        let made: Vec<Fact> = node.outputs.iter().filter_map(find).collect();
        let known = made.iter().all(|f| f.shape.is_some());
        let given: Vec<Option<Fact>> = node.inputs.iter().map(find).collect();
        if known && made.len() == node.outputs.len() { node.op.macs(&given, &made) } else { 0 }
    });
    Some(macs.fold(elements, u64::saturating_add))
}

/// Runs `graph` on noise of `shapes`. Panics where the engine fails on what the reference can do, or answers otherwise.
pub fn check(graph: &Graph, shapes: &[Vec<usize>], source: &mut Source<'_>) {
    if shapes.len() != graph.inputs.len() {
        return;
    }
    let options = options(source);
    let work = with_budget(&Budget::new(MEMORY), || work(graph, shapes));
    let session = Session::new(graph.clone(), &options);
    if let Ok(session) = &session {
        let _ = session.with_plan(shapes, |plan| plan.arena_bytes());
        let peak = session.peak_memory();
        assert!(peak <= MEMORY, "{peak} bytes are over the cap");
    }
    let endless = graph.nodes.iter().any(|n| matches!(n.op.name(), "Loop" | "Scan"));
    let random = graph.nodes.iter().any(|n| !n.op.is_pure());
    let seed = source.byte() as u64;
    let inputs: Option<Vec<Tensor>> = graph
        .inputs
        .iter()
        .zip(shapes)
        .enumerate()
        .map(|(n, (&i, s))| noise(graph.value(i).dtype.unwrap_or(DType::F32), s, seed + n as u64))
        .collect();
    let Some(inputs) = inputs.filter(|_| work.is_none_or(|w| w <= MOST_WORK) && !endless) else { return };
    let wanted = with_budget(&Budget::new(MEMORY), || wanted(graph, &inputs));
    let found = session.and_then(|s| {
        let first = s.run(&inputs)?;
        let again = s.run(&inputs)?;
        let same = random || first.iter().zip(&again).all(|(a, b)| a.bytes() == b.bytes());
        assert!(same, "two runs differ\n{options:?}\n{graph}");
        Ok(first)
    });
    let Ok((wanted, tame)) = wanted else { return };
    match found {
        Err(error) if error.kind() == ErrorKind::Limit => {}
        Err(error) => panic!("the engine fails where the reference does not: {error}\n{options:?}\n{graph}"),
        Ok(found) => {
            COMPARED.fetch_add(1, Ordering::Relaxed);
            // How much rounding to 8 bits may grow is not known; what fails or has another shape shows all the same.
            let exact = tame && !random && options.precision == ElementType::F32;
            let differs = difference(graph, &inputs, (&wanted, exact), &found);
            if let Some(differs) = differs {
                panic!("{differs}\n{options:?}\n{shapes:?}\n{graph}");
            }
        }
    }
}
