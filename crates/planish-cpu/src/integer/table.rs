//! Any function from levels to levels: there are only 256 of them, so it is a table, and as exact as the function that the
//! table was made by.

use crate::isa::Isa;
use crate::simd::Simd;
use crate::strided::{Block, BlockKernel, Nest, Shared, Strided, StridedMut};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// The level that each level becomes.
pub type LevelTable = [u8; 256];

struct TableKernel<'a> {
    table: &'a LevelTable,
    from: Shared<*const u8>,
    to: Shared<*mut u8>,
}

impl BlockKernel<2> for TableKernel<'_> {
    type Dispatch = u8;

    #[inline(always)]
    unsafe fn block<S: Simd>(&self, _: S, block: &Block<2>) {
        for row in 0..block.rows as isize {
            let from = self.from.get().wrapping_offset(block.offsets[0] + row * block.row_strides[0]);
            let to = self.to.get().wrapping_offset(block.offsets[1] + row * block.row_strides[1]);
            for i in 0..block.len {
                // SAFETY: the block lies inside both views, whose steps are 1; each level is read before it is written.
                unsafe { *to.add(i) = self.table[usize::from(*from.add(i))] };
            }
        }
    }
}

/// `output = table[input]`, element by element. `output` may be made of the very rows of `input` (by `from_raw`).
///
/// # Panics
/// Where the views differ in rows or channels.
pub fn look_up(
    isa: Isa,
    pool: &ThreadPool,
    table: &LevelTable,
    input: Rows<'_, u8>,
    output: RowsMut<'_, u8>,
) {
    assert_eq!(
        (input.rows(), input.channels()),
        (output.rows(), output.channels()),
        "as many outputs as inputs"
    );
    let (input, output) = (Strided::from(input), StridedMut::from(output));
    let kernel = TableKernel { table, from: Shared(input.ptr()), to: Shared(output.ptr()) };
    Nest::new([input.layout(), output.layout()]).with_unit_steps().run(isa, pool, &kernel);
}
