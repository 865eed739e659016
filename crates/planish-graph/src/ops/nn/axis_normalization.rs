//! LpNormalization and MeanVarianceNormalization: lines along chosen axes brought to length 1, or to mean 0 and variance
//! 1, with nothing learnt.

use super::checks::float_input;
use super::conv::zeros;
use super::group_normalization::moments;
use super::lp_pool::{lp_norm, read_power};
use crate::attributes::Attributes;
use crate::error::{Context, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// Added to the standard deviation, as ONNX's definition of MeanVarianceNormalization has it.
const EPSILON: f64 = 1e-9;

/// Gathers the elements along `axes` for each index of the other axes, lets `change` rewrite them, and puts them back.
fn along(x: &Tensor, axes: &[usize], change: impl Fn(&mut [f64])) -> Result<Vec<f64>> {
    let shape = x.shape();
    let own = index::strides(shape);
    let pick = |wanted: bool| -> (Vec<usize>, Vec<usize>) {
        (0..shape.len()).filter(|a| axes.contains(a) == wanted).map(|a| (shape[a], own[a])).unzip()
    };
    let ((inner, inner_strides), (outer, outer_strides)) = (pick(true), pick(false));
    let mut values = x.to_f64s();
    if values.is_empty() {
        return Ok(values);
    }
    let mut line: Vec<f64> = zeros(&inner)?;
    index::for_each(&outer, [&outer_strides], |_, [start]| {
        index::for_each(&inner, [&inner_strides], |i, [at]| line[i] = values[start + at]);
        change(&mut line);
        index::for_each(&inner, [&inner_strides], |i, [at]| values[start + at] = line[i]);
    });
    Ok(values)
}

fn same_shape(inputs: &[Option<Fact>], axes: &[i64], name: &str) -> Result<Vec<Fact>> {
    let dtype = float_input(inputs)?;
    let shape = required_fact(inputs, 0)?.shape.clone();
    if let Some(shape) = &shape {
        index::axes(axes, shape.len()).context(|| format!("attribute \"{name}\""))?;
    }
    Ok(vec![Fact { dtype, shape, value: None }])
}

/// `y = x / ‖x‖ₚ` along an axis; 0 where the norm is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LpNormalization {
    /// The axis.
    pub axis: i64,
    /// 1 or 2.
    pub p: u32,
}

impl LpNormalization {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let p = read_power(&node.attributes)?;
        Ok(Arc::new(LpNormalization { axis: node.attributes.int("axis", -1)?, p }))
    }
}

impl Operator for LpNormalization {
    fn name(&self) -> &'static str {
        "LpNormalization"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        if !matches!(self.p, 1 | 2) {
            invalid!("attribute \"p\" is {}, where 1 or 2 is expected", self.p);
        }
        same_shape(inputs, &[self.axis], "axis")
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let axis = index::axis(self.axis, x.rank())?;
        let values = along(x, &[axis], |line| {
            let norm = lp_norm(line.iter(), self.p);
            line.iter_mut().for_each(|v| *v = if norm == 0.0 { 0.0 } else { *v / norm });
        })?;
        Ok(vec![Tensor::from_f64s(x.dtype(), x.shape(), &values)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("axis", self.axis).with("p", i64::from(self.p))
    }
}

/// `y = (x - mean) / standard deviation` over some axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeanVarianceNormalization {
    /// The axes.
    pub axes: Vec<i64>,
}

impl MeanVarianceNormalization {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let axes = node.attributes.opt_ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
        Ok(Arc::new(MeanVarianceNormalization { axes }))
    }
}

impl Operator for MeanVarianceNormalization {
    fn name(&self) -> &'static str {
        "MeanVarianceNormalization"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        same_shape(inputs, &self.axes, "axes")
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let values = along(x, &index::axes(&self.axes, x.rank())?, |line| {
            let (mean, variance) = moments(line);
            line.iter_mut().for_each(|v| *v = (*v - mean) / (variance.sqrt() + EPSILON));
        })?;
        Ok(vec![Tensor::from_f64s(x.dtype(), x.shape(), &values)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("axes", self.axes.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn normalises_lines() {
        let x = Tensor::new(&[2, 2], &[3f32, 0., 4., 0.]).unwrap();
        let run = |axis, p| LpNormalization { axis, p }.eval(&[Some(&x)], 1).unwrap()[0].to_f32s();
        assert_eq!(run(0, 2), [0.6, 0., 0.8, 0.]);
        assert_eq!(run(-1, 1), [1., 0., 1., 0.]);
        let op = MeanVarianceNormalization { axes: vec![0] };
        assert_eq!(op.eval(&[Some(&x)], 1).unwrap()[0].to_f32s(), [-1., 0., 1., 0.]);
        let none = Tensor::zeros(DType::F32, &[0, 2]).unwrap();
        assert_eq!(op.eval(&[Some(&none)], 1).unwrap()[0], none);
    }

    #[test]
    fn refuses_axes_and_powers() {
        let fact = [Some(Fact::new(DType::F32, &[2, 2]))];
        assert!(LpNormalization { axis: 2, p: 2 }.infer(&fact, 1).unwrap_err().to_string().contains("axis"));
        assert!(LpNormalization { axis: 0, p: 3 }.infer(&fact, 1).unwrap_err().to_string().contains("\"p\""));
        assert!(MeanVarianceNormalization { axes: vec![0, -2] }.infer(&fact, 1).is_err());
    }
}
