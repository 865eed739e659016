//! What is fused behind a convolution or a matrix product.
//!
//! A sum that is complete sits in a register; adding the shortcut of a residual block and applying the
//! activation there costs a few instructions, while doing it in a pass of its own would read and write the
//! whole tensor once more. The order is fixed: `out = activation(sum + bias + residual)`.

use crate::element::Element;
use crate::simd::{Simd, SimdOp, math};
use crate::view::{Rows, RowsMut};

/// A function of one number, applied to every element.
///
/// NaN stays NaN. Definitions follow the ONNX operators of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Activation {
    /// `x`
    #[default]
    None,
    /// `max(0, x)`
    Relu,
    /// `min(max(x, min), max)`
    Clip {
        /// The smallest result.
        min: f32,
        /// The largest result.
        max: f32,
    },
    /// `x` where `x >= 0`, else `alpha x`
    LeakyRelu {
        /// The slope below zero.
        alpha: f32,
    },
    /// `x` where `x >= 0`, else `alpha (e^x - 1)`
    Elu {
        /// The distance of the limit at minus infinity from zero.
        alpha: f32,
    },
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `min(max(alpha x + beta, 0), 1)`
    HardSigmoid {
        /// The slope.
        alpha: f32,
        /// The value at zero.
        beta: f32,
    },
    /// `x / (1 + e^-x)`
    Silu,
    /// `x min(max(x / 6 + 1 / 2, 0), 1)`
    HardSwish,
    /// The hyperbolic tangent.
    Tanh,
    /// `x (1 + erf(x / sqrt 2)) / 2`
    Gelu,
    /// `x tanh(ln(1 + e^x))`
    Mish,
    /// `ln(1 + e^x)`
    Softplus,
}

impl Activation {
    /// The limits of an activation that only limits, `None` for the others. No activation at all has infinite
    /// ones.
    #[inline]
    pub fn limits(self) -> Option<(f32, f32)> {
        match self {
            Activation::None => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Activation::Relu => Some((0.0, f32::INFINITY)),
            Activation::Clip { min, max } => Some((min, max)),
            _ => None,
        }
    }

    /// The function of every lane.
    #[inline(always)]
    pub fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        match self {
            Activation::None => x,
            Activation::Relu => s.max(s.zero(), x),
            // The order of the operands keeps NaN, and lets the upper limit win where they cross, as in ONNX.
            Activation::Clip { min, max } => s.min(s.splat(max), s.max(s.splat(min), x)),
            Activation::LeakyRelu { alpha } => s.select(s.lt(x, s.zero()), s.mul(x, s.splat(alpha)), x),
            Activation::Elu { alpha } => {
                s.select(s.lt(x, s.zero()), s.mul(math::exp_m1(s, x), s.splat(alpha)), x)
            }
            Activation::Sigmoid => math::sigmoid(s, x),
            Activation::HardSigmoid { alpha, beta } => {
                let line = s.mul_add(x, s.splat(alpha), s.splat(beta));
                s.min(s.splat(1.0), s.max(s.zero(), line))
            }
            Activation::Silu => math::silu(s, x),
            Activation::HardSwish => {
                let line = s.mul_add(x, s.splat(1.0 / 6.0), s.splat(0.5));
                s.mul(x, s.min(s.splat(1.0), s.max(s.zero(), line)))
            }
            Activation::Tanh => math::tanh(s, x),
            Activation::Gelu => math::gelu(s, x),
            Activation::Mish => math::mish(s, x),
            Activation::Softplus => math::softplus(s, x),
        }
    }
}

/// What follows the sum: an optional residual of the shape of the output, then the activation.
#[derive(Debug)]
pub struct Epilogue<'a, T = f32> {
    /// Added before the activation.
    pub residual: Option<Rows<'a, T>>,
    /// Applied last.
    pub activation: Activation,
}

impl<T> Clone for Epilogue<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Epilogue<'_, T> {}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Self { residual: None, activation: Activation::None }
    }
}

/// Where a tile of sums goes: some rows of the output times up to a few vectors of columns.
#[derive(Clone, Copy)]
pub(crate) struct Destination<T = f32> {
    /// The output row of each row of the tile.
    pub outputs: *const usize,
    /// The columns that exist; lanes behind them are neither read nor written.
    pub valid: usize,
    /// Row `r` starts at `out + r * out_stride`.
    out: *mut T,
    out_stride: usize,
    /// As `out`; null where there is no residual.
    residual: *const T,
    residual_stride: usize,
    activation: Activation,
}

