//! The list of every kernel.
//!
//! Tests, benchmarks and the command `planish kernels` read this list, so that no kernel exists that nothing
//! measures or nobody knows of.

use crate::conv::{self, ConvAlgorithm, ConvProblem};
use crate::element::ElementType;
use crate::isa::Isa;
use crate::rates::Rate;

/// A kernel: a way to compute something on one instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelInfo {
    /// What it is called in reports.
    pub name: &'static str,
    /// What it computes: `convolution`, `matrix product` …
    pub family: &'static str,
    /// What it reads and writes.
    pub element: ElementType,
    /// The instruction set it is compiled for.
    pub isa: Isa,
}

impl KernelInfo {
    /// Whether this machine has the instructions for it. Those of `bf16` and `f16` run without theirs, but are not used
    /// then.
    pub fn is_available(&self) -> bool {
        match self.element {
            ElementType::F32 | ElementType::U8 => self.isa.is_available(),
            ElementType::Bf16 => self.isa.has_bf16(),
            ElementType::F16 => self.isa.has_f16(),
        }
    }
}

const LONG: &[ElementType] = &[ElementType::F32];
const FLOATS: &[ElementType] = &[ElementType::F32, ElementType::Bf16, ElementType::F16];
const ALL: &[ElementType] = &[ElementType::F32, ElementType::Bf16, ElementType::F16, ElementType::U8];
const WHOLE: &[ElementType] = &[ElementType::F32, ElementType::U8];
const LEVELS: &[ElementType] = &[ElementType::U8];

/// The kernels that are no convolutions: each a function of the module of its family.
const OTHERS: [(&str, &str, &[ElementType]); 28] = [
    ("transposed", "transposed convolution", LONG),
    ("packed panels", "matrix product", ALL),
    ("packed blocks of four bits", "matrix product", LONG),
    ("few rows", "matrix product", &[ElementType::F16]),
    ("unary", "elementwise", FLOATS),
    ("binary", "elementwise", FLOATS),
    ("quantise and dequantise", "elementwise", LEVELS),
    ("own range", "elementwise", LEVELS),
    ("sums of levels", "elementwise", LEVELS),
    ("products of levels", "elementwise", LEVELS),
    ("table", "elementwise", LEVELS),
    ("max", "pooling", ALL),
    ("average", "pooling", ALL),
    ("L1", "pooling", FLOATS),
    ("L2", "pooling", FLOATS),
    ("fold", "reduction", LONG),
    ("over channels", "softmax", LONG),
    ("over rows", "softmax", LONG),
    ("scale and shift", "normalisation", LONG),
    ("group", "normalisation", LONG),
    ("layer", "normalisation", LONG),
    ("local response", "normalisation", LONG),
    ("separable taps", "resize", WHOLE),
    ("strided", "copy", ALL),
    ("channels first and last", "copy", ALL),
    ("channel shuffle", "copy", ALL),
    ("depth to space and back", "copy", ALL),
    ("index tables", "copy", WHOLE),
];

/// The one of them that products on the tile unit are.
const PRODUCT: &str = "packed panels";

/// Whether an algorithm multiplies `bf16` on the tile unit, where there is one: by what it counts as its work.
fn is_on_tiles(algorithm: &dyn ConvAlgorithm) -> bool {
    [1, 3].into_iter().any(|kernel| {
        let problem = ConvProblem::new_2d(1, 16, 16, [8, 8], [kernel, kernel]);
        let problem = ConvProblem { element: ElementType::Bf16, ..problem };
        algorithm.accepts(&problem, Isa::Amx).is_ok()
            && algorithm.work(&problem, Isa::Amx, 1).count(Rate::TileProduct) > 0.0
    })
}

/// Every kernel for every instruction set that has one of its own, whether this machine has it or not.
pub fn kernels() -> Vec<KernelInfo> {
    let convolutions =
        conv::algorithms().iter().map(|a| ((a.name(), "convolution", a.elements()), is_on_tiles(*a)));
    let others = OTHERS.map(|other| (other, other.0 == PRODUCT));
    let mut kernels = Vec::new();
    for ((name, family, elements), on_tiles) in convolutions.chain(others) {
        for &element in elements {
            let own = |isa: &Isa| *isa == isa.vectors() || (on_tiles && element == ElementType::Bf16);
            kernels.extend(Isa::ALL.into_iter().filter(own).map(|isa| KernelInfo {
                name,
                family,
                element,
                isa,
            }));
        }
    }
    kernels
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
            for isa in Isa::ALL.into_iter().filter(|isa| *isa == isa.vectors()) {
                let listed = |k: &KernelInfo| k.name == algorithm.name() && k.isa == isa;
                assert_eq!(all.iter().filter(|k| listed(k)).count(), algorithm.elements().len());
            }
        }
        let on_tiles: Vec<_> =
            all.iter().filter(|k| k.isa == Isa::Amx).map(|k| (k.name, k.element)).collect();
        let names =
            ["pointwise", "direct", "indirect", "im2col", "winograd 2x2 bf16", "winograd 4x4 bf16", PRODUCT];
        assert_eq!(on_tiles, names.map(|name| (name, ElementType::Bf16)));
    }
}
