//! Samples of a layer's work: what single results are made of, and what they should be.

use super::layers::Layer;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::window::Window;
use planish_graph::{Error, Graph, OperatorExt, Result, Tensor};

/// The function behind a layer, as far as rounding looks at it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bend {
    /// None, or one that is not looked at.
    None,
    /// Between these.
    Bounded(f32, f32),
}

impl Bend {
    /// The function.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Bend::None => x,
            Bend::Bounded(low, high) => x.max(low).min(high),
        }
    }
    /// Its slope.
    pub fn slope(self, x: f32) -> f32 {
        match self {
            Bend::Bounded(low, high) if x < low || x > high => 0.0,
            _ => 1.0,
        }
    }
}

/// Rows of inputs, and the results that the output channels which share them should have.
#[derive(Clone, Debug)]
pub struct Samples {
    inputs: usize,
    rows: Vec<f32>,
    wanted: Vec<Vec<f32>>,
    /// How many rows there are.
    pub count: usize,
}

impl Samples {
    /// `rows` of `inputs` numbers each; `wanted` has a number a row for each output channel.
    pub fn new(inputs: usize, rows: Vec<f32>, wanted: Vec<Vec<f32>>) -> Samples {
        let count = rows.len() / inputs.max(1);
        Samples { inputs, rows, wanted, count }
    }
    /// The inputs of sample `s`, in the order of a row of weights.
    pub fn row(&self, s: usize) -> &[f32] {
        &self.rows[s * self.inputs..][..self.inputs]
    }
    /// What output channel `index` should be for each sample.
    pub fn wanted(&self, index: usize) -> &[f32] {
        &self.wanted[index]
    }
}

/// Where a result lies: the picture, and the position in its map.
pub type Place = (usize, usize);

/// How a layer reads its input.
pub enum Reader {
    /// Windows over a picture.
    Windows(Window),
    /// Rows of a matrix.
    Rows,
}

impl Reader {
    /// For `layer` and an input of this shape.
    pub fn of(layer: &Layer, graph: &Graph, input: &[usize]) -> Result<Reader> {
        match graph.nodes[layer.node].op.as_op::<Conv>() {
            Some(conv) => {
                let problem = conv.resolve(input, layer.weights_of(graph).shape())?;
                Ok(Reader::Windows(problem.window.volumetric()))
            }
            None => Ok(Reader::Rows),
        }
    }
    /// Results in the map of one picture (`input`: the shape of a batch).
    pub fn results(&self, input: &[usize]) -> usize {
        match self {
            Reader::Windows(window) => window.output.iter().product(),
            Reader::Rows => input[1..input.len() - 1].iter().product(),
        }
    }
    /// Appends the inputs of the result at `place` to `row`: the channels of group `group` of `groups`.
    pub fn read(
        &self,
        input: &Tensor,
        (picture, at): Place,
        group: usize,
        groups: usize,
        row: &mut Vec<f32>,
    ) -> Result<()> {
        let values = input.as_slice::<f32>()?;
        let per_picture = values.len() / input.shape()[0].max(1);
        let values = &values[picture * per_picture..][..per_picture];
        let Reader::Windows(window) = self else {
            let width =
                *input.shape().last().ok_or_else(|| Error::invalid("a matrix product of a scalar"))?;
            row.extend_from_slice(&values[at * width..][..width]);
            return Ok(());
        };
        let [depth, height, width] = [window.input[0], window.input[1], window.input[2]];
        let [_, rows, columns] = [window.output[0], window.output[1], window.output[2]];
        let (z, y, x) = (at / (rows * columns), at / columns % rows, at % columns);
        let plane = depth * height * width;
        let channels = input.shape()[1] / groups;
        for channel in values[group * channels * plane..][..channels * plane].chunks_exact(plane) {
            for tap_z in 0..window.kernel[0] {
                for tap_y in 0..window.kernel[1] {
                    for tap_x in 0..window.kernel[2] {
                        let inside = window.taps(0, z).contains(&tap_z)
                            && window.taps(1, y).contains(&tap_y)
                            && window.taps(2, x).contains(&tap_x);
                        row.push(if inside {
                            let line = window.position(0, z, tap_z) * height + window.position(1, y, tap_y);
                            channel[line * width + window.position(2, x, tap_x)]
                        } else {
                            0.0
                        });
                    }
                }
            }
        }
        Ok(())
    }
    /// The result at `place` of output channel `channel`, from the layer's output.
    pub fn result(&self, output: &Tensor, (picture, at): Place, channel: usize) -> Result<f32> {
        let values = output.as_slice::<f32>()?;
        let per_picture = values.len() / output.shape()[0].max(1);
        let inside = match self {
            Reader::Windows(window) => channel * window.output.iter().product::<usize>() + at,
            Reader::Rows => at * output.shape().last().copied().unwrap_or(1) + channel,
        };
        Ok(values[picture * per_picture + inside])
    }
}
