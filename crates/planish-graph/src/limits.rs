//! Caps on memory: the one place where sizes are multiplied, and the budget that every tensor is charged to.
//!
//! A model may name any shape it likes. Every element count goes through [`element_count`], which checks for overflow,
//! and every tensor's bytes are charged to the [`Budget`] of the thread that makes it, so that no model makes planish
//! allocate past the cap (`--max-memory`).

use crate::error::{Error, Result};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The product of `shape`, or an error where it overflows `isize` (so that byte counts stay addressable). Where an extent
/// is zero that holds for the others, too, as in NumPy: the product of any of them can then be taken without a check.
pub fn element_count(shape: &[usize]) -> Result<usize> {
    let largest = shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))
        .filter(|&n| n <= isize::MAX as usize / 16)
        .ok_or_else(|| Error::limit(format!("shape {shape:?} has more elements than can be addressed")))?;
    Ok(if shape.contains(&0) { 0 } else { largest })
}

/// An empty vector with room for the elements of `shape`; an error where this thread's budget could not hold it or the
/// machine cannot allocate it. For results that are computed in a wider type than their tensor's: the room itself is
/// short-lived and not charged.
pub fn room<T>(shape: &[usize]) -> Result<Vec<T>> {
    let count = element_count(shape)?;
    let bytes = count.saturating_mul(size_of::<T>());
    if let Some(budget) = current_budget() {
        budget.charge(bytes)?;
    }
    let mut values = Vec::new();
    values
        .try_reserve_exact(count)
        .map_err(|_| Error::limit(format!("cannot allocate {bytes} bytes on this machine")))?;
    Ok(values)
}

/// Live bytes of tensors against a cap; shared by everything that runs under [`with_budget`].
#[derive(Debug)]
pub struct Budget {
    cap: usize,
    live: AtomicUsize,
    peak: AtomicUsize,
}

impl Budget {
    /// A budget of `cap` bytes.
    pub fn new(cap: usize) -> Arc<Budget> {
        Arc::new(Budget { cap, live: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }
    /// The cap in bytes.
    pub fn cap(&self) -> usize {
        self.cap
    }
    /// The largest number of bytes that were live at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
    /// Takes `bytes` from the budget, or says that the cap would be passed.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge> {
        let before = self.live.fetch_add(bytes, Ordering::Relaxed);
        match before.checked_add(bytes) {
            Some(now) if now <= self.cap => {
                self.peak.fetch_max(now, Ordering::Relaxed);
                Ok(Charge { budget: self.clone(), bytes })
            }
            _ => {
                self.live.fetch_sub(bytes, Ordering::Relaxed);
                Err(Error::limit(format!(
                    "needs {bytes} more bytes with {before} in use, over the memory cap of {} bytes; raise it with --max-memory if the model is trusted",
                    self.cap
                )))
            }
        }
    }
}

/// Bytes taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.live.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Budget>>> = const { RefCell::new(None) };
}

/// The budget that this thread's tensors are charged to, if any.
pub fn current_budget() -> Option<Arc<Budget>> {
    CURRENT.with(|c| c.borrow().clone())
}

/// Runs `work` with this thread's tensors charged to `budget`.
pub fn with_budget<T>(budget: &Arc<Budget>, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Arc<Budget>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let before = self.0.take();
            CURRENT.with(|c| *c.borrow_mut() = before);
        }
    }
    let _restore = Restore(CURRENT.with(|c| c.borrow_mut().replace(budget.clone())));
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_overflow_as_errors() {
        assert_eq!(element_count(&[2, 3, 4]).unwrap(), 24);
        assert_eq!(element_count(&[1 << 40, 0, 7]).unwrap(), 0);
        assert!(element_count(&[usize::MAX, 0, 7]).is_err());
        assert!(element_count(&[usize::MAX, 2]).is_err());
        assert!(element_count(&[1 << 40, 1 << 40]).is_err());
    }

    #[test]
    fn room_is_bounded() {
        assert!(room::<f64>(&[3]).unwrap().capacity() >= 3);
        with_budget(&Budget::new(100), || {
            assert!(room::<f64>(&[12]).is_ok());
            assert!(room::<f64>(&[13]).is_err());
        });
    }

    #[test]
    fn budget_is_returned_on_drop() {
        let budget = Budget::new(100);
        let first = budget.charge(60).unwrap();
        assert!(budget.charge(60).is_err());
        drop(first);
        assert!(budget.charge(100).is_ok());
        assert!(budget.charge(usize::MAX).is_err());
        assert_eq!(budget.peak(), 100);
    }
}
