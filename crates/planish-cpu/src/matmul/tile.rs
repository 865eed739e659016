//! The inner loop of every dense kernel: a tile of the result in registers.
//!
//! A tile is up to [`max_rows`] rows times one panel. For every step of K it loads one row of the panel (one or
//! two vectors) and for every row of the tile broadcasts one word of the left operand into multiply-adds:
//! with 14×2 accumulators of AVX-512 that is 28 multiply-adds for 16 loads, so the arithmetic units are the
//! limit on every machine. A word is one `f32`, two `bf16` or four `u8`: the loop is the same, see
//! [`Factor`].

use crate::element::{Element, Factor};
use crate::epilogue::Destination;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp, each_row, prefetch};

/// How many rows a tile has at most: as many as leave registers for a panel row and a broadcast.
pub(crate) fn max_rows(isa: Isa) -> usize {
    match isa {
        Isa::Portable | Isa::Avx2 => 6,
        Isa::Avx512 | Isa::Amx => 14,
    }
}

/// How far ahead of its use a panel is fetched, in words: 4 KiB are about 900 cycles, longer than memory
/// takes. Panels follow each other, so the end of one fetches the start of the next.
const AHEAD: usize = 1024;

/// Everything about a tile but its height and width.
#[derive(Clone, Copy)]
pub(super) struct Tile<T, O> {
    /// The product.
    pub stage: Stage<T>,
    /// One sum for each column that exists, null where there is none.
    pub bias: *const f32,
    /// How sums become numbers, where they are integers.
    pub scaling: Scaling,
    /// Where the result goes, and the columns of the panel that exist.
    pub destination: Destination<O>,
}

/// How integer sums become numbers: `(sum + row sum · offset) · scale + shift`.
#[derive(Clone, Copy)]
pub(super) struct Scaling {
    /// What one unit of the sum is, for each column that exists.
    pub scales: *const f32,
    /// Added to what was scaled, for each column that exists; null where there is nothing to add.
    pub shift: *const f32,
    /// For each column that exists, an integer that all of its weights were lessened by to fit a byte; null where none
    /// were.
    pub offsets: *const i32,
    /// The sum of each row of the left operand, where there are offsets.
    pub row_sums: *const i32,
}

impl Scaling {
    /// That of products of floating-point numbers, whose sums are numbers.
    pub(super) const NONE: Scaling = Scaling {
        scales: std::ptr::null(),
        shift: std::ptr::null(),
        offsets: std::ptr::null(),
        row_sums: std::ptr::null(),
    };

    /// Makes numbers of sums of `T`.
    ///
    /// # Safety
    /// For integers, `valid` columns are readable from each address that is not null, and `ROWS` row sums.
    // Columns are the outer loop, so that each scale is loaded once.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    pub(super) unsafe fn apply<T: Factor, S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        s: S,
        valid: usize,
        sums: &mut [[S::F32; VECTORS]; ROWS],
    ) {
        if !T::INTEGER {
            return;
        }
        // SAFETY: promised by the caller; integers are moved as the bits they are.
        unsafe {
            if !self.offsets.is_null() {
                for j in 0..VECTORS {
                    let left = valid.saturating_sub(j * S::LANES);
                    let offset = s.load_partial(self.offsets.add(j * S::LANES).cast(), left);
                    each_row!(i of ROWS {
                        let row_sum = s.splat_bits(*self.row_sums.add(i) as u32);
                        sums[i][j] = s.add_i32(sums[i][j], s.mul_i32(row_sum, offset));
                    });
                }
            }
            for j in 0..VECTORS {
                let left = valid.saturating_sub(j * S::LANES);
                let scale = s.load_partial(self.scales.add(j * S::LANES), left);
                each_row!(i of ROWS {
                    sums[i][j] = s.mul(s.i32_to_f32(sums[i][j]), scale);
                });
                if !self.shift.is_null() {
                    let shift = s.load_partial(self.shift.add(j * S::LANES), left);
                    each_row!(i of ROWS {
                        sums[i][j] = s.add(sums[i][j], shift);
                    });
                }
            }
        }
    }
}

/// A product that is added to the sums of a tile.
#[derive(Clone, Copy)]
pub(super) struct Stage<T = f32> {
    /// `[taps][rows]` addresses, `table_stride` from tap to tap.
    pub table: *const *const T,
    pub table_stride: usize,
    pub taps: usize,
    /// The element of each piece where the product starts.
    pub tap_start: usize,
    /// How many words it goes on.
    pub tap_len: usize,
    /// `[taps * tap_len][width]` words.
    pub panel: *const f32,
}

/// Computes a tile of `ROWS` rows and `VECTORS` vectors of columns.
struct TileOp<'a, T, O, const ROWS: usize, const VECTORS: usize>(&'a Tile<T, O>);

