//! The count of events that the workers of a process share with its control thread.

use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::clock;

/// Events of the whole process, and who waits for how many.
#[derive(Debug, Default)]
pub(super) struct Shared {
    deliveries: AtomicU64,
    last: AtomicU64,
    goal: AtomicU64,
    lock: Mutex<()>,
    reached: Condvar,
}

impl Shared {
    /// Adds what a worker has read, the last of it at `now`.
    pub(super) fn received(&self, deliveries: u64, now: u64) {
        self.last.fetch_max(now, SeqCst);
        let total = self.deliveries.fetch_add(deliveries, SeqCst) + deliveries;
        if total >= self.goal.load(SeqCst) {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.reached.notify_all();
        }
    }

    /// Waits until there are so many events, at most for so long. Returns how many there are and when the last was read.
    pub(super) fn wait_for(&self, goal: u64, at_most: Duration) -> (u64, u64) {
        let deadline = clock::nanos() + u64::try_from(at_most.as_nanos()).unwrap_or(u64::MAX / 2);
        self.goal.store(goal, SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker adds first and looks at the goal then; here it is the other way round, so that one of both sees the other.
        while self.deliveries.load(SeqCst) < goal {
            let left = deadline.saturating_sub(clock::nanos());
            if left == 0 {
                break;
            }
            guard = self.reached.wait_timeout(guard, Duration::from_nanos(left)).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(guard);
        self.goal.store(u64::MAX, SeqCst);
        (self.deliveries.load(SeqCst), self.last.load(SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_wait_ends_when_the_count_is_reached() {
        let shared = Arc::new(Shared::default());
        let worker = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || (1..=100).for_each(|n| shared.received(1, n))
        });
        assert_eq!(shared.wait_for(100, Duration::from_secs(60)), (100, 100));
        worker.join().unwrap();
    }

    #[test]
    fn a_wait_for_what_does_not_come_ends_too() {
        let shared = Shared::default();
        shared.received(3, 1);
        assert_eq!(shared.wait_for(4, Duration::from_millis(20)), (3, 1));
    }
}
