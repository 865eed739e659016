//! Products with weights of four bits, which stay four bits in memory.
//!
//! A dense layer at batch 1 uses every weight once, so it takes as long as reading its weights: those of vgg16's first are
//! 411 MB in `f32`. In blocks of 32 along the depth with a scale each they are 64 MB, and answers hardly change (Dettmers
//! and Zettlemoyer, "The case for 4-bit precision: k-bit inference scaling laws", ICML 2023; ONNX's blocked
//! DequantizeLinear and ONNX Runtime's MatMulNBits). They become numbers in registers, a shift and a permutation for a
//! vector of them; what is computed is the product with the dequantised weights, in `f32`. With many rows the expansion is
//! what takes time, and weights packed as numbers are faster: [`BlockMatrix::work`] tells.
//!
//! Weights are kept as the order of reading: panels of one vector of columns, of each the blocks of the depth, of each
//! block words of eight consecutive weights of a column, then the scales of the columns, then, where blocks have zero
//! points, scale times zero point, which the sums of the left operand's blocks are multiplied with.

use std::ops::Range;

use super::pack::AlignedNumbers;
use super::row::STREAMS;
use crate::epilogue::{Destination, Epilogue};
use crate::isa::Isa;
use crate::rates::{Rate, Work, weights_read};
use crate::simd::{Simd, SimdOp, dispatch};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// Weights in a word.
const PER_WORD: usize = 8;

/// Rows of the left operand that share an expansion.
const ROWS: usize = 4;

/// Panels that are computed at a time where there are several rows.
const PANELS: usize = 2;

/// What the weights of a block stand for: `scale * (level - zero)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockScale {
    /// The number from one level to the next.
    pub scale: f32,
    /// The level that stands for zero, of the same signedness as the levels.
    pub zero: f32,
}

/// A constant right operand of four bits a number, packed for one instruction set.
pub struct BlockMatrix {
    isa: Isa,
    depth: usize,
    columns: usize,
    block: usize,
    has_zeros: bool,
    data: AlignedNumbers,
}

impl BlockMatrix {
    /// Packs `depth` rows of `columns` levels from -8 to 7, `level(k, n)`, whose blocks of `block` rows have scales of
    /// their own, `scale(k / block, n)`. An error where the block is no multiple of 8 or there is nothing to multiply.
    pub fn new(
        isa: Isa,
        [depth, columns]: [usize; 2],
        block: usize,
        level: impl Fn(usize, usize) -> i8,
        scale: impl Fn(usize, usize) -> BlockScale,
    ) -> Result<BlockMatrix, String> {
        if block == 0 || !block.is_multiple_of(PER_WORD) {
            return Err(format!("blocks of {block} weights are no whole words of {PER_WORD}"));
        }
        if depth == 0 || columns == 0 {
            return Err(format!("a matrix of {depth} rows and {columns} columns"));
        }
        let blocks = depth.div_ceil(block);
        let has_zeros = (0..blocks).any(|b| (0..columns).any(|n| scale(b, n).zero != 0.0));
        let mut made = BlockMatrix { isa, depth, columns, block, has_zeros, data: AlignedNumbers::zeros(0) };
        let (lanes, step) = (isa.lanes(), made.block_words());
        let len =
            [columns.div_ceil(lanes), blocks, step].into_iter().try_fold(1usize, |p, x| p.checked_mul(x));
        let len =
            len.filter(|len| *len <= isize::MAX as usize / 64).ok_or("a matrix too large to address")?;
        made.data = AlignedNumbers::zeros(len);
        let parts = made.data.as_mut_slice().chunks_exact_mut(step).enumerate();
        for (at, part) in parts {
            let (panel, b) = (at / blocks, at % blocks);
            for (lane, n) in (panel * lanes..columns.min((panel + 1) * lanes)).enumerate() {
                for word in 0..block / PER_WORD {
                    let first = b * block + word * PER_WORD;
                    let bits = (first..depth.min(first + PER_WORD))
                        .rev()
                        .fold(0u32, |bits, k| bits << 4 | (level(k, n) as u32 & 15));
                    // Where the last word ends early its weights are the lowest bits, as everywhere.
                    part[word * lanes + lane] = f32::from_bits(bits);
                }
                let BlockScale { scale, zero } = scale(b, n);
                part[block / PER_WORD * lanes + lane] = scale;
                if has_zeros {
                    part[(block / PER_WORD + 1) * lanes + lane] = -scale * zero;
                }
            }
        }
        Ok(made)
    }

