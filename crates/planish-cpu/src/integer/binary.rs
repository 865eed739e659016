//! Sums and products of two tensors of levels, each with a grid of its own: the end of a residual block, and the scaling of
//! a squeeze-and-excite block, where the second tensor has one level a channel.

use crate::elementwise::{Combine, Operands};
use crate::isa::Isa;
use crate::simd::Simd;
use crate::strided::{Block, BlockKernel, Nest, Shared, Strided, StridedMut};
use crate::threads::ThreadPool;

use super::Grid;

/// A function of two tensors of levels, with what it bounds its result to.
///
/// In steps of the output: `round(clamp(f(a, b) / scale of the output, low, high)) + zero point of the output`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelBinary {
    product: bool,
    a: Grid,
    b: Grid,
    /// The output's zero point.
    zero: f32,
    low: f32,
    high: f32,
}

impl LevelBinary {
    /// `a + b`, or `a * b` where `product`, of the numbers that levels of these grids mean; the result is kept within
    /// `low` and `high`, which are numbers as well.
    pub fn new(product: bool, [a, b]: [Grid; 2], output: Grid, [low, high]: [f32; 2]) -> LevelBinary {
        // What one step of an operand, or the product of two, is in steps of the output: rounded once.
        let ratio = |scale: f64| (scale / f64::from(output.scale)) as f32;
        let (first, second) = (f64::from(a.scale), f64::from(b.scale));
        let ratios = if product { [ratio(first * second), 1.0] } else { [ratio(first), ratio(second)] };
        LevelBinary {
            product,
            a: Grid { scale: ratios[0], ..a },
            b: Grid { scale: ratios[1], ..b },
            zero: output.zero,
            low: ratio(f64::from(low)),
            high: ratio(f64::from(high)),
        }
    }

    /// The level of the result for one level of each operand: the definition, in the order in which vectors compute it.
    pub fn of(&self, a: u8, b: u8) -> u8 {
        let (a, b) = (f32::from(a) - self.a.zero, f32::from(b) - self.b.zero);
        let x = if self.product { a * b * self.a.scale } else { a * self.a.scale + b * self.b.scale };
        let raised = if x > self.low { x } else { self.low };
        let bounded = if raised < self.high { raised } else { self.high };
        // The conversion saturates.
        (bounded.round_ties_even() + self.zero) as u8
    }
}

/// Sums, or products.
#[derive(Clone, Copy)]
struct Levels<const PRODUCT: bool>(LevelBinary);

impl<const PRODUCT: bool> Combine for Levels<PRODUCT> {
    #[inline(always)]
    fn combine<S: Simd>(self, s: S, a: S::F32, b: S::F32) -> S::F32 {
        let LevelBinary { a: first, b: second, zero, low, high, .. } = self.0;
        let (a, b) = (s.sub(a, s.splat(first.zero)), s.sub(b, s.splat(second.zero)));
        let x = if PRODUCT {
            s.mul(s.mul(a, b), s.splat(first.scale))
        } else {
            // Not a fused multiply-add, which would round otherwise than machines without it.
            s.add(s.mul(a, s.splat(first.scale)), s.mul(b, s.splat(second.scale)))
        };
        let bounded = s.min(s.max(x, s.splat(low)), s.splat(high));
        s.add(s.round(bounded), s.splat(zero))
    }
}

struct LevelKernel {
    function: LevelBinary,
    a: Shared<*const u8>,
    b: Shared<*const u8>,
    to: Shared<*mut u8>,
}

impl BlockKernel<3> for LevelKernel {
    type Dispatch = u8;

    #[inline(always)]
    unsafe fn block<S: Simd>(&self, s: S, block: &Block<3>) {
        let [a, b, to] = block.offsets;
        // SAFETY: the block lies inside both operands and the output.
        let (a, b, to) =
            unsafe { (self.a.get().offset(a), self.b.get().offset(b), self.to.get().offset(to)) };
        let operands = Operands { a, b, to, block: *block };
        match self.function.product {
            true => operands.run(s, Levels::<true>(self.function)),
            false => operands.run(s, Levels::<false>(self.function)),
        }
    }
}

/// `output = function(a, b)`, element by element; `a` and `b` are repeated along their axes of length 1 to the shape of
/// `output`, which may be made of the very elements of `a` or `b` (by `from_raw`, with the same strides, nothing repeated).
///
/// # Panics
/// Where an operand cannot be repeated to the shape of `output`.
pub fn level_binary(
    isa: Isa,
    pool: &ThreadPool,
    function: LevelBinary,
    a: Strided<'_, u8>,
    b: Strided<'_, u8>,
    output: StridedMut<'_, u8>,
) {
    let shape = output.shape();
    let [a, b] = [a, b].map(|operand| match operand.broadcast(shape) {
        Some(whole) => whole,
        None => panic!("an operand of {:?} does not repeat to {shape:?}", operand.shape()),
    });
    let (from_a, from_b, to) = (Shared(a.ptr()), Shared(b.ptr()), Shared(output.ptr()));
    let kernel = LevelKernel { function, a: from_a, b: from_b, to };
    Nest::new([a.layout(), b.layout(), output.layout()]).run(isa, pool, &kernel);
}
