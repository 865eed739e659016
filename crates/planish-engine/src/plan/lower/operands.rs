//! Where values are read: the layout and the element a kernel wants are made on demand, once a value and form.

use super::{BufferView, Layout, Lowering, Operand, StepInfo, is_kept, no_levels, rows_of};
use planish_cpu::element::{ElementType, f16};
use planish_cpu::elementwise::convert;
use planish_cpu::{for_element, for_float};
use planish_graph::{DType, Error, Result, Tensor, ValueId};

/// What a tensor of this type is kept as; of one that no kernel reads, nothing is meant by it.
pub(crate) fn element_of(dtype: DType) -> ElementType {
    match dtype {
        DType::BF16 => ElementType::Bf16,
        DType::F16 => ElementType::F16,
        DType::U8 => ElementType::U8,
        _ => ElementType::F32,
    }
}

/// Whether a value of that shape has the same bytes in both layouts.
pub(crate) fn layouts_agree(shape: &[usize]) -> bool {
    shape.len() < 3 || shape[1] == 1 || shape[2..].iter().product::<usize>() == 1
}

impl Lowering<'_> {
    /// Gives every input of the graph its place.
    pub(super) fn place_inputs(&mut self) -> Result<()> {
        for (index, &v) in self.graph.inputs.iter().enumerate() {
            let element = self.element(v);
            let operand = if self.in_arena(v) {
                let (rows, channels) = rows_of(Layout::Plain, self.shape(v)?);
                Operand::Input { index, rows, channels, element }
            } else {
                Operand::Input { index, rows: 0, channels: 0, element }
            };
            self.found.insert((v, Layout::Plain, element), operand);
        }
        Ok(())
    }

    /// Where a value is in `layout`, as the graph has it; converts it there first where needed.
    pub(crate) fn operand(&mut self, v: ValueId, layout: Layout) -> Result<Operand> {
        let kept = self.fact(v).filter(|fact| is_kept(fact));
        let element = kept.map_or(ElementType::F32, |fact| element_of(fact.dtype));
        self.operand_as(v, layout, element)
    }

    /// Where a value is in `layout`, kept as `element`; converts it there first where needed.
    pub(crate) fn operand_as(&mut self, v: ValueId, layout: Layout, element: ElementType) -> Result<Operand> {
        if let Some(operand) = self.found.get(&(v, layout, element)) {
            return Ok(operand.clone());
        }
        let operand = match self.constant(v) {
            Some(tensor) => constant(tensor, layout, element)?,
            None => self.converted(v, layout, element)?,
        };
        self.found.insert((v, layout, element), operand.clone());
        Ok(operand)
    }

    /// Changes the layout or the element of a value; both one after the other, the layout of `f32`, whose elements are
    /// the faster ones to turn.
    fn converted(&mut self, v: ValueId, layout: Layout, element: ElementType) -> Result<Operand> {
        let other = match layout {
            Layout::Plain => Layout::ChannelsLast,
            Layout::ChannelsLast => Layout::Plain,
        };
        let others: &[ElementType] = match element {
            ElementType::F32 => &[ElementType::Bf16, ElementType::F16],
            // From one short one to another by way of `f32`.
            ElementType::Bf16 => &[ElementType::F32, ElementType::F16],
            ElementType::F16 => &[ElementType::F32, ElementType::Bf16],
            // Levels are nothing else without their scale.
            ElementType::U8 => &[],
        };
        let there = |layout: Layout| others.iter().find_map(|&e| self.found.get(&(v, layout, e)).cloned());
        let (here, elsewhere) = (there(layout), there(other));
        if let Some(source) = here {
            if element == ElementType::F32 || source.element() == ElementType::F32 {
                return self.with_element(v, layout, &source, element);
            }
            self.operand_as(v, layout, ElementType::F32)?;
            return self.operand_as(v, layout, element);
        }
        if let Some(source) = self.found.get(&(v, other, element)).cloned() {
            return self.with_layout(v, layout, &source);
        }
        if elsewhere.is_none() {
            let name = &self.graph.value(v).name;
            return Err(Error::invalid(format!("\"{name}\" is read before it is made")));
        }
        let between = if element == ElementType::F32 { other } else { layout };
        self.operand_as(v, between, ElementType::F32)?;
        self.operand_as(v, layout, element)
    }

    /// The same numbers as other elements.
    fn with_element(
        &mut self,
        v: ValueId,
        layout: Layout,
        source: &Operand,
        element: ElementType,
    ) -> Result<Operand> {
        let shape = self.shape(v)?;
        let (rows, channels) = rows_of(layout, shape);
        let view = self.new_buffer(rows, channels, element);
        let info = StepInfo {
            node: self.graph.value(v).name.clone(),
            operator: "conversion".into(),
            algorithm: format!("to {element}"),
            reason: "the next step wants other elements".into(),
            shape: shape.to_vec(),
            ..StepInfo::default()
        };
        let from = source.clone();
        self.push(info, &[source], &[&view], move |env| {
            // One of the two is `f32`.
            if view.element == ElementType::F32 {
                for_float!(from.element(), T => {
                    convert(env.isa, env.pool, env.rows::<T>(&from)?, env.rows_mut::<f32>(&view));
                }, else return Err(no_levels()));
            } else {
                for_float!(view.element, O => {
                    convert(env.isa, env.pool, env.rows::<f32>(&from)?, env.rows_mut::<O>(&view));
                }, else return Err(no_levels()));
            }
            Ok(())
        });
        Ok(Operand::Buffer(view))
    }

    /// The same elements in the other layout.
    fn with_layout(&mut self, v: ValueId, layout: Layout, source: &Operand) -> Result<Operand> {
        let shape = self.shape(v)?;
        let (rows, channels) = rows_of(layout, shape);
        if layouts_agree(shape) && source.is_dense() {
            if let Operand::Buffer(view) = source {
                self.names[view.buffer] += 1;
            }
            return Ok(source.reshaped(rows, channels));
        }
        let view = self.new_buffer(rows, channels, source.element());
        let (images, depth) = (shape[0], shape[1]);
        let pixels: usize = shape[2..].iter().product();
        // Seen plainly, the rows are whole planes of pixels.
        let (from, to) = match layout {
            Layout::ChannelsLast => (source.reshaped(images * depth, pixels), view),
            Layout::Plain => (source.clone(), view.reshaped(images * depth, pixels)),
        };
        let info = StepInfo {
            node: self.graph.value(v).name.clone(),
            operator: "layout change".into(),
            algorithm: if layout == Layout::Plain { "channels first" } else { "channels last" }.into(),
            reason: "the next step wants the other layout".into(),
            shape: shape.to_vec(),
            ..StepInfo::default()
        };
        // In memory order, `images` blocks of `depth` times `pixels` are transposed.
        let (inner, outer) = match layout {
            Layout::ChannelsLast => (depth, pixels),
            Layout::Plain => (pixels, depth),
        };
        self.push(info, &[source], &[&view], move |env| {
            for_element!(to.element, T => {
                let input = env.strided::<T>(&from, &[images, inner, outer])?.permute(&[0, 2, 1]);
                let output = env.strided_mut(&to, &[images, outer, inner]);
                planish_cpu::copy::copy(env.isa, env.pool, input, output);
            });
            Ok(())
        });
        Ok(Operand::Buffer(view))
    }

    /// A step that copies an operand to a view of the same `physical` extents.
    pub(crate) fn copy(&mut self, from: &Operand, to: &BufferView, physical: &[usize]) {
        let info = StepInfo {
            operator: "layout change".into(),
            algorithm: "strided copy".into(),
            reason: "the next step wants rows without gaps, or this one cannot leave them".into(),
            shape: physical.to_vec(),
            ..StepInfo::default()
        };
        let (source, target, extents) = (from.clone(), *to, physical.to_vec());
        self.push(info, &[from], &[to], move |env| {
            for_element!(target.element, T => {
                let (input, output) = (env.strided::<T>(&source, &extents)?, env.strided_mut(&target, &extents));
                planish_cpu::copy::copy(env.isa, env.pool, input, output);
            });
            Ok(())
        });
    }

    /// A copy of an operand whose rows follow each other without gaps.
    pub(crate) fn dense_copy(&mut self, from: &Operand, physical: &[usize]) -> Result<Operand> {
        let channels = physical.last().copied().unwrap_or(1);
        let rows = physical[..physical.len().saturating_sub(1)].iter().product();
        let view = self.new_buffer(rows, channels, from.element());
        self.copy(from, &view, physical);
        Ok(Operand::Buffer(view))
    }
}

