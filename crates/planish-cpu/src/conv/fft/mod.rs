//! Convolution by Fourier transforms.
//!
//! The spectrum of a convolution is the product of the spectra (Mathieu, Henaff and LeCun, *Fast Training of
//! Convolutional Networks through FFTs*, arXiv 1312.5851; Vasilache et al., *Fast Convolutional Nets With fbfft*, arXiv
//! 1412.7580). On processors it pays with small tiles whose spectra stay in a cache (Zlateski, Jia, Li and Durand, *FFT
//! Convolutions are Faster than Winograd on Modern CPUs, Here is Why*, arXiv 1809.07851).
//!
//! The output is cut into tiles (`grid`). A tile of n×n input pixels is transformed, a vector of channels at a time
//! (`transform`, `forward`); each of its n²/2 + 2 frequencies (`spectrum`) is multiplied with the spectra of the weights
//! (`weights`), a complex matrix product over the channels (`product`), or lane by lane where every channel is its own
//! group (`channelwise`); and what comes back (`inverse`) goes through bias, residual and activation to the output.
//! Tiles are taken in blocks that stay in the second-level cache (`blocking`, `run`). A lane is a channel, so nothing is
//! ever shuffled, and everything is written once for all instruction sets.
//!
//! **What it saves.** With an r×r kernel, `2 n²` multiply-adds for each pair of channels stand for `r² (n - r + 1)²`:
//! 9.6 times fewer for r = 7 and n = 16, 28 times for r = 11 and n = 32. Transforms and the spectra's way through
//! the caches take some of that back, the more the fewer channels there are to share them.
//!
//! **Where it wins**, on one thread of a Zen 4 (3.67 GHz, AVX-512, 64 channels in and out, milliseconds, the least of
//! many while other programs ran; in brackets the size of the tile; before it, the best of direct, indirect and im2col):
//!
//! | kernel | 56×56: other | fft | 112×112: other | fft |
//! |---|---|---|---|---|
//! | 3 | 2.03 | 0.77 (16) | 8.99 | 4.11 (16) |
//! | 5 | 5.78 | 1.24 (32) | 23.3 | 4.45 (32) |
//! | 7 | 11.2 | 1.71 (16) | 44.5 | 6.22 (64) |
//! | 9 | 18.4 | 2.26 (32) | 73.3 | 6.38 (64) |
//! | 11 | 27.8 | 2.64 (32) | 110 | 10.4 (32) |
//! | 15 | 50.7 | 4.81 (32) | 207 | 13.5 (64) |
//! | 31 | 228 | 5.95 (64) | 870 | 21.4 (64) |
//!
//! So with 16 channels or more it wins from 3×3 on wherever the image has a few tiles, until the spectra of the weights
//! (`2 n² / r²` times the weights) no longer fit the last cache: they are read once for every block, and with 256
//! channels on 14×14 pixels reading them is most of the time. Depthwise, on 56×56 pixels and 96 channels: 7×7
//! 0.43 ms directly and 0.48 by transforms, 9×9 0.70 and 0.43, 11×11 1.06 and 0.57, 15×15 2.08 and 0.96, 31×31 10.3 and
//! 1.46.
//!
//! **How far from the floor.** Multiply-adds of the products at one vector a cycle, plus additions of the transforms at
//! one a cycle (2 300 for a vector of channels of a 16×16 tile, of 3 900 measured, most of the rest being stores): 7×7 on
//! 56×56 with tiles of 16 could take 5.5 million cycles and takes 6.3 (87 %), on 112×112 21.8 of 28.3 (77 %); with tiles of
//! 32 (5×5 on 112×112) 10 of 16.3 (61 %), with tiles of 64 (7×7) 10.4 of 22.8 (45 %): there the weights, 16 and 67 MB, come
//! from memory.
//!
//! **Errors** are smaller than those of a plain sum, because only channels are added one after the other: relative to
//! the norm of the result about `√(1.3² + 0.23² channels) · 10⁻⁷` for every size of tile and kernel, 2.2e-7 for 64
//! channels where im2col with a 5×5 kernel has 7.0e-7. But they are spread over a tile: an output that is small among large
//! ones is as wrong as those, and one infinity or NaN makes a whole tile NaN.

mod blocking;
mod channelwise;
mod cost;
mod forward;
mod grid;
mod inverse;
mod product;
mod run;
mod scratch;
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
use super::{AnyCall, ConvAlgorithm, ConvCall, ConvElement, ConvProblem, PreparedConv, Weights, WeightsKey};
use crate::element::ElementType;
use crate::isa::Isa;
use crate::matmul::AlignedNumbers;
use crate::rates::Work;
use crate::threads::ThreadPool;

/// The numbers that the spectra of the weights may take: 128 MiB for a layer are enough, and more would seldom be read
/// in less time than others multiply.
const MOST_WEIGHTS: usize = 32 << 20;

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
        problem.check_element(self)?;
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
        let pairs = problem.group_in() * problem.out_channels.next_multiple_of(16);
        if pairs.saturating_mul(2 * spectrum::frequencies(self.size)) > MOST_WEIGHTS {
            return Err(format!("{} would need too much memory for the weights", self.name));
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

    fn elements(&self) -> &'static [ElementType] {
        &[ElementType::F32]
    }

    fn accepts(&self, problem: &ConvProblem, _isa: Isa) -> Result<(), String> {
        self.grid(problem).map(|_| ())
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        let Ok(grid) = self.grid(problem) else { return Work::default() };
        let blocking = self.blocking(&grid, problem, isa, threads);
        cost::work(&grid, &blocking, problem, isa, threads)
    }

    fn adds_plainly(&self) -> bool {
        false
    }

    fn error(&self, problem: &ConvProblem) -> f32 {
        cost::error(problem)
    }

    fn prepare(
        &self,
        problem: &ConvProblem,
        isa: Isa,
        weights: Weights<'_>,
    ) -> Result<Box<dyn PreparedConv>, String> {
        self.accepts(problem, isa)?;
        weights.check(problem)?;
        let groups = if is_channelwise(problem) {
            // All groups together are one of a single input channel that differs from output to output.
            let kernel = [problem.kernel[1], problem.kernel[2]];
            vec![Spectra::new(isa, self.size, kernel, 1, problem.out_channels, weights.values)]
        } else {
            Spectra::of_groups(isa, self.size, problem, weights.values)
        };
        // A vector may start at any group's first channel.
        let mut padded_bias = AlignedNumbers::zeros(problem.out_channels + isa.lanes());
        if let Some(bias) = weights.bias {
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
    fn algorithm(&self) -> &dyn ConvAlgorithm {
        &self.algorithm
    }

    fn key(&self) -> &WeightsKey {
        &self.key
    }

    fn workspace_len(&self, problem: &ConvProblem, threads: usize) -> usize {
        let Ok(grid) = self.algorithm.grid(problem) else { return 0 };
        if is_channelwise(problem) {
            channelwise::workspace_len(grid.size, self.key.isa, threads)
        } else {
            self.algorithm.blocking(&grid, problem, self.key.isa, threads).workspace_len(threads)
        }
    }

    unsafe fn compute(&self, problem: &ConvProblem, pool: &ThreadPool, call: AnyCall<'_>) {
        let isa = self.key.isa;
        let Ok(grid) = self.algorithm.grid(problem) else { return };
        let Some(ConvCall { input, epilogue, output, workspace }) = f32::restore(call) else { return };
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
    }

    fn bytes(&self) -> usize {
        self.groups.iter().map(Spectra::bytes).sum()
    }
}
