//! What waits for one socket: bounded, with a named policy for when it is full.
//!
//! The bounds in messages and in bytes are for a socket that takes no bytes: it is *stalled*. One that takes some may have a
//! burst waiting, whose size is bounded by itself, and by what the pod holds for all its sockets together: an event is held once
//! for all of them. A socket that stalls with a burst waiting loses what is past the bounds. Nothing here waits: the dispatcher
//! is never held up by a socket.
//!
//! With `app.gap_repair` the stream is the rest of the buffer: what has no room is passed over, and [read again](repair) once
//! all that waits is written.

mod bounds;
pub mod hole;
pub mod item;
mod mending;
mod queue;
pub mod repair;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use daisi_ws_domain::gap::Gap;
use tokio::time::Instant;

pub use self::bounds::MailboxLimits;
use self::{
    bounds::{Bounds, CoveredStream, narrow},
    item::{Item, Items},
    queue::Queue,
    repair::{MendOrder, Repair},
};
use super::memory::{Charge, Kind};
use crate::config::DropPolicy;

/// With `block`, so many times the buffer size may wait before the socket is given up.
const OVERFLOW_FACTOR: usize = 8;

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
    /// While it is behind: bytes that are being written.
    writing: u32,
    bytes: usize,
    /// Nothing above this was read again, of the stream below.
    covered_up_to: u64,
    /// The client had everything up to here when it came.
    had_up_to: u64,
    covered_in: CoveredStream,
    queue: Queue,
    /// The highest that was taken out.
    highest_out: u64,
    /// What it lacks and what it was mended with, if there ever was any of that.
    repair: Option<Box<Repair>>,
    overflowing_since: Option<Instant>,
    /// What was dropped: all of it older than what waits, so it is announced before the next item. In a box, as most sockets
    /// never miss anything.
    lost: Option<Box<Gap>>,
    /// Since when the socket has always had something that the system did not take.
    behind_since: Option<Instant>,
    /// The memory of a long queue beside its items; a short one is part of what a socket takes.
    long: Option<Box<Charge>>,
}

/// A queue is long with more places than this.
const LONG: usize = 16;

fn add_to(lost: &mut Option<Box<Gap>>, gap: Gap) {
    match lost {
        Some(lost) => **lost = lost.merge(gap),
        None => *lost = Some(Box::new(gap)),
    }
}

impl Inner {
    /// Counts the memory of the queue, after it may have changed.
    fn measure(&mut self) {
        let places = self.queue.capacity();
        match &mut self.long {
            None if places <= LONG => {}
            None => {
                let charge = self.queue.memory().map(|memory| memory.charge(Kind::Mailboxes, places * Queue::PLACE));
                self.long = charge.map(Box::new);
            }
            Some(_) if places <= LONG => self.long = None,
            Some(charge) => charge.set(places * Queue::PLACE),
        }
    }

    /// Drops one of what waits; it lives on in the gap.
    fn lose(&mut self, item: &Item) -> usize {
        add_to(&mut self.lost, item.as_gap());
        usize::from(item.is_event())
    }
}

/// What a socket's task takes at once.
#[derive(Debug, Default)]
pub struct Taken {
    /// What is to be written.
    pub items: Items,
    /// What is to be read, before more can be taken.
    pub mend: Option<Box<MendOrder>>,
}

/// How a socket does, for anyone who has to choose among many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// Since when it has always had something that the system did not take.
    pub(crate) behind_since: Option<Instant>,
    /// It takes no bytes.
    pub(crate) stalled: bool,
    /// Bytes that wait here.
    pub(crate) waiting: usize,
    /// Bytes that are being written.
    pub(crate) writing: usize,
    /// What waits may be dropped.
    pub(crate) may_shed: bool,
}

/// The queue of one socket. Pushed to by anyone, taken from by the socket's task alone.
#[derive(Debug)]
#[repr(C)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    bounds: Bounds,
}

