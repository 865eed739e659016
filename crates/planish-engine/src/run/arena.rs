//! The memory that one run of a plan works in.

use planish_graph::limits::{Budget, Charge};
use planish_graph::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

/// Zeroed `f32` memory, aligned to a page, charged to a budget. One run owns it at a time.
pub(crate) struct Arena {
    start: NonNull<f32>,
    layout: Layout,
    _charge: Charge,
}

// SAFETY: the arena owns its memory; whoever holds the arena is the only one to use it.
unsafe impl Send for Arena {}

/// A page.
const ALIGNMENT: usize = 4096;

impl Arena {
    /// Memory for `len` elements; an error where the budget or the machine has no room.
    pub(crate) fn new(len: usize, budget: &Arc<Budget>) -> Result<Arena> {
        let bytes = len.checked_mul(4).filter(|&b| b <= isize::MAX as usize - ALIGNMENT);
        let bytes =
            bytes.ok_or_else(|| Error::limit("the plan needs more memory than can be addressed"))?.max(64);
        let charge = budget.charge(bytes)?;
        let layout = Layout::from_size_align(bytes, ALIGNMENT)
            .map_err(|_| Error::limit("the plan needs more memory than can be addressed"))?;
        // SAFETY: the layout has a size of at least 64 bytes.
        let start = unsafe { alloc_zeroed(layout) }.cast::<f32>();
        let start = NonNull::new(start)
            .ok_or_else(|| Error::limit(format!("cannot allocate {bytes} bytes on this machine")))?;
        planish_memory::advise(start.as_ptr().cast(), bytes);
        Ok(Arena { start, layout, _charge: charge })
    }

    /// The first element.
    pub(crate) fn start(&mut self) -> NonNull<f32> {
        self.start
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this very layout and is freed once.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) };
    }
}
