//! Convolution: the problem, the algorithms that solve it, and the list of them.
//!
//! No single way to compute a convolution is best: a pointwise layer is a plain matrix product, a depthwise
//! one has nothing to multiply matrices with, a first layer has too few channels for either, and where there
//! are many channels and pixels most multiplications of a 3×3 kernel can be saved. Each way is one file
//! behind [`ConvAlgorithm`]: it says which problems it accepts and what they would cost, packs the weights
//! once, and runs. Whoever plans asks all of [`algorithms`] and takes the cheapest, or measures.
//!
//! Activations are channels-last, N×D×H×W×C; two-dimensional problems have a depth of one. Weights come as in
//! ONNX: O×(I/groups)×D×H×W.

mod bits;
mod call;
mod chain;
mod dense;
mod depthwise;
mod depthwise_levels;
mod direct;
mod exact_sums;
mod fft;
mod geometry;
mod group_blocks;
mod grouped;
mod im2col;
mod indirect;
mod level_conv;
mod padded;
mod pointwise;
mod problem;
pub mod reference;
mod strassen;
mod transposed;
mod weights;
mod window;
mod winograd;

#[cfg(test)]
mod level_tests;
#[cfg(test)]
mod tests;

pub use bits::{BIT_ALGORITHM, BitConv, FewBits, InputBits, MOST_BITS, WeightBits};
pub use call::{AnyCall, ConvCall, ConvElement};
pub use chain::{Chain, ChainStage};
pub use level_conv::{LevelCall, LevelConv};
pub use problem::ConvProblem;
pub use transposed::{PreparedTransposed, TransposedProblem};
pub use weights::{SumLevels, Weights};

use self::problem::check_workspace;
use crate::element::ElementType;
use crate::isa::Isa;
use crate::rates::Work;
use crate::threads::ThreadPool;

/// What packed weights depend on: problems with equal keys can share one [`PreparedConv`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightsKey {
    /// The algorithm that packed them.
    pub algorithm: &'static str,
    /// The instruction set they are packed for.
    pub isa: Isa,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Groups.
    pub groups: usize,
    /// Kernel depth, height and width.
    pub kernel: [usize; 3],
    /// What the activations are kept as.
    pub element: ElementType,
    /// How few bits they are packed as, where they are.
    pub bits: Option<FewBits>,
}

impl WeightsKey {
    fn new(algorithm: &'static str, problem: &ConvProblem, isa: Isa) -> Self {
        let ConvProblem { in_channels, out_channels, groups, kernel, element, .. } = *problem;
        let isa = isa.serving(element);
        Self { algorithm, isa, in_channels, out_channels, groups, kernel, element, bits: None }
    }
}

/// What algorithms take that scale or transform what they read.
const FLOATS: &[ElementType] = &[ElementType::F32, ElementType::Bf16, ElementType::F16];

/// What algorithms take that add up products as they are.
const ALL_ELEMENTS: &[ElementType] =
    &[ElementType::F32, ElementType::Bf16, ElementType::F16, ElementType::U8];

/// A way to compute a convolution.
pub trait ConvAlgorithm: Sync {
    /// The name in reports.
    fn name(&self) -> &'static str;

    /// What tensors it can take and give: problems on others are refused.
    fn elements(&self) -> &'static [ElementType] {
        FLOATS
    }

    /// Whether it can compute this problem, or why not. Refuses problems that are not valid.
    fn accepts(&self, problem: &ConvProblem, isa: Isa) -> Result<(), String>;

    /// What the busiest of this many threads has to do for a problem it accepts;
    /// [`Rates::milliseconds`](crate::rates::Rates::milliseconds) of it is the estimated time.
    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work;

    /// Whether it adds up the products of inputs and weights as they are, and no transforms of them: sums of whole numbers are
    /// then exact, and no number spreads beyond the sums it belongs to. What does not states its [`Self::error`].
    fn adds_plainly(&self) -> bool {
        true
    }

    /// The relative error that is to be expected of the result: the L2 norm of the difference to exact
    /// arithmetic over that of the result, for inputs and weights that look random. Rounding the result, and the
    /// weights, to the problem's element is not counted: it is the same whatever the algorithm.
    fn error(&self, problem: &ConvProblem) -> f32 {
        plain_error(problem)
    }

    /// What the packed weights depend on.
    fn weights_key(&self, problem: &ConvProblem, isa: Isa) -> WeightsKey {
        WeightsKey::new(self.name(), problem, isa)
    }

    /// Packs weights and bias. The result serves every problem this algorithm accepts that has the same [`WeightsKey`],
    /// whatever its batch and size.
    fn prepare(
        &self,
        problem: &ConvProblem,
        isa: Isa,
        weights: Weights<'_>,
    ) -> Result<Box<dyn PreparedConv>, String>;
}