impl<T: Element> Destination<T> {
    /// The columns `column .. column + valid` of some rows of an output.
    pub(crate) fn new(
        out: &RowsMut<'_, T>,
        epilogue: &Epilogue<'_, T>,
        column: usize,
        valid: usize,
        outputs: *const usize,
    ) -> Self {
        let residual = epilogue.residual;
        Self {
            outputs,
            valid,
            out: out.ptr().wrapping_add(column),
            out_stride: out.row_stride(),
            residual: residual.map_or(std::ptr::null(), |r| r.ptr().wrapping_add(column)),
            residual_stride: residual.map_or(0, |r| r.row_stride()),
            activation: epilogue.activation,
        }
    }

    /// The same with what the output already holds as the residual.
    pub(crate) fn accumulating(self) -> Self {
        Self { residual: self.out, residual_stride: self.out_stride, ..self }
    }

    /// Adds the residual, applies the activation and stores.
    ///
    /// # Safety
    /// `outputs` holds `ROWS` rows; the `valid` columns of each are writable in the output by nobody else, and
    /// readable in the residual, where there is one.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        s: S,
        sums: &[[S::F32; VECTORS]; ROWS],
    ) {
        // SAFETY: promised by the caller; `spilled` holds what `Finish` reads.
        unsafe {
            match self.activation.limits() {
                Some(limits) if self.valid == VECTORS * S::LANES => {
                    self.limit_and_store::<S, ROWS, VECTORS, true>(s, sums, limits);
                }
                Some(limits) => self.limit_and_store::<S, ROWS, VECTORS, false>(s, sums, limits),
                None => {
                    let mut spilled = [[s.zero(); VECTORS]; ROWS];
                    for i in 0..ROWS {
                        for j in 0..VECTORS {
                            spilled[i][j] = sums[i][j];
                        }
                    }
                    let sums = spilled.as_ptr().cast::<S::F32>();
                    s.call(Finish { destination: self, sums, rows: ROWS, vectors: VECTORS });
                }
            }
        }
    }

    /// The activations that only limit, all in registers.
    ///
    /// # Safety
    /// As [`Destination::store`]; `FULL` only where `valid` is the whole width.
    #[inline(always)]
    unsafe fn limit_and_store<S: Simd, const ROWS: usize, const VECTORS: usize, const FULL: bool>(
        &self,
        s: S,
        sums: &[[S::F32; VECTORS]; ROWS],
        (low, high): (f32, f32),
    ) {
        let (low, high) = (s.splat(low), s.splat(high));
        for (i, row) in sums.iter().enumerate() {
            // SAFETY: promised by the caller.
            unsafe {
                let output = *self.outputs.add(i);
                for (j, &sum) in row.iter().enumerate() {
                    let offset = j * S::LANES;
                    let left = self.valid.saturating_sub(offset);
                    let mut sum = sum;
                    if !self.residual.is_null() {
                        let p = self.residual.add(output * self.residual_stride + offset);
                        sum = s.add(sum, if FULL { T::load(s, p) } else { T::load_partial(s, p, left) });
                    }
                    let value = s.min(high, s.max(low, sum));
                    let p = self.out.add(output * self.out_stride + offset);
                    if FULL { T::store(s, p, value) } else { T::store_partial(s, p, left, value) }
                }
            }
        }
    }
}

/// The epilogue of activations too long to be copied into every tile kernel: works on sums spilled to memory.
struct Finish<'a, T, V> {
    destination: &'a Destination<T>,
    sums: *const V,
    rows: usize,
    vectors: usize,
}

impl<T: Element, V> SimdOp for Finish<'_, T, V> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Finish { destination: d, sums, rows, vectors } = self;
        for i in 0..rows {
            for j in 0..vectors {
                let offset = j * S::LANES;
                let left = d.valid.saturating_sub(offset);
                // SAFETY: `Destination::store` spilled `rows * vectors` vectors of this instruction set, and
                // its caller promises the rows.
                unsafe {
                    let output = *d.outputs.add(i);
                    let mut sum = s.load(sums.add(i * vectors + j).cast());
                    if !d.residual.is_null() {
                        let p = d.residual.add(output * d.residual_stride + offset);
                        sum = s.add(sum, T::load_partial(s, p, left));
                    }
                    let value = d.activation.apply(s, sum);
                    T::store_partial(s, d.out.add(output * d.out_stride + offset), left, value);
                }
            }
        }
    }
}
