//! Files are written beside their place and renamed there, so that nobody ever sees half a file.
//!
//! Whoever is interrupted, fails, or runs out of disk leaves the old file as it was. What is no regular file
//! (`/dev/stdout`, a pipe) cannot be replaced by renaming and is written in place.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes the file at `path` hold what `fill` writes: all of it, or nothing of it where `fill` or the disk fails.
pub fn replace(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    Replacement::write(path, fill)?.commit()
}

/// A file that is written and waits beside the one it will replace. Dropped without [`commit`](Self::commit) it is
/// removed, so files that belong together can all be complete before the first takes its place.
#[must_use = "nothing is replaced before `commit`"]
#[derive(Debug)]
pub struct Replacement {
    target: PathBuf,
    /// `None` where the target was written in place, or is replaced by now.
    beside: Option<PathBuf>,
}

impl Replacement {
    /// Writes what `fill` writes, to the disk, beside `path`. A link to a file is not followed but replaced itself:
    /// what it points to may be anybody's.
    pub fn write(
        path: &Path,
        fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<Replacement> {
        let target = path.to_path_buf();
        if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
            let mut writer = BufWriter::new(OpenOptions::new().write(true).open(path)?);
            fill(&mut writer)?;
            writer.flush()?;
            return Ok(Replacement { target, beside: None });
        }
        let (beside, file) = create_beside(&target)?;
        // From here on a failure drops the replacement, which removes the file.
        let replacement = Replacement { target, beside: Some(beside) };
        let mut writer = BufWriter::with_capacity(1 << 16, file);
        fill(&mut writer)?;
        writer.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        Ok(replacement)
    }

    /// Puts the file in its place.
    pub fn commit(mut self) -> io::Result<()> {
        if let Some(beside) = &self.beside {
            std::fs::rename(beside, &self.target)?;
            self.beside = None;
        }
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // Some other failure led here, and that one is reported.
            let _ = std::fs::remove_file(beside);
        }
    }
}

/// A new, empty, hidden file in the folder of `target`.
fn create_beside(target: &Path) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Some(name) = target.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"));
    };
    loop {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.partial", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let beside = target.with_file_name(hidden);
        // A new file only: what lies there under that name, a link above all, is not ours to write to.
        match OpenOptions::new().write(true).create_new(true).open(&beside) {
            Ok(file) => return Ok((beside, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let folder = std::env::temp_dir().join(format!("planish-files-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Scratch(folder)
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(&self.0).unwrap();
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn write(path: &Path, content: &[u8]) -> io::Result<()> {
        replace(path, |w| w.write_all(content))
    }

    #[test]
    fn replaces_the_whole_file() {
        let scratch = Scratch::new("whole");
        let path = scratch.0.join("a.txt");
        write(&path, b"first, longer").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(scratch.names(), ["a.txt"]);
    }

    #[test]
    fn keeps_the_old_file_until_all_is_written() {
        let scratch = Scratch::new("old");
        let path = scratch.0.join("a.txt");
        write(&path, b"old").unwrap();
        let failed = replace(&path, |w| {
            w.write_all(b"half")?;
            Err(io::Error::other("changed its mind"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(scratch.names(), ["a.txt"]);
        let waiting = Replacement::write(&path, |w| w.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(waiting);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(scratch.names(), ["a.txt"]);
        assert!(write(&scratch.0.join("no/such/folder"), b"x").is_err());
        assert!(write(Path::new("/"), b"x").is_err());
        assert!(write(&scratch.0, b"x").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn replaces_links_and_writes_to_devices() {
        let scratch = Scratch::new("links");
        let (real, link) = (scratch.0.join("real"), scratch.0.join("link"));
        write(&real, b"old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&real).unwrap(), b"old");
        assert_eq!(std::fs::read(&link).unwrap(), b"new");
        write(Path::new("/dev/null"), b"gone").unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}
