//! Convolution by Fourier transforms.
//!
//! A convolution is a product of spectra (Mathieu, Henaff and LeCun, *Fast Training of Convolutional Networks through
//! FFTs*, arXiv 1312.5851; Vasilache et al., *Fast Convolutional Nets With fbfft*, arXiv 1412.7580).

mod blocking;
mod channelwise;
mod cost;
mod forward;
mod grid;
mod inverse;
mod product;
mod run;
mod spectrum;
mod transform;
mod weights;

#[cfg(test)]
mod tests;

use self::blocking::Blocking;
use self::cost::is_channelwise;
use self::grid::Grid;
use self::run::Run;
use self::transform::Roots;
use self::weights::Spectra;
use super::dense::check_key;
use super::problem::check_workspace;
use super::{ConvAlgorithm, ConvProblem, PreparedConv, WeightsKey};
use crate::epilogue::{Activation, Epilogue};
use crate::isa::Isa;
use crate::matmul::AlignedNumbers;
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// The algorithm with a size of tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fft {
    name: &'static str,
    size: usize,
}

/// Tiles of 8 input pixels along each axis.
pub(super) const EIGHT: Fft = Fft { name: "fft 8x8", size: 8 };
/// Tiles of 16 input pixels along each axis.
pub(super) const SIXTEEN: Fft = Fft { name: "fft 16x16", size: 16 };
/// Tiles of 32 input pixels along each axis.
pub(super) const THIRTY_TWO: Fft = Fft { name: "fft 32x32", size: 32 };
/// Tiles of 64 input pixels along each axis.
pub(super) const SIXTY_FOUR: Fft = Fft { name: "fft 64x64", size: 64 };

impl Fft {
    /// The tiles of a problem, or why it is none for this algorithm.
    fn grid(&self, problem: &ConvProblem) -> Result<Grid, String> {
        let grid = Grid::new(problem, self.size)?;
        // Per tile and pair of channels: two multiply-adds for each number of the spectrum, or one for each tap and
        // output.
        let plain = problem.taps() * grid.outputs[0] * grid.outputs[1];
        if plain <= 2 * self.size * self.size {
            return Err(format!("{} would multiply more than it saves", self.name));
        }
        if self.size > 8 && grid.is_one_of_half_the_size() {
            return Err(format!("{} has tiles larger than the image", self.name));
        }
        Ok(grid)
    }

    fn blocking(&self, grid: &Grid, problem: &ConvProblem, isa: Isa, threads: usize) -> Blocking {
        let vectors = [problem.group_in(), problem.group_out()].map(|c| c.div_ceil(isa.lanes()));
        Blocking::new(grid, vectors, isa, threads)
    }
}

impl ConvAlgorithm for Fft {
    fn name(&self) -> &'static str {
        self.name
    }

    fn accepts(&self, problem: &ConvProblem, _isa: Isa) -> Result<(), String> {
        self.grid(problem).map(|_| ())
    }

    fn cost(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> f64 {
        self.grid(problem).map_or(f64::INFINITY, |grid| cost::cycles(&grid, problem, isa, threads))
    }

    fn prepare(
        &self,
        problem: &ConvProblem,
        isa: Isa,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Box<dyn PreparedConv>, String> {
        self.accepts(problem, isa)?;
        problem.check_weights(weights, bias)?;
        let groups = if is_channelwise(problem) {
            // All groups together are one of a single input channel that differs from output to output.
            let kernel = [problem.kernel[1], problem.kernel[2]];
            vec![Spectra::new(isa, self.size, kernel, 1, problem.out_channels, weights)]
        } else {
            Spectra::of_groups(isa, self.size, problem, weights)
        };
        // A vector may start at any group's first channel.
        let mut padded_bias = AlignedNumbers::zeros(problem.out_channels + isa.lanes());
        if let Some(bias) = bias {
            padded_bias.as_mut_slice()[..bias.len()].copy_from_slice(bias);
        }
        Ok(Box::new(Prepared {
            algorithm: *self,
            key: self.weights_key(problem, isa),
            roots: transform::roots(self.size),
            groups,
            bias: padded_bias,
        }))
    }
}

/// A convolution with the spectra of its weights.
struct Prepared {
    algorithm: Fft,
    key: WeightsKey,
    roots: Roots,
    groups: Vec<Spectra>,
    bias: AlignedNumbers,
}

impl PreparedConv for Prepared {
    fn workspace_len(&self, problem: &ConvProblem, threads: usize) -> usize {
        let Ok(grid) = self.algorithm.grid(problem) else { return 0 };
        if is_channelwise(problem) {
            channelwise::workspace_len(grid.size, self.key.isa, threads)
        } else {
            self.algorithm.blocking(&grid, problem, self.key.isa, threads).workspace_len(threads)
        }
    }

    fn run(
        &self,
        problem: &ConvProblem,
        pool: &ThreadPool,
        input: Rows<'_>,
        residual: Option<Rows<'_>>,
        activation: Activation,
        output: RowsMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), String> {
        let isa = self.key.isa;
        let grid = self.algorithm.grid(problem)?;
        check_key(&self.key, &self.algorithm.weights_key(problem, isa))?;
        let epilogue = Epilogue { residual, activation };
        problem.check_views(&input, &epilogue, &output)?;
        check_workspace(workspace.len(), self.workspace_len(problem, pool.threads()))?;
        if output.rows() == 0 {
            return Ok(());
        }
        let blocking = self.algorithm.blocking(&grid, problem, isa, pool.threads());
        let channelwise = is_channelwise(problem);
        let columns = problem.out_channels / self.groups.len();
        for (group, weights) in self.groups.iter().enumerate() {
            let channels = problem.in_channels / self.groups.len();
            let first_column = group * columns;
            let run = Run {
                isa,
                grid: &grid,
                roots: &self.roots,
                weights,
                bias: &self.bias.as_slice()[first_column..],
                input: input.columns(group * channels, channels),
                epilogue,
                output: &output,
                first_column,
                columns,
            };
            if channelwise {
                channelwise::all(&run, pool, workspace);
            } else {
                run.all(&blocking, pool, workspace);
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.groups.iter().map(Spectra::bytes).sum()
    }
}
