//! Ctrl-C as a wish to end one thing early, rather than everything.
//!
//! While an [`Interrupt`] lives, the first Ctrl-C only raises it; a second one, or one at any other time, ends the process
//! as always.

use std::sync::atomic::{AtomicBool, Ordering};

static RAISED: AtomicBool = AtomicBool::new(false);

/// Catches the first Ctrl-C while it lives. One at a time.
pub struct Interrupt(());

#[cfg(unix)]
extern "C" fn raise(_: libc::c_int) {
    RAISED.store(true, Ordering::Relaxed);
    // SAFETY: both a store to an atomic and `signal` may be called from a signal handler.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL);
    }
}

impl Interrupt {
    /// Starts to catch.
    pub fn new() -> Interrupt {
        RAISED.store(false, Ordering::Relaxed);
        #[cfg(unix)]
        // SAFETY: the handler only does what a handler may.
        unsafe {
            let handler: extern "C" fn(libc::c_int) = raise;
            libc::signal(libc::SIGINT, handler as *const () as libc::sighandler_t);
        }
        Interrupt(())
    }

    /// Whether Ctrl-C was pressed.
    pub fn is_raised(&self) -> bool {
        RAISED.load(Ordering::Relaxed)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        #[cfg(unix)]
        // SAFETY: the default action runs no code of ours.
        unsafe {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_caught() {
        let interrupt = Interrupt::new();
        assert!(!interrupt.is_raised());
        // SAFETY: the signal is caught.
        unsafe { libc::raise(libc::SIGINT) };
        assert!(interrupt.is_raised());
    }
}
