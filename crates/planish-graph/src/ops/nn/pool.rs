//! MaxPool and AveragePool: each window of a channel becomes its largest element or its mean.
//!
//! Pooling makes a network forgive small shifts and shrinks what later layers see (LeCun et al., 1998; max pooling:
//! Ranzato et al., 2007). Padding never wins a maximum, and counts in a mean only under `count_include_pad`.

use super::checks::{float_input, split_shape};
use super::conv::{shaped, zeros};
use super::window::{AutoPad, Window, WindowRule, read_extents, read_pads, write_extents, write_window};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Numbers, Tensor};
use std::sync::Arc;

/// What became of every window, and the output's shape.
pub(super) type Pooled<R> = (Vec<R>, Vec<usize>);

/// The window attributes that all pools share. Empty lists stand for the defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolWindow {
    /// Elements along each spatial axis.
    pub kernel_shape: Vec<usize>,
    /// The distance of windows along each spatial axis.
    pub strides: Vec<usize>,
    /// Padding at the beginning of each spatial axis, then at the end of each.
    pub pads: Vec<usize>,
    /// The distance of a window's elements along each spatial axis.
    pub dilations: Vec<usize>,
    /// Whether `pads` counts.
    pub auto_pad: AutoPad,
    /// Whether a last window that the input does not fill is kept (unless it would start in the padding).
    pub ceil_mode: bool,
}

impl PoolWindow {
    pub(super) fn from_attributes(attributes: &Attributes) -> Result<PoolWindow> {
        let auto_pad = AutoPad::read(attributes)?;
        Ok(PoolWindow {
            kernel_shape: Attributes::require("kernel_shape", read_extents(attributes, "kernel_shape")?)?,
            strides: read_extents(attributes, "strides")?.unwrap_or_default(),
            pads: read_pads(attributes, auto_pad)?,
            dilations: read_extents(attributes, "dilations")?.unwrap_or_default(),
            auto_pad,
            ceil_mode: attributes.flag("ceil_mode", false)?,
        })
    }
    /// The attributes as a rule for windows.
    pub fn rule(&self) -> WindowRule<'_> {
        WindowRule {
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: self.auto_pad,
            ceil_mode: self.ceil_mode,
        }
    }
    /// The window over an input `[N, C, …]` of this shape; an error where there is none.
    pub fn resolve(&self, input: &[usize]) -> Result<Window> {
        let (_, _, spatial) = split_shape(input, 1)?;
        let window = self.rule().resolve(spatial, &self.kernel_shape)?;
        for axis in 0..spatial.len() {
            let span = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
            if window.pads_begin[axis].max(window.pads_end[axis]) >= span {
                invalid!("attribute \"pads\": padding of axis {axis} is as large as the window of {span}");
            }
        }
        Ok(window)
    }
    /// The shape of a pool's output, where the input's is known.
    pub(super) fn infer_shape(&self, inputs: &[Option<Fact>]) -> Result<Option<Vec<usize>>> {
        let Some(shape) = required_fact(inputs, 0)?.shape() else { return Ok(None) };
        let output = [&shape[..2.min(shape.len())], &self.resolve(shape)?.output].concat();
        element_count(&output)?;
        Ok(Some(output))
    }
    /// Reduces every window: `reduce` gets the channel plane (`N * C`), its elements, which output of the plane it makes
    /// and the flat indices of the elements under the window. Returns one result an output, and the output's shape.
    pub(super) fn reduce<T, R: Copy + Default>(
        &self,
        shape: &[usize],
        elements: &[T],
        mut reduce: impl FnMut(&Window, usize, &[T], [usize; 3], &[usize]) -> R,
    ) -> Result<Pooled<R>> {
        let window = self.resolve(shape)?;
        let output = [&shape[..2], &window.output].concat();
        let window = window.volumetric();
        let plane = element_count(&window.output)?;
        let image = element_count(&window.input)?;
        let mut out = zeros::<R>(&output)?;
        if !out.is_empty() {
            window.for_each(|flat, at, inside| {
                for (index, elements) in elements.chunks_exact(image).enumerate() {
                    out[index * plane + flat] = reduce(&window, index, elements, at, inside);
                }
            });
        }
        Ok((out, output))
    }
    pub(super) fn written(&self) -> Attributes {
        let kernel = Attributes::new().with("kernel_shape", write_extents(&self.kernel_shape));
        write_window(kernel, &self.rule())
    }
}

