//! How many tiles are transformed, multiplied and transformed back together.
//!
//! A block's spectra are written and read once, the weights are read once for every block. Large blocks read fewer
//! weights, small ones stay in a cache.

use std::ops::Range;

use super::grid::Grid;
use super::scratch::scratch_len;
use super::spectrum::frequencies;
use crate::isa::Isa;

/// The numbers that the spectra of a block may take in the second-level cache, beside the weights that pass through.
const CACHED: usize = 160 * 1024;

/// The fewest tiles of a block, as long as there are so many: with fewer, the products would wait for the weights.
const FEWEST: usize = 4;

/// The tiles of a block where so few fit the cache that it is no use to try.
const UNCACHED: usize = 8;

/// The numbers that they may take at all, unless a tile needs more.
const MOST: usize = 4 << 20;

/// The blocks of a problem, and where their spectra lie in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocking {
    /// All tiles.
    tiles: usize,
    /// How many blocks they are cut into.
    pub blocks: usize,
    /// Whether all threads work on one block at a time, rather than each on its own.
    pub shared: bool,
    /// Spectra of the input and the output of a block.
    pub left: Layout,
    pub out: Layout,
    /// The memory of the transforms of one thread, in numbers.
    pub scratch: usize,
}

/// Where the spectra of a block lie: `[frequency][tile][vector of channels][real, imaginary][lane]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Vectors of channels.
    pub vectors: usize,
    /// Numbers from tile to tile.
    pub tile: usize,
    /// Numbers from frequency to frequency.
    pub frequency: usize,
    /// Numbers of the whole.
    pub len: usize,
}

impl Layout {
    fn new(vectors: usize, tiles: usize, frequencies: usize, lanes: usize) -> Self {
        // Where tiles were a multiple of 1 KiB apart, the rows of a product would share few sets of the first-level
        // cache; and where frequencies were, the stores of a transform.
        let spaced = if vectors.is_multiple_of(8) { vectors + 1 } else { vectors };
        let tile = spaced * 2 * lanes;
        let frequency = tiles * tile + lanes.max(16);
        Self { vectors, tile, frequency, len: frequencies * frequency }
    }
}

impl Blocking {
    /// The blocks for this many vectors of input and output channels.
    pub(super) fn new(grid: &Grid, vectors: [usize; 2], isa: Isa, threads: usize) -> Self {
        let (tiles, lanes) = (grid.tiles(), isa.lanes());
        let frequencies = frequencies(grid.size);
        let one = vectors.map(|v| Layout::new(v, 1, frequencies, lanes).len).iter().sum::<usize>();
        let cached = CACHED / one;
        let most = if cached < FEWEST { UNCACHED } else { cached }.min((MOST / one).max(1));
        let blocks = tiles.div_ceil(most).max(1);
        let shared = threads > 1 && tiles < threads * FEWEST;
        let blocks = if shared || threads == 1 { blocks } else { blocks.next_multiple_of(threads) };
        let [left, out] = vectors.map(|v| Layout::new(v, tiles.div_ceil(blocks), frequencies, lanes));
        Self { tiles, blocks, shared, left, out, scratch: scratch_len(grid.size, lanes) }
    }

    /// The tiles of a block.
    pub(super) fn block(&self, index: usize) -> Range<usize> {
        index * self.tiles / self.blocks..(index + 1) * self.tiles / self.blocks
    }

    /// The memory all threads need together, in numbers.
    pub(super) fn workspace_len(&self, threads: usize) -> usize {
        let spectra = self.left.len + self.out.len;
        if self.tiles == 0 {
            0
        } else if self.shared {
            spectra + threads.max(1) * self.scratch
        } else {
            threads.max(1) * (spectra + self.scratch)
        }
    }
}
