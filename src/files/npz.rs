//! NumPy's `.npz` archives: several named tensors in one zip file, stored or deflated.
//!
//! The archive is unpacked in memory only; no member name ever becomes a path. A member may not claim to grow beyond
//! what deflate can reach from its compressed bytes, so a small archive cannot ask for a large allocation.

use super::npy;
use planish_graph::error::Context;
use planish_graph::{Error, Result, Tensor, invalid};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// Deflate reaches 1032 : 1 at most.
const MAX_EXPANSION: u64 = 1040;
/// The most members that an archive may have.
const MAX_MEMBERS: usize = 1 << 16;

/// Reads the tensors in the archive at `path`, in its order, under their names without `.npy`.
///
/// `cap` bounds the bytes of all tensors together.
pub fn read(path: &Path, cap: u64) -> Result<Vec<(String, Tensor)>> {
    let file = File::open(path).map_err(|e| Error::io(path, &e))?;
    read_from(BufReader::new(file), cap).context(|| path.display().to_string())
}

/// Reads the tensors in the archive that `reader` holds; see [`read`].
pub fn read_from(reader: impl Read + Seek, cap: u64) -> Result<Vec<(String, Tensor)>> {
    let mut archive =
        ZipArchive::new(reader).map_err(|e| Error::invalid(format!("not a .npz archive: {e}")))?;
    if archive.len() > MAX_MEMBERS {
        return Err(Error::limit(format!("{} members; at most {MAX_MEMBERS} are read", archive.len())));
    }
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    let mut names = HashSet::new();
    let mut total = 0u64;
    for index in 0..archive.len() {
        let place = || format!("member {index}");
        let mut member = archive.by_index(index).map_err(|e| Error::invalid(e.to_string())).context(place)?;
        let full_name = member.name().map_err(|e| Error::invalid(e.to_string())).context(place)?.into_owned();
        let Some(name) = full_name.strip_suffix(".npy").map(str::to_string) else {
            invalid!("member {full_name:?} is not a .npy file");
        };
        let (size, compressed) = (member.size(), member.compressed_size());
        if size > compressed.saturating_mul(MAX_EXPANSION) {
            invalid!("member {name:?} claims {size} bytes, more than {compressed} compressed ones can hold");
        }
        total = total.saturating_add(size);
        if total > cap {
            return Err(Error::limit(format!("the tensors take more than the cap of {cap} bytes")));
        }
        if !names.insert(name.clone()) {
            invalid!("two members are named {name:?}");
        }
        let tensor =
            npy::read_from(&mut (&mut member).take(size), size).context(|| format!("member {name:?}"))?;
        // Reading past the end makes the archive check the member's length and checksum.
        match member.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => invalid!("member {name:?} is longer than the archive says"),
            Err(e) => invalid!("member {name:?}: {e}"),
        }
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

/// Writes `tensors` as an uncompressed archive at `path`, as `numpy.savez` does.
pub fn write<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<()> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let failed = |e: std::io::Error| Error::io(path, &e);
    for (name, tensor) in tensors {
        let large = tensor.bytes().len() > u32::MAX as usize / 2;
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(large);
        archive.start_file(format!("{name}.npy"), options).map_err(|e| failed(e.into()))?;
        npy::write_to(&mut archive, tensor).map_err(failed)?;
    }
    let content = archive.finish().map_err(|e| failed(e.into()))?.into_inner();
    planish_files::replace(path, |w| w.write_all(&content)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::scratch::Scratch;
    use planish_graph::{DType, ErrorKind};
    use std::io::Write;

    fn archive(members: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in members {
            writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn npy_bytes(tensor: &Tensor) -> Vec<u8> {
        let mut bytes = Vec::new();
        npy::write_to(&mut bytes, tensor).unwrap();
        bytes
    }

    #[test]
    fn stored_and_deflated_return() {
        let a = Tensor::new(&[2, 2], &[1f32, 2., 3., 4.]).unwrap();
        let b = Tensor::zeros(DType::I64, &[1000]).unwrap();
        let scratch = Scratch::new();
        let path = scratch.path("two.npz");
        write(&path, [("a", &a), ("b", &b)]).unwrap();
        let wanted = vec![("a".to_string(), a.clone()), ("b".to_string(), b.clone())];
        assert_eq!(read(&path, 1 << 20).unwrap(), wanted);
        let deflated =
            archive(&[("a.npy", &npy_bytes(&a)), ("b.npy", &npy_bytes(&b))], CompressionMethod::Deflated);
        assert!(deflated.len() < 1000);
        assert_eq!(read_from(Cursor::new(&deflated), 1 << 20).unwrap(), wanted);
        assert_eq!(read_from(Cursor::new(&deflated), 4000).unwrap_err().kind(), ErrorKind::Limit);
    }

    #[test]
    fn refuses_what_does_not_hold_together() {
        let good = npy_bytes(&Tensor::scalar(1f32));
        let stored = CompressionMethod::Stored;
        let read = |bytes: &[u8]| read_from(Cursor::new(bytes.to_vec()), 1 << 20);
        assert!(read(b"not a zip").is_err());
        assert!(read(&archive(&[("a.txt", &good)], stored)).is_err());
        assert!(read(&archive(&[("a.npy", b"junk")], stored)).is_err());
        assert!(read(&archive(&[("../../a.npy", &good)], stored)).is_ok(), "names are never paths");
        let mut damaged = archive(&[("a.npy", &good)], stored);
        let last = damaged.windows(4).position(|w| w == 1f32.to_le_bytes()).unwrap();
        damaged[last] ^= 1;
        assert!(read(&damaged).is_err(), "the checksum must be looked at");
    }

    #[test]
    fn a_bomb_allocates_nothing() {
        let mut bytes = archive(&[("a.npy", &npy_bytes(&Tensor::scalar(1f32)))], CompressionMethod::Deflated);
        // The claimed size stands 24 bytes into the central directory's entry.
        let entry = bytes.windows(4).position(|w| w == [0x50, 0x4b, 1, 2]).unwrap();
        bytes[entry + 24..entry + 28].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        let error = read_from(Cursor::new(&bytes), u64::MAX).unwrap_err();
        assert!(error.to_string().contains("claims"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn damaged_archives_never_panic(at in 0usize..400, byte: u8, cut in 0usize..300) {
            let tensor = Tensor::new(&[3], &[1f32, 2., 3.]).unwrap();
            let mut bytes = archive(&[("a.npy", &npy_bytes(&tensor))], CompressionMethod::Deflated);
            bytes.truncate(bytes.len() - cut.min(bytes.len() / 2));
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
            let _ = read_from(Cursor::new(&bytes), 1 << 20);
        }
    }
}
