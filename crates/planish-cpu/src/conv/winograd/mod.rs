//! Convolution by minimal filtering (Winograd; Lavin and Gray, *Fast Algorithms for Convolutional Neural
//! Networks*, CVPR 2016), for stride 1, dilation 1 and one group.
//!
//! A tile of m×m outputs of an r×r kernel sees n×n inputs, n = m + r - 1. Its transform has n×n points;
//! there, the convolution is a product for each point and pair of channels: n² instead of m²r², 2.25 times
//! fewer for F(2×2, 3×3), 4 times for F(4×4, 3×3), 5.06 times for F(6×6, 3×3). The same for kernels of 5 and
//! 7, and along one axis for 1×r and r×1. Over channels, the products of a point are a matrix product, [tiles
//! × C] · [C × K].
//!
//! A run takes a block of tiles, as many as the second-level cache holds transformed ([`blocking`]);
//! transforms them ([`gather`], `[point][tile][C]`); and for each panel of output channels multiplies point
//! by point with the packed weights (`[panel][point][C][panel width]`, read front to back) and transforms
//! back ([`scatter`]) into the output, with bias, residual and activation. Only the block is ever in memory.
//!
//! The transforms are computed in `f32`, whatever the input and the output are kept as: they convert as they load and
//! store. So are the products, but for the variants that round the transformed numbers to `bf16`, of which machines
//! multiply twice as many in the same time. That errs several times more than rounding the input does, the more the
//! larger the tiles; so they are for tensors that are `bf16` already, and [`cost::error`] says by how much.
//!
//! Two things differ from sums of products. The result is less exact, see [`cost::error`]; and an infinity or
//! NaN in the input spreads over the tiles that see it.
//!
//! Measured on a core of a Zen 4 with AVX-512 (118 GFLOP/s), least of many times while other programs ran;
//! the floor is the time of the multiply-adds of the products alone:
//!
//! | layer | best plain | 2×2 | 4×4 | 6×6 | floor of the best | reached |
//! |---|---|---|---|---|---|---|
//! | 56² × 64 → 64 | 2039 µs | 1080 µs | 645 µs | **625 µs** | 444 µs | 71 % |
//! | 28² × 128 → 128 | 1990 µs | 982 µs | 592 µs | **559 µs** | 444 µs | 79 % |
//! | 14² × 256 → 256 | 1976 µs | 938 µs | **762 µs** | 803 µs | 639 µs | 84 % |
//! | 7² × 512 → 512 | 1980 µs | **1227 µs** | 1412 µs | 2654 µs | 1136 µs | 93 % |
//!
//! What is lost with many pixels are the transforms, with few the weights, which grow by n²/r². Cutting off
//! sums ([`Form::longest_sum`]) takes some 7 % from 128 channels on.

mod blocking;
mod cost;
mod gather;
mod grid;
mod points;
mod run;
mod scatter;
mod transform;
mod weights;

#[cfg(test)]
mod tests;

use self::blocking::Blocking;
use self::grid::Form;
use self::run::Run;
use super::{
    AnyCall, ConvAlgorithm, ConvCall, ConvElement, ConvProblem, FLOATS, PreparedConv, Weights, WeightsKey,
};
use crate::element::{Element, ElementType, Factor, bf16};
use crate::for_float;
use crate::isa::Isa;
use crate::matmul::PackedMatrix;
use crate::rates::Work;
use crate::threads::ThreadPool;

/// The algorithm with a number of outputs along each axis of a tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Winograd {
    name: &'static str,
    outputs: usize,
    /// What is multiplied at the points.
    factor: ElementType,
}

/// Tiles of 2 outputs along each axis.
pub(super) const TWO: Winograd = Winograd { name: "winograd 2x2", outputs: 2, factor: ElementType::F32 };
/// Tiles of 4 outputs along each axis.
pub(super) const FOUR: Winograd = Winograd { name: "winograd 4x4", outputs: 4, factor: ElementType::F32 };
/// Tiles of 6 outputs along each axis.
pub(super) const SIX: Winograd = Winograd { name: "winograd 6x6", outputs: 6, factor: ElementType::F32 };

/// Tiles of 2 outputs along each axis, multiplied as `bf16`.
pub(super) const TWO_BF16: Winograd =
    Winograd { name: "winograd 2x2 bf16", outputs: 2, factor: ElementType::Bf16 };
