//! What a run costs.

use super::super::ConvProblem;
use super::blocking::Blocking;
use super::grid::Form;
use crate::isa::Isa;

/// The estimated cycles.
pub(super) fn cycles(form: Form, problem: &ConvProblem, isa: Isa, threads: usize) -> f64 {
    let blocking = Blocking::new(form, problem, isa, threads);
    let lanes = isa.lanes();
    let rate = match isa {
        Isa::Avx512 => 1.0,
        Isa::Avx2 => 0.5,
        Isa::Portable => 4.0,
    };
    let products = form.products() as f64;
    let tiles = blocking.grid.tiles as f64;
    let (ins, outs) =
        (problem.in_channels.div_ceil(lanes) as f64, problem.out_channels.div_ceil(lanes) as f64);
    let arithmetic = products * tiles * outs * (problem.in_channels as f64 * rate * 1.05 + 3.0);
    let transforms = products * tiles * (ins + outs) * 6.5 * rate.max(0.75);
    let weights = products * problem.in_channels as f64 * outs * lanes as f64 * 4.0 * blocking.blocks as f64;
    let fetch = if weights > 5e5 { weights / 8.0 } else { 0.0 };
    let threads = threads.max(1) as f64;
    (arithmetic / threads).max(fetch) + transforms / threads + 1000.0
}

/// The expected relative error, see [`ConvAlgorithm::error`](super::super::ConvAlgorithm::error).
///
/// The transforms add and subtract numbers larger than their results, most at the points far from one (Barabasz et
/// al. 2020 bound it by the norms of the matrices). They err once, and what the products lose while channels are
/// added up is magnified, too. Measured with 8 to 256 channels of uniform numbers, kernels of 3 to 7: the points
/// decide, the kernel hardly. With 64 channels 4 × 4 points err by 2.6e-7, which is less than a plain sum,
/// 6 × 6 by 1.6e-6 and 8 × 8 by 3.4e-6.
pub(super) fn error(form: Form, problem: &ConvProblem) -> f32 {
    let [high, wide] = form.points;
    let (once, by_channel) = match (high.max(wide), high == wide) {
        (4, true) => (0.9e-7, 3.0e-8),
        (4, false) => (0.5e-7, 2.4e-8),
        (6, true) => (4.6e-7, 1.9e-7),
        (6, false) => (2.2e-7, 5.6e-8),
        (_, true) => (1.6e-6, 3.8e-7),
        (_, false) => (3.0e-7, 8.2e-8),
    };
    let squares: f32 = once * once + by_channel * by_channel * problem.in_channels as f32;
    squares.sqrt()
}
