//! Products along an axis, in `f64`: those of `f32` soon leave its range on the way to a result inside it. Networks multiply shapes
//! at most, so nothing is gained by vectors.

use crate::reduce::{COLUMNS, extents};
use crate::strided::{GRAIN, Shared, Strided};
use crate::threads::ThreadPool;
use crate::view::RowsMut;

/// The product of the middle axis of `[outer, reduce, inner]`.
pub(crate) fn products(pool: &ThreadPool, input: Strided<'_>, output: RowsMut<'_>) {
    let (outer, length, inner) = extents(&input, &output);
    let (blocks, strides) = (inner.div_ceil(COLUMNS), input.layout().strides());
    let (from, to) = (Shared(input.ptr()), (Shared(output.ptr()), output.row_stride()));
    let grain = GRAIN.div_ceil((length * inner.min(COLUMNS)).max(1));
    pool.run_ranges(outer * blocks, grain, |range| {
        for index in range {
            let (row, first) = (index / blocks, index % blocks * COLUMNS);
            let mut products = [1f64; COLUMNS];
            let products = &mut products[..(inner - first).min(COLUMNS)];
            for place in 0..length {
                for (column, product) in (first..).zip(products.iter_mut()) {
                    let at = [row, place, column].iter().zip(strides).map(|(&i, s)| i as isize * s).sum();
                    // SAFETY: the three indices are below the input's extents.
                    *product *= f64::from(unsafe { *from.get().offset(at) });
                }
            }
            for (column, &mut product) in (first..).zip(products) {
                // SAFETY: row and column lie inside the output, and no other task has both.
                unsafe { *to.0.get().add(row * to.1 + column) = product as f32 };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::reduce::{Reduction, reduce};

    #[test]
    fn products_leave_the_range_on_the_way() {
        let column = [1e30f32, -1e30, 1e20, 1e-30, 1e-25, 1e-25];
        let data: Vec<f32> = column.iter().flat_map(|&x| [x; 3]).collect();
        for (length, inner, data) in [(6, 3, &data[..]), (6, 1, &column), (3, 1, &column)] {
            let (mut out, pool) = (vec![0.0; inner], ThreadPool::new(1));
            let input = Strided::dense(&data[..length * inner], &[1, length, inner]).unwrap();
            let to = RowsMut::dense(&mut out, 1, inner).unwrap();
            reduce(Isa::Portable, &pool, Reduction::Product, input, to);
            let wanted = if length == 6 { -1.0 } else { f32::NEG_INFINITY };
            assert!(out.iter().all(|&x| x == wanted || (x - wanted).abs() < 1e-6), "{out:?}");
        }
    }
}
