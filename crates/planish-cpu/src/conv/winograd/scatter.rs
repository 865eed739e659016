//! From products to pixels of the output, with what is fused behind the convolution.

use super::grid::Grid;
use super::transform;
use crate::element::Element;
use crate::epilogue::{Destination, Epilogue};
use crate::simd::{Simd, SimdOp};
use crate::view::RowsMut;

/// The output of some tiles, the channels of a panel.
#[derive(Clone, Copy)]
pub(super) struct Scatter<'a, T> {
    pub grid: &'a Grid,
    pub first: usize,
    pub last: usize,
    /// `[point][tile][channel of the panel]`, from the tile `first` on.
    pub products: *const f32,
    /// Numbers from tile to tile.
    pub tile_step: usize,
    /// Numbers from point to point.
    pub point_step: usize,
    pub output: &'a RowsMut<'a, T>,
    /// Whole vectors of them, for the channels of the panel.
    pub bias: Option<&'a [f32]>,
    pub epilogue: Epilogue<'a, T>,
    /// The first channel of the panel in the output, and how many there are.
    pub channel: usize,
    pub channels: usize,
}

impl<T: Element> Scatter<'_, T> {
    /// Runs the transform compiled for the form of the grid.
    ///
    /// # Safety `products` is readable for `last - first` tiles at its steps, whole vectors. The grid is that
    /// of a problem whose output is `output` and whose residual is the epilogue's; nobody else touches the
    /// channels of these tiles meanwhile.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(self, s: S) {
        let form = self.grid.form;
        match (form.points, form.outputs) {
            ([4, 4], [2, 2]) => s.call(Op::<T, 4, 4, 2, 2>(self)),
            ([6, 6], [4, 4]) => s.call(Op::<T, 6, 6, 4, 4>(self)),
            ([8, 8], [6, 6]) => s.call(Op::<T, 8, 8, 6, 6>(self)),
            ([6, 6], [2, 2]) => s.call(Op::<T, 6, 6, 2, 2>(self)),
            ([8, 8], [4, 4]) => s.call(Op::<T, 8, 8, 4, 4>(self)),
            ([8, 8], [2, 2]) => s.call(Op::<T, 8, 8, 2, 2>(self)),
            ([1, 4], [1, 2]) => s.call(Op::<T, 1, 4, 1, 2>(self)),
            ([1, 6], [1, 4]) => s.call(Op::<T, 1, 6, 1, 4>(self)),
            ([1, 8], [1, 6]) => s.call(Op::<T, 1, 8, 1, 6>(self)),
            ([1, 6], [1, 2]) => s.call(Op::<T, 1, 6, 1, 2>(self)),
            ([1, 8], [1, 4]) => s.call(Op::<T, 1, 8, 1, 4>(self)),
            ([1, 8], [1, 2]) => s.call(Op::<T, 1, 8, 1, 2>(self)),
            ([4, 1], [2, 1]) => s.call(Op::<T, 4, 1, 2, 1>(self)),
            ([6, 1], [4, 1]) => s.call(Op::<T, 6, 1, 4, 1>(self)),
            ([8, 1], [6, 1]) => s.call(Op::<T, 8, 1, 6, 1>(self)),
            ([6, 1], [2, 1]) => s.call(Op::<T, 6, 1, 2, 1>(self)),
            ([8, 1], [4, 1]) => s.call(Op::<T, 8, 1, 4, 1>(self)),
            ([8, 1], [2, 1]) => s.call(Op::<T, 8, 1, 2, 1>(self)),
            _ => debug_assert!(false, "no transform of {form:?}"),
        }
    }
}

struct Op<'a, T, const H: usize, const W: usize, const OH: usize, const OW: usize>(Scatter<'a, T>);

impl<T: Element, const H: usize, const W: usize, const OH: usize, const OW: usize> SimdOp
    for Op<'_, T, H, W, OH, OW>
{
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let job = self.0;
        for (i, tile) in (job.first..job.last).enumerate() {
            let place = job.grid.place(tile);
            // The last tiles of a line and of an image reach beyond the output.
            let high = OH.min(job.grid.output[0] - place.output[0]);
            let wide = OW.min(job.grid.output[1] - place.output[1]);
            let mut rows = [[0; OW]; OH];
            for (y, line) in rows.iter_mut().enumerate() {
                for (x, row) in line.iter_mut().enumerate() {
                    *row = job.grid.output_row(place, y, x);
                }
            }
            for lane in (0..job.channels).step_by(S::LANES) {
                let products = job.products.wrapping_add(i * job.tile_step + lane);
                let left = (job.channels - lane).min(S::LANES);
                let column = job.channel + lane;
                let mut to = Destination::new(job.output, &job.epilogue, column, left, std::ptr::null());
                // SAFETY: `run`'s caller promises the products and the pixels of the tiles; those beyond the
                // output are not stored.
                unsafe {
                    let bias = job.bias.map_or(s.zero(), |bias| s.load(bias[lane..][..S::LANES].as_ptr()));
                    let lines = along_height::<S, H, W, OH>(s, products, job.point_step);
                    for (y, line) in lines.iter().enumerate().take(high) {
                        let line: [S::F32; OW] = transform::output(s, line);
                        let mut sums = [[s.zero(); 1]; OW];
                        for x in 0..OW {
                            sums[x][0] = s.add(line[x], bias);
                        }
                        to.outputs = rows[y].as_ptr();
                        if wide == OW {
                            to.store::<S, OW, 1>(s, &sums);
                        } else {
                            for x in 0..wide {
                                to.outputs = &raw const rows[y][x];
                                to.store::<S, 1, 1>(s, &[sums[x]]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The transform along the height of one vector of channels of a tile.
///
/// # Safety
/// A vector is readable at `products` for each of `H * W` points.
#[allow(clippy::needless_range_loop)] // as in `transform::output`
#[inline(always)]
unsafe fn along_height<S: Simd, const H: usize, const W: usize, const OH: usize>(
    s: S,
    products: *const f32,
    point_step: usize,
) -> [[S::F32; W]; OH] {
    let mut lines = [[s.zero(); W]; OH];
    for x in 0..W {
        let mut column = [s.zero(); H];
        for y in 0..H {
            // SAFETY: promised by the caller.
            column[y] = unsafe { s.load(products.add((y * W + x) * point_step)) };
        }
        let column: [S::F32; OH] = transform::output(s, &column);
        for y in 0..OH {
            lines[y][x] = column[y];
        }
    }
    lines
}
