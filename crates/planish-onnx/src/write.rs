//! A graph into a file that every other ONNX tool reads.
//!
//! Files are written beside their final place and renamed, so that an interrupted command leaves the old file whole.
//! Weights go into a second file where the model would pass protobuf's limit of 2 GiB.

use crate::export::{self, WeightsFile};
use planish_graph::error::Context;
use planish_graph::{Error, Graph, Result, invalid};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The largest model that protobuf can hold in one piece, with room for what readers add.
const LARGEST_MESSAGE: usize = i32::MAX as usize - (1 << 20);

/// How a graph is written.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Whether weights go into a file beside the model; `None` does so where the model would otherwise be too large.
    pub external_data: Option<bool>,
    /// Constants below this many bytes stay in the model even then.
    pub smallest_external: usize,
    /// Whether planish's own fused operators are written as the standard operators they stand for, so that every tool
    /// reads the file. Otherwise they are kept, and only planish does.
    pub portable: bool,
}

impl Default for WriteOptions {
    /// Portable, in one file if that is possible.
    fn default() -> WriteOptions {
        WriteOptions { external_data: None, smallest_external: 1024, portable: true }
    }
}

/// The ONNX model of `graph` as bytes.
pub fn write(graph: &Graph, options: &WriteOptions) -> Result<Vec<u8>> {
    if options.external_data == Some(true) {
        invalid!("a model with its weights in another file must be saved to a file");
    }
    let message = export::model(graph, options, None)?;
    if message.len() > LARGEST_MESSAGE {
        return Err(Error::limit("the model passes 2 GiB: save it to a file, with external data"));
    }
    Ok(message.to_bytes())
}

/// Writes `graph` to the ONNX file at `path`, and its weights to `path` + ".data" where `options` ask for it or must.
pub fn save(graph: &Graph, path: &Path, options: &WriteOptions) -> Result<()> {
    save_parts(graph, path, options).context(|| path.display().to_string())
}

fn save_parts(graph: &Graph, path: &Path, options: &WriteOptions) -> Result<()> {
    if options.external_data != Some(true) {
        let message = export::model(graph, options, None)?;
        if message.len() <= LARGEST_MESSAGE {
            return replace_file(path, |out| message.write_to(out));
        }
        if options.external_data == Some(false) {
            return Err(Error::limit("the model passes 2 GiB and needs external data"));
        }
    }
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        invalid!("the path does not end in a file name that can stand in the model");
    };
    let mut weights = WeightsFile::new(&format!("{name}.data"), options.smallest_external);
    let message = export::model(graph, options, Some(&mut weights))?;
    if message.len() > LARGEST_MESSAGE {
        return Err(Error::limit("the model passes 2 GiB even without its weights"));
    }
    // Both are complete before either takes its place.
    let mut beside = Beside::new(&path.with_file_name(weights.name()))?;
    beside.fill(|out| weights.write_to(out))?;
    let mut model = Beside::new(path)?;
    model.fill(|out| message.write_to(out))?;
    beside.replace()?;
    model.replace()
}

/// Writes a file beside `path`, then puts it in its place.
pub(crate) fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let mut beside = Beside::new(path)?;
    beside.fill(write)?;
    beside.replace()
}

/// A file that is being written beside the one it will replace; removed if it never does.
struct Beside {
    target: PathBuf,
    temporary: PathBuf,
    out: Option<BufWriter<File>>,
    replaced: bool,
}

impl Beside {
    fn new(target: &Path) -> Result<Beside> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let Some(name) = target.file_name() else {
            invalid!("{} does not name a file", target.display());
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let temporary = target.with_file_name(hidden);
        // A new file only: what lies there under that name, a link above all, is not ours to write to.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(|e| Error::io(&temporary, &e))?;
        let out = Some(BufWriter::with_capacity(1 << 16, file));
        Ok(Beside { target: target.to_path_buf(), temporary, out, replaced: false })
    }
    fn fill(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
        let Some(mut out) = self.out.take() else {
            invalid!("{} is filled already", self.temporary.display());
        };
        write(&mut out).and_then(|()| out.flush()).map_err(|e| Error::io(&self.temporary, &e))
    }
    fn replace(&mut self) -> Result<()> {
        std::fs::rename(&self.temporary, &self.target).map_err(|e| Error::io(&self.target, &e))?;
        self.replaced = true;
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.replaced {
            drop(self.out.take());
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
