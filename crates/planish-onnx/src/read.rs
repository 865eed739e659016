//! A file into a graph: the public face, and what holds for the model as a whole.

use crate::external::ExternalFiles;
use crate::import::Importer;
use crate::proto::{Decoder, ModelProto};
use crate::wire::Allowance;
use planish_graph::error::Context;
use planish_graph::limits::{Charge, current_budget};
use planish_graph::{Error, Graph, Result, invalid};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The oldest opset of the standard operators that planish reads. Operators whose meaning has not changed since an
/// older one are read from that, too.
pub const OLDEST_OPSET: i64 = 7;

/// The newest opset of the standard operators that planish knows.
pub const NEWEST_OPSET: i64 = 28;

/// How much a model may ask for.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// Most bytes of the model's file, and again of what it reads from files beside it.
    pub max_bytes: u64,
    /// Most nodes, names, attributes, extents and tensors, those of expanded functions included.
    pub max_items: usize,
}

impl Default for ReadOptions {
    /// 16 GiB, and 8 million items: more than any network of the field.
    fn default() -> ReadOptions {
        ReadOptions { max_bytes: 16 << 30, max_items: 8_000_000 }
    }
}

/// The graph in the ONNX file at `path`. Weights in files beside it are read from its folder.
pub fn load(path: &Path, options: &ReadOptions) -> Result<Graph> {
    let place = || path.display().to_string();
    let (bytes, _charge) = read_file(path, options.max_bytes)?;
    read(&bytes, path.parent(), options).context(place)
}

/// The graph in the ONNX model `bytes`. Weights outside are read from `folder`, where one is given.
pub fn read(bytes: &[u8], folder: Option<&Path>, options: &ReadOptions) -> Result<Graph> {
    if bytes.len() as u64 > options.max_bytes {
        return Err(Error::limit(format!("{} bytes pass max_bytes ({})", bytes.len(), options.max_bytes)));
    }
    let allowance = Allowance::new(options.max_items);
    let model = ModelProto::decode(bytes, Decoder::new(&allowance))
        .map_err(|error| error.at("not an ONNX model, or a damaged one"))?;
    let Some(proto) = &model.graph else {
        invalid!("not an ONNX model: there is no graph in it");
    };
    let external = ExternalFiles::new(folder, options.max_bytes);
    let mut graph = Importer::new(&model, &allowance, external).graph(proto)?;
    graph.doc = if model.doc.is_empty() { proto.doc } else { model.doc }.to_string();
    graph.metadata = model.metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    graph.sort()?;
    graph.validate()?;
    Ok(graph)
}

/// The bytes of a file of at most `most` bytes, charged to the thread's budget while the charge lives.
pub(crate) fn read_file(path: &Path, most: u64) -> Result<(Vec<u8>, Option<Charge>)> {
    let failed = |error: std::io::Error| Error::io(path, &error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::invalid("not a regular file").at(path.display().to_string()));
    }
    let size = metadata.len();
    let too_large =
        || Error::limit(format!("the file passes max_bytes ({most})")).at(path.display().to_string());
    if size > most {
        return Err(too_large());
    }
    let room = usize::try_from(size).map_err(|_| too_large())?;
    let charge = current_budget().map(|b| b.charge(room)).transpose();
    let charge = charge.context(|| path.display().to_string())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(room).map_err(|_| too_large())?;
    planish_memory::prefer_huge_pages(&bytes);
    file.take(size).read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes, charge))
}
