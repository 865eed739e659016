//! Passes: graph to graph, same meaning, less work.
//!
//! Files say the same thing in many ways: a batch normalisation behind a convolution, a swish spelled as two nodes, a
//! shape computed at run time from the shape it had before. Passes bring a graph to one plain form, so that the planner
//! and the kernels need to know one spelling only. [`optimise`] does what holds for every input shape; [`specialise()`]
//! fixes the input shapes, after which no shape arithmetic remains in ordinary networks. Both run the same list,
//! [`passes`], round after round until nothing changes; with fixed shapes more of it applies.
//!
//! The order within a round, and why:
//!
//! 1. `dead-code`: so that "read by nobody else" is true of what it looks true of.
//! 2. `known-contents`: types and shapes of all values where the input shapes are fixed; what follows from them alone
//!    becomes constant. `inline-branches` then decides what depends on it.
//! 3. `fold-constants`, then `common-subexpressions`: fewer and plainer nodes for all that follows.
//! 4. `symbolic-shapes`, `identities`, `channel-shuffles`, `channels-first`, `reshapes`: nothing stands between the nodes
//!    of a pattern any more. Shuffles are looked for before chains of reshapes are merged, which would hide their ends.
//! 5. `global-pools`, `pads`, `activations`, `matrix-bias`: the many spellings of a layer become one.
//! 6. `qonnx-spelling`, `few-bit-constants`, `quantised-spelling`, `unsigned-levels`: quantised networks in one spelling and
//!    one signedness.
//! 7. `quantised-movement`, so that quantisations stand behind the layers that they end, then `sign-thresholds`, which decides
//!    ties by the normalisation as the file has it.
//! 8. `absorb-affine`, then `fuse-convolutions`, which would hide the convolution's plain result from all others.
//! 9. `quantised-limits`, `absorb-conversions`, `quantised-residuals`: what is left between two conversions is computed on
//!    levels. Last, because no other pass looks into such operators.

mod absorb_affine;
mod activations;
mod channel_shuffles;
mod channels_first;
mod common;
mod dead_code;
mod dequantise_constants;
mod fold_constants;
mod fuse_convolutions;
mod global_pools;
mod identities;
mod inline_branches;
mod known_contents;
mod layer_weights;
mod matrix_bias;
mod pads;
mod pattern;
mod quantised;
#[cfg(test)]
mod random;
mod reshapes;
mod rewrite;
mod specialise;
mod symbolic_shapes;
#[cfg(test)]
pub(crate) mod testing;
mod unsigned_levels;
mod widen_halves;

pub(crate) use absorb_affine::{Affine, channel_map};
pub(crate) use pattern::per_channel;
pub(crate) use quantised::moves_levels;
pub(crate) use quantised::report::reason as conversion_reason;
pub use quantised::report::{Conversion, conversions};
pub use specialise::{Specialised, as_it_stands, specialise};

use planish_graph::error::Context;
use planish_graph::{Graph, Result};

/// One rewriting of a graph that keeps its meaning: its inputs and outputs (names, types, order) and their relation.
pub trait Pass: Sync {
    /// For reports.
    fn name(&self) -> &'static str;
    /// Rewrites `graph`, which is valid, and leaves it valid; says how many rewrites there were.
    fn run(&self, graph: &mut Graph) -> Result<usize>;
}

/// Every pass, in the order in which a round runs them.
pub fn passes() -> &'static [&'static dyn Pass] {
    &[
        &dead_code::DeadCode,
        &known_contents::KnownContents,
        &inline_branches::InlineBranches,
        &fold_constants::FoldConstants,
        &common::CommonSubexpressions,
        &symbolic_shapes::SymbolicShapes,
        &identities::Identities,
        &channel_shuffles::ChannelShuffles,
        &channels_first::ChannelsFirst,
        &reshapes::Reshapes,
        &global_pools::GlobalPools,
        &pads::Pads,
        &activations::Activations,
        &matrix_bias::MatrixBias,
        &quantised::qonnx::QonnxSpelling,
        &quantised::constants::FewBitConstants,
        &quantised::spelling::QuantisedSpelling,
        &unsigned_levels::UnsignedLevels,
        &quantised::movement::QuantisedMovement,
        &quantised::thresholds::SignThresholds,
        &absorb_affine::AbsorbAffine,
        &fuse_convolutions::FuseConvolutions,
        &quantised::limits::QuantisedLimits,
        &quantised::absorb::AbsorbConversions,
        &quantised::residual::QuantisedResiduals,
    ]
}

/// What one run of one pass did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassReport {
    /// The pass.
    pub name: &'static str,
    /// How many rewrites it made.
    pub rewrites: usize,
    /// Nodes in the graph before it ran.
    pub nodes_before: usize,
    /// Nodes in the graph after it ran.
    pub nodes_after: usize,
}

/// The most rounds; ordinary networks are done after two to four.
const ROUNDS: usize = 12;

/// Runs all passes over `graph` until nothing changes. The report lists the runs that changed something, in order.
pub fn optimise(graph: &mut Graph) -> Result<Vec<PassReport>> {
    run_passes(graph, passes())
}

fn run_passes(graph: &mut Graph, passes: &[&dyn Pass]) -> Result<Vec<PassReport>> {
    graph.validate()?;
    let mut reports = Vec::new();
    for _ in 0..ROUNDS {
        let done = reports.len();
        for pass in passes {
            reports.extend(run_pass(*pass, graph)?);
        }
        if reports.len() == done {
            break;
        }
    }
    Ok(reports)
}

/// Runs one pass; nothing is reported where nothing changed. Debug builds check that the graph is still valid.
fn run_pass(pass: &dyn Pass, graph: &mut Graph) -> Result<Option<PassReport>> {
    let nodes_before = graph.nodes.len();
    let rewrites = pass.run(graph).context(|| format!("pass {}", pass.name()))?;
    if cfg!(debug_assertions) && rewrites > 0 {
        graph.validate().context(|| format!("after pass {}", pass.name()))?;
    }
    let report = PassReport { name: pass.name(), rewrites, nodes_before, nodes_after: graph.nodes.len() };
    Ok((rewrites > 0).then_some(report))
}
