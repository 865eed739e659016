//! A run: blocks of tiles are transformed, multiplied with the weights point by point and panel by panel, and
//! transformed back.

use std::ops::Range;

use super::blocking::Blocking;
use super::gather::Gather;
use super::scatter::Scatter;
use crate::element::{Element, Factor};
use crate::epilogue::Epilogue;
use crate::matmul::{PackedMatrix, Piece, SharedScratch, as_elements};
use crate::simd::{Simd, SimdOp};
use crate::strided::Shared;
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// A run with views of the right shapes.
///
/// Input and output are kept as `T`; `U` is what is multiplied at the points.
pub(super) struct Run<'a, T, U> {
    pub blocking: Blocking,
    pub weights: &'a PackedMatrix<U>,
    /// A number for each output channel, padded to whole vectors.
    pub bias: Option<&'a [f32]>,
    /// A word for each input channel.
    pub zeros: &'a [u32],
    pub input: Rows<'a, T>,
    pub output: RowsMut<'a, T>,
    pub epilogue: Epilogue<'a, T>,
}

impl<T: Element, U: Factor> Run<'_, T, U> {
    /// Computes the convolution.
    pub(super) fn run(&self, pool: &ThreadPool, workspace: &mut [f32]) {
        let blocking = &self.blocking;
        let align = workspace.as_ptr().align_offset(64).min(16);
        let workspace = &mut workspace[align..];
        let threads = pool.threads().max(1);
        let (input_len, product_len) = (blocking.input_len(), blocking.product_len());
        let inputs = if blocking.shared { 1 } else { threads };
        assert!(workspace.len() >= inputs * input_len + threads * product_len);
        let (inputs, products) = workspace.split_at_mut(inputs * input_len);
        let (inputs, products) = (SharedScratch::new(inputs), SharedScratch::new(products));
        let isa = self.weights.isa();
        let panels = self.weights.panels();
        let product_slot = |slot: usize| {
            // SAFETY: slots are disjoint pieces, and nobody else uses this slot meanwhile.
            unsafe { products.piece(slot * product_len, product_len) }
        };
        let input_slot = |slot: usize| {
            // SAFETY: as above.
            unsafe { inputs.piece(slot * input_len, input_len) }
        };
        if !blocking.shared {
            pool.run_with_slots(blocking.blocks, &|slot, block| {
                let tiles = blocking.tiles(block);
                let transformed = as_elements::<U>(input_slot(slot)).as_mut_ptr();
                let products = product_slot(slot);
                T::dispatch(isa, Transform { run: self, tiles: tiles.clone(), out: transformed });
                T::dispatch(isa, Multiply { run: self, tiles, panels: 0..panels, transformed, products });
            });
            return;
        }
        for block in 0..blocking.blocks {
            let tiles = blocking.tiles(block);
            let transformed = Shared(as_elements::<U>(input_slot(0)).as_mut_ptr());
            pool.run_ranges(tiles.len(), 1, |range| {
                let part = tiles.start + range.start..tiles.start + range.end;
                let out = transformed.get().wrapping_add(range.start * blocking.input_steps[0]);
                T::dispatch(isa, Transform { run: self, tiles: part, out });
            });
            pool.run_with_slots(panels, &|slot, panel| {
                let (tiles, panels) = (tiles.clone(), panel..panel + 1);
                let (transformed, products) = (transformed.get(), product_slot(slot));
                T::dispatch(isa, Multiply { run: self, tiles, panels, transformed, products });
            });
        }
    }
}

/// Transforms some tiles of the input.
struct Transform<'a, T, U> {
    run: &'a Run<'a, T, U>,
    tiles: Range<usize>,
    out: *mut U,
}

impl<T: Element, U: Factor> SimdOp for Transform<'_, T, U> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Run { blocking, input, zeros, .. } = self.run;
        let [tile_step, point_step] = blocking.input_steps;
        let gather = Gather {
            grid: &blocking.grid,
            input: *input,
            zeros,
            first: self.tiles.start,
            last: self.tiles.end,
            out: self.out,
            tile_step,
            point_step,
        };
        // SAFETY: `out` has room for the tiles at these steps, whose rows are whole vectors long.
        unsafe { gather.run(s) };
    }
}

/// Multiplies the transformed tiles of a block with some panels, and transforms back.
struct Multiply<'a, T, U> {
    run: &'a Run<'a, T, U>,
    tiles: Range<usize>,
    panels: Range<usize>,
    transformed: *const U,
    products: &'a mut [f32],
}

impl<T: Element, U: Factor> SimdOp for Multiply<'_, T, U> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Run { blocking, weights, bias, input, output, epilogue, .. } = self.run;
        let form = blocking.grid.form;
        let (depth, rows) = (input.channels().next_multiple_of(U::PER_WORD), self.tiles.len());
        let ([input_tile, input_point], [tile_step, point_step]) =
            (blocking.input_steps, blocking.product_steps);
        let products = self.products.as_mut_ptr();
        for panel in self.panels {
            let (channel, channels) = weights.panel_columns(panel);
            for point in 0..form.products() {
                let piece = Piece {
                    matrix: weights,
                    panel,
                    first: point * depth,
                    depth,
                    longest_sum: form.longest_sum(),
                    left: self.transformed.wrapping_add(point * input_point),
                    left_step: input_tile,
                    rows,
                    out: products.wrapping_add(point * point_step),
                    out_step: tile_step,
                };
                // SAFETY: the transformed input and the products have room for the tiles of a block at their
                // steps; the weights are packed for the instruction set that is dispatched to.
                unsafe { piece.run(s) };
            }
            let scatter = Scatter {
                grid: &blocking.grid,
                first: self.tiles.start,
                last: self.tiles.end,
                products,
                tile_step,
                point_step,
                output,
                bias: bias.map(|bias| &bias[channel..]),
                epilogue: *epilogue,
                channel,
                channels,
            };
            // SAFETY: the products were just computed; tiles and panels are shared out among tasks.
            unsafe { scatter.run(s) };
        }
    }
}
