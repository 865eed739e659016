//! What a convolution by transforms costs.

use super::blocking::Blocking;
use super::grid::Grid;
use super::spectrum::frequencies;
use crate::conv::ConvProblem;
use crate::isa::Isa;

/// Bytes of weights that come from memory rather than from the last cache whenever they are read.
const LARGE: f64 = 8e6;

/// The estimated cycles of a problem, with this many threads. All rates are measured.
pub(super) fn cycles(
    grid: &Grid,
    blocking: &Blocking,
    problem: &ConvProblem,
    isa: Isa,
    threads: usize,
) -> f64 {
    let threads = threads.max(1) as f64;
    let (tiles, frequencies) = (grid.tiles() as f64, frequencies(grid.size) as f64);
    // A multiply-add of vectors, and anything else that is done with them.
    let (rate, other) = match isa {
        Isa::Avx512 => (1.0, 1.0),
        Isa::Avx2 => (0.5, 0.7),
        Isa::Portable => (4.0, 3.0),
    };
    // A transform of a tile for each of its numbers: adding and multiplying grows with the logarithm, and so does what
    // is moved from cache to cache.
    let transform = (grid.size * grid.size) as f64 * (6.2 * f64::from(grid.size.ilog2()) - 9.3) * other;
    if is_channelwise(problem) {
        let vectors = problem.out_channels.div_ceil(isa.lanes()) as f64;
        return tiles * vectors * (2.0 * transform + frequencies * 4.0 * other) / threads + 300.0;
    }
    let (inputs, outputs) = (blocking.left.vectors as f64, blocking.out.vectors as f64);
    let depth = problem.group_in() as f64;
    let transforms = tiles * (inputs + outputs) * transform;
    let products = tiles * frequencies * outputs * (depth * 4.0 * rate * 1.08 + 4.0 * other);
    let weights = frequencies * outputs * depth * (2 * isa.lanes() * size_of::<f32>()) as f64;
    let again = weights * (blocking.blocks - 1) as f64;
    let fetch =
        if weights > LARGE { (weights + again) / 8.0 } else { weights / 8.0 + again / 32.0 / threads };
    problem.groups as f64 * ((transforms + products) / threads + fetch) + 300.0
}

/// The expected relative error, see [`ConvAlgorithm::error`](crate::conv::ConvAlgorithm::error). Measured with 1 to 256
/// channels: the transforms err once, by the logarithm of their size, which hardly changes; then as many products are
/// added up as there are channels, not taps.
pub(super) fn error(problem: &ConvProblem) -> f32 {
    let (once, by_channel) = (1.3e-7f32, 2.3e-8f32);
    (once * once + by_channel * by_channel * problem.group_in() as f32).sqrt()
}

/// Whether every group is a single channel in and out.
pub(super) fn is_channelwise(problem: &ConvProblem) -> bool {
    problem.group_in() == 1 && problem.group_out() == 1
}
