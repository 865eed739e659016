//! The spectra of the weights, computed in double precision and rounded once.
//!
//! A network's convolution does not flip its kernel, it correlates: `y[o] = Σ x[o + t] w[t]`. The spectrum of `y` is
//! that of `x` times the **conjugate** of that of `w`, so the conjugate is what is kept: `Σ w[t] e^(+2πi t k / n)`. The
//! `1 / n²` of the inverse transform and the halves that `forward` leaves out are multiplied in as well.

use super::spectrum;
use crate::conv::ConvProblem;
use crate::isa::Isa;
use crate::matmul::AlignedNumbers;

/// The spectra of the weights of a group: for every frequency and every vector of output channels (a panel) the
/// channels of the input, each a vector of real and a vector of imaginary parts. Output channels that pad the last
/// vector are zero.
pub(super) struct Spectra {
    /// Input channels.
    pub depth: usize,
    /// Vectors of output channels.
    pub panels: usize,
    lanes: usize,
    numbers: AlignedNumbers,
}

impl Spectra {
    /// The panel of a frequency.
    pub(super) fn panel(&self, frequency: usize, panel: usize) -> &[f32] {
        let len = self.depth * 2 * self.lanes;
        &self.numbers.as_slice()[(frequency * self.panels + panel) * len..][..len]
    }

    /// The memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.numbers.bytes()
    }

    /// Transforms the weights `[output][input][line][pixel]` of a group of `outputs` and `depth` channels.
    pub(super) fn new(
        isa: Isa,
        size: usize,
        kernel: [usize; 2],
        depth: usize,
        outputs: usize,
        weights: &[f32],
    ) -> Self {
        let lanes = isa.lanes();
        let panels = outputs.div_ceil(lanes);
        let taps = kernel[0] * kernel[1];
        let frequencies = spectrum::frequencies(size);
        let mut numbers = AlignedNumbers::zeros(frequencies * panels * depth * 2 * lanes);
        let mut kernels = Kernels::new(size, kernel, lanes);
        for panel in 0..panels {
            for channel in 0..depth {
                for lane in 0..lanes.min(outputs - panel * lanes) {
                    let start = ((panel * lanes + lane) * depth + channel) * taps;
                    kernels.set(lane, &weights[start..start + taps]);
                }
                for lane in outputs - panel * lanes..lanes {
                    kernels.set(lane, &vec![0.0; taps]);
                }
                kernels.transform_lines();
                for (frequency, (v, u, scale)) in spectrum::table(size).enumerate() {
                    let scale = scale / (size * size) as f64;
                    let start = ((frequency * panels + panel) * depth + channel) * 2 * lanes;
                    let out = &mut numbers.as_mut_slice()[start..start + 2 * lanes];
                    for (slot, &x) in out.iter_mut().zip(kernels.at(v, u)) {
                        *slot = (x * scale) as f32;
                    }
                }
            }
        }
        Self { depth, panels, lanes, numbers }
    }

    /// The spectra of the weights of every group of a problem.
    pub(super) fn of_groups(isa: Isa, size: usize, problem: &ConvProblem, weights: &[f32]) -> Vec<Self> {
        let (depth, outputs) = (problem.group_in(), problem.group_out());
        let kernel = [problem.kernel[1], problem.kernel[2]];
        let len = depth * outputs * problem.taps();
        weights.chunks_exact(len).map(|w| Self::new(isa, size, kernel, depth, outputs, w)).collect()
    }
}

/// One kernel in each lane, and their transforms.
struct Kernels {
    size: usize,
    kernel: [usize; 2],
    lanes: usize,
    /// Cosine and sine of `2π m / size`.
    roots: Vec<[f64; 2]>,
    /// `[line][pixel][lane]`
    taps: Vec<f64>,
    /// `[line][u]`, each with the real parts of all lanes, then the imaginary ones.
    lines: Vec<f64>,
    /// One frequency.
    sum: Vec<f64>,
}

impl Kernels {
    fn new(size: usize, kernel: [usize; 2], lanes: usize) -> Self {
        let root = |m: usize| {
            let (sin, cos) = (std::f64::consts::TAU * m as f64 / size as f64).sin_cos();
            [cos, sin]
        };
        Self {
            size,
            kernel,
            lanes,
            roots: (0..size).map(root).collect(),
            taps: vec![0.0; kernel[0] * kernel[1] * lanes],
            lines: vec![0.0; kernel[0] * (size / 2 + 1) * 2 * lanes],
            sum: vec![0.0; 2 * lanes],
        }
    }

    fn set(&mut self, lane: usize, taps: &[f32]) {
        for (slots, &tap) in self.taps.chunks_exact_mut(self.lanes).zip(taps) {
            slots[lane] = f64::from(tap);
        }
    }

    fn transform_lines(&mut self) {
        let Self { size, kernel, lanes, .. } = *self;
        let taps = self.taps.chunks_exact(kernel[1] * lanes);
        for (taps, lines) in taps.zip(self.lines.chunks_exact_mut((size / 2 + 1) * 2 * lanes)) {
            for (u, sums) in lines.chunks_exact_mut(2 * lanes).enumerate() {
                sums.fill(0.0);
                let (re, im) = sums.split_at_mut(lanes);
                for (x, taps) in taps.chunks_exact(lanes).enumerate() {
                    let [cos, sin] = self.roots[x * u % size];
                    for ((re, im), tap) in re.iter_mut().zip(&mut *im).zip(taps) {
                        *re += tap * cos;
                        *im += tap * sin;
                    }
                }
            }
        }
    }

    /// A frequency: the real parts of all lanes, then the imaginary ones.
    fn at(&mut self, v: usize, u: usize) -> &[f64] {
        let Self { size, lanes, .. } = *self;
        self.sum.fill(0.0);
        let (re, im) = self.sum.split_at_mut(lanes);
        for (y, line) in self.lines.chunks_exact((size / 2 + 1) * 2 * lanes).enumerate() {
            let [cos, sin] = self.roots[y * v % size];
            let (line_re, line_im) = line[u * 2 * lanes..][..2 * lanes].split_at(lanes);
            for (((re, im), a), b) in re.iter_mut().zip(&mut *im).zip(line_re).zip(line_im) {
                *re += a * cos - b * sin;
                *im += a * sin + b * cos;
            }
        }
        &self.sum
    }
}
