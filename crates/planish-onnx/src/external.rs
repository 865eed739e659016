//! Weights that lie in files beside the model.
//!
//! The model names those files, and the model is hostile until shown otherwise: a name must stay inside the model's
//! folder, and must lead to a plain file there, not through a link to somewhere else (CVE-2022-25882, CVE-2024-27318,
//! CVE-2026-27489). Extents are checked against the file's length before anything is allocated (CVE-2026-34445).

use crate::proto::Entry;
use planish_graph::error::Context;
use planish_graph::limits::room;
use planish_graph::{DType, Error, Result, Tensor, invalid};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// The files beside one model, opened as tensors ask for them.
#[derive(Debug)]
pub(crate) struct ExternalFiles {
    folder: Option<PathBuf>,
    open: HashMap<String, (File, u64)>,
    bytes_left: u64,
}

/// Where a tensor's bytes lie.
#[derive(Debug, Default, PartialEq)]
struct Place<'a> {
    location: &'a str,
    offset: u64,
    length: Option<u64>,
}

impl ExternalFiles {
    /// Files in `folder` (none: the model did not come from a file), of which `most_bytes` may be read.
    pub(crate) fn new(folder: Option<&Path>, most_bytes: u64) -> ExternalFiles {
        ExternalFiles { folder: folder.map(Path::to_path_buf), open: HashMap::new(), bytes_left: most_bytes }
    }

