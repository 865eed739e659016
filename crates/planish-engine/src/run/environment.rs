//! What a step sees while it runs: the arena, the caller's inputs, the tensors made on the way, and the thread pool.

use crate::plan::layout::Layout;
use crate::plan::{BufferView, Operand};
use crate::run::arena::Arena;
use planish_cpu::element::Element;
use planish_cpu::for_element;
use planish_cpu::isa::Isa;
use planish_cpu::strided::{Strided, StridedMut};
use planish_cpu::threads::ThreadPool;
use planish_cpu::view::{Rows, RowsMut};
use planish_graph::{Error, Result, Tensor};

/// An element of buffers and of tensors.
pub(crate) trait Stored: Element + planish_graph::Element {}

impl<T: Element + planish_graph::Element> Stored for T {}

/// The surroundings of a step.
pub(crate) struct Environment<'a> {
    pub(crate) arena: &'a mut Arena,
    /// Where each buffer starts in the arena, in words.
    pub(crate) offsets: &'a [usize],
    /// The graph's inputs, as the caller gave them.
    pub(crate) inputs: &'a [Tensor],
    /// Tensors whose shape or type is not for the arena, by slot.
    pub(crate) heap: Vec<Option<Tensor>>,
    /// The graph's outputs, by index, as steps finish them.
    pub(crate) outputs: Vec<Option<Tensor>>,
    pub(crate) pool: &'a ThreadPool,
    pub(crate) isa: Isa,
}