/// A constant in `layout`, kept as `element`.
fn constant(tensor: &Tensor, layout: Layout, element: ElementType) -> Result<Operand> {
    let (rows, channels) = match tensor.dtype() {
        DType::F32 | DType::F16 | DType::U8 => rows_of(layout, tensor.shape()),
        _ => return Ok(Operand::Constant { tensor: tensor.clone(), rows: 0, channels: 0 }),
    };
    let mut tensor = match (layout, tensor.dtype()) {
        (Layout::Plain, _) => tensor.clone(),
        (Layout::ChannelsLast, DType::U8) => channels_last::<u8>(tensor)?,
        (Layout::ChannelsLast, DType::F16) => channels_last::<f16>(tensor)?,
        (Layout::ChannelsLast, _) => channels_last::<f32>(tensor)?,
    };
    if element != element_of(tensor.dtype()) {
        let dtype = for_element!(element, T => <T as planish_graph::Element>::DTYPE);
        tensor = Tensor::from_f64s(dtype, tensor.shape(), &tensor.to_f64s())?;
    }
    Ok(Operand::Constant { tensor, rows, channels })
}

/// A constant with its channels last.
fn channels_last<T: planish_graph::Element>(tensor: &Tensor) -> Result<Tensor> {
    let shape = tensor.shape();
    let (images, channels) = (shape[0], shape[1]);
    let pixels: usize = shape[2..].iter().product();
    let source = tensor.as_slice::<T>()?;
    let mut out = Tensor::zeros(T::DTYPE, &Layout::ChannelsLast.physical(shape))?;
    let target = out.as_mut_slice::<T>()?;
    for n in 0..images {
        for c in 0..channels {
            for p in 0..pixels {
                target[(n * pixels + p) * channels + c] = source[(n * channels + c) * pixels + p];
            }
        }
    }
    Ok(out)
}
