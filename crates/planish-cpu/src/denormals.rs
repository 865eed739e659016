//! Flushing denormals to zero, because one layer whose activations fade into the denormal range can run many times
//! slower than the rest of the network, for digits that nobody looks at.

/// Flushes denormal results and inputs to zero on this thread until dropped; then the earlier mode is restored.
///
/// Rust's own model of floating point knows one mode only. Code under this guard must not depend on denormals: an operation that
/// the compiler evaluates ahead of time keeps them, one that runs flushes them.
pub(crate) struct FlushDenormals {
    earlier: imp::Mode,
}

impl FlushDenormals {
    pub(crate) fn new() -> Self {
        let earlier = imp::get();
        if earlier | imp::FLUSH != earlier {
            imp::set(earlier | imp::FLUSH);
        }
        Self { earlier }
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        if self.earlier | imp::FLUSH != self.earlier {
            imp::set(self.earlier);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use std::arch::asm;

    pub type Mode = u32;
    /// Flush to zero (bit 15) and denormals are zero (bit 6) of MXCSR.
    pub const FLUSH: Mode = (1 << 15) | (1 << 6);

    pub fn get() -> Mode {
        let mut mode: Mode = 0;
        // SAFETY: stores the 4 bytes of MXCSR to a live local variable; every x86-64 has SSE.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mode, options(nostack, preserves_flags)) };
        mode
    }

    pub fn set(mode: Mode) {
        // SAFETY: reads 4 bytes of a live local variable; `mode` is what `get` returned with at most the two flush
        // bits changed, so no reserved bit is set and no exception is unmasked.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mode, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use std::arch::asm;

    pub type Mode = u64;
    /// Flush to zero (bit 24) of FPCR, which covers inputs too.
    pub const FLUSH: Mode = 1 << 24;

    pub fn get() -> Mode {
        let mode: Mode;
        // SAFETY: reads a register that user code may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) mode, options(nomem, nostack, preserves_flags)) };
        mode
    }

    pub fn set(mode: Mode) {
        // SAFETY: `mode` is what `get` returned with at most the flush bit changed.
        unsafe { asm!("msr fpcr, {}", in(reg) mode, options(nomem, nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod imp {
    pub type Mode = u32;
    pub const FLUSH: Mode = 0;

    pub fn get() -> Mode {
        0
    }

    pub fn set(_: Mode) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn flushes_inside_the_scope_only() {
        let half = || black_box(f32::MIN_POSITIVE) * black_box(0.5);
        assert!(half() > 0.0);
        {
            let _outer = FlushDenormals::new();
            let _inner = FlushDenormals::new();
            if imp::FLUSH != 0 {
                assert_eq!(half(), 0.0);
            }
        }
        assert!(half() > 0.0);
    }
}
