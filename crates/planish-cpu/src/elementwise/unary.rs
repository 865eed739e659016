//! Functions of one number: the activations of [`Activation`] and, in one table below, everything else. The loop of each
//! function is made from that table, with the function inside it.

use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::simd::{Simd, math};
use crate::strided::{Block, BlockKernel, Nest, Shared, Strided, StridedMut};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// Applies `f` to `len` numbers. `f` is called in one place, so that it is inlined.
///
/// # Safety
/// `len` numbers must be readable at `from` and writable at `to`; the two are the same or do not overlap.
#[inline(always)]
pub(crate) unsafe fn map<S: Simd>(
    s: S,
    from: *const f32,
    to: *mut f32,
    len: usize,
    f: impl Fn(S::F32) -> S::F32,
) {
    let mut i = 0;
    while i < len {
        let n = len - i;
        // SAFETY: `i < len`, and at most `n` numbers are touched.
        unsafe {
            let x = if n >= S::LANES { s.load(from.add(i)) } else { s.load_partial(from.add(i), n) };
            let y = f(x);
            if n >= S::LANES { s.store(to.add(i), y) } else { s.store_partial(to.add(i), n, y) }
        }
        i += S::LANES;
    }
}

/// Applies an activation to `len` numbers: a match around the loops, because one inside would be taken for each vector.
///
/// # Safety
/// As for [`map`].
#[inline(always)]
pub(crate) unsafe fn activate<S: Simd>(
    activation: Activation,
    s: S,
    from: *const f32,
    to: *mut f32,
    len: usize,
) {
    macro_rules! loops {
        ($($name:ident $({ $($parameter:ident),+ })?),*) => {
            match activation {
                $(Activation::$name $({ $($parameter),+ })? => {
                    // SAFETY: promised by the caller.
                    unsafe {
                        map(s, from, to, len, |x| Activation::$name $({ $($parameter),+ })?.apply(s, x));
                    }
                })*
            }
        };
    }
    loops!(
        None,
        Relu,
        Clip { min, max },
        LeakyRelu { alpha },
        Elu { alpha },
        Sigmoid,
        HardSigmoid { alpha, beta },
        Silu,
        HardSwish,
        Tanh,
        Gelu,
        Mish,
        Softplus
    );
}

macro_rules! functions {
    ($simd:ident; $($(#[$doc:meta])* $name:ident $({ $($parameter:ident),+ })? = |$x:ident| $body:expr;)*) => {
        /// A function of one number. NaN gives NaN.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Unary {
            /// One of the functions that can also follow a convolution.
            Activation(Activation),
            $($(#[$doc])* $name $({ $(
                #[doc = concat!("`", stringify!($parameter), "` of the definition.")]
                $parameter: f32
            ),+ })?),*
        }

        impl Unary {
            /// Applies the function to `len` numbers.
            ///
            /// # Safety
            /// As for [`map`].
            #[inline(always)]
            unsafe fn apply<S: Simd>(self, $simd: S, from: *const f32, to: *mut f32, len: usize) {
                // SAFETY: promised by the caller.
                unsafe {
                    match self {
                        Unary::Activation(activation) => activate(activation, $simd, from, to, len),
                        $(Unary::$name $({ $($parameter),+ })? => map($simd, from, to, len, |$x| $body)),*
                    }
                }
            }
        }
    };
}

