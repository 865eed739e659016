//! The weights at all points, packed.

use super::super::ConvProblem;
use super::grid::Form;
use super::points::{MOST, weight_matrix};
use crate::isa::Isa;
use crate::matmul::PackedMatrix;

/// Transformed weights: one matrix with the rows of a point (one for each input channel) behind those of the
/// other, so that a panel of output channels is read front to back, point after point.
///
/// The transform is computed in double precision and rounded once: it is made once, and its errors would count in
/// every run.
pub(super) fn pack(form: Form, problem: &ConvProblem, isa: Isa, weights: &[f32]) -> PackedMatrix {
    let (inputs, outputs) = (problem.in_channels, problem.out_channels);
    let ([high, wide], [tall, broad]) = (form.points, form.taps);
    let (left, right) = (weight_matrix(high, tall), weight_matrix(wide, broad));
    let rows = form.products() * inputs;
    // `[output channel][point][input channel]`
    let mut transformed = vec![0.0; outputs * rows];
    for (kernels, points) in
        weights.chunks_exact(inputs * tall * broad).zip(transformed.chunks_exact_mut(rows))
    {
        for (channel, kernel) in kernels.chunks_exact(tall * broad).enumerate() {
            let mut lines = [[0.0; MOST]; MOST];
            for (line, factors) in lines.iter_mut().zip(&left).take(high) {
                for (taps, &factor) in kernel.chunks_exact(broad).zip(factors) {
                    for (sum, &tap) in line.iter_mut().zip(taps) {
                        *sum += factor * f64::from(tap);
                    }
                }
            }
            for (y, line) in lines.iter().enumerate().take(high) {
                for (x, factors) in right.iter().enumerate().take(wide) {
                    let sum: f64 = line.iter().zip(factors).take(broad).map(|(a, b)| a * b).sum();
                    points[(y * wide + x) * inputs + channel] = sum as f32;
                }
            }
        }
    }
    PackedMatrix::from_rows(isa, rows, outputs, &transformed, |row| (row, rows))
}
