//! A matrix product and the DequantizeLinear that makes its weights, as one operator, so that a kernel may keep the weights
//! as short as they are.

use super::quantize::DequantizeLinear;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::ops::{Arity, Operator};
use crate::tensor::Tensor;
use std::sync::Arc;

/// A Gemm or MatMul whose second operand is dequantised first. Inputs: x, the weights as integers, their scales, their zero
/// points (may be left out), and what the product takes besides (the bias of a Gemm; may be left out).
#[derive(Clone, Debug)]
pub struct ShortWeights {
    /// What is computed of the numbers.
    pub product: Arc<dyn Operator>,
    /// What makes numbers of the weights.
    pub dequantize: DequantizeLinear,
}

impl ShortWeights {
    /// The inputs of the conversion.
    fn conversion<T: Clone>(inputs: &[Option<T>]) -> Vec<Option<T>> {
        inputs.iter().skip(1).take(3).cloned().collect()
    }
    /// The inputs of the product, given its second.
    fn operands<T: Clone>(inputs: &[Option<T>], weights: T) -> Vec<Option<T>> {
        let mut operands = vec![inputs.first().cloned().flatten(), Some(weights)];
        operands.extend(inputs.iter().skip(4).cloned());
        operands
    }
}

impl Operator for ShortWeights {
    fn name(&self) -> &'static str {
        "ShortWeights"
    }
    fn domain(&self) -> &'static str {
        "planish"
    }
    fn arity(&self) -> Arity {
        Arity::range(3, 5)
    }
    fn infer(&self, inputs: &[Option<Fact>], outputs: usize) -> Result<Vec<Fact>> {
        match self.dequantize.infer(&Self::conversion(inputs), 1)?.pop() {
            Some(weights) => self.product.infer(&Self::operands(inputs, weights), outputs),
            None => invalid!("a conversion has one output"),
        }
    }
    fn macs(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let weights =
            self.dequantize.infer(&Self::conversion(inputs), 1).ok().and_then(|mut made| made.pop());
        weights.map_or(0, |weights| self.product.macs(&Self::operands(inputs, weights), outputs))
    }
    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        match self.dequantize.eval(&Self::conversion(inputs), 1)?.pop() {
            Some(weights) => self.product.eval(&Self::operands(inputs, &weights), outputs),
            None => invalid!("a conversion has one output"),
        }
    }
    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new().with("op", self.product.name());
        for (prefix, written) in
            [("op", self.product.attributes()), ("weights", self.dequantize.attributes())]
        {
            for (name, value) in written.0 {
                attributes.0.insert(format!("{prefix}.{name}"), value);
            }
        }
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::gemm::Gemm;
    use crate::ops::nn::quantized::quantize::Granularity;
    use crate::tensor::DType;

    #[test]
    fn means_what_its_parts_mean() {
        let x = Tensor::new(&[1, 4], &[1f32, 2.0, 3.0, 4.0]).unwrap();
        let w = Tensor::from_packed(DType::I4, &[1, 4], &[0x21, 0xf3]).unwrap();
        let scales = Tensor::new(&[1, 2], &[1f32, 0.5]).unwrap();
        let bias = Tensor::new(&[1], &[10f32]).unwrap();
        let op = ShortWeights {
            product: Arc::new(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }),
            dequantize: DequantizeLinear {
                granularity: Granularity { axis: 1, block_size: 2 },
                output_dtype: None,
            },
        };
        let given = [Some(&x), Some(&w), Some(&scales), None, Some(&bias)];
        // 1 · 1 + 2 · 2 + 3 · 1.5 - 4 · 0.5 + 10
        assert_eq!(op.eval(&given, 1).unwrap()[0].as_slice::<f32>().unwrap(), [17.5]);
        let facts = given.map(|t| t.map(Fact::constant));
        assert_eq!(op.infer(&facts, 1).unwrap(), [Fact::new(DType::F32, &[1, 1])]);
        assert_eq!(op.macs(&facts, &[Fact::new(DType::F32, &[1, 1])]), 4);
        let mut wrong = facts.to_vec();
        wrong[2] = Some(Fact::new(DType::F32, &[1, 3]));
        assert!(op.infer(&wrong, 1).unwrap_err().to_string().contains("block_size"));
    }
}
