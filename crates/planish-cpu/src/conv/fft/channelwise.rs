//! Depthwise convolution: each channel's spectrum times that of its kernel, tile by tile.

use std::ops::Range;

use super::run::Run;
use super::scratch::scratch_len;
use super::spectrum::frequencies;
use crate::isa::Isa;
use crate::matmul::SharedScratch;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::threads::ThreadPool;

/// The memory a thread needs: the scratch memory of the transforms and one spectrum.
fn slot_len(size: usize, lanes: usize) -> usize {
    scratch_len(size, lanes) + frequencies(size) * 2 * lanes
}

/// The memory all threads need together, in numbers.
pub(super) fn workspace_len(size: usize, isa: Isa, threads: usize) -> usize {
    threads.max(1) * slot_len(size, isa.lanes())
}

/// Computes all tiles. The run is one over all groups, with weights of one input channel and every output channel; the
/// workspace has the length of [`workspace_len`].
pub(super) fn all(run: &Run<'_>, pool: &ThreadPool, workspace: &mut [f32]) {
    let memory = SharedScratch::new(workspace);
    let slot_len = slot_len(run.grid.size, run.isa.lanes());
    let units = run.grid.tiles() * run.weights.panels;
    let tasks = units.min(8 * pool.threads());
    pool.run_with_slots(tasks, &|slot, task| {
        let units = task * units / tasks..(task + 1) * units / tasks;
        dispatch(run.isa, Part { run, units, memory: memory.at(slot * slot_len) });
    });
}

/// Some tiles, vector of channels by vector, so that their weights are read once.
struct Part<'a> {
    run: &'a Run<'a>,
    units: Range<usize>,
    memory: *mut f32,
}

impl SimdOp for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Self { run, units, memory } = self;
        let size = run.grid.size;
        let step = 2 * S::LANES;
        let (spectrum, scratch) = (memory, memory.wrapping_add(frequencies(size) * step));
        let tiles = run.grid.tiles();
        for unit in units.clone() {
            let (vector, tile) = (unit / tiles, unit % tiles);
            let patch = run.patch(tile, vector * S::LANES);
            let after = (unit + 1).min(units.end - 1);
            let next = run.patch(after % tiles, after / tiles * S::LANES);
            // SAFETY: the memory has room for a spectrum and the scratch memory; a unit is done once.
            unsafe {
                run.forward(s, &patch, next.start, scratch, spectrum, step);
                for frequency in 0..frequencies(size) {
                    let weights = run.weights.panel(frequency, vector);
                    multiply(s, spectrum.add(frequency * step), weights.as_ptr());
                }
                run.inverse(s, tile, vector, scratch, spectrum, step);
            }
        }
    }
}

/// Multiplies a vector of complex numbers with another.
///
/// # Safety
/// Two vectors, of real and of imaginary parts, are readable at each and writable at the first.
#[inline(always)]
unsafe fn multiply<S: Simd>(s: S, x: *mut f32, w: *const f32) {
    // SAFETY: promised by the caller.
    unsafe {
        let (a, b) = (s.load(x), s.load(x.add(S::LANES)));
        let (c, d) = (s.load(w), s.load(w.add(S::LANES)));
        s.store(x, s.mul_add(a, c, s.neg(s.mul(b, d))));
        s.store(x.add(S::LANES), s.mul_add(a, d, s.mul(b, c)));
    }
}
