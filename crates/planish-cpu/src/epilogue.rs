//! What is fused behind a convolution or a matrix product.
//!
//! A sum that is complete sits in a register; adding the shortcut of a residual block and applying the
//! activation there costs a few instructions, while doing it in a pass of its own would read and write the
//! whole tensor once more. The order is fixed: `out = scale · activation(sum + bias + residual) + shift`, where a
//! PReLU's slopes, and scale and shift, are a number for each channel.

#[cfg(test)]
pub(crate) mod exact;
mod finish;
mod map;

use std::mem::MaybeUninit;

use self::finish::Finish;
pub(crate) use self::map::{Map, Visit, visit_expression};
use crate::element::Element;
use crate::simd::{Simd, each_row, math};
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
    /// `x` where `x > alpha`, else 0.
    ThresholdedRelu {
        /// The threshold.
        alpha: f32,
    },
    /// `x + bias` where `x < -lambda`, `x - bias` where `x > lambda`, else 0 (soft thresholding where `bias = lambda`).
    Shrink {
        /// What the others are brought nearer to zero by.
        bias: f32,
        /// The largest magnitude that becomes zero.
        lambda: f32,
    },
    /// `x` where `x >= 0`, else `alpha (e^x - 1)`
    Elu {
        /// The distance of the limit at minus infinity from zero.
        alpha: f32,
    },
    /// `gamma x` where `x > 0`, else `gamma alpha (e^x - 1)`
    Selu {
        /// The distance of the limit at minus infinity from zero, before `gamma`.
        alpha: f32,
        /// The slope above zero.
        gamma: f32,
    },
    /// `max(0, x) + min(0, alpha (e^(x / alpha) - 1))`
    Celu {
        /// The distance of the limit at minus infinity from zero; not zero.
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
    /// `x / (1 + e^(-alpha x))`
    Swish {
        /// How steep the gate is.
        alpha: f32,
    },
    /// `x min(max(x / 6 + 1 / 2, 0), 1)`
    HardSwish,
    /// The hyperbolic tangent.
    Tanh,
    /// `x (1 + erf(x / sqrt 2)) / 2`
    Gelu,
    /// The approximation `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2` of [`Activation::Gelu`].
    GeluTanh,
    /// `x tanh(ln(1 + e^x))`
    Mish,
    /// `ln(1 + e^x)`
    Softplus,
    /// `x / (1 + |x|)`
    Softsign,
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
            Activation::ThresholdedRelu { alpha } => s.select(s.le(x, s.splat(alpha)), s.zero(), x),
            Activation::Shrink { bias, lambda } => {
                let inside = s.le(s.abs(x), s.splat(lambda));
                let nearer = s.sub(x, s.copy_sign(s.splat(bias), x));
                let bias_negative = s.lt(s.splat(bias), s.zero());
                let further = s.add(x, s.copy_sign(s.splat(bias), x));
                s.select(inside, s.zero(), s.select(bias_negative, further, nearer))
            }
            Activation::Elu { alpha } => {
                s.select(s.lt(x, s.zero()), s.mul(math::exp_m1(s, x), s.splat(alpha)), x)
            }
            Activation::Selu { alpha, gamma } => {
                let below = s.mul(math::exp_m1(s, x), s.splat(alpha));
                s.mul(s.select(s.lt(x, s.zero()), below, x), s.splat(gamma))
            }
            Activation::Celu { alpha } => {
                let below = s.mul(math::exp_m1(s, s.div(x, s.splat(alpha))), s.splat(alpha));
                s.add(s.max(s.zero(), x), s.min(s.zero(), below))
            }
            Activation::Sigmoid => math::sigmoid(s, x),
            Activation::HardSigmoid { alpha, beta } => {
                let line = s.mul_add(x, s.splat(alpha), s.splat(beta));
                s.min(s.splat(1.0), s.max(s.zero(), line))
            }
            Activation::Silu => math::silu(s, x),
            Activation::Swish { alpha } => s.mul(x, math::sigmoid(s, s.mul(x, s.splat(alpha)))),
            Activation::HardSwish => {
                let line = s.mul_add(x, s.splat(1.0 / 6.0), s.splat(0.5));
                s.mul(x, s.min(s.splat(1.0), s.max(s.zero(), line)))
            }
            Activation::Tanh => math::tanh(s, x),
            Activation::Gelu => math::gelu(s, x),
            Activation::GeluTanh => {
                let half = s.max(s.splat(-64.0), s.mul(x, s.splat(0.5)));
                let cube = s.mul(s.mul(x, x), s.splat(0.044_715));
                let inner = s.mul(s.mul_add(cube, x, x), s.splat(0.797_884_6));
                s.mul(half, s.add(s.splat(1.0), math::tanh(s, inner)))
            }
            Activation::Mish => math::mish(s, x),
            Activation::Softplus => math::softplus(s, x),
            Activation::Softsign => s.div(x, s.add(s.splat(1.0), s.abs(x))),
        }
    }
}

