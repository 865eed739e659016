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
pub(super) fn error(form: Form, _problem: &ConvProblem) -> f32 {
    match form.points[0].max(form.points[1]) {
        4 => 2.7e-7,
        6 => 1.7e-6,
        _ => 3.6e-6,
    }
}
