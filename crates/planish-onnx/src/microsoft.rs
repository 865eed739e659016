//! ONNX Runtime's own quantised operators (domain `com.microsoft`), told in ONNX's.
//!
//! Its quantiser writes them where it is not asked for QuantizeLinear and DequantizeLinear around standard operators. They
//! mean just that, so that is what they become: from there on a network is the same however its file spells it.

use crate::import::Importer;
use crate::integer_products::{Inputs, OPERATORS};
use crate::lower::standard;
use crate::proto::NodeProto;
use planish_graph::{Attributes, Node, Operator, Result, Value, ValueId, invalid, unsupported};
use std::sync::Arc;

/// The domain.
pub(crate) const DOMAIN: &str = "com.microsoft";

/// An operator on quantised tensors.
struct Spelling {
    name: &'static str,
    /// The standard operator on numbers.
    means: &'static str,
    /// Where the quantised inputs stand, each followed by its scale and zero point.
    inputs: &'static [usize],
    /// Where scale and zero point of the output stand.
    output: usize,
}

const SPELLINGS: [Spelling; 9] = [
    Spelling { name: "QLinearAdd", means: "Add", inputs: &[0, 3], output: 6 },
    Spelling { name: "QLinearMul", means: "Mul", inputs: &[0, 3], output: 6 },
    Spelling { name: "QLinearLeakyRelu", means: "LeakyRelu", inputs: &[0], output: 3 },
    Spelling { name: "QLinearSigmoid", means: "Sigmoid", inputs: &[0], output: 3 },
    Spelling { name: "QLinearSoftmax", means: "Softmax", inputs: &[0], output: 3 },
    Spelling { name: "QLinearAveragePool", means: "AveragePool", inputs: &[0], output: 3 },
    Spelling { name: "QLinearGlobalAveragePool", means: "GlobalAveragePool", inputs: &[0], output: 3 },
    // As many inputs as there are.
    Spelling { name: "QLinearConcat", means: "Concat", inputs: &[], output: 0 },
    Spelling { name: "QGemm", means: "Gemm", inputs: &[0, 3], output: 7 },
];

/// Whether this is an operator that [`Importer::microsoft`] reads.
pub(crate) fn is_read(domain: &str, operator: &str) -> bool {
    let same = matches!(operator, "QuantizeLinear" | "DequantizeLinear");
    let products = OPERATORS.contains(&operator);
    domain == DOMAIN && (same || products || SPELLINGS.iter().any(|s| s.name == operator))
}