impl Mailbox {
    /// An empty mailbox. It grows on use; nothing is reserved.
    #[must_use]
    pub fn new(limits: MailboxLimits) -> Self {
        Self { bounds: limits.into(), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item at the end, and drops the oldest of what has no room: the oldest in the stream, as two pods bring events in
    /// any order.
    pub fn push(&self, item: Item) -> Push {
        let mut inner = self.lock();
        if inner.closed {
            return Push::Closed;
        }
        if inner.is_covered(&item) {
            return Push::Taken { dropped: 0 };
        }
        if self.bounds.repairs() {
            self.push_or_pass_over(&mut inner, item);
            return Push::Taken { dropped: 0 };
        }
        let item = item.without_repair();
        let bytes = inner.bytes + item.bytes();
        // Of no interest to a socket that has little waiting, and memory that all threads share.
        let held = if bytes > self.bounds.bytes() { item.held() } else { 0 };
        if self.bounds.policy == DropPolicy::Block && !self.overflow_has_room(&mut inner, bytes, held) {
            return Push::Overflow;
        }
        inner.bytes = bytes;
        let places = inner.queue.capacity();
        inner.queue.push_back(item);
        if inner.queue.capacity() != places {
            inner.measure();
        }
        let dropped = match self.bounds.policy {
            DropPolicy::DropOldest => self.drop_excess(&mut inner, held),
            DropPolicy::Block => 0,
        };
        Push::Taken { dropped }
    }

    fn drop_excess(&self, inner: &mut Inner, held: usize) -> usize {
        let mut dropped = 0;
        while inner.queue.len() > 1 {
            let excess = self.excess(inner, held);
            if excess == 0 {
                break;
            }
            let Inner { queue, bytes, lost, .. } = &mut *inner;
            queue.remove_oldest(excess, |oldest| {
                *bytes -= oldest.bytes();
                dropped += usize::from(matches!(oldest, Item::Event(_)));
                add_to(lost, oldest.as_gap());
            });
        }
        if dropped > 0 {
            inner.queue.shrink();
            inner.measure();
        }
        dropped
    }

    /// Drops all that waits, if the policy allows it; how many events. A gap stays in their place, for the socket's next turn.
    pub(crate) fn shed(&self) -> Option<usize> {
        if self.bounds.policy == DropPolicy::Block && !self.bounds.repairs() {
            return None;
        }
        let mut inner = self.lock();
        let queue = std::mem::take(&mut inner.queue);
        inner.bytes = 0;
        inner.measure();
        let items: Vec<Item> = queue.into_items().collect();
        let events = if self.bounds.repairs() {
            self.pass_over_all(&mut inner, items.iter().cloned());
            items.iter().filter(|item| item.is_event()).count()
        } else {
            items.iter().map(|item| inner.lose(item)).sum()
        };
        // What they share with others may be much to let go of.
        drop(inner);
        drop(items);
        Some(events)
    }

    /// Says that the system has not taken all, and how many bytes are being written; or `None`: it has, and nothing waits.
    pub(crate) fn set_behind(&self, writing: Option<usize>) {
        let mut inner = self.lock();
        inner.writing = narrow(writing.unwrap_or(0));
        inner.behind_since = writing.map(|_| inner.behind_since.unwrap_or_else(Instant::now));
    }

    /// How the socket does.
    pub(crate) fn standing(&self) -> Standing {
        let inner = self.lock();
        Standing {
            behind_since: inner.behind_since,
            stalled: inner.stalled,
            waiting: inner.bytes,
            writing: inner.writing as usize,
            may_shed: self.bounds.policy == DropPolicy::DropOldest || self.bounds.repairs(),
        }
    }

    /// How many messages have to go, at the least.
    fn excess(&self, inner: &Inner, held: usize) -> usize {
        let (bytes, messages) = (inner.bytes, inner.queue.len());
        if inner.stalled {
            messages.saturating_sub(self.bounds.messages()).max(usize::from(bytes > self.bounds.bytes()))
        } else {
            usize::from(self.bounds.is_past_burst(bytes, messages, held))
        }
    }

    fn overflow_has_room(&self, inner: &mut Inner, bytes: usize, held: usize) -> bool {
        let (messages, bound) = (inner.queue.len(), self.bounds.messages());
        if !inner.stalled || messages < bound {
            inner.overflowing_since = None;
        } else {
            let since = *inner.overflowing_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= Duration::from_millis(self.bounds.overflow_ms.into()) {
                return false;
            }
        }
        let full = inner.stalled && messages >= bound.saturating_mul(OVERFLOW_FACTOR);
        !full && (messages == 0 || !self.bounds.is_past_burst(bytes, messages + 1, held))
    }

    /// Takes items from the front until they make up `bytes`, a gap for what was dropped before them first; and says what has to be
    /// read before there are more, which is written after the items. For the socket's task, once it has written all that it took
    /// before.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Taken {
        let mut inner = self.lock();
        if let Some(mend) = self.order(&mut inner) {
            return Taken { mend: Some(mend), ..Taken::default() };
        }
        if inner.repair.as_ref().is_some_and(|repair| repair.holds_back()) {
            return Taken::default();
        }
        let items = self.take_items(&mut inner, bytes);
        // Nobody wakes the task again for a hole that is first now, or for what was passed over.
        let mend = self.order(&mut inner);
        Taken { items, mend }
    }

    fn take_items(&self, inner: &mut Inner, bytes: usize) -> Items {
        if inner.queue.is_empty() && inner.lost.is_none() {
            return Items::new();
        }
        let mut items = Items::with_capacity(inner.queue.len() + usize::from(inner.lost.is_some()));
        items.extend(inner.lost.take().map(Item::Gap));
        let mut taken = 0;
        while taken < bytes
            && let Some(item) = inner.queue.pop_front()
        {
            taken += item.bytes();
            if let Item::Hole(hole) = item {
                // Nothing behind it goes out before it is mended.
                inner.repair.get_or_insert_default().meet(*hole);
                break;
            }
            inner.highest_out = inner.highest_out.max(item.seq().unwrap_or(0));
            items.push(item);
        }
        inner.bytes -= taken;
        if inner.queue.is_empty() {
            // A burst must not pin its memory for the rest of a long connection.
            inner.queue = Queue::default();
            inner.overflowing_since = None;
            inner.long = None;
        }
        items
    }

    /// Says whether the socket takes no bytes. If so, what waits past the bounds for that is dropped; returns how many events.
    pub(crate) fn set_stalled(&self, stalled: bool) -> usize {
        let mut inner = self.lock();
        inner.stalled = stalled;
        if self.bounds.repairs() {
            if stalled {
                self.pass_over_excess(&mut inner);
            }
            return 0;
        }
        match self.bounds.policy {
            DropPolicy::DropOldest if stalled => self.drop_excess(&mut inner, 0),
            DropPolicy::DropOldest | DropPolicy::Block => 0,
        }
    }

    /// Refuses everything from now on. What waits can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// The same, and lets go of all that waits and of all that is missing.
    pub(crate) fn empty(&self) {
        let gone = std::mem::replace(&mut *self.lock(), Inner { closed: true, ..Inner::default() });
        // What they share with others may be much to let go of.
        drop(gone);
    }

    /// Has nobody panicked in the middle of a change? Takes no lock.
    pub(crate) fn is_sound(&self) -> bool {
        !self.inner.is_poisoned()
    }

    /// How many items wait to be written; gaps count as one each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Does nothing wait to be written?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