    /// The words of a block of a panel.
    fn block_words(&self) -> usize {
        (self.block / PER_WORD + 1 + usize::from(self.has_zeros)) * self.isa.lanes()
    }

    /// The bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// The work of a product of this shape, shared among threads.
    pub fn work(isa: Isa, rows: usize, [depth, columns]: [usize; 2], block: usize, threads: usize) -> Work {
        let vectors = (columns.div_ceil(isa.lanes()) * depth) as f64;
        let (rows, passes) = (rows as f64, rows.div_ceil(ROWS) as f64);
        // What makes a vector of numbers takes as long as one multiply-add or two, and those of a single row, which wait
        // for it, as long again.
        let multiply_adds = vectors * (rows + 2.0 * passes);
        let bytes = vectors * isa.lanes() as f64 * (0.5 + 4.0 / block.max(1) as f64);
        let mut work = weights_read(bytes, passes, multiply_adds, isa);
        work += Work::of(&[(Rate::MultiplyAdd, multiply_adds)]);
        work.shared(threads as f64).called(1, threads)
    }

    /// `out = a · b + bias`, with the epilogue behind it; `bias` has a number for each column. Mismatched shapes are an
    /// error and leave `out` untouched.
    pub fn multiply(
        &self,
        pool: &ThreadPool,
        a: Rows<'_>,
        bias: Option<&[f32]>,
        epilogue: Epilogue<'_, f32>,
        out: RowsMut<'_>,
    ) -> Result<(), String> {
        let rows = a.rows();
        if a.channels() != self.depth || (out.rows(), out.channels()) != (rows, self.columns) {
            let (of, channels) = (out.rows(), out.channels());
            return Err(format!(
                "{rows}×{} numbers times {}×{} weights for an output of {of}×{channels}",
                a.channels(),
                self.depth,
                self.columns
            ));
        }
        if let Some(bias) = bias
            && bias.len() != self.columns
        {
            return Err(format!("{} biases for {} columns", bias.len(), self.columns));
        }
        epilogue.check(rows, self.columns)?;
        let left = Left::new(self, a);
        let output_rows: Vec<usize> = (0..rows).collect();
        let panels = self.columns.div_ceil(self.isa.lanes());
        // Whoever reads whole panels reads them once, for all rows.
        let step = if rows == 1 { STREAMS } else { PANELS };
        let grain = (8 * 1024 / (self.depth * self.isa.lanes() * step).max(1)).max(1);
        let (out, rows) = (&out, &output_rows[..]);
        pool.run_ranges(panels.div_ceil(step), grain, |groups| {
            let panels = groups.start * step..panels.min(groups.end * step);
            dispatch(self.isa, PanelsOp { matrix: self, left: &left, bias, epilogue, out, rows, panels });
        });
        Ok(())
    }
}

/// The rows of the left operand, filled up to whole blocks, and the sums of each block.
struct Left {
    numbers: Vec<f32>,
    sums: Vec<f32>,
    blocks: usize,
}

impl Left {
    fn new(matrix: &BlockMatrix, a: Rows<'_>) -> Left {
        let blocks = matrix.depth.div_ceil(matrix.block);
        let step = blocks * matrix.block;
        let mut numbers = vec![0.0; a.rows() * step];
        for (row, padded) in numbers.chunks_exact_mut(step).enumerate() {
            padded[..matrix.depth].copy_from_slice(a.row(row));
        }
        let sums = match matrix.has_zeros {
            true => numbers.chunks_exact(matrix.block).map(|block| block.iter().sum()).collect(),
            false => Vec::new(),
        };
        Left { numbers, sums, blocks }
    }
}

/// All rows times some panels.
struct PanelsOp<'a> {
    matrix: &'a BlockMatrix,
    left: &'a Left,
    bias: Option<&'a [f32]>,
    epilogue: Epilogue<'a, f32>,
    out: &'a RowsMut<'a>,
    /// The number of each row.
    rows: &'a [usize],
    panels: Range<usize>,
}

