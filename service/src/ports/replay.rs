//! Reading the stream again, by route or whole: what was stored while somebody was away, slow or frozen.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use daisi_ws_domain::{event::StreamId, route::RouteKey};

use super::errors::ReplayError;

/// What the stream holds, as its leader says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamBounds {
    /// Which stream: one made anew counts from 1 again.
    pub stream: StreamId,
    /// Sequence of the oldest event that it still has, or of the next if it has none.
    pub first: u64,
    /// Sequence of the last event that was stored; 0 if none was.
    pub last: u64,
    /// How old the oldest is, by the stream's own clock, if the stream has any and tells.
    pub window: Option<Duration>,
}

/// An event as the stream has it: nothing about it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Where it was published; not parsed yet.
    pub subject: String,
    /// Whatever bytes the publisher sent.
    pub payload: Bytes,
    /// Its place in the stream.
    pub seq: u64,
    /// When it was stored, since the Unix epoch.
    pub stored_at: Duration,
}

/// What is to be read: events of one route, after one sequence and up to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// Whose events.
    pub route: RouteKey,
    /// Only those with a higher sequence.
    pub after: u64,
    /// And none with a higher one than this, which is no higher than [`StreamBounds::last`] was.
    pub upto: u64,
    /// Stop once there are so many. At least 1.
    pub max_events: usize,
    /// Stop once they have so many bytes; one may have more.
    pub max_bytes: usize,
}

/// What is to be read of all routes: events after one sequence and up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanRequest {
    /// Only those with a higher sequence.
    pub after: u64,
    /// And none with a higher one than this, which is no higher than [`StreamBounds::last`] was.
    pub upto: u64,
    /// Stop once there are so many. At least 1.
    pub max_events: usize,
    /// Stop once they have so many bytes; one may have more.
    pub max_bytes: usize,
}

/// A part of the stream as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stretch {
    /// The events, in ascending order. Subjects that only resemble the route's may be among them.
    pub events: Vec<StoredEvent>,
    /// Everything that was asked for up to here that the stream still has is in `events`; `upto` of the request unless a bound
    /// was met.
    pub through: u64,
}

/// The stream as a buffer: read by route, beside the consumer. Nothing of a read is left on the server.
#[async_trait]
pub trait Replay: Send + Sync {
    /// What the stream holds now: whatever was stored before the call is within the bounds.
    async fn bounds(&self) -> Result<StreamBounds, ReplayError>;

    /// Reads events of a route. That none is left out up to [`Stretch::through`] is proved on the stream's leader: a replica
    /// that lags does not make a hole. Events that the stream lets go of meanwhile are not in it, so who needs to know looks at
    /// the bounds again afterwards.
    async fn read(&self, request: &ReadRequest) -> Result<Stretch, ReplayError>;

    /// Reads events of all routes, and what is of none: the same in everything else. An event costs a small part of what it
    /// costs to look for one route's, and each that lies between is read.
    async fn read_all(&self, request: &SpanRequest) -> Result<Stretch, ReplayError>;
}
