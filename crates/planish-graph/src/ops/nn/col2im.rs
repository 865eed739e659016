//! Col2Im: the windows of an image, laid out as columns, summed back into an image. The inverse of what turns a
//! convolution into a matrix product (Chellapilla et al., 2006).

use super::conv::{shaped, zeros};
use super::window::{AutoPad, Window, WindowRule, read_extents, write_window};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{DType, Numbers, Tensor};
use std::ops::AddAssign;
use std::sync::Arc;

/// Inputs: columns `[N, C * taps, windows]`, the image's spatial shape, the window's shape. Empty lists stand for the
/// defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Col2Im {
    /// The distance of windows along each spatial axis.
    pub strides: Vec<usize>,
    /// Padding of the image at the beginning of each spatial axis, then at the end of each.
    pub pads: Vec<usize>,
    /// The distance of taps along each spatial axis.
    pub dilations: Vec<usize>,
}

/// A tensor of extents: input `what`.
fn extents(tensor: &Tensor, what: &str) -> Result<Vec<usize>> {
    let extent = |v: i64| {
        usize::try_from(v)
            .map_err(|_| Error::invalid(format!("{what} holds {v}, which must not be negative")))
    };
    tensor.to_i64s()?.into_iter().map(extent).collect()
}

impl Col2Im {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let list = |name| Ok::<_, Error>(read_extents(&node.attributes, name)?.unwrap_or_default());
        Ok(Arc::new(Col2Im { strides: list("strides")?, pads: list("pads")?, dilations: list("dilations")? }))
    }
    fn rule(&self) -> WindowRule<'_> {
        WindowRule {
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
        }
    }
    /// The window over the image, and the image's shape.
    fn resolve(&self, columns: &[usize], image: &Tensor, block: &Tensor) -> Result<(Window, Vec<usize>)> {
        let (image, block) =
            (extents(image, "input 1 (image_shape)")?, extents(block, "input 2 (block_shape)")?);
        let window = self.rule().resolve(&image, &block)?;
        let (taps, windows) = (element_count(&window.kernel)?, element_count(&window.output)?);
        let &[batch, deep, count] = columns else {
            invalid!("input 0 is of shape {columns:?}, where 3 axes are expected")
        };
        if !deep.is_multiple_of(taps) || count != windows {
            invalid!(
                "input 0 is of shape {columns:?}, where a multiple of {taps} taps and {windows} windows are expected"
            );
        }
        let shape = [&[batch, deep / taps], &image[..]].concat();
        element_count(&shape)?;
        Ok((window, shape))
    }
}

/// Adds every window's columns to its place.
fn gather<T: Copy + Default + AddAssign>(window: &Window, columns: &[T], shape: &[usize]) -> Result<Vec<T>> {
    let window = window.volumetric();
    let mut image: Vec<T> = zeros(shape)?;
    let plane = element_count(&window.input)?;
    let windows = element_count(&window.output)?;
    let [_, rows, taps] = [window.kernel[0], window.kernel[1], window.kernel[2]];
    let each = element_count(&window.kernel)? * windows;
    for (columns, image) in columns.chunks_exact(each.max(1)).zip(image.chunks_exact_mut(plane.max(1))) {
        let mut flat = 0;
        for z in 0..window.output[0] {
            for y in 0..window.output[1] {
                for x in 0..window.output[2] {
                    for tap_z in window.taps(0, z) {
                        for tap_y in window.taps(1, y) {
                            let row =
                                window.position(0, z, tap_z) * window.input[1] + window.position(1, y, tap_y);
                            for tap_x in window.taps(2, x) {
                                let tap = (tap_z * rows + tap_y) * taps + tap_x;
                                let at = row * window.input[2] + window.position(2, x, tap_x);
                                image[at] += columns[tap * windows + flat];
                            }
                        }
                    }
                    flat += 1;
                }
            }
        }
    }
    Ok(image)
}

impl Operator for Col2Im {
    fn name(&self) -> &'static str {
        "Col2Im"
    }
    fn arity(&self) -> Arity {
        Arity::exact(3)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = required_fact(inputs, 0)?;
        if x.dtype == DType::Bool {
            invalid!("input 0 is of type bool, where numbers are expected");
        }
        for index in [1, 2] {
            super::checks::same_type(inputs, index, DType::I64)?;
        }
        let values = (&required_fact(inputs, 1)?.value, &required_fact(inputs, 2)?.value);
        let shape = match (x.shape(), values) {
            (Some(columns), (Some(image), Some(block))) => Some(self.resolve(columns, image, block)?.1),
            _ => None,
        };
        Ok(vec![shaped(x.dtype, shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (window, shape) = self.resolve(x.shape(), required(inputs, 1)?, required(inputs, 2)?)?;
        let image = match x.to_numbers() {
            Numbers::Float(columns) => Numbers::Float(gather(&window, &columns, &shape)?),
            Numbers::Int(columns) => Numbers::Int(gather(&window, &columns, &shape)?),
        };
        Ok(vec![Tensor::from_numbers(x.dtype(), &shape, &image)?])
    }
    fn attributes(&self) -> Attributes {
        write_window(Attributes::new(), &self.rule())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_windows_back() {
        let x = Tensor::new(&[1, 2, 2], &[1f32, 2., 10., 20.]).unwrap();
        let (image, block) = (Tensor::from_i64s(&[3]).unwrap(), Tensor::from_i64s(&[2]).unwrap());
        let given = [Some(&x), Some(&image), Some(&block)];
        let y = Col2Im::default().eval(&given, 1).unwrap().remove(0);
        assert_eq!((y.shape(), y.to_f64s()), (&[1, 1, 3][..], vec![1., 12., 20.]));
        let padded = Col2Im { pads: vec![1, 0], strides: vec![2], ..Col2Im::default() };
        assert_eq!(padded.eval(&given, 1).unwrap()[0].to_f64s(), [10., 2., 20.]);
        let facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(padded.infer(&facts, 1).unwrap()[0].shape(), Some(&[1, 1, 3][..]));
        let strided = Col2Im { strides: vec![2], ..Col2Im::default() };
        assert!(strided.infer(&facts, 1).is_err());
    }
}
