//! What waits for one socket: bounded, with a named policy for when it is full.
//!
//! Two bounds. The one in bytes always holds. The one in messages holds while the socket takes no bytes: a burst that its task has simply not
//! written yet is no reason to drop. Nothing here waits: whoever dispatches is never held up by a socket.

mod queue;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use smallvec::SmallVec;
use tokio::time::Instant;

use self::queue::Queue;
use super::outgoing::Outgoing;
use crate::{
    config::DropPolicy,
    domain::gap::{Gap, GapCause},
};

/// With `block`, so many times the buffer size may wait before the socket is given up.
const OVERFLOW_FACTOR: usize = 8;

/// The limits of a mailbox.
#[derive(Debug, Clone, Copy)]
pub struct MailboxLimits {
    /// Messages that may wait while the socket takes no bytes.
    pub messages: usize,
    /// Bytes that may wait in any case; one message may be larger.
    pub bytes: usize,
    /// What happens past that.
    pub policy: DropPolicy,
    /// With `block`: the longest time that the overflow may take to drain.
    pub overflow_timeout: Duration,
}

/// One thing to write.
#[derive(Debug, Clone)]
pub enum Item {
    /// An event.
    Event(Arc<Outgoing>),
    /// A notice that events were lost here. In a box, as it is rare, and larger than all else that waits.
    Gap(Box<Gap>),
}

/// What is taken from a mailbox at once: most often one item.
pub type Items = SmallVec<[Item; 1]>;

impl Item {
    /// What it counts for in the bounds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Event(event) => event.len(),
            Self::Gap(_) => 0,
        }
    }

    /// Its sequence in the stream; none for a gap, nor for an event that an old pod handed over.
    fn seq(&self) -> Option<u64> {
        match self {
            Self::Event(event) => Some(event.seq).filter(|seq| *seq > 0),
            Self::Gap(_) => None,
        }
    }

    fn as_gap(&self) -> Gap {
        match self {
            Self::Event(_) => {
                let seq = self.seq();
                Gap { dropped: Some(1), first_seq: seq, last_seq: seq, cause: GapCause::SlowClient }
            }
            Self::Gap(gap) => **gap,
        }
    }
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// It waits; so many older events were dropped for it.
    Taken {
        /// Events dropped.
        dropped: usize,
    },
    /// With `block`: it did not fit the overflow, or that did not drain in time. The socket must be closed.
    Overflow,
    /// The socket is going; nobody will write it.
    Closed,
}

/// In memory as in the source, what is rarely needed last: see [`Session`](super::session::Session).
#[derive(Debug, Default)]
#[repr(C)]
struct Inner {
    closed: bool,
    stalled: bool,
    bytes: usize,
    queue: Queue,
    overflowing_since: Option<Instant>,
    /// What was dropped: all of it older than what waits, so it is announced before the next item.
    lost: Option<Gap>,
}

/// The queue of one socket. Pushed to by anyone, taken from by the socket's task alone.
#[derive(Debug)]
#[repr(C)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    limits: MailboxLimits,
}

