//! What is too long to be copied into every tile kernel: curved activations, numbers for each channel, residuals of
//! levels, and vectors that do not exist as a whole. Works on sums spilled to memory, which are in the first cache; the
//! activations on `f32` alone, whatever the output is kept as.

use super::{Activation, Destination, Map, Visit};
use crate::element::Element;
use crate::simd::{Simd, SimdOp};

/// The rest of the work of [`Destination::store`] for a tile.
pub(super) struct Finish<'a, T, V> {
    pub destination: &'a Destination<T>,
    /// `[rows][vectors]`, vectors of the instruction set that this runs on.
    pub sums: *mut V,
    pub rows: usize,
    pub vectors: usize,
}

impl<T: Element, V> SimdOp for Finish<'_, T, V> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        if let Some((low, high)) = self.destination.limits() {
            // SAFETY: as below.
            return unsafe { self.limit(s, s.splat(low), s.splat(high)) };
        }
        let Self { destination, sums, rows, vectors } = self;
        let d = *destination;
        let at = |i: usize, j: usize| sums.wrapping_add(i * vectors + j).cast::<f32>();
        // SAFETY: `Destination::store` spilled the sums, and its caller promises the rows and their columns, of which
        // there are `valid`, and as many numbers in what is for each channel.
        unsafe {
            for j in 0..vectors {
                let column = j * S::LANES;
                let left = d.valid.saturating_sub(column);
                for i in 0..rows {
                    let row = *d.outputs.add(i);
                    let mut sum = d.with_residual::<S, false>(s, s.load(at(i, j)), row, column);
                    if !d.slopes.is_null() {
                        let slope = s.load_partial(d.slopes.add(column), left);
                        sum = s.select(s.lt(sum, s.zero()), s.mul(sum, slope), sum);
                    }
                    s.store(at(i, j), sum);
                }
            }
            if d.activation != Activation::None {
                d.activation.visit(s, Replace { numbers: sums.cast(), vectors: rows * vectors });
            }
            for j in 0..vectors {
                let column = j * S::LANES;
                let left = d.valid.saturating_sub(column);
                let channel = |p: *const f32, otherwise: f32| {
                    if p.is_null() { s.splat(otherwise) } else { s.load_partial(p.add(column), left) }
                };
                let (scale, shift) = (channel(d.scale, 1.0), channel(d.shift, 0.0));
                let affine = !d.scale.is_null() || !d.shift.is_null();
                for i in 0..rows {
                    let mut value = s.load(at(i, j));
                    if affine && T::INTEGER {
                        value = s.add(s.mul(value, scale), shift);
                    } else if affine {
                        value = s.mul_add(value, scale, shift);
                    }
                    if T::INTEGER {
                        // A NaN becomes the lowest level.
                        let (low, high) = d.within(f32::NEG_INFINITY, f32::INFINITY);
                        value = s.min(s.splat(high), s.max(value, s.splat(low)));
                    }
                    d.keep::<S, false>(s, value, *d.outputs.add(i), column);
                }
            }
        }
    }
}

impl<T: Element, V> Finish<'_, T, V> {
    /// All of it where the activation only limits and nothing is for each channel.
    ///
    /// # Safety
    /// As [`Destination::store`], which spilled the sums.
    #[inline(always)]
    unsafe fn limit<S: Simd>(&self, s: S, low: S::F32, high: S::F32) {
        // As in `store`: what is written can't be part of a copy.
        let (d, vectors) = (*self.destination, self.vectors);
        for i in 0..self.rows {
            // SAFETY: promised by the caller.
            unsafe {
                let row = *d.outputs.add(i);
                let sums = self.sums.wrapping_add(i * vectors).cast::<f32>();
                let mut column = 0;
                while T::INTEGER && column + 2 * S::LANES <= d.valid {
                    let second = column + S::LANES;
                    let a = d.with_residual::<S, true>(s, s.load(sums.add(column)), row, column);
                    let b = d.with_residual::<S, true>(s, s.load(sums.add(second)), row, second);
                    let limited = [s.min(high, s.max(low, a)), s.min(high, s.max(low, b))];
                    d.keep_two(s, limited, row, column);
                    column += 2 * S::LANES;
                }
                while column < d.valid {
                    let sum = s.load(sums.add(column));
                    if column + S::LANES <= d.valid {
                        let sum = d.with_residual::<S, true>(s, sum, row, column);
                        d.keep::<S, true>(s, s.min(high, s.max(low, sum)), row, column);
                    } else {
                        let sum = d.with_residual::<S, false>(s, sum, row, column);
                        d.keep::<S, false>(s, s.min(high, s.max(low, sum)), row, column);
                    }
                    column += S::LANES;
                }
            }
        }
    }
}

/// The activation of numbers that follow each other.
struct Replace {
    numbers: *mut f32,
    /// How many vectors of them.
    vectors: usize,
}

impl Visit for Replace {
    #[inline(always)]
    fn visit<S: Simd>(self, s: S, map: impl Map) {
        s.call(ReplaceBy { numbers: self.numbers, vectors: self.vectors, map });
    }
}

/// [`Replace`] with its function: compiled once for each, not once more for each element and size of tile.
struct ReplaceBy<M> {
    numbers: *mut f32,
    vectors: usize,
    map: M,
}

impl<M: Map> SimdOp for ReplaceBy<M> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for i in 0..self.vectors {
            // SAFETY: `Finish` has as many vectors there.
            unsafe {
                let p = self.numbers.add(i * S::LANES);
                s.store(p, self.map.map(s, s.load(p)));
            }
        }
    }
}