/// The largest element of each window; the second output, where asked for, is its flat index in the input. A NaN under
/// the window wins. A window with no element at all gives the smallest number of the type, and index -1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaxPool {
    /// The window.
    pub window: PoolWindow,
    /// Whether indices count the first spatial axis fastest.
    pub column_major: bool,
}

impl MaxPool {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let column_major = match node.attributes.int("storage_order", 0)? {
            0 => false,
            1 => true,
            other => invalid!("attribute \"storage_order\" is {other}, where 0 or 1 is expected"),
        };
        Ok(Arc::new(MaxPool { window: PoolWindow::from_attributes(&node.attributes)?, column_major }))
    }
    fn index(&self, window: &Window, plane: usize, flat: usize) -> i64 {
        let [depth, height, width] = [window.input[0], window.input[1], window.input[2]];
        let inner = if self.column_major {
            let (z, y, x) = (flat / (height * width), flat / width % height, flat % width);
            z + depth * (y + height * x)
        } else {
            flat
        };
        (plane * depth * height * width + inner) as i64
    }
    fn pool<T: Copy + Default + PartialOrd>(
        &self,
        shape: &[usize],
        elements: &[T],
        lowest: T,
    ) -> Result<Pooled<(T, i64)>> {
        self.window.reduce(shape, elements, |window, plane, elements, _, inside| {
            let mut best = (lowest, None);
            for &i in inside {
                let value = elements[i];
                let is_nan = value.partial_cmp(&value).is_none();
                if best.1.is_none() || value > best.0 || is_nan {
                    best = (value, Some(i));
                }
            }
            (best.0, best.1.map_or(-1, |i| self.index(window, plane, i)))
        })
    }
}

impl Operator for MaxPool {
    fn name(&self) -> &'static str {
        "MaxPool"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1).outputs(1, 2)
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        let dtype = required_fact(inputs, 0)?.dtype;
        if !dtype.is_wide_float() && !matches!(dtype, DType::I8 | DType::U8) {
            invalid!("input 0 is of type {dtype}, where a float type, i8 or u8 is expected");
        }
        let shape = self.window.infer_shape(inputs)?;
        let mut facts = vec![shaped(dtype, shape.clone()), shaped(DType::I64, shape)];
        facts.truncate(outputs.max(1));
        Ok(facts)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (numbers, indices, shape) = match x.to_numbers() {
            Numbers::Float(v) => {
                let (found, shape) = self.pool(x.shape(), &v, f64::NEG_INFINITY)?;
                let (values, indices): (Vec<_>, Vec<_>) = found.into_iter().unzip();
                (Numbers::Float(values), indices, shape)
            }
            Numbers::Int(v) => {
                let lowest = x.dtype().integer_range().map_or(0, |(low, _)| low);
                let (found, shape) = self.pool(x.shape(), &v, lowest)?;
                let (values, indices): (Vec<_>, Vec<_>) = found.into_iter().unzip();
                (Numbers::Int(values), indices, shape)
            }
        };
        let mut made = vec![Tensor::from_numbers(x.dtype(), &shape, &numbers)?];
        if outputs > 1 {
            made.push(Tensor::new(&shape, &indices)?);
        }
        Ok(made)
    }
    fn attributes(&self) -> Attributes {
        let attributes = self.window.written();
        if self.column_major { attributes.with("storage_order", 1) } else { attributes }
    }
}

/// The mean of each window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AveragePool {
    /// The window.
    pub window: PoolWindow,
    /// Whether padding counts among the elements of a window, as zeros.
    pub count_include_pad: bool,
}

impl AveragePool {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(AveragePool {
            window: PoolWindow::from_attributes(&node.attributes)?,
            count_include_pad: node.attributes.flag("count_include_pad", false)?,
        }))
    }
}

