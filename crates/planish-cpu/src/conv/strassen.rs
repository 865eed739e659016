//! Convolution as a matrix product by Strassen's algorithm.
//!
//! Winograd's minimal filtering saves multiplications between neighbouring pixels, and so has nothing to offer to
//! pointwise layers or to strides above one, which are most of the arithmetic of bottleneck networks (ResNet,
//! MobileNet, DenseNet). Strassen's saves an eighth of them between rows and columns of any product
//! ([`StrassenProduct`](crate::matmul)). The rows are found as in `indirect`: nothing is copied but sums.
//!
//! What it costs are the sums of the left operand, made once a row and used for all output channels, and tiles of
//! products that wait for each other; so it pays from some 96 channels on either side. Measured on a core of a Zen 4 with
//! AVX-512 (118 GFLOP/s), quiet, least of many runs:
//!
//! | layer | pointwise or indirect | strassen | gained | floor of seven eighths |
//! |---|---|---|---|---|
//! | 56² × 64 → 64 | **238 µs** | 274 µs | -15 % | 191 µs |
//! | 56² × 256 → 128 | 1818 µs | **1733 µs** | 5 % | 1524 µs |
//! | 28² × 256 → 512 | 1828 µs | **1659 µs** | 9 % | 1524 µs |
//! | 14² × 1024 → 512 | 1779 µs | **1585 µs** | 11 % | 1524 µs |
//! | 14² × 96 → 576 | 193 µs | **187 µs** | 3 % | 161 µs |
//! | 7² × 960 → 160 | 129 µs | **122 µs** | 6 % | 112 µs |
//! | 56² × 128 → 128, 3×3, stride 2 | 1998 µs | **1849 µs** | 7 % | 1715 µs |

use super::dense;
use super::indirect::IndirectRows;
use super::{
    AnyCall, ConvAlgorithm, ConvCall, ConvElement, ConvProblem, PreparedConv, Weights, WeightsKey,
    plain_error,
};
use crate::element::ElementType;
use crate::isa::Isa;
use crate::matmul::{
    STRASSEN_TAPS, StrassenMatrix, StrassenProduct, panel_width, strassen_passes, strassen_scratch_len,
    tile_rows,
};
use crate::rates::{Rate, Work, weights_read};
use crate::threads::ThreadPool;

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strassen;

