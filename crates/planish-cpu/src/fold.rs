//! Folding many numbers into one, written once for reductions, softmax and normalisation, because all of them need the same
//! three things: several accumulators in flight, errors that do not grow with the length, and results that do not depend on
//! how the work was shared out.
//!
//! Numbers are folded one after the other in blocks of [`BLOCK`] only; blocks are joined pairwise, like the digits of a binary
//! counter. The error of a sum of n numbers then grows with log n (N. J. Higham, "The accuracy of floating point summation",
//! SIAM J. Sci. Comput. 14, 1993).

use std::mem::MaybeUninit;

use crate::simd::{Simd, math};

/// Numbers folded one after the other.
const BLOCK: usize = 32;

/// Enough levels for 2^37 numbers.
const LEVELS: usize = 32;

/// The partner of each lane when all lanes are joined: first the one half a vector of 16 lanes away, last the neighbour.
const PARTNERS: [[u32; 16]; 4] = {
    let mut partners = [[0; 16]; 4];
    let mut i = 0;
    while i < 64 {
        partners[i / 16][i % 16] = ((i % 16) ^ (8 >> (i / 16))) as u32;
        i += 1;
    }
    partners
};

/// What is folded and how. `center` is a number per result: for example the mean, when squared deviations are summed.
pub(crate) trait Fold: Copy + Send + Sync {
    /// The result of folding nothing.
    const IDENTITY: f32;
    /// What a number contributes.
    fn term<S: Simd>(s: S, x: S::F32, center: S::F32) -> S::F32;
    /// Two results joined.
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32;
    /// As `join`, for single numbers.
    fn join_one(a: f32, b: f32) -> f32;
}

macro_rules! folds {
    (|$s:ident, $x:ident, $center:ident| |$a:ident, $b:ident|; $(
        $(#[$doc:meta])* $name:ident { $identity:expr, $term:expr, $join:expr, $join_one:expr }
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Fold for $name {
            const IDENTITY: f32 = $identity;

            #[inline(always)]
            fn term<S: Simd>($s: S, $x: S::F32, $center: S::F32) -> S::F32 {
                let _ = (&$s, &$center);
                $term
            }

            #[inline(always)]
            fn join<S: Simd>($s: S, $a: S::F32, $b: S::F32) -> S::F32 {
                $join
            }

            #[inline(always)]
            fn join_one($a: f32, $b: f32) -> f32 {
                $join_one
            }
        }
    )*};
}

folds! { |s, x, center| |a, b|;
    /// The sum.
    Sum { 0.0, x, s.add(a, b), a + b }
    /// The sum of absolute values.
    AbsoluteSum { 0.0, s.abs(x), s.add(a, b), a + b }
    /// The sum of squared distances from the center.
    SquareSum { 0.0, { let distance = s.sub(x, center); s.mul(distance, distance) }, s.add(a, b), a + b }
    /// The sum of `e^(x - center)`.
    ExpSum { 0.0, math::exp(s, s.sub(x, center)), s.add(a, b), a + b }
    /// The largest number, or NaN where there is one (`max` alone would lose one on the left).
    Largest { f32::NEG_INFINITY, x, s.select(s.eq(a, a), s.max(a, b), a), if a > b || a.is_nan() { a } else { b } }
    /// The smallest number, or NaN where there is one.
    Smallest { f32::INFINITY, x, s.select(s.eq(a, a), s.min(a, b), a), if a < b || a.is_nan() { a } else { b } }
}

/// Folds `rows` rows of `V` vectors, `stride` numbers from one row to the next, lane by lane. Lanes at and behind column
/// `columns` are not read; their results mean nothing.
///
/// # Safety
/// `min(columns, V * LANES)` numbers must be readable in each row. `rows >= 1`.
#[inline(always)]
pub(crate) unsafe fn fold_columns<S: Simd, F: Fold, const V: usize>(
    s: S,
    p: *const f32,
    rows: usize,
    stride: isize,
    columns: usize,
    center: [S::F32; V],
) -> [S::F32; V] {
    // Levels are read only where they were written.
    let mut levels = [const { MaybeUninit::<[S::F32; V]>::uninit() }; LEVELS];
    let blocks = rows.div_ceil(BLOCK);
    for block in 0..blocks {
        let start = block * BLOCK;
        let mut sum = [s.zero(); V];
        for row in start..(start + BLOCK).min(rows) {
            for v in 0..V {
                // SAFETY: the lanes below `columns` of the row are readable.
                let x = unsafe {
                    let p = p.offset(row as isize * stride).wrapping_add(v * S::LANES);
                    if V * S::LANES <= columns {
                        s.load(p)
                    } else {
                        s.load_partial(p, columns.saturating_sub(v * S::LANES))
                    }
                };
                let term = F::term(s, x, center[v]);
                sum[v] = if row == start { term } else { F::join(s, sum[v], term) };
            }
        }
        // Level l holds 2^l blocks where bit l of `block` is set.
        let mut level = 0;
        while block >> level & 1 == 1 {
            // SAFETY: the level was written when that bit became set.
            sum = join::<S, F, V>(s, unsafe { levels[level].assume_init() }, sum);
            level += 1;
        }
        levels[level].write(sum);
    }
    let mut level = blocks.trailing_zeros() as usize;
    // SAFETY: `rows >= 1`, so a bit of `blocks` is set, and the levels of set bits were written.
    let mut sum = unsafe { levels[level].assume_init() };
    while blocks >> (level + 1) != 0 {
        level += 1;
        if blocks >> level & 1 == 1 {
            // SAFETY: as above.
            sum = join::<S, F, V>(s, unsafe { levels[level].assume_init() }, sum);
        }
    }
    sum
}

#[inline(always)]
fn join<S: Simd, F: Fold, const V: usize>(s: S, a: [S::F32; V], mut b: [S::F32; V]) -> [S::F32; V] {
    for v in 0..V {
        b[v] = F::join(s, a[v], b[v]);
    }
    b
}

/// Folds `len` consecutive numbers.
///
/// # Safety
/// `len` numbers must be readable at `p`.
#[inline(always)]
pub(crate) unsafe fn fold_row<S: Simd, F: Fold>(s: S, p: *const f32, len: usize, center: f32) -> f32 {
    const VECTORS: usize = 4;
    const MOST_LANES: usize = 16;
    let center = s.splat(center);
    let width = VECTORS * S::LANES;
    let mut sum = s.splat(F::IDENTITY);
    // SAFETY: all reads stay below `len`; no vector has more lanes than `lanes`.
    unsafe {
        if len >= width {
            let stride = width as isize;
            let [a, b, c, d] =
                fold_columns::<S, F, VECTORS>(s, p, len / width, stride, width, [center; VECTORS]);
            sum = F::join(s, F::join(s, a, b), F::join(s, c, d));
        }
        let mut i = len / width * width;
        while i < len {
            let n = len - i;
            let mut term = F::term(s, s.load_partial(p.add(i), n), center);
            if n < S::LANES {
                let mut lanes = [F::IDENTITY; MOST_LANES];
                s.store_partial(lanes.as_mut_ptr(), n, term);
                term = s.load(lanes.as_ptr());
            }
            sum = F::join(s, sum, term);
            i += S::LANES;
        }
        for partners in PARTNERS.iter().skip(usize::from(S::LANES == 8)) {
            sum = F::join(s, sum, s.swizzle(sum, s.load_index(partners.as_ptr())));
        }
        let mut result = F::IDENTITY;
        s.store_partial(&raw mut result, 1, sum);
        result
    }
}