impl<'a, 'p> Importer<'a, 'p, '_> {
    /// Adds the nodes that an operator of ONNX Runtime's stands for.
    pub(crate) fn microsoft(&mut self, node: &'p NodeProto<'a>, name: &str) -> Result<()> {
        if matches!(node.op_type, "QuantizeLinear" | "DequantizeLinear") {
            return self.operator(node, "", name);
        }
        let (mut attributes, _) = self.attributes(node)?;
        if attributes.int("channels_last", 0)? != 0 {
            unsupported!(
                "operator {DOMAIN}::{} with attribute \"channels_last\": save the model unoptimised, or with extended \
                 optimisations disabled",
                node.op_type
            );
        }
        attributes.0.remove("channels_last");
        if node.op_type == "QLinearSoftmax" {
            // Before opset 13 all axes from the given one on were one.
            if attributes.int("opset", 13)? < 13 && attributes.int("axis", 1)? != -1 {
                unsupported!("operator {DOMAIN}::QLinearSoftmax with attribute \"opset\" below 13");
            }
            attributes.0.remove("opset");
        }
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for &input in &node.inputs {
            inputs.push(if input.is_empty() { None } else { self.scopes.resolve(input)? });
        }
        let [Some(result)] = self.outputs(node)[..] else {
            invalid!("has {} outputs, where 1 is expected", node.outputs.len());
        };
        if OPERATORS.contains(&node.op_type) {
            return self.integer_product(node.op_type, name, &attributes, &Inputs(inputs), result);
        }
        let Some(spelling) = SPELLINGS.iter().find(|s| s.name == node.op_type) else {
            unsupported!("operator {DOMAIN}::{}", node.op_type)
        };
        let concat = spelling.means == "Concat";
        let starts: Vec<usize> =
            if concat { (2..inputs.len()).step_by(3).collect() } else { spelling.inputs.to_vec() };
        let given = |at: usize| inputs.get(at).copied().flatten();
        let mut numbers = Vec::with_capacity(starts.len() + 1);
        for start in starts {
            let (Some(x), Some(scale)) = (given(start), given(start + 1)) else {
                invalid!("input {start} or its scale is required and was left out");
            };
            let columns = spelling.means == "Gemm" && start > 0 && attributes.int("transB", 0)? != 0;
            let axis = Attributes::new().with("axis", if columns { 0i64 } else { 1 });
            let conversion = vec![Some(x), Some(scale), given(start + 2)];
            numbers.push(Some(self.between(name, "DequantizeLinear", axis, conversion)?));
        }
        if spelling.means == "Gemm"
            && let Some(bias) = given(6)
        {
            if attributes.float("alpha", 1.0)? != 1.0 {
                unsupported!("operator {DOMAIN}::QGemm with a bias and attribute \"alpha\"");
            }
            let scale = self.between(name, "Mul", Attributes::new(), vec![given(1), given(4)])?;
            let axis = Attributes::new().with("axis", 0i64);
            numbers.push(Some(self.between(
                name,
                "DequantizeLinear",
                axis,
                vec![Some(bias), Some(scale)],
            )?));
        }
        let Some(scale) = given(spelling.output) else {
            // Of QGemm numbers may be asked for.
            return self.place_between(name, spelling.means, attributes, numbers, result);
        };
        let y = self.between(name, spelling.means, attributes, numbers)?;
        let zero = given(spelling.output + 1);
        self.place_between(
            name,
            "QuantizeLinear",
            Attributes::new(),
            vec![Some(y), Some(scale), zero],
            result,
        )
    }

    /// Adds a node for a standard operator and returns its new output.
    pub(crate) fn between(
        &mut self,
        name: &str,
        operator: &str,
        attributes: Attributes,
        inputs: Vec<Option<ValueId>>,
    ) -> Result<ValueId> {
        let building = self.scopes.building();
        let output = building.fresh_name(&format!("{name}/{operator}"));
        let output = building.graph.add_value(Value { name: output, ..Value::default() });
        self.place_between(name, operator, attributes, inputs, output)?;
        Ok(output)
    }

    /// Adds a node for a standard operator that makes `output`.
    pub(crate) fn place_between(
        &mut self,
        name: &str,
        operator: &str,
        attributes: Attributes,
        mut inputs: Vec<Option<ValueId>>,
        output: ValueId,
    ) -> Result<()> {
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        let op: Arc<dyn Operator> = standard(operator, attributes, inputs.len())?;
        let outputs = vec![Some(output)];
        op.arity().check(&inputs, &outputs)?;
        let name = format!("{name}/{operator}");
        self.scopes.building().graph.nodes.push(Node { name, op, inputs, outputs });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::build::{graph, model, node, typed, with_float};
    use crate::wire::Message;
    use crate::{ReadOptions, read};
    use planish_graph::{DType, Tensor, reference};

    /// What a node of these inputs gives.
    fn run(node: impl Fn(&[&str]) -> Message, inputs: &[Tensor]) -> Result<Tensor> {
        let names: Vec<String> = (0..inputs.len()).map(|i| format!("i{i}")).collect();
        let values = names.iter().zip(inputs).map(|(name, tensor)| {
            let dims: Vec<i64> = tensor.shape().iter().map(|&d| d as i64).collect();
            typed(name, tensor.dtype().onnx_code(), &dims)
        });
        let names: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
        let bytes = model(graph(vec![node(&names)], values.collect(), vec![typed("y", 2, &[])]), vec![]);
        let read = read(&bytes, None, &ReadOptions::default())?;
        assert!(read.nodes.iter().all(|n| n.op.domain().is_empty()));
        Ok(reference::run(&read, inputs)?.remove(0))
    }

    fn spelled<'n>(operator: &'n str) -> impl Fn(&[&str]) -> Message + 'n {
        move |inputs| node(&format!("{DOMAIN}::{operator}"), inputs, &["y"])
    }

    /// Levels with their scale and zero point.
    fn levels(shape: &[usize], values: &[u8], scale: f32, zero: u8) -> [Tensor; 3] {
        [Tensor::new(shape, values).unwrap(), Tensor::scalar(scale), Tensor::scalar(zero)]
    }

    #[test]
    fn sums_products_and_functions() {
        let (a, b) = (levels(&[1, 2], &[10, 20], 0.5, 10), levels(&[1, 2], &[7, 1], 2.0, 3));
        let to = [Tensor::scalar(1f32), Tensor::scalar(100u8)];
        let both = [&a[..], &b, &to].concat();
        // The numbers are 0, 5 and 8, -4.
        let sum = run(spelled("QLinearAdd"), &both).unwrap();
        assert_eq!(sum.as_slice::<u8>().unwrap(), [108, 101]);
        assert_eq!(run(spelled("QLinearMul"), &both).unwrap().as_slice::<u8>().unwrap(), [100, 80]);
        let bent = run(|i| with_float(spelled("QLinearLeakyRelu")(i), "alpha", 0.5), &[&b[..], &to].concat());
        assert_eq!(bent.unwrap().as_slice::<u8>().unwrap(), [108, 98]);
        let shares = run(spelled("QLinearSoftmax"), &[&levels(&[1, 2], &[7, 7], 2.0, 3)[..], &to].concat());
        assert_eq!(shares.unwrap().as_slice::<u8>().unwrap(), [100, 100]);
        assert_eq!(
            run(spelled("QuantizeLinear"), &[b[1].clone(), to[0].clone(), to[1].clone()]).unwrap(),
            Tensor::scalar(102u8)
        );
    }

    #[test]
    fn products_with_a_bias() {
        let (a, b) = (levels(&[1, 2], &[10, 20], 0.5, 10), levels(&[2, 1], &[7, 1], 2.0, 3));
        let bias = Tensor::new(&[1], &[3i32]).unwrap();
        let to = [Tensor::scalar(1f32), Tensor::scalar(100u8)];
        // 0 · 8 + 5 · (-4) + 3 units of 0.5 · 2.
        let made = run(spelled("QGemm"), &[&a[..], &b, std::slice::from_ref(&bias), &to].concat()).unwrap();
        assert_eq!(made.as_slice::<u8>().unwrap(), [83]);
        let numbers = run(spelled("QGemm"), &[&a[..], &b, std::slice::from_ref(&bias)].concat()).unwrap();
        assert_eq!((numbers.dtype(), numbers.to_f32s()), (DType::F32, vec![-17.0]));
        let scaled = |i: &[&str]| with_float(spelled("QGemm")(i), "alpha", 0.5);
        assert!(run(scaled, &[&a[..], &b, std::slice::from_ref(&bias), &to].concat()).is_err());
    }

    #[test]
    fn what_is_not_read_is_named() {
        let a = levels(&[1, 2], &[10, 20], 0.5, 10);
        let error = run(spelled("QLinearReduceMean"), &a).unwrap_err().to_string();
        assert!(error.contains("com.microsoft::QLinearReduceMean"), "{error}");
        assert!(run(spelled("QLinearAdd"), &a[..1]).is_err());
        assert!(!is_read("", "QLinearAdd") && !is_read(DOMAIN, "QLinearConv"));
    }
}
