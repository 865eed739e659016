//! Arguments that say how pictures become a network's input.

use clap::Args;
use planish::images::{Channels, DecodeLimits, Filter, Picture, Preprocessing, decode_file};
use planish_graph::{DType, Dim, Error, Graph, Result};
use std::path::{Path, PathBuf};

/// Preprocessing flags. Without any, the model's own settings are used (metadata key `planish.preprocessing`).
#[derive(Args, Clone, Debug, Default)]
pub struct PictureArguments {
    /// The network's input, N or HEIGHTxWIDTH [default: as the model declares]
    #[arg(long, value_name = "N", value_parser = size)]
    pub size: Option<(usize, usize)>,
    /// Filter: nearest, box, bilinear, hamming, bicubic, lanczos, as in Pillow [default: bilinear]
    #[arg(long, value_name = "MODE")]
    pub resize: Option<Filter>,
    /// Resize the shorter side to N, then cut out the centre; without it pictures are squashed to --size
    #[arg(long, value_name = "N")]
    pub crop: Option<usize>,
    /// Subtracted from the levels (0 to 255) of red, green and blue
    #[arg(long, value_name = "R,G,B", value_parser = three, allow_hyphen_values = true)]
    pub mean: Option<[f32; 3]>,
    /// Divides the levels of red, green and blue, after the mean is subtracted
    #[arg(long, value_name = "R,G,B", value_parser = three)]
    pub std: Option<[f32; 3]>,
    /// The order of channels in the input: rgb or bgr [default: rgb]
    #[arg(long, value_name = "ORDER")]
    pub channels: Option<Channels>,
}

impl PictureArguments {
    /// Whether any flag was given.
    pub fn given(&self) -> bool {
        self.size.is_some()
            || self.resize.is_some()
            || self.crop.is_some()
            || self.mean.is_some()
            || self.std.is_some()
            || self.channels.is_some()
    }

    /// The settings for `graph`: its own where it carries any, then what the flags say.
    pub fn settings(&self, graph: &Graph) -> Result<Preprocessing> {
        let mut settings = match (Preprocessing::of_graph(graph)?, self.size.or_else(|| picture_size(graph)))
        {
            (Some(own), _) => own,
            (None, Some((height, width))) => Preprocessing::new(height, width),
            (None, None) => {
                return Err(Error::invalid(
                    "the model does not say how large its pictures are: give --size N or HEIGHTxWIDTH",
                ));
            }
        };
        if let Some(size) = self.size {
            settings.size = size;
        }
        if let Some(filter) = self.resize {
            settings.resize = filter;
        }
        if self.crop.is_some() {
            settings.short_side = self.crop;
        }
        if let Some(mean) = self.mean {
            settings.mean = mean;
        }
        if let Some(std) = self.std {
            settings.std = std;
        }
        if let Some(channels) = self.channels {
            settings.channels = channels;
        }
        settings.check()?;
        Ok(settings)
    }
}

/// The height and width of the only `f32` picture input of `graph`, where it declares them.
fn picture_size(graph: &Graph) -> Option<(usize, usize)> {
    let value = graph.value(picture_input(graph).ok()?);
    match value.shape.as_deref()? {
        [_, _, Dim::Fixed(height), Dim::Fixed(width)] => Some((*height, *width)),
        _ => None,
    }
}

/// The input that takes pictures: the only one, `f32`, of rank 4.
pub fn picture_input(graph: &Graph) -> Result<planish_graph::ValueId> {
    if let [input] = graph.inputs[..] {
        let value = graph.value(input);
        let rank = value.shape.as_ref().map_or(4, |s| s.len());
        if value.dtype == Some(DType::F32) && rank == 4 {
            return Ok(input);
        }
    }
    let inputs: Vec<String> = graph.inputs.iter().map(|&i| graph.describe(i)).collect();
    Err(Error::unsupported(format!(
        "pictures are for models with one f32 input of rank 4; this one takes {}: give --input NAME=FILE.npy",
        inputs.join("; ")
    )))
}

/// Decodes pictures under the default limits.
pub fn decode(paths: &[PathBuf]) -> Result<Vec<Picture>> {
    paths.iter().map(|p| decode_one(p)).collect()
}

/// Decodes a picture under the default limits.
pub fn decode_one(path: &Path) -> Result<Picture> {
    decode_file(path, &DecodeLimits::default())
}

fn size(text: &str) -> std::result::Result<(usize, usize), String> {
    let sides: Vec<usize> =
        text.split('x').map(str::parse).collect::<std::result::Result<_, _>>().unwrap_or_default();
    match sides[..] {
        [side] => Ok((side, side)),
        [height, width] => Ok((height, width)),
        _ => Err(format!("\"{text}\" is no size: write 224 or 320x480 (height first)")),
    }
}

fn three(text: &str) -> std::result::Result<[f32; 3], String> {
    let values: Vec<f32> =
        text.split(',').map(|v| v.trim().parse()).collect::<std::result::Result<_, _>>().unwrap_or_default();
    match values[..] {
        [all] => Ok([all; 3]),
        [red, green, blue] => Ok([red, green, blue]),
        _ => Err(format!("\"{text}\" is no triple: write 123.7,116.3,103.5 in pixel levels")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_and_triples() {
        assert_eq!(size("224"), Ok((224, 224)));
        assert_eq!(size("320x480"), Ok((320, 480)));
        assert!(size("a").is_err() && size("1x2x3").is_err());
        assert_eq!(three("1,2,3"), Ok([1.0, 2.0, 3.0]));
        assert_eq!(three("127.5"), Ok([127.5; 3]));
        assert!(three("1,2").is_err());
    }
}
