//! Which pictures calibrate and which judge: read from a folder, a labelled folder, or CIFAR-10's binary layout.
//!
//! Pictures are put in an order that only the seed decides; the first so many calibrate. With labels, all others judge, and
//! no picture ever does both.

use super::super::eval::Pictures as Labelled;
use super::super::pictures::decode_one;
use planish::files::cifar10::Cifar10;
use planish::files::labels::Listing;
use planish::images::{Picture, Preprocessing};
use planish::report::progress::Progress;
use planish_compress::random::Random;
use planish_graph::error::Context;
use planish_graph::limits::{Budget, with_budget};
use planish_graph::{Error, Result, Tensor, invalid};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What pictures' names end in.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "bmp", "webp"];

/// Calibration pictures as the network takes them.
pub struct Calibration {
    /// In batches of one size.
    pub batches: Vec<Tensor>,
    /// Pictures in them.
    pub pictures: usize,
    /// Pictures that could not be read.
    pub skipped: usize,
}

/// Pictures on disk.
pub enum Source {
    /// Without labels.
    Files(Vec<PathBuf>),
    /// With labels.
    Labelled(Labelled),
}

impl Source {
    /// The pictures in `folder` (`labels` says which and of what class) or in a CIFAR-10 file. An error where there are none.
    pub fn open(folder: Option<&Path>, labels: Option<&Path>, cifar10: Option<&Path>) -> Result<Source> {
        match (folder, labels, cifar10) {
            (None, _, Some(file)) => Ok(Source::Labelled(Labelled::Cifar10(Cifar10::read(file)?))),
            (Some(folder), Some(labels), None) => {
                Ok(Source::Labelled(Labelled::Files(folder.to_path_buf(), Listing::read(labels, None)?)))
            }
            (Some(folder), None, None) => pictures_in(folder).map(Source::Files),
            _ => invalid!("give --images DIR, with --labels TSV or without, or --cifar10 FILE.bin"),
        }
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Source::Files(files) => files.len(),
            Source::Labelled(pictures) => pictures.len(),
        }
    }
    fn get(&self, index: usize) -> Result<Picture> {
        match self {
            Source::Files(files) => decode_one(&files[index]),
            Source::Labelled(pictures) => pictures.get(index).map(|(_, picture)| picture),
        }
    }
    /// All pictures in the order of `seed`.
    pub fn order(&self, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        Random::new(seed).shuffle(&mut order);
        order
    }
    /// The first `count` pictures of `order` that can be read, in batches of `batch`, and how many places of `order` that
    /// took. Those that are left over from a whole batch are joined by the first ones again. An error where none can be
    /// read, or the batches take more than `max_memory`.
    pub fn calibration(
        &self,
        order: &[usize],
        count: usize,
        batch: usize,
        settings: &Preprocessing,
        max_memory: usize,
    ) -> Result<(Calibration, usize)> {
        let progress = Progress::new("reading pictures", count.min(order.len()) as u64);
        let budget = Budget::new(max_memory);
        let mut found = Calibration { batches: Vec::new(), pictures: 0, skipped: 0 };
        let mut waiting: Vec<Picture> = Vec::with_capacity(batch);
        let mut first: Vec<Picture> = Vec::with_capacity(batch);
        let mut places = 0;
        for &index in order {
            if found.pictures == count {
                break;
            }
            places += 1;
            match self.get(index) {
                Ok(picture) => {
                    found.pictures += 1;
                    if first.len() < batch {
                        first.push(picture.clone());
                    }
                    waiting.push(picture);
                }
                Err(error) => {
                    found.skipped += 1;
                    progress.note(&format!("left out: {error}"));
                }
            }
            if waiting.len() == batch {
                found.batches.push(prepared(&budget, settings, &waiting)?);
                waiting.clear();
            }
            progress.advance(1);
        }
        if found.pictures == 0 {
            return Err(Error::invalid(format!(
                "none of {places} pictures could be read: give others with --images"
            )));
        }
        if !waiting.is_empty() {
            let mut again = first.iter().cycle();
            while waiting.len() < batch {
                waiting.extend(again.next().cloned());
            }
            found.batches.push(prepared(&budget, settings, &waiting)?);
        }
        Ok((found, places))
    }
    /// The labelled pictures at these places, where there are labels.
    pub fn judges(&self, places: &[usize]) -> Option<Labelled> {
        match self {
            Source::Files(_) => None,
            Source::Labelled(pictures) => {
                Some(Labelled::Chosen(Box::new(pictures.clone()), Arc::from(places)))
            }
        }
    }
}

fn prepared(budget: &Arc<Budget>, settings: &Preprocessing, pictures: &[Picture]) -> Result<Tensor> {
    with_budget(budget, || settings.batch(pictures))
        .context(|| "calibration pictures, all in memory: --count takes fewer")
}

/// The pictures in `folder`, not those in folders inside it, in the order of their names.
fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e: std::io::Error| Error::io(folder, &e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        if ENDINGS.contains(&ending.as_str()) {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Error::invalid(format!(
            "no picture in the folder (looked for names that end in {})",
            ENDINGS.join(", ")
        ))
        .at(folder.display().to_string()));
    }
    found.sort();
    Ok(found)
}
