//! Expand and Tile: a tensor repeated along its axes.

use super::inputs::extents;
use super::layout::{self, Walk};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// The first input broadcast with the shape that the second one lists: extents of 1 stretch, on either side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expand;

/// The first input repeated along each axis as often as the second one says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tile;

/// The output of either operator, where data and list are known; `combine` makes its shape.
fn infer_from_list(
    inputs: &[Option<Fact>],
    name: &str,
    combine: fn(&[usize], &[usize]) -> Result<Vec<usize>>,
) -> Result<Vec<Fact>> {
    let data = required_fact(inputs, 0)?;
    Ok(vec![match (data.shape(), extents(required_fact(inputs, 1)?, name)?) {
        (Some(shape), Some(list)) => Fact::new(data.dtype, &combine(shape, &list)?),
        _ => Fact::unknown(data.dtype),
    }])
}

/// The second input's numbers in an evaluation.
fn list(inputs: &[Option<&Tensor>], name: &str) -> Result<Vec<usize>> {
    match extents(&Fact::constant(required(inputs, 1)?), name)? {
        Some(list) => Ok(list),
        None => invalid!("input \"{name}\" is not known"),
    }
}

/// `data` read by `from` over the index space `space`, as a tensor of `shape`.
fn repeated(data: &Tensor, space: &[usize], from: &Walk, shape: &[usize]) -> Result<Tensor> {
    let mut out = Tensor::zeros(data.dtype(), shape)?;
    layout::copy(space, data.dtype().size(), data.bytes(), from, out.bytes_mut(), &Walk::dense(space));
    Ok(out)
}

impl Expand {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Expand))
    }
}

impl Operator for Expand {
    fn name(&self) -> &'static str {
        "Expand"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        infer_from_list(inputs, "shape", |shape, list| index::broadcast(&[shape, list]))
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let target = index::broadcast(&[data.shape(), &list(inputs, "shape")?])?;
        Ok(vec![repeated(data, &target, &Walk::broadcast(data.shape(), &target), &target)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

impl Tile {
    pub(super) fn read(_node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Tile))
    }

    fn target(shape: &[usize], repeats: &[usize]) -> Result<Vec<usize>> {
        if repeats.len() != shape.len() {
            invalid!("input \"repeats\" holds {} numbers for {} axes", repeats.len(), shape.len());
        }
        let product = |(&n, &times): (&usize, &usize)| n.checked_mul(times);
        let target = shape.iter().zip(repeats).map(product).collect::<Option<Vec<usize>>>();
        target.ok_or_else(|| Error::limit(format!("{shape:?} repeated {repeats:?} times overflows")))
    }
}

impl Operator for Tile {
    fn name(&self) -> &'static str {
        "Tile"
    }
    fn arity(&self) -> Arity {
        Arity::exact(2)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        infer_from_list(inputs, "repeats", Tile::target)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let data = required(inputs, 0)?;
        let repeats = list(inputs, "repeats")?;
        let shape = Tile::target(data.shape(), &repeats)?;
        element_count(&shape)?;
        // Each axis becomes two: which copy, and where in it.
        let dense = Walk::dense(data.shape());
        let (mut space, mut steps) = (Vec::new(), Vec::new());
        for ((&times, &extent), &step) in repeats.iter().zip(data.shape()).zip(&dense.steps) {
            space.extend([times, extent]);
            steps.extend([0, step]);
        }
        Ok(vec![repeated(data, &space, &Walk { start: 0, steps }, &shape)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counting, ints, run};
    use super::*;
    use crate::limits::{Budget, with_budget};

    #[test]
    fn stretches_on_either_side() {
        let x = counting(&[3, 1]);
        let wide = run(Expand, &[&x, &ints(&[2, 1, 2])]).unwrap();
        assert_eq!(wide.shape(), [2, 3, 2]);
        assert_eq!(wide.as_slice::<f32>().unwrap()[..6], [0., 0., 1., 1., 2., 2.]);
        assert_eq!(run(Expand, &[&x, &ints(&[1])]).unwrap(), x);
        assert_eq!(run(Expand, &[&counting(&[]), &ints(&[2])]).unwrap().as_slice::<f32>().unwrap(), [0., 0.]);
        assert_eq!(run(Expand, &[&x, &ints(&[3, 0])]).unwrap().shape(), [3, 0]);
        assert!(run(Expand, &[&x, &ints(&[2, 1])]).is_err());
        assert!(run(Expand, &[&x, &ints(&[-1])]).is_err());
    }

    #[test]
    fn repeats() {
        let x = counting(&[2, 2]);
        let tiled = run(Tile, &[&x, &ints(&[2, 2])]).unwrap();
        assert_eq!(tiled.shape(), [4, 4]);
        assert_eq!(tiled.as_slice::<f32>().unwrap()[..8], [0., 1., 0., 1., 2., 3., 2., 3.]);
        assert_eq!(run(Tile, &[&x, &ints(&[0, 3])]).unwrap().shape(), [0, 6]);
        assert_eq!(run(Tile, &[&Tensor::scalar(2u8), &ints(&[])]).unwrap(), Tensor::scalar(2u8));
        assert!(run(Tile, &[&x, &ints(&[2])]).is_err());
        assert!(run(Tile, &[&x, &ints(&[1, -1])]).is_err());
    }

    #[test]
    fn giants_end_in_an_error() {
        with_budget(&Budget::new(1 << 20), || {
            assert!(run(Expand, &[&counting(&[1]), &ints(&[1 << 40])]).is_err());
            assert!(run(Tile, &[&counting(&[2]), &ints(&[i64::MAX])]).is_err());
            assert!(run(Tile, &[&counting(&[1]), &ints(&[1 << 30])]).is_err());
        });
        assert_eq!(run(Tile, &[&counting(&[0]), &ints(&[i64::MAX])]).unwrap().shape(), [0]);
    }
}
