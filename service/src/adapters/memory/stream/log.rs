//! What the stream holds, and what its consumer has delivered: data behind one lock, without a wait.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use daisi_ws_domain::{
    event::StreamId,
    gap::{Gap, GapCause},
    ids::PodId,
    maps::Set,
};
use tokio::time::Instant;

use crate::{
    ports::{AckToken, Delivery, RawEvent, Settlement, SpanRequest, StoredEvent, StreamBounds, Stretch},
    runtime::clock,
};

/// So many takes are remembered: what a person can look at.
const TAKES: usize = 1000;

/// How a stream is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// An event not settled within this time is delivered again.
    pub ack_wait: Duration,
    /// So many events may be unsettled over all pods.
    pub max_ack_pending: usize,
    /// So many events are kept; the oldest make room.
    pub capacity: usize,
    /// So often an event is delivered, at most; past that it vanishes. `None` is without a limit.
    pub max_deliveries: Option<u64>,
}

impl Default for StreamOptions {
    /// Ten seconds and 5000, as the configuration has them, and 100 000 events.
    fn default() -> Self {
        Self { ack_wait: Duration::from_secs(10), max_ack_pending: 5000, capacity: 100_000, max_deliveries: None }
    }
}

/// What a publisher sends beside subject and payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// `X-Request-ID`.
    pub request_id: Option<String>,
    /// `traceparent`.
    pub traceparent: Option<String>,
}

/// Which pod took an event last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// The event.
    pub seq: u64,
    /// The pod.
    pub pod: PodId,
    /// When the event was stored, since the Unix epoch.
    pub stored_at: Duration,
}

#[derive(Debug, Clone)]
struct Stored {
    subject: String,
    payload: Bytes,
    headers: Headers,
    at: Duration,
    since: Instant,
}

/// An event that was delivered and not settled.
#[derive(Debug)]
struct Pending {
    deliveries: u64,
    /// When it is up for delivery again.
    due: Instant,
}

#[derive(Debug)]
pub(super) struct Log {
    pub(super) id: StreamId,
    pub(super) options: StreamOptions,
    events: VecDeque<Stored>,
    /// How many were dropped before the first event in `events`; sequences begin with 1.
    dropped: u64,
    /// Next event that the consumer has not delivered; `None` until there is a consumer.
    next: Option<u64>,
    pending: BTreeMap<u64, Pending>,
    pub(super) terminated: BTreeSet<u64>,
    pub(super) takes: VecDeque<Take>,
    pub(super) down: bool,
    pub(super) cut: Set<PodId>,
    /// What each consumer did not settle that another one came after, if anything.
    pub(super) passed_over: Vec<Option<Gap>>,
}

impl Log {
    /// An empty one, without a consumer yet.
    pub(super) fn new(id: StreamId, options: StreamOptions) -> Self {
        Self {
            id,
            options,
            events: VecDeque::new(),
            dropped: 0,
            next: None,
            pending: BTreeMap::new(),
            terminated: BTreeSet::new(),
            takes: VecDeque::new(),
            down: false,
            cut: Set::default(),
            passed_over: Vec::new(),
        }
    }

    /// Sequence of the oldest event that is kept, or of the next if there is none.
    fn first(&self) -> u64 {
        self.dropped + 1
    }

    /// Begins the consumer with the next event, unless it has begun.
    pub(super) fn begin(&mut self) {
        let end = self.end();
        self.next.get_or_insert(end);
    }

    /// Begins the consumer anew with the next event, whatever is not settled.
    pub(super) fn make_consumer_anew(&mut self) {
        let (floor, last) = (self.floor(), self.end() - 1);
        let gap = Gap { dropped: None, first_seq: Some(floor + 1), last_seq: Some(last), cause: GapCause::GivenUp };
        self.passed_over.push((floor < last).then_some(gap));
        self.pending.clear();
        self.next = Some(self.end());
    }

    /// Stores an event, for which the oldest makes room if there are as many as may be.
    pub(super) fn append(&mut self, subject: &str, payload: Bytes, headers: Headers) -> u64 {
        let seq = self.end();
        self.events.push_back(Stored { subject: subject.to_owned(), payload, headers, at: clock::now(), since: Instant::now() });
        if self.events.len() > self.options.capacity.max(1) {
            self.drop_oldest();
        }
        seq
    }

