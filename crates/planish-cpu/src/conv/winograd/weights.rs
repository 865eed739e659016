//! The weights at all points, packed.

use super::super::ConvProblem;
use super::grid::Form;
use super::points::{MOST, weight_matrix};
use crate::element::Factor;
use crate::isa::Isa;
use crate::matmul::PackedMatrix;

/// The output channels that are transformed at a time: they fill the vectors of every instruction set's
/// panels.
const LANES: usize = 8;

/// One number of each of these channels.
type Lanes = [f64; LANES];

/// The most taps of a kernel along an axis.
const TAPS: usize = MOST - 1;

/// Transformed weights: one matrix with the rows of a point (one for each input channel) behind those of the
/// other, so that a panel of output channels is read front to back, point after point.
///
/// The transform is computed in double precision and rounded once: it is made once, and its errors would
/// count in every run.
///
/// Input channels are filled up to whole words.
pub(super) fn pack<T: Factor>(
    form: Form,
    problem: &ConvProblem,
    isa: Isa,
    weights: &[f32],
) -> PackedMatrix<T> {
    let inputs = problem.in_channels;
    let depth = inputs.next_multiple_of(T::PER_WORD);
    let taps = form.taps[0] * form.taps[1];
    let matrices = [0, 1].map(|axis| weight_matrix(form.points[axis], form.taps[axis]));
    PackedMatrix::from_panels(isa, form.products() * depth, problem.out_channels, |columns, panel| {
        let width = columns.len().next_multiple_of(isa.lanes());
        for first in columns.clone().step_by(LANES) {
            let lanes = LANES.min(columns.end - first);
            for channel in 0..inputs {
                let mut kernels = [[0.0; LANES]; TAPS * TAPS];
                for lane in 0..lanes {
                    let kernel = &weights[((first + lane) * inputs + channel) * taps..][..taps];
                    for (slot, &tap) in kernels.iter_mut().zip(kernel) {
                        slot[lane] = f64::from(tap);
                    }
                }
                let (word, part) = (channel / T::PER_WORD, channel % T::PER_WORD);
                let start = (word * width + first - columns.start) * T::PER_WORD + part;
                transform(form, &matrices, &kernels, |point, values| {
                    let slots = panel[start + point * depth * width..].iter_mut().step_by(T::PER_WORD);
                    for (slot, value) in slots.zip(values) {
                        *slot = T::from_f32(value as f32);
                    }
                });
            }
        }
    })
}

/// Calls `put` with every point of these kernels: `G g Gᵀ` in the words of Lavin and Gray.
fn transform(
    form: Form,
    [left, right]: &[[[f64; MOST]; MOST]; 2],
    kernels: &[Lanes; TAPS * TAPS],
    mut put: impl FnMut(usize, Lanes),
) {
    let ([high, wide], [tall, broad]) = (form.points, form.taps);
    let add = |sum: &mut Lanes, factor: f64, values: &Lanes| {
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += factor * value;
        }
    };
    for (y, factors) in left.iter().enumerate().take(high) {
        let mut line = [[0.0; LANES]; TAPS];
        for tap in 0..tall {
            for (x, sum) in line.iter_mut().enumerate().take(broad) {
                add(sum, factors[tap], &kernels[tap * broad + x]);
            }
        }
        for (x, factors) in right.iter().enumerate().take(wide) {
            let mut sum = [0.0; LANES];
            for (values, &factor) in line.iter().zip(factors).take(broad) {
                add(&mut sum, factor, values);
            }
            put(y * wide + x, sum);
        }
    }
}
