//! DepthToSpace and SpaceToDepth: blocks of pixels traded for channels, and back.
//!
//! The first is the "pixel shuffle" of Shi et al., "Real-time single image and video super-resolution using an efficient
//! sub-pixel convolutional neural network" (2016); the second the "passthrough" of YOLOv2.

use super::checks::split_shape;
use super::conv::shaped;
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::element_count;
use crate::ops::{Arity, NodeReader, Operator, required, required_fact};
use crate::tensor::{Tensor, index};
use std::sync::Arc;

/// In which order the channels hold a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockOrder {
    /// Depth, column, row: the place in the block varies slowest.
    #[default]
    Dcr,
    /// Column, row, depth: the place in the block varies fastest (PyTorch's pixel shuffle).
    Crd,
}

impl BlockOrder {
    fn read(attributes: &Attributes) -> Result<BlockOrder> {
        match attributes.string("mode", "DCR")?.as_str() {
            "DCR" => Ok(BlockOrder::Dcr),
            "CRD" => Ok(BlockOrder::Crd),
            other => invalid!("attribute \"mode\" is \"{other}\", where DCR or CRD is expected"),
        }
    }
}

/// Channels become blocks of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthToSpace {
    /// The edge of a block.
    pub blocksize: usize,
    /// How channels hold a block.
    pub order: BlockOrder,
}

/// Blocks of pixels become channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceToDepth {
    /// The edge of a block.
    pub blocksize: usize,
    /// How channels hold a block.
    pub order: BlockOrder,
}

fn read_block(attributes: &Attributes) -> Result<usize> {
    let size = Attributes::require("blocksize", attributes.opt_int("blocksize")?)?;
    match usize::try_from(size) {
        Ok(size) if size > 0 => Ok(size),
        _ => invalid!("attribute \"blocksize\" is {size}, where a positive number is expected"),
    }
}

fn written(blocksize: usize, order: BlockOrder) -> Attributes {
    let attributes = Attributes::new().with("blocksize", i64::try_from(blocksize).unwrap_or(i64::MAX));
    if order == BlockOrder::Crd { attributes.with("mode", "CRD") } else { attributes }
}

/// Both directions in the terms of DepthToSpace: the spacious shape `[N, C, H * b, W * b]` and the deep one
/// `[N, C * b², H, W]`.
struct Blocks {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    block: usize,
}

impl Blocks {
    fn of_deep(shape: &[usize], block: usize) -> Result<Blocks> {
        let (batch, deep, &[height, width]) = split_shape(shape, 2)? else {
            invalid!("input 0 is of shape {shape:?}, where 4 axes are expected")
        };
        let square = block.checked_mul(block).filter(|&s| s > 0 && deep.is_multiple_of(s));
        let Some(square) = square else {
            invalid!("attribute \"blocksize\": blocks of {block} squared do not divide {deep} channels")
        };
        let blocks = Blocks { batch, channels: deep / square, height, width, block };
        blocks.spacious().map(|_| blocks)
    }
    fn of_spacious(shape: &[usize], block: usize) -> Result<Blocks> {
        let (batch, channels, &[height, width]) = split_shape(shape, 2)? else {
            invalid!("input 0 is of shape {shape:?}, where 4 axes are expected")
        };
        if block == 0 || !height.is_multiple_of(block) || !width.is_multiple_of(block) {
            invalid!(
                "attribute \"blocksize\": blocks of {block} do not divide an image of {height} x {width}"
            );
        }
        let blocks = Blocks { batch, channels, height: height / block, width: width / block, block };
        blocks.deep().map(|_| blocks)
    }
    fn spacious(&self) -> Result<Vec<usize>> {
        let larger = |n: usize| n.checked_mul(self.block).ok_or_else(too_large);
        Ok(vec![self.batch, self.channels, larger(self.height)?, larger(self.width)?])
    }
    fn deep(&self) -> Result<Vec<usize>> {
        let square = self.block.checked_mul(self.block).and_then(|s| s.checked_mul(self.channels));
        Ok(vec![self.batch, square.ok_or_else(too_large)?, self.height, self.width])
    }
    /// For each element of the spacious tensor, as `[N, C, H, b, W, b]`, the offset in the deep one and its own.
    fn for_each(&self, order: BlockOrder, mut visit: impl FnMut(usize, usize)) -> Result<()> {
        let shape = [self.batch, self.channels, self.height, self.block, self.width, self.block];
        element_count(&shape)?;
        let plane = self.height * self.width;
        let (channel, row, column) = match order {
            BlockOrder::Dcr => (plane, self.block * self.channels * plane, self.channels * plane),
            BlockOrder::Crd => (self.block * self.block * plane, self.block * plane, plane),
        };
        let image = self.channels * self.block * self.block * plane;
        let strides = [image, channel, self.width, row, 1, column];
        index::for_each(&shape, [&strides], |flat, [at]| visit(at, flat));
        Ok(())
    }
}

