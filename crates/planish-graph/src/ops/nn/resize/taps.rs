//! Where each output coordinate of a resized axis takes its value from: input indices and their weights.
//!
//! An output coordinate is carried back to the input by one of several conventions ([`Coordinates`]; they differ in what
//! stays fixed: corners, pixel centres or the origin), and the input is read there through an interpolating kernel
//! ([`Interpolation`]; the cubic one is Keys, "Cubic convolution interpolation for digital image processing", 1981). When
//! shrinking with `antialias`, the kernel is widened so that no pixel is skipped. Resizing is separable: one such table
//! an axis says everything.

use crate::error::{Error, Result};

/// How an output coordinate is carried to the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // named and defined by ONNX
pub enum Coordinates {
    #[default]
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfCropAndResize,
    TfHalfPixelForNn,
}

impl Coordinates {
    const ALL: [(Coordinates, &'static str); 7] = [
        (Coordinates::HalfPixel, "half_pixel"),
        (Coordinates::HalfPixelSymmetric, "half_pixel_symmetric"),
        (Coordinates::PytorchHalfPixel, "pytorch_half_pixel"),
        (Coordinates::AlignCorners, "align_corners"),
        (Coordinates::Asymmetric, "asymmetric"),
        (Coordinates::TfCropAndResize, "tf_crop_and_resize"),
        // Only in opsets 11 to 17.
        (Coordinates::TfHalfPixelForNn, "tf_half_pixel_for_nn"),
    ];
    /// ONNX's name.
    pub fn name(self) -> &'static str {
        Coordinates::ALL.iter().find(|(c, _)| *c == self).map_or("", |(_, name)| name)
    }
    pub(super) fn from_name(name: &str) -> Result<Coordinates> {
        named("coordinate_transformation_mode", &Coordinates::ALL, name)
    }
}

/// Which neighbour the nearest one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // named and defined by ONNX
pub enum NearestMode {
    #[default]
    RoundPreferFloor,
    RoundPreferCeil,
    Floor,
    Ceil,
}

impl NearestMode {
    const ALL: [(NearestMode, &'static str); 4] = [
        (NearestMode::RoundPreferFloor, "round_prefer_floor"),
        (NearestMode::RoundPreferCeil, "round_prefer_ceil"),
        (NearestMode::Floor, "floor"),
        (NearestMode::Ceil, "ceil"),
    ];
    /// ONNX's name.
    pub fn name(self) -> &'static str {
        NearestMode::ALL.iter().find(|(m, _)| *m == self).map_or("", |(_, name)| name)
    }
    pub(super) fn from_name(name: &str) -> Result<NearestMode> {
        named("nearest_mode", &NearestMode::ALL, name)
    }
}

fn named<T: Copy>(attribute: &str, all: &[(T, &str)], name: &str) -> Result<T> {
    let found = all.iter().find(|(_, n)| *n == name);
    found
        .map(|(value, _)| *value)
        .ok_or_else(|| Error::invalid(format!("attribute \"{attribute}\" is unknown: \"{name}\"")))
}

/// How values between pixels are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interpolation {
    /// By the nearest pixel.
    Nearest(NearestMode),
    /// By the two pixels around (widened where `antialias` and shrinking).
    Linear {
        /// Whether the kernel is widened when shrinking.
        antialias: bool,
    },
    /// By the four pixels around.
    Cubic {
        /// Keys' parameter.
        a: f32,
        /// Whether the kernel is widened when shrinking.
        antialias: bool,
    },
}

/// How one axis is resized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisResize {
    /// The input's extent.
    pub input: usize,
    /// The output's extent.
    pub output: usize,
    /// Output over input, which need not be exact.
    pub scale: f64,
    /// The part of the input that is resized, 0 to 1; only `TfCropAndResize` looks at it.
    pub region: (f64, f64),
    /// How output coordinates are carried to the input.
    pub coordinates: Coordinates,
    /// How values between pixels are made.
    pub interpolation: Interpolation,
    /// Whether pixels outside the input lose their weight to those inside, rather than repeating the border.
    pub exclude_outside: bool,
}

/// For each output coordinate of an axis, the input indices it reads and their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct TapTable {
    ends: Vec<usize>,
    taps: Vec<(usize, f64)>,
}

impl TapTable {
    /// Output coordinates.
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    /// Whether there are no output coordinates.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
    /// The input indices, rising, and weights of one output coordinate. None where it lies outside the input and takes
    /// the extrapolation value.
    pub fn of(&self, output: usize) -> &[(usize, f64)] {
        let start = if output == 0 { 0 } else { self.ends[output - 1] };
        &self.taps[start..self.ends[output]]
    }
    /// Whether every output coordinate is the input's of the same index.
    pub fn is_identity(&self, input: usize) -> bool {
        self.len() == input && (0..input).all(|o| self.of(o) == [(o, 1.0)])
    }
}

impl AxisResize {
    /// The input coordinate that an output coordinate falls on; `None` outside what `TfCropAndResize` extrapolates.
    fn source(&self, output: usize) -> Option<f64> {
        let (x, input) = (output as f64, self.input as f64);
        let resized = self.scale * input;
        let half_pixel = (x + 0.5) / self.scale - 0.5;
        Some(match self.coordinates {
            Coordinates::HalfPixel => half_pixel,
            Coordinates::HalfPixelSymmetric => {
                half_pixel + input / 2.0 * (1.0 - self.output as f64 / resized)
            }
            Coordinates::PytorchHalfPixel if self.output == 1 => 0.0,
            Coordinates::PytorchHalfPixel => half_pixel,
            // The extent before rounding, in which ONNX's tests differ from its text.
            Coordinates::AlignCorners if resized == 1.0 => 0.0,
            Coordinates::AlignCorners => x * (input - 1.0) / (resized - 1.0),
            Coordinates::Asymmetric => x / self.scale,
            Coordinates::TfHalfPixelForNn => (x + 0.5) / self.scale,
            Coordinates::TfCropAndResize => {
                let (start, end) = self.region;
                let along = if self.output == 1 { 0.5 } else { x / (self.output as f64 - 1.0) };
                let at = (start + along * (end - start)) * (input - 1.0);
                return (0.0..=input - 1.0).contains(&at).then_some(at);
            }
        })
    }

