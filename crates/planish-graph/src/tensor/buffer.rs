//! The bytes of a tensor: zeroed, aligned for every vector width, charged to the thread's memory budget.

use crate::error::{Error, Result};
use crate::limits::{self, Charge};
use bytemuck::{Pod, Zeroable};

/// One cache line; a vector of these is 64-byte aligned without any unsafe code.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Line([u8; 64]);

/// Aligned bytes.
#[derive(Debug)]
pub(super) struct Buffer {
    lines: Vec<Line>,
    bytes: usize,
    charge: Option<Charge>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("line")
    }
}

impl Buffer {
    /// Room for `bytes` bytes, charged; an error where the budget or the machine has none.
    fn room(bytes: usize) -> Result<(Vec<Line>, Option<Charge>)> {
        let charge = limits::current_budget().map(|b| b.charge(bytes)).transpose()?;
        let mut lines = Vec::new();
        lines
            .try_reserve_exact(bytes.div_ceil(64))
            .map_err(|_| Error::limit(format!("cannot allocate {bytes} bytes on this machine")))?;
        planish_memory::prefer_huge_pages(&lines);
        Ok((lines, charge))
    }
    /// `bytes` zero bytes; an error where the budget or the machine has no room for them.
    pub(super) fn zeroed(bytes: usize) -> Result<Buffer> {
        let (mut lines, charge) = Buffer::room(bytes)?;
        lines.resize(bytes.div_ceil(64), Line::zeroed());
        Ok(Buffer { lines, bytes, charge })
    }
    /// A copy of `source`, written once: weights of a model come this way. Errors as [`Buffer::zeroed`].
    pub(super) fn copied(source: &[u8]) -> Result<Buffer> {
        let (mut lines, charge) = Buffer::room(source.len())?;
        let (whole, rest) = source.as_chunks::<64>();
        lines.extend(whole.iter().map(|chunk| Line(*chunk)));
        if !rest.is_empty() {
            let mut last = [0; 64];
            last[..rest.len()].copy_from_slice(rest);
            lines.push(Line(last));
        }
        Ok(Buffer { lines, bytes: source.len(), charge })
    }
    pub(super) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.bytes]
    }
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.bytes]
    }
}

impl Clone for Buffer {
    /// A copy; it is not charged when the budget has no room, since cloning cannot fail.
    fn clone(&self) -> Buffer {
        let charge = self
            .charge
            .as_ref()
            .and_then(|_| limits::current_budget())
            .and_then(|b| b.charge(self.bytes).ok());
        Buffer { lines: self.lines.clone(), bytes: self.bytes, charge }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_exact_whatever_the_length() {
        for length in [0, 1, 63, 64, 65, 200] {
            let source: Vec<u8> = (0..length as u8).map(|b| b ^ 0x5a).collect();
            assert_eq!(Buffer::copied(&source).unwrap().bytes(), source);
        }
    }
}
