//! The instructions of the tile unit, as inline assembly.
//!
//! Tiles are named by number, 0 to 7. The compiler knows no value that lives in one and never touches them, so what an
//! instruction leaves in a tile is there for the next, until [`Tiles`] is dropped.

use std::arch::asm;
use std::marker::PhantomData;

use super::{TILE_ROWS, TILE_WORDS, TileProduct};

/// The shapes of the eight tiles, as the processor reads them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Shapes of (rows, words of a row); a tile without rows cannot be used.
    pub(crate) fn new(tiles: [(usize, usize); 8]) -> Shapes {
        let mut shapes =
            Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (tile, (rows, words)) in tiles.into_iter().enumerate() {
            assert!(rows <= TILE_ROWS && words <= TILE_WORDS, "a tile of {rows} rows of {words} words");
            shapes.rows[tile] = rows as u8;
            shapes.row_bytes[tile] = (words * size_of::<u32>()) as u16;
        }
        shapes
    }
}

/// The tile unit of this thread, configured; released when dropped, so that the operating system need not keep its state.
#[derive(Debug)]
pub(crate) struct Tiles {
    /// The unit is the thread's.
    of_thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Gives the tiles shapes, and makes them zero.
    ///
    /// # Safety
    /// The unit is [available](super::is_available), and this thread holds no other.
    #[inline(always)]
    pub(crate) unsafe fn configure(shapes: &Shapes) -> Tiles {
        // SAFETY: reads the 64 bytes of the shapes, which `Shapes::new` made valid; the unit is there.
        unsafe { asm!("ldtilecfg [{}]", in(reg) shapes, options(readonly, nostack, preserves_flags)) };
        Tiles { of_thread: PhantomData }
    }

    /// Makes a tile zero.
    ///
    /// # Safety
    /// The tile has a shape.
    #[inline(always)]
    pub(crate) unsafe fn zero<const TILE: u8>(&self) {
        // SAFETY: the unit is configured.
        unsafe { asm!("tilezero tmm{}", const TILE, options(nomem, nostack, preserves_flags)) };
    }

    /// Reads the rows of a tile, `step` bytes apart.
    ///
    /// # Safety
    /// The tile has a shape, whose rows are readable from `p` on.
    #[inline(always)]
    pub(crate) unsafe fn load<const TILE: u8>(&self, p: *const u32, step: usize) {
        // SAFETY: the unit is configured, the memory readable.
        unsafe {
            asm!("tileloadd tmm{}, [{} + {}]", const TILE, in(reg) p, in(reg) step,
                options(readonly, nostack, preserves_flags));
        }
    }

    /// Writes the rows of a tile, `step` bytes apart.
    ///
    /// # Safety
    /// The tile has a shape, whose rows are writable from `p` on.
    #[inline(always)]
    pub(crate) unsafe fn store<const TILE: u8>(&self, p: *mut u32, step: usize) {
        // SAFETY: the unit is configured, the memory writable.
        unsafe {
            asm!("tilestored [{} + {}], tmm{}", in(reg) p, in(reg) step, const TILE,
                options(nostack, preserves_flags));
        }
    }

    /// Adds the products of the rows of `LEFT` with the columns of `RIGHT` to `SUMS`.
    ///
    /// # Safety
    /// Three different tiles, of shapes that fit: the rows of the sums are as many as those of the left operand, their
    /// words as many as those of the right one, which has as many rows as the left one has words.
    #[inline(always)]
    pub(crate) unsafe fn multiply<const SUMS: u8, const LEFT: u8, const RIGHT: u8>(
        &self,
        product: TileProduct,
    ) {
        // SAFETY: the unit is configured, and the shapes fit.
        unsafe {
            match product {
                TileProduct::Bf16 => {
                    asm!("tdpbf16ps tmm{}, tmm{}, tmm{}", const SUMS, const LEFT, const RIGHT,
                    options(nomem, nostack, preserves_flags))
                }
                TileProduct::U8I8 => asm!("tdpbusd tmm{}, tmm{}, tmm{}", const SUMS, const LEFT, const RIGHT,
                    options(nomem, nostack, preserves_flags)),
            }
        }
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the unit is there, as `configure` was promised.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}
