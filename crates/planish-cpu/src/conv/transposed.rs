//! Transposed convolution (the gradient of a convolution as a layer), without scattering.
//!
//! With stride `s` an output pixel only meets those taps of the kernel that agree with its position modulo `s`.
//! Sorted by that remainder, the output falls into `s` phases an axis, each an ordinary convolution with a
//! subset of the taps (Dumoulin and Visin, *A guide to convolution arithmetic*, arXiv 1603.07285; the sub-pixel
//! view is Shi et al.'s, arXiv 1609.07009). Each phase is one indirect matrix product that writes its own
//! pixels: no zeros are multiplied, and no result is added to from two sides.

use super::problem::check_shape;
use super::weights::check_channels;
use super::{ConvProblem, WeightsKey, check_key};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::matmul::{MAX_TAPS, PackedMatrix, Product, RowSource, RowTable};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// The shape of a transposed convolution. Triples are depth, height, width, as in [`ConvProblem`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransposedProblem {
    /// The problem in the words of a convolution, with the same meaning as the attributes of ONNX's
    /// ConvTranspose: `in_channels` and `in_size` are those of the input, pads are cut off the output.
    pub shape: ConvProblem,
    /// Pixels added behind the output.
    pub output_padding: [usize; 3],
}

impl TransposedProblem {
    /// The size of the output: `stride (in - 1) + dilation (kernel - 1) + 1 + output_padding - pads` on each
    /// axis.
    pub fn out_size(&self) -> Result<[usize; 3], String> {
        let p = &self.shape;
        let mut out = [0; 3];
        for (axis, size) in out.iter_mut().enumerate() {
            if p.kernel[axis] == 0 || p.stride[axis] == 0 || p.dilation[axis] == 0 || p.in_size[axis] == 0 {
                return Err("size, kernel, stride and dilation must not be zero".to_owned());
            }
            let whole = (p.in_size[axis] - 1).checked_mul(p.stride[axis]);
            let span = p.dilation[axis].checked_mul(p.kernel[axis] - 1);
            let full = whole
                .zip(span)
                .and_then(|(whole, span)| {
                    whole.checked_add(span)?.checked_add(1)?.checked_add(self.output_padding[axis])
                })
                .ok_or("the output is too large")?;
            let pads = p.pads_begin[axis].checked_add(p.pads_end[axis]).ok_or("the padding is too large")?;
            *size = full
                .checked_sub(pads)
                .filter(|&size| size > 0)
                .ok_or_else(|| format!("padding of {pads} leaves nothing of an output of {full}"))?;
        }
        Ok(out)
    }

    /// Whether the problem makes sense, can be addressed, and has few enough taps.
    pub fn validate(&self) -> Result<(), String> {
        let out = self.out_size()?;
        let p = &self.shape;
        // A convolution of the output by the kernel has the same tensors, so its check serves here.
        let enough = |axis: usize| out[axis].max((p.kernel[axis] - 1) * p.dilation[axis] + 1);
        let sizes = ConvProblem { in_size: [0, 1, 2].map(enough), stride: [1; 3], ..p.clone() };
        sizes.validate()?;
        let input = [p.batch.max(1), p.in_channels, p.in_size[0], p.in_size[1], p.in_size[2]];
        let numbers = input.into_iter().try_fold(1usize, |product, n| product.checked_mul(n));
        if numbers.is_none_or(|n| n > isize::MAX as usize / 64) {
            return Err("the input is too large to address".to_owned());
        }
        if p.taps() > MAX_TAPS {
            return Err(format!("{} taps are more than {MAX_TAPS}", p.taps()));
        }
        Ok(())
    }

    /// Pixels of the output, over the batch; zero for a problem that is not valid.
    pub fn out_rows(&self) -> usize {
        self.out_size().map_or(0, |size| self.shape.batch * size.iter().product::<usize>())
    }

    /// Multiply-accumulates, those cut off by padding included; saturates.
    pub fn macs(&self) -> u64 {
        let p = &self.shape;
        [p.in_rows(), p.in_channels, p.group_out(), p.taps()]
            .into_iter()
            .fold(1u64, |product, factor| product.saturating_mul(factor as u64))
    }

