//! From levels to planes of bits.

use super::few::FewBits;
use super::words::{Words, WordsOp};
use crate::view::Rows;
use std::ops::Range;

/// How the bits of a pixel lie: `[group][plane][word]`, lowest plane first. Where weights are signs, the second word of each
/// two is kept as its difference (`^`) from the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct PixelLayout {
    pub groups: usize,
    /// Input channels of a group.
    pub channels: usize,
    /// Words of a plane of a group: whole pairs.
    pub words: usize,
    pub few: FewBits,
    /// Whether words come in pairs.
    pub paired: bool,
}

impl PixelLayout {
    /// Words of a group.
    pub(super) fn group_words(&self) -> usize {
        self.few.input.planes() * self.words
    }

    /// Words of a pixel.
    pub(super) fn pixel_words(&self) -> usize {
        self.groups * self.group_words()
    }

    /// Words of the weights for each word of a plane.
    pub(super) fn weight_words(&self) -> usize {
        if self.paired { 1 } else { 2 }
    }

    /// The words of a pair as they are kept.
    pub(super) fn pair(&self, bits: u64) -> [u32; 2] {
        let (low, high) = (bits as u32, (bits >> 32) as u32);
        if self.paired { [low, low ^ high] } else { [low, high] }
    }
}

/// Packs some pixels.
pub(super) struct Pack<'a> {
    pub layout: PixelLayout,
    pub input: Rows<'a, u8>,
    pub rows: Range<usize>,
    /// Where the bits of all pixels go; those of these rows are nobody else's.
    pub words: *mut u32,
}

impl WordsOp for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<W: Words>(self, w: W) {
        let layout = self.layout;
        let lowest = layout.few.input.lowest_bit();
        for row in self.rows {
            let levels = self.input.row(row);
            let mut to = self.words.wrapping_add(row * layout.pixel_words());
            for group in levels.chunks_exact(layout.channels) {
                let (pieces, rest) = group.as_chunks::<64>();
                for plane in lowest..lowest + layout.few.input.planes() {
                    let mut put = |piece: &[u8; 64]| {
                        // SAFETY: 64 bytes are there; the words of these rows are writable by nobody else, and each
                        // piece has a pair of them.
                        unsafe {
                            let [first, second] = layout.pair(w.bits(piece.as_ptr(), plane));
                            to.write_unaligned(first);
                            to.add(1).write_unaligned(second);
                            to = to.add(2);
                        }
                    };
                    pieces.iter().for_each(&mut put);
                    if !rest.is_empty() {
                        let mut padded = [0; 64];
                        padded[..rest.len()].copy_from_slice(rest);
                        put(&padded);
                    }
                }
            }
        }
    }
}