/// Tiles of 4 outputs along each axis, multiplied as `bf16`.
pub(super) const FOUR_BF16: Winograd =
    Winograd { name: "winograd 4x4 bf16", outputs: 4, factor: ElementType::Bf16 };

impl Winograd {
    /// The form that a problem gets, or why it cannot have one.
    fn form(&self, problem: &ConvProblem) -> Result<Form, String> {
        let [height, width] = problem.flat_and_dense(self.name)?;
        if problem.groups != 1 {
            return Err(format!("{} needs a single group", self.name));
        }
        problem.check_element(self)?;
        Form::new(self.outputs, [height, width])
            .ok_or_else(|| format!("{} has no transforms for a {height}x{width} kernel", self.name))
    }

    /// Transforms weights to points of `U`.
    fn pack<U: Factor>(
        self,
        form: Form,
        problem: &ConvProblem,
        key: WeightsKey,
        values: &[f32],
        bias: Option<Vec<f32>>,
    ) -> Box<dyn PreparedConv> {
        let weights = weights::pack::<U>(form, problem, key.isa, values);
        Box::new(Prepared { algorithm: self, key, weights, bias, zeros: vec![0; problem.in_channels] })
    }
}

impl ConvAlgorithm for Winograd {
    fn name(&self) -> &'static str {
        self.name
    }

    fn elements(&self) -> &'static [ElementType] {
        if self.factor == ElementType::F32 { FLOATS } else { &[ElementType::Bf16] }
    }

    fn accepts(&self, problem: &ConvProblem, _isa: Isa) -> Result<(), String> {
        self.form(problem).map(|_| ())
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        self.form(problem)
            .map_or_else(|_| Work::default(), |form| cost::work(form, self.factor, problem, isa, threads))
    }

    fn adds_plainly(&self) -> bool {
        false
    }

    fn error(&self, problem: &ConvProblem) -> f32 {
        self.form(problem).map_or(f32::INFINITY, |form| cost::error(form, self.factor, problem))
    }

    fn prepare(
        &self,
        problem: &ConvProblem,
        isa: Isa,
        weights: Weights<'_>,
    ) -> Result<Box<dyn PreparedConv>, String> {
        let isa = isa.serving(problem.element);
        let form = self.form(problem)?;
        weights.check(problem)?;
        let bias = weights.bias.map(|bias| {
            let mut bias = bias.to_vec();
            bias.resize(bias.len().next_multiple_of(isa.lanes()), 0.0);
            bias
        });
        let key = self.weights_key(problem, isa);
        Ok(match self.factor {
            ElementType::Bf16 => self.pack::<bf16>(form, problem, key, weights.values, bias),
            _ => self.pack::<f32>(form, problem, key, weights.values, bias),
        })
    }
}

/// A convolution with its weights transformed.
struct Prepared<U> {
    algorithm: Winograd,
    key: WeightsKey,
    weights: PackedMatrix<U>,
    /// Padded to whole vectors.
    bias: Option<Vec<f32>>,
    /// Words of no bits, to read in place of padding: a zero of every element.
    zeros: Vec<u32>,
}

impl<U: Factor> PreparedConv for Prepared<U> {
    fn algorithm(&self) -> &dyn ConvAlgorithm {
        &self.algorithm
    }

    fn key(&self) -> &WeightsKey {
        &self.key
    }

    fn workspace_len(&self, problem: &ConvProblem, threads: usize) -> usize {
        let form = self.algorithm.form(problem);
        let blocking = |form| Blocking::new(form, U::TYPE, problem, self.key.isa, threads);
        form.map_or(0, |form| blocking(form).workspace_len(threads))
    }

    unsafe fn compute(&self, problem: &ConvProblem, pool: &ThreadPool, call: AnyCall<'_>) {
        let Ok(form) = self.algorithm.form(problem) else { return };
        let blocking = Blocking::new(form, U::TYPE, problem, self.key.isa, pool.threads());
        let (bias, zeros, weights) = (self.bias.as_deref(), &self.zeros[..], &self.weights);
        for_float!(problem.element, T => {
            // Numbers are rounded at the points to what they are kept as, or not at all.
            if const { U::TYPE as u8 == ElementType::F32 as u8 || U::TYPE as u8 == <T as Element>::TYPE as u8 }
                && let Some(ConvCall { input, epilogue, output, workspace }) = T::restore(call)
            {
                Run { blocking, weights, bias, zeros, input, output, epilogue }.run(pool, workspace);
            }
        }, else ());
    }

    fn bytes(&self) -> usize {
        self.weights.bytes()
    }
}
