//! Softmax, LogSoftmax and Hardmax: the elements along an axis as shares of one.
//!
//! Before opset 13 these flattened their input to two dimensions at `axis` and normalised each row. That form is kept as
//! `flatten`; it is an operator of our own domain, since ONNX of the written opset cannot say it in one node. Where the
//! axis is the last one both forms are equal: [`Softmax::for_rank`] finds the plain spelling once the rank is known. A
//! writer that does not know it may spell `Flatten(axis)`, the plain function along axis -1, and `Reshape` to the input's
//! `Shape`.

use super::arg::position_of_extreme;
use super::elementwise::{FLOATS, Lanes, functions, shaped_like, typed_fact};
use super::special::maximum;
use crate::attributes::Attributes;
use crate::error::{Context, Result};
use crate::infer::Fact;
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

functions! {
    /// What is made of the elements along the axis.
    SoftmaxFunction {
        /// `e^x / Σ e^x`
        Softmax = "Softmax",
        /// `x - ln Σ e^x`
        LogSoftmax = "LogSoftmax",
        /// 1 for the first of the largest, 0 for the others.
        Hardmax = "Hardmax",
    }
}

/// `y = function` of the elements along `axis`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Softmax {
    /// What is computed.
    pub function: SoftmaxFunction,
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Whether all axes from `axis` on are taken together, as before opset 13.
    pub flatten: bool,
}

impl Softmax {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let function = SoftmaxFunction::from_name(&node.op_type)?;
        let old = node.before(13) || !node.domain.is_empty();
        let axis = node.attributes.int("axis", if old { 1 } else { -1 })?;
        Ok(Arc::new(Softmax { function, axis, flatten: old && axis != -1 }))
    }

    /// The same function of a tensor of `rank`, without `flatten` where it makes no difference.
    pub fn for_rank(self, rank: usize) -> Softmax {
        let last = index::axis(self.axis, rank).is_ok_and(|a| a + 1 == rank);
        Softmax { flatten: self.flatten && !last, ..self }
    }

    /// Writes the function of `lane` of `values` into `out`.
    fn apply(self, lanes: Lanes, start: usize, values: &[f64], out: &mut [f64]) {
        if self.function == SoftmaxFunction::Hardmax {
            let best = position_of_extreme(lanes.lane(start).map(|i| values[i]), |a, b| a > b, false);
            out[start + best * lanes.inner] = 1.0;
            return;
        }
        let peak = lanes.lane(start).fold(f64::NEG_INFINITY, |m, i| maximum(m, values[i]));
        let total: f64 = lanes.lane(start).map(|i| (values[i] - peak).exp()).sum();
        for i in lanes.lane(start) {
            let shifted = values[i] - peak;
            out[i] = match self.function {
                SoftmaxFunction::LogSoftmax => shifted - total.ln(),
                _ => shifted.exp() / total,
            };
        }
    }
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        self.function.name()
    }
    fn domain(&self) -> &'static str {
        if self.flatten { "planish" } else { "" }
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = typed_fact(inputs, 0, "the input", FLOATS)?;
        if let Some(shape) = x.shape() {
            index::axis(self.axis, shape.len()).context(|| "attribute \"axis\"")?;
        }
        Ok(vec![shaped_like(x.dtype, x)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let axis = index::axis(self.axis, x.rank())?;
        let mut lanes = Lanes::new(x.shape(), axis);
        if self.flatten {
            lanes = Lanes { extent: lanes.extent * lanes.inner, inner: lanes.inner.min(1), ..lanes };
        }
        let values = x.to_f64s();
        let mut out = vec![0.0; values.len()];
        for start in lanes.starts() {
            self.apply(lanes, start, &values, &mut out);
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), x.shape(), &out)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("axis", self.axis)
    }
}

#[cfg(test)]
mod tests {
    use super::SoftmaxFunction::{Hardmax, LogSoftmax};
    use super::*;
    use crate::ops::math::testing::{counting, eval, floats, node, read, refusal};
    use crate::ops::{OperatorExt, read_operator};
    use crate::tensor::DType;

