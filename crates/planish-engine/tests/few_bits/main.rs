//! Networks of few bits, whole: they run in kernels, and give what the reference gives.

mod edges;
mod integers;
mod net;
mod qonnx;