impl Operator for AveragePool {
    fn name(&self) -> &'static str {
        "AveragePool"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        Ok(vec![shaped(float_input(inputs)?, self.window.infer_shape(inputs)?)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (means, shape) =
            self.window.reduce(x.shape(), &x.to_f64s(), |window, _, elements, at, inside| {
                let sum: f64 = inside.iter().map(|&i| elements[i]).sum();
                let count: f64 = if self.count_include_pad {
                    (0..3).map(|axis| window.padded_taps(axis, at[axis]).len() as f64).product()
                } else {
                    inside.len() as f64
                };
                if count > 0.0 { sum / count } else { 0.0 }
            })?;
        Ok(vec![Tensor::from_f64s(x.dtype(), &shape, &means)?])
    }
    fn attributes(&self) -> Attributes {
        let attributes = self.window.written();
        if self.count_include_pad { attributes.with("count_include_pad", 1) } else { attributes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: &[usize], strides: &[usize], pads: &[usize], ceil_mode: bool) -> PoolWindow {
        PoolWindow {
            kernel_shape: kernel.to_vec(),
            strides: strides.to_vec(),
            pads: pads.to_vec(),
            ceil_mode,
            ..PoolWindow::default()
        }
    }

    fn ramp(shape: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32 + 1.0).collect();
        Tensor::new(shape, &values).unwrap()
    }

    fn run(op: &dyn Operator, x: &Tensor, outputs: usize) -> Vec<Tensor> {
        let facts = op.infer(&[Some(Fact::constant(x))], outputs).unwrap();
        let made = op.eval(&[Some(x)], outputs).unwrap();
        for (fact, tensor) in facts.iter().zip(&made) {
            assert_eq!(*fact, Fact::new(tensor.dtype(), tensor.shape()));
        }
        made
    }

    #[test]
    fn takes_the_largest_and_says_where() {
        let pool = MaxPool { window: window(&[2, 2], &[2, 2], &[], false), column_major: false };
        let x = ramp(&[1, 1, 4, 4]);
        let made = run(&pool, &x, 2);
        assert_eq!(made[0].to_f64s(), [6., 8., 14., 16.]);
        assert_eq!(made[1].to_i64s().unwrap(), [5, 7, 13, 15]);
        let columns = MaxPool { column_major: true, ..pool };
        assert_eq!(run(&columns, &x, 2)[1].to_i64s().unwrap(), [5, 13, 7, 15]);
        let bytes = Tensor::new(&[1, 1, 3], &[-5i8, -7, 3]).unwrap();
        let padded = MaxPool { window: window(&[2], &[], &[1, 0], false), column_major: false };
        assert_eq!(run(&padded, &bytes, 1)[0].to_i64s().unwrap(), [-5, -5, 3]);
        let broken = Tensor::new(&[1, 1, 3], &[1f32, f32::NAN, 3.]).unwrap();
        assert!(run(&padded, &broken, 1)[0].to_f64s()[2].is_nan());
    }

    #[test]
    fn means_count_padding_as_asked() {
        let x = ramp(&[1, 1, 4]);
        let outside = AveragePool { window: window(&[3], &[2], &[1, 1], true), count_include_pad: false };
        assert_eq!(run(&outside, &x, 1)[0].to_f64s(), [1.5, 3., 4.]);
        let inside = AveragePool { count_include_pad: true, ..outside.clone() };
        // The last window covers one element and one of padding; its third lies outside even the padding.
        assert_eq!(run(&inside, &x, 1)[0].to_f64s(), [1., 3., 2.]);
        let none = Tensor::zeros(DType::F32, &[0, 1, 4]).unwrap();
        assert_eq!(run(&inside, &none, 1)[0].shape(), [0, 1, 3]);
    }

    #[test]
    fn refuses_windows_of_padding() {
        let pool = MaxPool { window: window(&[2], &[], &[2, 0], false), column_major: false };
        let message = pool.infer(&[Some(Fact::new(DType::F32, &[1, 1, 5]))], 1).unwrap_err().to_string();
        assert!(message.contains("pads"), "{message}");
        assert!(pool.infer(&[Some(Fact::new(DType::I64, &[1, 1, 5]))], 1).is_err());
        assert_eq!(pool.infer(&[Some(Fact::unknown(DType::U8))], 1).unwrap(), [Fact::unknown(DType::U8)]);
        assert!(PoolWindow::from_attributes(&Attributes::new()).is_err());
    }
}
