//! Whether the stream is asked for events: not while there is any reason against it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::ports::EventSource;

/// Why a pod asks for no events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Another pod brings them where they belong sooner.
    SteppedBack,
}

/// Holds the source back. Every reason comes and goes by itself; the last one to go has events asked for again.
pub struct PullGate {
    source: Arc<dyn EventSource>,
    /// Each of them once, and there are few.
    reasons: Mutex<Vec<Reason>>,
}

impl std::fmt::Debug for PullGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullGate").field("reasons", &self.reasons).finish_non_exhaustive()
    }
}

impl PullGate {
    /// A gate that is open: the source was told of nothing yet.
    #[must_use]
    pub fn new(source: Arc<dyn EventSource>) -> Self {
        Self { source, reasons: Mutex::default() }
    }

    /// Notes whether there is this reason now.
    pub fn set(&self, reason: Reason, is_there: bool) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let was_closed = !reasons.is_empty();
        reasons.retain(|known| *known != reason);
        if is_there {
            reasons.push(reason);
        }
        let is_closed = !reasons.is_empty();
        if is_closed != was_closed {
            // Under the lock, so that what was said last counts. It waits for nothing.
            self.source.hold(is_closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::ports::{AckToken, RawEvent, Settlement, SourceError, SourceLag, SourceLimits};

    /// Counts how often it was told to hold, and to go on.
    #[derive(Default)]
    struct Told {
        hold: AtomicUsize,
        go_on: AtomicUsize,
    }

    #[async_trait]
    impl EventSource for Told {
        async fn pull(&self, _: usize) -> Result<Vec<RawEvent>, SourceError> {
            unreachable!("a gate pulls nothing")
        }
        async fn settle(&self, _: Vec<(AckToken, Settlement)>) -> Result<(), SourceError> {
            unreachable!("a gate settles nothing")
        }
        async fn close(&self) {}
        fn hold(&self, hold: bool) {
            if hold { &self.hold } else { &self.go_on }.fetch_add(1, Ordering::Relaxed);
        }
        async fn lag(&self) -> Result<SourceLag, SourceError> {
            unreachable!("a gate asks nothing")
        }
        fn limits(&self) -> SourceLimits {
            unreachable!("a gate asks nothing")
        }
        fn trouble(&self) -> Option<SourceError> {
            unreachable!("a gate asks nothing")
        }
    }

    #[test]
    fn the_source_hears_of_a_change_once_and_of_nothing_else() {
        let told = Arc::<Told>::default();
        let gate = PullGate::new(Arc::clone(&told) as _);
        let count = || (told.hold.load(Ordering::Relaxed), told.go_on.load(Ordering::Relaxed));
        gate.set(Reason::SteppedBack, false);
        assert_eq!(count(), (0, 0));
        gate.set(Reason::SteppedBack, true);
        gate.set(Reason::SteppedBack, true);
        assert_eq!(count(), (1, 0));
        gate.set(Reason::SteppedBack, false);
        gate.set(Reason::SteppedBack, false);
        assert_eq!(count(), (1, 1));
    }
}
