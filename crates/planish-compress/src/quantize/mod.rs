//! Post-training quantisation.
pub mod calibrate;
pub mod grid;
pub mod layers;
pub mod observe;
pub mod place;
pub mod prepare;
pub mod roles;
pub mod run;
pub mod scheme;
pub mod statistics;
#[cfg(test)]
pub(crate) mod testing;
pub mod watch;
pub mod weights;