impl<T: Factor, O: Element, const ROWS: usize, const VECTORS: usize> SimdOp
    for TileOp<'_, T, O, ROWS, VECTORS>
{
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Tile { stage, bias, scaling, destination } = self.0;
        // SAFETY: the creator of the tile promises (see `compute`) that its addresses are valid for its extents.
        unsafe {
            let mut sums = [load_bias::<S, VECTORS>(s, *bias, destination.valid); ROWS];
            accumulate::<S, T, ROWS, VECTORS>(s, stage, &mut sums);
            scaling.apply::<T, S, ROWS, VECTORS>(s, destination.valid, &mut sums);
            destination.store(s, &sums);
        }
    }
}

/// The sums of `valid` columns before the first product; zero where `bias` is null.
///
/// # Safety
/// `valid` columns are readable from the address if it is not null.
#[inline(always)]
pub(super) unsafe fn load_bias<S: Simd, const VECTORS: usize>(
    s: S,
    bias: *const f32,
    valid: usize,
) -> [S::F32; VECTORS] {
    let mut sums = [s.zero(); VECTORS];
    if !bias.is_null() {
        for (j, sum) in sums.iter_mut().enumerate() {
            // SAFETY: promised by the caller.
            *sum = unsafe { s.load_partial(bias.add(j * S::LANES), valid.saturating_sub(j * S::LANES)) };
        }
    }
    sums
}

/// The loop over K.
///
/// # Safety
/// The table holds `ROWS` addresses per tap, each readable for `tap_len` words from `tap_start` on, and the
/// panel `taps * tap_len * VECTORS` vectors.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, T: Factor, const ROWS: usize, const VECTORS: usize>(
    s: S,
    stage: &Stage<T>,
    sums: &mut [[S::F32; VECTORS]; ROWS],
) {
    let mut panel = stage.panel;
    for tap in 0..stage.taps {
        // SAFETY: the caller promises the extents of the table and the panel and that the addresses in the
        // table are readable.
        unsafe {
            let mut rows = [std::ptr::null::<T>(); ROWS];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = (*stage.table.add(tap * stage.table_stride + i)).add(stage.tap_start);
            }
            for k in 0..stage.tap_len {
                let mut right = [s.zero(); VECTORS];
                for (j, vector) in right.iter_mut().enumerate() {
                    *vector = s.load(panel.add(j * S::LANES));
                }
                // With few rows the loop itself waits for memory, and runs ahead as far as the machine can.
                if ROWS >= 4 {
                    for line in 0..(VECTORS * S::LANES).div_ceil(16) {
                        prefetch(panel.wrapping_add(AHEAD + line * 16));
                    }
                }
                for i in 0..ROWS {
                    let left = T::splat_word(s, rows[i].add(k * T::PER_WORD));
                    for j in 0..VECTORS {
                        sums[i][j] = T::multiply_add(s, left, right[j], sums[i][j]);
                    }
                }
                panel = panel.add(VECTORS * S::LANES);
            }
        }
    }
}

/// `body` with the height and width of a tile as constants: `rows` rows (1 to [`max_rows`]) and `width` columns (a
/// panel's padded width).
macro_rules! for_tile_size {
    ($simd:ident, $rows:expr, $width:expr, $height:ident, $vectors:ident => $body:expr) => {
        match ($simd::ISA, $width / $simd::LANES) {
            (Isa::Avx512 | Isa::Amx, 2) => {
                for_tile_size!(@rows $rows, $height, $vectors, $body, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
            }
            (Isa::Avx512 | Isa::Amx, _) => {
                for_tile_size!(@rows $rows, $height, $vectors, $body, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
            }
            (Isa::Avx2, 2) => for_tile_size!(@rows $rows, $height, $vectors, $body, 2: 1 2 3 4 5 6),
            (Isa::Avx2 | Isa::Portable, _) => {
                for_tile_size!(@rows $rows, $height, $vectors, $body, 1: 1 2 3 4 5 6)
            }
        }
    };
    (@rows $rows:expr, $height:ident, $vectors:ident, $body:expr, $width:literal: $($row:literal)*) => {{
        const $vectors: usize = $width;
        match $rows {
            $($row => { const $height: usize = $row; $body })*
            rows => debug_assert!(false, "a tile of {rows} rows"),
        }
    }};
}
pub(super) use for_tile_size;

/// Computes a tile of `rows` rows (1 to [`max_rows`]) and `width` columns (a panel's padded width).
///
/// # Safety
/// The addresses of the tile are valid for the extents its fields state, for `rows` rows; the elements it
/// writes are nobody else's.
#[inline(always)]
pub(super) unsafe fn compute<S: Simd, T: Factor, O: Element>(
    s: S,
    tile: &Tile<T, O>,
    rows: usize,
    width: usize,
) {
    for_tile_size!(S, rows, width, ROWS, VECTORS => s.call(TileOp::<T, O, ROWS, VECTORS>(tile)));
}
