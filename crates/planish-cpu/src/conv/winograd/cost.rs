//! What a run costs, and how exact it is.

use super::super::ConvProblem;
use super::blocking::Blocking;
use super::grid::Form;
use crate::conv::dense::{activations_read, multiply_adds_beside, on_tiles, steps_of_depth, tile_work};
use crate::element::ElementType;
use crate::isa::Isa;
use crate::matmul::{panel_width, tile_rows};
use crate::rates::{Rate, Work, weights_read};

/// The work of a run: the products, the weights, which are read once for each block of tiles, and the transforms.
pub(super) fn work(form: Form, factor: ElementType, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
    let blocking = Blocking::new(form, factor, problem, isa, threads);
    let (lanes, count) = (isa.lanes(), |n: usize| n as f64);
    let (points, blocks) = (form.products(), blocking.blocks);
    let depth = steps_of_depth(problem.in_channels, factor, isa);
    let tiles_a_block = blocking.grid.tiles.div_ceil(blocks.max(1));
    let values = count(points * blocking.grid.tiles);
    let inputs = count(problem.in_channels.div_ceil(lanes));
    let outputs = count(problem.out_channels.div_ceil(lanes));
    let panels = count(problem.out_channels.div_ceil(panel_width(isa)));
    let steps = count(points * blocks * tiles_a_block.div_ceil(tile_rows(isa)) * depth) * panels;
    let arithmetic = if on_tiles(factor, isa) {
        tile_work(values, count(depth), problem.out_channels)
    } else {
        Work::of(&[(Rate::MultiplyAdd, values * outputs * count(depth)), (Rate::PanelStep, steps)])
    };
    let sums = count(problem.in_channels.div_ceil(form.longest_sum()) - 1);
    let mut work = Work::of(&[
        (Rate::WinogradInput, values * inputs),
        (Rate::WinogradOutput, values * outputs),
        (Rate::WinogradStage, values * (inputs + outputs) * count(form.points[0] + form.points[1])),
        (Rate::WinogradSum, values * outputs * sums),
    ]);
    let weights = count(points * depth * lanes * size_of::<f32>()) * outputs;
    work += weights_read(weights, count(blocks), multiply_adds_beside(&arithmetic), isa);
    work += arithmetic;
    work += activations_read(problem);
    let regions = if blocking.shared { 2 * blocks } else { 1 };
    work.shared(blocking.busy(threads, isa, problem.out_channels)).called(regions, threads)
}

/// The expected relative error, see [`ConvAlgorithm::error`](super::super::ConvAlgorithm::error).
///
/// The transforms add and subtract numbers larger than their results (Barabasz et al. 2020 bound that by the
/// norms of the matrices). They err once, and what the products lose while channels are added up is
/// magnified, too. Measured with 8 to 256 channels of uniform numbers, kernels of 3 to 7: the points decide,
/// the kernel hardly. With 64 channels 4 × 4 points err by 2.6e-7, which is less than a plain sum, 6 × 6 by
/// 7.5e-7 and 8 × 8 by 3.4e-6.
///
/// Where the points are multiplied as `bf16`, rounding them outweighs all that. Measured with 7 to 256 channels, which
/// make no difference; a plain product of `bf16` errs by 1.6e-3, rounding the result included.
pub(super) fn error(form: Form, factor: ElementType, problem: &ConvProblem) -> f32 {
    let [high, wide] = form.points;
    if factor == ElementType::Bf16 {
        return match (high.max(wide), high == wide) {
            (4, true) => 4.0e-3,
            (4, false) => 3.0e-3,
            (6, true) => 1.2e-2,
            (6, false) => 5.2e-3,
            (_, true) => 5.0e-2,
            (_, false) => 1.05e-2,
        };
    }
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
