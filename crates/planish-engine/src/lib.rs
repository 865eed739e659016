//! From a graph to an answer: passes simplify it, the planner chooses layouts, algorithms and memory, and a session
//! runs the plan.
//!
//! A [`Session`] holds one optimised graph and makes a [`plan::Plan`] for each set of input shapes it meets. A plan is a
//! list of steps, each one kernel call whose operands have fixed places in one arena; no decision is left for run time.

pub mod passes;
pub mod plan;
pub mod run;

pub use run::cancel::CancelToken;
pub use run::profile::{Profile, StepProfile};
pub use run::session::{Session, SessionOptions};
