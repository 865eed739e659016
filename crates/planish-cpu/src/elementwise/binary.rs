//! Functions of two numbers, over tensors that need not have the same shape.

use super::unary::Span;
use crate::element::Element;
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp};
use crate::strided::{Block, BlockKernel, Nest, Shared, Strided, StridedMut};
use crate::threads::ThreadPool;

/// The most lanes of any instruction set.
const MOST_LANES: usize = 16;

/// The function inside the loops: see [`Map`](super::Map) for why this is no closure.
pub(crate) trait Combine: Copy {
    /// The function. Implementations are `#[inline(always)]`.
    fn combine<S: Simd>(self, s: S, a: S::F32, b: S::F32) -> S::F32;
}

macro_rules! functions {
    ($simd:ident, $a:ident, $b:ident; $($(#[$doc:meta])* $name:ident = $body:expr;)*) => {
        /// A function of two numbers `a` and `b`. NaN in either gives NaN, but for [`Binary::Power`], which keeps `1^b = a^0 = 1`, and
        /// [`Binary::PRelu`], which takes no notice of `b` where `a >= 0`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Binary {
            $($(#[$doc])* $name),*
        }

        impl Binary {
            /// Runs the loop of the function over a block.
            #[inline(always)]
            fn run<S: Simd, T: Element>(self, s: S, operands: Operands<T>) {
                match self {
                    $(Binary::$name => {
                        #[derive(Clone, Copy)]
                        struct $name;

                        impl Combine for $name {
                            #[inline(always)]
                            fn combine<S: Simd>(self, $simd: S, $a: S::F32, $b: S::F32) -> S::F32 {
                                $body
                            }
                        }

                        operands.run(s, $name);
                    })*
                }
            }
        }
    };
}

functions! { s, a, b;
    /// `a + b`
    Add = s.add(a, b);
    /// `a - b`
    Sub = s.sub(a, b);
    /// `a * b`
    Mul = s.mul(a, b);
    /// `a / b`
    Div = s.div(a, b);
    /// The smaller. (`min` and `max` of vectors give their second operand where either is NaN: a NaN of the first is put back.)
    Min = s.select(s.eq(a, a), s.min(a, b), a);
    /// The larger.
    Max = s.select(s.eq(a, a), s.max(a, b), a);
    /// `a^b`
    Power = power(s, a, b);
    /// `a` where `a >= 0`, else `a * b`.
    PRelu = s.select(s.lt(a, s.zero()), s.mul(a, b), a);
    /// `(a - b)^2`
    SquaredDifference = {
        let difference = s.sub(a, b);
        s.mul(difference, difference)
    };
}

/// `max(0, a + b)`: the end of a residual block, the one pair of function and activation common enough for a loop of its own.
#[derive(Clone, Copy)]
struct AddRelu;

impl Combine for AddRelu {
    #[inline(always)]
    fn combine<S: Simd>(self, s: S, a: S::F32, b: S::F32) -> S::F32 {
        s.max(s.zero(), s.add(a, b))
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

/// Steps between the numbers of an operand that loops are made for: consecutive, repeated, any.
const ONE: u8 = 0;
const REPEATED: u8 = 1;
const ANY: u8 = 2;

/// The vector at index `i` of an operand.
///
/// # Safety
/// `min(n, LANES)` numbers must be readable from index `i` on.
#[inline(always)]
unsafe fn read<S: Simd, T: Element, const STEP: u8>(
    s: S,
    p: *const T,
    step: isize,
    i: usize,
    n: usize,
) -> S::F32 {
    // SAFETY: promised by the caller.
    unsafe {
        match STEP {
            ONE if n >= S::LANES => T::load(s, p.add(i)),
            ONE => T::load_partial(s, p.add(i), n),
            REPEATED => s.splat((*p).to_f32()),
            _ => {
                let mut lanes = [0.0; MOST_LANES];
                for (lane, to) in lanes.iter_mut().enumerate().take(n.min(S::LANES)) {
                    *to = (*p.offset((i + lane) as isize * step)).to_f32();
                }
                s.load(lanes.as_ptr())
            }
        }
    }
}

/// Writes what [`read`] reads.
///
/// # Safety
/// `min(n, LANES)` numbers must be writable from index `i` on.
#[inline(always)]
unsafe fn write<S: Simd, T: Element, const STEP: u8>(
    s: S,
    p: *mut T,
    step: isize,
    i: usize,
    n: usize,
    v: S::F32,
) {
    // SAFETY: promised by the caller.
    unsafe {
        match STEP {
            ONE if n >= S::LANES => T::store(s, p.add(i), v),
            ONE => T::store_partial(s, p.add(i), n, v),
            _ => {
                let mut lanes = [0.0; MOST_LANES];
                s.store(lanes.as_mut_ptr(), v);
                for (lane, &x) in lanes.iter().enumerate().take(n.min(S::LANES)) {
                    *p.offset((i + lane) as isize * step) = T::from_f32(x);
                }
            }
        }
    }
}

/// A block of both operands and the output.
#[derive(Clone, Copy)]
pub(crate) struct Operands<T> {
    pub a: *const T,
    pub b: *const T,
    pub to: *mut T,
    pub block: Block<3>,
}

impl<T: Element> Operands<T> {
    #[inline(always)]
    pub(crate) fn run<S: Simd>(self, s: S, combine: impl Combine) {
        match self.block.steps {
            [1, 1, 1] => s.call(Loop::<T, _, ONE, ONE, ONE> { operands: self, combine }),
            [1, 0, 1] => s.call(Loop::<T, _, ONE, REPEATED, ONE> { operands: self, combine }),
            [0, 1, 1] => s.call(Loop::<T, _, REPEATED, ONE, ONE> { operands: self, combine }),
            _ => s.call(Loop::<T, _, ANY, ANY, ANY> { operands: self, combine }),
        }
    }
}

struct Loop<T, C, const A: u8, const B: u8, const TO: u8> {
    operands: Operands<T>,
    combine: C,
}

impl<T: Element, C: Combine, const A: u8, const B: u8, const TO: u8> SimdOp for Loop<T, C, A, B, TO> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Operands { a, b, to, block } = self.operands;
        let ([a_step, b_step, to_step], [a_stride, b_stride, to_stride]) = (block.steps, block.row_strides);
        for row in 0..block.rows as isize {
            let mut i = 0;
            while i < block.len {
                let n = block.len - i;
                // SAFETY: the block lies inside both operands and the output.
                unsafe {
                    let x = read::<S, T, A>(s, a.offset(row * a_stride), a_step, i, n);
                    let y = read::<S, T, B>(s, b.offset(row * b_stride), b_step, i, n);
                    let z = self.combine.combine(s, x, y);
                    write::<S, T, TO>(s, to.offset(row * to_stride), to_step, i, n, z);
                }
                i += S::LANES;
            }
        }
    }
}

struct BinaryKernel<T> {
    function: Binary,
    activation: Activation,
    a: Shared<*const T>,
    b: Shared<*const T>,
    to: Shared<*mut T>,
}

impl<T: Element> BlockKernel<3> for BinaryKernel<T> {
    type Dispatch = T;

    #[inline(always)]
    unsafe fn block<S: Simd>(&self, s: S, block: &Block<3>) {
        let [a, b, to] = block.offsets;
        // SAFETY: the block lies inside both operands and the output.
        let (a, b, to) =
            unsafe { (self.a.get().offset(a), self.b.get().offset(b), self.to.get().offset(to)) };
        let operands = Operands { a, b, to, block: *block };
        match (self.function, self.activation) {
            (Binary::Add, Activation::Relu) => return operands.run(s, AddRelu),
            (function, Activation::None) => return function.run(s, operands),
            (function, _) => function.run(s, operands),
        }
        // The activation passes over the block once more, in the first cache.
        let (step, stride) = (block.steps[2], block.row_strides[2]);
        let (rows, len) = (block.rows, block.len);
        // SAFETY: the block lies inside the output.
        unsafe {
            if step == 1 {
                let span = Span { from: to, from_stride: stride, to, to_stride: stride, rows, len };
                span.activate(s, self.activation);
            } else {
                for row in 0..rows as isize {
                    let to = to.offset(row * stride);
                    let span = Span { from: to, from_stride: step, to, to_stride: step, rows: len, len: 1 };
                    span.activate(s, self.activation);
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
pub fn binary<T: Element>(
    isa: Isa,
    pool: &ThreadPool,
    function: Binary,
    activation: Activation,
    a: Strided<'_, T>,
    b: Strided<'_, T>,
    output: StridedMut<'_, T>,
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