/// What the levels of quantised tensors stand for; without meaning where tensors are kept as numbers.
///
/// A sum comes in units of its own, mostly the step of the output: then limits are given in that unit too, and nothing
/// needs to be scaled. All arithmetic is separate multiplications and additions, rounded one by one, so that every
/// instruction set finds the same levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// Where the sum was quantised by itself before the residual was added: its smallest and largest level less the
    /// zero point, in its own steps, and then the size of its step in the unit of what follows.
    pub inner: Option<[f32; 3]>,
    /// The step of the residual in that unit.
    pub residual_step: f32,
    /// The level of the residual that stands for zero.
    pub residual_zero: f32,
    /// The level of the output that stands for zero: added last, once the result is rounded to whole levels.
    pub zero: f32,
}

impl Default for Levels {
    fn default() -> Self {
        Self { inner: None, residual_step: 1.0, residual_zero: 0.0, zero: 0.0 }
    }
}

/// What follows the sum, in the order of the fields. What is for each channel has as many numbers as the output has
/// channels.
#[derive(Debug)]
pub struct Epilogue<'a, T = f32> {
    /// Added first; of the shape of the output.
    pub residual: Option<Rows<'a, T>>,
    /// For each channel, what negative numbers are multiplied with: a PReLU (He et al., arXiv 1502.01852).
    pub slopes: Option<&'a [f32]>,
    /// Applied to what is there by then.
    pub activation: Activation,
    /// For each channel, a factor.
    pub scale: Option<&'a [f32]>,
    /// For each channel, added last.
    pub shift: Option<&'a [f32]>,
    /// What residual and output stand for where they are levels.
    pub levels: Levels,
}

impl<T> Epilogue<'_, T> {
    /// Refuses an epilogue that does not fit an output of this shape.
    pub(crate) fn check(&self, rows: usize, channels: usize) -> Result<(), String> {
        if let Some(r) = self.residual
            && (r.rows(), r.channels()) != (rows, channels)
        {
            let (own_rows, own_channels) = (r.rows(), r.channels());
            return Err(format!(
                "a residual of {own_rows}×{own_channels} for an output of {rows}×{channels}"
            ));
        }
        for (what, numbers) in [("slopes", self.slopes), ("scale", self.scale), ("shift", self.shift)] {
            if let Some(numbers) = numbers
                && numbers.len() != channels
            {
                return Err(format!("{what} of {} numbers for {channels} channels", numbers.len()));
            }
        }
        Ok(())
    }
}

