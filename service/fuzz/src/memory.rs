//! Memory that a target takes and keeps.

use std::sync::atomic::{AtomicUsize, Ordering};

use peak_alloc::PeakAlloc;

/// Counts what is allocated, in every program of this package.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What a target may keep from its first input on: caches of a thread, metrics, tables that are made once. Whatever grows with
/// the number of inputs is past it after some hundred thousand.
const KEPT: usize = 4 << 20;

/// The most memory that one input may take, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// For any input, an empty one too.
    pub fixed: usize,
    /// For each byte of it.
    pub each: usize,
}

/// The memory of one target in this process.
#[derive(Debug)]
pub(crate) struct Meter {
    /// What was allocated before the first input, and one; 0 if there was none yet.
    before: AtomicUsize,
}

impl Meter {
    pub(crate) const fn new() -> Self {
        Self { before: AtomicUsize::new(0) }
    }

    /// Was there no input yet?
    pub(crate) fn is_new(&self) -> bool {
        self.before.load(Ordering::Relaxed) == 0
    }

    /// Runs something on an input of `length` bytes.
    pub(crate) fn measure(&self, name: &str, bound: &Bound, length: usize, run: impl FnOnce()) {
        let before = ALLOCATOR.current_usage();
        let first = self.before.compare_exchange(0, before + 1, Ordering::Relaxed, Ordering::Relaxed);
        ALLOCATOR.reset_peak_usage();
        run();
        let most = ALLOCATOR.peak_usage().saturating_sub(before);
        let kept = ALLOCATOR.current_usage().saturating_sub(first.map_or_else(|known| known - 1, |_| before));
        let allowed = bound.fixed + bound.each * length;
        // What is made once comes on top.
        let allowed = if first.is_ok() { allowed + KEPT } else { allowed };
        assert!(most <= allowed, "{name}: {most} bytes of memory for an input of {length}, and {allowed} at most are due");
        assert!(kept <= KEPT, "{name}: {kept} bytes of memory are kept since the first input");
    }
}
