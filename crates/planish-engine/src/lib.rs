//! Passes, planner, memory plan, thread pool and sessions.

pub mod passes;
