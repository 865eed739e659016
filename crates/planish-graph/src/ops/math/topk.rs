//! TopK: the largest or smallest elements along an axis, and where they stood.

use super::elementwise::{Lanes, NUMBERS, expect_single, typed_fact};
use crate::attributes::Attributes;
use crate::error::{Context, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::{element_count, room};
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{DType, Tensor, index};
use std::cmp::Ordering;
use std::sync::Arc;

/// The `k` (input 1) extreme elements along `axis` and their positions (`i64`). Among equal elements the one that stood
/// first comes first; NaN counts as larger than every number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopK {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Whether the largest are taken, else the smallest.
    pub largest: bool,
    /// Whether the result must be in order. The reference orders it anyway, which the other setting allows.
    pub sorted: bool,
}

impl TopK {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        if node.before(10) {
            let k = Attributes::require("k", node.attributes.opt_int("k")?)?;
            node.set_constant_input(1, Tensor::from_i64s(&[k])?);
        }
        Ok(Arc::new(TopK {
            axis: node.attributes.int("axis", -1)?,
            largest: node.attributes.flag("largest", true)?,
            sorted: node.attributes.flag("sorted", true)?,
        }))
    }

    /// The axis, `k`, and the shape of both outputs for an input of `shape`.
    fn plan(&self, shape: &[usize], k: &Tensor) -> Result<(usize, usize, Vec<usize>)> {
        let axis = index::axis(self.axis, shape.len()).context(|| "attribute \"axis\"")?;
        let wanted = k.to_i64s()?.first().copied().unwrap_or(-1);
        let count = match usize::try_from(wanted) {
            Ok(count) if count <= shape[axis] => count,
            _ => invalid!(
                "k is {wanted}, where axis {axis} of the input's shape {shape:?} has {}",
                shape[axis]
            ),
        };
        let mut out = shape.to_vec();
        out[axis] = count;
        Ok((axis, count, out))
    }
}

/// The order of numbers with NaN after all others.
fn with_nan_last(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

impl Operator for TopK {
    fn name(&self) -> &'static str {
        "TopK"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2).outputs(1, 2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = typed_fact(inputs, 0, "the input", NUMBERS)?;
        let k = typed_fact(inputs, 1, "k", &[DType::I64])?;
        expect_single(k, "k")?;
        Ok(match (x.shape(), &k.value) {
            (Some(shape), Some(k)) => {
                let out = self.plan(shape, k)?.2;
                vec![Fact::new(x.dtype, &out), Fact::new(DType::I64, &out)]
            }
            _ => vec![Fact::unknown(x.dtype), Fact::unknown(DType::I64)],
        })
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, k) = (required(inputs, 0)?, required(inputs, 1)?);
        let (axis, k, shape) = self.plan(x.shape(), k)?;
        let (from, to) = (Lanes::new(x.shape(), axis), Lanes::new(&shape, axis));
        let compare: Box<dyn Fn(usize, usize) -> Ordering> = match x.to_numbers() {
            crate::tensor::Numbers::Float(v) => Box::new(move |a, b| with_nan_last(v[a], v[b])),
            crate::tensor::Numbers::Int(v) => Box::new(move |a, b| v[a].cmp(&v[b])),
        };
        let mut positions: Vec<i64> = room(&shape)?;
        positions.resize(element_count(&shape)?, 0);
        let mut values = Tensor::zeros(x.dtype(), &shape)?;
        let (size, target) = (x.dtype().size(), values.bytes_mut());
        for (start, out) in from.starts().zip(to.starts()) {
            let mut order: Vec<usize> = from.lane(start).collect();
            // Equal elements keep their order.
            let before = |&a: &usize, &b: &usize| {
                let ranked = if self.largest { compare(b, a) } else { compare(a, b) };
                ranked.then(a.cmp(&b))
            };
            if k > 0 && k < order.len() {
                order.select_nth_unstable_by(k - 1, before);
            }
            order.truncate(k);
            order.sort_unstable_by(before);
            for (place, &source) in to.lane(out).zip(&order) {
                positions[place] = ((source - start) / from.inner) as i64;
                target[place * size..][..size].copy_from_slice(&x.bytes()[source * size..][..size]);
            }
        }
        Ok(vec![values, Tensor::new(&shape, &positions)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("axis", self.axis).with("largest", self.largest).with("sorted", self.sorted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{counting, eval_all, floats, node, refusal};
    use crate::ops::{OperatorExt, read_operator};

    fn top(op: TopK, x: &Tensor, k: i64) -> (Tensor, Vec<i64>) {
        let made = eval_all(&op, &[Some(x), Some(&Tensor::from_i64s(&[k]).unwrap())], 2);
        (made[0].clone(), made[1].to_i64s().unwrap())
    }

    const LARGEST: TopK = TopK { axis: -1, largest: true, sorted: true };

    #[test]
    fn largest_and_smallest() {
        let x = counting(&[2, 3]);
        assert_eq!(top(LARGEST, &x, 2), (floats(&[2, 2], &[2., 1., 5., 4.]), vec![2, 1, 2, 1]));
        let smallest = TopK { axis: 0, largest: false, sorted: false };
        assert_eq!(top(smallest, &x, 1), (floats(&[1, 3], &[0., 1., 2.]), vec![0, 0, 0]));
        assert_eq!(top(LARGEST, &x, 0).0.shape(), [2, 0]);
        assert_eq!(top(LARGEST, &Tensor::zeros(DType::F32, &[0, 4]).unwrap(), 2).0.shape(), [0, 2]);
    }

    #[test]
    fn ties_and_nan() {
        let x = floats(&[5], &[1., 3., f32::NAN, 3., -0.0]);
        assert_eq!(top(LARGEST, &x, 3).1, [2, 1, 3]);
        let smallest = TopK { largest: false, ..LARGEST };
        assert_eq!(top(smallest, &x, 5).1, [4, 0, 1, 3, 2]);
        let x = Tensor::new(&[2], &[u64::MAX - 1, u64::MAX]).unwrap();
        assert_eq!(top(LARGEST, &x, 1), (Tensor::new(&[1], &[u64::MAX]).unwrap(), vec![1]));
    }

    #[test]
    fn reads_the_old_attribute() {
        let mut old = node("TopK", 9, Attributes::new().with("k", 3i64).with("axis", 0i64));
        let op = read_operator(&mut old).unwrap();
        assert_eq!(op.as_op::<TopK>(), Some(&TopK { axis: 0, ..LARGEST }));
        assert_eq!(old.added_inputs[&1].to_i64s().unwrap(), [3]);
        assert!(read_operator(&mut node("TopK", 9, Attributes::new())).is_err());
    }

    #[test]
    fn refuses_more_than_there_are() {
        let x = Fact::new(DType::F32, &[2, 3]);
        for k in [4, -1] {
            let k = Fact::constant(&Tensor::from_i64s(&[k]).unwrap());
            assert!(refusal(&LARGEST, &[x.clone(), k]).contains("k is"));
        }
        let k = Fact::constant(&Tensor::from_i64s(&[1, 1]).unwrap());
        assert!(refusal(&LARGEST, &[x, k]).contains("k must be one number"));
    }
}