impl Mailbox {
    /// An empty mailbox. It grows on use; nothing is reserved.
    #[must_use]
    pub fn new(limits: MailboxLimits) -> Self {
        Self { limits, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item at the end, and drops the oldest of what has no room: the oldest in the stream, as two pods bring events in any order.
    pub fn push(&self, item: Item) -> Push {
        let mut inner = self.lock();
        if inner.closed {
            return Push::Closed;
        }
        if self.limits.policy == DropPolicy::Block && !self.overflow_has_room(&mut inner, item.bytes()) {
            return Push::Overflow;
        }
        inner.bytes += item.bytes();
        inner.queue.push_back(item);
        let dropped = match self.limits.policy {
            DropPolicy::DropOldest => self.drop_excess(&mut inner),
            DropPolicy::Block => 0,
        };
        Push::Taken { dropped }
    }

    fn drop_excess(&self, inner: &mut Inner) -> usize {
        let mut dropped = 0;
        while inner.queue.len() > 1 {
            let excess = if inner.stalled { inner.queue.len().saturating_sub(self.limits.messages) } else { 0 };
            if excess == 0 && inner.bytes <= self.limits.bytes {
                break;
            }
            let Inner { queue, bytes, lost, .. } = &mut *inner;
            queue.remove_oldest(excess, |oldest| {
                *bytes -= oldest.bytes();
                dropped += usize::from(matches!(oldest, Item::Event(_)));
                let gap = oldest.as_gap();
                *lost = Some(lost.map_or(gap, |lost| lost.merge(gap)));
            });
        }
        dropped
    }

    fn overflow_has_room(&self, inner: &mut Inner, more: usize) -> bool {
        if !inner.stalled || inner.queue.len() < self.limits.messages {
            inner.overflowing_since = None;
        } else {
            let since = *inner.overflowing_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.limits.overflow_timeout {
                return false;
            }
        }
        let full = inner.stalled && inner.queue.len() >= self.limits.messages.saturating_mul(OVERFLOW_FACTOR);
        !full && (inner.queue.is_empty() || inner.bytes + more <= self.limits.bytes)
    }

    /// Takes items from the front until they make up `bytes`, a gap for what was dropped before them first.
    pub fn take(&self, bytes: usize) -> Items {
        let mut inner = self.lock();
        if inner.queue.is_empty() && inner.lost.is_none() {
            return Items::new();
        }
        let mut items = Items::with_capacity(inner.queue.len() + usize::from(inner.lost.is_some()));
        items.extend(inner.lost.take().map(|gap| Item::Gap(Box::new(gap))));
        let mut taken = 0;
        while taken < bytes
            && let Some(item) = inner.queue.pop_front()
        {
            taken += item.bytes();
            items.push(item);
        }
        inner.bytes -= taken;
        if inner.queue.is_empty() {
            // A burst must not pin its memory for the rest of a long connection.
            inner.queue = Queue::default();
            inner.overflowing_since = None;
        }
        items
    }

    /// Says whether the socket takes no bytes at the moment, so that the bound in messages holds.
    pub fn set_stalled(&self, stalled: bool) {
        self.lock().stalled = stalled;
    }

    /// Refuses everything from now on. What waits can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Has nobody panicked in the middle of a change? Takes no lock.
    pub(super) fn is_sound(&self) -> bool {
        !self.inner.is_poisoned()
    }

    /// How many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Does nothing wait?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(policy: DropPolicy) -> Mailbox {
        Mailbox::new(MailboxLimits { messages: 3, bytes: 100, policy, overflow_timeout: Duration::from_secs(30) })
    }

    fn event(seq: u64) -> Item {
        Item::Event(Arc::new(Outgoing::of_text(seq, "0123456789")))
    }

    fn seqs(items: &[Item]) -> Vec<u64> {
        items.iter().filter_map(|i| if let Item::Event(event) = i { Some(event.seq) } else { None }).collect()
    }

    #[test]
    fn a_burst_that_was_not_written_yet_is_no_reason_to_drop() {
        let mailbox = mailbox(DropPolicy::DropOldest);
        for seq in 1..=10 {
            assert_eq!(mailbox.push(event(seq)), Push::Taken { dropped: 0 });
        }
        assert_eq!(seqs(&mailbox.take(usize::MAX)).len(), 10);
    }

    #[test]
    fn a_stalled_socket_keeps_the_newest_and_gets_a_gap_in_its_place() {
        let mailbox = mailbox(DropPolicy::DropOldest);
        mailbox.set_stalled(true);
        for seq in 41..=48 {
            mailbox.push(event(seq));
        }
        let items = mailbox.take(usize::MAX);
        let lost = Gap { dropped: Some(5), first_seq: Some(41), last_seq: Some(45), cause: GapCause::SlowClient };
        assert!(matches!(&items[0], Item::Gap(gap) if **gap == lost));
        assert_eq!(seqs(&items), [46, 47, 48]);
    }

    #[test]
    fn the_newest_in_the_stream_stays_also_where_it_came_before_older_ones() {
        let mailbox = mailbox(DropPolicy::DropOldest);
        mailbox.set_stalled(true);
        for seq in [48, 49, 50, 41, 42, 43, 44] {
            mailbox.push(event(seq));
        }
        let items = mailbox.take(usize::MAX);
        let lost = Gap { dropped: Some(4), first_seq: Some(41), last_seq: Some(44), cause: GapCause::SlowClient };
        assert!(matches!(&items[0], Item::Gap(gap) if **gap == lost));
        assert_eq!(seqs(&items), [48, 49, 50]);
    }

    #[test]
    fn bytes_are_bounded_even_for_a_socket_that_takes_them() {
        let mailbox = mailbox(DropPolicy::DropOldest);
        let dropped: usize =
            (1..=12).map(|seq| if let Push::Taken { dropped } = mailbox.push(event(seq)) { dropped } else { 0 }).sum();
        assert_eq!((dropped, mailbox.len()), (2, 10));
    }

    #[test]
    fn a_gap_that_is_dropped_lives_on_in_the_gap_before_it() {
        let mailbox = mailbox(DropPolicy::DropOldest);
        mailbox.set_stalled(true);
        mailbox.push(Item::Gap(Box::new(Gap {
            dropped: Some(7),
            first_seq: Some(1),
            last_seq: Some(7),
            cause: GapCause::GivenUp,
        })));
        for seq in 8..=11 {
            mailbox.push(event(seq));
        }
        let items = mailbox.take(usize::MAX);
        let Item::Gap(gap) = &items[0] else { panic!("no gap comes first") };
        assert_eq!((gap.dropped, gap.first_seq, gap.last_seq), (Some(8), Some(1), Some(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn block_drops_nothing_and_gives_the_socket_up_when_its_overflow_is_full() {
        let mailbox = mailbox(DropPolicy::Block);
        mailbox.set_stalled(true);
        for seq in 1..=10 {
            assert_eq!(mailbox.push(event(seq)), Push::Taken { dropped: 0 });
        }
        assert_eq!(mailbox.push(event(11)), Push::Overflow);
        assert_eq!(seqs(&mailbox.take(usize::MAX)), (1..=10).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn block_gives_the_socket_up_when_its_overflow_does_not_drain_in_time() {
        let mailbox = mailbox(DropPolicy::Block);
        mailbox.set_stalled(true);
        for seq in 1..=4 {
            mailbox.push(event(seq));
        }
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(mailbox.push(event(5)), Push::Taken { dropped: 0 });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(mailbox.push(event(6)), Push::Overflow);
    }

    #[test]
    fn a_closed_mailbox_takes_nothing_more() {
        let mailbox = mailbox(DropPolicy::DropOldest);
        mailbox.push(event(1));
        mailbox.close();
        assert_eq!(mailbox.push(event(2)), Push::Closed);
        assert_eq!(seqs(&mailbox.take(usize::MAX)), [1]);
    }
}
