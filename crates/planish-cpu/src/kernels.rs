//! The list of every kernel.
//!
//! Tests, benchmarks and the command `planish kernels` read this list, so that no kernel exists that nothing
//! measures or nobody knows of.

use crate::conv;
use crate::isa::Isa;

/// A kernel: a way to compute something on one instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelInfo {
    /// What it is called in reports.
    pub name: &'static str,
    /// What it computes: `convolution`, `matrix product` …
    pub family: &'static str,
    /// The instruction set it is compiled for.
    pub isa: Isa,
}

impl KernelInfo {
    /// Whether this machine can run it.
    pub fn is_available(&self) -> bool {
        self.isa.is_available()
    }
}

/// The kernels that are no convolutions: each a function of the module of its family.
const OTHERS: [(&str, &str); 21] = [
    ("transposed", "transposed convolution"),
    ("packed panels", "matrix product"),
    ("unary", "elementwise"),
    ("binary", "elementwise"),
    ("max", "pooling"),
    ("average", "pooling"),
    ("L1", "pooling"),
    ("L2", "pooling"),
    ("fold", "reduction"),
    ("over channels", "softmax"),
    ("over rows", "softmax"),
    ("scale and shift", "normalisation"),
    ("group", "normalisation"),
    ("layer", "normalisation"),
    ("local response", "normalisation"),
    ("separable taps", "resize"),
    ("strided", "copy"),
    ("channels first and last", "copy"),
    ("channel shuffle", "copy"),
    ("depth to space and back", "copy"),
    ("index tables", "copy"),
];

/// Every kernel for every instruction set, whether this machine has it or not.
pub fn kernels() -> Vec<KernelInfo> {
    let convolutions = conv::algorithms().iter().map(|algorithm| (algorithm.name(), "convolution"));
    convolutions
        .chain(OTHERS)
        .flat_map(|(name, family)| Isa::ALL.map(|isa| KernelInfo { name, family, isa }))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kernel_is_listed_once_for_each_instruction_set() {
        let all = kernels();
        let different: HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        for algorithm in conv::algorithms() {
            for isa in Isa::ALL {
                assert!(all.contains(&KernelInfo { name: algorithm.name(), family: "convolution", isa }));
            }
        }
    }
}
