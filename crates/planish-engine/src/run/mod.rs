//! Running plans: sessions, arenas, cancelling and profiling.

pub(crate) mod arena;
pub mod cancel;
pub(crate) mod environment;
pub mod profile;
pub mod session;
