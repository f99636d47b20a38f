//! How much memory the pod holds for events on their way and for what clients are sending, and how much it may.
//!
//! Counted where it is taken and where it is given back: an event once, however many sockets share it, with its parts by kind.
//! What is past the budget is the business of [`relief`](super::relief); until it is done, the pod takes [fewer
//! events](Memory::may_pull).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

pub(crate) use crate::metrics::labels::MemoryKind as Kind;

/// While more is held than may be, the next events are taken this much later.
const PAUSE: Duration = Duration::from_millis(500);
/// And no more of them than this.
const FEW: usize = 16;

/// What is held, and the budget for it.
#[derive(Debug)]
pub struct Memory {
    used: [AtomicUsize; Kind::ALL.len()],
    budget: AtomicUsize,
    /// So many bytes of events are past the budget, by what else was held when it was last looked at.
    alarm_at: AtomicUsize,
    pressed: AtomicBool,
    alarmed: Notify,
    calmed: Notify,
}

impl Default for Memory {
    /// Nothing is held, and all that is wanted may be.
    fn default() -> Self {
        Self {
            used: Default::default(),
            budget: AtomicUsize::new(usize::MAX),
            alarm_at: AtomicUsize::new(usize::MAX),
            pressed: AtomicBool::new(false),
            alarmed: Notify::new(),
            calmed: Notify::new(),
        }
    }
}

impl Memory {
    /// Counts so many bytes until the charge is dropped.
    #[must_use]
    pub fn charge(self: &Arc<Self>, kind: Kind, bytes: usize) -> Charge {
        self.add(kind, bytes);
        Charge { memory: Arc::clone(self), bytes, kind }
    }

    fn add(&self, kind: Kind, bytes: usize) {
        let used = self.used[kind as usize].fetch_add(bytes, Ordering::Relaxed) + bytes;
        if kind == Kind::Events && used >= self.alarm_at.load(Ordering::Relaxed) {
            self.alarm();
        }
    }

    #[cold]
    fn alarm(&self) {
        if !self.pressed.swap(true, Ordering::Relaxed) {
            self.alarmed.notify_one();
        }
    }

    /// Bytes held for one kind of thing.
    #[must_use]
    pub fn of(&self, kind: Kind) -> usize {
        self.used[kind as usize].load(Ordering::Relaxed)
    }

    /// Bytes that are charged now, of all kinds together.
    #[must_use]
    pub fn used(&self) -> usize {
        Kind::ALL.iter().map(|kind| self.of(*kind)).sum()
    }

    /// Bytes that may be held.
    #[must_use]
    pub fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// What is held is brought down to this once it is past the budget: seven eighths, so that not every event brings relief
    /// anew.
    #[must_use]
    pub(crate) fn low(&self) -> usize {
        self.budget() / 8 * 7
    }

    /// May a socket have compression of its own? Its memory can't be had back while it lives, so all sockets together have no
    /// more than half of the budget for it.
    #[must_use]
    pub(crate) fn may_keep_contexts(&self) -> bool {
        self.of(Kind::Compression) < self.budget() / 2
    }

    /// Is more held than may be, or has been and is not brought down yet?
    #[must_use]
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// Notes the budget and looks whether it is kept. True if not, or not yet again.
    pub(crate) fn look(&self, budget: usize) -> bool {
        self.budget.store(budget, Ordering::Relaxed);
        let used = self.used();
        self.alarm_at.store(budget.saturating_sub(used - self.of(Kind::Events).min(used)), Ordering::Relaxed);
        if used > budget {
            self.pressed.store(true, Ordering::Relaxed);
        } else if used <= self.low() && self.pressed.swap(false, Ordering::Relaxed) {
            self.calmed.notify_waiters();
        }
        self.is_pressed()
    }

    /// Waits until more is held than may be. Cancel-safe; for one task.
    pub(crate) async fn alarmed(&self) {
        self.alarmed.notified().await;
    }

    /// How many events may be taken from the stream, of so many; waits a while first if more is held than may be.
    ///
    /// What is not taken waits in the stream, for this pod or another, and costs nobody memory. It is not left there for good:
    /// those who read all the time are owed it, and what is held may be nothing that could be let go.
    pub(crate) async fn may_pull(&self, batch: usize) -> usize {
        if !self.is_pressed() {
            return batch;
        }
        let calm = async {
            loop {
                let calmed = self.calmed.notified();
                tokio::pin!(calmed);
                calmed.as_mut().enable();
                if !self.is_pressed() {
                    return;
                }
                calmed.await;
            }
        };
        if timeout(PAUSE, calm).await.is_ok() { batch } else { batch.min(FEW) }
    }
}

/// Bytes that count as held until this is dropped.
#[derive(Debug)]
pub struct Charge {
    memory: Arc<Memory>,
    bytes: usize,
    kind: Kind,
}

impl Charge {
    /// How many bytes are charged; they are given back when the charge is dropped.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The account that they count in.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Changes the charge to so many bytes.
    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.memory.add(self.kind, bytes - self.bytes);
        } else if bytes < self.bytes {
            self.memory.used[self.kind as usize].fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn what_is_charged_counts_until_it_is_dropped_by_its_kind() {
        let memory = Arc::new(Memory::default());
        let (event, mut inbound) = (memory.charge(Kind::Events, 100), memory.charge(Kind::Inbound, 10));
        inbound.set(30);
        inbound.set(20);
        assert_eq!((memory.of(Kind::Events), memory.of(Kind::Inbound), memory.used()), (100, 20, 120));
        drop(event);
        drop(inbound);
        assert_eq!(memory.used(), 0);
        assert!(Kind::ALL.iter().enumerate().all(|(place, kind)| *kind as usize == place));
    }

    #[tokio::test(start_paused = true)]
    async fn the_event_that_is_too_much_alarms_at_once_and_there_is_calm_only_well_below_the_budget() {
        let memory = Arc::new(Memory::default());
        let other = memory.charge(Kind::Dispatch, 300);
        assert!(!memory.look(1000));
        let first = memory.charge(Kind::Events, 600);
        assert!(!memory.is_pressed());
        let second = memory.charge(Kind::Events, 200);
        timeout(Duration::from_secs(1), memory.alarmed()).await.unwrap();
        assert!(memory.look(1000), "1100 of 1000");
        drop(second);
        assert!(memory.look(1000), "900 of 1000 is not calm yet");
        drop(other);
        assert!(!memory.look(1000));
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn while_too_much_is_held_few_events_are_taken_and_late_but_some() {
        let memory = Arc::new(Memory::default());
        assert_eq!(memory.may_pull(256).await, 256);
        let held = memory.charge(Kind::Events, 2000);
        memory.look(1000);
        let started = Instant::now();
        assert_eq!(memory.may_pull(256).await, FEW);
        assert_eq!(started.elapsed(), PAUSE);
        let calm = async {
            tokio::time::sleep(PAUSE / 2).await;
            drop(held);
            memory.look(1000);
        };
        let (may, ()) = tokio::join!(memory.may_pull(256), calm);
        assert_eq!(may, 256);
    }
}
