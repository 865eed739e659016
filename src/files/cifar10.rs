//! CIFAR-10 in its official binary layout: one label byte and 3072 planar RGB bytes a picture.

use super::read_bounded;
use crate::images::Picture;
use planish_graph::error::Context;
use planish_graph::{Error, Result};
use std::path::Path;

/// The names of the ten classes, in order.
pub const CLASS_NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The height and width of a picture.
pub const SIDE: usize = 32;

const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PLANE;
/// The longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Which part of the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The 50,000 pictures to learn from: `data_batch_1.bin` to `data_batch_5.bin`.
    Train,
    /// The 10,000 pictures to measure with: `test_batch.bin`.
    Test,
}

/// Labelled 32×32 pictures.
#[derive(Clone, Debug, Default)]
pub struct Cifar10 {
    records: Vec<u8>,
}

impl Cifar10 {
    /// Reads a part of the data set from the folder that holds its binary files.
    pub fn open(folder: &Path, split: Split) -> Result<Cifar10> {
        let names: &[&str] = match split {
            Split::Train => &[
                "data_batch_1.bin",
                "data_batch_2.bin",
                "data_batch_3.bin",
                "data_batch_4.bin",
                "data_batch_5.bin",
            ],
            Split::Test => &["test_batch.bin"],
        };
        let mut all = Cifar10::default();
        for name in names {
            all.records.append(&mut Cifar10::read(&folder.join(name))?.records);
        }
        Ok(all)
    }
    /// Reads one binary file.
    pub fn read(path: &Path) -> Result<Cifar10> {
        Cifar10::from_bytes(read_bounded(path, MAX_FILE_BYTES)?).context(|| path.display().to_string())
    }
    /// The pictures in the bytes of a binary file.
    pub fn from_bytes(records: Vec<u8>) -> Result<Cifar10> {
        let fail = |message: String| Err(Error::invalid(message));
        if records.is_empty() || !records.len().is_multiple_of(RECORD) {
            return fail(format!("{} bytes are no whole number of records of {RECORD} bytes", records.len()));
        }
        if let Some(bad) = records.chunks_exact(RECORD).position(|r| usize::from(r[0]) >= CLASS_NAMES.len()) {
            return fail(format!("picture {bad} has a label that is not one of the ten classes"));
        }
        Ok(Cifar10 { records })
    }
    /// The number of pictures.
    pub fn len(&self) -> usize {
        self.records.len() / RECORD
    }
    /// Whether there are no pictures.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
    /// The class and the planar RGB bytes of picture `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<(usize, &[u8])> {
        let (label, pixels) = self.records.chunks_exact(RECORD).nth(index)?.split_first()?;
        Some((usize::from(*label), pixels))
    }
    /// Picture `index` in the form that preprocessing takes, if there is one.
    pub fn picture(&self, index: usize) -> Option<Picture> {
        let (_, planes) = self.get(index)?;
        let pixels = (0..PLANE).flat_map(|i| [planes[i], planes[PLANE + i], planes[2 * PLANE + i]]).collect();
        Picture::new(SIDE, SIDE, pixels).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::scratch::Scratch;

    #[test]
    fn records_become_pictures() {
        let scratch = Scratch::new();
        let mut bytes = vec![0u8; 2 * RECORD];
        bytes[RECORD] = 9;
        for (value, plane) in [(10u8, 0), (20, 1), (30, 2)] {
            bytes[RECORD + 1 + plane * PLANE + 33] = value;
        }
        for name in ["test_batch.bin", "data_batch_1.bin"] {
            std::fs::write(scratch.path(name), &bytes).unwrap();
        }
        let data = Cifar10::open(scratch.folder(), Split::Test).unwrap();
        assert_eq!((data.len(), data.get(1).unwrap().0, data.get(2)), (2, 9, None));
        assert_eq!(data.picture(1).unwrap().pixels()[33 * 3..34 * 3], [10, 20, 30]);
        assert!(Cifar10::open(scratch.folder(), Split::Train).is_err(), "four files are missing");
    }

    #[test]
    fn refuses_odd_lengths_and_labels() {
        let scratch = Scratch::new();
        let path = scratch.path("x.bin");
        for (bytes, wanted) in [
            (vec![], "whole number"),
            (vec![0u8; RECORD - 1], "whole number"),
            (vec![10u8; RECORD], "ten classes"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Cifar10::read(&path).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("x.bin"), "{error}");
        }
    }
}
