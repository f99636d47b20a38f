//! When a fault began and ended, and whom it befell.

use tokio::time::Instant;

/// When a fault began and ended.
#[derive(Debug, Clone, Copy)]
pub struct FaultTime {
    /// Its begin.
    pub began: Instant,
    /// Its end: from here on, recovery is measured.
    pub ended: Instant,
    /// Sockets may have been stalled by it, and may end long after what was on its way to them.
    pub stalls: bool,
    /// The index of the pod that it befell, where it befell one alone.
    pub pod: Option<usize>,
}

impl FaultTime {
    /// The same, and it befell this pod alone.
    #[must_use]
    pub fn at(mut self, pod: usize) -> Self {
        self.pod = Some(pod);
        self
    }
}