impl ConvAlgorithm for Strassen {
    fn name(&self) -> &'static str {
        "strassen"
    }

    fn elements(&self) -> &'static [ElementType] {
        &[ElementType::F32]
    }

    fn accepts(&self, problem: &ConvProblem, isa: Isa) -> Result<(), String> {
        problem.validate()?;
        problem.check_element(self)?;
        if problem.groups != 1 || !problem.in_channels.is_multiple_of(2) {
            return Err(
                "Strassen's algorithm needs one group and an even number of input channels".to_owned()
            );
        }
        if StrassenMatrix::left_columns(isa, problem.out_channels).is_none() {
            return Err("Strassen's algorithm needs output channels for two vectors".to_owned());
        }
        if problem.taps() > STRASSEN_TAPS {
            return Err(format!("{} taps are more than the table holds ({STRASSEN_TAPS})", problem.taps()));
        }
        Ok(())
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        let count = |n: usize| n as f64;
        let lanes = isa.lanes();
        // Rows, sums and columns of a quarter.
        let rows = problem.batch * image_rows(problem).div_ceil(2);
        let depth = problem.taps() * problem.in_channels / 2;
        let columns = StrassenMatrix::left_columns(isa, problem.out_channels).unwrap_or(problem.out_channels);
        let (vectors, tiles) = (count(columns / lanes), count(rows.div_ceil(tile_rows(isa))));
        let panels = count(columns.div_ceil(panel_width(isa)));
        let multiply_adds = 7.0 * count(rows * depth) * vectors;
        let weights = 7.0 * count(depth * columns * size_of::<f32>());
        let mut work = Work::of(&[
            (Rate::MultiplyAdd, multiply_adds),
            (Rate::PanelStep, 7.0 * tiles * panels * count(depth)),
            (Rate::ResultVector, 4.0 * count(rows) * vectors),
            (Rate::StrassenSum, count(rows) * vectors),
            (Rate::StrassenVector, count(rows * depth.div_ceil(lanes))),
            (Rate::Address, 2.0 * count(rows * problem.taps())),
        ]);
        let passes = problem.batch * strassen_passes(isa, image_rows(problem), depth);
        work += weights_read(weights, count(passes), multiply_adds, isa);
        work += dense::activations_read(problem);
        work.shared(dense::busy(tiles * panels, threads)).called(1, threads)
    }

    fn adds_plainly(&self) -> bool {
        false
    }

    /// Measured: 2.15 to 2.25 times the error of plain sums, from 96 products a sum to 2048.
    fn error(&self, problem: &ConvProblem) -> f32 {
        2.25 * plain_error(problem)
    }

    fn prepare(
        &self,
        problem: &ConvProblem,
        isa: Isa,
        weights: Weights<'_>,
    ) -> Result<Box<dyn PreparedConv>, String> {
        self.accepts(problem, isa)?;
        weights.check(problem)?;
        let (channels, taps) = (problem.in_channels, problem.taps());
        let half = channels / 2;
        // Weights are [out][in][tap]; row `k` of a half is an input channel of that half under a tap.
        let row = |k: usize, first: usize| ((first + k % half) * taps + k / half, channels * taps);
        let (depth, columns) = (taps * half, problem.out_channels);
        let matrix =
            StrassenMatrix::new(isa, depth, columns, weights.values, |k| row(k, 0), |k| row(k, half));
        Ok(Box::new(Prepared {
            key: self.weights_key(problem, isa),
            matrix: matrix.ok_or("Strassen's algorithm needs output channels for two vectors")?,
            bias: weights.bias.map(<[f32]>::to_vec),
            zeros: vec![0.0; channels],
        }))
    }
}

/// A convolution with its weights summed and packed.
struct Prepared {
    key: WeightsKey,
    matrix: StrassenMatrix,
    bias: Option<Vec<f32>>,
    /// To read in place of padding.
    zeros: Vec<f32>,
}

/// Output pixels of an image.
fn image_rows(problem: &ConvProblem) -> usize {
    problem.out_size().map_or(0, |size| size.iter().product())
}

impl PreparedConv for Prepared {
    fn algorithm(&self) -> &dyn ConvAlgorithm {
        &Strassen
    }

    fn key(&self) -> &WeightsKey {
        &self.key
    }

    fn workspace_len(&self, problem: &ConvProblem, threads: usize) -> usize {
        let depth = problem.taps() * problem.in_channels / 2;
        strassen_scratch_len(self.key.isa, image_rows(problem), depth, threads)
    }

    unsafe fn compute(&self, problem: &ConvProblem, pool: &ThreadPool, call: AnyCall<'_>) {
        let Some(ConvCall { input, epilogue, output, workspace }) = f32::restore(call) else { return };
        let product = StrassenProduct {
            matrix: &self.matrix,
            bias: self.bias.as_deref(),
            epilogue,
            image: image_rows(problem),
            copies: dense::collide(problem.stride[2] * input.row_stride() * size_of::<f32>(), self.key.isa),
        };
        let source = IndirectRows::new(problem, input, &self.zeros);
        // SAFETY: `accepts` made sure that pieces are of even length and few enough; the source has the output rows in
        // order, whole images of them; the caller promises the shapes and the workspace.
        unsafe { product.run(pool, &source, &output, workspace) };
    }

