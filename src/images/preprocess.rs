//! How a picture becomes a network's input, written down once and kept inside the model.
//!
//! The settings are stored as JSON in the model's metadata under [`Preprocessing::METADATA_KEY`]:
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `size` | `[height, width]` of the network's input | – |
//! | `resize` | filter: `nearest`, `box`, `bilinear`, `hamming`, `bicubic`, `lanczos`, as in Pillow | `bilinear` |
//! | `short_side` | resize the shorter side to this, keeping the proportions, then take the central `size`; without it the picture is squashed to `size` | none |
//! | `mean`, `std` | for each channel, in pixel levels 0 to 255 and in RGB order: input = (level − mean) / std | 0, 1 |
//! | `channels` | `rgb` or `bgr`: the order in the input | `rgb` |
//!
//! torchvision's `Resize(256)`, `CenterCrop(224)` is `size` 224 with `short_side` 256. Unknown keys are errors: a
//! misspelt key would silently cost accuracy.

use super::{Filter, Picture, resize};
use planish_graph::error::Context;
use planish_graph::{DType, Error, Graph, Result, Tensor, invalid};
use serde::{Deserialize, Serialize};

/// The largest height or width that settings may ask for.
const MAX_SIDE: usize = 1 << 14;

/// The order of channels in a network's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first, as OpenCV and Caffe have it.
    Bgr,
}

impl std::str::FromStr for Channels {
    type Err = Error;

    fn from_str(name: &str) -> Result<Channels> {
        match name {
            "rgb" => Ok(Channels::Rgb),
            "bgr" => Ok(Channels::Bgr),
            _ => invalid!("no channel order named {name:?}; there are rgb, bgr"),
        }
    }
}

/// How a picture becomes a network's input; the module's documentation lists the keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Height and width of the network's input.
    pub size: (usize, usize),
    /// How pixels are made anew.
    #[serde(default)]
    pub resize: Filter,
    /// Where given, the shorter side is resized to this and the centre is cut out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_side: Option<usize>,
    /// Subtracted from the levels of red, green and blue.
    #[serde(default)]
    pub mean: [f32; 3],
    /// What the difference is divided by, for red, green and blue.
    #[serde(default = "ones")]
    pub std: [f32; 3],
    /// The order of channels in the input.
    #[serde(default)]
    pub channels: Channels,
}

fn ones() -> [f32; 3] {
    [1.0; 3]
}

impl Preprocessing {
    /// Where a model's metadata keeps its settings.
    pub const METADATA_KEY: &'static str = "planish.preprocessing";

    /// Settings that resize to `height` × `width` by bilinear interpolation and leave levels as they are.
    pub fn new(height: usize, width: usize) -> Preprocessing {
        Preprocessing {
            size: (height, width),
            resize: Filter::default(),
            short_side: None,
            mean: [0.0; 3],
            std: ones(),
            channels: Channels::default(),
        }
    }

    /// The settings that `graph` carries, if it carries any.
    pub fn of_graph(graph: &Graph) -> Result<Option<Preprocessing>> {
        let Some(text) = graph.metadata.get(Preprocessing::METADATA_KEY) else { return Ok(None) };
        Preprocessing::from_json(text)
            .map(Some)
            .context(|| format!("metadata {:?}", Preprocessing::METADATA_KEY))
    }

    /// Makes `graph` carry these settings.
    pub fn store(&self, graph: &mut Graph) -> Result<()> {
        graph.metadata.insert(Preprocessing::METADATA_KEY.to_string(), self.to_json()?);
        Ok(())
    }

    /// Reads settings from JSON and checks them.
    pub fn from_json(text: &str) -> Result<Preprocessing> {
        let settings: Preprocessing =
            serde_json::from_str(text).map_err(|e| Error::invalid(format!("preprocessing settings: {e}")))?;
        settings.check()?;
        Ok(settings)
    }

    /// These settings as JSON on one line.
    pub fn to_json(&self) -> Result<String> {
        self.check()?;
        serde_json::to_string(self).map_err(|e| Error::invalid(format!("preprocessing settings: {e}")))
    }