functions! { s;
    /// `|x|`
    Abs = |x| s.abs(x);
    /// `-x`
    Neg = |x| s.neg(x);
    /// -1, 0 or 1.
    Sign = |x| {
        let positive = s.select(s.lt(s.zero(), x), s.splat(1.0), x);
        s.select(s.lt(x, s.zero()), s.splat(-1.0), positive)
    };
    /// The largest integer not above.
    Floor = |x| s.floor(x);
    /// The smallest integer not below.
    Ceil = |x| s.neg(s.floor(s.neg(x)));
    /// The nearest integer, ties to even.
    Round = |x| s.round(x);
    /// The square root.
    Sqrt = |x| s.sqrt(x);
    /// `x * x`
    Square = |x| s.mul(x, x);
    /// `1 / x`
    Reciprocal = |x| s.div(s.splat(1.0), x);
    /// `e^x`
    Exp = |x| math::exp(s, x);
    /// The natural logarithm.
    Log = |x| math::ln(s, x);
    /// The error function.
    Erf = |x| math::erf(s, x);
    /// `gamma x` where `x > 0`, else `gamma alpha (e^x - 1)`.
    Selu { alpha, gamma } = |x| {
        let below = s.mul(math::exp_m1(s, x), s.splat(alpha));
        s.mul(s.select(s.lt(x, s.zero()), below, x), s.splat(gamma))
    };
    /// `max(0, x) + min(0, alpha (e^(x / alpha) - 1))`
    Celu { alpha } = |x| {
        let below = s.mul(math::exp_m1(s, s.div(x, s.splat(alpha))), s.splat(alpha));
        s.add(s.max(s.zero(), x), s.min(s.zero(), below))
    };
    /// `x` where `x > alpha`, else 0.
    ThresholdedRelu { alpha } = |x| {
        s.select(s.le(x, s.splat(alpha)), s.zero(), x)
    };
    /// `x + bias` where `x < -lambda`, `x - bias` where `x > lambda`, else 0 (soft thresholding where `bias = lambda`).
    Shrink { bias, lambda } = |x| {
        let inside = s.le(s.abs(x), s.splat(lambda));
        let nearer = s.sub(x, s.copy_sign(s.splat(bias), x));
        let bias_negative = s.lt(s.splat(bias), s.zero());
        let further = s.add(x, s.copy_sign(s.splat(bias), x));
        s.select(inside, s.zero(), s.select(bias_negative, further, nearer))
    };
    /// `x / (1 + |x|)`
    Softsign = |x| s.div(x, s.add(s.splat(1.0), s.abs(x)));
    /// `x / (1 + e^(-alpha x))`
    Swish { alpha } = |x| s.mul(x, math::sigmoid(s, s.mul(x, s.splat(alpha))));
    /// The approximation `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2` of [`Activation::Gelu`].
    GeluTanh = |x| {
        let half = s.max(s.splat(-64.0), s.mul(x, s.splat(0.5)));
        let cube = s.mul(s.mul(x, x), s.splat(0.044_715));
        let inner = s.mul(s.mul_add(cube, x, x), s.splat(0.797_884_6));
        s.mul(half, s.add(s.splat(1.0), math::tanh(s, inner)))
    };
    /// `scale x + shift`
    Affine { scale, shift } = |x| s.mul_add(x, s.splat(scale), s.splat(shift));
}

struct UnaryKernel {
    function: Unary,
    from: Shared<*const f32>,
    to: Shared<*mut f32>,
}

impl BlockKernel<2> for UnaryKernel {
    #[inline(always)]
    unsafe fn block<S: Simd>(&self, s: S, block: &Block<2>) {
        for row in 0..block.rows as isize {
            // SAFETY: the block lies inside both views, whose steps are 1.
            unsafe {
                let from = self.from.get().offset(block.offsets[0] + row * block.row_strides[0]);
                let to = self.to.get().offset(block.offsets[1] + row * block.row_strides[1]);
                self.function.apply(s, from, to, block.len);
            }
        }
    }
}

/// `output = function(input)`, element by element. `output` may be made of the very rows of `input` (by `from_raw`): each
/// element is read before it is written, by the same thread.
///
/// # Panics
/// Where the views differ in rows or channels.
pub fn unary(isa: Isa, pool: &ThreadPool, function: Unary, input: Rows<'_>, output: RowsMut<'_>) {
    assert_eq!(
        (input.rows(), input.channels()),
        (output.rows(), output.channels()),
        "as many outputs as inputs"
    );
    let (input, output) = (Strided::from(input), StridedMut::from(output));
    let kernel = UnaryKernel { function, from: Shared(input.ptr()), to: Shared(output.ptr()) };
    Nest::new([input.layout(), output.layout()]).with_unit_steps().run(isa, pool, &kernel);
}

/// `data = function(data)`, element by element.
pub fn unary_in_place(isa: Isa, pool: &ThreadPool, function: Unary, mut data: RowsMut<'_>) {
    let rows = data.reborrow();
    // SAFETY: the rows are those of `data`, borrowed until after the call; `unary` allows both to be the same.
    let input = unsafe { Rows::from_raw(rows.ptr(), rows.rows(), rows.channels(), rows.row_stride()) };
    unary(isa, pool, function, input, rows);
}
