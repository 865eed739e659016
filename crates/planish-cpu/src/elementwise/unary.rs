//! Functions of one number: the activations of [`Activation`] and, in one table below, everything else. The loop of each
//! function is made from that table, with the function inside it.

use crate::element::{Element, bf16};
use crate::epilogue::{Activation, Map, Visit, visit_expression};
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp, math};
use crate::strided::{Block, BlockKernel, Nest, Shared, Strided, StridedMut};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// Rows of numbers on their way from one place to another.
#[derive(Clone, Copy)]
pub(crate) struct Span<T = f32, O = T> {
    pub from: *const T,
    pub from_stride: isize,
    pub to: *mut O,
    pub to_stride: isize,
    pub rows: usize,
    pub len: usize,
}

impl<T: Element, O: Element> Span<T, O> {
    /// A single row.
    pub(crate) fn row(from: *const T, to: *mut O, len: usize) -> Self {
        Self { from, from_stride: 0, to, to_stride: 0, rows: 1, len }
    }

    /// `to = map(from)`, in a function of its own: each loop is compiled once for each instruction set.
    ///
    /// # Safety
    /// The numbers must be readable at `from` and writable at `to`; the two are the same or do not overlap.
    #[inline(always)]
    pub(crate) unsafe fn map<S: Simd>(self, s: S, map: impl Map) {
        self.visit(s, map);
    }

    /// `to = activation(from)`.
    ///
    /// # Safety
    /// As for [`Span::map`].
    #[inline(always)]
    pub(crate) unsafe fn activate<S: Simd>(self, s: S, activation: Activation) {
        s.call(ActivateSpan { span: self, activation });
    }
}

struct MapSpan<T, O, M> {
    span: Span<T, O>,
    map: M,
}

impl<T: Element, O: Element, M: Map> SimdOp for MapSpan<T, O, M> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Span { from, from_stride, to, to_stride, rows, len } = self.span;
        for row in 0..rows as isize {
            let mut i = 0;
            while i < len {
                let n = len - i;
                // SAFETY: at most the `n` numbers that are left of the row are touched, which `Span::map` was promised.
                unsafe {
                    let (from, to) =
                        (from.offset(row * from_stride).add(i), to.offset(row * to_stride).add(i));
                    let x = if n >= S::LANES { T::load(s, from) } else { T::load_partial(s, from, n) };
                    let y = self.map.map(s, x);
                    if n >= S::LANES { O::store(s, to, y) } else { O::store_partial(s, to, n, y) }
                }
                i += S::LANES;
            }
        }
    }
}

impl<T: Element, O: Element> Visit for Span<T, O> {
    #[inline(always)]
    fn visit<S: Simd>(self, s: S, map: impl Map) {
        s.call(MapSpan { span: self, map });
    }
}

/// A span on its way through an activation.
struct ActivateSpan<T, O> {
    span: Span<T, O>,
    activation: Activation,
}

impl<T: Element, O: Element> SimdOp for ActivateSpan<T, O> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        self.activation.visit(s, self.span);
    }
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

        /// A span on its way through a function.
        struct UnarySpan<T> {
            span: Span<T>,
            function: Unary,
        }

        impl<T: Element> SimdOp for UnarySpan<T> {
            type Output = ();

            #[inline(always)]
            fn eval<S: Simd>(self, $simd: S) {
                match self.function {
                    // SAFETY: promised to `unary` by its views.
                    Unary::Activation(activation) => unsafe { self.span.activate($simd, activation) },
                    $(Unary::$name $({ $($parameter),+ })? => {
                        visit_expression!(self.span, $simd, $x, $name { $($($parameter),+)? }, $body)
                    })*
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
    /// `scale x + shift`
    Affine { scale, shift } = |x| s.mul_add(x, s.splat(scale), s.splat(shift));
}

struct UnaryKernel<T> {
    function: Unary,
    from: Shared<*const T>,
    to: Shared<*mut T>,
}

impl<T: Element> BlockKernel<2> for UnaryKernel<T> {
    type Dispatch = T;

    #[inline(always)]
    unsafe fn block<S: Simd>(&self, s: S, block: &Block<2>) {
        let span = Span {
            from: self.from.get().wrapping_offset(block.offsets[0]),
            from_stride: block.row_strides[0],
            to: self.to.get().wrapping_offset(block.offsets[1]),
            to_stride: block.row_strides[1],
            rows: block.rows,
            len: block.len,
        };
        // The block lies inside both views, whose steps are 1.
        s.call(UnarySpan { span, function: self.function });
    }
}

/// `output = function(input)`, element by element. `output` may be made of the very rows of `input` (by `from_raw`): each
/// element is read before it is written, by the same thread.
///
/// # Panics
/// Where the views differ in rows or channels.
pub fn unary<T: Element>(
    isa: Isa,
    pool: &ThreadPool,
    function: Unary,
    input: Rows<'_, T>,
    output: RowsMut<'_, T>,
) {
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
pub fn unary_in_place<T: Element>(isa: Isa, pool: &ThreadPool, function: Unary, mut data: RowsMut<'_, T>) {
    let rows = data.reborrow();
    // SAFETY: the rows are those of `data`, borrowed until after the call; `unary` allows both to be the same.
    let input = unsafe { Rows::from_raw(rows.ptr(), rows.rows(), rows.channels(), rows.row_stride()) };
    unary(isa, pool, function, input, rows);
}

struct MapKernel<T, O, M> {
    map: M,
    from: Shared<*const T>,
    to: Shared<*mut O>,
}

impl<T: Element, O: Element, M: Map + Send + Sync> BlockKernel<2> for MapKernel<T, O, M> {
    // The instructions of all elements.
    type Dispatch = bf16;

    #[inline(always)]
    unsafe fn block<S: Simd>(&self, s: S, block: &Block<2>) {
        let span = Span {
            from: self.from.get().wrapping_offset(block.offsets[0]),
            from_stride: block.row_strides[0],
            to: self.to.get().wrapping_offset(block.offsets[1]),
            to_stride: block.row_strides[1],
            rows: block.rows,
            len: block.len,
        };
        // SAFETY: the block lies inside both views, whose steps are 1.
        unsafe { span.map(s, self.map) };
    }
}

/// The function that changes nothing.
#[derive(Clone, Copy)]
struct Same;

impl Map for Same {
    #[inline(always)]
    fn map<S: Simd>(self, _: S, x: S::F32) -> S::F32 {
        x
    }
}

/// The same numbers as other elements, rounded to nearest where those are shorter.
///
/// # Panics
/// Where the views differ in rows or channels.
pub fn convert<T: Element, O: Element>(
    isa: Isa,
    pool: &ThreadPool,
    input: Rows<'_, T>,
    output: RowsMut<'_, O>,
) {
    map_rows(isa, pool, Same, input, output);
}

/// `output = map(input)`, element by element.
///
/// # Panics
/// Where the views differ in rows or channels.
pub(crate) fn map_rows<T: Element, O: Element>(
    isa: Isa,
    pool: &ThreadPool,
    map: impl Map + Send + Sync,
    input: Rows<'_, T>,
    output: RowsMut<'_, O>,
) {
    assert_eq!(
        (input.rows(), input.channels()),
        (output.rows(), output.channels()),
        "as many outputs as inputs"
    );
    let (input, output) = (Strided::from(input), StridedMut::from(output));
    let kernel = MapKernel { map, from: Shared(input.ptr()), to: Shared(output.ptr()) };
    Nest::new([input.layout(), output.layout()]).with_unit_steps().run(isa, pool, &kernel);
}
