//! From a graph to a smaller graph that answers nearly the same.
//!
//! Passes (`planish-engine`) keep a graph's meaning; transforms, which live here, give some of it up for size and speed, and
//! say how much. They know graphs and may run them through the engine's sessions; files, pictures and the command line
//! are the caller's.

pub mod quantize;
pub mod random;
