//! Runs a convolution over its pixels: packs the input, then shares panels of weights and blocks of pixels among threads.

use super::BitConv;
use super::pack::Pack;
use super::regions::{Place, Region};
use super::tile::{self, MOST_ROWS, Tile};
use super::words::{self, Words, WordsOp};
use crate::conv::ConvProblem;
use crate::element::Element;
use crate::epilogue::{Destination, Epilogue};
use crate::simd::Simd;
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};
use std::ops::Range;

/// Pixels of a task at most: their places lie on its stack.
const BLOCK_PIXELS: usize = 192;

/// Pixels whose sums are finished at a time. Vectors that finish may be wider than those that count, and read what was
/// written in halves: not at once, which would wait for the writing.
const FINISHED_PIXELS: usize = 4 * MOST_ROWS;

/// Rows of them that are finished at a time.
const FINISHED_ROWS: usize = 8;

/// The most columns that are finished at a time.
const MOST_COLUMNS: usize = 16;

/// Some pixels of a region.
struct Block<'a> {
    region: &'a Region,
    pixels: Range<usize>,
}

/// A run behind its packing.
struct Run<'a, O> {
    conv: &'a BitConv,
    problem: &'a ConvProblem,
    out_size: [usize; 3],
    blocks: Vec<Block<'a>>,
    epilogue: Epilogue<'a, O>,
    output: RowsMut<'a, O>,
    /// The bits of all input pixels.
    bits: *const u32,
}

// SAFETY: the bits are only read, and outlive the run.
unsafe impl<O: Element> Sync for Run<'_, O> {}

/// Computes the convolution.
///
/// # Safety
/// The problem is valid and the weights were packed for it; the views have its shapes, the workspace the length that
/// [`BitConv::workspace_len`] states.
pub(super) unsafe fn run<O: Element>(
    conv: &BitConv,
    problem: &ConvProblem,
    pool: &ThreadPool,
    input: Rows<'_, u8>,
    epilogue: Epilogue<'_, O>,
    output: RowsMut<'_, O>,
    workspace: &mut [f32],
) {
    let Ok(out_size) = problem.out_size() else { return };
    let words = Shared(workspace.as_mut_ptr().cast());
    let (layout, shape) = (conv.layout, conv.weights.shape);
    pool.run_ranges(problem.in_rows(), 64, |rows| {
        words::dispatch(conv.key.isa, Pack { layout, input, rows, words: words.get() });
    });
    let regions = Region::all(problem, layout);
    let blocks: Vec<Block<'_>> = regions
        .iter()
        .flat_map(|region| {
            let all = region.pixels(problem.batch);
            let block = move |first| Block { region, pixels: first..all.min(first + BLOCK_PIXELS) };
            (0..all).step_by(BLOCK_PIXELS).map(block)
        })
        .collect();
    // On several threads some tasks for each of them, so that a delayed one does not hold up the others.
    let all = problem.groups * (shape.all() / shape.finished);
    let wanted = if pool.threads() > 1 { pool.threads() * 8 } else { 1 };
    let parts = wanted.div_ceil(blocks.len().max(1)).clamp(1, all);
    let count = blocks.len();
    let run = Run { conv, problem, out_size, blocks, epilogue, output, bits: words.get() };
    pool.run(parts * count, &|task| {
        let part = task / count;
        let stripes = all * part / parts..all * (part + 1) / parts;
        words::dispatch(conv.key.isa, Task { run: &run, stripes, block: task % count });
    });
}

/// An address that threads share; each writes other elements.
struct Shared(*mut u32);

// SAFETY: see the type.
unsafe impl Sync for Shared {}

impl Shared {
    fn get(&self) -> *mut u32 {
        self.0
    }
}

/// Some output channels of a block of pixels.
struct Task<'a, O> {
    run: &'a Run<'a, O>,
    /// Stripes of columns that are finished together, of all groups.
    stripes: Range<usize>,
    block: usize,
}

/// The sums of some pixels, `[pixel][column]`.
#[repr(align(64))]
struct Sums([u32; FINISHED_PIXELS * MOST_COLUMNS]);