fn too_large() -> Error {
    Error::limit("the output does not fit in this machine's integers")
}

/// Copies elements of any type from offsets to offsets.
fn copy(
    source: &Tensor,
    shape: &[usize],
    pairs: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Result<()>,
) -> Result<Tensor> {
    let mut made = Tensor::zeros(source.dtype(), shape)?;
    if !made.is_empty() {
        let size = source.dtype().size();
        let (from, to) = (source.bytes(), made.bytes_mut());
        pairs(&mut |a, b| to[b * size..][..size].copy_from_slice(&from[a * size..][..size]))?;
    }
    Ok(made)
}

impl DepthToSpace {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let (blocksize, order) = (read_block(&node.attributes)?, BlockOrder::read(&node.attributes)?);
        Ok(Arc::new(DepthToSpace { blocksize, order }))
    }
}

impl Operator for DepthToSpace {
    fn name(&self) -> &'static str {
        "DepthToSpace"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = required_fact(inputs, 0)?;
        let blocks = x.shape().map(|s| Blocks::of_deep(s, self.blocksize)).transpose()?;
        Ok(vec![shaped(x.dtype, blocks.map(|b| b.spacious()).transpose()?)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let blocks = Blocks::of_deep(x.shape(), self.blocksize)?;
        let made = copy(x, &blocks.spacious()?, |copy| blocks.for_each(self.order, copy))?;
        Ok(vec![made])
    }
    fn attributes(&self) -> Attributes {
        written(self.blocksize, self.order)
    }
}

impl SpaceToDepth {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let (blocksize, order) = (read_block(&node.attributes)?, BlockOrder::read(&node.attributes)?);
        Ok(Arc::new(SpaceToDepth { blocksize, order }))
    }
}

impl Operator for SpaceToDepth {
    fn name(&self) -> &'static str {
        "SpaceToDepth"
    }
    fn arity(&self) -> Arity {
        Arity::exact(1)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let x = required_fact(inputs, 0)?;
        let blocks = x.shape().map(|s| Blocks::of_spacious(s, self.blocksize)).transpose()?;
        Ok(vec![shaped(x.dtype, blocks.map(|b| b.deep()).transpose()?)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let blocks = Blocks::of_spacious(x.shape(), self.blocksize)?;
        let made = copy(x, &blocks.deep()?, |copy| blocks.for_each(self.order, |deep, at| copy(at, deep)))?;
        Ok(vec![made])
    }
    fn attributes(&self) -> Attributes {
        written(self.blocksize, self.order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn shuffles_pixels_and_back() {
        let values: Vec<i16> = (0..8).collect();
        let x = Tensor::new(&[1, 8, 1, 1], &values).unwrap();
        for (order, wanted) in
            [(BlockOrder::Dcr, [0, 2, 4, 6, 1, 3, 5, 7]), (BlockOrder::Crd, [0, 1, 2, 3, 4, 5, 6, 7])]
        {
            let y = DepthToSpace { blocksize: 2, order }.eval(&[Some(&x)], 1).unwrap().remove(0);
            assert_eq!((y.shape(), y.to_i64s().unwrap()), (&[1, 2, 2, 2][..], wanted.to_vec()));
            assert_eq!(SpaceToDepth { blocksize: 2, order }.eval(&[Some(&y)], 1).unwrap()[0], x);
        }
    }

    #[test]
    fn refuses_what_does_not_divide() {
        let op = DepthToSpace { blocksize: 2, order: BlockOrder::Dcr };
        let fact = |s: &[usize]| [Some(Fact::new(DType::U8, s))];
        assert!(op.infer(&fact(&[1, 6, 1, 1]), 1).unwrap_err().to_string().contains("blocksize"));
        assert!(op.infer(&fact(&[1, 4, 1]), 1).is_err());
        assert_eq!(op.infer(&fact(&[0, 4, 1, 1]), 1).unwrap()[0].shape(), Some(&[0, 1, 2, 2][..]));
        let op = SpaceToDepth { blocksize: usize::MAX, order: BlockOrder::Dcr };
        assert!(op.infer(&fact(&[1, 4, 2, 2]), 1).is_err());
    }
}
