//! Running a convolution block by block: transform, multiply, transform back.

use std::ops::Range;

use super::blocking::Blocking;
use super::forward::{Forward, Patch};
use super::grid::Grid;
use super::inverse::Inverse;
use super::product::Product;
use super::spectrum::frequencies;
use super::transform::Roots;
use super::weights::Spectra;
use crate::epilogue::{Destination, Epilogue};
use crate::isa::Isa;
use crate::matmul::SharedScratch;
use crate::simd::{Simd, SimdOp, dispatch, prefetch};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// A group of a convolution: views of its input channels, and where its output channels start.
pub(super) struct Run<'a> {
    pub isa: Isa,
    pub grid: &'a Grid,
    pub roots: &'a Roots,
    pub weights: &'a Spectra,
    /// Padded to whole vectors.
    pub bias: &'a [f32],
    pub input: Rows<'a>,
    pub epilogue: Epilogue<'a>,
    pub output: &'a RowsMut<'a>,
    pub first_column: usize,
    pub columns: usize,
}

impl Run<'_> {
    /// Computes all tiles. The workspace has the length that the blocking asks for.
    pub(super) fn all(&self, blocking: &Blocking, pool: &ThreadPool, workspace: &mut [f32]) {
        let memory = SharedScratch::new(workspace);
        let spectra = blocking.left.len + blocking.out.len;
        let part = |phase, block, units, spectra, scratch| {
            let (left, out) = (memory.at(spectra), memory.at(spectra + blocking.left.len));
            dispatch(self.isa, Part { run: self, blocking, phase, block, units, left, out, scratch });
        };
        if blocking.shared {
            for block in 0..blocking.blocks {
                let block = blocking.block(block);
                for phase in PHASES {
                    let units = self.units(blocking, phase, &block);
                    let tasks = units.min(4 * pool.threads());
                    pool.run_with_slots(tasks, &|slot, task| {
                        let range = task * units / tasks..(task + 1) * units / tasks;
                        part(phase, block.clone(), range, 0, memory.at(spectra + slot * blocking.scratch));
                    });
                }
            }
        } else {
            pool.run_with_slots(blocking.blocks, &|slot, block| {
                let start = slot * (spectra + blocking.scratch);
                let block = blocking.block(block);
                for phase in PHASES {
                    let units = self.units(blocking, phase, &block);
                    part(phase, block.clone(), 0..units, start, memory.at(start + spectra));
                }
            });
        }
    }

    /// How many pieces of work a phase of a block has, each the same whoever does it.
    fn units(&self, blocking: &Blocking, phase: Phase, block: &Range<usize>) -> usize {
        match phase {
            Phase::Forward => block.len() * blocking.left.vectors,
            Phase::Multiply => frequencies(self.grid.size),
            Phase::Inverse => block.len() * blocking.out.vectors,
        }
    }

    /// Where a vector of input channels of a tile is read.
    #[inline(always)]
    pub(super) fn patch(&self, tile: usize, channel: usize) -> Patch {
        let place = self.grid.place(tile);
        let (first, width) = self.grid.input_lines(place.image);
        let step = self.input.row_stride();
        // The tile may start before the image, which wraps around and back.
        let row = first
            .wrapping_add_signed(place.lines.input.wrapping_mul(width as isize))
            .wrapping_add_signed(place.pixels.input);
        Patch {
            start: self.input.ptr().wrapping_add(row.wrapping_mul(step).wrapping_add(channel)),
            line_step: width * step,
            pixel_step: step,
            lines: place.lines.inside,
            pixels: place.pixels.inside,
            lanes: self.input.channels() - channel,
        }
    }

    /// Transforms a vector of input channels of a tile.
    ///
    /// # Safety
    /// `out` takes two vectors for every frequency, and `scratch` what the transforms of a tile need.
    #[inline(always)]
    pub(super) unsafe fn forward<S: Simd>(
        &self,
        s: S,
        patch: &Patch,
        next: *const f32,
        scratch: *mut f32,
        out: *mut f32,
        out_step: usize,
    ) {
        let roots = self.roots;
        match self.grid.size {
            8 => s.call(Forward::<8, 1> { patch, next, roots, scratch, out, out_step }),
            16 => s.call(Forward::<4, 4> { patch, next, roots, scratch, out, out_step }),
            32 => s.call(Forward::<4, 8> { patch, next, roots, scratch, out, out_step }),
            _ => s.call(Forward::<8, 8> { patch, next, roots, scratch, out, out_step }),
        }
    }

    /// Transforms a vector of output channels of a tile back and finishes them.
    ///
    /// # Safety
    /// `spectrum` holds two vectors for every frequency, and `scratch` what the transforms of a tile need; nobody else
    /// uses these outputs.
    #[inline(always)]
    pub(super) unsafe fn inverse<S: Simd>(
        &self,
        s: S,
        tile: usize,
        vector: usize,
        scratch: *mut f32,
        spectrum: *const f32,
        step: usize,
    ) {
        let place = self.grid.place(tile);
        let (row, row_step) = self.grid.output_rows(&place);
        let column = vector * S::LANES;
        let valid = (self.columns - column).min(S::LANES);
        let (roots, wanted) = (self.roots, [place.lines.wanted, place.pixels.wanted]);
        let bias = self.bias[column..][..S::LANES].as_ptr();
        let column = self.first_column + column;
        let destination = Destination::new(self.output, &self.epilogue, column, valid, std::ptr::null());
        let output_step = self.output.row_stride();
        let output = self.output.ptr().wrapping_add(row * output_step + column).cast_const();
        macro_rules! call {
            ($a:literal, $b:literal) => {
                s.call(Inverse::<$a, $b> {
                    spectrum,
                    step,
                    roots,
                    scratch,
                    wanted,
                    row,
                    row_step,
                    bias,
                    destination,
                    output,
                    output_step,
                })
            };
        }
        match self.grid.size {
            8 => call!(8, 1),
            16 => call!(4, 4),
            32 => call!(4, 8),
            _ => call!(8, 8),
        }
    }
}

