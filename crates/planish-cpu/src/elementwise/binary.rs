//! Functions of two numbers, over tensors that need not have the same shape.

use super::unary::Span;
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::simd::Simd;
use crate::strided::{Block, BlockKernel, Nest, Shared, Strided, StridedMut};
use crate::threads::ThreadPool;

/// The most lanes of any instruction set.
const MOST_LANES: usize = 16;

/// A function of two numbers `a` and `b`. NaN in either gives NaN, but for [`Binary::Power`], which keeps `1^b = a^0 = 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The smaller.
    Min,
    /// The larger.
    Max,
    /// `a^b`
    Power,
    /// `a` where `a >= 0`, else `a * b`.
    PRelu,
    /// `(a - b)^2`
    SquaredDifference,
}

/// The vector at a position of an operand: consecutive numbers, one number repeated, or numbers at a distance.
///
/// # Safety
/// `min(n, LANES)` numbers `step` apart must be readable at `p`.
#[inline(always)]
unsafe fn read<S: Simd>(s: S, p: *const f32, step: isize, n: usize) -> S::F32 {
    // SAFETY: promised by the caller.
    unsafe {
        match step {
            1 if n >= S::LANES => s.load(p),
            1 => s.load_partial(p, n),
            0 => s.splat(*p),
            _ => {
                let mut lanes = [0.0; MOST_LANES];
                for (lane, to) in lanes.iter_mut().enumerate().take(n.min(S::LANES)) {
                    *to = *p.offset(lane as isize * step);
                }
                s.load(lanes.as_ptr())
            }
        }
    }
}

/// Writes what [`read`] reads.
///
/// # Safety
/// `min(n, LANES)` numbers `step` apart must be writable at `p`.
#[inline(always)]
unsafe fn write<S: Simd>(s: S, p: *mut f32, step: isize, n: usize, v: S::F32) {
    // SAFETY: promised by the caller.
    unsafe {
        match step {
            1 if n >= S::LANES => s.store(p, v),
            1 => s.store_partial(p, n, v),
            _ => {
                let mut lanes = [0.0; MOST_LANES];
                s.store(lanes.as_mut_ptr(), v);
                for (lane, &x) in lanes.iter().enumerate().take(n.min(S::LANES)) {
                    *p.offset(lane as isize * step) = x;
                }
            }
        }
    }
}

/// One number at a time by the standard library: a vector `exp(b ln a)` would lose digits with the size of the exponent.
#[inline(always)]
fn power<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
    let (mut bases, mut exponents) = ([0.0f32; MOST_LANES], [0.0f32; MOST_LANES]);
    // SAFETY: both arrays hold at least as many numbers as a vector.
    unsafe {
        s.store(bases.as_mut_ptr(), a);
        s.store(exponents.as_mut_ptr(), b);
        for (base, &exponent) in bases.iter_mut().zip(&exponents).take(S::LANES) {
            *base = base.powf(exponent);
        }
        s.load(bases.as_ptr())
    }
}

struct BinaryKernel {
    function: Binary,
    activation: Activation,
    a: Shared<*const f32>,
    b: Shared<*const f32>,
    to: Shared<*mut f32>,
}

impl BinaryKernel {
    /// The block with the function in the innermost loop. The activation then passes over the block once more, in the first cache.
    ///
    /// # Safety
    /// As for [`BlockKernel::block`].
    #[inline(always)]
    unsafe fn rows<S: Simd>(&self, s: S, block: &Block<3>, f: impl Fn(S::F32, S::F32) -> S::F32) {
        let [a_step, b_step, to_step] = block.steps;
        for row in 0..block.rows as isize {
            let at = |tensor: usize| block.offsets[tensor] + row * block.row_strides[tensor];
            // SAFETY: the block lies inside all three views.
            unsafe {
                let (a, b) = (self.a.get().offset(at(0)), self.b.get().offset(at(1)));
                let to = self.to.get().offset(at(2));
                let mut i = 0;
                while i < block.len {
                    let (n, i_signed) = (block.len - i, i as isize);
                    let x = read(s, a.offset(i_signed * a_step), a_step, n);
                    let y = read(s, b.offset(i_signed * b_step), b_step, n);
                    write(s, to.offset(i_signed * to_step), to_step, n, f(x, y));
                    i += S::LANES;
                }
            }
        }
    }
}

impl BlockKernel<3> for BinaryKernel {
    #[inline(always)]
    unsafe fn block<S: Simd>(&self, s: S, block: &Block<3>) {
        // SAFETY: promised by the caller.
        unsafe {
            match self.function {
                Binary::Add if self.activation == Activation::Relu => {
                    self.rows(s, block, |a, b| s.max(s.zero(), s.add(a, b)));
                    return;
                }
                Binary::Add => self.rows(s, block, |a, b| s.add(a, b)),
                Binary::Sub => self.rows(s, block, |a, b| s.sub(a, b)),
                Binary::Mul => self.rows(s, block, |a, b| s.mul(a, b)),
                Binary::Div => self.rows(s, block, |a, b| s.div(a, b)),
                // `min` and `max` give their second operand where either is NaN: a NaN of the first is put back.
                Binary::Min => self.rows(s, block, |a, b| s.select(s.eq(a, a), s.min(a, b), a)),
                Binary::Max => self.rows(s, block, |a, b| s.select(s.eq(a, a), s.max(a, b), a)),
                Binary::Power => self.rows(s, block, |a, b| power(s, a, b)),
                Binary::PRelu => self.rows(s, block, |a, b| s.select(s.lt(a, s.zero()), s.mul(a, b), a)),
                Binary::SquaredDifference => self.rows(s, block, |a, b| {
                    let difference = s.sub(a, b);
                    s.mul(difference, difference)
                }),
            }
            if self.activation != Activation::None {
                let to = self.to.get().offset(block.offsets[2]);
                let (stride, step) = (block.row_strides[2], block.steps[2]);
                let (rows, len) = (block.rows, block.len);
                if step == 1 {
                    let span = Span { from: to, from_stride: stride, to, to_stride: stride, rows, len };
                    span.activate(s, self.activation);
                } else {
                    for row in 0..rows as isize {
                        let to = to.offset(row * stride);
                        let span =
                            Span { from: to, from_stride: step, to, to_stride: step, rows: len, len: 1 };
                        span.activate(s, self.activation);
                    }
                }
            }
        }
    }
}

/// `output = activation(function(a, b))`, element by element; `a` and `b` are repeated along their axes of length 1 to the shape
/// of `output`.
///
/// `output` may be made of the very elements of `a` or `b` (by `from_raw`, with the same strides, nothing repeated): each
/// element is read before it is written, by the same thread.
///
/// # Panics
/// Where an operand cannot be repeated to the shape of `output`.
pub fn binary(
    isa: Isa,
    pool: &ThreadPool,
    function: Binary,
    activation: Activation,
    a: Strided<'_>,
    b: Strided<'_>,
    output: StridedMut<'_>,
) {
    let shape = output.shape();
    let [a, b] = [a, b].map(|operand| match operand.broadcast(shape) {
        Some(whole) => whole,
        None => panic!("an operand of {:?} does not repeat to {shape:?}", operand.shape()),
    });
    let (from_a, from_b, to) = (Shared(a.ptr()), Shared(b.ptr()), Shared(output.ptr()));
    let kernel = BinaryKernel { function, activation, a: from_a, b: from_b, to };
    Nest::new([a.layout(), b.layout(), output.layout()]).run(isa, pool, &kernel);
}
