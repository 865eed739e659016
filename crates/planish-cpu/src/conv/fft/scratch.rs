//! The memory between the transforms of the lines and of the columns of a tile.

use super::transform::Complex;
use crate::simd::Simd;

/// Half spectra of the lines of a tile: for every line the columns `0 .. n/2`, complex vectors. Column 0 and column n/2
/// are real there, and share a place as real and imaginary part.
#[derive(Clone, Copy)]
pub(super) struct Scratch {
    start: *mut f32,
    size: usize,
}

/// Numbers from line to line: a complex vector more than a line has, so that a column does not fall into one set of the
/// first-level cache.
fn line_step(size: usize, lanes: usize) -> usize {
    (size / 2 + 1) * 2 * lanes
}

/// The numbers it takes for a tile of `size`×`size`.
pub(super) fn scratch_len(size: usize, lanes: usize) -> usize {
    size * line_step(size, lanes)
}

impl Scratch {
    /// At this address.
    ///
    /// # Safety
    /// [`scratch_len`] numbers are there for as long as it is used, and nobody else uses them.
    pub(super) unsafe fn new(start: *mut f32, size: usize) -> Self {
        Self { start, size }
    }

    #[inline(always)]
    fn place<S: Simd>(&self, line: usize, u: usize) -> *mut f32 {
        debug_assert!(line < self.size && u < self.size / 2);
        self.start.wrapping_add(line * line_step(self.size, S::LANES) + u * 2 * S::LANES)
    }

    /// An element that was set.
    #[inline(always)]
    pub(super) fn get<S: Simd>(&self, s: S, line: usize, u: usize) -> Complex<S::F32> {
        let p = self.place::<S>(line, u);
        // SAFETY: the transforms ask for lines and columns of the tile only, all of which are inside the memory.
        unsafe { Complex { re: s.load(p), im: s.load(p.add(S::LANES)) } }
    }

    /// Sets an element.
    #[inline(always)]
    pub(super) fn set<S: Simd>(&self, s: S, line: usize, u: usize, x: Complex<S::F32>) {
        let p = self.place::<S>(line, u);
        // SAFETY: as above.
        unsafe {
            s.store(p, x.re);
            s.store(p.add(S::LANES), x.im);
        }
    }
}
