//! Where the time of a run goes, step by step.

use crate::plan::choose::Candidate;
use std::time::Duration;

/// What one step did and how long it took.
#[derive(Clone, Debug)]
pub struct StepProfile {
    /// The node's name.
    pub node: String,
    /// The operator ("Conv") or what the planner put in ("layout change").
    pub operator: String,
    /// The algorithm or kernel.
    pub algorithm: String,
    /// Why it was chosen.
    pub reason: String,
    /// Of a convolution, every algorithm there was to choose from, the pick first.
    pub candidates: Vec<Candidate>,
    /// The shape of the first output, as ONNX writes it.
    pub shape: Vec<usize>,
    /// Multiply-accumulate operations.
    pub macs: u64,
    /// When it started, from the start of the run.
    pub start: Duration,
    /// How long it took.
    pub time: Duration,
}

/// Every step of one run, in order.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The steps.
    pub steps: Vec<StepProfile>,
}