    /// What the packed weights depend on, apart from stride and dilation.
    fn key(&self, isa: Isa) -> WeightsKey {
        WeightsKey::new("transposed", &self.shape, isa)
    }
}

/// The taps of an axis that outputs of a phase meet: `(tap, inputs to go back)`.
///
/// Output `o` with `o + pad = q · stride + phase` meets tap `k` at input `q - k · dilation / stride` where
/// `k · dilation` leaves the remainder `phase`.
fn phase_taps(shape: &ConvProblem, axis: usize, phase: usize) -> Vec<(usize, usize)> {
    let (stride, dilation) = (shape.stride[axis], shape.dilation[axis]);
    (0..shape.kernel[axis])
        .filter(|tap| tap * dilation % stride == phase)
        .map(|tap| (tap, tap * dilation / stride))
        .collect()
}

/// The part of a transposed convolution that computes the output pixels of one remainder.
struct Phase {
    at: [usize; 3],
    /// For each axis, how many inputs each of the taps goes back.
    back: [Vec<usize>; 3],
    /// The weights of each group: `[tap of the phase][input channels]` times output channels.
    groups: Vec<PackedMatrix>,
}

/// A transposed convolution with its weights packed. It serves every batch, size and padding.
pub struct PreparedTransposed {
    key: WeightsKey,
    stride: [usize; 3],
    dilation: [usize; 3],
    phases: Vec<Phase>,
    bias: Option<Vec<f32>>,
    zeros: Vec<f32>,
}

impl PreparedTransposed {
    /// Packs weights (as in ONNX: I×(O/groups)×D×H×W) and bias (O numbers).
    pub fn new(
        problem: &TransposedProblem,
        isa: Isa,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self, String> {
        problem.validate()?;
        let shape = &problem.shape;
        if weights.len() != shape.weights_len() {
            return Err(format!("{} weights for a convolution of {}", weights.len(), shape.weights_len()));
        }
        check_channels("biases", bias, shape.out_channels)?;
        let (group_in, group_out) = (shape.group_in(), shape.group_out());
        let mut phases = Vec::new();
        for z in 0..shape.stride[0] {
            for y in 0..shape.stride[1] {
                for x in 0..shape.stride[2] {
                    let at = [z, y, x];
                    let taps = [0, 1, 2].map(|axis| phase_taps(shape, axis, at[axis]));
                    let [kz, ky, kx] = &taps;
                    let count = kz.len() * ky.len() * kx.len();
                    let groups = (0..shape.groups).map(|group| {
                        PackedMatrix::<f32>::from_rows(isa, count * group_in, group_out, weights, |k| {
                            let (tap, channel) = (k / group_in, k % group_in);
                            let tap_z = kz[tap / (ky.len() * kx.len())].0;
                            let tap_y = ky[tap / kx.len() % ky.len()].0;
                            let tap_x = kx[tap % kx.len()].0;
                            let tap = (tap_z * shape.kernel[1] + tap_y) * shape.kernel[2] + tap_x;
                            let start = (group * group_in + channel) * group_out * shape.taps() + tap;
                            Some((start, shape.taps()))
                        })
                    });
                    let groups = groups.collect();
                    phases.push(Phase { at, back: taps.map(|t| t.iter().map(|t| t.1).collect()), groups });
                }
            }
        }
        Ok(Self {
            key: problem.key(isa),
            stride: shape.stride,
            dilation: shape.dilation,
            phases,
            bias: bias.map(<[f32]>::to_vec),
            zeros: vec![0.0; group_in],
        })
    }

    /// Computes the transposed convolution plus bias, with the epilogue behind it; views are as in
    /// [`super::ConvCall`].
    pub fn run(
        &self,
        problem: &TransposedProblem,
        pool: &ThreadPool,
        input: Rows<'_>,
        epilogue: Epilogue<'_>,
        output: RowsMut<'_>,
    ) -> Result<(), String> {
        problem.validate()?;
        let shape = &problem.shape;
        check_key(&self.key, &problem.key(self.key.isa))?;
        if (self.stride, self.dilation) != (shape.stride, shape.dilation) {
            return Err("the weights were packed for another stride or dilation".to_owned());
        }
        check_shape("input", input.rows(), input.channels(), shape.in_rows(), shape.in_channels)?;
        let rows = problem.out_rows();
        check_shape("output", output.rows(), output.channels(), rows, shape.out_channels)?;
        epilogue.check(rows, shape.out_channels)?;
        let out_size = problem.out_size()?;
        for phase in &self.phases {
            for (group, matrix) in phase.groups.iter().enumerate() {
                let input = input.columns(group * shape.group_in(), shape.group_in());
                let source = PhaseRows::new(shape, out_size, phase, input, &self.zeros);
                let product = Product {
                    matrix,
                    first_column: group * shape.group_out(),
                    bias: self.bias.as_deref(),
                    scales: None,
                    epilogue,
                };
                product.check(&source, &output)?;
                // SAFETY: checked just now; the phases and rows of a phase are distinct output pixels; no
                // scratch is needed.
                unsafe { product.run(pool, &source, &output, &mut []) };
            }
        }
        Ok(())
    }

    /// The memory of the packed weights.
    pub fn bytes(&self) -> usize {
        self.phases.iter().flat_map(|phase| &phase.groups).map(PackedMatrix::bytes).sum()
    }
}

/// The output pixels of a phase as rows of a left operand.
struct PhaseRows<'a> {
    shape: &'a ConvProblem,
    out_size: [usize; 3],
    phase: &'a Phase,
    input: Rows<'a>,
    zeros: &'a [f32],
    /// For each axis the first output of the phase, and how many there are.
    first: [usize; 3],
    size: [usize; 3],
}

