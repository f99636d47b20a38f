//! The bounded window by which a pod recognises a redelivery.

use std::collections::{HashSet, VecDeque};

use super::event::StreamId;

/// The last events that some socket of this pod has taken, by stream and sequence.
///
/// It holds more than the consumer's max-ack-pending, so that no event that can still be redelivered has left it.
#[derive(Debug)]
pub struct SeenWindow {
    stream: Option<StreamId>,
    capacity: usize,
    order: VecDeque<u64>,
    seen: HashSet<u64>,
}

impl SeenWindow {
    /// An empty window that remembers `capacity` events. It grows on use.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { stream: None, capacity: capacity.max(1), order: VecDeque::new(), seen: HashSet::new() }
    }

    /// Was this event taken here before? A stream made anew starts from nothing.
    #[must_use]
    pub fn contains(&self, stream: StreamId, seq: u64) -> bool {
        self.stream == Some(stream) && self.seen.contains(&seq)
    }

    /// Remembers an event, and forgets the oldest one past the capacity. An event of an unknown stream has no sequence to know it by and is
    /// not remembered: it would pass for a stream made anew and empty the window.
    pub fn insert(&mut self, stream: StreamId, seq: u64) {
        if stream == StreamId::UNKNOWN {
            return;
        }
        if self.stream != Some(stream) {
            self.stream = Some(stream);
            self.order.clear();
            self.seen.clear();
        }
        if !self.seen.insert(seq) {
            return;
        }
        self.order.push_back(seq);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redelivery_is_recognised_until_it_leaves_the_window() {
        let (stream, mut window) = (StreamId(1), SeenWindow::new(2));
        for seq in [5, 6, 6, 7] {
            window.insert(stream, seq);
        }
        assert!(!window.contains(stream, 5) && window.contains(stream, 6) && window.contains(stream, 7));
    }

    #[test]
    fn an_event_of_an_unknown_stream_is_not_remembered_and_empties_nothing() {
        let mut window = SeenWindow::new(10);
        window.insert(StreamId(1), 1);
        window.insert(StreamId::UNKNOWN, 0);
        assert!(window.contains(StreamId(1), 1) && !window.contains(StreamId::UNKNOWN, 0));
    }

    #[test]
    fn a_stream_made_anew_is_not_mistaken_for_a_redelivery() {
        let mut window = SeenWindow::new(10);
        window.insert(StreamId(1), 1);
        assert!(!window.contains(StreamId(2), 1));
        window.insert(StreamId(2), 9);
        assert!(!window.contains(StreamId(1), 1));
    }
}
