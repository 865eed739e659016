//! Decoding PNG, JPEG, BMP and WebP, with limits that hold before any pixel is unpacked.
//!
//! Every picture becomes 8-bit RGB in the manner of Pillow's `convert("RGB")`: gray is repeated, alpha is dropped, CMYK
//! is converted without a colour profile. An orientation tag is not applied (Pillow's `open` does not either).

use super::Picture;
use crate::files::read_bounded;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};
use planish_graph::error::Context;
use planish_graph::{Error, Result};
use std::io::Cursor;
use std::path::Path;

/// How large a picture may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The largest width and the largest height.
    pub side: u32,
    /// The most pixels.
    pub pixels: u64,
    /// The most bytes that a decoder may allocate, where it keeps count.
    pub memory: u64,
    /// The longest file in bytes.
    pub file: u64,
}

impl Default for DecodeLimits {
    /// Room for the pictures of today's cameras (64 megapixels).
    fn default() -> DecodeLimits {
        DecodeLimits { side: 1 << 14, pixels: 1 << 26, memory: 1 << 30, file: 256 << 20 }
    }
}

/// Decodes the picture in the file at `path`.
pub fn decode_file(path: &Path, limits: &DecodeLimits) -> Result<Picture> {
    let content = read_bounded(path, limits.file)?;
    decode(&content, limits).context(|| path.display().to_string())
}

/// Decodes a picture; its format is told by its first bytes.
pub fn decode(content: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    if content.len() as u64 > limits.file {
        return Err(Error::limit(format!("longer than the cap of {} bytes", limits.file)));
    }
    let mut reader = ImageReader::new(Cursor::new(content))
        .with_guessed_format()
        .map_err(|e| Error::invalid(e.to_string()))?;
    let mut caps = Limits::default();
    caps.max_image_width = Some(limits.side);
    caps.max_image_height = Some(limits.side);
    caps.max_alloc = Some(limits.memory);
    reader.limits(caps);
    let decoder = reader.into_decoder().map_err(explain)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.pixels || width > limits.side || height > limits.side {
        return Err(Error::limit(format!(
            "{width}×{height} pixels; at most {} and {} a side are decoded",
            limits.pixels, limits.side
        )));
    }
    if decoder.total_bytes() > limits.memory {
        return Err(Error::limit(format!("decoding needs more than the cap of {} bytes", limits.memory)));
    }
    let rgb = DynamicImage::from_decoder(decoder).map_err(explain)?.into_rgb8();
    Picture::new(width as usize, height as usize, rgb.into_raw())
}

fn explain(error: ImageError) -> Error {
    match error {
        ImageError::Limits(e) => Error::limit(e.to_string()),
        ImageError::Unsupported(e) => Error::unsupported(format!("{e}; PNG, JPEG, BMP and WebP are decoded")),
        e => Error::invalid(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::scratch::Scratch;
    use planish_graph::ErrorKind;

    fn data(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures").join(name)
    }

    /// The largest difference from what Pillow makes of the same file.
    fn difference(name: &str) -> u8 {
        let picture = decode_file(&data(name), &DecodeLimits::default()).unwrap();
        let decoded = crate::files::npz::read(&data("../decoded.npz"), 1 << 20).unwrap();
        let wanted = &decoded.iter().find(|(n, _)| n == name).unwrap().1;
        assert_eq!(wanted.shape(), [picture.height(), picture.width(), 3], "{name}");
        wanted.bytes().iter().zip(picture.pixels()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn lossless_formats_decode_as_pillow_does() {
        for name in [
            "rgb.png",
            "rgba.png",
            "gray.png",
            "gray-alpha.png",
            "palette.png",
            "bits.png",
            "rgb.bmp",
            "rgb.webp",
        ] {
            assert_eq!(difference(name), 0, "{name}");
        }
    }

    #[test]
    fn jpeg_decodes_nearly_as_pillow_does() {
        for name in ["rgb-444.jpg", "rgb-420.jpg", "gray.jpg", "cmyk.jpg", "progressive.jpg"] {
            let difference = difference(name);
            assert!(difference <= 4, "{name}: {difference} levels");
        }
    }

    #[test]
    fn large_pictures_are_refused_before_they_are_unpacked() {
        let content = std::fs::read(data("rgb.png")).unwrap();
        let roomy = DecodeLimits::default();
        for limits in [
            DecodeLimits { side: 8, ..roomy },
            DecodeLimits { pixels: 8, ..roomy },
            DecodeLimits { memory: 8, ..roomy },
            DecodeLimits { file: 8, ..roomy },
        ] {
            assert_eq!(decode(&content, &limits).unwrap_err().kind(), ErrorKind::Limit, "{limits:?}");
        }
        // A PNG head that claims 65,535 × 65,535 pixels, with a right checksum and nothing behind it.
        let mut bomb = content[..33].to_vec();
        bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        let checksum = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(decode(&bomb, &roomy).unwrap_err().kind(), ErrorKind::Limit);
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
        })
    }

    #[test]
    fn junk_is_an_error_that_names_the_file() {
        let scratch = Scratch::new();
        for (name, content) in
            [("empty.png", &b""[..]), ("text.jpg", b"hello"), ("cut.png", b"\x89PNG\r\n\x1a\n\0\0\0")]
        {
            let path = scratch.path(name);
            std::fs::write(&path, content).unwrap();
            let error = decode_file(&path, &DecodeLimits::default()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
        #[test]
        fn damaged_pictures_never_panic(which in 0usize..5, at in 0usize..2000, byte: u8, cut in 0usize..3000) {
            let name = ["rgb.png", "rgb-420.jpg", "cmyk.jpg", "rgb.webp", "rgb.bmp"][which];
            let mut content = std::fs::read(data(name)).unwrap();
            content.truncate(content.len().saturating_sub(cut).max(64));
            let at = at % content.len();
            content[at] = byte;
            let limits = DecodeLimits { side: 4096, pixels: 1 << 20, memory: 1 << 24, file: 1 << 20 };
            let _ = decode(&content, &limits);
        }
    }
}