impl Environment<'_> {
    /// Where a view starts, whose element must be `T`.
    fn address<T: Element>(&mut self, view: &BufferView) -> *mut T {
        assert_eq!(view.element, T::TYPE, "a step was planned on another element");
        // SAFETY: the memory plan made the arena long enough for every view of every buffer, so the offsets are inside.
        unsafe { self.arena.start().as_ptr().add(self.offsets[view.buffer]).cast::<T>().add(view.start) }
    }

    /// An operand as rows of its view.
    pub(crate) fn rows<T: Stored>(&mut self, operand: &Operand) -> Result<Rows<'static, T>> {
        let (pointer, view) = match operand {
            Operand::Buffer(view) => {
                (self.address::<T>(view).cast_const(), (view.rows, view.channels, view.row_stride))
            }
            Operand::Input { index, rows, channels, .. } => {
                (self.inputs[*index].as_slice::<T>()?.as_ptr(), (*rows, *channels, *channels))
            }
            Operand::Constant { tensor, rows, channels } => {
                (tensor.as_slice::<T>()?.as_ptr(), (*rows, *channels, *channels))
            }
            Operand::Heap(_) => {
                return Err(Error::invalid("a kernel was planned on a tensor made at run time"));
            }
        };
        // SAFETY: the memory plan keeps a buffer's elements unwritten while a step reads them, inputs and constants are
        // not written at all, and all of them outlive the step that asked: `Environment` borrows or owns them, and steps
        // do not keep views. Rows, channels and stride were checked against the buffer when the plan was made.
        Ok(unsafe { Rows::from_raw(pointer, view.0, view.1, view.2) })
    }

    /// A buffer's view to write.
    pub(crate) fn rows_mut<T: Element>(&mut self, view: &BufferView) -> RowsMut<'static, T> {
        let pointer = self.address(view);
        // SAFETY: as for `rows`; and the memory plan gives these elements to this step alone while it runs (elementwise
        // steps that write over an input read each element before they write it, through raw addresses).
        unsafe { RowsMut::from_raw(pointer, view.rows, view.channels, view.row_stride) }
    }

    /// An operand as a tensor of `physical` extents, in its memory order.
    pub(crate) fn strided<T: Stored>(
        &mut self,
        operand: &Operand,
        physical: &[usize],
    ) -> Result<Strided<'static, T>> {
        let rows = self.rows(operand)?;
        let strides = strides(physical, rows.row_stride());
        // SAFETY: as for `rows`, whose elements these are: the last axis is a row, the others count rows.
        Ok(unsafe { Strided::from_raw(rows.ptr(), physical, &strides) })
    }

    /// A buffer's view as a tensor of `physical` extents, to write.
    pub(crate) fn strided_mut<T: Element>(
        &mut self,
        view: &BufferView,
        physical: &[usize],
    ) -> StridedMut<'static, T> {
        let rows = self.rows_mut(view);
        let strides = strides(physical, rows.row_stride());
        // SAFETY: as for `rows_mut`, whose elements these are.
        unsafe { StridedMut::from_raw(rows.ptr(), physical, &strides) }
    }

    /// Scratch memory of a step.
    pub(crate) fn scratch(&mut self, view: &BufferView) -> &'static mut [f32] {
        let pointer = self.address(view);
        // SAFETY: a scratch buffer is dense, alive for this step only, and nobody else names it; arena memory is
        // initialised (zeroed when made). The step drops the slice before it returns.
        unsafe { std::slice::from_raw_parts_mut(pointer, view.rows * view.channels) }
    }

    /// An operand as a tensor of `shape` in ONNX's layout: what reference evaluation takes.
    pub(crate) fn tensor(&mut self, operand: &Operand, shape: Option<&[usize]>) -> Result<Tensor> {
        match operand {
            Operand::Input { index, .. } => match shape {
                Some(shape) => self.inputs[*index].reshaped(shape),
                None => Ok(self.inputs[*index].clone()),
            },
            Operand::Constant { tensor, .. } => match shape {
                Some(shape) => tensor.reshaped(shape),
                None => Ok(tensor.clone()),
            },
            Operand::Heap(slot) => {
                self.heap[*slot].clone().ok_or_else(|| Error::invalid("a tensor was read before it was made"))
            }
            Operand::Buffer(view) => for_element!(view.element, T => {
                let rows = self.rows::<T>(operand)?;
                let shape = shape.ok_or_else(|| Error::invalid("a buffer without a shape was read"))?;
                let mut tensor = Tensor::zeros(<T as planish_graph::Element>::DTYPE, shape)?;
                let target = tensor.as_mut_slice::<T>()?;
                for (r, piece) in target.chunks_exact_mut(rows.channels().max(1)).enumerate() {
                    piece.copy_from_slice(rows.row(r));
                }
                Ok(tensor)
            }),
        }
    }

    /// Copies a tensor in ONNX's order into a view of its element that is in `layout`.
    pub(crate) fn store(&mut self, view: &BufferView, layout: Layout, tensor: &Tensor) -> Result<()> {
        for_element!(view.element, T => self.store_as::<T>(view, layout, tensor))
    }

    /// [`Self::store`] of this element.
    fn store_as<T: Stored>(&mut self, view: &BufferView, layout: Layout, tensor: &Tensor) -> Result<()> {
        let source = tensor.as_slice::<T>()?;
        if source.len() != view.rows * view.channels {
            return Err(Error::invalid(format!(
                "made shape {:?}, which is not what was planned",
                tensor.shape()
            )));
        }
        let mut target = self.rows_mut::<T>(view);
        if layout == Layout::ChannelsLast {
            planish_cpu::copy::to_channels_last(self.isa, self.pool, tensor.shape()[0], source, target);
            return Ok(());
        }
        for (r, piece) in source.chunks_exact(view.channels.max(1)).enumerate() {
            target.row_mut(r).copy_from_slice(piece);
        }
        Ok(())
    }
}

/// The strides of a tensor whose last axis is a row and whose rows are `row_stride` apart.
fn strides(physical: &[usize], row_stride: usize) -> Vec<isize> {
    let mut strides = vec![1isize; physical.len()];
    let mut step = row_stride as isize;
    for axis in (0..physical.len().saturating_sub(1)).rev() {
        strides[axis] = step;
        step = step.saturating_mul(physical[axis] as isize);
    }
    strides
}