    fn bytes(&self) -> usize {
        self.matrix.bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reference::convolve;
    use super::super::tests::{allowance, case, numbers, run_case, setting};
    use super::*;
    use crate::epilogue::Epilogue;
    use crate::view::{Rows, RowsMut};

    /// Problems with several pairs of tiles, panels, and halves that no vector divides.
    fn problem() -> impl Strategy<Value = ConvProblem> {
        let size = [1usize..20, 1usize..20];
        let pads = || [0usize..2, 0usize..2];
        (0usize..3, 1usize..60, 9usize..150, size, 1usize..4, 1usize..3, pads(), pads()).prop_filter_map(
            "the kernel must fit",
            |(batch, half, outputs, size, kernel, stride, begin, end)| {
                let mut problem = ConvProblem::new_2d(batch, 2 * half, outputs, size, [kernel; 2]);
                problem.stride = [1, stride, stride];
                (problem.pads_begin, problem.pads_end) = ([0, begin[0], begin[1]], [0, end[0], end[1]]);
                (problem.validate().is_ok() && problem.macs() < 2_000_000).then_some(problem)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn drawn_problems_agree_with_the_reference(problem in problem(), setting in setting()) {
            let (mut case, weights) = case(&problem, setting);
            case.allowance = allowance(&Strassen, &problem);
            for isa in Isa::available() {
                if Strassen.accepts(&problem, isa).is_ok() {
                    run_case(&Strassen, isa, &problem, &case, &weights, &[1, 2, 3])?;
                }
            }
        }
    }

    fn compute(problem: &ConvProblem, isa: Isa, input: &[f32], weights: &[f32]) -> Vec<f32> {
        let prepared = Strassen.prepare(problem, isa, Weights::new(weights, None)).unwrap();
        let mut workspace = vec![f32::NAN; prepared.workspace_len(problem, 1)];
        let mut out = vec![f32::NAN; problem.out_rows() * problem.out_channels];
        let call = ConvCall {
            input: Rows::dense(input, problem.in_rows(), problem.in_channels).unwrap(),
            epilogue: Epilogue::default(),
            output: RowsMut::dense(&mut out, problem.out_rows(), problem.out_channels).unwrap(),
            workspace: &mut workspace,
        };
        prepared.run(problem, &ThreadPool::new(1), call).unwrap();
        out
    }

    #[test]
    fn errors_are_those_expected() {
        for (inputs, kernel) in [(32, 1), (256, 1), (1024, 1), (128, 3)] {
            let problem = ConvProblem::new_2d(1, inputs, 64, [12, 12], [kernel; 2]);
            let input = numbers(problem.in_rows() * inputs, 5);
            let weights = numbers(problem.weights_len(), 6);
            let want = convolve(&problem, &input, &weights, None).unwrap().sums;
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
            for isa in Isa::available() {
                let got = compute(&problem, isa, &input, &weights);
                let difference = norm(&mut got.iter().zip(&want).map(|(&g, w)| f64::from(g) - w));
                let error = difference / norm(&mut want.iter().copied());
                let expected = f64::from(Strassen.error(&problem));
                let within = error < 1.5 * expected && error > expected / 1.5;
                assert!(
                    within,
                    "{inputs} channels, kernel {kernel}, {isa}: {error:.2e}, expected {expected:.2e}"
                );
            }
        }
    }

    /// Rows that meet are of one image: what another image holds makes no difference.
    #[test]
    fn images_do_not_meet() {
        let mut problem = ConvProblem::new_2d(2, 32, 48, [3, 3], [1, 1]);
        let mut input = numbers(problem.in_rows() * 32, 5);
        let weights = numbers(problem.weights_len(), 6);
        let isa = Isa::current();
        input[9 * 32..].fill(f32::NAN);
        let both = compute(&problem, isa, &input, &weights);
        problem.batch = 1;
        let first = compute(&problem, isa, &input[..9 * 32], &weights);
        assert_eq!(both[..9 * 48], first);
        assert!(both[9 * 48..].iter().all(|x| x.is_nan()));
    }

    #[test]
    fn what_it_cannot_do_is_refused() {
        let good = ConvProblem::new_2d(1, 4, 40, [12, 12], [1, 1]);
        let bad = [
            ConvProblem { in_channels: 5, ..good.clone() },
            ConvProblem { groups: 2, ..good.clone() },
            ConvProblem { out_channels: 8, ..good.clone() },
            ConvProblem { kernel: [1, 10, 10], ..good.clone() },
        ];
        for isa in Isa::available() {
            assert!(Strassen.accepts(&good, isa).is_ok());
            for problem in &bad {
                assert!(Strassen.accepts(problem, isa).is_err(), "{problem:?}");
            }
        }
    }
}
