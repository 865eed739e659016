//! Pictures on their way into a network: decoded, resized as Pillow resizes, scaled to the numbers it was trained on.
//!
//! A network's accuracy is only as good as its preprocessing is faithful, so resizing is bit-exact with Pillow (which
//! nearly every training pipeline uses) and the settings travel with the model ([`Preprocessing`]).

mod decode;
mod preprocess;
mod resize;

pub use decode::{DecodeLimits, decode, decode_file};
pub use preprocess::{Channels, Preprocessing};
pub use resize::{Filter, resize};

use planish_graph::limits::element_count;
use planish_graph::{Error, Result};

/// A picture of 8-bit RGB pixels, rows from top to bottom, channels interleaved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// A picture of `width` × `height` with these RGB bytes; an error where their number does not fit.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Picture> {
        if width == 0 || height == 0 {
            return Err(Error::invalid("a picture without pixels"));
        }
        let wanted = element_count(&[height, width, 3])?;
        if pixels.len() != wanted {
            return Err(Error::invalid(format!(
                "{width}×{height} RGB pixels take {wanted} bytes, but {} were given",
                pixels.len()
            )));
        }
        Ok(Picture { width, height, pixels })
    }
    /// Pixels a row.
    pub fn width(&self) -> usize {
        self.width
    }
    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }
    /// The RGB bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
    /// The part of `width` × `height` whose upper left corner is at (`left`, `top`); an error where it sticks out.
    pub fn crop(&self, left: usize, top: usize, width: usize, height: usize) -> Result<Picture> {
        let inside = |start: usize, length: usize, whole: usize| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= whole)
        };
        if !inside(left, width, self.width) || !inside(top, height, self.height) {
            return Err(Error::invalid(format!(
                "a crop of {width}×{height} at ({left}, {top}) does not lie inside {}×{} pixels",
                self.width, self.height
            )));
        }
        let rows = self.pixels.chunks_exact(self.width * 3).skip(top).take(height);
        let pixels = rows.flat_map(|row| &row[left * 3..(left + width) * 3]).copied().collect();
        Picture::new(width, height, pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_lie_inside() {
        let picture = Picture::new(3, 2, (0..18).collect()).unwrap();
        assert_eq!(picture.crop(1, 1, 2, 1).unwrap().pixels(), [12, 13, 14, 15, 16, 17]);
        assert!(picture.crop(2, 0, 2, 1).is_err());
        assert!(picture.crop(usize::MAX, 0, 2, 1).is_err());
        assert!(picture.crop(0, 0, 0, 1).is_err());
        assert!(Picture::new(3, 2, vec![0; 17]).is_err());
        assert!(Picture::new(0, 2, vec![]).is_err());
    }
}
