//! ONNX Runtime's operators (domain `com.microsoft`) for products with integers whose scales are known at run time only, and
//! for weights of four bits, told in ONNX's.
//!
//! The first are what its dynamic quantisation becomes when an optimised model is saved: ONNX's own integer sums and what
//! scales them, in one node. The other, MatMulNBits, is its form of weight-only quantisation: DequantizeLinear of blocks,
//! before a matrix product.

use crate::import::Importer;
use crate::microsoft::DOMAIN;
use planish_graph::ops::nn::quantized::quantize::DynamicQuantizeLinear;
use planish_graph::{Attributes, DType, Node, Result, Tensor, Value, ValueId, invalid, unsupported};
use std::sync::Arc;

/// The operators that are read here.
pub(crate) const OPERATORS: [&str; 3] = ["DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits"];

/// The inputs of a node; what was left out at the end is left out here as well.
pub(crate) struct Inputs(pub(crate) Vec<Option<ValueId>>);

impl Inputs {
    fn given(&self, at: usize) -> Option<ValueId> {
        self.0.get(at).copied().flatten()
    }
    fn required(&self, at: usize) -> Result<Option<ValueId>> {
        match self.given(at) {
            None => invalid!("input {at} is required and was left out"),
            given => Ok(given),
        }
    }
}

impl<'a, 'p> Importer<'a, 'p, '_> {
    /// Adds the nodes that `operator`, one of [`OPERATORS`], stands for.
    pub(crate) fn integer_product(
        &mut self,
        operator: &str,
        name: &str,
        attributes: &Attributes,
        inputs: &Inputs,
        result: ValueId,
    ) -> Result<()> {
        match operator {
            "DynamicQuantizeMatMul" => {
                let levels = self.own_levels(name, inputs.required(0)?);
                let [x, scale, zero] = levels.map(Some);
                let sums = [x, inputs.required(1)?, zero, inputs.given(3)];
                self.scaled_sums(name, sums, [scale, inputs.required(2)?], inputs.given(4), result)
            }
            "MatMulIntegerToFloat" => {
                let sums = [inputs.required(0)?, inputs.required(1)?, inputs.given(4), inputs.given(5)];
                let scales = [inputs.required(2)?, inputs.required(3)?];
                self.scaled_sums(name, sums, scales, inputs.given(6), result)
            }
            _ => self.blocks(name, attributes, inputs, result),
        }
    }

    /// Levels, scale and zero point of `x` by its own range.
    fn own_levels(&mut self, name: &str, x: Option<ValueId>) -> [ValueId; 3] {
        let building = self.scopes.building();
        let made = ["levels", "scale", "zero"].map(|what| {
            let name = building.fresh_name(&format!("{name}/{what}"));
            building.graph.add_value(Value { name, ..Value::default() })
        });
        building.graph.nodes.push(Node {
            name: format!("{name}/DynamicQuantizeLinear"),
            op: Arc::new(DynamicQuantizeLinear),
            inputs: vec![x],
            outputs: made.map(Some).to_vec(),
        });
        made
    }

    /// `MatMulInteger(sums) * (first scale * second scale) + bias`.
    fn scaled_sums(
        &mut self,
        name: &str,
        sums: [Option<ValueId>; 4],
        scales: [Option<ValueId>; 2],
        bias: Option<ValueId>,
        result: ValueId,
    ) -> Result<()> {
        let sums = self.between(name, "MatMulInteger", Attributes::new(), sums.to_vec())?;
        let to = Attributes::new().with("to", DType::F32.onnx_code());
        let numbers = self.between(name, "Cast", to, vec![Some(sums)])?;
        let scale = self.between(name, "Mul", Attributes::new(), scales.to_vec())?;
        let factors = vec![Some(numbers), Some(scale)];
        let Some(bias) = bias else {
            return self.place_between(name, "Mul", Attributes::new(), factors, result);
        };
        let scaled = self.between(name, "Mul", Attributes::new(), factors)?;
        self.place_between(name, "Add", Attributes::new(), vec![Some(scaled), Some(bias)], result)
    }

    /// MatMulNBits: its weights are a row for each output, cut into blocks, two weights a byte.
    fn blocks(
        &mut self,
        name: &str,
        attributes: &Attributes,
        inputs: &Inputs,
        result: ValueId,
    ) -> Result<()> {
        let bits = attributes.int("bits", 4)?;
        if bits != 4 {
            unsupported!("operator {DOMAIN}::MatMulNBits with attribute \"bits\" {bits}: only 4 are read");
        }
        if inputs.given(4).is_some() {
            unsupported!("operator {DOMAIN}::MatMulNBits with a group index (input 4)");
        }
        let size = |name: &str| -> Result<usize> {
            let value = attributes.int(name, 0)?;
            match usize::try_from(value) {
                Ok(size) if size > 0 => Ok(size),
                _ => invalid!("attribute \"{name}\" is {value}, where a number above 0 is expected"),
            }
        };
        let (depth, columns, block) = (size("K")?, size("N")?, size("block_size")?);
        if block < 16 || !block.is_power_of_two() {
            invalid!("attribute \"block_size\" is {block}, where a power of two from 16 on is expected");
        }
        let blocks = depth.div_ceil(block);
        let constant = |this: &mut Self, at: usize| -> Result<Option<Tensor>> {
            let Some(v) = inputs.given(at) else { return Ok(None) };
            match this.scopes.building().graph.constant(v) {
                Some(tensor) => Ok(Some(tensor.clone())),
                None => unsupported!("operator {DOMAIN}::MatMulNBits whose input {at} is made at run time"),
            }
        };
        let (Some(weights), Some(scales)) = (constant(self, 1)?, constant(self, 2)?) else {
            invalid!("the weights (input 1) and their scales (input 2) are required");
        };
        let checked = |what: &str,
                       tensor: &Tensor,
                       dtype: Option<DType>,
                       count: Option<usize>|
         -> Result<()> {
            if dtype.is_some_and(|d| d != tensor.dtype()) || count != Some(tensor.len()) {
                invalid!(
                    "{what} are of type {} and shape {:?}, which does not fit {columns} columns of {blocks} blocks of {block}",
                    tensor.dtype(),
                    tensor.shape()
                );
            }
            Ok(())
        };
        let product = |parts: &[usize]| parts.iter().try_fold(1usize, |p, &x| p.checked_mul(x));
        checked("the weights (input 1)", &weights, Some(DType::U8), product(&[columns, blocks, block / 2]))?;
        checked("the scales (input 2)", &scales, None, product(&[columns, blocks]))?;
        let levels = turned(&weights, [columns, blocks * block], [depth, columns])?;
        let mut kept = vec![Some(self.scopes.building().add_constant(&format!("{name}.weight"), levels))];
        let turned_scales = {
            let numbers = scales.to_f64s();
            let turned: Vec<f64> =
                (0..blocks * columns).map(|i| numbers[i % columns * blocks + i / columns]).collect();
            Tensor::from_f64s(scales.dtype(), &[blocks, columns], &turned)?
        };
        kept.push(Some(self.scopes.building().add_constant(&format!("{name}.scale"), turned_scales)));
        let zeros = match constant(self, 3)? {
            None => {
                let mut zeros = Tensor::zeros(DType::U4, &[blocks, columns])?;
                zeros.bytes_mut().fill(8);
                zeros
            }
            Some(zeros) => {
                let row = blocks.div_ceil(2);
                checked("the zero points (input 3)", &zeros, Some(DType::U8), product(&[columns, row]))?;
                turned(&zeros, [columns, 2 * row], [blocks, columns])?
            }
        };
        kept.push(Some(self.scopes.building().add_constant(&format!("{name}.zero"), zeros)));
        let written =
            Attributes::new().with("axis", 0i64).with("block_size", i64::try_from(block).unwrap_or(i64::MAX));
        let numbers = self.between(name, "DequantizeLinear", written, kept)?;
        let factors = vec![inputs.required(0)?, Some(numbers)];
        let Some(bias) = inputs.given(5) else {
            return self.place_between(name, "MatMul", Attributes::new(), factors, result);
        };
        let sums = self.between(name, "MatMul", Attributes::new(), factors)?;
        self.place_between(name, "Add", Attributes::new(), vec![Some(sums), Some(bias)], result)
    }
}

