//! The complex matrix products: for each frequency, tiles times input channels with input times output channels.
//!
//! The loop is that of `matmul/tile.rs` with complex numbers: for every input channel, one vector of weights (its real
//! and its imaginary parts) meets a number of every tile, four multiply-adds for each. 14×1 complex accumulators of
//! AVX-512 make 56 multiply-adds for 30 loads.
//!
//! A complex product can do with three multiplications, of sums of parts. Measured, that is 2 to 10 % faster where tiles
//! and weights stay in the caches and up to 60 % slower where they do not: a third plane of the tiles is moved, and no
//! more than 4×2 accumulators of three parts fit the registers, so panels are read more often.

use crate::isa::Isa;
use crate::simd::{Simd, SimdOp, prefetch};

/// How far ahead of its use a panel is fetched, in numbers.
const AHEAD: usize = 1024;

/// How many tiles are multiplied at a time: as many as leave registers for a vector of weights and a number.
pub(super) const fn max_rows(isa: Isa) -> usize {
    match isa {
        Isa::Portable => 3,
        Isa::Avx2 => 6,
        Isa::Avx512 | Isa::Amx => 14,
    }
}

/// Some tiles at one frequency, times a panel.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// The first tile: for every vector of input channels its real parts, then its imaginary parts.
    pub left: *const f32,
    /// Numbers from tile to tile.
    pub left_step: usize,
    /// Input channels.
    pub depth: usize,
    /// For every input channel a vector of real and a vector of imaginary parts.
    pub panel: *const f32,
    /// Where the first tile goes: a vector of real and a vector of imaginary parts.
    pub out: *mut f32,
    /// Numbers from tile to tile.
    pub out_step: usize,
}

impl Product {
    /// Computes `rows` tiles.
    ///
    /// # Safety
    /// The operands are readable and the output writable for the extents the fields state, the output by nobody else.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, s: S, rows: usize) {
        let passes = rows.div_ceil(max_rows(S::ISA));
        for pass in 0..passes {
            let (from, to) = (pass * rows / passes, (pass + 1) * rows / passes);
            let product = Self {
                left: self.left.wrapping_add(from * self.left_step),
                out: self.out.wrapping_add(from * self.out_step),
                ..*self
            };
            macro_rules! pick {
                ($($rows:literal)*) => {
                    match to - from {
                        $($rows => s.call(ProductOp::<$rows>(product)),)*
                        rows => debug_assert!(false, "{rows} tiles"),
                    }
                };
            }
            match S::ISA {
                Isa::Avx512 | Isa::Amx => pick!(1 2 3 4 5 6 7 8 9 10 11 12 13 14),
                Isa::Avx2 => pick!(1 2 3 4 5 6),
                Isa::Portable => pick!(1 2 3),
            }
        }
    }
}

/// A product of `ROWS` tiles, whose extents [`Product::run`] was promised.
struct ProductOp<const ROWS: usize>(Product);

impl<const ROWS: usize> SimdOp for ProductOp<ROWS> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Product { left, left_step, depth, mut panel, out, out_step } = self.0;
        let mut re = [s.zero(); ROWS];
        let mut im = [s.zero(); ROWS];
        let mut rows = [left; ROWS];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = left.wrapping_add(i * left_step);
        }
        let mut first = 0;
        while first < depth {
            for k in 0..S::LANES.min(depth - first) {
                // SAFETY: `Product::run` was promised the extents.
                unsafe {
                    let (a, b) = (s.load(panel), s.load(panel.add(S::LANES)));
                    let minus_b = s.neg(b);
                    prefetch(panel.wrapping_add(AHEAD));
                    if 2 * S::LANES > 16 {
                        prefetch(panel.wrapping_add(AHEAD + 16));
                    }
                    for i in 0..ROWS {
                        let x = s.splat(*rows[i].add(k));
                        let y = s.splat(*rows[i].add(k + S::LANES));
                        re[i] = s.mul_add(x, a, re[i]);
                        im[i] = s.mul_add(x, b, im[i]);
                        re[i] = s.mul_add(y, minus_b, re[i]);
                        im[i] = s.mul_add(y, a, im[i]);
                    }
                }
                panel = panel.wrapping_add(2 * S::LANES);
            }
            for row in &mut rows {
                *row = row.wrapping_add(2 * S::LANES);
            }
            first += S::LANES;
        }
        for i in 0..ROWS {
            // SAFETY: as above.
            unsafe {
                let out = out.add(i * out_step);
                s.store(out, re[i]);
                s.store(out.add(S::LANES), im[i]);
            }
        }
    }
}
