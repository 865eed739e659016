//! Slice: cuts a box out of a tensor, with steps that may skip or run backwards, as NumPy's `x[start:end:step]`.

use super::inputs::{integers, optional_integers};
use super::layout::{self, Walk};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, optional_fact, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// `data[starts:ends:steps]` along `axes`. Inputs: data, starts, ends, axes (all axes if left out), steps (1 if left
/// out). Bounds count from the end where negative and are clamped to the extent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice;

/// What is kept of one axis: `count` elements from `start` on, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The first index kept.
    pub start: usize,
    /// From one index kept to the next; negative to go backwards.
    pub step: i64,
    /// How many are kept.
    pub count: usize,
}

impl Cut {
    /// `start:end:step` of an axis of `extent`, by NumPy's rules; an error where `step` is 0.
    pub fn new(extent: usize, start: i64, end: i64, step: i64) -> Result<Cut> {
        if step == 0 {
            invalid!("input \"steps\" holds a 0");
        }
        let extent = extent as i128;
        let counted = |bound: i64| i128::from(bound) + if bound < 0 { extent } else { 0 };
        // Backwards, the end may be "before the first element", which is -1.
        let (low, high) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
        let clamped = |bound: i64| counted(bound).min(high).max(low);
        let (start, end, step) = (clamped(start), clamped(end), i128::from(step));
        let span = if step > 0 { end - start } else { start - end };
        let count = if span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
        let start = if count == 0 { 0 } else { start };
        Ok(Cut { start: start as usize, step: step as i64, count: count as usize })
    }
}