    /// How many events are delivered and not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.pending.len()
    }

    /// Sequence up to which everything is settled.
    pub(super) fn floor(&self) -> u64 {
        let next = self.next.unwrap_or_else(|| self.end());
        self.pending.first_key_value().map_or(next, |(oldest, _)| *oldest) - 1
    }

    /// How many events the consumer has not delivered.
    pub(super) fn undelivered(&self) -> u64 {
        self.next.map_or(0, |next| self.end() - next.max(self.first()))
    }

    /// Sequence of the next event to be stored.
    pub(super) fn end(&self) -> u64 {
        self.first() + self.events.len() as u64
    }

    fn get(&self, seq: u64) -> Option<&Stored> {
        let index = usize::try_from(seq.checked_sub(self.first())?).ok()?;
        self.events.get(index)
    }

    fn drop_oldest(&mut self) {
        let oldest = self.first();
        self.events.pop_front();
        self.pending.remove(&oldest);
        self.terminated.remove(&oldest);
        self.dropped += 1;
    }

    /// Can the pod use the stream?
    pub(super) fn reaches(&self, pod: &PodId) -> bool {
        !self.down && !self.cut.contains(pod)
    }

    /// Delivers up to `max` events that are due, redeliveries first.
    pub(super) fn deliver(&mut self, max: usize) -> Vec<RawEvent> {
        let now = Instant::now();
        let due = now + self.options.ack_wait;
        self.let_vanish(now);
        let mut deliver: Vec<u64> = self.pending.iter().filter(|(_, p)| p.due <= now).map(|(seq, _)| *seq).take(max).collect();
        let mut next = self.next.unwrap_or_else(|| self.end()).max(self.first());
        let free = self.options.max_ack_pending.max(1).saturating_sub(self.pending.len());
        let new = (self.end() - next).min(free.min(max - deliver.len()) as u64);
        deliver.extend(next..next + new);
        next += new;
        self.next = Some(next);
        deliver.into_iter().filter_map(|seq| self.deliver_one(seq, due)).collect()
    }

    /// What is due again and was delivered as often as may be is gone, and said to be.
    fn let_vanish(&mut self, now: Instant) {
        let Some(limit) = self.options.max_deliveries else { return };
        let vanished: Vec<u64> =
            self.pending.iter().filter(|(_, p)| p.due <= now && p.deliveries >= limit).map(|(seq, _)| *seq).collect();
        for seq in vanished {
            self.pending.remove(&seq);
            self.passed_over.push(Some(Gap { dropped: None, ..Gap::of(seq, GapCause::GivenUp) }));
        }
    }

    /// Remembers that the pod took the events.
    pub(super) fn note_takes(&mut self, pod: &PodId, events: &[RawEvent]) {
        let takes = events.iter().map(|event| Take { seq: event.seq, pod: pod.clone(), stored_at: event.stored_at });
        self.takes.extend(takes);
        let over = self.takes.len().saturating_sub(TAKES);
        self.takes.drain(..over);
    }

    fn deliver_one(&mut self, seq: u64, due: Instant) -> Option<RawEvent> {
        let stored = self.get(seq)?.clone();
        let pending = self.pending.entry(seq).or_insert(Pending { deliveries: 0, due });
        pending.deliveries += 1;
        pending.due = due;
        Some(RawEvent {
            subject: stored.subject,
            payload: stored.payload,
            stream: self.id,
            seq,
            stored_at: stored.at,
            delivery: Delivery {
                age: stored.since.elapsed(),
                is_last: self.options.max_deliveries.is_some_and(|limit| pending.deliveries >= limit),
                ..Delivery::now(pending.deliveries)
            },
            request_id: stored.headers.request_id,
            traceparent: stored.headers.traceparent,
            ack_token: AckToken(format!("{seq}.{}", pending.deliveries)),
        })
    }

    /// Settles an event. As nats-server does, this looks at the sequence alone; the delivery in the token is for people.
    pub(super) fn settle(&mut self, ack_token: &AckToken, settlement: Settlement) {
        let Some(seq) = ack_token.0.split('.').next().and_then(|seq| seq.parse().ok()) else { return };
        let Some(pending) = self.pending.get_mut(&seq) else { return };
        match settlement {
            Settlement::Retry(delay) => pending.due = Instant::now() + delay,
            Settlement::Extend => pending.due = Instant::now() + self.options.ack_wait,
            Settlement::Ack => {
                self.pending.remove(&seq);
            }
            Settlement::Terminate => {
                self.pending.remove(&seq);
                self.terminated.insert(seq);
            }
        }
    }

    /// What is kept.
    pub(super) fn bounds(&self) -> StreamBounds {
        let window = self.events.front().map(|oldest| oldest.since.elapsed());
        StreamBounds { stream: self.id, first: self.first(), last: self.end() - 1, window }
    }

    /// Events whose subject passes, beside the consumer.
    pub(super) fn read(&self, request: SpanRequest, passes: impl Fn(&str) -> bool) -> Stretch {
        let (mut events, mut bytes): (Vec<StoredEvent>, _) = (Vec::new(), 0);
        for seq in self.first().max(request.after.saturating_add(1))..self.end().min(request.upto.saturating_add(1)) {
            let Some(stored) = self.get(seq).filter(|stored| passes(&stored.subject)) else { continue };
            let size = stored.payload.len();
            if events.len() >= request.max_events || (!events.is_empty() && bytes + size > request.max_bytes) {
                let through = events.last().map_or(request.after, |last| last.seq);
                return Stretch { events, through };
            }
            bytes += size;
            let (subject, payload) = (stored.subject.clone(), stored.payload.clone());
            events.push(StoredEvent { subject, payload, seq, stored_at: stored.at });
        }
        Stretch { events, through: request.upto }
    }

    /// When the next redelivery is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.due).min()
    }
}
