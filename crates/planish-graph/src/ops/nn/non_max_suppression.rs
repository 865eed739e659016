//! NonMaxSuppression: of boxes that overlap, only the one with the highest score stays. The last step of detectors.
//!
//! Greedy, as in Felzenszwalb et al., "Object detection with discriminatively trained part-based models" (2010), and in
//! every detector since.

use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Inputs: boxes `[N, B, 4]`, scores `[N, classes, B]`, most boxes a class (optional, 0), overlap above which boxes go
/// (optional, 0), score below which they go (optional). Output: `[found, 3]` of image, class and box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonMaxSuppression {
    /// Whether boxes are centre and size, rather than two corners.
    pub center_point_box: bool,
}

/// A box as lower and upper bounds.
#[derive(Clone, Copy)]
struct Bounds {
    low: [f64; 2],
    high: [f64; 2],
}

impl Bounds {
    fn area(&self) -> f64 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }
    /// Intersection over union; 0 for boxes that do not overlap or have no area.
    fn overlap(&self, other: &Bounds) -> f64 {
        let shared = Bounds {
            low: [self.low[0].max(other.low[0]), self.low[1].max(other.low[1])],
            high: [self.high[0].min(other.high[0]), self.high[1].min(other.high[1])],
        };
        let sides = [shared.high[0] - shared.low[0], shared.high[1] - shared.low[1]];
        let (first, second) = (self.area(), other.area());
        if sides.iter().any(|&s| s <= 0.0) || first <= 0.0 || second <= 0.0 {
            return 0.0;
        }
        shared.area() / (first + second - shared.area())
    }
}

impl NonMaxSuppression {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let center_point_box = node.attributes.flag("center_point_box", false)?;
        Ok(Arc::new(NonMaxSuppression { center_point_box }))
    }
    fn bounds(&self, b: &[f64]) -> Bounds {
        if self.center_point_box {
            let half = [b[2] / 2.0, b[3] / 2.0];
            Bounds { low: [b[0] - half[0], b[1] - half[1]], high: [b[0] + half[0], b[1] + half[1]] }
        } else {
            Bounds { low: [b[0].min(b[2]), b[1].min(b[3])], high: [b[0].max(b[2]), b[1].max(b[3])] }
        }
    }
}

impl Operator for NonMaxSuppression {
    fn name(&self) -> &'static str {
        "NonMaxSuppression"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 5)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        for (index, dtype) in
            [(0, DType::F32), (1, DType::F32), (2, DType::I64), (3, DType::F32), (4, DType::F32)]
        {
            super::checks::same_type(inputs, index, dtype)?;
            let shape = optional_fact(inputs, index).and_then(|f| f.shape());
            if let Some(shape) = shape.filter(|s| index > 1 && !matches!(s, [] | [0] | [1])) {
                invalid!("input {index} is of shape {shape:?}, where one number is expected");
            }
        }
        if let (Some(boxes), Some(scores)) =
            (required_fact(inputs, 0)?.shape(), required_fact(inputs, 1)?.shape())
        {
            let fits = matches!((boxes, scores), ([n, b, 4], [m, _, c]) if n == m && b == c);
            if !fits {
                invalid!(
                    "boxes of shape {boxes:?} and scores of shape {scores:?} do not fit [N, B, 4] and [N, classes, B]"
                );
            }
        }
        Ok(vec![Fact::unknown(DType::I64)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (boxes, scores) = (required(inputs, 0)?, required(inputs, 1)?);
        let number = |i: usize| optional(inputs, i).and_then(|t| t.to_f64s().first().copied());
        let most = number(2).unwrap_or(0.0).max(0.0) as usize;
        let (overlap, least) = (number(3).unwrap_or(0.0), number(4));
        let &[images, classes, count] = scores.shape() else {
            invalid!("scores are of shape {:?}, where 3 axes are expected", scores.shape())
        };
        let (all, scores) = (boxes.to_f64s(), scores.to_f64s());
        let mut found: Vec<i64> = Vec::new();
        for image in 0..if scores.is_empty() { 0 } else { images } {
            let boxes: Vec<Bounds> =
                all[image * count * 4..][..count * 4].chunks_exact(4).map(|b| self.bounds(b)).collect();
            for class in 0..classes {
                let scores = &scores[(image * classes + class) * count..][..count];
                let mut order: Vec<usize> =
                    (0..count).filter(|&i| least.is_none_or(|least| scores[i] > least)).collect();
                // Adding 0 makes the two zeros one.
                order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
                let mut kept: Vec<usize> = Vec::new();
                for candidate in order {
                    if kept.len() >= most {
                        break;
                    }
                    if kept.iter().all(|&k| boxes[candidate].overlap(&boxes[k]) <= overlap) {
                        kept.push(candidate);
                        found.extend([image as i64, class as i64, candidate as i64]);
                    }
                }
            }
        }
        Ok(vec![Tensor::new(&[found.len() / 3, 3], &found)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("center_point_box", self.center_point_box)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_best_of_overlapping_boxes() {
        let boxes = [0f32, 0., 1., 1., 0., 0.1, 1., 1.1, 0., 10., 1., 11., 1., 11., 0., 10.];
        let boxes = Tensor::new(&[1, 4, 4], &boxes).unwrap();
        let scores = Tensor::new(&[1, 1, 4], &[0.75f32, 0.9, 0.5, 0.95]).unwrap();
        let (most, overlap, least) = (Tensor::scalar(3i64), Tensor::scalar(0.5f32), Tensor::scalar(0.6f32));
        let op = NonMaxSuppression::default();
        let given = [Some(&boxes), Some(&scores), Some(&most), Some(&overlap), Some(&least)];
        let y = op.eval(&given, 1).unwrap().remove(0);
        assert_eq!((y.shape(), y.to_i64s().unwrap()), (&[2, 3][..], vec![0, 0, 3, 0, 0, 1]));
        assert_eq!(op.eval(&given[..2], 1).unwrap()[0].shape(), [0, 3]);
        let facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(op.infer(&facts, 1).unwrap(), [Fact::unknown(DType::I64)]);
        assert!(op.infer(&[facts[1].clone(), facts[0].clone()], 1).is_err());
        let none = Tensor::zeros(DType::F32, &[0, 4, 4]).unwrap();
        let scores = Tensor::zeros(DType::F32, &[0, 1, 4]).unwrap();
        assert_eq!(op.eval(&[Some(&none), Some(&scores)], 1).unwrap()[0].shape(), [0, 3]);
    }
}
