//! Which convolutions are computed together, band by band ([`planish_cpu::conv::Chain`]).
//!
//! It pays where what is between two convolutions is larger than a core's second-level cache, and where both are
//! computed best by plain sums: algorithms that save multiplications need many lines at a time, and save more than
//! the tensor's way through memory costs.

use super::conv::{activation, parts, request};
use super::follow::Followers;
use super::{Facts, Layout, Lowering, Operand, StepInfo, Target};
use planish_cpu::conv::{Chain, ChainStage, ConvProblem};
use planish_cpu::element::ElementType;
use planish_cpu::rates::SECOND_LEVEL;
use planish_graph::{Error, Node, Result, ValueId};
use std::collections::{HashMap, HashSet};

/// What is between two convolutions of a chain is larger than this many bytes: it does not nearly fit a second-level
/// cache.
const LARGE: f64 = 2.0 * SECOND_LEVEL;

/// What is between some two of them is larger than this many bytes. Measured in MobileNetV2: with 4.8 MB between them
/// three convolutions take 0.78 instead of 0.98 ms, with 1.8 MB 0.64 instead of 0.61, because the last cache is quick
/// enough for what is read once in order.
const LARGEST: f64 = 4.0 * SECOND_LEVEL;

/// The chains of a graph, by their last node.
#[derive(Default)]
pub(super) struct Chains {
    by_last: HashMap<usize, (Vec<usize>, Chain)>,
}

impl Chains {
    /// The nodes that are computed in the step of a later one.
    pub(super) fn inner(&self) -> impl Iterator<Item = usize> {
        self.by_last.values().flat_map(|(nodes, _)| nodes[..nodes.len() - 1].iter().copied())
    }

    /// The nodes of each chain, in order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &[usize]> {
        self.by_last.values().map(|(nodes, _)| &nodes[..])
    }
}

/// The convolution that a node poses, where it has constant weights and is one that chains can compute.
fn posed(node: &Node, known: &Facts<'_>, elements: &[ElementType]) -> Option<ConvProblem> {
    let problem = request(node, known, elements)?.problem;
    (problem.batch > 0 && problem.element == ElementType::F32).then_some(problem)
}

/// The stage of a node, where its best algorithm adds up products as they are.
fn stage(
    node: &Node,
    known: &Facts<'_>,
    elements: &[ElementType],
    target: &Target<'_>,
) -> Result<Option<ChainStage>> {
    let (Some(request), Some((_, fused))) = (request(node, known, elements), parts(node)) else {
        return Ok(None);
    };
    let choice = target.chooser.choose(&request)?;
    let problem = request.problem;
    let plain = choice.prepared.algorithm().adds_plainly();
    let activation = activation(fused);
    Ok(plain.then_some(ChainStage { problem, prepared: choice.prepared, activation }))
}

/// Finds the chains.
pub(super) fn assign(
    known: &Facts<'_>,
    layouts: &[Layout],
    elements: &[ElementType],
    followers: &HashMap<usize, Followers>,
    target: &Target<'_>,
) -> Result<Chains> {
    let mut chains = Chains::default();
    if !target.chooser.may_chain() {
        return Ok(chains);
    }
    let graph = known.graph;
    let mut readers: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (n, node) in graph.nodes.iter().enumerate() {
        for &v in node.inputs.iter().flatten() {
            readers.entry(v).or_default().push(n);
        }
    }
    // The convolution that alone reads a convolution's large output.
    let next = |n: usize| {
        let node = &graph.nodes[n];
        let made = node.output().filter(|v| layouts[v.0 as usize] == Layout::ChannelsLast)?;
        let &[reader] = &readers.get(&made)?[..] else { return None };
        let large = posed(node, known, elements).is_some_and(|p| between_bytes(&p) > LARGE);
        let reads = graph.nodes[reader].input(0) == Some(made)
            && posed(&graph.nodes[reader], known, elements).is_some();
        let inner = node.input(3).is_none() && !graph.outputs.contains(&made);
        let inner = inner && !followers.contains_key(&n) && !followers.contains_key(&reader);
        (large && reads && inner).then_some(reader)
    };
    let mut taken: HashSet<usize> = HashSet::new();
    for head in 0..graph.nodes.len() {
        if taken.contains(&head) {
            continue;
        }
        let mut nodes = vec![head];
        while let Some(reader) = next(nodes[nodes.len() - 1]) {
            nodes.push(reader);
        }
        let between =
            nodes[..nodes.len() - 1].iter().filter_map(|&n| posed(&graph.nodes[n], known, elements));
        if !between.map(|problem| between_bytes(&problem)).any(|bytes| bytes > LARGEST) {
            continue;
        }
        let mut stages = Vec::with_capacity(nodes.len());
        for &n in &nodes {
            match stage(&graph.nodes[n], known, elements, target)? {
                Some(stage) => stages.push(stage),
                None => break,
            }
        }
        // Where the lines of all of them do not fit the cache, those of the first ones may.
        while stages.len() >= 2 {
            nodes.truncate(stages.len());
            let shorter = stages.split_last().map(|(_, rest)| rest.to_vec()).unwrap_or_default();
            if let Ok(chain) = Chain::new(stages) {
                taken.extend(&nodes);
                chains.by_last.insert(nodes[nodes.len() - 1], (nodes, chain));
                break;
            }
            stages = shorter;
        }
    }
    Ok(chains)
}

/// The bytes of a convolution's output.
fn between_bytes(problem: &ConvProblem) -> f64 {
    (problem.out_rows() * problem.out_channels * size_of::<f32>()) as f64
}

/// The step of the chain that ends with the node that is being lowered, if there is one.
pub(super) fn lower(l: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let Some((nodes, chain)) = l.chains.by_last.remove(&l.node_index) else { return Ok(false) };
    let lost = || Error::invalid("a chain of convolutions lost an input or output");
    let graph = l.graph;
    let (x, y) = (graph.nodes[nodes[0]].input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
    let input = l.operand(x, Layout::ChannelsLast)?;
    let residual = node.input(3).map(|r| l.operand(r, Layout::ChannelsLast)).transpose()?;
    let output = l.output(y)?;
    let scratch = l.scratch(chain.workspace_len(l.target.pool.threads()));
    let algorithm = chain.algorithms().collect::<Vec<_>>().join(", ");
    let reason = format!(
        "{} convolutions, a band of lines at a time: what is between them stays in the cache",
        nodes.len()
    );
    let parts: Vec<StepInfo> = nodes.iter().map(|&n| l.info(&graph.nodes[n], "", "")).collect();
    let info = StepInfo {
        node: format!("{} … {}", parts[0].node, node.name),
        macs: parts.iter().map(|part| part.macs).sum(),
        ..l.info(node, &algorithm, &reason)
    };
    let reads: Vec<&Operand> = [Some(&input), residual.as_ref()].into_iter().flatten().collect();
    let (from, residual_from) = (input.clone(), residual.clone());
    l.push(info, &reads, &[&output, &scratch], move |env| {
        let (input, target) = (env.rows(&from)?, env.rows_mut(&output));
        let residual = residual_from.as_ref().map(|r| env.rows(r)).transpose()?;
        let workspace = env.scratch(&scratch);
        chain.run(env.pool, input, residual, target, workspace).map_err(Error::invalid)
    });
    Ok(true)
}
