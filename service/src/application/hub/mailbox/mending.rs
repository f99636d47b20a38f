//! A mailbox that passes over what has no room, and takes in what was read of it again.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{event::StreamId, gap::Gap};

use super::{
    Inner, Mailbox,
    item::Item,
    queue::Queue,
    repair::{MendOrder, Reading, Skipped},
};
use crate::application::hub::prepared_message::PreparedMessage;

/// A socket that has had something waiting for this long without a break is slow.
const SLOW_AFTER: Duration = Duration::from_secs(2);

impl Inner {
    /// Had the client this event before, or was it read again for it?
    pub(super) fn is_covered(&self, item: &Item) -> bool {
        item.seq().is_some_and(|seq| seq <= self.covered_up_to && self.covered_in.is_of(item) && self.covers(seq))
    }

    /// What is had is of this stream. In another one it was other events.
    fn turn_to(&mut self, stream: StreamId) {
        if self.covered_in.is(stream) {
            return;
        }
        self.covered_in.set(stream);
        self.had_up_to = 0;
        self.repair.iter_mut().for_each(|repair| repair.forget_covers());
    }

    pub(super) fn covers(&self, seq: u64) -> bool {
        seq <= self.had_up_to || self.repair.as_ref().is_some_and(|repair| repair.covers(seq))
    }

    /// From now on nothing newer is taken.
    pub(super) fn skipped(&mut self) -> &mut Skipped {
        let highest = self.queue.highest().max(self.highest_out);
        self.repair.get_or_insert_default().skipped.get_or_insert_with(|| Skipped::new(highest))
    }

    pub(super) fn is_behind(&self) -> bool {
        self.repair.as_ref().is_some_and(|repair| repair.is_behind())
    }
}

impl Mailbox {
    pub(super) fn push_or_pass_over(&self, inner: &mut Inner, item: Item) {
        let bytes = inner.bytes + item.bytes();
        let is_skipping = inner.repair.as_ref().is_some_and(|repair| repair.skipped.is_some());
        if is_skipping || !self.has_room(inner, bytes, &item) {
            inner.skipped().pass_over(&item);
            return;
        }
        inner.bytes = bytes;
        let places = inner.queue.capacity();
        inner.queue.push_back(item);
        if inner.queue.capacity() != places {
            inner.measure();
        }
    }

    fn has_room(&self, inner: &Inner, bytes: usize, item: &Item) -> bool {
        let messages = inner.queue.len();
        if messages == 0 {
            return true;
        }
        if bytes <= self.bounds.bytes() && messages < self.bounds.messages() {
            return true;
        }
        // With the stream behind it, a socket that has been behind for long needs no burst.
        let is_slow = || inner.behind_since.is_some_and(|since| since.elapsed() >= SLOW_AFTER);
        !inner.stalled && !is_slow() && !self.bounds.is_past_burst(bytes, messages + 1, item.held())
    }

    /// Passes over what is past the bounds of a socket that takes nothing, the newest first.
    pub(super) fn pass_over_excess(&self, inner: &mut Inner) {
        let mut excess = Vec::new();
        while inner.queue.len() > 1
            && (inner.queue.len() > self.bounds.messages() || inner.bytes > self.bounds.bytes())
            && let Some(item) = inner.queue.pop_back()
        {
            inner.bytes -= item.bytes();
            excess.push(item);
        }
        self.pass_over_all(inner, excess.into_iter().rev());
    }

    pub(super) fn pass_over_all(&self, inner: &mut Inner, items: impl ExactSizeIterator<Item = Item>) {
        if items.len() == 0 {
            return;
        }
        inner.queue.note_highest();
        let before = inner.repair.get_or_insert_default().skipped.take();
        let skipped = inner.skipped();
        items.for_each(|item| skipped.pass_over(&item));
        if let Some(before) = before {
            skipped.go_on_with(before);
        }
        inner.queue.shrink();
        inner.measure();
    }

    /// Says up to where the client had everything when it came: what comes of that, or is here of it already, is none of its
    /// business.
    pub(crate) fn begin_after(&self, stream: StreamId, seq: u64) {
        let mut inner = self.lock();
        inner.turn_to(stream);
        inner.had_up_to = seq;
        Self::drop_covered(&mut inner);
    }

    /// Is this the stream of which the client is known to have something?
    pub(crate) fn is_in(&self, stream: StreamId) -> bool {
        self.lock().covered_in.is(stream)
    }

    fn drop_covered(inner: &mut Inner) {
        let read = inner.repair.as_ref().map_or(0, |repair| repair.covered_up_to());
        inner.covered_up_to = read.max(inner.had_up_to);
        if !inner.queue.seqs().any(|seq| seq <= inner.covered_up_to) {
            return;
        }
        let queue = std::mem::take(&mut inner.queue);
        let mut kept = Queue::default();
        let mut bytes = 0;
        for item in queue.into_items().filter(|item| !inner.is_covered(item)) {
            bytes += item.bytes();
            kept.push_back(item);
        }
        (inner.queue, inner.bytes) = (kept, bytes);
        inner.measure();
    }

    /// Takes out of what was read again what the client has all the same.
    pub(crate) fn retain_missing(&self, read: &mut Vec<Arc<PreparedMessage>>) {
        let inner = self.lock();
        read.retain(|event| !inner.is_covered(&Item::Event(Arc::clone(event))));
    }

    /// Takes in what was read of a stream for the last [order](super::Taken::mend), and which events of that are
    /// [missing](Self::retain_missing) and written now, or that nothing can be read. Returns what the client has to be told before
    /// them.
    pub(crate) fn mended(&self, read: Option<Reading>, written: &[Arc<PreparedMessage>]) -> Option<Gap> {
        let mut inner = self.lock();
        read.iter().for_each(|read| inner.turn_to(read.stream));
        let repair = inner.repair.as_mut()?;
        let written: Vec<u64> = written.iter().map(|event| event.seq).collect();
        let told = repair.mended(read, &written);
        Self::drop_covered(&mut inner);
        if inner.repair.as_ref().is_some_and(|repair| repair.is_idle()) {
            inner.repair = None;
        }
        told
    }

    /// Does anything newer than what is missing wait, or is passed over?
    pub(crate) fn is_pressing(&self) -> bool {
        let inner = self.lock();
        !inner.queue.is_empty() || inner.repair.as_ref().is_some_and(|repair| repair.skipped.is_some())
    }

    /// Is something missing that is to be read again?
    pub(crate) fn is_behind(&self) -> bool {
        self.lock().is_behind()
    }

    pub(super) fn order(&self, inner: &mut Inner) -> Option<Box<MendOrder>> {
        let is_written = inner.queue.is_empty();
        inner.repair.as_mut()?.order(is_written, self.bounds.repair.into()).map(Box::new)
    }
}
