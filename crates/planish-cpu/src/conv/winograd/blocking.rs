//! How the work is cut: into blocks of tiles, panels of output channels, and tasks.

use super::super::ConvProblem;
use super::grid::{Form, Grid};
use crate::element::ElementType;
use crate::isa::Isa;
use crate::matmul::{PIECE_ROWS, panel_width};

/// The words of transformed input and products that a block should keep in the second-level cache, of 1
/// MiB.
const BLOCK_NUMBERS: usize = 192 * 1024;

/// The tiles of a block at least, so that the weights, read once for each, do not come faster than caches
/// beyond the second level give them: a row of a panel feeds as many multiply-adds as there are tiles.
const LEAST_TILES: usize = 28;

/// The cut of a problem for a number of threads. Neither changes the order of any sum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocking {
    pub grid: Grid,
    /// Blocks of tiles, as even as can be.
    pub blocks: usize,
    /// Whether all threads share the transformed input of a block and each takes some panels. Otherwise each
    /// takes whole blocks.
    pub shared: bool,
    /// Elements from tile to tile and from point to point of the transformed input.
    pub input_steps: [usize; 2],
    /// The same for the products of a panel.
    pub product_steps: [usize; 2],
    /// What the transformed input is kept as.
    factor: ElementType,
}

/// A number of lines of 16 numbers that is odd: points this far apart do not meet in a set of a cache.
fn odd_lines(lines: usize) -> usize {
    (lines | 1) * 16
}

impl Blocking {
    pub(super) fn new(
        form: Form,
        factor: ElementType,
        problem: &ConvProblem,
        isa: Isa,
        threads: usize,
    ) -> Self {
        let grid = Grid::new(form, problem);
        let (words, width) = (problem.in_channels.div_ceil(factor.per_word()), panel_width(isa));
        let by_cache = BLOCK_NUMBERS / (form.products() * (words + width));
        let weights = form.products() * words * problem.out_channels;
        let most = by_cache.clamp(LEAST_TILES, PIECE_ROWS);
        let tiles = grid.tiles.max(1);
        let least = tiles.div_ceil(most);
        let threads = threads.max(1);
        // Enough blocks for each thread to have some, whatever the others do; with fewer, panels are shared
        // out.
        let enough = if threads == 1 { 1 } else { 3 * threads };
        let panels = problem.out_channels.div_ceil(width);
        let small_weights = weights <= BLOCK_NUMBERS;
        let blocks = if least >= enough || (small_weights && tiles >= enough * LEAST_TILES / 2) {
            least.max(enough).next_multiple_of(threads).min(tiles)
        } else if panels < threads {
            // With fewer panels than threads, sharing them out would leave some without work.
            least.max(threads).min(tiles)
        } else {
            least
        };
        let lines = words.div_ceil(16);
        // Rows a multiple of 2 KiB apart meet in too few sets for those of a tile.
        let lines = if lines.is_multiple_of(32) { lines + 1 } else { lines };
        let rows = tiles.div_ceil(blocks);
        Self {
            grid,
            blocks,
            shared: threads > 1 && blocks < enough && panels >= threads,
            input_steps: [lines * 16, odd_lines(rows * lines)].map(|words| words * factor.per_word()),
            product_steps: [width, odd_lines((rows * width).div_ceil(16))],
            factor,
        }
    }

    /// The tiles of a block.
    pub(super) fn tiles(&self, block: usize) -> std::ops::Range<usize> {
        let start = |block: usize| (block as u128 * self.grid.tiles as u128 / self.blocks as u128) as usize;
        start(block)..start(block + 1)
    }

    /// How many threads have something to do, on the average over the time until the last is done.
    pub(super) fn busy(&self, threads: usize, isa: Isa, out_channels: usize) -> f64 {
        let tasks = if self.shared { out_channels.div_ceil(panel_width(isa)) } else { self.blocks };
        tasks as f64 / tasks.div_ceil(threads.max(1)).max(1) as f64
    }

    /// The words of the transformed input of a block.
    pub(super) fn input_len(&self) -> usize {
        self.grid.form.products() * self.input_steps[1] / self.factor.per_word()
    }

    /// The numbers of the products of a block with a panel.
    pub(super) fn product_len(&self) -> usize {
        self.grid.form.products() * self.product_steps[1]
    }

    /// The numbers of workspace all threads need, and some to start at a cache line.
    pub(super) fn workspace_len(&self, threads: usize) -> usize {
        let threads = threads.max(1);
        let inputs = if self.shared { 1 } else { threads };
        inputs * self.input_len() + threads * self.product_len() + 16
    }
}
