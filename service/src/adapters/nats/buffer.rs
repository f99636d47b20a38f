//! What lies between the task that fetches events and the pod that pulls them: a small buffer, and how the link is.
//!
//! Every lock here is held for a few instructions, and never across an await.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::trouble::Away;
use crate::ports::{AckToken, RawEvent, SourceError, SourceLimits};

/// How the link to the consumer is.
#[derive(Debug, Clone)]
pub(super) enum ConsumerLink {
    /// The consumer was found and answers.
    Up,
    /// It is not so, and why.
    Down(SourceError),
}

impl ConsumerLink {
    fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }
}

#[derive(Debug)]
struct State {
    events: VecDeque<RawEvent>,
    /// As many events as the last pull wanted; 0 before the first, and after a give-back until the next.
    target: usize,
    link: ConsumerLink,
    limits: SourceLimits,
}

/// Fetched events that nobody has pulled yet.
#[derive(Debug)]
pub(super) struct Buffer {
    state: Mutex<State>,
    /// Told when an event came, and when the link changed.
    ready: Notify,
    /// Told when room was made.
    demand: Notify,
}

impl Buffer {
    /// Empty and wanting nothing. `limits` hold until the consumer's are known.
    pub(super) fn new(limits: SourceLimits) -> Self {
        let link = ConsumerLink::Down(SourceError::unreachable(Away::NotYet));
        Self {
            state: Mutex::new(State { events: VecDeque::new(), target: 0, link, limits }),
            ready: Notify::new(),
            demand: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up to `max` events and asks for as many to follow. What has lain here past the ack wait (the process was frozen) is
    /// dropped: it is being delivered again, perhaps elsewhere.
    pub(super) fn take(&self, max: usize) -> Vec<RawEvent> {
        let mut state = self.lock();
        state.target = max;
        let ack_wait = state.limits.ack_wait;
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(event) = state.events.pop_front()
        {
            if event.delivery.received_at.elapsed() < ack_wait {
                taken.push(event);
            }
        }
        drop(state);
        self.demand.notify_one();
        taken
    }

    /// Waits for an event or a change of the link since the last such wait. Cancel-safe. For one caller at a time.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Waits for room. Cancel-safe. For one caller at a time.
    pub(super) async fn demand(&self) {
        self.demand.notified().await;
    }

    /// Adds what came.
    pub(super) fn put(&self, events: impl IntoIterator<Item = RawEvent>) {
        self.lock().events.extend(events);
        self.ready.notify_one();
    }

    /// How many more events are wanted, when `outstanding` are asked for already. 0 while more than half of what a pull takes is
    /// here or on its way, so that requests are few.
    pub(super) fn room(&self, outstanding: usize) -> usize {
        let state = self.lock();
        let room = state.target.saturating_sub(state.events.len() + outstanding);
        if room * 2 >= state.target { room } else { 0 }
    }

    /// Has an event been here for `patience`? Anyone who does not pull should not keep events from the other pods.
    pub(super) fn is_abandoned(&self, patience: Duration) -> bool {
        self.lock().events.front().is_some_and(|event| event.delivery.received_at.elapsed() >= patience)
    }

    /// Takes everything out to give it back, but for what has lain here past the ack wait: another pod may be at it, and would
    /// get it twice. If there was something, nothing is wanted until the next pull.
    pub(super) fn empty(&self) -> Vec<AckToken> {
        let mut state = self.lock();
        if !state.events.is_empty() {
            state.target = 0;
        }
        let ack_wait = state.limits.ack_wait;
        let fresh = |event: RawEvent| (event.delivery.received_at.elapsed() < ack_wait).then_some(event.ack_token);
        state.events.drain(..).filter_map(fresh).collect()
    }

    /// How the link is.
    pub(super) fn link(&self) -> ConsumerLink {
        self.lock().link.clone()
    }

    /// Is the link up?
    pub(super) fn is_up(&self) -> bool {
        self.lock().link.is_up()
    }

    /// Notes how the link is. True if it went up or down.
    pub(super) fn set_link(&self, link: ConsumerLink) -> bool {
        let mut state = self.lock();
        let changed = state.link.is_up() != link.is_up();
        state.link = link;
        drop(state);
        self.ready.notify_one();
        changed
    }

    /// The consumer's limits, as last read.
    pub(super) fn limits(&self) -> SourceLimits {
        self.lock().limits
    }

    /// Notes the consumer's limits.
    pub(super) fn set_limits(&self, limits: SourceLimits) {
        self.lock().limits = limits;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use daisi_ws_domain::event::StreamId;

    use super::*;
    use crate::ports::Delivery;

    fn buffer() -> Buffer {
        Buffer::new(SourceLimits { ack_wait: Duration::from_secs(10), max_ack_pending: 100 })
    }

    fn event(seq: u64) -> RawEvent {
        RawEvent {
            subject: "wa.acme.a1.chats".to_owned(),
            payload: Bytes::new(),
            stream: StreamId(1),
            seq,
            stored_at: Duration::ZERO,
            delivery: Delivery::now(1),
            request_id: None,
            traceparent: None,
            ack_token: AckToken(seq.to_string()),
        }
    }

    fn seqs(events: &[RawEvent]) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_lay_here_past_the_ack_wait_is_not_handed_out() {
        let buffer = buffer();
        buffer.put([event(1)]);
        tokio::time::advance(Duration::from_secs(10)).await;
        buffer.put([event(2)]);
        assert_eq!(seqs(&buffer.take(10)), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_for_before_the_first_pull_and_then_in_large_portions() {
        let buffer = buffer();
        assert_eq!(buffer.room(0), 0);
        assert!(buffer.take(10).is_empty());
        assert_eq!((buffer.room(0), buffer.room(10), buffer.room(6), buffer.room(5)), (10, 0, 0, 5));
        buffer.put((1..=4).map(event));
        assert_eq!((buffer.room(0), buffer.room(2)), (6, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_pulls_is_given_back_and_no_more_is_asked_for() {
        let buffer = buffer();
        buffer.take(10);
        buffer.put([event(1), event(2)]);
        assert!(!buffer.is_abandoned(Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(buffer.is_abandoned(Duration::from_secs(5)));
        assert_eq!(buffer.empty().len(), 2);
        assert_eq!(buffer.room(0), 0);
        buffer.put([event(3)]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(buffer.empty().is_empty());
        buffer.take(10);
        assert_eq!(buffer.room(0), 10);
    }
}
