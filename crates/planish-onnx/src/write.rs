//! A graph into a file that every other ONNX tool reads.
//!
//! Files are written beside their final place and renamed, so that an interrupted command leaves the old file whole.
//! Weights go into a second file where the model would pass protobuf's limit of 2 GiB.

use crate::export::{self, WeightsFile};
use planish_files::{Replacement, replace};
use planish_graph::error::Context;
use planish_graph::{Error, Graph, Result, invalid};
use std::path::Path;

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
            return replace(path, |out| message.write_to(out)).map_err(|e| Error::io(path, &e));
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
    let beside = path.with_file_name(weights.name());
    let written = Replacement::write(&beside, |out| weights.write_to(out));
    let written = written.map_err(|e| Error::io(&beside, &e))?;
    let model = Replacement::write(path, |out| message.write_to(out)).map_err(|e| Error::io(path, &e))?;
    written.commit().map_err(|e| Error::io(&beside, &e))?;
    model.commit().map_err(|e| Error::io(path, &e))
}
