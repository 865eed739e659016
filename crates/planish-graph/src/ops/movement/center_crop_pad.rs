//! CenterCropPad: cuts out the middle, or puts zeros around it, until a tensor has the wanted shape.

use super::inputs::extents;
use super::pad::{Border, Pad, PadMode};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// The first input brought to the extents that the second one lists. Where the difference is odd, the cut or border is
/// smaller by one in front.
#[derive(Clone, Debug, PartialEq)]
pub struct CenterCropPad {
    /// The axes that the list means, counted from the end where negative; all where there is none.
    pub axes: Option<Vec<i64>>,
}

impl CenterCropPad {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(CenterCropPad { axes: node.attributes.opt_ints("axes")? }))
    }

    /// What happens to each axis, and the shape that comes out.
    fn borders(&self, shape: &[usize], wanted: &[usize]) -> Result<(Vec<Border>, Vec<usize>)> {
        let axes = match &self.axes {
            None => (0..shape.len()).collect(),
            Some(axes) => index::axes(axes, shape.len())?,
        };
        if wanted.len() != axes.len() {
            invalid!("input \"shape\" holds {} numbers for {} axes", wanted.len(), axes.len());
        }
        let mut borders = vec![Border { before: 0, after: 0 }; shape.len()];
        let mut target = shape.to_vec();
        for (&axis, &wanted) in axes.iter().zip(wanted) {
            let added = i64::try_from(wanted as i128 - shape[axis] as i128)
                .map_err(|_| Error::limit("the difference in extent overflows"))?;
            // Division rounds towards zero, which is what both cropping and padding want in front.
            borders[axis] = Border { before: added / 2, after: added - added / 2 };
            target[axis] = wanted;
        }
        Ok((borders, target))
    }
}

impl Operator for CenterCropPad {
    fn name(&self) -> &'static str {
        "CenterCropPad"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let data = required_fact(inputs, 0)?;
        Ok(vec![match (data.shape(), extents(required_fact(inputs, 1)?, "shape")?) {
            (Some(shape), Some(wanted)) => Fact::new(data.dtype, &self.borders(shape, &wanted)?.1),
            _ => Fact::unknown(data.dtype),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let Some(wanted) = extents(&Fact::constant(required(inputs, 1)?), "shape")? else {
            invalid!("the shape is not known")
        };
        let (borders, target) = self.borders(data.shape(), &wanted)?;
        Ok(vec![Pad { mode: PadMode::Constant }.padded(data, &borders, &target, None)?])
    }
    fn attributes(&self) -> Attributes {
        match &self.axes {
            Some(axes) => Attributes::new().with("axes", axes.clone()),
            None => Attributes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, run};
    use super::*;

    #[test]
    fn keeps_the_middle() {
        let all = CenterCropPad { axes: None };
        let cases: [(usize, i64, &[f32]); 6] = [
            (5, 3, &[1., 2., 3.]),
            (5, 2, &[1., 2.]),
            (2, 4, &[0., 0., 1., 0.]),
            (2, 5, &[0., 0., 1., 0., 0.]),
            (3, 0, &[]),
            (0, 1, &[0.]),
        ];
        for (extent, wanted, content) in cases {
            let made = run(all.clone(), &[&counting(&[extent]), &ints(&[wanted])]).unwrap();
            assert_eq!(made.to_f32s(), content, "{extent} → {wanted}");
        }
        let mixed = run(CenterCropPad { axes: Some(vec![-1]) }, &[&counting(&[2, 3]), &ints(&[1])]).unwrap();
        assert_eq!(mixed, Tensor::new(&[2, 1], &[1f32, 4.]).unwrap());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let x = counting(&[2, 3]);
        assert!(run(CenterCropPad { axes: None }, &[&x, &ints(&[1])]).is_err());
        assert!(run(CenterCropPad { axes: Some(vec![2]) }, &[&x, &ints(&[1])]).is_err());
        assert!(run(CenterCropPad { axes: Some(vec![0]) }, &[&x, &ints(&[-1])]).is_err());
        assert!(run(CenterCropPad { axes: Some(vec![0]) }, &[&x, &ints(&[i64::MAX])]).is_err());
    }
}