impl Slice {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        if node.before(10) {
            for (input, name) in [(1, "starts"), (2, "ends")] {
                let bounds = Attributes::require(name, node.attributes.opt_ints(name)?)?;
                node.set_constant_input(input, Tensor::from_i64s(&bounds)?);
            }
            if let Some(axes) = node.attributes.opt_ints("axes")? {
                node.set_constant_input(3, Tensor::from_i64s(&axes)?);
            }
        }
        Ok(Arc::new(Slice))
    }

    /// What a node with these inputs keeps of each axis of its data, where shape and bounds are known.
    pub fn cuts(inputs: &[Option<Fact>]) -> Result<Option<Vec<Cut>>> {
        let starts = integers(required_fact(inputs, 1)?, "starts")?;
        let ends = integers(required_fact(inputs, 2)?, "ends")?;
        let axes = optional_integers(optional_fact(inputs, 3), "axes")?;
        let steps = optional_integers(optional_fact(inputs, 4), "steps")?;
        let (Some(shape), Some(starts), Some(ends), Some(axes), Some(steps)) =
            (required_fact(inputs, 0)?.shape(), starts, ends, axes, steps)
        else {
            return Ok(None);
        };
        let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
        if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
            invalid!(
                "inputs \"starts\", \"ends\", \"axes\", \"steps\" hold {}, {}, {}, {} numbers",
                starts.len(),
                ends.len(),
                axes.len(),
                steps.len()
            );
        }
        let mut cuts: Vec<Cut> = shape.iter().map(|&n| Cut { start: 0, step: 1, count: n }).collect();
        for (i, axis) in index::axes(&axes, shape.len())?.into_iter().enumerate() {
            cuts[axis] = Cut::new(shape[axis], starts[i], ends[i], steps[i])?;
        }
        Ok(Some(cuts))
    }
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }
    fn arity(&self) -> Arity {
        Arity::range(3, 5)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        Ok(vec![match Slice::cuts(inputs)? {
            None => Fact::unknown(data.dtype),
            Some(cuts) => Fact::new(data.dtype, &cuts.iter().map(|c| c.count).collect::<Vec<_>>()),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Fact::constant)).collect();
        let Some(cuts) = Slice::cuts(&facts)? else { invalid!("the bounds are not known") };
        let shape: Vec<usize> = cuts.iter().map(|c| c.count).collect();
        let mut out = Tensor::zeros(data.dtype(), &shape)?;
        let corner: Vec<usize> = cuts.iter().map(|c| c.start).collect();
        let mut from = Walk::boxed(data.shape(), &corner);
        for (step, cut) in from.steps.iter_mut().zip(&cuts) {
            *step = step.saturating_mul(cut.step as isize);
        }
        let to = Walk::dense(&shape);
        layout::copy(&shape, data.dtype().size(), data.bytes(), &from, out.bytes_mut(), &to);
        Ok(vec![out])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, node, run, run_many};
    use super::*;

    #[test]
    fn cuts_like_numpy() {
        // extent, start, end, step → the indices kept, as python's range(n)[start:end:step] gives them.
        let cases: [(usize, i64, i64, i64, &[usize]); 11] = [
            (5, 1, 4, 1, &[1, 2, 3]),
            (5, -2, i64::MAX, 1, &[3, 4]),
            (5, 0, -1, 2, &[0, 2]),
            (5, i64::MAX, i64::MIN, -1, &[4, 3, 2, 1, 0]),
            (5, -1, 0, -2, &[4, 2]),
            (5, 3, 1, 1, &[]),
            (5, 10, 20, 1, &[]),
            (5, 0, 5, i64::MAX, &[0]),
            (5, 4, i64::MIN, i64::MIN, &[4]),
            (0, i64::MAX, i64::MIN, -1, &[]),
            (0, 0, 1, 1, &[]),
        ];
        for (extent, start, end, step, wanted) in cases {
            let x = counting(&[extent]);
            let inputs = [&x, &ints(&[start]), &ints(&[end]), &ints(&[0]), &ints(&[step])];
            let made = run(Slice, &inputs).unwrap();
            let wanted: Vec<f32> = wanted.iter().map(|&i| i as f32).collect();
            assert_eq!(made.as_slice::<f32>().unwrap(), wanted, "{extent} {start}:{end}:{step}");
        }
    }

    #[test]
    fn cuts_boxes() {
        let x = counting(&[2, 3, 2]);
        let made =
            run(Slice, &[&x, &ints(&[2, 1]), &ints(&[0, 2]), &ints(&[-2, 0]), &ints(&[-1, 1])]).unwrap();
        assert_eq!(made, Tensor::new(&[1, 2, 2], &[10f32, 11., 8., 9.]).unwrap());
        let rows = run_many(Slice, &[Some(&x), Some(&ints(&[1])), Some(&ints(&[2])), None, None], 1).unwrap();
        assert_eq!(rows[0].shape(), [1, 3, 2]);
        let all = run(Slice, &[&Tensor::scalar(1u8), &ints(&[]), &ints(&[])]).unwrap();
        assert_eq!(all, Tensor::scalar(1u8));
    }

    #[test]
    fn refuses_bad_bounds() {
        let x = counting(&[2, 2]);
        assert!(run(Slice, &[&x, &ints(&[0]), &ints(&[1]), &ints(&[0]), &ints(&[0])]).is_err());
        assert!(run(Slice, &[&x, &ints(&[0]), &ints(&[1, 2])]).is_err());
        assert!(run(Slice, &[&x, &ints(&[0, 0]), &ints(&[1, 1]), &ints(&[0, -2])]).is_err());
        assert!(run(Slice, &[&x, &ints(&[0]), &ints(&[1]), &ints(&[2])]).is_err());
        assert!(run(Slice, &[&x, &counting(&[1]), &ints(&[1])]).is_err());
    }

    #[test]
    fn reads_the_bounds_that_were_attributes() {
        let old = Attributes::new().with("starts", vec![1i64]).with("ends", vec![2i64]);
        let mut old = node("Slice", 9, 1, old.with("axes", vec![0i64]));
        Slice::read(&mut old).unwrap();
        assert_eq!(old.added_inputs.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(Slice::read(&mut node("Slice", 9, 1, Attributes::new())).is_err());
    }
}
