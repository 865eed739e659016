//! Where values are read: the layout a kernel wants is made on demand, once a value and layout.

use super::{BufferView, Layout, Lowering, Operand, StepInfo, rows_of};
use crate::run::environment::Environment;
use planish_graph::{DType, Error, Result, Tensor, ValueId};

/// Whether a value of that shape has the same bytes in both layouts.
pub(crate) fn layouts_agree(shape: &[usize]) -> bool {
    shape.len() < 3 || shape[1] == 1 || shape[2..].iter().product::<usize>() == 1
}

impl Lowering<'_> {
    /// Gives every input of the graph its place.
    pub(super) fn place_inputs(&mut self) -> Result<()> {
        for (index, &v) in self.graph.inputs.iter().enumerate() {
            let operand = if self.in_arena(v) {
                let (rows, channels) = rows_of(Layout::Plain, self.shape(v)?);
                Operand::Input { index, rows, channels }
            } else {
                Operand::Input { index, rows: 0, channels: 0 }
            };
            self.found.insert((v, Layout::Plain), operand);
        }
        Ok(())
    }

    /// Where a value is, in `layout`; converts it there first where needed.
    pub(crate) fn operand(&mut self, v: ValueId, layout: Layout) -> Result<Operand> {
        if let Some(operand) = self.found.get(&(v, layout)) {
            return Ok(operand.clone());
        }
        let operand = self.converted(v, layout)?;
        self.found.insert((v, layout), operand.clone());
        Ok(operand)
    }

    fn converted(&mut self, v: ValueId, layout: Layout) -> Result<Operand> {
        if let Some(tensor) = self.constant(v) {
            if tensor.dtype() != DType::F32 {
                return Ok(Operand::Constant { tensor: tensor.clone(), rows: 0, channels: 0 });
            }
            let (rows, channels) = rows_of(layout, tensor.shape());
            let tensor = match layout {
                Layout::Plain => tensor.clone(),
                Layout::ChannelsLast => channels_last(tensor)?,
            };
            return Ok(Operand::Constant { tensor, rows, channels });
        }
        let other = match layout {
            Layout::Plain => Layout::ChannelsLast,
            Layout::ChannelsLast => Layout::Plain,
        };
        let name = &self.graph.value(v).name;
        let Some(source) = self.found.get(&(v, other)).cloned() else {
            return Err(Error::invalid(format!("\"{name}\" is read before it is made")));
        };
        let shape = self.shape(v)?;
        let (rows, channels) = rows_of(layout, shape);
        if layouts_agree(shape) && source.is_dense() {
            if let Operand::Buffer(view) = &source {
                self.names[view.buffer] += 1;
            }
            return Ok(source.reshaped(rows, channels));
        }
        let view = self.new_buffer(rows, channels);
        let (images, depth) = (shape[0], shape[1]);
        let pixels: usize = shape[2..].iter().product();
        // Seen plainly, the rows are whole planes of pixels.
        let (from, to) = match layout {
            Layout::ChannelsLast => (source.reshaped(images * depth, pixels), view),
            Layout::Plain => (source.clone(), view.reshaped(images * depth, pixels)),
        };
        let kernel = move |env: &mut Environment<'_>| {
            // In memory order, `images` blocks of `depth` times `pixels` are transposed.
            let (input, output) = match layout {
                Layout::ChannelsLast => (
                    env.strided(&from, &[images, depth, pixels])?.permute(&[0, 2, 1]),
                    env.strided_mut(&to, &[images, pixels, depth]),
                ),
                Layout::Plain => (
                    env.strided(&from, &[images, pixels, depth])?.permute(&[0, 2, 1]),
                    env.strided_mut(&to, &[images, depth, pixels]),
                ),
            };
            planish_cpu::copy::copy(env.isa, env.pool, input, output);
            Ok(())
        };
        let info = StepInfo {
            node: name.clone(),
            operator: "layout change".into(),
            algorithm: if layout == Layout::Plain { "channels first" } else { "channels last" }.into(),
            reason: "the next step wants the other layout".into(),
            shape: shape.to_vec(),
            ..StepInfo::default()
        };
        self.push(info, &[&source], &[&view], kernel);
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
            let (input, output) = (env.strided(&source, &extents)?, env.strided_mut(&target, &extents));
            planish_cpu::copy::copy(env.isa, env.pool, input, output);
            Ok(())
        });
    }

    /// A copy of an operand whose rows follow each other without gaps.
    pub(crate) fn dense_copy(&mut self, from: &Operand, physical: &[usize]) -> Result<Operand> {
        let channels = physical.last().copied().unwrap_or(1);
        let rows = physical[..physical.len().saturating_sub(1)].iter().product();
        let view = self.new_buffer(rows, channels);
        self.copy(from, &view, physical);
        Ok(Operand::Buffer(view))
    }
}

/// A constant with its channels last.
fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    let shape = tensor.shape();
    let (images, channels) = (shape[0], shape[1]);
    let pixels: usize = shape[2..].iter().product();
    let source = tensor.as_slice::<f32>()?;
    let mut out = Tensor::zeros(DType::F32, &Layout::ChannelsLast.physical(shape))?;
    let target = out.as_mut_slice::<f32>()?;
    for n in 0..images {
        for c in 0..channels {
            for p in 0..pixels {
                target[(n * pixels + p) * channels + c] = source[(n * channels + c) * pixels + p];
            }
        }
    }
    Ok(out)
}