/// A convolution with its weights packed, ready to run any number of times from any number of threads.
pub trait PreparedConv: Send + Sync {
    /// The algorithm that packed the weights.
    fn algorithm(&self) -> &dyn ConvAlgorithm;

    /// What the packed weights depend on.
    fn key(&self) -> &WeightsKey;

    /// The `f32` of workspace a run needs.
    fn workspace_len(&self, problem: &ConvProblem, threads: usize) -> usize;

    /// [`run`](#method.run) behind its checks; the output has at least one row.
    ///
    /// # Safety
    /// The algorithm accepts the problem, the weights were packed for it, the call is on the problem's element, and
    /// its views and workspace have the lengths it states.
    unsafe fn compute(&self, problem: &ConvProblem, pool: &ThreadPool, call: AnyCall<'_>);

    /// The memory of the packed weights.
    fn bytes(&self) -> usize;
}

impl dyn PreparedConv + '_ {
    /// Computes the convolution plus bias, with the epilogue behind it.
    ///
    /// An error, with nothing written, where the shapes do not match the problem or the problem is not one
    /// that was prepared for. The result does not depend on the number of threads, not even in its last bit.
    pub fn run<T: ConvElement>(
        &self,
        problem: &ConvProblem,
        pool: &ThreadPool,
        call: ConvCall<'_, T>,
    ) -> Result<(), String> {
        if problem.element != T::TYPE {
            return Err(format!("tensors of {} where the convolution has {}", T::TYPE, problem.element));
        }
        let (algorithm, isa) = (self.algorithm(), self.key().isa);
        algorithm.accepts(problem, isa)?;
        check_key(self.key(), &algorithm.weights_key(problem, isa))?;
        problem.check_views(&call.input, &call.epilogue, &call.output)?;
        check_workspace(call.workspace.len(), self.workspace_len(problem, pool.threads()))?;
        if call.output.rows() != 0 {
            // SAFETY: all of it was just checked.
            unsafe { self.compute(problem, pool, T::erase(call)) };
        }
        Ok(())
    }
}

/// Refuses to run a problem with weights packed for another.
fn check_key(prepared: &WeightsKey, asked: &WeightsKey) -> Result<(), String> {
    if prepared == asked { Ok(()) } else { Err(format!("weights of {prepared:?} cannot serve {asked:?}")) }
}

/// The [`ConvAlgorithm::error`] of adding products one after the other in `f32`.
///
/// Rounding errors of partial sums add up like steps of a random walk while the sum itself does. Measured:
/// 4.2e-7 for 576 products.
pub fn plain_error(problem: &ConvProblem) -> f32 {
    let products = (problem.taps() * problem.group_in()) as f32;
    3e-8 + 1.75e-8 * products.sqrt()
}

/// Every algorithm there is.
pub fn algorithms() -> &'static [&'static dyn ConvAlgorithm] {
    &[
        &pointwise::Pointwise,
        &direct::Direct,
        &indirect::Indirect,
        &im2col::Im2col,
        &depthwise::Depthwise,
        &grouped::Grouped,
        &group_blocks::GroupBlocks,
        &bits::Bits,
        &strassen::Strassen,
        &winograd::TWO,
        &winograd::FOUR,
        &winograd::SIX,
        &winograd::TWO_BF16,
        &winograd::FOUR_BF16,
        &fft::EIGHT,
        &fft::SIXTEEN,
        &fft::THIRTY_TWO,
        &fft::SIXTY_FOUR,
    ]
}
