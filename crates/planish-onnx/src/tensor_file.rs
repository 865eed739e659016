//! Files that hold one bare `TensorProto`, as the test data of ONNX models does.

use crate::external::ExternalFiles;
use crate::proto::{Decoder, TensorProto};
use crate::read::{ReadOptions, read_file};
use crate::tensor;
use crate::wire::Allowance;
use planish_graph::error::Context;
use planish_graph::{Error, Result, Tensor};
use std::path::Path;

/// The tensor in the `.pb` file at `path`.
pub fn load_tensor(path: &Path, options: &ReadOptions) -> Result<Tensor> {
    let (bytes, _charge) = read_file(path, options.max_bytes)?;
    read_tensor(&bytes, options).context(|| path.display().to_string())
}

/// The tensor in the bytes of a `TensorProto`.
pub fn read_tensor(bytes: &[u8], options: &ReadOptions) -> Result<Tensor> {
    let allowance = Allowance::new(options.max_items);
    let proto = TensorProto::decode(bytes, Decoder::new(&allowance))?;
    tensor::tensor(&proto, &mut ExternalFiles::new(None, 0))
}

/// Writes `tensor`, named `name`, to the `.pb` file at `path`; an old file is replaced when the new one is complete.
pub fn save_tensor(tensor: &Tensor, name: &str, path: &Path) -> Result<()> {
    let message = tensor::message(name, tensor);
    planish_files::replace(path, |out| message.write_to(out)).map_err(|e| Error::io(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::folder::TestFolder;

    #[test]
    fn tensors_round_trip_through_files() {
        let folder = TestFolder::new();
        let path = folder.path().join("input_0.pb");
        let tensor = Tensor::new(&[2, 1], &[1i64, -2]).unwrap();
        save_tensor(&tensor, "x", &path).unwrap();
        assert_eq!(load_tensor(&path, &ReadOptions::default()).unwrap(), tensor);
        let error = load_tensor(&folder.path().join("none.pb"), &ReadOptions::default()).unwrap_err();
        assert!(error.to_string().contains("none.pb"));
        let small = ReadOptions { max_bytes: 3, ..ReadOptions::default() };
        assert!(load_tensor(&path, &small).is_err());
    }
}
