//! Sessions that joined a route lately, and what came over it since.
//!
//! An event that this pod has seen may come again because a session that wants it was between pods when it came. If that session
//! is here by then, it joined after this pod took the event, and must have it; and nobody on the route may have it twice.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use daisi_ws_domain::{event::StreamId, ids::ConnectionId, maps::Map};

/// For how long somebody has joined lately: an event that was sent back is here again well within this time after its session is.
const LATELY: Duration = Duration::from_secs(10);
/// Events that are told apart; where there are more within that time, nobody has joined lately.
const MAX_EVENTS: usize = 8192;

/// An event as the stream has it.
pub(super) type EventKey = (StreamId, u64);

/// Kept for a route while somebody has joined it lately.
#[derive(Debug, Default)]
pub(super) struct Latecomers {
    /// Goes up whenever somebody joins.
    turn: u64,
    /// Who joined when, in order.
    joined: VecDeque<(Instant, u64, ConnectionId)>,
    /// The turn in which an event was last brought to all who were there.
    brought: Map<EventKey, u64>,
}

impl Latecomers {
    /// Has somebody who joined then joined lately?
    pub(super) fn is_lately(at: Instant, now: Instant) -> bool {
        now <= at + LATELY
    }

    /// Somebody joins.
    pub(super) fn join(&mut self, connection: &ConnectionId, now: Instant) {
        while self.joined.front().is_some_and(|(at, ..)| !Self::is_lately(*at, now)) {
            self.joined.pop_front();
        }
        self.turn += 1;
        self.joined.push_back((now, self.turn, connection.clone()));
    }

    /// An event is brought to all who are there. False if there is no reason to keep any of this.
    #[must_use]
    pub(super) fn bring(&mut self, event: EventKey, now: Instant) -> bool {
        let somebody = self.joined.back().is_some_and(|(at, ..)| Self::is_lately(*at, now));
        if !somebody || self.brought.len() >= MAX_EVENTS {
            return false;
        }
        self.brought.insert(event, self.turn);
        true
    }

    /// An event comes again: those who were not there when it was brought before. They are from now on.
    pub(super) fn who_missed(&mut self, event: EventKey) -> Vec<ConnectionId> {
        let before = self.brought.insert(event, self.turn).unwrap_or(0);
        self.joined.iter().filter(|(_, turn, _)| *turn > before).map(|(.., connection)| connection.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(id: &str) -> ConnectionId {
        ConnectionId::parse(id).unwrap()
    }

    fn event(seq: u64) -> EventKey {
        (StreamId(1), seq)
    }

    #[test]
    fn who_joined_after_an_event_was_brought_missed_it_and_does_so_once() {
        let (mut late, now) = (Latecomers::default(), Instant::now());
        late.join(&socket("a"), now);
        assert!(late.bring(event(1), now));
        late.join(&socket("b"), now);
        assert_eq!(late.who_missed(event(1)), [socket("b")]);
        late.join(&socket("c"), now);
        assert_eq!(late.who_missed(event(1)), [socket("c")]);
        assert!(late.who_missed(event(1)).is_empty());
        // Brought before anybody joined lately.
        assert_eq!(late.who_missed(event(0)).len(), 3);
        assert!(late.who_missed(event(0)).is_empty());
    }

    #[test]
    fn nothing_is_kept_for_longer_than_somebody_has_joined_lately_nor_for_very_many_events() {
        let (mut late, now) = (Latecomers::default(), Instant::now());
        late.join(&socket("a"), now);
        assert!(late.bring(event(1), now + LATELY));
        assert!(!late.bring(event(2), now + LATELY + Duration::from_millis(1)));
        late.join(&socket("b"), now + LATELY + Duration::from_millis(1));
        assert_eq!(late.joined.len(), 1);
        let kept = (2..=2 * MAX_EVENTS as u64).take_while(|seq| late.bring(event(*seq), now + LATELY)).count();
        assert!(kept < MAX_EVENTS);
    }
}