    /// An error where the settings do not make sense together.
    pub fn check(&self) -> Result<()> {
        let (height, width) = self.size;
        if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
            invalid!("preprocessing to {height}×{width}; each side must be from 1 to {MAX_SIDE}");
        }
        if let Some(side) = self.short_side
            && (side > MAX_SIDE || side < height.max(width))
        {
            invalid!(
                "preprocessing resizes the shorter side to {side} and then cuts out {height}×{width}; the side must be \
                 at least as large, and at most {MAX_SIDE}"
            );
        }
        if !self.mean.iter().chain(&self.std).all(|x| x.is_finite()) || self.std.contains(&0.0) {
            invalid!(
                "preprocessing with mean {:?} and std {:?}: finite numbers, std not 0",
                self.mean,
                self.std
            );
        }
        Ok(())
    }

    /// The picture at the network's size: resized, and cut out where the settings say so.
    pub fn fit(&self, picture: &Picture) -> Result<Picture> {
        self.check()?;
        let (height, width) = self.size;
        let Some(side) = self.short_side else { return resize(picture, width, height, self.resize) };
        let short = picture.width().min(picture.height());
        // The longer side is rounded down, as torchvision does; it may not blow a thin picture up without limit.
        let long_side = |extent: usize| match extent.checked_mul(side) {
            Some(product) if product / short <= 16 * MAX_SIDE => Ok(product / short),
            _ => Err(Error::limit(format!(
                "a picture of {}×{} is too thin",
                picture.width(),
                picture.height()
            ))),
        };
        let (w, h) = (long_side(picture.width())?, long_side(picture.height())?);
        let resized = resize(picture, w, h, self.resize)?;
        resized.crop(central(w, width), central(h, height), width, height)
    }

    /// One input tensor of shape [pictures, 3, height, width] from `pictures`.
    pub fn batch(&self, pictures: &[Picture]) -> Result<Tensor> {
        let (height, width) = self.size;
        let mut batch = Tensor::zeros(DType::F32, &[pictures.len(), 3, height, width])?;
        let values = batch.as_mut_slice::<f32>()?;
        for (index, (picture, target)) in
            pictures.iter().zip(values.chunks_exact_mut(3 * height * width)).enumerate()
        {
            self.write(picture, target).context(|| format!("picture {index} of the batch"))?;
        }
        Ok(batch)
    }

    /// Writes the input made from `picture` to `target`, which holds exactly one picture's 3 × height × width values.
    pub fn write(&self, picture: &Picture, target: &mut [f32]) -> Result<()> {
        let fitted = self.fit(picture)?;
        let plane = self.size.0 * self.size.1;
        if target.len() != 3 * plane {
            invalid!(
                "the input of one picture takes {} values, but there is room for {}",
                3 * plane,
                target.len()
            );
        }
        for (position, values) in target.chunks_exact_mut(plane).enumerate() {
            let channel = match self.channels {
                Channels::Rgb => position,
                Channels::Bgr => 2 - position,
            };
            let (mean, std) = (self.mean[channel], self.std[channel]);
            // There are only 256 levels: dividing for each once keeps the division exact and out of the loop.
            let table: Vec<f32> = (0..=255u8).map(|level| (f32::from(level) - mean) / std).collect();
            for (value, pixel) in values.iter_mut().zip(fitted.pixels().chunks_exact(3)) {
                *value = table[usize::from(pixel[channel])];
            }
        }
        Ok(())
    }
}