impl<T> Clone for Epilogue<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Epilogue<'_, T> {}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        let (activation, levels) = (Activation::None, Levels::default());
        Self { residual: None, slopes: None, activation, scale: None, shift: None, levels }
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
    /// From the first column on; null where there are none.
    slopes: *const f32,
    scale: *const f32,
    shift: *const f32,
    levels: Levels,
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
        let from_column = |numbers: Option<&[f32]>| {
            numbers.map_or(std::ptr::null(), |numbers| numbers.as_ptr().wrapping_add(column))
        };
        Self {
            outputs,
            valid,
            out: out.ptr().wrapping_add(column),
            out_stride: out.row_stride(),
            residual: residual.map_or(std::ptr::null(), |r| r.ptr().wrapping_add(column)),
            residual_stride: residual.map_or(0, |r| r.row_stride()),
            activation: epilogue.activation,
            slopes: from_column(epilogue.slopes),
            scale: from_column(epilogue.scale),
            shift: from_column(epilogue.shift),
            levels: epilogue.levels,
        }
    }

    /// The same with what the output already holds as the residual.
    pub(crate) fn accumulating(self) -> Self {
        Self { residual: self.out, residual_stride: self.out_stride, ..self }
    }

    /// Does the epilogue, and stores.
    ///
    /// # Safety
    /// `outputs` holds `ROWS` rows; the `valid` columns of each are writable in the output by nobody else, and
    /// readable in the residual, where there is one, and in what is for each channel.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        s: S,
        sums: &[[S::F32; VECTORS]; ROWS],
    ) {
        // A copy that nothing points to: what is stored can't be part of it, so that it needs no reading again.
        let this = *self;
        let full = this.valid == VECTORS * S::LANES;
        let alone = this.residual.is_null() && (!T::INTEGER || this.levels.inner.is_none());
        // SAFETY: promised by the caller; `spilled` holds what `Finish` reads.
        unsafe {
            match this.limits() {
                Some(limits) if full && alone => {
                    this.limit_and_store::<S, ROWS, VECTORS, false>(s, sums, limits);
                }
                Some(limits) if full && !T::INTEGER => {
                    this.limit_and_store::<S, ROWS, VECTORS, true>(s, sums, limits);
                }
                _ => {
                    let mut spilled = MaybeUninit::<[[S::F32; VECTORS]; ROWS]>::uninit();
                    let first = spilled.as_mut_ptr().cast::<S::F32>();
                    each_row!(i of ROWS {
                        for j in 0..VECTORS {
                            first.add(i * VECTORS + j).write(sums[i][j]);
                        }
                    });
                    s.call(Finish { destination: self, sums: first, rows: ROWS, vectors: VECTORS });
                }
            }
        }
    }

    /// The limits of what only limits, whatever else is added before; `None` where more than that is to be done.
    #[inline(always)]
    fn limits(&self) -> Option<(f32, f32)> {
        let plain = self.slopes.is_null() && self.scale.is_null() && self.shift.is_null();
        let (low, high) = self.activation.limits().filter(|_| plain)?;
        Some(self.within(low, high))
    }

    /// The activations that only limit, all in registers, for whole vectors.
    ///
    /// # Safety
    /// As [`Destination::store`]; `valid` is the whole width, and `RESIDUAL` only where there is one.
    #[inline(always)]
    unsafe fn limit_and_store<S: Simd, const ROWS: usize, const VECTORS: usize, const RESIDUAL: bool>(
        &self,
        s: S,
        sums: &[[S::F32; VECTORS]; ROWS],
        (low, high): (f32, f32),
    ) {
        let (low, high) = (s.splat(low), s.splat(high));
        each_row!(i of ROWS {
            // SAFETY: promised by the caller.
            unsafe {
                let output = *self.outputs.add(i);
                let mut row = sums[i];
                for j in 0..VECTORS {
                    if RESIDUAL {
                        row[j] = self.with_residual::<S, true>(s, row[j], output, j * S::LANES);
                    }
                    row[j] = s.min(high, s.max(low, row[j]));
                }
                for j in 0..VECTORS {
                    if T::INTEGER && VECTORS.is_multiple_of(2) {
                        if j % 2 == 1 {
                            self.keep_two(s, [row[j - 1], row[j]], output, (j - 1) * S::LANES);
                        }
                    } else {
                        self.keep::<S, true>(s, row[j], output, j * S::LANES);
                    }
                }
            }
        });
    }

    /// A sum with the residual of its row, from this column of the destination on.
    ///
    /// # Safety
    /// As [`Destination::store`], for this row of the output; `FULL` only where the vector's columns all exist.
    #[inline(always)]
    unsafe fn with_residual<S: Simd, const FULL: bool>(
        &self,
        s: S,
        sum: S::F32,
        row: usize,
        column: usize,
    ) -> S::F32 {
        let levels = self.levels;
        let mut sum = sum;
        if T::INTEGER
            && let Some([low, high, step]) = levels.inner
        {
            let level = s.round(s.min(s.splat(high), s.max(s.splat(low), sum)));
            sum = s.mul(level, s.splat(step));
        }
        if self.residual.is_null() {
            return sum;
        }
        let left = self.valid.saturating_sub(column);
        // SAFETY: promised by the caller.
        let residual = unsafe {
            let p = self.residual.add(row * self.residual_stride + column);
            if FULL { T::load(s, p) } else { T::load_partial(s, p, left) }
        };
        if !T::INTEGER {
            return s.add(sum, residual);
        }
        let residual = s.sub(residual, s.splat(levels.residual_zero));
        s.add(sum, s.mul(residual, s.splat(levels.residual_step)))
    }

    /// Limits that keep levels within a byte.
    #[inline(always)]
    fn within(&self, low: f32, high: f32) -> (f32, f32) {
        let zero = self.levels.zero;
        if T::INTEGER {
            (low.max(-zero).min(255.0 - zero), high.min(255.0 - zero).max(-zero))
        } else {
            (low, high)
        }
    }

    /// Writes a finished vector, whose levels are [`within`](Self::within) a byte, to a row of the output, from this
    /// column of the destination on.
    ///
    /// # Safety
    /// As [`Destination::store`], for this row of the output; `FULL` only where the vector's columns all exist.
    #[inline(always)]
    unsafe fn keep<S: Simd, const FULL: bool>(&self, s: S, value: S::F32, row: usize, column: usize) {
        let left = self.valid.saturating_sub(column);
        // SAFETY: promised by the caller; an element that is a level is a byte.
        unsafe {
            let p = self.out.add(row * self.out_stride + column);
            if T::INTEGER {
                let bits = self.level(s, value);
                if FULL {
                    s.store_low_bytes(p.cast(), bits);
                } else {
                    s.store_low_bytes_partial(p.cast(), left, bits);
                }
            } else if FULL {
                T::store(s, p, value);
            } else {
                T::store_partial(s, p, left, value);
            }
        }
    }

    /// [`keep`](Self::keep) for two vectors of levels next to each other, which costs hardly more than one.
    ///
    /// # Safety
    /// As [`Destination::store`], for this row of the output; the elements are levels, and both vectors' columns all
    /// exist.
    #[inline(always)]
    unsafe fn keep_two<S: Simd>(&self, s: S, [first, second]: [S::F32; 2], row: usize, column: usize) {
        let (first, second) = (self.level(s, first), self.level(s, second));
        // SAFETY: promised by the caller; an element that is a level is a byte.
        unsafe {
            s.store_bytes_of_two(self.out.add(row * self.out_stride + column).cast(), first, second);
        }
    }

    /// The levels of numbers that were rounded to none yet. Ties are between whole levels, whether the zero point is even
    /// or odd.
    #[inline(always)]
    fn level<S: Simd>(&self, s: S, value: S::F32) -> S::F32 {
        s.add_i32(s.f32_to_i32(value), s.splat_bits(self.levels.zero as i32 as u32))
    }
}
