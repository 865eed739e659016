//! Which versions of which operators are read.

use crate::read::{NEWEST_OPSET, OLDEST_OPSET};
use planish_graph::{Result, invalid, unsupported};
use std::collections::HashMap;

/// Operators whose definition in opset 7 is older than that, with the opset it is from: these are read from models of
/// older opsets, too.
const UNCHANGED: [(i64, &[&str]); 6] = [
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
    (7, &[]),
];

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
    let unchanged =
        UNCHANGED.iter().any(|(since, operators)| *since <= version && operators.contains(&operator));
    if !unchanged {
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
        assert!(check_operator("Add", "", 6).is_err());
        assert!(check_operator("Add", "", 0).is_err());
        assert!(check_operator("ConvAdd", "planish", 1).is_ok());
    }

    #[test]
    fn both_spellings_of_the_standard_domain_are_one() {
        let found = versions(&[("ai.onnx", 21), ("com.example", 3)]);
        assert_eq!((version(&found, ""), version(&found, "com.example"), version(&found, "x")), (21, 3, 0));
        assert!(check_model(&found).is_ok());
        assert!(check_model(&versions(&[("", NEWEST_OPSET + 1)])).is_err());
    }
}
