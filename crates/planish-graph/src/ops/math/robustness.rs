//! Whatever the types, shapes and contents, an operator of this family refuses, or evaluates to what its rule foretold.

use super::OPERATORS;
use super::testing::node;
use crate::attributes::{Attribute, Attributes};
use crate::error::ErrorKind;
use crate::infer::Fact;
use crate::limits::{Budget, with_budget};
use crate::ops::{OperatorEntry, read_operator};
use crate::tensor::{DType, Tensor};
use proptest::prelude::*;

/// Attributes that some operator of the family reads; the others ignore them.
fn attributes() -> impl Strategy<Value = Attributes> {
    let equation = prop::sample::select(vec!["ij->ji", "ij,jk", "...i,i", "i", "ii->i", ",", "...,..."]);
    let float = prop::sample::select(vec![0f32, 1.0, -2.5, f32::NAN, f32::INFINITY]);
    (prop::array::uniform5(-2i64..3), float, equation, 0..17i64).prop_map(|(ints, float, equation, to)| {
        let names = ["axis", "keepdims", "k", "fmod", "exclusive"];
        let twins = ["noop_with_empty_axes", "select_last_index", "largest", "transA", "reverse"];
        let mut found = Attributes::new().with("equation", equation).with("to", to);
        for ((name, twin), int) in names.into_iter().zip(twins).zip(ints) {
            found = found.with(name, int).with(twin, (int > 0) as i64);
        }
        for name in ["alpha", "beta", "gamma", "bias", "lambd", "min", "max"] {
            found = found.with(name, float);
        }
        found.with("direction", if to % 2 == 0 { "LEFT" } else { "RIGHT" })
    })
}

/// A tensor of `dtype` with content made of `seed`, or small whole numbers where it is to serve as axes and the like.
fn tensor(dtype: DType, shape: &[usize], seed: &[u8], small: bool) -> Tensor {
    let count: usize = if shape.contains(&0) { 0 } else { shape.iter().product() };
    if small && dtype == DType::I64 {
        let values: Vec<i64> = seed.iter().cycle().take(count).map(|b| (b % 5) as i64 - 2).collect();
        return Tensor::new(shape, &values).unwrap();
    }
    let bytes: Vec<u8> = seed.iter().copied().cycle().take(count * dtype.size()).collect();
    Tensor::from_bytes(dtype, shape, &bytes).unwrap()
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    let extent = prop::sample::select(vec![0usize, 1, 1, 2, 2, 3]);
    let usual = prop::collection::vec(extent, 0..4);
    prop_oneof![9 => usual, 1 => Just(vec![1 << 40, 0]), 1 => Just(vec![0, 1 << 29, 1 << 29])]
}

/// Reads the operator of `entry`, checks that it survives being written, and runs it on `inputs`.
fn check(
    entry: &OperatorEntry,
    opset: i64,
    attributes: &Attributes,
    inputs: &[Tensor],
) -> Result<(), TestCaseError> {
    let mut file_node = node(entry.name, opset, attributes.clone());
    file_node.domain = entry.domain.to_string();
    let Ok(op) = read_operator(&mut file_node) else { return Ok(()) };
    let mut again = node(op.name(), 28, op.attributes());
    again.domain = op.domain().to_string();
    prop_assert_eq!(format!("{:?}", read_operator(&mut again)), format!("Ok({op:?})"));

    if !(op.arity().min_inputs..=op.arity().max_inputs).contains(&inputs.len()) {
        return Ok(());
    }
    let facts: Vec<Option<Fact>> = inputs.iter().map(|t| Some(Fact::constant(t))).collect();
    let Ok(found) = op.infer(&facts, 1) else { return Ok(()) };
    let given: Vec<Option<&Tensor>> = inputs.iter().map(Some).collect();
    match with_budget(&Budget::new(1 << 20), || op.eval(&given, 1)) {
        Ok(made) => {
            for (tensor, fact) in made.iter().zip(&found) {
                prop_assert_eq!((tensor.dtype(), Some(tensor.shape())), (fact.dtype, fact.shape()));
            }
        }
        Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Limit, "{:?}: {}", op, error),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn refuses_or_evaluates(
        attributes in attributes(),
        opset in prop::sample::select(vec![7i64, 11, 13, 18, 21, 28]),
        dtypes in prop::collection::vec(prop::sample::select(DType::ALL.to_vec()), 2),
        mask in any::<bool>(),
        small in any::<bool>(),
        one_shape in any::<bool>(),
        given in prop::collection::vec((shapes(), prop::collection::vec(any::<u8>(), 1..40)), 3),
    ) {
        let tensors: Vec<Tensor> = given.iter().enumerate().map(|(i, (shape, seed))| {
            let dtype = match i {
                0 if mask => DType::Bool,
                1 if small => DType::I64,
                _ => dtypes[i / 2 * mask as usize],
            };
            let (shape, single) = (if one_shape { &given[0].0 } else { shape }, small && i == 1 && seed[0] % 2 == 0);
            tensor(dtype, if single { &[1] } else { shape }, seed, small && i == 1)
        }).collect();
        for entry in OPERATORS {
            for count in 1..=3 {
                check(entry, opset, &attributes, &tensors[..count])?;
            }
        }
    }
}

#[test]
fn every_attribute_of_the_wrong_sort_is_refused_by_name() {
    for (name, attribute) in [("Softmax", "axis"), ("Gemm", "alpha"), ("Einsum", "equation"), ("Cast", "to")]
    {
        let wrong = Attributes::new().with(attribute, Attribute::Ints(vec![1]));
        let error = read_operator(&mut node(name, 13, wrong)).unwrap_err().to_string();
        assert!(error.contains(attribute), "{error}");
    }
}
