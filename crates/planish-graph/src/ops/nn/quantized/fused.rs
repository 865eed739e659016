//! Quantised: an operator between tensors of small integers.
//!
//! Not an ONNX operator (domain "planish"): passes make it from DequantizeLinear, an operator on numbers, and
//! QuantizeLinear, so that engines see at once that the operator may be computed in integers (Jacob et al., "Quantization
//! and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018). Its meaning is theirs, one
//! after the other; an engine that computes it in integers rounds less often, and may differ by a step where the exact
//! result is next to a tie.

use super::quantize::{DequantizeLinear, Granularity, QuantizeLinear};
use crate::attributes::{Attribute, Attributes};
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::math::binary::{Binary, BinaryFunction};
use crate::ops::nn::fused::{ConvAdd, FusedActivation};
use crate::ops::{Arity, Operator, OperatorExt};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// What the integers of a tensor mean: `scale * (integer - zero point)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// The type of the integers.
    pub dtype: DType,
    /// The axis along which scales vary, where there is more than one.
    pub axis: i64,
    /// One scale, or one for each index of the axis.
    pub scales: Vec<f32>,
    /// As many zero points as scales.
    pub zeros: Vec<i32>,
}

impl Grid {
    /// One scale for all of a tensor of unsigned levels.
    pub fn levels(scale: f32, zero: u8) -> Grid {
        Grid { dtype: DType::U8, axis: 1, scales: vec![scale], zeros: vec![zero.into()] }
    }
    /// The scale and zero point of a tensor that has one.
    pub fn single(&self) -> Option<(f32, i32)> {
        match (&self.scales[..], &self.zeros[..]) {
            (&[scale], &[zero]) => Some((scale, zero)),
            _ => None,
        }
    }
    /// Scales and zero points as the tensors that QuantizeLinear and DequantizeLinear take.
    pub fn tensors(&self) -> Result<[Tensor; 2]> {
        let shape: &[usize] = if self.scales.len() == 1 { &[] } else { &[self.scales.len()] };
        let zeros: Vec<i128> = self.zeros.iter().map(|&z| z.into()).collect();
        Ok([Tensor::new(shape, &self.scales)?, Tensor::from_ints(self.dtype, shape, &zeros)?])
    }
    fn granularity(&self) -> Granularity {
        Granularity { axis: self.axis, block_size: 0 }
    }
    /// The operator that makes integers of numbers.
    pub fn quantize(&self) -> QuantizeLinear {
        QuantizeLinear { granularity: self.granularity(), ..QuantizeLinear::default() }
    }
    /// The operator that makes numbers of integers.
    pub fn dequantize(&self) -> DequantizeLinear {
        DequantizeLinear { granularity: self.granularity(), output_dtype: None }
    }
    /// The integers of numbers.
    pub fn integers(&self, numbers: &Tensor) -> Result<Tensor> {
        let [scale, zero] = self.tensors()?;
        first(self.quantize().eval(&[Some(numbers), Some(&scale), Some(&zero)], 1)?)
    }
    /// The numbers of integers.
    pub fn numbers(&self, integers: &Tensor) -> Result<Tensor> {
        let [scale, zero] = self.tensors()?;
        first(self.dequantize().eval(&[Some(integers), Some(&scale), Some(&zero)], 1)?)
    }
    /// `attributes` with these under names that begin with `prefix`.
    fn write(&self, prefix: &str, attributes: Attributes) -> Attributes {
        attributes
            .with(&format!("{prefix}.type"), self.dtype.onnx_code())
            .with(&format!("{prefix}.axis"), self.axis)
            .with(&format!("{prefix}.scale"), self.scales.clone())
            .with(&format!("{prefix}.zero"), self.zeros.iter().map(|&z| z.into()).collect::<Vec<i64>>())
    }
}

fn first(mut made: Vec<Tensor>) -> Result<Tensor> {
    match made.pop() {
        Some(tensor) if made.is_empty() => Ok(tensor),
        _ => invalid!("a quantised operator must have one output"),
    }
}

/// An operator on numbers, whose inputs and output are kept as integers. Inputs and output are those of the operator.
#[derive(Clone, Debug)]
pub struct Quantised {
    /// What is computed of the numbers; one output.
    pub op: Arc<dyn Operator>,
    /// What the integers of each input mean; `None` where it is given as numbers. Inputs beyond are numbers.
    pub inputs: Vec<Option<Grid>>,
    /// What the integers of the output mean; `None` where it is given as numbers.
    pub output: Option<Grid>,
    /// Of a [`ConvAdd`] with a residual: the grid of the convolution's own result, where that was quantised before the
    /// residual was added.
    pub inner: Option<Grid>,
}

impl Quantised {
    /// The grid of input `index`, where it has one.
    pub fn input(&self, index: usize) -> Option<&Grid> {
        self.inputs.get(index)?.as_ref()
    }

    /// The facts of the numbers that the operator sees.
    fn numbers(&self, inputs: &[Option<Fact>]) -> Result<Vec<Option<Fact>>> {
        let mut facts = Vec::with_capacity(inputs.len());
        for (index, fact) in inputs.iter().enumerate() {
            facts.push(match (fact, self.input(index)) {
                (Some(fact), Some(grid)) => {
                    if fact.dtype != grid.dtype {
                        invalid!("input {index} is of type {}, where {} is expected", fact.dtype, grid.dtype);
                    }
                    Some(Fact { dtype: DType::F32, shape: fact.shape.clone(), value: None })
                }
                (fact, _) => fact.clone(),
            });
        }
        Ok(facts)
    }

