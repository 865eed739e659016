//! Large buffers on large pages.
//!
//! A network's weights are read from front to back in every run. On 4 KiB pages that is a page walk every 64 cache
//! lines, and making the buffer is a fault for each page; on 2 MiB pages both all but vanish. Where the kernel
//! gives huge pages only to those who ask, we ask.

/// Below this many bytes a huge page gains nothing.
const WORTH_IT: usize = 2 << 20;

/// Asks the kernel to back the memory that `buffer` has reserved by huge pages. Call before the memory is touched.
/// Only a wish: where it is not granted nothing changes.
pub fn prefer_huge_pages<T>(buffer: &Vec<T>) {
    advise(buffer.as_ptr().cast(), buffer.capacity().saturating_mul(size_of::<T>()));
}

/// Asks the kernel to back `bytes` bytes from `start` on, which the caller owns, by huge pages.
pub fn advise(start: *const u8, bytes: usize) {
    if bytes < WORTH_IT {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let first = (start as usize).next_multiple_of(PAGE);
        let last = (start as usize).saturating_add(bytes) / PAGE * PAGE;
        if last > first {
            // SAFETY: the whole pages lie inside memory that the caller owns; this advice changes neither their content
            // nor their mapping, and a kernel that does not know it says so by a return value that is of no interest.
            unsafe { libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = start;
}
