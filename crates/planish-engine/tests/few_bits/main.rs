//! Networks of few bits, whole: they run in kernels, and give what the reference gives.

mod integers;
mod net;
mod qonnx;
