//! Where values are written: buffers of their own, inside the concatenation that reads them, or over an input that is
//! read for the last time.

use super::{BufferView, Layout, Lowering, Operand, StepInfo, memory, rows_of};
use planish_cpu::element::ElementType;
use planish_cpu::for_element;
use planish_graph::{Result, Tensor, ValueId};

impl Lowering<'_> {
    /// A fresh dense buffer.
    pub(super) fn new_buffer(&mut self, rows: usize, channels: usize, element: ElementType) -> BufferView {
        let buffer = self.lives.len();
        let words = rows.saturating_mul(channels).div_ceil(element.per_word());
        self.lives.push(memory::Life { len: words, first: usize::MAX, last: 0 });
        self.names.push(1);
        BufferView { buffer, start: 0, rows, channels, row_stride: channels, element }
    }

    /// Scratch memory of `len` numbers for the step pushed next.
    pub(crate) fn scratch(&mut self, len: usize) -> BufferView {
        self.new_buffer(1, len, ElementType::F32)
    }

    /// A place for output `v` in its layout: inside the concatenation that reads it, or of its own.
    pub(crate) fn output(&mut self, v: ValueId) -> Result<BufferView> {
        let (layout, element) = (self.layout(v), self.element(v));
        let (rows, channels) = rows_of(layout, self.shape(v)?);
        let view = match self.placements.get(&v).copied() {
            Some(place) => {
                let (_, stride) = rows_of(Layout::ChannelsLast, self.shape(place.root)?);
                let buffer = self.root_buffer(place.root)?;
                self.names[buffer] += 1;
                BufferView { buffer, start: place.channel, rows, channels, row_stride: stride, element }
            }
            None if self.roots.contains_key(&v) => {
                let buffer = self.root_buffer(v)?;
                BufferView { buffer, start: 0, rows, channels, row_stride: channels, element }
            }
            None => self.new_buffer(rows, channels, element),
        };
        self.found.insert((v, layout, element), Operand::Buffer(view));
        Ok(view)
    }

    fn root_buffer(&mut self, root: ValueId) -> Result<usize> {
        if let Some(&buffer) = self.roots.get(&root) {
            return Ok(buffer);
        }
        let (rows, channels) = rows_of(Layout::ChannelsLast, self.shape(root)?);
        let buffer = self.new_buffer(rows, channels, self.element(root)).buffer;
        self.names[buffer] += 1;
        self.roots.insert(root, buffer);
        Ok(buffer)
    }

    /// A place for output `v` of an elementwise step: over `input`, where that is read for the last time here and has the
    /// same rows, otherwise [`Self::output`].
    pub(crate) fn output_over(&mut self, v: ValueId, input: ValueId) -> Result<BufferView> {
        let (layout, element) = (self.layout(v), self.element(v));
        let placed = self.placements.contains_key(&v) || self.roots.contains_key(&v);
        let last_use = self.last_reader[input.0 as usize] == self.node_index;
        let (rows, channels) = rows_of(layout, self.shape(v)?);
        if let (false, true, Some(Operand::Buffer(view))) =
            (placed, last_use, self.found.get(&(input, layout, element)))
        {
            let view = *view;
            if self.names[view.buffer] == 1
                && (view.rows, view.channels) == (rows, channels)
                && view.is_dense()
            {
                self.found.insert((v, layout, element), Operand::Buffer(view));
                return Ok(view);
            }
        }
        self.output(v)
    }

    /// Makes `v` another name of an operand's memory.
    pub(crate) fn alias(&mut self, v: ValueId, layout: Layout, operand: Operand) {
        if let Operand::Buffer(view) = &operand {
            self.names[view.buffer] += 1;
        }
        let element = operand.element();
        self.layouts[v.0 as usize] = layout;
        self.elements[v.0 as usize] = element;
        self.found.insert((v, layout, element), operand);
    }

    /// A slot for an output whose type or shape is not for the arena.
    pub(super) fn heap_output(&mut self, v: ValueId) -> usize {
        let slot = self.heap_slots;
        self.heap_slots += 1;
        self.found.insert((v, Layout::Plain, ElementType::F32), Operand::Heap(slot));
        slot
    }

    /// A step that hands output `index` of the graph to the caller.
    pub(super) fn graph_output(&mut self, index: usize, v: ValueId) -> Result<()> {
        let layout = self.layout(v);
        let operand = self.operand(v, layout)?;
        let shape = self.fact(v).and_then(|f| f.shape.clone());
        let info = StepInfo {
            node: self.graph.value(v).name.clone(),
            operator: "output".into(),
            algorithm: "copy".into(),
            reason: "results are handed over as ONNX has them".into(),
            shape: shape.clone().unwrap_or_default(),
            ..StepInfo::default()
        };
        let from = operand.clone();
        self.push(info, &[&operand], &[], move |env| {
            let tensor = match (layout, &shape) {
                (Layout::ChannelsLast, Some(shape)) => for_element!(from.element(), T => {
                    let rows = env.rows(&from)?;
                    let mut tensor = Tensor::zeros(<T as planish_graph::Element>::DTYPE, shape)?;
                    let target = tensor.as_mut_slice::<T>()?;
                    planish_cpu::copy::to_channels_first(env.isa, env.pool, shape[0], rows, target);
                    tensor
                }),
                _ => env.tensor(&from, shape.as_deref())?,
            };
            env.outputs[index] = Some(tensor);
            Ok(())
        });
        Ok(())
    }
}