    /// The tensor of `dtype` and `shape` that `entries` (`external_data`) describe.
    pub(crate) fn tensor(&mut self, entries: &[Entry<'_>], dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let place = Place::parse(entries)?;
        self.read(&place, dtype, shape).context(|| format!("external data \"{}\"", place.location))
    }

    fn read(&mut self, place: &Place<'_>, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let wanted = dtype.packed_len(shape)? as u64;
        if place.length.is_some_and(|given| given != wanted) {
            invalid!("length is {:?}, where {dtype} {shape:?} takes {wanted} bytes", place.length);
        }
        let Some(folder) = &self.folder else {
            invalid!("the model was not read from a file, so there is no folder to look in");
        };
        if !self.open.contains_key(place.location) {
            let file = open_beside(folder, place.location)?;
            self.open.insert(place.location.to_string(), file);
        }
        let Some((file, size)) = self.open.get_mut(place.location) else {
            invalid!("the file is not open");
        };
        if place.offset.checked_add(wanted).is_none_or(|end| end > *size) {
            invalid!("offset {} and length {wanted} pass the file's end at {size}", place.offset);
        }
        self.bytes_left = self
            .bytes_left
            .checked_sub(wanted)
            .ok_or_else(|| Error::limit("the model and its external data pass max_bytes"))?;
        let failed = |error: std::io::Error| Error::io(Path::new(place.location), &error);
        file.seek(SeekFrom::Start(place.offset)).map_err(failed)?;
        if dtype.bits() < 8 {
            let mut packed = room(&[wanted as usize])?;
            file.take(wanted).read_to_end(&mut packed).map_err(failed)?;
            return Tensor::from_packed(dtype, shape, &packed);
        }
        let mut tensor = Tensor::zeros(dtype, shape)?;
        let target = tensor.bytes_mut();
        file.read_exact(target).map_err(failed)?;
        if dtype == DType::Bool {
            target.iter_mut().for_each(|b| *b = (*b != 0) as u8);
        }
        Ok(tensor)
    }
}

impl<'a> Place<'a> {
    fn parse(entries: &[Entry<'a>]) -> Result<Place<'a>> {
        let mut place = Place::default();
        let number = |key: &str, text: &str| {
            text.parse::<u64>()
                .map_err(|_| Error::invalid(format!("external data: {key} \"{text}\" is not a byte count")))
        };
        for &(key, text) in entries {
            match key {
                "location" => place.location = text,
                "offset" => place.offset = number(key, text)?,
                "length" => place.length = Some(number(key, text)?),
                _ => {} // "checksum", and what later versions add: of no use here
            }
        }
        if place.location.is_empty() {
            invalid!("external data without a location");
        }
        Ok(place)
    }
}

/// Opens `location` below `folder`, following no link.
fn open_beside(folder: &Path, location: &str) -> Result<(File, u64)> {
    // Windows would read these as a drive, a stream or a separator; no model needs them.
    if location.contains(['\\', ':', '\0']) {
        invalid!("the location must not contain '\\', ':' or a zero byte");
    }
    let mut path = folder.to_path_buf();
    let mut seen = None;
    for component in Path::new(location).components() {
        match component {
            Component::CurDir => continue,
            Component::Normal(name) => path.push(name),
            _ => invalid!("the location must be a relative path without \"..\" inside the model's folder"),
        }
        let metadata = std::fs::symlink_metadata(&path).map_err(|e| Error::io(&path, &e))?;
        if metadata.is_symlink() {
            invalid!("{} is a symbolic link, which could lead out of the model's folder", path.display());
        }
        seen = Some(metadata);
    }
    let Some(seen) = seen.filter(Metadata::is_file) else {
        invalid!("{} is not a regular file", path.display());
    };
    let file = File::open(&path).map_err(|e| Error::io(&path, &e))?;
    let opened = file.metadata().map_err(|e| Error::io(&path, &e))?;
    check_same(&seen, &opened).context(|| path.display().to_string())?;
    Ok((file, opened.len()))
}

/// Whether the file that was looked at is the one that was opened, and has no second name elsewhere.
#[cfg(unix)]
fn check_same(seen: &Metadata, opened: &Metadata) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    if (seen.dev(), seen.ino()) != (opened.dev(), opened.ino()) {
        invalid!("the file was replaced while it was being opened");
    }
    if opened.nlink() > 1 {
        invalid!("the file has {} names (hard links), so it may belong to someone else", opened.nlink());
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_same(_seen: &Metadata, opened: &Metadata) -> Result<()> {
    if !opened.is_file() {
        invalid!("the file was replaced while it was being opened");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::folder::TestFolder;

    fn read(folder: &Path, entries: &[Entry<'_>]) -> Result<Tensor> {
        ExternalFiles::new(Some(folder), 1 << 20).tensor(entries, DType::F32, &[2])
    }

    fn weights(folder: &Path) {
        let bytes: Vec<u8> = [1f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(folder.join("w.bin"), bytes).unwrap();
    }

    #[test]
    fn reads_inside_the_folder() {
        let folder = TestFolder::new();
        weights(folder.path());
        let entries = [("location", "w.bin"), ("offset", "4"), ("length", "8"), ("checksum", "none")];
        assert_eq!(read(folder.path(), &entries).unwrap(), Tensor::new(&[2], &[2f32, 3.0]).unwrap());
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::rename(folder.path().join("w.bin"), folder.path().join("sub/w.bin")).unwrap();
        for location in ["sub/w.bin", "./sub/w.bin"] {
            assert!(read(folder.path(), &[("location", location)]).is_ok(), "{location}");
        }
    }

    #[test]
    fn reads_elements_that_share_bytes() {
        let folder = TestFolder::new();
        std::fs::write(folder.path().join("w.bin"), [0x00, 0x8f, 0x07]).unwrap();
        let mut files = ExternalFiles::new(Some(folder.path()), 100);
        let entries = [("location", "w.bin"), ("offset", "1"), ("length", "2")];
        let read = files.tensor(&entries, DType::I4, &[3]).unwrap();
        assert_eq!(read.to_i64s().unwrap(), [-1, -8, 7]);
        assert!(files.tensor(&entries, DType::I4, &[2]).is_err());
        assert!(files.tensor(&[("location", "w.bin"), ("offset", "2")], DType::U2, &[5]).is_err());
    }

    #[test]
    fn checks_extents() {
        let folder = TestFolder::new();
        weights(folder.path());
        for (offset, length) in
            [("8", "8"), ("18446744073709551615", "8"), ("0", "4"), ("-4", "8"), ("x", "8"), ("0", "9e9")]
        {
            let entries = [("location", "w.bin"), ("offset", offset), ("length", length)];
            assert!(read(folder.path(), &entries).is_err(), "{offset} {length}");
        }
        assert!(read(folder.path(), &[("offset", "0")]).is_err());
        let mut small = ExternalFiles::new(Some(folder.path()), 15);
        assert!(small.tensor(&[("location", "w.bin")], DType::F32, &[2]).is_ok());
        assert!(small.tensor(&[("location", "w.bin")], DType::F32, &[2]).is_err(), "the cap is for all");
        let huge = small.tensor(&[("location", "w.bin")], DType::F32, &[usize::MAX, 2]);
        assert!(huge.is_err());
        let unnamed = ExternalFiles::new(None, 100).tensor(&[("location", "w.bin")], DType::F32, &[2]);
        assert!(unnamed.is_err());
    }

    #[test]
    fn stays_inside_the_folder() {
        let outer = TestFolder::new();
        weights(outer.path());
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        let absolute = outer.path().join("w.bin");
        for location in
            ["../w.bin", "a/../../w.bin", absolute.to_str().unwrap(), "", ".", "..", "a\\b", "no.bin"]
        {
            assert!(read(&folder, &[("location", location)]).is_err(), "{location}");
        }
        std::fs::create_dir(folder.join("d")).unwrap();
        assert!(read(&folder, &[("location", "d")]).is_err(), "a folder is no file");
    }

    #[cfg(unix)]
    #[test]
    fn follows_no_links() {
        let outer = TestFolder::new();
        weights(outer.path());
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(outer.path().join("w.bin"), folder.join("soft.bin")).unwrap();
        std::os::unix::fs::symlink(outer.path(), folder.join("up")).unwrap();
        for location in ["soft.bin", "up/w.bin"] {
            let error = read(&folder, &[("location", location)]).unwrap_err().to_string();
            assert!(error.contains("symbolic link"), "{error}");
        }
        std::fs::hard_link(outer.path().join("w.bin"), folder.join("hard.bin")).unwrap();
        let error = read(&folder, &[("location", "hard.bin")]).unwrap_err().to_string();
        assert!(error.contains("hard links"), "{error}");
    }
}
