//! Pad: puts a border around a tensor, or takes one away.

use super::inputs::{integers, optional_integers};
use super::layout::{self, Walk};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, optional, optional_fact, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// What the border holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// One value.
    Constant,
    /// The inside mirrored at its outermost elements, which are not repeated.
    Reflect,
    /// The outermost elements repeated.
    Edge,
    /// The inside repeated, as on a torus.
    Wrap,
}

impl PadMode {
    const ALL: [(PadMode, &'static str); 4] = [
        (PadMode::Constant, "constant"),
        (PadMode::Reflect, "reflect"),
        (PadMode::Edge, "edge"),
        (PadMode::Wrap, "wrap"),
    ];

    fn name(self) -> &'static str {
        PadMode::ALL.iter().find(|(mode, _)| *mode == self).map_or("constant", |(_, name)| name)
    }

    /// Where `place`, counted from the first element of an inside of `extent` elements, takes its element from.
    fn source(self, place: isize, extent: isize) -> isize {
        match self {
            PadMode::Constant | PadMode::Edge => place.clamp(0, extent - 1),
            PadMode::Wrap => place.rem_euclid(extent),
            PadMode::Reflect if extent == 1 => 0,
            PadMode::Reflect => {
                let there_and_back = place.rem_euclid(2 * (extent - 1));
                there_and_back.min(2 * (extent - 1) - there_and_back)
            }
        }
    }
}

/// The first input with a border. Inputs: data, pads (what to add before each axis, then after each; negative numbers
/// crop), the constant (0 if left out), and the axes meant (all if left out). Cropping comes before mirroring.
///
/// The constant may be `f32` beside data of another float type: before opset 11 it was an attribute of that type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pad {
    /// What the border holds.
    pub mode: PadMode,
}

/// What Pad does to one axis: elements added before and after (negative: cropped).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Border {
    /// Added in front.
    pub before: i64,
    /// Added behind.
    pub after: i64,
}

impl Border {
    fn cropped(self) -> [u64; 2] {
        [self.before, self.after].map(|n| if n < 0 { n.unsigned_abs() } else { 0 })
    }
    /// The extent that an axis of `extent` gets; an error where more would be cropped than there is.
    fn padded(self, extent: usize, mode: PadMode) -> Result<usize> {
        let [front, back] = self.cropped().map(i128::from);
        let inside = extent as i128 - front - back;
        if inside < 0 {
            invalid!("input \"pads\" crops {front} and {back} elements from an axis of extent {extent}");
        }
        if inside == 0 && mode != PadMode::Constant && (self.before > 0 || self.after > 0) {
            invalid!("input \"pads\" extends an axis without elements, in mode \"{}\"", mode.name());
        }
        let padded = extent as i128 + i128::from(self.before) + i128::from(self.after);
        usize::try_from(padded).map_err(|_| Error::limit("the padded extent overflows"))
    }
}

