//! Writing a file beside its place and renaming it there, so that nobody ever sees half a file.
//!
//! A command that is interrupted, fails, or runs out of disk leaves the old file as it was. What is not a regular file
//! (`/dev/stdout`, a pipe) cannot be replaced by renaming and is written in place.

use planish_graph::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes the file at `path` hold what `fill` writes: all of it, or nothing of it where `fill` or the disk fails.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        let file = OpenOptions::new().write(true).open(path).map_err(|e| Error::io(path, &e))?;
        let mut writer = BufWriter::new(file);
        fill(&mut writer)?;
        return writer.flush().map_err(|e| Error::io(path, &e));
    }
    let (beside, file) = create_beside(path)?;
    // A link is written through: renaming over it would cut what it points to off.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    fill_and_sync(file, path, fill)?;
    std::fs::rename(&beside.0, &target).map_err(|e| Error::io(path, &e))
}

/// Makes the file at `path` hold `content`; see [`write()`].
pub fn write_bytes(path: &Path, content: &[u8]) -> Result<()> {
    write(path, |writer| writer.write_all(content).map_err(|e| Error::io(path, &e)))
}

fn fill_and_sync(file: File, path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    fill(&mut writer)?;
    let file = writer.into_inner().map_err(|e| Error::io(path, e.error()))?;
    file.sync_all().map_err(|e| Error::io(path, &e))
}

/// A file that is removed when this is dropped, unless it has been renamed by then.
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; after a failed write, that failure is what gets reported.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A new, empty file in the folder where `path` really lies.
fn create_beside(path: &Path) -> Result<(Beside, File)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let Some(name) = real.file_name() else {
        return Err(Error::invalid("not the name of a file").at(path.display().to_string()));
    };
    loop {
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}-{}.partial", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let beside = real.with_file_name(beside);
        match OpenOptions::new().write(true).create_new(true).open(&beside) {
            Ok(file) => return Ok((Beside(beside), file)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(Error::io(path, &e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::scratch::Scratch;

    fn names(scratch: &Scratch) -> Vec<String> {
        let entries = std::fs::read_dir(scratch.folder()).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replaces_the_whole_file() {
        let scratch = Scratch::new();
        let path = scratch.path("a.txt");
        write_bytes(&path, b"first, longer").unwrap();
        write_bytes(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(names(&scratch), ["a.txt"]);
    }

    #[test]
    fn keeps_the_old_file_on_failure() {
        let scratch = Scratch::new();
        let path = scratch.path("a.txt");
        write_bytes(&path, b"old").unwrap();
        let failed = write(&path, |w| {
            w.write_all(b"half").unwrap();
            Err(Error::invalid("changed its mind"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(&scratch), ["a.txt"]);
        assert!(write_bytes(&scratch.path("no/such/folder"), b"x").is_err());
        assert!(write_bytes(Path::new("/"), b"x").is_err());
        assert!(write_bytes(scratch.folder(), b"x").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn writes_through_links_and_devices() {
        let scratch = Scratch::new();
        let (real, link) = (scratch.path("real"), scratch.path("link"));
        write_bytes(&real, b"old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_bytes(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&real).unwrap(), b"new");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        write_bytes(Path::new("/dev/null"), b"gone").unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}
