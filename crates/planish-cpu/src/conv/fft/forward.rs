//! From pixels to the spectrum of a tile.
//!
//! Two real lines are transformed as one complex line and separated after; the columns 0 and n/2, real by then, are
//! again two real sequences in one complex one. So a tile costs n complex transforms of length n, no more than its n²
//! real numbers ask for.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::scratch::Scratch;
use super::spectrum;
use super::transform::{Complex, MAX_SIZE, Roots, transform};
use crate::simd::{Simd, SimdOp, prefetch};

/// Where a vector of channels of a tile is read.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    /// The tile's first pixel, which may lie in the padding.
    pub start: *const f32,
    /// Numbers from line to line.
    pub line_step: usize,
    /// Numbers from pixel to pixel.
    pub pixel_step: usize,
    /// The lines of the tile that are inside the image and needed; the others are zero.
    pub lines: Range<usize>,
    /// The pixels of a line that are inside the image and needed; the others are zero.
    pub pixels: Range<usize>,
    /// The channels that exist.
    pub lanes: usize,
}

/// The transform of a vector of channels of a tile of `A * B` lines and pixels.
pub(super) struct Forward<'a, const A: usize, const B: usize> {
    pub patch: &'a Patch,
    /// As `patch.start` for what is transformed next: asked for meanwhile, because a vector of each pixel is too far from
    /// the next for the machine to guess.
    pub next: *const f32,
    pub roots: &'a Roots,
    /// [`super::scratch::scratch_len`] numbers.
    pub scratch: *mut f32,
    /// Where the first frequency goes: a vector of real parts, then one of imaginary parts.
    pub out: *mut f32,
    /// Numbers from frequency to frequency.
    pub out_step: usize,
}

impl<const A: usize, const B: usize> SimdOp for Forward<'_, A, B> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let size = A * B;
        let whole = self.patch.lanes >= S::LANES && self.patch.pixels == (0..size);
        for pair in 0..size / 2 {
            let inside = [2 * pair, 2 * pair + 1].map(|line| self.patch.lines.contains(&line));
            match inside {
                [true, true] if whole => self.lines::<S, true>(s, pair, inside),
                [false, false] => self.empty_lines(s, pair),
                _ => self.lines::<S, false>(s, pair, inside),
            }
        }
        self.edge_columns(s);
        for u in 1..size / 2 {
            let first = spectrum::column(size, u);
            transform::<S, A, B>(
                s,
                self.roots,
                |line| self.scratch().get(s, line, u),
                |v, x| self.store(s, first + v, x),
            );
        }
    }
}

impl<const A: usize, const B: usize> Forward<'_, A, B> {
    #[inline(always)]
    fn scratch(&self) -> Scratch {
        // SAFETY: whoever made `self` promises the memory. The size is a constant here, which addresses profit from.
        unsafe { Scratch::new(self.scratch, A * B) }
    }

    #[inline(always)]
    fn store<S: Simd>(&self, s: S, frequency: usize, x: Complex<S::F32>) {
        let p = self.out.wrapping_add(frequency * self.out_step);
        // Frequencies lie far apart, so the lines of the next column are asked for.
        let next = p.wrapping_add(A * B * self.out_step);
        prefetch(next);
        prefetch(next.wrapping_add(S::LANES));
        // SAFETY: whoever made `self` promises two vectors for every frequency.
        unsafe {
            s.store(p, x.re);
            s.store(p.add(S::LANES), x.im);
        }
    }

    #[inline(always)]
    fn empty_lines<S: Simd>(&self, s: S, pair: usize) {
        for line in [2 * pair, 2 * pair + 1] {
            for u in 0..A * B / 2 {
                self.scratch().set(s, line, u, Complex { re: s.zero(), im: s.zero() });
            }
        }
    }

    /// Transforms two lines as real and imaginary parts of one. `FULL` where all of their pixels and lanes exist.
    #[inline(always)]
    fn lines<S: Simd, const FULL: bool>(&self, s: S, pair: usize, inside: [bool; 2]) {
        let size = A * B;
        let patch = self.patch;
        let starts = [2 * pair, 2 * pair + 1].map(|line| patch.start.wrapping_add(line * patch.line_step));
        let nexts = [2 * pair, 2 * pair + 1].map(|line| self.next.wrapping_add(line * patch.line_step));
        let lanes = inside.map(|inside| if inside { patch.lanes } else { 0 });
        let pixel = |which: usize, x: usize| {
            let p = starts[which].wrapping_add(x * patch.pixel_step);
            prefetch(nexts[which].wrapping_add(x * patch.pixel_step));
            // SAFETY: the lanes of pixels inside the image exist; of others none is read.
            unsafe {
                if FULL {
                    s.load(p)
                } else {
                    s.load_partial(p, if patch.pixels.contains(&x) { lanes[which] } else { 0 })
                }
            }
        };
        let mut line = [MaybeUninit::uninit(); MAX_SIZE];
        transform::<S, A, B>(
            s,
            self.roots,
            |x| Complex { re: pixel(0, x), im: pixel(1, x) },
            |u, z| {
                line[u].write(z);
            },
        );
        // SAFETY: the transform wrote the first `size` elements.
        let at = |u: usize| unsafe { line[u].assume_init() };
        let (first, middle): (Complex<S::F32>, _) = (at(0), at(size / 2));
        self.scratch().set(s, 2 * pair, 0, Complex { re: first.re, im: middle.re });
        self.scratch().set(s, 2 * pair + 1, 0, Complex { re: first.im, im: middle.im });
        for u in 1..size / 2 {
            let (a, b) = separate(s, at(u), at(size - u));
            self.scratch().set(s, 2 * pair, u, a);
            self.scratch().set(s, 2 * pair + 1, u, b);
        }
    }

    /// Transforms the columns 0 and n/2.
    #[inline(always)]
    fn edge_columns<S: Simd>(&self, s: S) {
        let size = A * B;
        let mut column = [MaybeUninit::uninit(); MAX_SIZE];
        transform::<S, A, B>(
            s,
            self.roots,
            |line| self.scratch().get(s, line, 0),
            |v, z| {
                column[v].write(z);
            },
        );
        // SAFETY: the transform wrote the first `size` elements.
        let at = |v: usize| unsafe { column[v].assume_init() };
        let other = spectrum::middle_column(size);
        for v in [0, size / 2] {
            let z: Complex<S::F32> = at(v);
            self.store(s, v, Complex { re: z.re, im: s.zero() });
            self.store(s, other + v, Complex { re: z.im, im: s.zero() });
        }
        for v in 1..size / 2 {
            let (a, b) = separate(s, at(v), at(size - v));
            self.store(s, v, a);
            self.store(s, other + v, b);
        }
    }
}

/// Twice the transforms of real and imaginary part at a frequency, given the transform of both together at that
/// frequency and at its mirror image.
#[inline(always)]
fn separate<S: Simd>(
    s: S,
    z: Complex<S::F32>,
    mirror: Complex<S::F32>,
) -> (Complex<S::F32>, Complex<S::F32>) {
    (
        Complex { re: s.add(z.re, mirror.re), im: s.sub(z.im, mirror.im) },
        Complex { re: s.add(z.im, mirror.im), im: s.sub(mirror.re, z.re) },
    )
}
