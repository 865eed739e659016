//! CPU kernels over slices, one instruction set at a time.
//!
//! A kernel here is a function over plain views of memory for one instruction set; it knows no graph, no file
//! and no planner. Everything is written once, generic over the vector type of the instruction set
//! ([`simd::Simd`]), and compiled once for each of them. Activations are channels-last: a tensor is a list of
//! pixels, each a row of channels ([`view::Rows`]).

pub mod amx;
pub mod conv;
pub mod element;
pub mod epilogue;
pub mod isa;
pub mod kernels;
pub mod matmul;
pub mod simd;
pub mod view;

pub mod copy;
mod denormals;
pub mod elementwise;
mod fold;
pub mod gather;
pub mod integer;
pub mod normalize;
pub mod peak;
pub mod pooling;
pub mod processors;
pub mod rates;
pub mod reduce;
pub mod resize;
pub mod softmax;
pub mod strided;
pub mod threads;

#[cfg(test)]
mod testing;
mod wide;