/// What happens to a block, one after the other.
#[derive(Clone, Copy)]
pub(super) enum Phase {
    Forward,
    Multiply,
    Inverse,
}

pub(super) const PHASES: [Phase; 3] = [Phase::Forward, Phase::Multiply, Phase::Inverse];

/// Some units of a phase of a block.
struct Part<'a> {
    run: &'a Run<'a>,
    blocking: &'a Blocking,
    phase: Phase,
    block: Range<usize>,
    units: Range<usize>,
    /// The spectra of the block.
    left: *mut f32,
    out: *mut f32,
    /// The memory of this thread's transforms.
    scratch: *mut f32,
}

impl SimdOp for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Self { run, blocking, block, left, out, scratch, .. } = self;
        let spot = |unit: usize, vectors: usize| (unit / vectors, unit % vectors);
        for unit in self.units.clone() {
            match self.phase {
                Phase::Forward => {
                    let (tile, vector) = spot(unit, blocking.left.vectors);
                    let patch = run.patch(block.start + tile, vector * S::LANES);
                    let (tile_after, vector_after) = spot(unit + 1, blocking.left.vectors);
                    let next = if unit + 1 < self.units.end {
                        run.patch(block.start + tile_after, vector_after * S::LANES).start
                    } else {
                        patch.start
                    };
                    let at = left.wrapping_add(tile * blocking.left.tile + vector * 2 * S::LANES);
                    // SAFETY: the layout has room for every tile and vector of the block; units are done once.
                    unsafe { run.forward(s, &patch, next, scratch, at, blocking.left.frequency) };
                }
                Phase::Multiply => {
                    let after = left.wrapping_add((unit + 1) * blocking.left.frequency);
                    for line in (0..block.len() * blocking.left.tile).step_by(16) {
                        prefetch(after.wrapping_add(line));
                    }
                    for panel in 0..run.weights.panels {
                        let at = unit * blocking.out.frequency + panel * 2 * S::LANES;
                        let product = Product {
                            left: left.wrapping_add(unit * blocking.left.frequency),
                            left_step: blocking.left.tile,
                            depth: run.weights.depth,
                            panel: run.weights.panel(unit, panel).as_ptr(),
                            out: out.wrapping_add(at),
                            out_step: blocking.out.tile,
                        };
                        // SAFETY: the layouts have room for every tile, vector and frequency of the block, the
                        // forward phase wrote all of the left one, and units are done once.
                        unsafe { product.run(s, block.len()) };
                    }
                }
                Phase::Inverse => {
                    let (tile, vector) = spot(unit, blocking.out.vectors);
                    let at = out.wrapping_add(tile * blocking.out.tile + vector * 2 * S::LANES);
                    // SAFETY: the multiply phase wrote every frequency of every tile and vector; the outputs of a unit
                    // are in no other.
                    unsafe {
                        run.inverse(s, block.start + tile, vector, scratch, at, blocking.out.frequency);
                    }
                }
            }
        }
    }
}