    /// The table of this axis. Its size is of the order of the axis: input and output extents together.
    pub fn taps(&self) -> TapTable {
        let mut table = TapTable { ends: Vec::with_capacity(self.output), taps: Vec::new() };
        for output in 0..self.output {
            if let Some(at) = self.source(output) {
                match self.interpolation {
                    Interpolation::Nearest(mode) => table.taps.push((self.nearest(at, mode), 1.0)),
                    Interpolation::Linear { antialias } => {
                        self.weigh(at, antialias, 1.0, |d| 1.0 - d, &mut table.taps);
                    }
                    Interpolation::Cubic { a, antialias } => {
                        self.weigh(at, antialias, 2.0, |d| cubic(d, f64::from(a)), &mut table.taps);
                    }
                }
            }
            table.ends.push(table.taps.len());
        }
        table
    }

    fn nearest(&self, at: f64, mode: NearestMode) -> usize {
        let rounded = match mode {
            NearestMode::RoundPreferFloor => (at - 0.5).ceil(),
            NearestMode::RoundPreferCeil => (at + 0.5).floor(),
            NearestMode::Floor => at.floor(),
            NearestMode::Ceil => at.ceil(),
        };
        self.inside(rounded as i64)
    }

    /// The border pixel where `index` lies outside.
    fn inside(&self, index: i64) -> usize {
        usize::try_from(index).unwrap_or(0).min(self.input.saturating_sub(1))
    }

    /// Adds the taps of a kernel of some radius around `at`.
    fn weigh(
        &self,
        at: f64,
        antialias: bool,
        radius: f64,
        kernel: impl Fn(f64) -> f64,
        taps: &mut Vec<(usize, f64)>,
    ) {
        let scale = if antialias { self.scale.min(1.0) } else { 1.0 };
        let first = ((at - radius / scale).floor() as i64).saturating_add(1);
        let last = ((at + radius / scale).ceil() as i64).saturating_sub(1);
        let start = taps.len();
        let mut total = 0.0;
        for index in first..=last {
            let is_outside = !usize::try_from(index).is_ok_and(|i| i < self.input);
            let weight = kernel(((index as f64 - at) * scale).abs());
            if weight == 0.0 || is_outside && self.exclude_outside {
                continue;
            }
            total += weight;
            let index = self.inside(index);
            match taps[start..].last_mut() {
                Some((before, sum)) if *before == index => *sum += weight,
                _ => taps.push((index, weight)),
            }
        }
        if total != 0.0 && (antialias || self.exclude_outside) {
            taps[start..].iter_mut().for_each(|(_, weight)| *weight /= total);
        }
    }
}

/// Keys' kernel at distance `d`.
fn cubic(d: f64, a: f64) -> f64 {
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(input: usize, output: usize, interpolation: Interpolation) -> AxisResize {
        AxisResize {
            input,
            output,
            scale: output as f64 / input as f64,
            region: (0.0, 1.0),
            coordinates: Coordinates::HalfPixel,
            interpolation,
            exclude_outside: false,
        }
    }

    #[test]
    fn linear_weights_sum_to_one_and_repeat_the_border() {
        let table = axis(2, 4, Interpolation::Linear { antialias: false }).taps();
        assert_eq!(table.of(0), [(0, 1.0)]);
        assert_eq!(table.of(1), [(0, 0.75), (1, 0.25)]);
        assert_eq!(table.of(3), [(1, 1.0)]);
        assert!(axis(5, 5, Interpolation::Linear { antialias: false }).taps().is_identity(5));
        let wide = axis(4, 2, Interpolation::Linear { antialias: true }).taps();
        assert_eq!(wide.of(1), [(1, 0.125), (2, 0.375), (3, 0.5)]);
    }

    #[test]
    fn nearest_breaks_ties_as_told() {
        let pick = |mode| {
            let half = AxisResize {
                coordinates: Coordinates::Asymmetric,
                ..axis(2, 4, Interpolation::Nearest(mode))
            };
            (0..4).map(|o| half.taps().of(o)[0].0).collect::<Vec<_>>()
        };
        assert_eq!(pick(NearestMode::RoundPreferFloor), [0, 0, 1, 1]);
        assert_eq!(pick(NearestMode::RoundPreferCeil), [0, 1, 1, 1]);
        assert_eq!(pick(NearestMode::Floor), [0, 0, 1, 1]);
        assert_eq!(pick(NearestMode::Ceil), [0, 1, 1, 1]);
    }

    #[test]
    fn cropping_extrapolates_outside() {
        let base = axis(4, 2, Interpolation::Linear { antialias: false });
        let crop = AxisResize { coordinates: Coordinates::TfCropAndResize, region: (0.5, 1.5), ..base };
        assert_eq!(crop.taps().of(0), [(1, 0.5), (2, 0.5)]);
        assert!(crop.taps().of(1).is_empty());
        let broken = AxisResize { region: (f64::NAN, f64::INFINITY), ..crop };
        assert!(broken.taps().of(0).is_empty());
    }
}
