//! What a convolution by transforms costs.

use super::grid::Grid;
use super::product::max_rows;
use super::spectrum::frequencies;
use crate::conv::ConvProblem;
use crate::isa::Isa;

/// The estimated cycles of a problem, with this many threads.
pub(super) fn cycles(grid: &Grid, problem: &ConvProblem, isa: Isa, threads: usize) -> f64 {
    let lanes = isa.lanes();
    let threads = threads.max(1) as f64;
    let (tiles, frequencies) = (grid.tiles() as f64, frequencies(grid.size) as f64);
    let rate: f64 = match isa {
        Isa::Avx512 => 1.0,
        Isa::Avx2 => 0.5,
        Isa::Portable => 4.0,
    };
    let vectors = [problem.group_in(), problem.group_out()].map(|c| c.div_ceil(lanes) as f64);
    let transform = (grid.size * grid.size) as f64 * (grid.size.ilog2() as f64 * 2.5 + 8.0) * rate.max(0.7);
    if is_channelwise(problem) {
        let vectors = problem.out_channels.div_ceil(lanes) as f64;
        return tiles * vectors * (2.0 * transform + frequencies * 4.0) / threads + 300.0;
    }
    let transforms = tiles * (vectors[0] + vectors[1]) * transform;
    let depth = problem.group_in() as f64;
    let products = frequencies * vectors[1] * (tiles * (depth * 4.0 * rate * 1.05 + 6.0));
    let weights = frequencies * vectors[1] * depth * 2.0 * lanes as f64 * 4.0;
    let passes = (tiles / max_rows(isa) as f64).ceil();
    let fetch = weights * (passes / 2.0).ceil() / 8.0;
    let groups = problem.groups as f64;
    groups * (transforms / threads + (products / threads).max(fetch)) + 300.0
}

/// Whether every group is a single channel in and out.
pub(super) fn is_channelwise(problem: &ConvProblem) -> bool {
    problem.group_in() == 1 && problem.group_out() == 1
}