impl SimdOp for PanelsOp<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Range { mut start, end } = self.panels;
        while start < end {
            let left = end - start;
            let mut row = 0;
            let step = match (self.rows.len(), left) {
                (1, STREAMS..) => STREAMS,
                (_, PANELS..) => PANELS,
                _ => 1,
            };
            while row < self.rows.len() {
                let tile = TileOp { op: &self, row, panel: start };
                match ((self.rows.len() - row).min(ROWS), step) {
                    (1, STREAMS) => s.call(TileOf::<1, STREAMS>(tile)),
                    (1, PANELS) => s.call(TileOf::<1, PANELS>(tile)),
                    (1, _) => s.call(TileOf::<1, 1>(tile)),
                    (2, PANELS) => s.call(TileOf::<2, PANELS>(tile)),
                    (2, _) => s.call(TileOf::<2, 1>(tile)),
                    (3, PANELS) => s.call(TileOf::<3, PANELS>(tile)),
                    (3, _) => s.call(TileOf::<3, 1>(tile)),
                    (_, PANELS) => s.call(TileOf::<ROWS, PANELS>(tile)),
                    (_, _) => s.call(TileOf::<ROWS, 1>(tile)),
                }
                row += ROWS;
            }
            start += step;
        }
    }
}

/// Some rows from `row` on times some panels from `panel` on.
struct TileOp<'a> {
    op: &'a PanelsOp<'a>,
    row: usize,
    panel: usize,
}

struct TileOf<'a, const ROWS: usize, const PANELS: usize>(TileOp<'a>);

