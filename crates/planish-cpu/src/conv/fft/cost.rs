//! What a convolution by transforms costs.

use super::blocking::Blocking;
use super::grid::Grid;
use super::product::max_rows;
use super::run::PHASES;
use super::spectrum::frequencies;
use crate::conv::ConvProblem;
use crate::conv::dense::activations_streamed;
use crate::isa::Isa;
use crate::rates::{Rate, SECOND_LEVEL, Work, weights_read};

/// The bytes of a first-level cache.
const FIRST_LEVEL: usize = 32 * 1024;

/// The work of a problem, with this many threads.
pub(super) fn work(
    grid: &Grid,
    blocking: &Blocking,
    problem: &ConvProblem,
    isa: Isa,
    threads: usize,
) -> Work {
    let count = |n: usize| n as f64;
    let (tiles, frequencies, blocks) = (grid.tiles(), count(frequencies(grid.size)), count(blocking.blocks));
    let numbers = count(tiles * grid.size * grid.size);
    // What a transform does to each number grows with the logarithm of its size.
    let far =
        if grid.size * grid.size * isa.lanes() * size_of::<f32>() > FIRST_LEVEL { numbers } else { 0.0 };
    let transforms = |vectors: f64| {
        Work::of(&[
            (Rate::FourierStage, numbers * vectors * f64::from(grid.size.ilog2())),
            (Rate::FourierNumber, far * vectors),
        ])
    };
    if is_channelwise(problem) {
        let vectors = count(problem.out_channels.div_ceil(isa.lanes()));
        let mut work = transforms(2.0 * vectors);
        work += Work::of(&[(Rate::FourierProduct, count(tiles) * vectors * frequencies)]);
        work += activations_streamed(problem);
        return work.shared(threads as f64).called(1, threads);
    }
    let (inputs, outputs) = (count(blocking.left.vectors), count(blocking.out.vectors));
    let depth = count(problem.group_in());
    let products = count(tiles) * frequencies * outputs;
    let passes = count(tiles.div_ceil(blocking.blocks).div_ceil(max_rows(isa))) * blocks;
    let multiply_adds = products * depth * 4.0;
    let mut work = transforms(inputs + outputs);
    work += Work::of(&[
        (Rate::MultiplyAdd, multiply_adds),
        (Rate::PanelStep, passes * frequencies * outputs * depth),
        (Rate::FourierProduct, products),
    ]);
    let groups = count(problem.groups);
    let weights = frequencies * outputs * depth * count(2 * isa.lanes() * size_of::<f32>());
    let mut work = work.times(groups);
    // Each group's weights are read once more for each block only where they are too many to stay, but those of all
    // groups together come from far away.
    let passes = if weights > SECOND_LEVEL { blocks } else { 1.0 };
    work += weights_read(weights * groups, passes, multiply_adds * groups, isa);
    work += activations_streamed(problem);
    let regions = if blocking.shared { PHASES.len() * blocking.blocks } else { 1 };
    work.shared(threads as f64).called(problem.groups * regions, threads)
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
