//! What is too long to be copied into every tile kernel: curved activations and numbers for each channel. Works on sums
//! spilled to memory, which are in the first cache.

use super::{Destination, Map, Visit};
use crate::element::Element;
use crate::simd::{Simd, SimdOp};

/// The rest of the work of [`Destination::store`] for a tile.
pub(super) struct Finish<'a, T, V> {
    pub destination: &'a Destination<T>,
    /// `[rows][vectors]`
    pub sums: *mut V,
    pub rows: usize,
    pub vectors: usize,
}

impl<T: Element, V> Finish<'_, T, V> {
    /// Replaces every sum by what `f` makes of it; `f` gets its row, and where its vector starts.
    ///
    /// # Safety
    /// `V` is the vector of `S`, and `rows * vectors` of them are at `sums`.
    #[inline(always)]
    unsafe fn replace<S: Simd>(&self, s: S, mut f: impl FnMut(usize, usize, S::F32) -> S::F32) {
        for i in 0..self.rows {
            for j in 0..self.vectors {
                // SAFETY: promised by the caller.
                unsafe {
                    let at = self.sums.add(i * self.vectors + j).cast();
                    s.store(at, f(i, j * S::LANES, s.load(at)));
                }
            }
        }
    }
}

impl<T: Element, V> SimdOp for Finish<'_, T, V> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let d = self.destination;
        // SAFETY: `Destination::store` spilled the sums, and its caller promises the rows and their columns, of which
        // there are `valid`.
        unsafe {
            if !d.residual.is_null() {
                self.replace(s, |row, column, sum| {
                    let p = d.residual.add(*d.outputs.add(row) * d.residual_stride + column);
                    s.add(sum, T::load_partial(s, p, d.valid.saturating_sub(column)))
                });
            }
            if !d.slopes.is_null() {
                self.replace(s, |_, column, sum| {
                    let slope = s.load_partial(d.slopes.add(column), d.valid.saturating_sub(column));
                    s.select(s.lt(sum, s.zero()), s.mul(sum, slope), sum)
                });
            }
        }
        d.activation.visit(s, self);
    }
}

impl<T: Element, V> Visit for Finish<'_, T, V> {
    #[inline(always)]
    fn visit<S: Simd>(self, s: S, map: impl Map) {
        if self.destination.valid == self.vectors * S::LANES {
            s.call(Last::<_, _, _, true> { finish: self, map });
        } else {
            s.call(Last::<_, _, _, false> { finish: self, map });
        }
    }
}

/// The activation, the affine map behind it, and the way to the output.
struct Last<'a, T, V, M, const FULL: bool> {
    finish: Finish<'a, T, V>,
    map: M,
}

impl<T: Element, V, M: Map, const FULL: bool> SimdOp for Last<'_, T, V, M, FULL> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Finish { destination: d, sums, rows, vectors } = self.finish;
        for j in 0..vectors {
            let offset = j * S::LANES;
            let left = d.valid.saturating_sub(offset);
            // SAFETY: as in `Finish`; scale and shift have a number for each of the `valid` columns.
            unsafe {
                let channel = |p: *const f32, otherwise: f32| {
                    if p.is_null() { s.splat(otherwise) } else { s.load_partial(p.add(offset), left) }
                };
                let (scale, shift) = (channel(d.scale, 1.0), channel(d.shift, 0.0));
                let affine = !d.scale.is_null() || !d.shift.is_null();
                for i in 0..rows {
                    let mut value = self.map.map(s, s.load(sums.add(i * vectors + j).cast()));
                    if affine {
                        value = s.mul_add(value, scale, shift);
                    }
                    let p = d.out.add(*d.outputs.add(i) * d.out_stride + offset);
                    if FULL { T::store(s, p, value) } else { T::store_partial(s, p, left, value) }
                }
            }
        }
    }
}
