//! Which cases planish answers for.
//!
//! A case is out of scope only by a rule below, with its reason. Everything else is in scope: also a case with an
//! operator that no rule mentions, and any operator of this list that planish has come to read is in scope at once.

use planish_graph::DType;
use planish_graph::ops::table;
use planish_onnx::Survey;

/// Operators that planish does not mean to have, by reason.
const OUTSIDE: &[(&str, &[&str])] = &[
    (
        "sequences and optionals of tensors",
        &[
            "ConcatFromSequence",
            "Optional",
            "OptionalGetElement",
            "OptionalHasElement",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SplitToSequence",
        ],
    ),
    ("texts", &["RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"]),
    ("recurrent networks", &["GRU", "LSTM", "RNN"]),
    (
        "transformers",
        &[
            "Attention",
            "CausalConvWithState",
            "LinearAttention",
            "RotaryEmbedding",
            "SwiGLU",
            "TensorScatter",
        ],
    ),
    (
        "signal processing",
        &["BlackmanWindow", "DFT", "HammingWindow", "HannWindow", "MelWeightMatrix", "STFT"],
    ),
    ("training: planish has its own losses", &["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"]),
    (
        "random numbers: the expected output is one draw of NumPy's generator",
        &[
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ],
    ),
    ("decoding images: planish reads images before the network", &["ImageDecoder"]),
];

/// Single cases that no implementation can be held to, or that need what planish does not mean to do.
const CASES: &[(&str, &str)] = &[
    (
        "test_attention_4d_causal_fp16_expanded",
        "f16 rounded between nodes: two elements lie within tolerance of the exact result, as the expected ones do, but \
         on the other side of it",
    ),
    ("test_scan_sum", "Scan of opset 8, whose batch axis opset 9 took away; of opset 9 it is in scope"),
];

/// Why the case `name`, whose model asks for `survey`, is out of scope, if it is.
pub fn outside(name: &str, survey: &Survey) -> Option<String> {
    if let Some((_, reason)) = CASES.iter().find(|(case, _)| *case == name) {
        return Some(reason.to_string());
    }
    let ours = |name: &str| DType::ALL.iter().any(|d| d.name() == name);
    if let Some(other) = survey.types.iter().find(|t| !ours(t)) {
        return Some(format!("type {other}"));
    }
    for (domain, operator) in survey.operators.keys() {
        if table().iter().any(|e| e.domain == domain && e.name == operator) || operator == "Constant" {
            continue;
        }
        if !domain.is_empty() {
            return Some(format!("{domain}::{operator}: only the standard operators"));
        }
        if let Some((reason, _)) = OUTSIDE.iter().find(|(_, list)| list.contains(&operator.as_str())) {
            return Some(format!("{operator}: {reason}"));
        }
    }
    None
}
