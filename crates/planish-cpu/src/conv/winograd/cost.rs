//! What a run costs, and how exact it is.

use super::super::ConvProblem;
use super::blocking::Blocking;
use super::grid::Form;
use crate::isa::Isa;

/// The estimated cycles: the products at the rate of the inner loop, the weights, which are larger than any
/// second-level cache and read once for each block of tiles, and the transforms.
pub(super) fn cycles(form: Form, problem: &ConvProblem, isa: Isa, threads: usize) -> f64 {
    let blocking = Blocking::new(form, problem, isa, threads);
    let lanes = isa.lanes();
    // Cycles of a multiply-add, as for the plain algorithms.
    let rate = match isa {
        Isa::Avx512 => 1.0,
        Isa::Avx2 => 0.5,
        Isa::Portable => 4.0,
    };
    let numbers = |count: usize| count as f64;
    let values = numbers(form.products() * blocking.grid.tiles);
    let inputs = numbers(problem.in_channels.div_ceil(lanes));
    let outputs = numbers(problem.out_channels.div_ceil(lanes));
    // Measured: a tile of 28 vectors costs about 60 cycles beyond its multiply-adds, and 70 for each sum that
    // is cut off. A vector costs 6.5 cycles for each point to transform, of which the stores of 512 bits
    // alone are 4.
    let sums = numbers(problem.in_channels.div_ceil(form.longest_sum()));
    let products = values * outputs * (numbers(problem.in_channels) * rate * 1.03 + 2.0 + 2.5 * sums);
    let transforms = values * (inputs + outputs) * 6.5 * rate.max(0.75);
    // An output larger than the caches is written in pieces of a panel.
    let written = numbers(problem.out_rows() * problem.out_channels);
    let spilled = if written > 5e5 { written * 0.4 } else { 0.0 };
    // Measured: weights beyond the second-level cache arrive at 6.5 bytes a cycle, and are not hidden quite
    // behind the products.
    let weights = numbers(form.products() * problem.in_channels * lanes * size_of::<f32>()) * outputs;
    let fetch = if weights > 8e5 { weights * numbers(blocking.blocks) / 6.5 } else { 0.0 };
    let busy = numbers(blocking.busy(threads, isa, problem.out_channels));
    let products = products / busy;
    products.max(fetch) + 0.2 * products.min(fetch) + (transforms + spilled) / busy + 1000.0
}

/// The expected relative error, see [`ConvAlgorithm::error`](super::super::ConvAlgorithm::error).
///
/// The transforms add and subtract numbers larger than their results (Barabasz et al. 2020 bound that by the
/// norms of the matrices). They err once, and what the products lose while channels are added up is
/// magnified, too. Measured with 8 to 256 channels of uniform numbers, kernels of 3 to 7: the points decide,
/// the kernel hardly. With 64 channels 4 × 4 points err by 2.6e-7, which is less than a plain sum, 6 × 6 by
/// 7.5e-7 and 8 × 8 by 3.4e-6.
pub(super) fn error(form: Form, problem: &ConvProblem) -> f32 {
    let [high, wide] = form.points;
    let (once, by_channel) = match (high.max(wide), high == wide) {
        (4, true) => (0.9e-7, 3.0e-8),
        (4, false) => (0.5e-7, 2.4e-8),
        (6, true) => (2.2e-7, 0.9e-7),
        (6, false) => (1.5e-7, 4.0e-8),
        (_, true) => (1.6e-6, 3.8e-7),
        (_, false) => (3.0e-7, 8.2e-8),
    };
    // Sums are cut off so that they err like short ones, see `Form::longest_sum`.
    let channels = problem.in_channels.min(form.longest_sum()) as f32;
    (once * once + by_channel * by_channel * channels).sqrt()
}