impl<'a> PhaseRows<'a> {
    fn new(
        shape: &'a ConvProblem,
        out_size: [usize; 3],
        phase: &'a Phase,
        input: Rows<'a>,
        zeros: &'a [f32],
    ) -> Self {
        let first = [0, 1, 2].map(|axis| {
            let (stride, pad) = (shape.stride[axis], shape.pads_begin[axis]);
            (phase.at[axis] + stride - pad % stride) % stride
        });
        let size =
            [0, 1, 2].map(|axis| out_size[axis].saturating_sub(first[axis]).div_ceil(shape.stride[axis]));
        Self { shape, out_size, phase, input, zeros, first, size }
    }
}

// SAFETY: an address is that of a pixel inside the input view, or of zeros for as many channels.
unsafe impl RowSource for PhaseRows<'_> {
    fn rows(&self) -> usize {
        self.shape.batch * self.size.iter().product::<usize>()
    }

    fn taps(&self) -> usize {
        self.phase.back.iter().map(Vec::len).product()
    }

    fn tap_len(&self) -> usize {
        self.input.channels()
    }

    fn fill(&self, start: usize, table: &mut RowTable<'_>) {
        let ConvProblem { in_size, stride, pads_begin, .. } = *self.shape;
        let [depth, height, width] = self.size;
        let [back_z, back_y, back_x] = &self.phase.back;
        for i in 0..table.count() {
            let row = start + i;
            let at = [row / (width * height) % depth, row / width % height, row % width];
            let image = row / (width * height * depth);
            let out = [0, 1, 2].map(|axis| self.first[axis] + at[axis] * stride[axis]);
            let [out_depth, out_height, out_width] = self.out_size;
            table.set_output(i, ((image * out_depth + out[0]) * out_height + out[1]) * out_width + out[2]);
            let place = |axis: usize, back: usize| {
                let whole = (out[axis] + pads_begin[axis]) / stride[axis];
                whole.checked_sub(back).filter(|&input| input < in_size[axis])
            };
            let mut tap = 0;
            for &bz in back_z {
                for &by in back_y {
                    let line = place(0, bz)
                        .zip(place(1, by))
                        .map(|(z, y)| ((image * in_size[0] + z) * in_size[1] + y) * in_size[2]);
                    for &bx in back_x {
                        let address = match (line, place(2, bx)) {
                            (Some(line), Some(x)) => self.input.row(line + x).as_ptr(),
                            _ => self.zeros.as_ptr(),
                        };
                        table.set(tap, i, address);
                        tap += 1;
                    }
                }
            }
        }
    }
}
