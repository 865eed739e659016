//! Which pictures a command looks at: a folder, a folder with a table of classes, or CIFAR-10's binary layout.
//!
//! Where some pictures calibrate and others judge, they are put in an order that only a seed decides: the first so many
//! calibrate, later ones judge, and no picture ever does both.

use super::pictures::decode_one;
use clap::Args;
use planish::files::cifar10::Cifar10;
use planish::files::labels::{ClassNames, Listing};
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

/// How many pictures that cannot be read are named; the others are counted.
const NAMED: usize = 5;

/// Flags that say which pictures, and what they show.
#[derive(Args, Clone, Debug, Default)]
pub struct SourceArguments {
    /// Folder of pictures: PNG, JPEG, BMP, WebP
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Table of file and class, separated by a tab, one picture a line: these pictures of the folder are taken
    #[arg(long, value_name = "TSV", requires = "images")]
    pub labels: Option<PathBuf>,
    /// Labelled CIFAR-10 pictures in the official binary layout, instead of --images
    #[arg(long, value_name = "FILE.bin", conflicts_with_all = ["images", "labels"])]
    pub cifar10: Option<PathBuf>,
    /// Class names, one a line, where the table names classes by text
    #[arg(long, value_name = "FILE", requires = "labels")]
    pub classes: Option<PathBuf>,
    /// The model's class for label 0 [default: 1 for models of 1001 classes, whose class 0 is the background; else 0]
    #[arg(long, value_name = "N")]
    pub class_offset: Option<usize>,
}

impl SourceArguments {
    /// Whether any pictures were given.
    pub fn given(&self) -> bool {
        self.images.is_some() || self.cifar10.is_some()
    }
    /// The pictures. An error where there are none.
    pub fn open(&self) -> Result<Source> {
        match (&self.images, &self.labels, &self.cifar10) {
            (None, _, Some(file)) => Ok(Source::Cifar10(Cifar10::read(file)?)),
            (Some(folder), Some(labels), None) => {
                let names = self.classes.as_deref().map(ClassNames::read).transpose()?;
                Ok(Source::Listed(folder.clone(), Listing::read(labels, names.as_ref())?))
            }
            (Some(folder), None, None) => pictures_in(folder).map(Source::Files),
            _ => invalid!("give --images DIR, with --labels TSV or without, or --cifar10 FILE.bin"),
        }
    }
}

/// Pictures, one after the other.
pub enum Source {
    /// Files without labels.
    Files(Vec<PathBuf>),
    /// Files of a folder, with labels.
    Listed(PathBuf, Listing),
    /// CIFAR-10's binary layout, with labels.
    Cifar10(Cifar10),
}

/// Pictures as a network takes them.
pub struct Prepared {
    /// In batches of one size.
    pub batches: Vec<Tensor>,
    /// What they show, where that is known.
    pub labels: Vec<Option<usize>>,
    /// Pictures that could not be read.
    pub skipped: usize,
    /// How many places of the order were looked at.
    pub places: usize,
}

impl Prepared {
    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }
}

/// Tells of pictures that could not be read, the first by name.
#[derive(Debug, Default)]
pub struct Skipped(pub usize);

impl Skipped {
    /// One more.
    pub fn add(&mut self, error: &Error, progress: &Progress) {
        self.0 += 1;
        if self.0 <= NAMED {
            progress.note(&format!("left out: {error}"));
        }
    }
    /// Tells how many were not named.
    pub fn end(&self, progress: &Progress) {
        if self.0 > NAMED {
            progress.note(&format!("left out: {} more pictures that could not be read", self.0 - NAMED));
        }
    }
}

impl Source {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Source::Files(files) => files.len(),
            Source::Listed(_, listing) => listing.pictures.len(),
            Source::Cifar10(data) => data.len(),
        }
    }
    /// Whether it is known what they show.
    pub fn is_labelled(&self) -> bool {
        !matches!(self, Source::Files(_))
    }
    /// The class, where known, and the content of one.
    pub fn get(&self, index: usize) -> Result<(Option<usize>, Picture)> {
        match self {
            Source::Files(files) => Ok((None, decode_one(&files[index])?)),
            Source::Listed(folder, listing) => {
                let entry = &listing.pictures[index];
                Ok((Some(entry.class), decode_one(&folder.join(&entry.file))?))
            }
            Source::Cifar10(data) => {
                let gone = || Error::invalid(format!("there is no picture {index}"));
                let (class, _) = data.get(index).ok_or_else(gone)?;
                Ok((Some(class), data.picture(index).ok_or_else(gone)?))
            }
        }
    }
    /// All places in the order of `seed`.
    pub fn order(&self, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        Random::new(seed).shuffle(&mut order);
        order
    }
    /// The first `count` pictures of `order` that can be read, in batches of `batch`, told of as `what`. The last batch is
    /// filled up with the first pictures again; those have no label. An error where none can be read, or the batches take
    /// more than `max_memory` bytes.
    pub fn prepare(
        &self,
        what: &str,
        order: &[usize],
        count: usize,
        batch: usize,
        settings: &Preprocessing,
        max_memory: usize,
    ) -> Result<Prepared> {
        let progress = Progress::new(what, count.min(order.len()) as u64);
        let budget = Budget::new(max_memory);
        let mut found = Prepared { batches: Vec::new(), labels: Vec::new(), skipped: 0, places: 0 };
        let mut skipped = Skipped::default();
        let mut waiting: Vec<Picture> = Vec::with_capacity(batch);
        let mut first: Vec<Picture> = Vec::with_capacity(batch);
        for &index in order {
            if found.len() == count {
                break;
            }
            found.places += 1;
            match self.get(index) {
                Ok((label, picture)) => {
                    found.labels.push(label);
                    if first.len() < batch {
                        first.push(picture.clone());
                    }
                    waiting.push(picture);
                }
                Err(error) => skipped.add(&error, &progress),
            }
            if waiting.len() == batch {
                found.batches.push(prepared(&budget, settings, &waiting)?);
                waiting.clear();
            }
            progress.advance(1);
        }
        skipped.end(&progress);
        found.skipped = skipped.0;
        if found.labels.is_empty() {
            return Err(none_of(found.places));
        }
        if !waiting.is_empty() {
            let mut again = first.iter().cycle();
            while waiting.len() < batch {
                waiting.extend(again.next().cloned());
            }
            found.batches.push(prepared(&budget, settings, &waiting)?);
        }
        Ok(found)
    }
}

/// That none of so many pictures could be read.
pub fn none_of(pictures: usize) -> Error {
    Error::invalid(format!("none of {pictures} pictures could be read: give others with --images"))
}

fn prepared(budget: &Arc<Budget>, settings: &Preprocessing, pictures: &[Picture]) -> Result<Tensor> {
    with_budget(budget, || settings.batch(pictures))
        .context(|| "pictures, all in memory: ask for fewer of them")
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
