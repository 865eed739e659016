//! What the tests of all kernels share: drawn inputs with gaps between their rows, and a check that runs a kernel on every
//! instruction set and number of threads, against plain loops in `f64`.

use crate::isa::Isa;
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// What lies in the gaps of an output; no kernel may touch it.
const GAP: f32 = -12345.5;

/// `len` numbers in `low..high`, the same for the same seed.
pub(crate) fn random(seed: u64, len: usize, low: f32, high: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..len).map(|_| low + next() * (high - low)).collect()
}

/// An input of rows with gaps between them (of NaN, which would spread if it were read).
pub(crate) struct Input {
    data: Vec<f32>,
    rows: usize,
    channels: usize,
    stride: usize,
}

impl Input {
    pub(crate) fn new(seed: u64, rows: usize, channels: usize, gap: usize, low: f32, high: f32) -> Self {
        let stride = channels + gap;
        let mut data = random(seed, rows * stride, low, high);
        for (i, x) in data.iter_mut().enumerate() {
            if i % stride >= channels {
                *x = f32::NAN;
            }
        }
        Self { data, rows, channels, stride }
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows::new(&self.data, self.rows, self.channels, self.stride).unwrap()
    }

    pub(crate) fn at(&self, row: usize, channel: usize) -> f64 {
        f64::from(self.data[row * self.stride + channel])
    }
}

/// The largest difference a result may have: `absolute + relative * |expected|`.
#[derive(Clone, Copy)]
pub(crate) struct Tolerance {
    pub absolute: f64,
    pub relative: f64,
}

impl Tolerance {
    pub(crate) const EXACT: Self = Self { absolute: 0.0, relative: 0.0 };

    pub(crate) const fn both(error: f64) -> Self {
        Self { absolute: error, relative: error }
    }

    pub(crate) fn holds(self, actual: f32, expected: f64) -> bool {
        let actual = f64::from(actual);
        // An expected result beyond the range of `f32`, or below its normal range, is that of `f32`.
        let expected = match expected as f32 {
            x if x.is_infinite() => f64::from(x),
            x if x.is_subnormal() => 0.0,
            _ => expected,
        };
        let close = (actual - expected).abs() <= self.absolute + self.relative * expected.abs();
        close || actual == expected || (actual.is_nan() && expected.is_nan())
    }
}

/// Runs `kernel` for every instruction set of this machine on one thread and on three, and compares the rows it writes with
/// `expected(row, channel)`; the gaps must stay as they were and the bits must not depend on the number of threads.
pub(crate) fn check(
    (rows, channels, gap): (usize, usize, usize),
    tolerance: Tolerance,
    expected: impl Fn(usize, usize) -> f64,
    kernel: impl Fn(Isa, &ThreadPool, RowsMut<'_>),
) {
    let stride = channels + gap;
    let wanted: Vec<f64> = (0..rows * channels).map(|i| expected(i / channels, i % channels)).collect();
    for isa in Isa::available() {
        let mut first: Option<Vec<f32>> = None;
        for threads in [1, 3] {
            let mut data = vec![GAP; rows * stride];
            kernel(isa, &ThreadPool::new(threads), RowsMut::new(&mut data, rows, channels, stride).unwrap());
            for (i, &x) in data.iter().enumerate() {
                let (row, channel) = (i / stride, i % stride);
                if channel >= channels {
                    assert_eq!(x, GAP, "{isa}: wrote behind row {row}");
                } else {
                    let y = wanted[row * channels + channel];
                    assert!(
                        tolerance.holds(x, y),
                        "{isa}: {x} instead of {y} in row {row}, channel {channel}"
                    );
                }
            }
            let same_bits =
                |other: &Vec<f32>| data.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(first.as_ref().is_none_or(same_bits), "{isa}: other bits on {threads} threads");
            first.get_or_insert(data);
        }
    }
}
