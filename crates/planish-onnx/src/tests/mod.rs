//! Whole models in and out. What concerns one module alone is tested beside it.

mod build;
pub(crate) mod folder;
mod hostile;
mod reading;
mod writing;