impl<const ROWS: usize, const PANELS: usize> SimdOp for TileOf<'_, ROWS, PANELS> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let TileOp { op, row, panel } = self.0;
        let (matrix, left) = (op.matrix, op.left);
        let (words, step) = (matrix.block / PER_WORD, matrix.block_words());
        let column = panel * S::LANES;
        let valid = matrix.columns.saturating_sub(column).min(PANELS * S::LANES);
        let mut sums = [[s.zero(); PANELS]; ROWS];
        // Checked here, so that the addresses below are inside.
        let panels = &matrix.data.as_slice()[panel * left.blocks * step..][..PANELS * left.blocks * step];
        let numbers = &left.numbers[row * left.blocks * matrix.block..][..ROWS * left.blocks * matrix.block];
        assert!(S::LANES == matrix.isa.lanes() && row + ROWS <= op.rows.len());
        // SAFETY: a panel has as many blocks as a row of the left operand, each of `words` words of `PER_WORD` weights, the
        // scales, and, where there are zero points, what they add; so has a row its sums then.
        unsafe {
            if let Some(bias) = op.bias {
                for j in 0..PANELS {
                    let at = column + j * S::LANES;
                    let first = s.load_partial(bias.as_ptr().wrapping_add(at), bias.len().saturating_sub(at));
                    sums.iter_mut().for_each(|row| row[j] = first);
                }
            }
            for b in 0..left.blocks {
                let place: [*const f32; PANELS] =
                    std::array::from_fn(|j| panels.as_ptr().add((j * left.blocks + b) * step));
                let mut products = [[s.zero(); PANELS]; ROWS];
                for word in 0..words {
                    let bits: [S::F32; PANELS] =
                        std::array::from_fn(|j| s.load(place[j].add(word * S::LANES)));
                    let first = numbers.as_ptr().add(b * matrix.block + word * PER_WORD);
                    let stride = left.blocks * matrix.block;
                    macro_rules! weights {
                        ($($k:literal)*) => {$({
                            let weights: [S::F32; PANELS] =
                                std::array::from_fn(|j| s.nibbles::<{ 4 * $k }>(bits[j]));
                            for (i, row) in products.iter_mut().enumerate() {
                                let x = s.splat(*first.add(i * stride + $k));
                                for (j, sum) in row.iter_mut().enumerate() {
                                    *sum = s.mul_add(x, weights[j], *sum);
                                }
                            }
                        })*};
                    }
                    weights!(0 1 2 3 4 5 6 7);
                }
                for j in 0..PANELS {
                    let scale = s.load(place[j].add(words * S::LANES));
                    for (row, products) in sums.iter_mut().zip(&products) {
                        row[j] = s.mul_add(products[j], scale, row[j]);
                    }
                    if matrix.has_zeros {
                        let offset = s.load(place[j].add((words + 1) * S::LANES));
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let x = s.splat(left.sums[(row + i) * left.blocks + b]);
                            sum[j] = s.mul_add(x, offset, sum[j]);
                        }
                    }
                }
            }
            let rows = op.rows[row..].as_ptr();
            Destination::new(op.out, &op.epilogue, column, valid, rows).store(s, &sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epilogue::Activation;
    use crate::testing::{Input, Tolerance, check, random};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn products_with_dequantised_weights(
            rows in 0usize..11, depth in 1usize..200, columns in 1usize..150, words in 1usize..6, zeros: bool,
            biased: bool, gaps in prop::array::uniform2(0usize..3), seed: u32,
        ) {
            let (block, seed) = (words * PER_WORD, u64::from(seed));
            let blocks = depth.div_ceil(block);
            let a = Input::new(seed, rows, depth, gaps[0], -1.0, 1.0);
            let level = random(seed + 1, depth * columns, -8.0, 8.0);
            let level = |k: usize, n: usize| level[k * columns + n].floor() as i8;
            let scales = random(seed + 2, blocks * columns, 0.01, 1.0);
            let zero = random(seed + 3, blocks * columns, -8.0, 8.0);
            let scale = |b: usize, n: usize| BlockScale {
                scale: scales[b * columns + n],
                zero: if zeros { zero[b * columns + n].floor() } else { 0.0 },
            };
            let bias = biased.then(|| random(seed + 4, columns, -1.0, 1.0));
            let of = |row: usize, n: usize, term: &dyn Fn(f64, f64, f64, f64) -> f64| -> f64 {
                let terms = (0..depth).map(|k| {
                    let BlockScale { scale, zero } = scale(k / block, n);
                    term(a.at(row, k), f64::from(level(k, n)), f64::from(scale), f64::from(zero))
                });
                terms.sum()
            };
            let wanted = |row: usize, n: usize| {
                let sum = of(row, n, &|x, level, scale, zero| x * (level - zero) * scale);
                (sum + bias.as_ref().map_or(0.0, |bias| f64::from(bias[n]))).max(0.0)
            };
            // Every product is rounded once with each of the partial sums of its block, then with those of the blocks.
            let most = (0..rows * columns)
                .map(|i| of(i / columns, i % columns, &|x, l, s, z| x.abs() * (l.abs() + z.abs()) * s))
                .fold(1.0, f64::max);
            let absolute = (block + 2 * blocks + 4) as f64 * f64::from(f32::EPSILON) * most;
            check((rows, columns, gaps[1]), Tolerance { absolute, relative: 0.0 }, wanted, |isa, pool, out| {
                let matrix = BlockMatrix::new(isa, [depth, columns], block, level, scale).unwrap();
                let epilogue = Epilogue { activation: Activation::Relu, ..Epilogue::default() };
                matrix.multiply(pool, a.rows(), bias.as_deref(), epilogue, out).unwrap();
            });
        }
    }

    #[test]
    fn a_byte_holds_two_weights() {
        let one = |_: usize, _: usize| BlockScale { scale: 1.0, zero: 0.0 };
        let matrix = BlockMatrix::new(Isa::Portable, [4096, 64], 32, |_, _| -3, one).unwrap();
        assert_eq!(matrix.bytes(), 4096 * 64 / 2 + 4096 / 32 * 64 * 4);
    }

    #[test]
    fn other_shapes_are_refused() {
        let one = |_: usize, _: usize| BlockScale { scale: 1.0, zero: 0.0 };
        let make = |shape, block| BlockMatrix::new(Isa::Portable, shape, block, |_, _| 1, one);
        assert!(make([8, 1], 0).is_err() && make([8, 1], 12).is_err() && make([0, 1], 8).is_err());
        let matrix = make([8, 2], 8).unwrap();
        let (a, mut out) = ([0f32; 16], [0f32; 4]);
        let mut run = |depth: usize, columns: usize, bias: Option<&[f32]>| {
            let (a, out) =
                (Rows::dense(&a, 2, depth).unwrap(), RowsMut::dense(&mut out, 2, columns).unwrap());
            matrix.multiply(&ThreadPool::new(1), a, bias, Epilogue::default(), out)
        };
        assert!(run(7, 2, None).is_err() && run(8, 1, None).is_err() && run(8, 2, Some(&[1.0])).is_err());
        assert_eq!(run(8, 2, Some(&[1.0; 2])), Ok(()));
    }
}
