//! Resizing, bit for bit as Pillow does it.
//!
//! All filters but nearest widen with the reduction, so that shrinking does not alias. As in Pillow, the picture is
//! resized along rows and along columns in two passes, with 8-bit levels between and weights of 22 fractional bits;
//! a pass that would not change the extent is left out. The order of the passes is that of Pillow 13 (found by trying:
//! see `columns_first`); older versions always began with the rows, which changes a few pixels by one level. Nearest
//! takes the pixel under the centre of the new one.

use super::Picture;
use planish_graph::limits::element_count;
use planish_graph::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Fractional bits of a weight: 32, less 8 for the level and 2 for overshoot.
const PRECISION: u32 = 22;

/// The most weights of one pass; a reduction of 16,384 pixels to any size takes fewer than half of it.
const MAX_WEIGHTS: usize = 1 << 24;

/// How the pixels of a resized picture are made; the names are Pillow's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// The mean of the pixels beneath.
    Box,
    /// A triangle of radius 1.
    #[default]
    Bilinear,
    /// A Hamming-windowed sine of radius 1.
    Hamming,
    /// Keys' cubic with a = −0.5, of radius 2.
    Bicubic,
    /// A Lanczos-windowed sine of radius 3.
    Lanczos,
}

impl Filter {
    /// Every filter.
    pub const ALL: [Filter; 6] =
        [Filter::Nearest, Filter::Box, Filter::Bilinear, Filter::Hamming, Filter::Bicubic, Filter::Lanczos];

    /// The name in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Filter::Nearest => "nearest",
            Filter::Box => "box",
            Filter::Bilinear => "bilinear",
            Filter::Hamming => "hamming",
            Filter::Bicubic => "bicubic",
            Filter::Lanczos => "lanczos",
        }
    }

    fn radius(self) -> f64 {
        match self {
            Filter::Nearest => 0.0,
            Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    /// The weight at distance `x` from the centre.
    fn weight(self, x: f64) -> f64 {
        let distance = x.abs();
        match self {
            Filter::Nearest => 0.0,
            Filter::Box => (x > -0.5 && x <= 0.5) as u8 as f64,
            Filter::Bilinear => (1.0 - distance).max(0.0),
            Filter::Hamming if distance == 0.0 => 1.0,
            Filter::Hamming if distance >= 1.0 => 0.0,
            Filter::Hamming => {
                let angle = distance * PI;
                angle.sin() / angle * (0.54 + 0.46 * angle.cos())
            }
            Filter::Bicubic => {
                const A: f64 = -0.5;
                if distance < 1.0 {
                    ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
                } else if distance < 2.0 {
                    (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A
                } else {
                    0.0
                }
            }
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Lanczos => 0.0,
        }
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Filter {
    type Err = Error;

    fn from_str(name: &str) -> Result<Filter> {
        Filter::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Filter::ALL.iter().map(|f| f.name()).collect();
            Error::invalid(format!("no resize filter named {name:?}; there are {}", names.join(", ")))
        })
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

/// `picture` at `width` × `height`.
pub fn resize(picture: &Picture, width: usize, height: usize, filter: Filter) -> Result<Picture> {
    if width == 0 || height == 0 {
        return Err(Error::invalid("cannot resize to no pixels"));
    }
    element_count(&[width.max(picture.width()), height.max(picture.height()), 3])?;
    if filter == Filter::Nearest {
        return nearest(picture, width, height);
    }
    if columns_first(picture, width, height) {
        return along_rows(&along_columns(picture, height, filter)?, width, filter);
    }
    along_columns(&along_rows(picture, width, filter)?, height, filter)
}

/// Whether Pillow 13 resizes along columns first: it does where the picture gets lower, and by more than twice as many
/// pixels as it gets narrower.
fn columns_first(picture: &Picture, width: usize, height: usize) -> bool {
    let narrower = picture.width().saturating_sub(width);
    let lower = picture.height().saturating_sub(height);
    lower > 2 * narrower
}

fn nearest(picture: &Picture, width: usize, height: usize) -> Result<Picture> {
    // Pillow adds the step up instead of multiplying it, so this does too: the two differ at exact halves.
    let places = |from: usize, to: usize| -> Vec<usize> {
        let step = from as f64 / to as f64;
        let centres = std::iter::successors(Some(step * 0.5), |centre| Some(centre + step));
        centres.take(to).map(|centre| (centre as usize).min(from - 1)).collect()
    };
    let columns = places(picture.width(), width);
    let mut pixels = buffer(width, height)?;
    for row in places(picture.height(), height) {
        let row = &picture.pixels()[row * picture.width() * 3..][..picture.width() * 3];
        columns.iter().for_each(|&column| pixels.extend_from_slice(&row[column * 3..column * 3 + 3]));
    }
    Picture::new(width, height, pixels)
}

/// For every new pixel of a pass, the first old pixel that it reads and the weights from there on.
struct Taps {
    /// First old pixel, number of weights.
    spans: Vec<(usize, usize)>,
    /// `stride` weights for each new pixel.
    weights: Vec<i32>,
    stride: usize,
}

impl Taps {
    fn new(filter: Filter, from: usize, to: usize) -> Result<Taps> {
        let scale = from as f64 / to as f64;
        let widening = scale.max(1.0);
        let radius = filter.radius() * widening;
        let stride = radius.ceil() as usize * 2 + 1;
        if stride.checked_mul(to).is_none_or(|n| n > MAX_WEIGHTS) {
            return Err(Error::limit(format!("resizing {from} pixels to {to} takes too many weights")));
        }
        let mut taps = Taps { spans: Vec::with_capacity(to), weights: vec![0; stride * to], stride };
        let mut exact = vec![0f64; stride];
        for (index, weights) in taps.weights.chunks_exact_mut(stride).enumerate() {
            let centre = (index as f64 + 0.5) * scale;
            // Casts to usize stop at 0, as Pillow's comparison does.
            let first = (centre - radius + 0.5) as usize;
            let count = ((centre + radius + 0.5) as usize).min(from).saturating_sub(first).min(stride);
            let mut total = 0.0;
            for (offset, weight) in exact[..count].iter_mut().enumerate() {
                *weight = filter.weight(((offset + first) as f64 - centre + 0.5) * (1.0 / widening));
                total += *weight;
            }
            for (fixed, exact) in weights.iter_mut().zip(&exact[..count]) {
                let weight = if total == 0.0 { *exact } else { exact / total };
                let rounding = if weight < 0.0 { -0.5 } else { 0.5 };
                *fixed = (rounding + weight * f64::from(1 << PRECISION)) as i32;
            }
            taps.spans.push((first, count));
        }
        Ok(taps)
    }

    /// The first old pixel and the weights of each new one, in order.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans
            .iter()
            .zip(self.weights.chunks_exact(self.stride))
            .map(|(&(first, count), w)| (first, &w[..count]))
    }
}

fn along_rows(picture: &Picture, width: usize, filter: Filter) -> Result<Picture> {
    if width == picture.width() {
        return Ok(picture.clone());
    }
    let taps = Taps::new(filter, picture.width(), width)?;
    let mut pixels = buffer(width, picture.height())?;
    for row in picture.pixels().chunks_exact(picture.width() * 3) {
        for (first, weights) in taps.iter() {
            let mut sums = [1i32 << (PRECISION - 1); 3];
            for (pixel, &weight) in row[first * 3..].chunks_exact(3).zip(weights) {
                for (sum, &level) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(i32::from(level).wrapping_mul(weight));
                }
            }
            pixels.extend(sums.map(to_level));
        }
    }
    Picture::new(width, picture.height(), pixels)
}

fn along_columns(picture: &Picture, height: usize, filter: Filter) -> Result<Picture> {
    if height == picture.height() {
        return Ok(picture.clone());
    }
    let taps = Taps::new(filter, picture.height(), height)?;
    let row_bytes = picture.width() * 3;
    let mut pixels = buffer(picture.width(), height)?;
    let mut sums = vec![0i32; row_bytes];
    for (first, weights) in taps.iter() {
        sums.fill(1 << (PRECISION - 1));
        for (row, &weight) in picture.pixels()[first * row_bytes..].chunks_exact(row_bytes).zip(weights) {
            for (sum, &level) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i32::from(level).wrapping_mul(weight));
            }
        }
        pixels.extend(sums.iter().map(|&sum| to_level(sum)));
    }
    Picture::new(picture.width(), height, pixels)
}

