//! Files that are not models: tensors, label lists, data sets; and how files are read and written safely.
//!
//! Everything here may come from a stranger. Sizes are checked before memory is taken, nothing panics on content, and
//! every error names the file. Writing goes through [`planish_files`], so an interrupted command leaves the old file whole.

pub mod cifar10;
pub mod labels;
pub mod npy;
pub mod npz;

use planish_graph::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The whole content of the file at `path`; an error where it is longer than `cap` bytes.
///
/// The cap also holds for what has no length of its own, such as a pipe.
pub fn read_bounded(path: &Path, cap: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let length = file.metadata().map_err(|e| Error::io(path, &e))?.len();
    let too_long =
        || Error::limit(format!("longer than the cap of {cap} bytes")).at(path.display().to_string());
    if length > cap {
        return Err(too_long());
    }
    let mut content = Vec::new();
    file.take(cap.saturating_add(1)).read_to_end(&mut content).map_err(|e| Error::io(path, &e))?;
    if content.len() as u64 > cap {
        return Err(too_long());
    }
    Ok(content)
}

#[cfg(test)]
pub(crate) mod scratch {
    //! A folder for one test, removed when dropped.

    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub(crate) struct Scratch(PathBuf);

    impl Scratch {
        pub(crate) fn new() -> Scratch {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("planish-test-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }
        pub(crate) fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
        pub(crate) fn folder(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_graph::ErrorKind;

    #[test]
    fn reads_up_to_the_cap() {
        let scratch = scratch::Scratch::new();
        let path = scratch.path("four");
        std::fs::write(&path, b"four").unwrap();
        assert_eq!(read_bounded(&path, 4).unwrap(), b"four");
        let error = read_bounded(&path, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.to_string().contains("four"), "{error}");
        assert_eq!(read_bounded(&scratch.path("absent"), 9).unwrap_err().kind(), ErrorKind::Io);
    }
}
