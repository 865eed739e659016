//! Whole models in and out. What concerns one module alone is tested beside it.

pub(crate) mod build;
pub(crate) mod folder;
mod hostile;
mod reading;
mod writing;