fn to_level(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// An empty buffer with room for the pixels; an error where the machine has none.
fn buffer(width: usize, height: usize) -> Result<Vec<u8>> {
    let bytes = element_count(&[width, height, 3])?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes).map_err(|_| {
        Error::limit(format!("cannot allocate {bytes} bytes for a picture of {width}×{height}"))
    })?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::npz;
    use std::path::Path;

    /// Every member `FILTER-WIDTHxHEIGHT-PICTURE` holds Pillow's result, `PICTURE` the picture itself.
    #[test]
    fn every_filter_gives_what_pillow_gives() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/resized.npz");
        let members = npz::read(&path, 1 << 24).unwrap();
        let picture = |name: &str| {
            let tensor = &members.iter().find(|(n, _)| n == name).unwrap().1;
            Picture::new(tensor.shape()[1], tensor.shape()[0], tensor.bytes().to_vec()).unwrap()
        };
        let mut compared = [0; Filter::ALL.len()];
        for (name, wanted) in &members {
            let parts: Vec<&str> = name.split('-').collect();
            let [filter, size, source] = parts[..] else { continue };
            let filter: Filter = filter.parse().unwrap();
            let (width, height) = size.split_once('x').unwrap();
            let resized =
                resize(&picture(source), width.parse().unwrap(), height.parse().unwrap(), filter).unwrap();
            assert_eq!(wanted.shape(), [resized.height(), resized.width(), 3]);
            assert!(wanted.bytes() == resized.pixels(), "{name} differs from Pillow");
            compared[filter as usize] += 1;
        }
        assert!(compared.iter().all(|&n| n >= 10), "{compared:?}");
    }

    #[test]
    fn constant_pictures_stay_constant() {
        let gray = Picture::new(17, 9, vec![200; 17 * 9 * 3]).unwrap();
        for filter in Filter::ALL {
            for (width, height) in [(1, 1), (5, 40), (17, 9), (64, 3)] {
                let resized = resize(&gray, width, height, filter).unwrap();
                assert!(resized.pixels().iter().all(|&p| p == 200), "{filter}");
            }
        }
        assert!(resize(&gray, 0, 1, Filter::Box).is_err());
        assert!(resize(&gray, 1 << 40, 1, Filter::Bilinear).is_err());
        assert!(resize(&gray, usize::MAX, usize::MAX, Filter::Nearest).is_err());
    }

    #[test]
    fn names_return() {
        for filter in Filter::ALL {
            assert_eq!(filter.name().parse::<Filter>().unwrap(), filter);
            assert_eq!(serde_json::to_string(&filter).unwrap(), format!("\"{filter}\""));
        }
        assert!("cubic".parse::<Filter>().is_err());
    }
}