    /// What the operator computes of numbers. Steps that the graph had one after the other round one after the other.
    fn compute(&self, inputs: &[Option<&Tensor>]) -> Result<Tensor> {
        let (Some(inner), Some(fused), Some(Some(residual))) =
            (&self.inner, self.op.as_op::<ConvAdd>(), inputs.get(3))
        else {
            return first(self.op.eval(inputs, 1)?);
        };
        let conv = ConvAdd { conv: fused.conv.clone(), activation: FusedActivation::None };
        let sums = first(conv.eval(&inputs[..3], 1)?)?;
        let between = inner.numbers(&inner.integers(&sums)?)?;
        let sum = Binary { function: BinaryFunction::Add }.eval(&[Some(&between), Some(residual)], 1)?;
        let mut sum = first(sum)?;
        for x in sum.as_mut_slice::<f32>()? {
            *x = fused.activation.apply(f64::from(*x)) as f32;
        }
        Ok(sum)
    }
}

impl Operator for Quantised {
    fn name(&self) -> &'static str {
        "Quantised"
    }
    fn domain(&self) -> &'static str {
        "planish"
    }
    fn arity(&self) -> Arity {
        self.op.arity()
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        let mut facts = self.op.infer(&self.numbers(inputs)?, outputs)?;
        for fact in &mut facts {
            fact.value = None;
            if let Some(grid) = &self.output {
                fact.dtype = grid.dtype;
            }
        }
        Ok(facts)
    }
    fn macs(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        self.numbers(inputs).map_or(0, |inputs| self.op.macs(&inputs, outputs))
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let mut numbers = Vec::with_capacity(inputs.len());
        for (index, tensor) in inputs.iter().enumerate() {
            numbers.push(match (tensor, self.input(index)) {
                (Some(tensor), Some(grid)) => Some(grid.numbers(tensor)?),
                (tensor, _) => tensor.cloned(),
            });
        }
        let given: Vec<Option<&Tensor>> = numbers.iter().map(|t| t.as_ref()).collect();
        let made = self.compute(&given)?;
        Ok(vec![match &self.output {
            Some(grid) => grid.integers(&made)?,
            None => made,
        }])
    }
    /// Those of the operator, its name, and all grids.
    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new().with("op", self.op.name());
        for (name, value) in self.op.attributes().0 {
            attributes.0.insert(format!("op.{name}"), value);
        }
        let inputs = self.inputs.iter().enumerate().map(|(i, grid)| (format!("input{i}"), grid));
        let others = [("output".to_string(), &self.output), ("inner".to_string(), &self.inner)];
        for (prefix, grid) in inputs.chain(others) {
            if let Some(grid) = grid {
                attributes = grid.write(&prefix, attributes);
            }
        }
        attributes
    }
    fn is_pure(&self) -> bool {
        self.op.is_pure() && !self.op.attributes().0.values().any(|a| matches!(a, Attribute::Graph(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::nn::conv::Conv;

    fn scalar_grid(scale: f32, zero: u8) -> Option<Grid> {
        Some(Grid::levels(scale, zero))
    }

    #[test]
    fn means_what_its_parts_mean() {
        let x = Tensor::new(&[1, 1, 3], &[10u8, 20, 30]).unwrap();
        let w = Tensor::new(&[2, 1, 1], &[3i8, -4]).unwrap();
        let residual = Tensor::new(&[1, 2, 3], &[0u8, 1, 2, 3, 4, 5]).unwrap();
        let weights = Grid { dtype: DType::I8, axis: 0, scales: vec![1.0, 0.5], zeros: vec![0, 1] };
        let op = ConvAdd { conv: Conv::default(), activation: FusedActivation::Relu };
        let quantised = Quantised {
            op: Arc::new(op.clone()),
            inputs: vec![scalar_grid(0.5, 10), Some(weights.clone()), None, scalar_grid(2.0, 1)],
            output: scalar_grid(0.7, 3),
            inner: scalar_grid(4.0, 128),
        };
        let given = [Some(&x), Some(&w), None, Some(&residual)];
        let y = quantised.eval(&given, 1).unwrap().remove(0);
        // Convolved 0, 15, 30 | 0, -12.5, -25; kept as 0, 16, 32 | 0, -12, -24; with the residual -2, 16, 34 | 4, -6, -16.
        let wanted = [0.0, 16.0, 34.0, 4.0, 0.0, 0.0].map(|x: f32| (x / 0.7).round_ties_even() as u8 + 3);
        assert_eq!(y.as_slice::<u8>().unwrap(), wanted);
        let facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(quantised.infer(&facts, 1).unwrap(), [Fact::new(DType::U8, &[1, 2, 3])]);
        assert_eq!(quantised.macs(&facts, &[]), 6);
        assert!(quantised.attributes().0.contains_key("inner.scale"));
        let mut wrong = facts.to_vec();
        wrong[0] = Some(Fact::new(DType::I8, &[1, 1, 3]));
        assert!(quantised.infer(&wrong, 1).unwrap_err().to_string().contains("input 0"));
        let floats = Quantised { output: None, inner: None, ..quantised };
        assert_eq!(floats.eval(&given, 1).unwrap()[0].dtype(), DType::F32);
    }
}