impl Pad {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let mode = node.attributes.string("mode", "constant")?;
        let Some(&(mode, _)) = PadMode::ALL.iter().find(|(_, name)| *name == mode) else {
            invalid!("attribute \"mode\" is \"{mode}\", one of constant, reflect, edge, wrap is expected");
        };
        if node.before(11) {
            let pads = Attributes::require("pads", node.attributes.opt_ints("pads")?)?;
            node.set_constant_input(1, Tensor::from_i64s(&pads)?);
            let value = node.attributes.float("value", 0.0)?;
            if value != 0.0 {
                node.set_constant_input(2, Tensor::scalar(value));
            }
        }
        Ok(Arc::new(Pad { mode }))
    }

    /// What a node with these inputs does to each axis of its data, where that is known.
    pub fn borders(inputs: &[Option<Fact>]) -> Result<Option<Vec<Border>>> {
        let data = required_fact(inputs, 0)?;
        let pads = integers(required_fact(inputs, 1)?, "pads")?;
        let axes = optional_integers(optional_fact(inputs, 3), "axes")?;
        let (Some(shape), Some(pads), Some(axes)) = (data.shape(), pads, axes) else { return Ok(None) };
        let axes = match axes {
            None => (0..shape.len()).collect(),
            Some(axes) => index::axes(&axes, shape.len())?,
        };
        if pads.len() != 2 * axes.len() {
            invalid!("input \"pads\" holds {} numbers for {} axes", pads.len(), axes.len());
        }
        let mut borders = vec![Border { before: 0, after: 0 }; shape.len()];
        for (i, &axis) in axes.iter().enumerate() {
            borders[axis] = Border { before: pads[i], after: pads[i + axes.len()] };
        }
        Ok(Some(borders))
    }

    fn target(&self, shape: &[usize], borders: &[Border]) -> Result<Vec<usize>> {
        shape.iter().zip(borders).map(|(&n, border)| border.padded(n, self.mode)).collect()
    }

    /// The border is one value: fill with it, and copy the inside.
    fn constant(
        data: &Tensor,
        borders: &[Border],
        target: &[usize],
        value: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut out = Tensor::zeros(data.dtype(), target)?;
        if let Some(value) = value {
            let value = if value.dtype() == data.dtype() {
                value.clone()
            } else {
                Tensor::from_f64s(data.dtype(), &[1], &value.to_f64s())?
            };
            layout::fill(out.bytes_mut(), value.bytes());
        }
        let cropped = borders.iter().map(|b| b.cropped());
        let from: Vec<usize> = cropped.clone().map(|[front, _]| front as usize).collect();
        let to: Vec<usize> = borders.iter().map(|b| b.before.max(0) as usize).collect();
        let inside: Vec<usize> =
            data.shape().iter().zip(cropped).map(|(&n, [front, back])| n - (front + back) as usize).collect();
        let (from, to) = (Walk::boxed(data.shape(), &from), Walk::boxed(target, &to));
        layout::copy(&inside, data.dtype().size(), data.bytes(), &from, out.bytes_mut(), &to);
        Ok(out)
    }

    /// `data` with `borders`, which make its shape `target`; `value` is what a constant border holds.
    pub(super) fn padded(
        &self,
        data: &Tensor,
        borders: &[Border],
        target: &[usize],
        value: Option<&Tensor>,
    ) -> Result<Tensor> {
        if self.mode == PadMode::Constant {
            return Pad::constant(data, borders, target, value);
        }
        let mut out = data.clone();
        for (axis, border) in borders.iter().enumerate() {
            if (border.before, border.after) == (0, 0) {
                continue;
            }
            let [front, back] = border.cropped().map(|n| n as isize);
            let inside = data.shape()[axis] as isize - front - back;
            let added = border.before.max(0) as isize;
            out = layout::select(&out, axis, target[axis], |i| {
                (front + self.mode.source(i as isize - added, inside)) as usize
            })?;
        }
        Ok(out)
    }
}

