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
    fn is_finite(&self) -> bool {
        self.low.iter().chain(&self.high).all(|v| v.is_finite())
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

/// Levels of [`Kept`]: the shortest cells are 1/256 of all.
const MOST_LEVELS: u32 = 9;

/// The boxes kept so far, by where they begin along one axis. Detectors keep thousands of boxes, of which few come near
/// any other (those of different classes are often moved far apart on purpose), and only what comes near can overlap.
struct Kept {
    axis: usize,
    origin: f64,
    span: f64,
    /// Level `l` holds boxes of at most `span / 2^l`, in cells of that length by their lower bound.
    levels: Vec<Vec<Vec<Bounds>>>,
    /// Boxes that lie nowhere, because a bound is not finite.
    unplaced: Vec<Bounds>,
}

impl Kept {
    /// None of `boxes` yet; along the axis on which they are short for how far they are spread.
    fn new(boxes: &[Bounds]) -> Kept {
        let placed = || boxes.iter().filter(|b| b.is_finite());
        let [first, second] = [0, 1].map(|axis| {
            let origin = placed().map(|b| b.low[axis]).fold(f64::INFINITY, f64::min);
            let end = placed().map(|b| b.high[axis]).fold(f64::NEG_INFINITY, f64::max);
            let covered: f64 = placed().map(|b| b.high[axis] - b.low[axis]).sum();
            (axis, origin, end - origin, covered / (end - origin))
        });
        let (axis, origin, span, _) = if second.3 < first.3 { second } else { first };
        Kept { axis, origin, span, levels: Vec::new(), unplaced: Vec::new() }
    }
    /// Forgets all boxes, and makes room for up to `most` others.
    fn clear(&mut self, most: usize) {
        let levels = most.max(1).ilog2().clamp(1, MOST_LEVELS);
        self.levels = (0..levels).map(|l| vec![Vec::new(); 1 << l]).collect();
        self.unplaced.clear();
    }
    /// The cell of a coordinate on a level of `cells`; what is before or behind all of them counts to the first or last.
    fn cell(&self, coordinate: f64, cells: usize) -> usize {
        let place = (coordinate - self.origin) / self.span * cells as f64;
        // Where all boxes are in one point, that is NaN, and 0.
        (place as usize).min(cells - 1)
    }
    fn add(&mut self, bounds: Bounds) {
        if !bounds.is_finite() {
            return self.unplaced.push(bounds);
        }
        let extent = bounds.high[self.axis] - bounds.low[self.axis];
        let fitting = self.levels.iter().rposition(|cells| extent * cells.len() as f64 <= self.span);
        let level = fitting.unwrap_or(0);
        let cell = self.cell(bounds.low[self.axis], self.levels[level].len());
        self.levels[level][cell].push(bounds);
    }
    /// Whether `holds` for all kept boxes that may share a point with `bounds`.
    fn all_near(&self, bounds: &Bounds, holds: impl Fn(&Bounds) -> bool) -> bool {
        let near = |cells: &[Vec<Bounds>]| {
            let (low, high) = (bounds.low[self.axis], bounds.high[self.axis]);
            // No box of the level is longer than a cell; one more makes up for rounding.
            let first = self.cell(low, cells.len()).saturating_sub(2);
            cells[first..=self.cell(high, cells.len())].iter().flatten().all(&holds)
        };
        let everywhere = !bounds.is_finite();
        self.unplaced.iter().all(&holds)
            && self.levels.iter().all(|cells| match everywhere {
                true => cells.iter().flatten().all(&holds),
                false => near(cells),
            })
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
        // Below 0 even boxes that do not overlap go.
        let most = if overlap >= 0.0 { most } else { most.min(1) };
        let &[images, classes, count] = scores.shape() else {
            invalid!("scores are of shape {:?}, where 3 axes are expected", scores.shape())
        };
        let (all, scores) = (boxes.to_f64s(), scores.to_f64s());
        let mut found: Vec<i64> = Vec::new();
        for image in 0..if scores.is_empty() { 0 } else { images } {
            let boxes: Vec<Bounds> =
                all[image * count * 4..][..count * 4].chunks_exact(4).map(|b| self.bounds(b)).collect();
            let mut kept = Kept::new(&boxes);
            for class in 0..classes {
                let scores = &scores[(image * classes + class) * count..][..count];
                let candidates = scores.iter().enumerate();
                // Adding 0 makes the two zeros one.
                let mut order: Vec<(f64, usize)> = candidates
                    .filter(|&(_, &score)| least.is_none_or(|least| score > least))
                    .map(|(i, score)| (score + 0.0, i))
                    .collect();
                order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                kept.clear(order.len().min(most));
                let mut left = most;
                for (_, candidate) in order {
                    if left == 0 {
                        break;
                    }
                    let bounds = boxes[candidate];
                    if kept.all_near(&bounds, |other| bounds.overlap(other) <= overlap) {
                        kept.add(bounds);
                        left -= 1;
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

    /// What the definition says, comparing each candidate with every box kept.
    fn by_definition(boxes: &[f32], scores: &[f32], overlap: f64, most: usize) -> Vec<i64> {
        let op = NonMaxSuppression::default();
        let wide: Vec<f64> = boxes.iter().map(|&v| v.into()).collect();
        let bounds: Vec<Bounds> = wide.chunks_exact(4).map(|b| op.bounds(b)).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
        let mut kept: Vec<usize> = Vec::new();
        for candidate in order {
            let stays = |&k: &usize| bounds[candidate].overlap(&bounds[k]) <= overlap;
            if kept.len() < most && kept.iter().all(stays) {
                kept.push(candidate);
            }
        }
        kept.into_iter().map(|k| k as i64).collect()
    }

    #[test]
    fn finds_what_comparing_with_every_box_finds() {
        let mut state = 1u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 24) as f32
        };
        // How far boxes are spread, how large most are, and how many of 100 have a bound that is none.
        let kinds = [(1.0, 0.1, 0), (1000.0, 1.0, 0), (1.0, 1.0, 2), (0.0, 0.0, 0), (5.0, 0.5, 1)];
        for (count, (spread, size, broken)) in
            [1, 2, 7, 90, 700].into_iter().zip(kinds).chain(kinds.into_iter().map(|kind| (300, kind)))
        {
            let mut boxes = Vec::new();
            for i in 0..count {
                let corner = [spread * next(), spread * next()];
                let long = if i % 50 == 0 { 20.0 } else { 1.0 };
                boxes.extend([
                    corner[0],
                    corner[1],
                    corner[0] + long * size * next(),
                    corner[1] - size * next(),
                ]);
                if ((100.0 * next()) as usize) < broken {
                    boxes[4 * i + i % 4] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][i % 3];
                }
            }
            let scores: Vec<f32> = (0..count).map(|_| (10.0 * next()).round() - 3.0).collect();
            for (overlap, most) in [(0.5, count), (0.0, count), (0.9, 20), (-0.1, count), (0.3, 0)] {
                let given = [
                    Some(&Tensor::new(&[1, count, 4], &boxes).unwrap()),
                    Some(&Tensor::new(&[1, 1, count], &scores).unwrap()),
                    Some(&Tensor::scalar(most as i64)),
                    Some(&Tensor::scalar(overlap as f32)),
                ];
                let y = NonMaxSuppression::default().eval(&given, 1).unwrap()[0].to_i64s().unwrap();
                let found: Vec<i64> = y.chunks_exact(3).map(|triple| triple[2]).collect();
                assert_eq!(
                    found,
                    by_definition(&boxes, &scores, f64::from(overlap as f32), most),
                    "{count} {overlap}"
                );
            }
        }
    }
}