/// The first `rows` of each column, which `packed` holds one column of `[columns, length]` after the other, two a byte and
/// the first in the lower half, as a tensor of `[rows, columns]`.
fn turned(packed: &Tensor, [columns, length]: [usize; 2], [rows, _]: [usize; 2]) -> Result<Tensor> {
    let mut made = Tensor::zeros(DType::U4, &[rows, columns])?;
    let bytes = packed.bytes();
    for (k, row) in made.bytes_mut().chunks_exact_mut(columns).enumerate() {
        for (n, level) in row.iter_mut().enumerate() {
            *level = bytes[(n * length + k) / 2] >> (4 * (k % 2)) & 15;
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::build::{graph, model, node, typed, with_int};
    use crate::wire::Message;
    use crate::{ReadOptions, read};
    use planish_graph::reference;

    /// What a node of these inputs gives, which are constants but for the first `given`.
    fn run(made: impl Fn(&[&str]) -> Message, inputs: &[Tensor], given: usize) -> Result<Tensor> {
        let names: Vec<String> = (0..inputs.len()).map(|i| format!("i{i}")).collect();
        let value = |i: usize| {
            let dims: Vec<i64> = inputs[i].shape().iter().map(|&d| d as i64).collect();
            typed(&names[i], inputs[i].dtype().onnx_code(), &dims)
        };
        let names: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
        let constants = (given..inputs.len()).map(|i| crate::tests::build::constant(names[i], &inputs[i]));
        let whole = graph(vec![made(&names)], (0..given).map(value).collect(), vec![typed("y", 1, &[])]);
        let whole = constants.fold(whole, crate::tests::build::with_initializer);
        let read = read(&model(whole, vec![]), None, &ReadOptions::default())?;
        assert!(read.nodes.iter().all(|n| n.op.domain().is_empty()));
        Ok(reference::run(&read, &inputs[..given])?.remove(0))
    }

    fn spelled<'n>(operator: &'n str) -> impl Fn(&[&str]) -> Message + 'n {
        move |inputs| node(&format!("{DOMAIN}::{operator}"), inputs, &["y"])
    }

    #[test]
    fn products_of_integers_give_numbers() {
        let (a, b) = (Tensor::new(&[1, 2], &[10u8, 20]).unwrap(), Tensor::new(&[2, 1], &[3i8, -1]).unwrap());
        let (s, t, zero) = (Tensor::scalar(0.5f32), Tensor::scalar(2f32), Tensor::scalar(8u8));
        let both = [a, b.clone(), s, t.clone(), zero];
        // 2 · 3 - 12
        assert_eq!(run(spelled("MatMulIntegerToFloat"), &both, 5).unwrap().to_f32s(), [-6.0]);
        let x = Tensor::new(&[1, 2], &[0f32, 255.0]).unwrap();
        let bias = Tensor::new(&[1], &[7f32]).unwrap();
        let given = [x, b, t, Tensor::scalar(1i8), bias];
        // 255 · (-1 - 1) · 2 + 7
        assert_eq!(run(spelled("DynamicQuantizeMatMul"), &given, 5).unwrap().to_f32s(), [-1013.0]);
        assert!(run(spelled("MatMulIntegerToFloat"), &both[..3], 3).is_err());
    }

    /// A product of 20 numbers with 2 columns of two blocks of 16, and what its attributes are set to.
    fn blocks(set: &[(&str, i64)], change: impl Fn(&mut Vec<Tensor>)) -> Result<Tensor> {
        let x = Tensor::new(&[1, 20], &[1f32; 20]).unwrap();
        let mut weights = vec![0u8; 32];
        // The first column's weights are 8 and 9 in turn, the second's 15 in its last block.
        weights[..16].fill(0x98);
        weights[16..24].fill(0x88);
        weights[24..].fill(0xff);
        let weights = Tensor::new(&[2, 2, 8], &weights).unwrap();
        let scales = Tensor::new(&[4], &[1f32, 10.0, 100.0, 1000.0]).unwrap();
        let mut inputs = vec![x, weights, scales];
        change(&mut inputs);
        let usual = [("K", 20), ("N", 2), ("block_size", 16), ("bits", 4)];
        run(
            |names| {
                let value = |name: &str, usual: i64| set.iter().find(|s| s.0 == name).map_or(usual, |s| s.1);
                let made = spelled("MatMulNBits")(names);
                usual.iter().fold(made, |made, (name, usual)| with_int(made, name, value(name, *usual)))
            },
            &inputs,
            1,
        )
    }

    #[test]
    fn blocks_of_four_bits() {
        // 8 ones in the first block, 2 in the second; nothing in the third, 4 sevens in the fourth.
        assert_eq!(blocks(&[], |_| ()).unwrap().to_f32s(), [28.0, 28000.0]);
        // Zero points 9 and 8, 8 and 15.
        let zeros = |inputs: &mut Vec<Tensor>| inputs.push(Tensor::new(&[2], &[0x89u8, 0xf8]).unwrap());
        assert_eq!(blocks(&[], zeros).unwrap().to_f32s(), [12.0, 0.0]);
    }

    #[test]
    fn blocks_that_do_not_fit_are_refused() {
        for (name, value) in [("K", 0), ("N", -1), ("N", 3), ("K", 33), ("block_size", 12), ("block_size", 0)]
        {
            let error = blocks(&[(name, value)], |_| ()).unwrap_err().to_string();
            assert!(
                error.contains("MatMulNBits") || error.contains("attribute") || error.contains("fit"),
                "{error}"
            );
        }
        assert!(blocks(&[("bits", 2)], |_| ()).unwrap_err().to_string().contains("bits"));
        assert!(blocks(&[("K", i64::MAX), ("N", i64::MAX)], |_| ()).is_err());
        let short = |inputs: &mut Vec<Tensor>| inputs.push(Tensor::new(&[1], &[0x88u8]).unwrap());
        assert!(blocks(&[], short).unwrap_err().to_string().contains("input 3"));
        let wrong = |inputs: &mut Vec<Tensor>| inputs[1] = Tensor::new(&[2, 2, 8], &[0i8; 32]).unwrap();
        assert!(blocks(&[], wrong).unwrap_err().to_string().contains("input 1"));
    }
}
