//! From the spectrum of a tile to output pixels: `forward` read from its end.
//!
//! Only the lines and pixels that are wanted are computed where that is simple: all columns are transformed, but only
//! the pairs of lines with an output.

use std::mem::MaybeUninit;

use super::scratch::Scratch;
use super::spectrum;
use super::transform::{Complex, MAX_SIZE, Roots, transform};
use crate::epilogue::Destination;
use crate::simd::{Simd, SimdOp, prefetch};

/// Pixels that are stored together.
const RUN: usize = 4;

/// The inverse transform of a vector of channels of a tile of `A * B` lines and pixels, and what follows it. The
/// spectrum holds the factor `1 / (A * B)²`.
pub(super) struct Inverse<'a, const A: usize, const B: usize> {
    /// The first frequency: a vector of real parts, then one of imaginary parts.
    pub spectrum: *const f32,
    /// Numbers from frequency to frequency.
    pub step: usize,
    pub roots: &'a Roots,
    /// [`super::scratch::scratch_len`] numbers.
    pub scratch: *mut f32,
    /// The lines that are wanted, and the pixels of each; from the first on.
    pub wanted: [usize; 2],
    /// The output row of the first pixel, and output rows from line to line.
    pub row: usize,
    pub row_step: usize,
    /// A vector.
    pub bias: *const f32,
    pub destination: Destination,
    /// Where the destination keeps the first pixel, and numbers from pixel to pixel: asked for ahead.
    pub output: *const f32,
    pub output_step: usize,
}

impl<const A: usize, const B: usize> SimdOp for Inverse<'_, A, B> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let size = A * B;
        let pairs = self.wanted[0].div_ceil(2);
        for line in 0..self.wanted[0] {
            for x in 0..self.wanted[1] {
                prefetch(self.output.wrapping_add((line * self.row_step + x) * self.output_step));
            }
        }
        self.edge_columns(s, 2 * pairs);
        for u in 1..size / 2 {
            let first = spectrum::column(size, u);
            transform::<S, A, B>(
                s,
                self.roots,
                |v| self.load(s, first + v).swapped(),
                |line, x| {
                    if line < 2 * pairs {
                        self.scratch().set(s, line, u, x.swapped());
                    }
                },
            );
        }
        for pair in 0..pairs {
            self.lines(s, pair);
        }
    }
}

impl<const A: usize, const B: usize> Inverse<'_, A, B> {
    #[inline(always)]
    fn scratch(&self) -> Scratch {
        // SAFETY: whoever made `self` promises the memory. The size is a constant here, which addresses profit from.
        unsafe { Scratch::new(self.scratch, A * B) }
    }

    #[inline(always)]
    fn load<S: Simd>(&self, s: S, frequency: usize) -> Complex<S::F32> {
        let p = self.spectrum.wrapping_add(frequency * self.step);
        // Frequencies lie far apart, so the lines of the next column are asked for.
        let next = p.wrapping_add(A * B * self.step);
        prefetch(next);
        prefetch(next.wrapping_add(S::LANES));
        // SAFETY: whoever made `self` promises two vectors for every frequency.
        unsafe { Complex { re: s.load(p), im: s.load(p.add(S::LANES)) } }
    }

    /// The columns 0 and n/2, as real and imaginary parts of one.
    #[inline(always)]
    fn edge_columns<S: Simd>(&self, s: S, lines: usize) {
        let size = A * B;
        let other = spectrum::middle_column(size);
        let mut column = [MaybeUninit::uninit(); MAX_SIZE];
        for v in [0, size / 2] {
            // Both are real there, or nearly so.
            let (a, b) = (self.load(s, v), self.load(s, other + v));
            column[v].write(Complex { re: a.re, im: b.re });
        }
        for v in 1..size / 2 {
            let (z, mirror) = join(s, self.load(s, v), self.load(s, other + v));
            column[v].write(z);
            column[size - v].write(mirror);
        }
        transform::<S, A, B>(
            s,
            self.roots,
            // SAFETY: all elements below `size` were written.
            |v| unsafe { column[v].assume_init() }.swapped(),
            |line, x| {
                if line < lines {
                    self.scratch().set(s, line, 0, x.swapped());
                }
            },
        );
    }

    /// Two lines, as real and imaginary parts of one.
    #[inline(always)]
    fn lines<S: Simd>(&self, s: S, pair: usize) {
        let size = A * B;
        let mut line = [MaybeUninit::uninit(); MAX_SIZE];
        let (a, b) = (self.scratch().get(s, 2 * pair, 0), self.scratch().get(s, 2 * pair + 1, 0));
        line[0].write(Complex { re: a.re, im: b.re });
        line[size / 2].write(Complex { re: a.im, im: b.im });
        for u in 1..size / 2 {
            let (z, mirror) =
                join(s, self.scratch().get(s, 2 * pair, u), self.scratch().get(s, 2 * pair + 1, u));
            line[u].write(z);
            line[size - u].write(mirror);
        }
        let mut pixels = [[MaybeUninit::uninit(); MAX_SIZE]; 2];
        transform::<S, A, B>(
            s,
            self.roots,
            // SAFETY: all elements below `size` were written.
            |u| unsafe { line[u].assume_init() }.swapped(),
            |x, z| {
                pixels[0][x].write(z.im);
                pixels[1][x].write(z.re);
            },
        );
        for (i, pixels) in pixels.iter().enumerate() {
            let line = 2 * pair + i;
            if line < self.wanted[0] {
                // SAFETY: the transform wrote the first `size` pixels, of which no more are wanted.
                unsafe { self.emit(s, self.row + line * self.row_step, pixels) };
            }
        }
    }

    /// Adds the bias to a line and sends it to its destination.
    ///
    /// # Safety
    /// The pixels that are wanted were written.
    #[inline(always)]
    unsafe fn emit<S: Simd>(&self, s: S, row: usize, pixels: &[MaybeUninit<S::F32>; MAX_SIZE]) {
        // SAFETY: the bias is padded to whole vectors.
        let bias = unsafe { s.load(self.bias) };
        // SAFETY: promised by the caller.
        let sum = |x: usize| [s.add(unsafe { pixels[x].assume_init() }, bias)];
        let mut destination = self.destination;
        let mut x = 0;
        while x + RUN <= self.wanted[1] {
            let (rows, sums) = (
                [row + x, row + x + 1, row + x + 2, row + x + 3],
                [sum(x), sum(x + 1), sum(x + 2), sum(x + 3)],
            );
            destination.outputs = rows.as_ptr();
            // SAFETY: whoever made `self` promises the output rows of the pixels that are wanted.
            unsafe { destination.store::<S, RUN, 1>(s, &sums) };
            x += RUN;
        }
        while x < self.wanted[1] {
            let (rows, sums) = ([row + x], [sum(x)]);
            destination.outputs = rows.as_ptr();
            // SAFETY: as above.
            unsafe { destination.store::<S, 1, 1>(s, &sums) };
            x += 1;
        }
    }
}

/// The transform of `a + i b` at a frequency and at its mirror image, given those of the real `a` and `b` at that
/// frequency.
#[inline(always)]
fn join<S: Simd>(s: S, a: Complex<S::F32>, b: Complex<S::F32>) -> (Complex<S::F32>, Complex<S::F32>) {
    (
        Complex { re: s.sub(a.re, b.im), im: s.add(a.im, b.re) },
        Complex { re: s.add(a.re, b.im), im: s.sub(b.re, a.im) },
    )
}
