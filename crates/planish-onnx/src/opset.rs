//! Which versions of which operators are read.

use crate::legacy::UPGRADED;
use crate::read::{NEWEST_OPSET, OLDEST_OPSET};
use planish_graph::ops::WRITTEN_OPSET;
use planish_graph::ops::nn::quantized::qonnx;
use planish_graph::{Attributes, DType, Result, invalid, unsupported};
use std::collections::HashMap;

/// Operators whose definition in opset 7 is older than that, with the opset it is from: these are read from models of
/// older opsets, too.
const UNCHANGED: [(i64, &[&str]); 5] = [
    (
        1,
        &[
            "ArgMax",
            "ArgMin",
            "Constant",
            "Conv",
            "ConvTranspose",
            "DepthToSpace",
            "Flatten",
            "Gather",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "Hardmax",
            "Identity",
            "If",
            "LRN",
            "LogSoftmax",
            "Loop",
            "LpNormalization",
            "MatMul",
            "MaxPool",
            "Not",
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
            "Shape",
            "Size",
            "Slice",
            "Softmax",
            "Softplus",
            "Softsign",
            "SpaceToDepth",
            "Squeeze",
            "TopK",
            "Transpose",
            "Unsqueeze",
        ],
    ),
    (2, &["GlobalLpPool", "LpPool", "Pad", "Split"]),
    (4, &["Concat"]),
    (5, &["Reshape"]),
    (
        6,
        &[
            "Abs",
            "Cast",
            "Ceil",
            "Clip",
            "Elu",
            "Exp",
            "Floor",
            "HardSigmoid",
            "InstanceNormalization",
            "LeakyRelu",
            "Log",
            "Max",
            "Mean",
            "Min",
            "Neg",
            "Reciprocal",
            "Relu",
            "Selu",
            "Sigmoid",
            "Sqrt",
            "Sum",
            "Tanh",
            "Tile",
        ],
    ),
];

/// Operators that came after the opset that planish writes, and attributes that others have got since: with one of
/// these, a model is written for the opset that has it.
const NEWER: [(&str, &str, i64); 16] = [
    ("Attention", "", 23),
    ("AveragePool", "ceil_mode", 22), // the shape rule for windows that start in the padding
    ("BitCast", "", 26),
    ("Cast", "round_mode", 24),
    ("CastLike", "round_mode", 24),
    ("CumProd", "", 26),
    ("DequantizeLinear", "output_dtype", 23),
    ("LpPool", "ceil_mode", 22),
    ("MaxPool", "ceil_mode", 22),
    ("QuantizeLinear", "precision", 23),
    ("RMSNormalization", "", 23),
    ("Range", "stash_type", 27),
    ("RotaryEmbedding", "", 23),
    ("SpaceToDepth", "mode", 28),
    ("Swish", "", 24),
    ("TensorScatter", "", 24),
];

/// The oldest opset, from the one that planish writes on, that has `operator` with `attributes`.
pub(crate) fn needed(operator: &str, attributes: &Attributes) -> i64 {
    NEWER
        .iter()
        .filter(|(name, attribute, _)| {
            *name == operator && (attribute.is_empty() || attributes.0.contains_key(*attribute))
        })
        .fold(WRITTEN_OPSET, |most, (_, _, since)| most.max(*since))
}

/// The version of a domain other than the standard one that has `operator` with `attributes`. QONNX's second version
/// changed Trunc, which has a range since.
pub(crate) fn needed_of(domain: &str, operator: &str, attributes: &Attributes) -> i64 {
    let second = domain == qonnx::DOMAIN && operator == "Trunc" && attributes.0.contains_key("signed");
    if second { 2 } else { 1 }
}

/// The oldest opset, from the one that planish writes on, whose operators take elements of type `dtype`, and the version
/// of ONNX's file format that has them.
pub(crate) fn of_type(dtype: DType) -> (i64, i64) {
    match dtype {
        DType::F4E2M1 => (23, 11),
        DType::F8E8M0 => (24, 12),
        DType::I2 | DType::U2 => (25, 13),
        DType::F6E2M3 | DType::F6E3M2 => (28, 14),
        _ => (WRITTEN_OPSET, 10),
    }
}

/// The domain as planish writes it: `ai.onnx` is another spelling of the standard one.
pub(crate) fn standard_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// The versions that an `opset_import` lists, by domain.
pub(crate) fn versions(imports: &[(&str, i64)]) -> HashMap<String, i64> {
    imports.iter().map(|&(domain, version)| (standard_domain(domain).to_string(), version)).collect()
}

/// The version of `domain`, 0 where the model does not say. Our own operators have had one version so far.
pub(crate) fn version(versions: &HashMap<String, i64>, domain: &str) -> i64 {
    let unstated = if domain == "planish" { 1 } else { 0 };
    versions.get(domain).copied().unwrap_or(unstated)
}

/// Whether planish knows the standard opset that a model or function is written in.
pub(crate) fn check_model(versions: &HashMap<String, i64>) -> Result<()> {
    match versions.get("") {
        Some(&version) if version > NEWEST_OPSET => {
            unsupported!(
                "opset {version} is newer than planish knows ({NEWEST_OPSET}); export the model for an older opset"
            )
        }
        Some(&version) if version < 1 => invalid!("opset {version} is not a version"),
        _ => Ok(()),
    }
}

/// Whether `operator` of `domain` can be read from `version`.
pub(crate) fn check_operator(operator: &str, domain: &str, version: i64) -> Result<()> {
    if !domain.is_empty() || version >= OLDEST_OPSET {
        return Ok(());
    }
    if version == 0 {
        invalid!("the model does not say which opset of the standard operators it uses");
    }
    let mut readable = UNCHANGED.iter().chain(&UPGRADED);
    if !readable.any(|(since, operators)| *since <= version && operators.contains(&operator)) {
        unsupported!(
            "operator {operator} of opset {version} (older than {OLDEST_OPSET}; convert the model with onnx.version_converter)"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_operators_are_read_where_they_did_not_change() {
        assert!(check_operator("Add", "", 7).is_ok());
        assert!(check_operator("Not", "", 1).is_ok());
        assert!(check_operator("Relu", "", 6).is_ok());
        assert!(check_operator("Relu", "", 5).is_err());
        assert!(check_operator("Add", "", 6).is_ok());
        assert!(check_operator("Add", "", 5).is_err());
        assert!(check_operator("Add", "", 0).is_err());
        assert!(check_operator("ConvAdd", "planish", 1).is_ok());
    }

    #[test]
    fn a_newer_operator_asks_for_a_newer_opset() {
        assert_eq!(needed("Conv", &Attributes::new()), WRITTEN_OPSET);
        assert_eq!(needed("Swish", &Attributes::new()), 24);
        assert_eq!(needed("SpaceToDepth", &Attributes::new()), WRITTEN_OPSET);
        assert_eq!(needed("SpaceToDepth", &Attributes::new().with("mode", "CRD")), 28);
    }

    #[test]
    fn both_spellings_of_the_standard_domain_are_one() {
        let found = versions(&[("ai.onnx", 21), ("com.example", 3)]);
        assert_eq!((version(&found, ""), version(&found, "com.example"), version(&found, "x")), (21, 3, 0));
        assert!(check_model(&found).is_ok());
        assert!(check_model(&versions(&[("", NEWEST_OPSET + 1)])).is_err());
    }
}