impl Operator for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }
    fn arity(&self) -> Arity {
        Arity::range(2, 4)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        if let Some(value) = optional_fact(inputs, 2) {
            if value.dtype != data.dtype
                && !(value.dtype == crate::tensor::DType::F32 && data.dtype.is_float())
            {
                invalid!("input \"constant_value\" is {}, the data is {}", value.dtype, data.dtype);
            }
            if value.shape().is_some_and(|s| !matches!(s, [] | [1])) {
                invalid!("input \"constant_value\" has shape {:?}, one value is expected", value.shape());
            }
        }
        let borders = Pad::borders(inputs)?;
        Ok(vec![match (data.shape(), borders) {
            (Some(shape), Some(borders)) => Fact::new(data.dtype, &self.target(shape, &borders)?),
            _ => Fact::unknown(data.dtype),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Fact::constant)).collect();
        let Some(borders) = Pad::borders(&facts)? else { invalid!("the pads are not known") };
        let target = self.target(data.shape(), &borders)?;
        Ok(vec![self.padded(data, &borders, &target, optional(inputs, 2))?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("mode", self.mode.name())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, node, run, run_many};
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn borders_of_every_mode() {
        // numpy.pad(range(3), (before, after), mode)
        let cases: [(PadMode, [i64; 2], &[f32]); 9] = [
            (PadMode::Constant, [1, 2], &[0., 0., 1., 2., 0., 0.]),
            (PadMode::Edge, [2, 1], &[0., 0., 0., 1., 2., 2.]),
            (PadMode::Reflect, [2, 2], &[2., 1., 0., 1., 2., 1., 0.]),
            (PadMode::Reflect, [0, 6], &[0., 1., 2., 1., 0., 1., 2., 1., 0.]),
            (PadMode::Wrap, [4, 1], &[2., 0., 1., 2., 0., 1., 2., 0.]),
            (PadMode::Constant, [-1, 1], &[1., 2., 0.]),
            (PadMode::Edge, [-1, 1], &[1., 2., 2.]),
            (PadMode::Reflect, [-2, 2], &[2., 2., 2.]),
            (PadMode::Constant, [-1, -2], &[]),
        ];
        for (mode, pads, wanted) in cases {
            let made = run(Pad { mode }, &[&counting(&[3]), &ints(&pads)]).unwrap();
            assert_eq!(made.as_slice::<f32>().unwrap(), wanted, "{mode:?} {pads:?}");
        }
    }

    #[test]
    fn pads_the_axes_named() {
        let x = counting(&[2, 2]);
        let constant = Pad { mode: PadMode::Constant };
        let given = [Some(&x), Some(&ints(&[1, 0])), Some(&Tensor::scalar(9f32)), Some(&ints(&[-1]))];
        let made = run_many(constant, &given, 1).unwrap().remove(0);
        assert_eq!(made, Tensor::new(&[2, 3], &[9f32, 0., 1., 9., 2., 3.]).unwrap());
        let both = run(Pad { mode: PadMode::Edge }, &[&x, &ints(&[1, 0, 0, 1])]).unwrap();
        assert_eq!(both.as_slice::<f32>().unwrap(), [0., 1., 1., 0., 1., 1., 2., 3., 3.]);
        let grown = run(constant, &[&counting(&[0, 1]), &ints(&[1, 0, 0, 0])]).unwrap();
        assert_eq!(grown, Tensor::new(&[1, 1], &[0f32]).unwrap());
    }

    #[test]
    fn refuses_what_cannot_be() {
        let x = counting(&[2]);
        let run = |mode, pads: &[i64]| run(Pad { mode }, &[&x, &ints(pads)]);
        assert!(run(PadMode::Constant, &[1]).is_err());
        assert!(run(PadMode::Constant, &[-2, -1]).is_err());
        assert!(run(PadMode::Constant, &[i64::MIN, i64::MIN]).is_err());
        assert!(run(PadMode::Constant, &[i64::MAX, i64::MAX]).is_err());
        assert!(run(PadMode::Wrap, &[-2, 1]).is_err());
        let facts =
            [Some(Fact::constant(&x)), Some(Fact::new(DType::I64, &[2])), Some(Fact::unknown(DType::I8))];
        assert!(Pad { mode: PadMode::Edge }.infer(&facts, 1).is_err());
    }

    #[test]
    fn reads_the_pads_that_were_attributes() {
        let old = Attributes::new().with("pads", vec![1i64, 1]).with("value", 2.5f32);
        let mut old = node("Pad", 10, 1, old);
        Pad::read(&mut old).unwrap();
        assert_eq!(old.added_inputs[&1], ints(&[1, 1]));
        assert_eq!(old.added_inputs[&2], Tensor::scalar(2.5f32));
        assert!(Pad::read(&mut node("Pad", 13, 2, Attributes::new().with("mode", "mirror"))).is_err());
    }
}