    fn op(function: SoftmaxFunction, axis: i64, flatten: bool) -> Softmax {
        Softmax { function, axis, flatten }
    }

    #[test]
    fn shares_along_each_axis() {
        let x = floats(&[2, 2], &[1000., 1000., 1000., 1000. + 3f32.ln()]);
        let close = |got: Tensor, expected: [f32; 4]| {
            for (g, e) in got.to_f32s().iter().zip(expected) {
                assert!((g - e).abs() < 1e-4, "{got:?}");
            }
        };
        close(eval(&op(SoftmaxFunction::Softmax, -1, false), &[&x]), [0.5, 0.5, 0.25, 0.75]);
        close(eval(&op(SoftmaxFunction::Softmax, 0, false), &[&x]), [0.5, 0.25, 0.5, 0.75]);
        close(eval(&op(SoftmaxFunction::Softmax, 0, true), &[&x]), [1. / 6., 1. / 6., 1. / 6., 0.5]);
        let logs = [0.5f32.ln(), 0.5f32.ln(), 0.25f32.ln(), 0.75f32.ln()];
        close(eval(&op(LogSoftmax, 1, false), &[&x]), logs);
    }

    #[test]
    fn hardmax_takes_the_first() {
        let x = floats(&[2, 3], &[1., 5., 5., 7., 7., 2.]);
        assert_eq!(eval(&op(Hardmax, -1, false), &[&x]), floats(&[2, 3], &[0., 1., 0., 1., 0., 0.]));
        assert_eq!(eval(&op(Hardmax, 0, false), &[&x]), floats(&[2, 3], &[0., 0., 1., 1., 1., 0.]));
        assert_eq!(eval(&op(Hardmax, 0, true), &[&x]), floats(&[2, 3], &[0., 0., 0., 1., 0., 0.]));
    }

    #[test]
    fn flattening_is_plain_on_the_last_axis() {
        let x = counting(&[2, 3, 2]);
        let flat = op(SoftmaxFunction::Softmax, 2, true);
        assert_eq!(eval(&flat, &[&x]), eval(&flat.for_rank(3), &[&x]));
        assert_eq!((flat.for_rank(3).flatten, flat.for_rank(4).flatten), (false, true));
        let two = op(SoftmaxFunction::Softmax, 1, true);
        assert_ne!(eval(&two, &[&x]), eval(&Softmax { flatten: false, ..two }, &[&x]));
    }

    #[test]
    fn reads_both_forms() {
        let find = |opset, a| *read("Softmax", opset, a).unwrap().as_op::<Softmax>().unwrap();
        assert_eq!(find(11, Attributes::new()), op(SoftmaxFunction::Softmax, 1, true));
        assert_eq!(find(11, Attributes::new().with("axis", -1i64)), op(SoftmaxFunction::Softmax, -1, false));
        assert_eq!(find(13, Attributes::new()), op(SoftmaxFunction::Softmax, -1, false));
        let old = op(Hardmax, 1, true);
        let mut ours = node("Hardmax", 1, old.attributes());
        ours.domain = old.domain().to_string();
        assert_eq!(read_operator(&mut ours).unwrap().as_op::<Softmax>(), Some(&old));
    }

    #[test]
    fn empty_tensors_and_bad_axes() {
        for flatten in [false, true] {
            let x = Tensor::zeros(DType::F16, &[2, 0, 3]).unwrap();
            for axis in [0, 1, 2] {
                assert_eq!(eval(&op(Hardmax, axis, flatten), &[&x]).shape(), [2, 0, 3]);
            }
        }
        let softmax = op(SoftmaxFunction::Softmax, 1, false);
        assert!(refusal(&softmax, &[Fact::new(DType::F32, &[2])]).contains("\"axis\""));
        assert!(refusal(&softmax, &[Fact::new(DType::I32, &[2, 2])]).contains("i32"));
    }
}