impl<O: Element> WordsOp for Task<'_, O> {
    type Output = ();

    #[inline(always)]
    fn eval<W: Words>(self, w: W) {
        let Run { conv, problem, out_size, bits, .. } = *self.run;
        let Block { region, pixels } = &self.run.blocks[self.block];
        let (shape, layout) = (conv.weights.shape, conv.layout);
        let mut places = [Place::default(); BLOCK_PIXELS];
        let places = &mut places[..pixels.len()];
        region.places(problem, out_size, pixels.start, places);
        let mut rows = [std::ptr::null(); BLOCK_PIXELS];
        let mut outputs = [0; BLOCK_PIXELS];
        for stripe in self.stripes.clone() {
            let column = stripe * shape.finished;
            let (group, own) = (column / shape.all(), column % shape.all());
            for (place, (row, output)) in places.iter().zip(rows.iter_mut().zip(&mut outputs)) {
                let word = place.input * layout.pixel_words() + group * layout.group_words();
                (*row, *output) = (bits.wrapping_add(word), place.output);
            }
            let valid = (shape.channels - own).min(shape.finished);
            let mut start = [0u32; MOST_COLUMNS];
            self.start(region, column, &mut start[..shape.finished]);
            let mut sums = Sums([0; FINISHED_PIXELS * MOST_COLUMNS]);
            for first in (0..places.len()).step_by(FINISHED_PIXELS) {
                let count = FINISHED_PIXELS.min(places.len() - first);
                for lane in (0..valid).step_by(shape.lanes) {
                    let tile = Tile {
                        passes: &conv.passes,
                        taps: &region.taps,
                        rows: rows[first..].as_ptr(),
                        weights: conv.weights.panel(column + lane),
                        words: layout.words,
                        signs: layout.paired,
                        twice: layout.few.input.unit() == 2,
                        start: start[lane..].as_ptr(),
                        sums: sums.0[lane..].as_mut_ptr(),
                        sums_stride: shape.finished,
                    };
                    let whole = count / W::ROWS * W::ROWS;
                    let rest = Tile {
                        rows: tile.rows.wrapping_add(whole),
                        sums: tile.sums.wrapping_add(whole * tile.sums_stride),
                        ..tile
                    };
                    // SAFETY: all taps of the region read pixels of the input, whose words were packed; the panel has
                    // those of all taps, and the sums a vector for each of these rows.
                    unsafe {
                        if whole > 0 {
                            tile::compute(w, &tile, W::ROWS, whole / W::ROWS);
                        }
                        if whole < count {
                            tile::compute(w, &rest, count - whole, 1);
                        }
                    }
                }
                let Run { output, epilogue, .. } = self.run;
                let channel = group * shape.channels + own;
                let to = Destination::new(output, epilogue, channel, valid, outputs[first..].as_ptr());
                // SAFETY: the output rows are pixels of this block, and the columns of this stripe, and so nobody else's.
                unsafe { self.finish(w.simd(), to, count, column, &sums) };
            }
        }
    }
}

impl<O: Element> Task<'_, O> {
    /// What counts are taken from in a region, for each column of a stripe.
    #[inline(always)]
    fn start(&self, region: &Region, column: usize, start: &mut [u32]) {
        let weights = &self.run.conv.weights;
        let columns = column..column + start.len();
        for (start, &bias) in start.iter_mut().zip(&weights.bias[columns.clone()]) {
            *start = bias as u32;
        }
        for tap in region.taps.iter().flat_map(|taps| taps.numbers.clone()) {
            let constants = &weights.tap(tap)[columns.clone()];
            for (start, &constant) in start.iter_mut().zip(constants) {
                *start = start.wrapping_add(constant as u32);
            }
        }
    }

    /// Makes numbers of the sums of some pixels, and does what follows.
    ///
    /// # Safety
    /// The destination's rows and columns are writable by nobody else; it names `count` rows.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, mut to: Destination<O>, count: usize, column: usize, sums: &Sums) {
        let weights = &self.run.conv.weights;
        // SAFETY: padded to whole vectors that finish, one of which starts at this column.
        let load = |numbers: &[f32]| unsafe { s.load(numbers[column..column + S::LANES].as_ptr()) };
        let scale = load(&weights.scales);
        let shift = weights.shift.as_deref().map(load);
        let number = |row: &[u32]| {
            // SAFETY: chunks of a vector's length; integers are moved as the bits they are.
            let sum = unsafe { s.load(row.as_ptr().cast()) };
            let scaled = s.mul(s.i32_to_f32(sum), scale);
            shift.map_or(scaled, |shift| s.add(scaled, shift))
        };
        let mut tiles = sums.0[..count * S::LANES].chunks_exact(FINISHED_ROWS * S::LANES);
        for tile in &mut tiles {
            let mut values = [[s.zero()]; FINISHED_ROWS];
            for (value, row) in values.iter_mut().zip(tile.chunks_exact(S::LANES)) {
                *value = [number(row)];
            }
            // SAFETY: promised by the caller.
            unsafe {
                to.store(s, &values);
                to.outputs = to.outputs.add(FINISHED_ROWS);
            }
        }
        for row in tiles.remainder().chunks_exact(S::LANES) {
            // SAFETY: promised by the caller.
            unsafe {
                to.store(s, &[[number(row)]]);
                to.outputs = to.outputs.add(1);
            }
        }
    }
}
