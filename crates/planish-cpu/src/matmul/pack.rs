//! The right operand of a product, cut into panels the inner loop reads front to back.

use std::marker::PhantomData;
use std::ops::Range;

use crate::element::{Element, Factor};
use crate::isa::Isa;
use planish_memory::prefer_huge_pages;

/// A cache line of numbers; a vector of these is aligned to it, so that no load of the inner loop straddles
/// two.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Numbers that start at a cache line.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlignedNumbers {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedNumbers {
    /// This many zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let count = len.div_ceil(16);
        let mut lines = Vec::with_capacity(count);
        prefer_huge_pages(&lines);
        lines.resize(count, Line([0.0; 16]));
        Self { lines, len }
    }

    /// The words seen as elements.
    pub(crate) fn as_mut_elements<T: Element>(&mut self) -> &mut [T] {
        let count = self.len * T::TYPE.per_word();
        // SAFETY: `lines` holds at least `len` words one after the other; every pattern is an element, whose alignment is
        // no more than theirs; borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), count) }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: `lines` holds at least `len` numbers one after the other.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }
}

/// A K×N matrix of `f32` or another [`Factor`], packed for one instruction set.
///
/// Columns are cut into panels of two vectors of words; a panel holds its columns word by word: `[K / e][panel
/// width][e]` with `e` elements in a word, which is one of `f32`, two of `bf16` and four of `u8` (whose right operand are
/// `i8`, kept as the bits of `u8`). K is a whole number of words. A last
/// panel of at most one vector of columns is one vector wide; missing columns are zero.
#[derive(Clone, Debug)]
pub struct PackedMatrix<T = f32> {
    isa: Isa,
    /// Words of a column.
    words: usize,
    columns: usize,
    data: AlignedNumbers,
    element: PhantomData<T>,
}

/// How many vectors a full panel is wide.
pub(super) fn panel_vectors(isa: Isa) -> usize {
    match isa {
        Isa::Portable => 1,
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => 2,
    }
}

/// How many columns a full panel has.
pub(crate) fn panel_width(isa: Isa) -> usize {
    panel_vectors(isa) * isa.lanes()
}

impl<T: Factor> PackedMatrix<T> {
    /// Packs the matrix of `rows` rows whose row `k` is `source[start + n * step]` for `(start, step) = row(k)`, and
    /// zero where that is nothing. Rows that a last word lacks are zero.
    ///
    /// # Panics
    /// Where that reaches beyond the slice.
    pub fn from_rows(
        isa: Isa,
        rows: usize,
        columns: usize,
        source: &[f32],
        row: impl Fn(usize) -> Option<(usize, usize)>,
    ) -> Self {
        Self::from_values(isa, rows, columns, row, |index, _| T::from_f32(source[index]))
    }

    /// [`PackedMatrix::from_rows`] of elements that `value` makes, from where they come from and for which column.
    pub(crate) fn from_values(
        isa: Isa,
        rows: usize,
        columns: usize,
        row: impl Fn(usize) -> Option<(usize, usize)>,
        value: impl Fn(usize, usize) -> T,
    ) -> Self {
        let isa = isa.serving(T::TYPE);
        Self::from_panels(isa, rows, columns, |columns, data| {
            let width = columns.len().next_multiple_of(isa.lanes());
            for (word, slots) in data.chunks_exact_mut(width * T::PER_WORD).enumerate() {
                for part in 0..T::PER_WORD {
                    let k = word * T::PER_WORD + part;
                    let Some((start, step)) = (k < rows).then(|| row(k)).flatten() else { continue };
                    let slots = slots[part..].iter_mut().step_by(T::PER_WORD);
                    for (column, slot) in columns.clone().zip(slots) {
                        *slot = value(start + column * step, column);
                    }
                }
            }
        })
    }

    /// Packs a matrix that `fill` writes: it is called with the columns of each panel and the elements of the panel,
    /// word by word; the words of a row are padded to whole vectors, and zero so far.
    pub(crate) fn from_panels(
        isa: Isa,
        rows: usize,
        columns: usize,
        fill: impl Fn(Range<usize>, &mut [T]),
    ) -> Self {
        let isa = isa.serving(T::TYPE);
        let mut packed = Self::zeros(isa, rows, columns);
        let column = packed.rows();
        for panel in 0..packed.panels() {
            let (first, width) = packed.panel_columns(panel);
            let (start, len) = (first * column, packed.panel_width(panel) * column);
            fill(first..first + width, &mut packed.data.as_mut_elements()[start..start + len]);
        }
        packed
    }

    /// Packs the matrix whose element in row `k` and column `n` is `source[k * row_step + n * column_step]`; an
    /// error where that reaches beyond the slice.
    pub fn from_strided(
        isa: Isa,
        source: &[f32],
        rows: usize,
        columns: usize,
        row_step: usize,
        column_step: usize,
    ) -> Result<Self, String> {
        let last = |count: usize, step: usize| count.checked_sub(1).and_then(|n| n.checked_mul(step));
        if let (Some(row), Some(column)) = (last(rows, row_step), last(columns, column_step))
            && row.checked_add(column).is_none_or(|end| end >= source.len())
        {
            return Err(format!(
                "a {rows}×{columns} matrix at steps {row_step} and {column_step} does not fit {} numbers",
                source.len()
            ));
        }
        if rows != 0
            && columns != 0
            && (last(rows, row_step).is_none() || last(columns, column_step).is_none())
        {
            return Err(format!(
                "a {rows}×{columns} matrix at steps {row_step} and {column_step} is too large"
            ));
        }
        Ok(Self::from_rows(isa, rows, columns, source, |k| Some((k * row_step, column_step))))
    }

    fn zeros(isa: Isa, rows: usize, columns: usize) -> Self {
        let padded = columns.next_multiple_of(isa.lanes());
        let words = rows.div_ceil(T::PER_WORD);
        Self { isa, words, columns, data: AlignedNumbers::zeros(words * padded), element: PhantomData }
    }

    /// The instruction set it is packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// K, in whole words.
    pub fn rows(&self) -> usize {
        self.words * T::PER_WORD
    }

    /// N
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The memory it takes.
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// How many panels there are.
    pub(crate) fn panels(&self) -> usize {
        self.columns.div_ceil(panel_width(self.isa))
    }

    /// The first column of a panel and how many columns it has, padding not counted.
    pub(crate) fn panel_columns(&self, panel: usize) -> (usize, usize) {
        let first = panel * panel_width(self.isa);
        (first, panel_width(self.isa).min(self.columns - first))
    }

    /// The columns of a panel including padding.
    pub(super) fn panel_width(&self, panel: usize) -> usize {
        self.panel_columns(panel).1.next_multiple_of(self.isa.lanes())
    }

    /// The words of a panel.
    pub(super) fn panel(&self, panel: usize) -> &[f32] {
        let start = self.panel_columns(panel).0 * self.words;
        &self.data.as_slice()[start..start + self.panel_width(panel) * self.words]
    }

    /// The words of a panel and of all behind it; each full one starts as many words behind the one before as that
    /// has.
    pub(super) fn panels_from(&self, panel: usize) -> &[f32] {
        &self.data.as_slice()[self.panel_columns(panel).0 * self.words..]
    }
}
