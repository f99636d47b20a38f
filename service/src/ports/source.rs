//! The durable consumer that all pods share.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use daisi_ws_domain::{event::StreamId, gap::Gap};
use tokio::time::Instant;

use super::errors::SourceError;

/// By what a pulled event is settled: opaque, meaningful to the source that gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckToken(pub String);

/// One delivery of an event.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// How often it has been delivered, this time included.
    pub count: u64,
    /// When it can have come at the earliest, by this host's monotonic clock. From then on it has the consumer's ack wait; what
    /// is settled later than that is another pod's already.
    pub received_at: Instant,
    /// How old it was then, by the stream's own clock: no two hosts have to agree on the time.
    pub age: Duration,
    /// The stream will not deliver it again, whatever becomes of it: the consumer has a limit.
    pub is_last: bool,
}

impl Delivery {
    /// A delivery of this moment, of an event that was stored just now.
    #[must_use]
    pub fn now(count: u64) -> Self {
        Self { count, received_at: Instant::now(), age: Duration::ZERO, is_last: false }
    }

    /// How old the event is.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age + self.received_at.elapsed()
    }

    /// The source was asked at `at` to leave it here for longer.
    pub(crate) fn extended(&mut self, at: Instant) {
        self.age += at.saturating_duration_since(self.received_at);
        self.received_at = self.received_at.max(at);
    }
}

/// An event as the stream has it: nothing about it is checked yet.
#[derive(Debug, Clone)]
pub struct RawEvent {
    /// Where it was published; not parsed yet.
    pub subject: String,
    /// Whatever bytes the publisher sent.
    pub payload: Bytes,
    /// The stream's time of creation: one made anew counts from 1 again.
    pub stream: StreamId,
    /// Its place in the stream.
    pub seq: u64,
    /// When it was stored, since the Unix epoch.
    pub stored_at: Duration,
    /// How it came.
    pub delivery: Delivery,
    /// The publisher's `X-Request-ID`, if it gave one.
    pub request_id: Option<String>,
    /// The publisher's W3C trace context, if it gave one.
    pub traceparent: Option<String>,
    /// Settles it.
    pub ack_token: AckToken,
}

/// What becomes of a pulled event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Every live target has it, or there is none.
    Ack,
    /// Deliver it again, to any pod, after this time.
    Retry(Duration),
    /// Never deliver it again.
    Terminate,
    /// Not yet: it has the ack wait again, from now on.
    Extend,
}

/// The limits of the consumer, as it really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimits {
    /// An event not settled within this time is delivered again.
    pub ack_wait: Duration,
    /// So many events may be unsettled over the whole fleet.
    pub max_ack_pending: usize,
}

/// Up to where the consumer's events are settled, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledUpTo {
    /// The stream whose consumer it is.
    pub stream: StreamId,
    /// The consumer's ack floor: no event up to this sequence comes again.
    pub seq: u64,
    /// When that was so, by the clock that time-stamps events.
    pub at: Duration,
}

/// How far the consumer is, and how far behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLag {
    /// Events that it has not delivered yet.
    pub pending: u64,
    /// Events that it has delivered and that are not settled.
    pub ack_pending: usize,
    /// What is settled; `None` while the source can't tell of which stream.
    pub settled: Option<SettledUpTo>,
}

/// The durable consumer that all pods share: each event is taken by one pod at a time.
#[async_trait]
pub trait EventSource: Send + Sync {
    /// Waits until at least one event is there and takes up to `max` of what is ready. Only one call at a time. Dropping the
    /// future loses nothing: what was already fetched comes out of the next call, or is delivered again after the ack wait. An
    /// outage is an error after at most a few seconds; the next call goes on where the durable stood.
    async fn pull(&self, max: usize) -> Result<Vec<RawEvent>, SourceError>;

    /// Settles events. It may be late: an ack still counts then, which is right as every live target has the event; the others
    /// would take it from the pod to which it has been delivered again, so the caller sends none past the ack wait. What does not
    /// reach the stream is delivered again after the ack wait.
    async fn settle(&self, settlements: Vec<(AckToken, Settlement)>) -> Result<(), SourceError>;

    /// Gives back what was fetched and not yet pulled, for a pod that stops.
    async fn close(&self);

    /// Asks for no more events from now on, or for events again. What was fetched and not yet pulled is given back, and so is
    /// what still comes for earlier requests, so that other pods have it at once. Settling goes on. Waits for nothing.
    fn hold(&self, hold: bool);

    /// How far the consumer is, over all pods. Asks the stream; not for every event.
    async fn lag(&self) -> Result<SourceLag, SourceError>;

    /// Events that the consumer will never deliver although nobody settled them (it, or the stream, was made anew), found since
    /// the last call. Every pod finds them for itself.
    fn take_missed(&self) -> Option<Gap> {
        None
    }

    /// The consumer's limits, as last read from it.
    fn limits(&self) -> SourceLimits;

    /// Why no events come and none can be settled now, if that is so.
    fn trouble(&self) -> Option<SourceError>;

    /// Is the connection up?
    fn is_connected(&self) -> bool {
        self.trouble().is_none()
    }
}
