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
use crate::simd::{Simd, SimdOp, prefetch};

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
pub(super) struct Tile<'a, T, O> {
    /// The products that are added up, one after the other.
    pub stages: &'a [Stage<T>],
    /// One sum for each column that exists, null where there is none.
    pub bias: *const f32,
    /// The stage before which the bias is added.
    pub bias_stage: usize,
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
        for j in 0..VECTORS {
            let first = j * S::LANES;
            let left = valid.saturating_sub(first);
            // SAFETY: promised by the caller; integers are moved as the bits they are.
            unsafe {
                if !self.offsets.is_null() {
                    let offset = s.load_partial(self.offsets.add(first).cast(), left);
                    for (i, row) in sums.iter_mut().enumerate() {
                        let row_sum = s.splat_bits(*self.row_sums.add(i) as u32);
                        row[j] = s.add_i32(row[j], s.mul_i32(row_sum, offset));
                    }
                }
                let scale = s.load_partial(self.scales.add(first), left);
                for row in sums.iter_mut() {
                    row[j] = s.mul(s.i32_to_f32(row[j]), scale);
                }
                if !self.shift.is_null() {
                    let shift = s.load_partial(self.shift.add(first), left);
                    for row in sums.iter_mut() {
                        row[j] = s.add(row[j], shift);
                    }
                }
            }
        }
    }
}

/// A product that is added to the sums of a tile.
#[derive(Clone, Copy)]
pub(super) struct Stage<T = f32> {
    /// Sums that are added first, `[rows][width]`; null where there are none.
    pub initial: *const f32,
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
    /// Where the sums are kept for other tiles once this is added, `[rows][width]`; null where nobody wants them.
    pub kept: *mut f32,
}

/// Computes a tile of `ROWS` rows and `VECTORS` vectors of columns.
struct TileOp<'a, T, O, const ROWS: usize, const VECTORS: usize>(&'a Tile<'a, T, O>);

impl<T: Factor, O: Element, const ROWS: usize, const VECTORS: usize> SimdOp
    for TileOp<'_, T, O, ROWS, VECTORS>
{
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let tile = self.0;
        let mut sums = [[s.zero(); VECTORS]; ROWS];
        // SAFETY: the creator of the tile promises (see `compute`) that its addresses are valid for its extents.
        unsafe {
            let mut bias = [s.zero(); VECTORS];
            if !tile.bias.is_null() {
                for (j, vector) in bias.iter_mut().enumerate() {
                    let offset = j * S::LANES;
                    let left = tile.destination.valid.saturating_sub(offset);
                    *vector = s.load_partial(tile.bias.add(offset), left);
                }
            }
            if tile.bias_stage == 0 {
                sums = [bias; ROWS];
            }
            for (index, stage) in tile.stages.iter().enumerate() {
                if index == tile.bias_stage && index > 0 {
                    for row in &mut sums {
                        for (sum, &bias) in row.iter_mut().zip(&bias) {
                            *sum = T::add(s, *sum, bias);
                        }
                    }
                }
                if !stage.initial.is_null() {
                    for (i, row) in sums.iter_mut().enumerate() {
                        for (j, sum) in row.iter_mut().enumerate() {
                            let initial = s.load(stage.initial.add((i * VECTORS + j) * S::LANES));
                            *sum = T::add(s, *sum, initial);
                        }
                    }
                }
                accumulate::<S, T, ROWS, VECTORS>(s, stage, &mut sums);
                if !stage.kept.is_null() {
                    for (i, row) in sums.iter().enumerate() {
                        for (j, &sum) in row.iter().enumerate() {
                            s.store(stage.kept.add((i * VECTORS + j) * S::LANES), sum);
                        }
                    }
                }
            }
            tile.scaling.apply::<T, S, ROWS, VECTORS>(s, tile.destination.valid, &mut sums);
            tile.destination.store(s, &sums);
        }
    }
}

/// The loop over K.
///
/// # Safety
/// The table holds `ROWS` addresses per tap, each readable for `tap_len` words from `tap_start` on, and the
/// panel `taps * tap_len * VECTORS` vectors.
#[inline(always)]
unsafe fn accumulate<S: Simd, T: Factor, const ROWS: usize, const VECTORS: usize>(
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

/// Computes a tile of `rows` rows (1 to [`max_rows`]) and `width` columns (a panel's padded width).
///
/// # Safety
/// The addresses of the tile are valid for the extents its fields state, for `rows` rows; the elements it
/// writes are nobody else's.
#[inline(always)]
pub(super) unsafe fn compute<S: Simd, T: Factor, O: Element>(
    s: S,
    tile: &Tile<'_, T, O>,
    rows: usize,
    width: usize,
) {
    macro_rules! pick {
        ($vectors:literal: $($rows:literal)*) => {
            match rows {
                $($rows => s.call(TileOp::<T, O, $rows, $vectors>(tile)),)*
                _ => debug_assert!(false, "a tile of {rows} rows"),
            }
        };
    }
    match (S::ISA, width / S::LANES) {
        (Isa::Avx512 | Isa::Amx, 2) => pick!(2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (Isa::Avx512 | Isa::Amx, _) => pick!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (Isa::Avx2, 2) => pick!(2: 1 2 3 4 5 6),
        (Isa::Avx2 | Isa::Portable, _) => pick!(1: 1 2 3 4 5 6),
    }
}