/// Where a central piece begins; halves round to even, as in torchvision.
fn central(whole: usize, piece: usize) -> usize {
    ((whole - piece) as f64 / 2.0).round_ties_even() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::npz;

    fn ramp(width: usize, height: usize) -> Picture {
        let pixels = (0..width * height * 3).map(|i| (i * 7 % 256) as u8).collect();
        Picture::new(width, height, pixels).unwrap()
    }

    #[test]
    fn levels_become_planes() {
        let mut settings = Preprocessing::new(1, 2);
        (settings.mean, settings.std) = ([1.0, 2.0, 3.0], [2.0, 4.0, 8.0]);
        let picture = Picture::new(2, 1, vec![11, 22, 33, 44, 55, 66]).unwrap();
        let batch = settings.batch(&[picture.clone(), picture.clone()]).unwrap();
        assert_eq!(batch.shape(), [2, 3, 1, 2]);
        assert_eq!(batch.as_slice::<f32>().unwrap()[6..], [5.0, 21.5, 5.0, 13.25, 3.75, 7.875]);
        settings.channels = Channels::Bgr;
        let batch = settings.batch(&[picture]).unwrap();
        assert_eq!(batch.as_slice::<f32>().unwrap(), [3.75, 7.875, 5.0, 13.25, 5.0, 21.5]);
    }

    #[test]
    fn short_side_keeps_proportions() {
        let mut settings = Preprocessing::new(8, 8);
        settings.short_side = Some(10);
        let picture = ramp(41, 20);
        let fitted = settings.fit(&picture).unwrap();
        let by_hand = resize(&picture, 20, 10, Filter::Bilinear).unwrap().crop(6, 1, 8, 8).unwrap();
        assert_eq!(fitted, by_hand);
        assert_eq!(settings.fit(&ramp(3, 90)).unwrap().height(), 8);
        assert!(settings.fit(&ramp(1, 60000)).is_err(), "too thin");
        assert_eq!((central(11, 8), central(13, 8)), (2, 2));
    }

    /// The members hold what torchvision's Resize, CenterCrop, ToTensor and Normalize make of `a`.
    #[test]
    fn the_usual_recipe_gives_what_torchvision_gives() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/resized.npz");
        let members = npz::read(&path, 1 << 24).unwrap();
        let get = |name: &str| &members.iter().find(|(n, _)| n == name).unwrap().1;
        let a = get("a");
        let picture = Picture::new(a.shape()[1], a.shape()[0], a.bytes().to_vec()).unwrap();
        let mut settings = Preprocessing::new(20, 20);
        settings.short_side = Some(24);
        settings.mean = [123.675, 116.28, 103.53];
        settings.std = [58.395, 57.12, 57.375];
        let wanted = get("torchvision").as_slice::<f32>().unwrap();
        let batch = settings.batch(&[picture]).unwrap();
        let difference = batch.as_slice::<f32>().unwrap().iter().zip(wanted).map(|(a, b)| (a - b).abs());
        assert!(difference.fold(0.0, f32::max) < 1e-5);
    }

    #[test]
    fn settings_travel_with_the_graph() {
        let mut settings = Preprocessing::new(224, 192);
        settings.short_side = Some(256);
        settings.resize = Filter::Bicubic;
        settings.channels = Channels::Bgr;
        settings.mean = [123.675, 116.28, 103.53];
        let mut graph = Graph::default();
        assert_eq!(Preprocessing::of_graph(&graph).unwrap(), None);
        settings.store(&mut graph).unwrap();
        assert_eq!(Preprocessing::of_graph(&graph).unwrap(), Some(settings));
        assert_eq!(Preprocessing::from_json(r#"{"size": [4, 5]}"#).unwrap(), Preprocessing::new(4, 5));
    }

    #[test]
    fn senseless_settings_are_errors() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"size": [0, 5]}"#,
            r#"{"size": [4]}"#,
            r#"{"size": [4, 99999999999]}"#,
            r#"{"size": [4, 5], "std": [1, 0, 1]}"#,
            r#"{"size": [4, 5], "mean": [1, 1e99, 1]}"#,
            r#"{"size": [4, 5], "short_side": 4}"#,
            r#"{"size": [4, 5], "resise": "box"}"#,
            r#"{"size": [4, 5], "resize": "cubic"}"#,
        ] {
            assert!(Preprocessing::from_json(bad).is_err(), "{bad}");
        }
        let mut graph = Graph::default();
        graph.metadata.insert(Preprocessing::METADATA_KEY.into(), "{".into());
        let error = Preprocessing::of_graph(&graph).unwrap_err().to_string();
        assert!(error.contains("planish.preprocessing"), "{error}");
    }
}
